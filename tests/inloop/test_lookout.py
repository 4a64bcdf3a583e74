"""What members of a whole swarm see of themselves while they run: what was right when they joined may not stay so."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from jumping import JumpingLoop
from swarm import GENESIS, InLoopSwarm, Member

from configs.run import RunSpec
from dht.identity import Identity
from peer.http.health import health_of
from peer.http.status import Finding
from peer.http.view import view
from peer.member.lookout import Lookout
from peer.member.share import share_of
from peer.member.shown import shown_of
from peer.train.partition import COMMON

BEGUN = 20  # ticks
FOUND, MENDED = 80, 150  # ticks after it was set, and set back: a twentieth of the way is gone in a second
AHEAD_S = 6.0  # more than may be, and so little that it is followed

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")


@pytest.fixture
def spec(smallest_run: Callable[..., RunSpec]) -> RunSpec:
    return smallest_run(genesis=GENESIS, rounds={"tick_seconds": 1, "double_tokens": 10**9, "last_ticks": 1})


def lookout_of(member: Member) -> Lookout:
    assert member.daemon is not None and not member.errors, member.errors
    return member.daemon.lookout


def found(member: Member, code: str) -> list[Finding]:
    return [finding for finding in lookout_of(member).findings() if finding.code == code]


def play(main: Callable[[], object]) -> None:
    loop = JumpingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())  # type: ignore[arg-type]
    assert not loop.faults, loop.faults


def test_a_clock_that_goes_wrong_while_a_peer_runs_is_named(
    spec: RunSpec, identities: list[Identity], tmp_path: Path
) -> None:
    async def main() -> None:
        swarm = InLoopSwarm(spec, identities[:3], tmp_path, seed=5)
        await swarm.start(stagger_s=2.0)
        await swarm.until(BEGUN)
        wrong, right = swarm.members[2], swarm.members[0]
        wrong.clock_set_s = AHEAD_S
        await swarm.until(BEGUN + FOUND)  # it is followed slowly, and then compared
        (clock,) = found(wrong, "clock")
        assert "s ahead of those of 2 of 2 others" in clock.cause and clock.is_severe and "NTP" in clock.cure
        assert not found(right, "clock"), "one of two that differs is the other's fault, as far as one can tell"
        status = lookout_of(wrong).status()
        assert clock.line() in status.warnings and clock in status.findings
        wrong.clock_set_s = 0.0  # what the finding advises
        await swarm.until(BEGUN + FOUND + MENDED)
        assert not found(wrong, "clock")
        await swarm.stop()

    play(main)


def test_a_member_shows_what_it_gives_and_what_it_has_seen(
    spec: RunSpec, identities: list[Identity], tmp_path: Path
) -> None:
    async def main() -> None:
        swarm = InLoopSwarm(spec, identities[:2], tmp_path, seed=5)
        await swarm.start(stagger_s=1.0)
        await swarm.until(BEGUN + 15)
        daemon = swarm.members[0].daemon
        assert daemon is not None
        parts = daemon.parts
        share = share_of(parts, (3, 4))
        assert share.tokens == parts.chronicle.tokens > 0 and 0 < share.share_of_tokens <= 1
        assert share.bytes_in["offers"] > 0 and share.bytes_out["offers"] > 0 and share.bytes_in["dht"] == 3
        assert share.memory_bytes > 0 and share.disk_free_bytes > 0 and share.devices
        shown = shown_of(parts, daemon.lookout, lambda: (3, 4))
        assert await shown.share() == share_of(parts, (3, 4))
        assert shown.rounds(COMMON, None, 5).rounds and shown.curves().training
        health = health_of(shown.status(), await shown.pulse())
        assert health.is_healthy and not health.reasons, health.reasons
        seen = view(shown.status(), GENESIS + BEGUN + 15)
        assert len(seen.dots) == 2 and seen.sectors[0].group and not seen.sectors[0].gap
        assert [each.holders for each in seen.coverage] == [[] for _ in parts.library.domains]
        await swarm.stop()

    play(main)
