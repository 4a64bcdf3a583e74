"""A closed run of real daemons, by the commands that a person types."""

import subprocess
import sys
from pathlib import Path

import pytest
from mistake import MICRO, mistake_of, running, shoal, until_status

from benchmarks.patience import HANG_S
from peer.http.local import fetch_status

pytestmark = pytest.mark.swarm


def said(*arguments: str) -> str:
    command = [sys.executable, "-m", "peer", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, check=True).stdout.strip()


def test_who_is_invited_trains_until_he_is_revoked(corpus: Path, tmp_path: Path) -> None:
    at, home = ("--state-dir", str(tmp_path / "founder")), ("--state-dir", str(tmp_path / "guest"))
    with running(shoal("start", "--config", MICRO, "--data", str(corpus), "--closed"), tmp_path / "founder") as founder:
        peer_id = said("identity", "show", *home)
        outside = mistake_of(shoal("join", founder.address, "--run", founder.run_id, *home))
        assert "this run is closed" in outside and "shoal identity show" in outside
        assert "this run is closed" in mistake_of(shoal("ask", founder.address, "99 bottles", *home))
        line = said("invite", peer_id, *at)
        assert founder.address in line and founder.run_id in line
        with running(shoal(*line.split()[1:]), tmp_path / "guest") as guest:
            until_status(founder, lambda s: any("sealed 2 of 2" in b.outcome for b in s.blocks), "a round together")
            assert {member.peer_id for member in fetch_status(founder.url).members if member.holds} == {
                peer_id,
                fetch_status(founder.url).peer_id,
            }
            assert said("ask", founder.address, "99 bottles", "--max-tokens", "4", *home)
            assert "has told the others" in said("revoke", peer_id, *at)
            until_status(founder, lambda s: all(peer_id not in b.holders for b in s.blocks), "a view without the guest")
            out = until_status(guest, lambda s: s.state == "paused", "the guest's own pause")
            assert any("was revoked" in event for event in out.events)
            assert "was revoked, or its invitation has ended" in mistake_of(
                shoal("ask", founder.address, "99 bottles", *home)
            )
        assert f"{peer_id}  read+train  out: revoked" in said("members", *at)
