"""What the owner of a machine lets a real daemon take, said while it runs, and how soon that daemon is gone."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from mistake import MICRO, Daemon, running, shoal, until_status

from benchmarks.patience import HANG_S, until
from peer.commands.main import main
from peer.ending import LEAVE_S
from peer.http.local import change_limits, fetch_limits, post_action
from peer.train.neighbours import NAME

pytestmark = pytest.mark.swarm


def limits(daemon: Daemon, *options: str) -> int:
    return main(["limits", *options, "--state-dir", str(daemon.state_dir)])


def closed_hours() -> str:
    """Return a minute of the day that is neither now nor soon."""
    hour = time.localtime(time.time() + 6 * 3600).tm_hour
    return f"{hour:02}:00-{hour:02}:01"


@contextmanager
def frozen(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop a daemon with all of its processes, as a machine does that sleeps."""
    whole = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in whole:
        each.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for each in whole:
            each.send_signal(signal.SIGCONT)


def workers(daemon: Daemon) -> list[psutil.Process]:
    assert daemon.process is not None
    return [each for each in psutil.Process(daemon.process.pid).children(recursive=True) if each.name() == NAME]


def test_limits_hold_at_once_and_at_the_next_start(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, start = tmp_path / "state", shoal("start", "--config", MICRO, "--data", str(corpus), "--up-mbit", "5")
    temporary = tmp_path / ("t" * 150)  # longer than the path of a socket may be
    temporary.mkdir()
    with running(start, state, TMPDIR=str(temporary)) as daemon:
        until_status(daemon, lambda status: status.state == "training", "training")
        assert "too long for sockets; temporary files go to /tmp" in daemon.log
        assert fetch_limits(state)["up_mbit"]["value"] == 5
        # Hours
        hours = closed_hours()
        assert limits(daemon, "--no-up-mbit", "--down-mbit", "50", "--hours", hours) == 0
        paused = until_status(daemon, lambda status: status.state == "paused", "a pause by the hours").why
        opening = hours.partition("-")[0]
        assert paused.startswith(f"paused by itself: it is outside of the hours {hours}; goes on ")
        assert paused.endswith(f"at {opening}, or with `shoal resume`")
        assert fetch_limits(state)["hours"]["now"].startswith("it is outside of the hours")
        capsys.readouterr()
        assert main(["resume", "--state-dir", str(state)]) == 0
        assert "training again, although it is outside of the hours" in capsys.readouterr().out
        until_status(daemon, lambda status: status.state == "training" and not status.why, "training against the rule")
        # Memory
        before = {each.pid for each in workers(daemon)}
        assert limits(daemon, "--memory-gb", "0.1") == 1
        assert "memory_gb 0.1 is too little: a worker of this run needs" in capsys.readouterr().err
        assert {each.pid for each in workers(daemon)} == before
        assert limits(daemon, "--memory-gb", "1.5") == 0
        new = until(
            lambda: [each for each in workers(daemon) if each.pid not in before], bool, "a worker that keeps the limit"
        )
        lines = until(
            lambda: Path(f"/proc/{new[0].pid}/limits").read_text(), lambda text: "1500000000" in text, "its limit"
        )
        assert "Max data size" in next(line for line in lines.splitlines() if "1500000000" in line)
        until_status(daemon, lambda status: status.state == "training", "training with less memory")
        # Disk
        change_limits(state, {"disk_gb": 1e-4})
        warned = until_status(daemon, lambda status: any("disk" in text for text in status.warnings), "a warning")
        assert any("more than its limit of 0.0001 GB" in text for text in warned.warnings)
        assert (state / "blocks" / "model.safetensors").exists()
        assert limits(daemon, "--no-disk-gb") == 0
        until_status(daemon, lambda status: not any("disk" in text for text in status.warnings), "no warning")
    kept = json.loads((state / "machine.json").read_text())
    assert kept["hours"] == hours and kept["memory_gb"] == 1.5 and kept["up_mbit"] is None and kept["disk_gb"] is None
    with running(shoal("start"), state, SHOAL_RUN__TOTAL_TOKENS="7", SHOAL_RUN__SEED="3") as daemon:
        until_status(daemon, lambda status: status.why != "", "a pause at the next start")
        assert fetch_limits(state)["down_mbit"]["value"] == 50
        ignored = "what SHOAL_RUN__SEED and SHOAL_RUN__TOTAL_TOKENS says is ignored"
        assert f"a run never changes once it is founded: {ignored}" in daemon.log
        change_limits(state, {"hours": None})
        until_status(daemon, lambda status: status.state == "training", "training without hours")
        post_action(state, "pause")
        said = until_status(daemon, lambda status: status.state == "paused", "a pause by hand").why
        assert said == "paused by the owner of this machine; goes on with `shoal resume`"


def left_in(daemon: Daemon) -> float:
    """Tell a daemon to leave, and return how many seconds that took."""
    assert daemon.process is not None
    began = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(HANG_S) == 0, daemon.log[-3000:]
    return time.monotonic() - began


@pytest.mark.parametrize("frozen_too", ["nothing else", pytest.param("its own worker", marks=pytest.mark.long)])
def test_leaving_is_bounded_whoever_is_frozen(frozen_too: str, corpus: Path, tmp_path: Path) -> None:
    """On one core, with the only other holder frozen in the midst of its rounds."""
    core = f"{min(os.sched_getaffinity(0))}"
    start = ["taskset", "-c", core, *shoal("start", "--config", MICRO, "--data", str(corpus))]
    with running(start, tmp_path / "one") as one:
        join = ["taskset", "-c", core, *shoal("join", one.address)]
        with running(join, tmp_path / "two") as two:
            until_status(one, lambda status: status.peers[0].rounds >= 2 and len(status.peers) > 1, "rounds together")
            assert one.process is not None and two.process is not None
            with frozen(two.process):
                own = workers(one) if frozen_too == "its own worker" else []
                for worker in own:
                    worker.send_signal(signal.SIGSTOP)
                left_s = left_in(one)
                print(f"left in {left_s:.1f} s, with {frozen_too} frozen")
                assert left_s <= LEAVE_S + 1, one.log[-3000:]
                assert not [each for each in own if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert (tmp_path / "one" / "blocks" / "model.safetensors").exists()
