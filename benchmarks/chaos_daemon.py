"""The command `shoal`, as it is, whose workers take paced steps and give way to nobody, for `benchmarks.chaos`."""

import sys

from peer.commands.main import main
from peer.train.launch import MODULES

if __name__ == "__main__":
    MODULES.insert(0, "benchmarks.eager")
    MODULES.append("benchmarks.paced_worker")
    sys.exit(main())
