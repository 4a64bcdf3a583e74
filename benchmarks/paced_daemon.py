"""The command `shoal`, as it is, whose workers take paced steps: `python -m benchmarks.paced_daemon start …`."""

import sys

from peer.commands.main import main
from peer.train.launch import MODULES

if __name__ == "__main__":
    MODULES.append("benchmarks.paced_worker")
    sys.exit(main())
