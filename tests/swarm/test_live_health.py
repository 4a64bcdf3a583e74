"""What `/health` says of real daemons: of one whose worker is stopped, is killed, and of one that is told to pause."""

import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from mistake import MICRO, Daemon, running, shoal, until_status

from benchmarks.patience import until
from peer.http.health import SILENT_S
from peer.http.local import post_action

pytestmark = [pytest.mark.swarm, pytest.mark.long, pytest.mark.timeout(600)]


def asked(daemon: Daemon, path: str) -> tuple[int, dict[str, Any]]:
    """Return the code and the answer of a daemon."""
    try:
        with urllib.request.urlopen(f"{daemon.url}{path}", timeout=30.0) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def until_health(daemon: Daemon, *, is_healthy: bool, says: str = "") -> dict[str, Any]:
    def is_so(answer: tuple[int, dict[str, Any]]) -> bool:
        code, health = answer
        assert (code == 200) is health["is_healthy"] is (not health["reasons"])
        return bool(health["is_healthy"] is is_healthy and any(says in reason for reason in health["reasons"] or [""]))

    return until(lambda: asked(daemon, "/health"), is_so, f"healthy: {is_healthy}, because of '{says}'")[1]


def fork_server(daemon: Daemon) -> psutil.Process:
    """Return the process that forks the workers."""
    assert daemon.process is not None
    [server] = [
        each for each in psutil.Process(daemon.process.pid).children() if "forkserver" in " ".join(each.cmdline())
    ]
    return server


def worker(daemon: Daemon) -> int:
    """Return the process that trains: the one that the fork server has forked last."""
    return max(fork_server(daemon).children(), key=lambda each: each.create_time()).pid


def test_a_worker_that_hangs_or_dies_makes_its_peer_unhealthy(corpus: Path, tmp_path: Path) -> None:
    with running(shoal("start", "--config", MICRO, "--data", str(corpus)), tmp_path / "one") as daemon:
        assert asked(daemon, "/health")[1]["is_healthy"]  # it starts, and downloads
        until_status(daemon, lambda status: status.state == "training", "its first step")
        until_health(daemon, is_healthy=True)  # alone, and well

        stopped = worker(daemon)
        os.kill(stopped, signal.SIGSTOP)
        try:
            found = until_health(daemon, is_healthy=False, says="the worker has taken no step for")
            assert found["state"] == "training"
            assert asked(daemon, "/live") == (200, {"is_live": True})  # a restart is not its remedy
        finally:
            os.kill(stopped, signal.SIGCONT)
        until_health(daemon, is_healthy=True)
        assert worker(daemon) == stopped  # it was not started again meanwhile: it took a step

        server = fork_server(daemon)
        server.suspend()  # a new worker is there within a tenth of a second, and nobody would see that one was missing
        try:
            os.kill(stopped, signal.SIGKILL)
            until_health(daemon, is_healthy=False, says="has ended and is being started again")
        finally:
            server.resume()
        until_health(daemon, is_healthy=True)
        assert worker(daemon) != stopped

        post_action(daemon.url, "pause")
        paused_for = until_status(daemon, lambda status: status.state == "paused", "a pause").tick
        until_status(daemon, lambda status: status.tick > paused_for + SILENT_S + 2, "a pause of some length")
        health = asked(daemon, "/health")[1]
        assert (health["is_healthy"], health["state"]) == (True, "paused")
        post_action(daemon.url, "resume")
        assert asked(daemon, "/health")[1]["is_healthy"]  # its silence counts from now on
