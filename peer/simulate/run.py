"""A simulation, round by round, and its table."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch

from dht.records import group_key
from peer.simulate.links import Links
from peer.simulate.lookups import Kademlia
from peer.simulate.one_group import BLOCK, OneGroup
from peer.simulate.random_groups import RandomGroups
from peer.simulate.scenario import Figures, Scenario
from peer.simulate.theory import Theory, expected_groups, steady_spread, work_done
from peer.simulate.traffic import received
from peer.simulate.work import SIZE, Work
from protocols.grouping import bits_for, draw, fragment_of

Report = Callable[[str, int, int], None]  # what is being done, how much is done, of how much
SAMPLE = 32  # peers whose look-ups are followed, in each round: a look-up depends on nobody else's


class Simulation:
    """A swarm, its network, and what both should do by theory."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._work = Work(scenario.values, scenario.seed)
        spec = scenario.spec()
        self._outer, self._run_id = spec.outer, spec.run_id
        links = Links(scenario, spec.rounds.cut_share)
        self.swarm = (OneGroup if scenario.is_one_group else RandomGroups)(scenario, self._work, links)
        self._links = links
        self._theory = Theory(scenario.fragments, spec.outer.alpha, spec.outer.mu)
        self._dht = Kademlia(self.swarm.names, (), scenario.seed)

    def rounds(self) -> Iterator[Figures]:
        """Run round after round."""
        for tick in range(1, self.scenario.rounds + 1):
            yield self._round(tick)

    def spread(self) -> float:
        """Return the RMS deviation of the replicas from their mean, times the pseudo-gradient's size."""
        anchors = self.swarm.anchors().double()
        return float((anchors - anchors.mean(0)).square().mean().sqrt()) / SIZE

    def steady_spread(self) -> float:
        """Return the spread that theory expects after many rounds."""
        groups = expected_groups(self.scenario.peers, self.scenario.group_size)
        return steady_spread(self.scenario.peers, groups, self.scenario.fragments, self._outer.alpha, self._outer.mu)

    def _round(self, tick: int) -> Figures:
        scenario, outer = self.scenario, self._outer
        store, fetch = self._lookups(tick)
        gossip = self.swarm.advance(tick)
        if self.swarm.left:
            self._dht = Kademlia(self.swarm.names, self.swarm.left, scenario.seed + tick)
        lookup_rpcs = store + fetch * gossip.reads
        return Figures(
            round=tick,
            spread=self.spread(),
            theory=self._theory.advance(scenario.peers, gossip.groups, fragment_of(tick, scenario.fragments)),
            groups=gossip.groups,
            largest=gossip.largest,
            holders=gossip.holders,
            skipped=gossip.skipped,
            mbytes=received(scenario, gossip, lookup_rpcs) / 1e6,
            lookups=1 + gossip.reads,
            lookup_rpcs=lookup_rpcs,
            work=work_done(self.swarm.stand(), self._work.learnt, outer.alpha, outer.mu),
            lost=self.swarm.lost / self.swarm.trained,
            age_error=gossip.age / self.swarm.trained - 1,
        )

    def _lookups(self, tick: int) -> tuple[float, float]:
        """Return how many questions it takes to store a record in the own bucket, and to read it; means of a sample."""
        names = self.swarm.names
        sample = self._links.chance.sample(names, min(SAMPLE, len(names)))
        bits = bits_for(len(names), self.scenario.group_size)
        keys = {me: group_key(self._run_id, BLOCK, tick, draw(self._run_id, BLOCK, tick, me)[:bits]) for me in sample}
        stores = [self._dht.store(me, key) for me, key in keys.items()]
        fetches = [self._dht.fetch(me, key) for me, key in keys.items()]
        return sum(stores) / len(stores), sum(fetches) / len(fetches)


def run(scenario: Scenario, report: Report | None = None) -> None:
    """Simulate and print a line for each round, and in the end what theory says; with `report`, one JSON in the end."""
    with one_thread():
        simulation = Simulation(scenario)
        if report is not None:
            _print_json(simulation, report)
            return
        print(HEADER)
        for figures in simulation.rounds():
            print(_line(figures), flush=True)
        print(f"spread after many rounds, by theory: {simulation.steady_spread():.3f} of a pseudo-gradient")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread: vectors are short, and more only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _print_json(simulation: Simulation, report: Report) -> None:
    scenario = simulation.scenario
    rounds = []
    for figures in simulation.rounds():
        rounds.append(asdict(figures))
        report("simulating", figures.round, scenario.rounds)
    told = {"scenario": scenario.model_dump(), "steady_spread": simulation.steady_spread(), "rounds": rounds}
    print(json.dumps(told, indent=1))


HEADER = (
    "round  spread  theory  groups  largest  holders  skipped  MB/peer  look-ups  questions    work    lost  age error"
)


def _line(figures: Figures) -> str:
    return (
        f"{figures.round:5d}  {figures.spread:6.3f}  {figures.theory:6.3f}  {figures.groups:6d}  {figures.largest:7d}"
        f"  {figures.holders:7.0f}  {figures.skipped:7.1%}  {figures.mbytes:7.3f}  {figures.lookups:8.1f}"
        f"  {figures.lookup_rpcs:9.1f}  {figures.work:6.1%}  {figures.lost:6.1%}  {figures.age_error:9.1%}"
    )
