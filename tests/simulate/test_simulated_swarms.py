"""The simulated swarms: equal bits in one group, no work lost, the same figures for the same seed."""

import math

import pytest
import torch
from torch import Tensor

from peer.simulate.links import Links
from peer.simulate.one_group import OneGroup
from peer.simulate.random_groups import RandomGroups
from peer.simulate.run import Simulation, one_thread
from peer.simulate.scenario import Figures, Scenario
from peer.simulate.theory import work_done
from peer.simulate.work import Work
from peer.train.outer import Contribution
from protocols.codecs import CODECS, roundtrip

TROUBLE = {"loss": 0.08, "delay_ms": 120.0}  # a fifth of the offers and of the lists are missing at their deadlines


def simulated(**scenario: object) -> list[Figures]:
    with one_thread():
        return list(Simulation(Scenario.model_validate(scenario)).rounds())


class Weather(Links):
    """A network that can be calmed."""

    is_calm = False

    def loses(self) -> bool:
        return not self.is_calm and super().loses()

    def arrives(self, deadline_ms: float) -> bool:
        return self.is_calm or super().arrives(deadline_ms)


class Recorded(OneGroup):
    """Remembers what was offered."""

    def __init__(self, scenario: Scenario, work: Work, links: Links) -> None:
        super().__init__(scenario, work, links)
        self.offered: dict[tuple[int, str], Tensor] = {}

    def _offer(self, tick: int, name: str) -> Contribution:
        contribution = super()._offer(tick, name)
        self.offered[tick, name] = contribution.values
        return contribution


class RecordedWork(Work):
    """Remembers what each peer learnt."""

    total: Tensor | float = 0.0

    def pseudo_gradients(self, peers: int) -> Tensor:
        learnt = super().pseudo_gradients(peers)
        self.total = self.total + learnt.double()
        return learnt


def test_messages_are_lost_and_late_as_often_as_was_asked_for() -> None:
    links = Links(Scenario(peers=8, loss=0.1, delay_ms=200.0), 0.2)
    arrived = sum(links.arrives(400.0) for _ in range(10_000)) / 10_000
    assert arrived == pytest.approx(0.9 * (1 - math.exp(-2)), abs=0.015)
    assert all(Links(Scenario(peers=8), 0.2).arrives(0.0) for _ in range(100))


def test_one_group_has_the_same_bits_in_every_round() -> None:
    scenario = Scenario(peers=8, churn=0.2)
    swarm = OneGroup(scenario, Work(scenario.values, 0), Links(scenario, 0.2))
    for tick in range(1, 11):
        swarm.advance(tick)
        assert len({anchor.numpy().tobytes() for anchor in swarm.anchors()}) == 1
    assert swarm.lost


@pytest.mark.parametrize("seed", [0, 2])
def test_after_losses_one_group_has_the_same_bits_and_counts_each_work_once(seed: int) -> None:
    scenario = Scenario(peers=8, seed=seed, loss=0.08)
    work, links = RecordedWork(scenario.values, 0), Weather(scenario, 0.2)
    swarm = Recorded(scenario, work, links)
    spreads = []
    for tick in range(1, 21):
        links.is_calm = tick > 16
        swarm.advance(tick)
        spreads.append(float(swarm.anchors().std(0).max()))
    assert sum(spread > 0 for spread in spreads[:16]) > 4  # there was something to repair
    assert spreads[-3:] == [0.0] * 3

    replicas = list(swarm._replicas.values())
    assert len({replica.state.digest for replica in replicas}) == 1
    history = replicas[0].lineage
    assert [sealed.version for sealed in history] == list(
        range(1, 21)
    )  # nothing had to be merged for want of a majority
    for row, replica in enumerate(replicas):
        counted = sum(
            swarm.offered[sealed.round, replica.me].double() for sealed in history if replica.me in sealed.offers
        )
        owed = replica.residual + swarm._leads[replica.me]
        assert torch.allclose(counted + owed, work.total[row], atol=1e-6), replica.me


@pytest.mark.parametrize("peers", [8, 16])
@pytest.mark.parametrize("codec", ["float32", "int4"])
def test_all_work_is_in_the_replicas_or_owed(peers: int, codec: str) -> None:
    for figures in simulated(peers=peers, rounds=8, codec=codec):
        assert figures.work == pytest.approx(1, abs=1e-4)
        assert figures.skipped == figures.lost == 0


@pytest.mark.parametrize("peers", [8, 32])
def test_no_work_is_lost_with_loss_and_delay(peers: int) -> None:
    rounds = simulated(peers=peers, rounds=30, **TROUBLE)
    assert 0.98 < rounds[-1].work < 1.6  # what comes late is added to means that were full without it
    assert rounds[-1].lost == 0


def test_work_that_is_dropped_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure can fail: a residual that is thrown away is work that is lost."""
    monkeypatch.setattr("peer.simulate.random_groups.owed", lambda produced, decoded, share: produced * 0)
    calm = simulated(peers=32, rounds=30, codec="sparse")
    assert calm[-1].work < 0.9


def test_the_same_seed_gives_the_same_figures() -> None:
    scenario = {"peers": 24, "rounds": 5, "churn": 0.2, **TROUBLE}
    assert simulated(**scenario) == simulated(**scenario)
    assert simulated(**scenario) != simulated(**scenario, seed=1)


def test_peers_that_leave_are_replaced() -> None:
    scenario = Scenario(peers=24, churn=0.5)
    swarm = RandomGroups(scenario, Work(scenario.values, 0), Links(scenario, 0.2))
    before = set(swarm.names)
    swarm.advance(1)
    assert swarm.left and swarm.left == before - set(swarm.names)
    assert len(set(swarm.names)) == 24


def test_what_all_peers_offer_is_encoded_as_if_each_did_so_alone() -> None:
    for codec in CODECS:
        values = torch.randn(3, Scenario(codec=codec).values, generator=torch.Generator().manual_seed(0))
        alone = torch.stack([roundtrip(codec, row.clone())[1] for row in values])
        assert torch.equal(roundtrip(codec, values.flatten())[1].view_as(values), alone)


def test_momentum_that_is_yet_to_act_counts_as_done() -> None:
    scenario = Scenario(peers=4, codec="float32")
    work = Work(scenario.values, 0)
    swarm = OneGroup(scenario, work, Links(scenario, 0.2))
    swarm.advance(1)
    outer, stand = swarm.spec.outer, swarm.stand()
    assert work_done(stand, work.learnt, outer.alpha, outer.mu) == pytest.approx(1, abs=1e-5)
    assert float(stand.moved @ work.learnt.float()) < 0.8 * outer.alpha / (1 - outer.mu) * float(
        work.learnt @ work.learnt
    )
