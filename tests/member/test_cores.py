"""What other programs take of the cores: of those that this peer may use, without its own and what gives way."""

import os
import subprocess
import sys
import time

import pytest

from peer.member.cores import OtherPrograms, Taken, allowed_cores, share_between


def test_the_share_is_of_what_is_busy_without_what_is_own() -> None:
    before, now = Taken(100.0, 40.0, {1: 5.0}), Taken(110.0, 48.0, {1: 8.0, 2: 3.0})
    assert share_between(before, now) == pytest.approx(0.5), "5 of 10 s; a process that is new has no past"
    assert share_between(now, now) is None
    assert share_between(before, Taken(110.0, 41.0, {1: 8.0})) == 0.0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
@pytest.mark.skipif(os.nice(0) > 0, reason="these tests run niced, and so would the other program")
def test_only_the_cores_that_may_be_used_count() -> None:
    """A program of another parent keeps one core busy; a look at other cores is a first one."""
    core = min(allowed_cores() or {0})
    burn = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    started = subprocess.run(
        ["sh", "-c", '"$@" > /dev/null 2>&1 & echo $!', "sh", sys.executable, "-c", burn],
        capture_output=True,
        text=True,
        check=True,
    )
    pid, others = int(started.stdout), OtherPrograms()
    try:
        time.sleep(0.5)  # it imports
        assert others.look({core}) is None
        time.sleep(1.0)
        share = others.look({core})
        assert others.look(None) is None, "these are other cores"
    finally:
        os.kill(pid, 9)
    assert share is not None and share > 0.2
