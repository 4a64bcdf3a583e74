"""Lets a process give way to every daemon of its machine: the fork server does, before its imports, which take seconds.

The workers, which are forked from it, inherit that. A daemon's answers are short and others wait for them; training
takes whatever is left. Where nobody else wants the processor it costs training nothing.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

NICENESS = 5  # the niceness of workers; a daemon then gets three times the time of a worker where both want it
TRIES, TRY_AGAIN_S = 5, 0.11  # the kernel takes the niceness of a session ten times a second at most


def give_way() -> None:
    """Lower this process's priority, and leave the terminal's session."""
    with suppress(OSError):
        # Also out of the terminal's reach: its Ctrl-C and its end are the daemon's affair alone.
        os.setsid()
    os.nice(NICENESS)
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        _set_autogroup()


def _set_autogroup() -> None:
    """Lower the session: some kernels share the processor among sessions first, and niceness counts inside of one."""
    for _ in range(TRIES):
        try:
            Path("/proc/self/autogroup").write_text(str(NICENESS))
            return
        except BlockingIOError:
            time.sleep(TRY_AGAIN_S)
        except OSError:
            return
