"""The command `shoal`, also as `python -m peer`."""

import sys

from peer.cli import main

if __name__ == "__main__":
    sys.exit(main())
