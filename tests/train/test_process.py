"""How a worker's process says why it ends."""

import socket
import subprocess
import sys

import pytest
import torch

from configs.errors import DataError, DeviceError
from peer.train.channel import Channel
from peer.train.device import kind_of
from peer.train.messages import Failed
from peer.train.process import OOM_SCORE

ENDS = """
import socket, sys
from configs.errors import DataError
from peer.train.channel import Channel
from peer.train.process import become_worker, reporting
become_worker()
with reporting(Channel(socket.socket(fileno=int(sys.argv[1])))):
    raise {error}
"""


def test_errors_are_sorted_by_what_helps() -> None:
    assert kind_of(DeviceError("no cuda:7")) == "device"
    assert kind_of(MemoryError()) == "memory"
    assert kind_of(torch.OutOfMemoryError("CUDA out of memory")) == "memory"
    assert kind_of(RuntimeError("DefaultCPUAllocator: can't allocate memory")) == "memory"
    assert kind_of(RuntimeError("shape mismatch")) == "other"
    assert kind_of(DataError("a token file was cut off")) == "other"


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        ("EOFError", 0, None),  # the daemon is gone
        ("DataError('a token file was cut off')", 1, "a token file was cut off"),
        ("MemoryError", 1, "out of memory"),
        ("KeyError('x')", 1, "KeyError: 'x'"),
    ],
)
def test_a_worker_says_why_it_ends_unless_nobody_is_there(error: str, code: int, reason: str | None) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        script = [sys.executable, "-c", ENDS.format(error=error), str(theirs.fileno())]
        ended = subprocess.run(script, pass_fds=[theirs.fileno()], capture_output=True, text=True)
        theirs.close()
        assert ended.returncode == code, ended.stderr
        if reason is not None:
            said = Channel(ours).receive()
            assert isinstance(said, Failed) and said.reason == reason


@pytest.mark.skipif(sys.platform != "linux", reason="looks at what Linux has")
def test_the_kernel_ends_a_worker_before_it_ends_a_daemon() -> None:
    asked = (
        "from peer.train.process import become_worker; become_worker(); print(open('/proc/self/oom_score_adj').read())"
    )
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert int(said.stdout) == OOM_SCORE
