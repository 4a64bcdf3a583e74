"""A member that signs two offers for one round is in nobody's view four ticks later, with the proof; rounds go on."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from jumping import JumpingLoop
from swarm import GENESIS, InLoopSwarm

from configs.content import chunk_hashes, content_id_of
from configs.run import RunSpec
from dht.identity import Identity
from peer.train.partition import COMMON
from protocols.parcels import Equivocation, Offer, OfferHeader, sign_offer

FOUND, LATEST = 12, 4  # the tick at which one of them meets both, and how many later all leave the liar out

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")


def offer(identity: Identity, run_id: str, value: int) -> Offer:
    payload = bytes([value]) * 40
    header = OfferHeader(
        run_id=run_id, block=COMMON, round=FOUND - 1, peer=identity.peer_id, codec="int4", size_bytes=40,
        content_id=content_id_of(payload), tokens=900, norm=1.5, domain="all",
    )  # fmt: skip
    return sign_offer(identity, header, payload, chunk_hashes(payload))


def test_two_faces_are_left_out_by_all(
    smallest_run: Callable[..., RunSpec], identities: list[Identity], tmp_path: Path
) -> None:
    rounds = {"tick_seconds": 1, "double_tokens": 10**9, "last_ticks": 1}
    spec = smallest_run(genesis=GENESIS, rounds=rounds)
    swarm = InLoopSwarm(spec, identities[:4], tmp_path, seed=5)
    honest, liar = swarm.members[:3], swarm.members[3]

    async def main() -> None:
        await swarm.start(stagger_s=0.5)
        await swarm.until(FOUND + 0.2)
        daemons = [member.daemon for member in honest]
        first = daemons[0]
        assert first is not None and all(daemons) and liar.daemon is not None
        both = (offer(identities[3], spec.run_id, 1), offer(identities[3], spec.run_id, 2))
        assert liar.peer_id in first.parts.membership.view(COMMON, FOUND)
        first.parts.offers.accuse(Equivocation(*both))
        await swarm.until(FOUND + LATEST + 0.2)
        tick = FOUND + LATEST
        for daemon in daemons:
            assert daemon is not None
            assert daemon.parts.membership.view(COMMON, tick) == tuple(sorted(one.peer_id for one in honest))
            assert any(f"{liar.peer_id} is left out" in text for text in daemon.lookout.status().warnings)
        assert liar.daemon.parts.activity.is_paused  # it hears of it, too
        sealed = [daemon.parts.chronicle.rounds for daemon in daemons if daemon is not None]
        await swarm.until(FOUND + LATEST + 8)
        after = [daemon.parts.chronicle.rounds for daemon in daemons if daemon is not None]
        assert all(now >= before + 5 for now, before in zip(after, sealed, strict=True))
        digests = {daemon.parts.store.replicas[COMMON].state.digest for daemon in daemons if daemon is not None}
        assert len(digests) == 1
        await swarm.stop()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
