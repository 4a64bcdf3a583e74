"""A worker's process: what signals do to it, when the kernel may kill it, and how it ends."""

import logging
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from configs.errors import ShoalError
from peer.train.channel import Channel
from peer.train.device import kind_of
from peer.train.messages import Failed
from peer.train.neighbours import NAME

OOM_SCORE = 500  # points that make the kernel, short of memory, kill a worker before it kills a daemon


def become_worker() -> None:
    """Ignore the signals that are meant for the daemon, and be known as a worker to the kernel."""
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # it has advice for CPUs, and peft imports it if it is there
    # A Ctrl-C or a service's stop reaches the whole process group; only the daemon decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(OSError):  # elsewhere than on Linux there are no such files
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
        Path("/proc/self/comm").write_text(NAME)


@contextmanager
def reporting(channel: Channel) -> Iterator[None]:
    """End this process when the daemon is gone, and with exit code 1, once it is told, when anything else fails."""
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)
    except Exception as error:
        kind = kind_of(error)
        named = str(error) if isinstance(error, ShoalError) else f"{type(error).__name__}: {error}"[:2000]
        reason = "out of memory" if kind == "memory" else named  # how many bytes of which pool is in the detail
        with suppress(OSError):
            channel.send(Failed(kind=kind, reason=reason, detail=traceback.format_exc()[-8000:]))
        os._exit(1)  # a broken process group can hang an orderly exit
