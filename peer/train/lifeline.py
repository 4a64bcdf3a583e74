"""Ends this process with its parent, and lets it give way. Imported, first of all, by the fork server.

It imports the rest for seconds.
"""

import ctypes
import signal
import sys

from peer.train.background import give_way

PR_SET_PDEATHSIG = 1

if sys.platform == "linux":  # elsewhere it ends when its imports are done and nobody has asked for a worker
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
give_way()
