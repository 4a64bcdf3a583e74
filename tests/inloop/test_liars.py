"""One member of five that signs what it likes: the others go on, with the same bits, where they went without it.

Its daemon is the product's, but for what it offers and to whom it serves it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jumping import JumpingLoop
from swarm import GENESIS, InLoopSwarm, Member
from torch import Tensor

from configs.run import RunSpec
from dht.identity import Identity
from peer.block.replica import Replica
from peer.train.outer import OuterState, new_state
from peer.train.partition import COMMON
from protocols.codecs import roundtrip
from protocols.sealing import Mark
from protocols.state import BlockState

MEMBERS, LAST = 5, 26  # members, and the tick at which it is looked at what they have
NAN = b"\xc0\x7f"  # bfloat16, as the scales of int4 are

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")


def common(size: int) -> Tensor:
    """Return what all of them learn from one token."""
    return 1e-4 * torch.randn(size, generator=torch.Generator().manual_seed(7))


def direction(member: Member, size: int) -> Tensor:
    own = torch.randn(size, generator=torch.Generator().manual_seed(1000 + member.index))
    return common(size) + 1e-4 * own


def noise(values: Tensor) -> Tensor:
    return torch.randn(values.shape, generator=torch.Generator().manual_seed(int(1e6 * float(values[0])) % 2**31))


VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "sign flip": lambda values: -values,
    "loud": lambda values: -100 * values,
    "noise": lambda values: noise(values) * (values.norm() / noise(values).norm()),
}
REFUSED = ("not a number", "wrong norm", "other size")  # by who reads it
OTHERS = ("false tokens", "serves some")


def lie(monkeypatch: pytest.MonkeyPatch, attack: str, liar: str) -> None:
    """Let the daemon of `liar` offer what the attack says."""
    honest = Replica.offer

    def offer(self: Replica, round_: int, theta: Tensor, tokens: int) -> tuple[bytes, float]:
        payload, norm = honest(self, round_, theta, tokens)
        assert self.pending is not None
        if self.me != liar:
            return payload, norm
        if attack in VALUES:
            payload, decoded = roundtrip(self.pending.codec, VALUES[attack](self.pending.produced))
            self.pending = replace(self.pending, decoded=decoded, payload=payload)
            return payload, float(torch.linalg.vector_norm(decoded))
        if attack == "false tokens":
            self.tokens = 2**40
        spoilt = {
            "not a number": NAN * (len(payload) // 2) + payload[:1] * (len(payload) % 2),
            "other size": payload[1:],
        }
        return spoilt.get(attack, payload), 2 * norm + 1 if attack == "wrong norm" else norm

    monkeypatch.setattr(Replica, "offer", offer)


def serve_one(member: Member, chosen: str) -> None:
    """Let a member answer one other alone where its own offers are asked for."""
    assert member.daemon is not None
    offers = member.daemon.parts.offers
    served = offers.rpc_offer

    async def rpc_offer(request: Any, context: Any) -> AsyncIterator[Any]:
        if request.peer != member.peer_id or context.remote_id.to_base58() == chosen:
            async for frame in served(request, context):
                yield frame

    offers.rpc_offer = rpc_offer  # type: ignore[method-assign]


def train(spec: RunSpec, identities: list[Identity], folder: Path, attack: str = "") -> list[OuterState]:
    """Return the states of all members in the end."""
    folder.mkdir()
    swarm = InLoopSwarm(spec, identities, folder, seed=3)
    for member in swarm.members:  # who is faster counts as most do, which is not what is looked at here
        member.step_s = 0.2
    states: list[OuterState] = []

    async def main() -> None:
        await swarm.start(stagger_s=0.5)
        if attack == "serves some":
            serve_one(swarm.members[-1], identities[0].peer_id)
        await swarm.until(LAST + 0.9)
        for member in swarm.members:
            assert member.daemon is not None, member.errors
            states.append(member.daemon.parts.session.replicas[COMMON].state)
        await swarm.stop()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
    return states


def way(state: OuterState) -> float:
    """Return how far a state has gone where all go."""
    goal = common(state.size)
    return -float(state.phi @ goal / goal.norm())


@pytest.mark.parametrize("attack", [*VALUES, *REFUSED, *OTHERS])
def test_a_liar_among_five_takes_nothing_from_the_others(
    attack: str,
    smallest_run: Callable[..., RunSpec],
    identities: list[Identity],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = {"tick_seconds": 1, "double_tokens": 10**9, "first_ticks": 2, "last_ticks": 2, "group_size": 16}
    spec = smallest_run(genesis=GENESIS, rounds=rounds, outer={"codec": "int4", "combine": "robust"})
    monkeypatch.setattr(Member, "direction", direction)
    clean = train(spec, identities[: MEMBERS - 1], tmp_path / "clean")
    liar = identities[MEMBERS - 1].peer_id
    lie(monkeypatch, attack, liar)
    states = train(spec, identities[:MEMBERS], tmp_path / "attacked", attack)
    assert len({state.digest for state in states[: MEMBERS - 1]}) == 1
    state = states[0]
    assert state.version >= 8
    assert way(state) / state.version > 0.85 * way(clean[0]) / clean[0].version
    if attack in VALUES:
        honest = [state.trust[each.peer_id] for each in identities[: MEMBERS - 1]]
        assert 2 * max(map(abs, state.trust[liar])) < min(map(min, honest)) or max(state.trust[liar]) <= 0
    elif attack in REFUSED:
        assert liar not in state.ages and liar not in state.trust
    else:
        assert 0 < state.ages[liar] <= max(state.ages[each.peer_id] for each in identities[: MEMBERS - 1])


def invented(state: OuterState, ahead: int, round_: int) -> OuterState:
    """Return a state of a block that nobody has made, so many versions after the one that there is."""
    facts = {"version": state.version + ahead, "round_": round_, "ages": dict(state.ages), "is_final": False}
    return new_state(state.block, torch.full_like(state.phi, 9.0), None, **facts)


def boast(member: Member, honest_marks: int) -> dict[str, memoryview]:
    """Let a member say that it stands at a state that nobody has made; return what it serves of such: digest → state.

    `honest_marks` is how many of the group's own marks lie behind it, newest first: with all of them it is a history
    that only goes on, with none another one.
    """
    assert member.daemon is not None
    daemon = member.daemon
    publish, lookup = daemon.parts.offers.publish, daemon.parts.store.lookup
    served: dict[str, memoryview] = {}

    async def boasted(block: str, round_: int, marks: Any, state_bytes: int, named: Any = None) -> Any:
        poisoned = invented(daemon.parts.session.replicas[block].state, 1, round_)
        served[poisoned.digest] = memoryview(poisoned.blob)
        behind = list(marks)[len(marks) - honest_marks :] if honest_marks else []
        claimed = [*behind, Mark(poisoned.version, poisoned.digest)]
        return await publish(block, round_, claimed, len(poisoned.blob), named)

    daemon.parts.offers.publish = boasted  # type: ignore[method-assign,assignment]
    daemon.parts.store.lookup = lambda digest: served.get(digest) or lookup(digest)  # type: ignore[method-assign]
    return served


@pytest.mark.parametrize("honest_marks", [0, 1, 15])
@pytest.mark.parametrize("members", [3, 4, 5])
def test_nobody_takes_a_state_that_one_member_alone_claims(
    members: int, honest_marks: int, smallest_run: Callable[..., RunSpec], identities: list[Identity], tmp_path: Path
) -> None:
    spec = smallest_run(genesis=GENESIS, rounds={"tick_seconds": 1, "double_tokens": 10**9, "last_ticks": 1})
    swarm = InLoopSwarm(spec, identities[:members], tmp_path, seed=3)

    async def main() -> None:
        await swarm.start(stagger_s=0.5)
        await swarm.until(12.5)
        served = boast(swarm.members[-1], honest_marks)
        await swarm.until(24.9)
        assert served
        for member in swarm.members[:-1]:
            assert member.daemon is not None, member.errors
            replica = member.daemon.parts.session.replicas[COMMON]
            assert float(replica.state.phi.abs().max()) < 5.0, "it was poisoned"
            assert replica.state.version >= 12
        assert len({each.daemon.parts.session.replicas[COMMON].state.digest for each in swarm.members[:-1]}) == 1  # type: ignore[union-attr]
        await swarm.stop()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())


@pytest.mark.parametrize("ahead", [-1, 0, 1, 1000])
@pytest.mark.parametrize("honest", [2, 3])
def test_a_newcomer_takes_no_state_that_one_member_alone_claims(
    honest: int, ahead: int, smallest_run: Callable[..., RunSpec], identities: list[Identity], tmp_path: Path
) -> None:
    spec = smallest_run(genesis=GENESIS, rounds={"tick_seconds": 1, "double_tokens": 10**9, "last_ticks": 1})
    swarm = InLoopSwarm(spec, identities[: honest + 2], tmp_path, seed=3)
    newcomer, liar = swarm.members[-1], swarm.members[-2]

    async def main() -> None:
        for member in swarm.members[:-1]:
            swarm.start_one(member, is_known=member.index == 0)
            await asyncio.sleep(0.5)
        await swarm.until(12.5)
        assert liar.daemon is not None
        store = liar.daemon.parts.store
        lookup, states = store.lookup, store.block_states
        served: dict[str, memoryview] = {}

        def boasted() -> list[BlockState]:
            state = store.replicas[COMMON].state
            claimed = invented(state, ahead, state.round)
            served[claimed.digest] = memoryview(claimed.blob)
            told = {"version": claimed.version, "content_id": claimed.digest, "size_bytes": len(claimed.blob)}
            return [each.model_copy(update=told) for each in states() if each.block == COMMON]

        store.block_states = boasted  # type: ignore[method-assign]
        store.lookup = lambda digest: served.get(digest) or lookup(digest)  # type: ignore[method-assign]
        swarm.start_one(newcomer, is_known=False)
        while newcomer.daemon is None or COMMON not in newcomer.daemon.parts.session.replicas:
            await asyncio.sleep(0.05)
        assert float(newcomer.daemon.parts.session.replicas[COMMON].state.phi.abs().max()) < 5.0, "it was poisoned"
        await swarm.until(24.9)
        digests = {each.daemon.parts.session.replicas[COMMON].state.digest for each in swarm.members if each.daemon}
        assert len(digests) == 1
        await swarm.stop()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
