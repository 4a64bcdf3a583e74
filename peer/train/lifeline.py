"""Ends this process with its parent. Imported, first of all, by the fork server: it imports the rest for seconds."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1

if sys.platform == "linux":  # elsewhere it ends when its imports are done and nobody has asked for a worker
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
