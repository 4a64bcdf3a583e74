"""A swarm of many groups, round by round: draws, buckets, lists, seals, and the step that mixes replicas.

The daemon's own functions decide everything. What is elementwise (codecs) is done for all peers at once.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peer.simulate.links import Links
from peer.simulate.scenario import TOKENS, Gossip, Scenario
from peer.simulate.theory import Stand
from peer.simulate.work import Work
from peer.train.mixing import FRAGMENT_CODEC, Fragment, Mixed, mixed_step, owed, span
from peer.train.outer import SWARM, Contribution, OuterState, new_state
from protocols.codecs import decode, encode, roundtrip
from protocols.grouping import Census, begin, counted_share, draw, fragment_of, group, revised, sought
from protocols.sealing import seal

BLOCK = "model"


@dataclass
class Holder:
    """One peer: its replica and what it believes. What it has learnt and owes are rows of the swarm's tensors."""

    name: str
    state: OuterState
    census: Census
    unsent_tokens: int = 0


@dataclass(frozen=True)
class Offered:
    """What all peers offer in a round, a row for each: u, D(u) and its norm, D(φ) on the fragment at `at`."""

    at: slice
    produced: Tensor
    decoded: Tensor
    norms: Sequence[float]
    fragments: Tensor


class RandomGroups:
    """All the peers of a swarm, and what they did in the last round."""

    def __init__(self, scenario: Scenario, work: Work, links: Links) -> None:
        self.spec = scenario.spec()
        self._size, self._work, self._links = scenario.group_size, work, links
        first = new_state(BLOCK, work.weights(), None, version=0, round_=0, ages={SWARM: 0}, is_final=False)
        census = begin(scenario.peers, scenario.group_size)
        self._holders = [Holder(f"peer{number}", first, census) for number in range(scenario.peers)]
        self._first = first.phi
        self._residuals = torch.zeros(scenario.peers, scenario.values)
        self._leads = torch.zeros(scenario.peers, scenario.values)  # φ − θ
        self._newest = scenario.peers
        self.left: set[str] = set()  # in the last round
        self.trained, self.lost = 0, 0  # tokens, of all peers, and those that left before they counted

    @property
    def names(self) -> list[str]:
        """The peers that are there."""
        return [holder.name for holder in self._holders]

    def anchors(self) -> Tensor:
        """Return every peer's φ, (peers, values)."""
        return torch.stack([holder.state.phi for holder in self._holders])

    def stand(self) -> Stand:
        """Return where the swarm has come to."""
        momentum = torch.stack([holder.state.momentum for holder in self._holders]).mean(0)
        return Stand(self._first - self.anchors().mean(0), momentum, (self._residuals + self._leads).mean(0))

    def advance(self, tick: int) -> Gossip:
        """Let all peers train and exchange once."""
        self._train()
        self.left = self._links.leaving(self.names)
        offered = self._offer(tick)
        draws = {name: draw(self.spec.run_id, BLOCK, tick, name) for name in self.names}
        buckets: dict[str, list[int]] = defaultdict(list)
        for row, holder in enumerate(self._holders):
            buckets[draws[holder.name][: holder.census.bits]].append(row)
        before = {holder.name: holder.census for holder in self._holders}
        counts: dict[str, float] = defaultdict(float)
        largest = 0
        for rows in buckets.values():
            for members in self._parted(rows, draws):
                counts["groups"] += 1
                largest = max(largest, len(members))
                self._exchange(tick, members, offered, counts)
            counts["reads"] += len(rows)
            self._count(rows, buckets, draws, before, counts)
        means = {name: counts[name] / len(self._holders) for name in ("offers", "lists", "entries", "reads", "skipped")}
        holders = sum(holder.census.holders for holder in self._holders) / len(self._holders)
        age = sum(holder.state.age for holder in self._holders) / len(self._holders)
        self._replace()
        return Gossip(groups=int(counts["groups"]), largest=largest, holders=holders, age=age, **means)

    def _train(self) -> None:
        self._leads += self._work.pseudo_gradients(len(self._holders))
        for holder in self._holders:
            holder.unsent_tokens += TOKENS
        self.trained += TOKENS * len(self._holders)

    def _offer(self, tick: int) -> Offered:
        produced = self._residuals + self._leads
        _, flat = roundtrip(self.spec.outer.codec, produced.flatten())  # a row is a whole number of the codec's chunks
        decoded = flat.view_as(produced)
        at = span(produced.shape[1], self.spec.rounds.fragments, fragment_of(tick, self.spec.rounds.fragments))
        anchors = torch.stack([holder.state.phi[at] for holder in self._holders])
        payload = encode(FRAGMENT_CODEC, anchors.flatten())
        fragments = decode(FRAGMENT_CODEC, payload, anchors.numel()).view_as(anchors)
        return Offered(at, produced, decoded, torch.linalg.vector_norm(decoded, dim=1).tolist(), fragments)

    def _parted(self, rows: Sequence[int], draws: Mapping[str, str]) -> list[list[int]]:
        """Return the groups that a bucket's members form: one, unless it is crowded."""
        row_of = {self._holders[row].name: row for row in rows}
        found = {name: draws[name] for name in row_of}
        groups: dict[tuple[str, ...], None] = {}
        if len(rows) <= 2 * self._size:
            groups[tuple(sorted(row_of))] = None
        else:
            for row in rows:
                holder = self._holders[row]
                groups[group(holder.name, found, holder.census.bits, self._size)] = None
        return [[row_of[name] for name in members] for members in groups]

    def _exchange(self, tick: int, rows: Sequence[int], offered: Offered, counts: dict[str, float]) -> None:
        """Run the round of one group, from the offers to the steps."""
        row_of = {self._holders[row].name: row for row in rows}
        view = list(row_of)
        held = self._links.held(view, tick, self.left)
        mixed = {name: self._mixed(row_of[name], offered) for name in held}
        for me in held:
            lists = self._links.heard(me, held)
            outcome = seal(view, lists)
            counts["offers"] += len(held[me]) - 1
            counts["lists"] += len(lists) - 1
            counts["entries"] += sum(map(len, lists.values())) - len(held[me])
            sealed = [mixed[peer] for peer in outcome.offers if peer in held[me]]
            if not sealed:
                counts["skipped"] += 1
                continue
            row = row_of[me]
            holder = self._holders[row]
            holder.state = mixed_step(
                holder.state, me, Fragment(offered.fragments[row], offered.at), sealed, self.spec,
                round_=tick, holders=holder.census.holders,
            )  # fmt: skip
            share = counted_share(me, outcome.offers, lists)
            self._residuals[row] = owed(offered.produced[row], offered.decoded[row], share)
            self._leads[row] = 0.0
            if share:
                holder.unsent_tokens = 0

    def _mixed(self, row: int, offered: Offered) -> Mixed:
        holder = self._holders[row]
        contribution = Contribution(
            holder.name, offered.decoded[row], holder.unsent_tokens, offered.norms[row], "all"
        )  # fmt: skip
        return Mixed(contribution, offered.fragments[row], holder.state.age)

    def _count(
        self,
        rows: Sequence[int],
        buckets: Mapping[str, Sequence[int]],
        draws: Mapping[str, str],
        before: Mapping[str, Census],
        counts: dict[str, float],
    ) -> None:
        """Let the members of a bucket revise what they take the number of holders to be."""
        told = {row: before[self._holders[row].name].holders for row in rows}
        for row in rows:
            holder = self._holders[row]
            found = {holder.census.bits: [told[other] for other in rows if other != row]}
            while more := sought(holder.census, found):
                for bits in more:
                    others = buckets.get(draws[holder.name][:bits], ()) if bits else ()
                    found[bits] = [before[self._holders[other].name].holders for other in others if other != row]
                    counts["reads"] += 1
            holder.census = revised(holder.census, found, list(told.values()), self._size)

    def _replace(self) -> None:
        """Put a newcomer in the place of each peer that has left, with the state of one that is there."""
        present = [holder for holder in self._holders if holder.name not in self.left]
        for row, holder in enumerate(self._holders):
            if holder.name in self.left:
                self.lost += holder.unsent_tokens
                source = self._links.chance.choice(present)
                census = begin(source.census.holders, self._size)
                self._holders[row] = Holder(f"peer{self._newest}", source.state, census)
                self._newest += 1
                self._residuals[row] = 0.0
                self._leads[row] = 0.0
