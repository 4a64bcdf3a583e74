"""What the event loop does in an exchange, and what its threads do."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from configs.errors import PeerError
from configs.run import RunSpec
from peer.block import exchange
from peer.block.exchange import Swarm, Work, open_group, run_round
from peer.block.replica import Replica
from peer.train.outer import OuterState, new_state
from peer.train.partition import Strategy
from protocols.sealing import Mark, Standing

SIZE = 64


def state(value: float, version: int) -> OuterState:
    phi = torch.full((SIZE,), value)
    return new_state("model", phi, None, version=version, round_=version, ages={}, is_final=False)


@pytest.fixture
def replica(smallest_run: Callable[..., RunSpec]) -> Replica:
    return Replica(state(0.0, 0), smallest_run(), "me")


@pytest.fixture
def swarm(tmp_path: Path) -> Swarm:
    offers = SimpleNamespace(lineages={})
    return Swarm("run", cast(Any, None), cast(Any, offers), cast(Any, None), cast(Any, None), tmp_path)


def test_a_history_may_grow_while_somebody_reads_it(replica: Replica) -> None:
    replica.advance_alone(1, torch.ones(SIZE), 1)
    for past in (replica.lineage, replica.marks):
        reading = iter(past)
        next(reading)
        replica.advance_alone(replica.state.round + 1, torch.ones(SIZE), 1)
        assert len(list(reading)) == len(past) - 1


def test_others_can_have_the_history_of_the_step_that_was_just_taken(replica: Replica, swarm: Swarm) -> None:
    for round_ in (1, 2):
        work = Work(torch.full((SIZE,), float(round_)), round_, "all")
        outcome = asyncio.run(run_round(swarm, replica, round_, ["me"], work, cast(Any, None)))
        assert outcome.is_step
        assert [sealed.version for sealed in swarm.offers.lineages["model"]] == list(range(1, round_ + 1))


def test_following_another_history_is_work_of_a_thread(
    replica: Replica, swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The own offers that it counts otherwise are decoded for that; others' heartbeats wait for the loop."""
    worked: list[threading.Thread] = []
    adopt, theirs = Replica.adopt, state(2.0, 0)

    def watched(replica: Replica, *arguments: Any) -> None:
        worked.append(threading.current_thread())
        adopt(replica, *arguments)

    async def fetch(*arguments: object) -> OuterState:
        return theirs

    monkeypatch.setattr(Replica, "adopt", watched)
    monkeypatch.setattr(exchange, "_fetch_state", fetch)
    marks = [(Mark(0, each.digest), (peer,)) for each, peer in ((replica.state, "me"), (theirs, "you"))]
    words = asyncio.run(exchange._merge(swarm, replica, Standing(merge=tuple(marks)), cast(Any, None)))
    assert words == "merged 2 histories" and torch.equal(replica.state.phi, torch.ones(SIZE))
    assert worked and threading.main_thread() not in worked


@pytest.mark.parametrize("waits", [True, False])
def test_a_lone_holder_waits_for_who_is_coming_but_not_for_ever(replica: Replica, swarm: Swarm, waits: bool) -> None:
    """What it learns meanwhile survives a kill, and is all in the step that it takes in the end."""
    swarm = replace(swarm, expects=lambda: waits)
    learnt = replica.state.phi - 3.0
    outcome = asyncio.run(run_round(swarm, replica, 5, ["me"], Work(learnt, 50, "all"), cast(Any, None)))
    assert outcome.is_step != waits and outcome.text.startswith("alone")
    again = Replica(state(0.0, 0), replica.spec, "me")
    again.resume(swarm.folder)
    assert torch.allclose(again.residual, torch.full((SIZE,), 3.0 if waits else 0.0))
    assert again.tokens == (50 if waits else 0)
    late = replica.state.round + int(exchange.EXPECT_S / replica.spec.rounds.tick_seconds)
    outcome = asyncio.run(run_round(swarm, replica, late, ["me"], Work(learnt - 1.0, 70, "all"), cast(Any, None)))
    assert outcome.is_step
    assert torch.allclose(replica.state.phi, torch.full((SIZE,), -4.0)) and replica.state.age == 70
    assert not bool(replica.residual.any())


@pytest.mark.parametrize(("domain", "is_read"), [("fish", True), ("all", True), ("a new word", False)])
def test_an_offer_weighs_by_a_domain_of_the_run_or_not_at_all(
    replica: Replica, swarm: Swarm, domain: str, is_read: bool
) -> None:
    """Domains weigh alike, so one that a liar has made up would have as much as all who are honest."""
    known = replace(swarm, domains=lambda block: {"all", "fish"} if block == "model" else set())
    read: list[Any] = []
    group = open_group(known, replica, 3, ["me", "liar"], read.append)
    header: Any = SimpleNamespace(peer="liar", codec=replica.spec.outer.codec, domain=domain)
    offer: Any = SimpleNamespace(header=header)
    with nullcontext() if is_read else pytest.raises(PeerError, match="domain 'a new word'"):
        asyncio.run(group.check(offer))
    assert bool(read) is is_read


@pytest.mark.parametrize(
    ("kind", "block", "domains"),
    [
        ("replicas", "model", {None}),
        ("experts", "model", {None}),
        ("experts", "trunk", {0, 1}),
        ("experts", "expert.1", {1}),
        ("branches", "branch.0", {0}),
        ("adapters", "adapter.1", {1}),
    ],
)
def test_whose_offers_a_block_gets(kind: str, block: str, domains: set[int | None]) -> None:
    assert Strategy(kind, 2).domains(block) == domains
