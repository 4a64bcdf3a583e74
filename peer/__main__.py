"""The command `shoal`, also as `python -m peer`."""

import signal
import sys

handler = signal.getsignal(signal.SIGINT)
if handler is signal.default_int_handler:  # a worker, which imports this module as well, ignores Ctrl-C
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while modules are imported it ends the process, without a traceback

from peer.commands.main import main  # noqa: E402

signal.signal(signal.SIGINT, handler)

if __name__ == "__main__":
    sys.exit(main())
