"""A swarm that fits in one group, round by round: the same sealed set, the same bits, and repair where they are not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peer.block.replica import Replica
from peer.simulate.links import Links, Lists
from peer.simulate.scenario import TOKENS, Gossip, Scenario
from peer.simulate.theory import Stand
from peer.simulate.work import Work
from peer.train.outer import Contribution, OuterState, merge, new_state
from protocols.offers import SealedRound
from protocols.sealing import Mark, compare, seal

BLOCK = "model"


@dataclass(frozen=True)
class Past:
    """What a replica could tell when the lists were written."""

    state: OuterState
    marks: Sequence[Mark]
    lineage: Sequence[SealedRound]


class OneGroup:
    """All the peers of a swarm, and what they did in the last round."""

    def __init__(self, scenario: Scenario, work: Work, links: Links) -> None:
        self.spec = scenario.spec()
        self._work, self._links = work, links
        first = new_state(BLOCK, work.weights(), None, version=0, round_=0, ages={}, is_final=False)
        self._first = first.phi
        self._replicas = {
            name: Replica(first, self.spec, name) for name in (f"peer{number}" for number in range(scenario.peers))
        }
        self._leads: dict[str, Tensor] = {name: torch.zeros_like(first.phi) for name in self._replicas}  # φ − θ
        self._tokens = dict.fromkeys(self._replicas, 0)
        self._newest = scenario.peers
        self.left: set[str] = set()  # in the last round
        self.trained, self.lost = 0, 0  # tokens, of all peers, and those that left before they counted

    @property
    def names(self) -> list[str]:
        """The peers that are there."""
        return list(self._replicas)

    def anchors(self) -> Tensor:
        """Return every peer's φ, (peers, values)."""
        return torch.stack([replica.state.phi for replica in self._replicas.values()])

    def stand(self) -> Stand:
        """Return where the swarm has come to."""
        replicas = self._replicas.values()
        owed = torch.stack([replica.residual + self._leads[replica.me] for replica in replicas]).mean(0)
        momentum = torch.stack([replica.state.momentum for replica in replicas]).mean(0)
        return Stand(self._first - self.anchors().mean(0), momentum, owed)

    def advance(self, tick: int) -> Gossip:
        """Let all peers train and exchange once."""
        view = sorted(self._replicas)
        learnt = self._work.pseudo_gradients(len(view))
        for row, name in enumerate(view):
            self._leads[name] = self._leads[name] + learnt[row]
            self._tokens[name] += TOKENS
            self.trained += TOKENS
        self.left = self._links.leaving(view)
        contributions = {name: self._offer(tick, name) for name in view if name not in self.left}
        held = self._links.held(view, tick, self.left)
        pasts = {name: self._past(name) for name in held}
        offers, lists, entries, skipped = 0, 0, 0, 0
        for me in held:
            heard = self._links.heard(me, held)
            lists += len(heard) - 1
            entries += sum(map(len, heard.values())) - len(held[me])
            self._repair(me, view, {name: pasts[name] for name in heard})
            sealed = seal(view, heard).offers
            have = self._fetched(me, sealed, heard)
            offers += len(have | held[me].keys()) - 1
            if not sealed or len(have) < len(sealed):
                self._replicas[me].skip(tick)
                skipped += 1
                continue
            self._replicas[me].advance(tick, [contributions[peer] for peer in sealed], sealed)
            self._leads[me] = torch.zeros_like(self._leads[me])
        present = len(view)
        age = sum(replica.state.age for replica in self._replicas.values()) / present
        self._replace(view)
        return Gossip(
            groups=1,
            largest=present,
            offers=offers / present,
            lists=lists / present,
            entries=entries / present,
            reads=1.0,
            skipped=skipped / present,
            holders=present,
            age=age,
        )

    def _offer(self, tick: int, name: str) -> Contribution:
        replica = self._replicas[name]
        _, norm = replica.offer(tick, replica.state.phi - self._leads[name], self._tokens[name])
        assert replica.pending is not None
        return Contribution(name, replica.pending.decoded, replica.tokens, norm, "all")

    def _past(self, name: str) -> Past:
        replica = self._replicas[name]
        return Past(replica.state, list(replica.marks), list(replica.lineage))

    def _fetched(self, me: str, sealed: Mapping[str, str], heard: Lists) -> set[str]:
        """Return the sealed offers that `me` holds, or can still have from a member that named them."""

        def can_have(peer: str) -> bool:
            namers = [member for member in heard if member != me and peer in heard[member]]
            return any(not self._links.loses() for _ in namers)

        return {peer for peer in sealed if peer in heard[me] or can_have(peer)}

    def _repair(self, me: str, view: Sequence[str], pasts: Mapping[str, Past]) -> None:
        """Bring a replica to where the group stood; replaying gives the bits of those who stand there already."""
        replica = self._replicas[me]
        standing = compare(me, view, {name: past.marks for name, past in pasts.items()})
        if standing.follow is not None:
            source = pasts[standing.sources[0]]
            base = replica.base_in(source.marks)
            rounds = [r for r in source.lineage if base is None or r.version > base.version]
            replica.adopt([source.state], rounds, source.marks, base)
        elif standing.merge:
            merged = merge([pasts[members[0]].state for _, members in standing.merge])
            replica.adopt([merged], [], [*replica.marks, *(mark for mark, _ in standing.merge)], merged)

    def _replace(self, view: Sequence[str]) -> None:
        """Put a newcomer in the place of each peer that has left, with the state of one that is there."""
        present = [name for name in view if name not in self.left]
        for name in sorted(self.left):
            source = self._replicas[self._links.chance.choice(present)]
            newcomer = f"peer{self._newest}"
            self._newest += 1
            self.lost += self._tokens[name] - source.state.ages.get(name, 0)
            del self._replicas[name], self._leads[name], self._tokens[name]
            self._replicas[newcomer] = Replica(source.state, self.spec, newcomer)
            self._leads[newcomer] = torch.zeros_like(source.state.phi)
            self._tokens[newcomer] = 0
