"""The fork server gives way, and is out of reach of its terminal."""

import json
import subprocess
import sys

import pytest

from peer.train.background import NICENESS
from peer.train.launch import MODULES

ASKED = """
import json, os, sys
before = os.nice(0)
import peer.train.lifeline
is_leader, is_batch = os.getsid(0) == os.getpid(), os.sched_getscheduler(0) == os.SCHED_BATCH
print(json.dumps([os.nice(0) - before, is_leader, is_batch, "torch" in sys.modules]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at what Linux has")
def test_it_gives_way_in_a_session_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [NICENESS, True, True, False]


def test_a_fork_server_gives_way_before_its_imports_take_seconds() -> None:
    assert MODULES[0] == "peer.train.lifeline"
