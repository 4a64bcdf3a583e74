"""A swarm in one process: real replicas, real text, the product's own rounds, and neither network nor clock.

Time is counted in inner steps. A tick is `TICK_STEPS` of them; `RoundSpec.length` says which ticks end a round, as in
the daemon. Everything that changes a parameter is the product's: `Trainee` takes the steps, `Replica` makes offers
and takes outer steps. What differs between two trainings is a `Rule`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from benchmarks.trainee import Trainee
from configs.run import InnerSpec, ModelSpec, RunSpec
from peer.block.replica import Replica
from peer.block.store import derive, initial_state
from peer.block.timing import due
from peer.corpus.data import Corpus, Source
from peer.train.mixing import FRAGMENT_CODEC, Mixed, span
from peer.train.model import TokenLoss
from peer.train.outer import Contribution, OuterState
from peer.train.partition import COMMON, REPLICA, Strategy
from protocols.codecs import decode, encode
from protocols.grouping import bits_for, draw, fragment_of, group

TICK_STEPS = 5  # inner steps
GROUP_SIZE = 4  # of random groups
HELD_OUT_WINDOWS = 64  # of each domain
EVALUATED_AT_ONCE = 32  # windows


@dataclass(frozen=True)
class Rule:
    """How replicas learn from each other.

    `sync` averages gradients at every inner step; `alone` never exchanges; `all` exchanges among all holders every
    round, `random` among those of a bucket, GROUP_SIZE on average, and never late. A correction arrives `late` × the
    round's length after its snapshot, and θ takes it as `merge` says: `shift` θ + (φ − θₛ), the product's; `scaled`
    the same times exp(−late/2); `half` (θ + φ)/2 (2501.18512). Of `parts` that take turns, in rounds of more than one
    tick, each is late by its part of that: it has the links for itself.
    """

    group: Literal["sync", "alone", "all", "random"]
    peers: int = 4
    codec: str = "float32"
    alpha: float = 0.7
    mu: float = 0.5
    ticks: tuple[int, int] = (1, 8)  # a round's first and last length; between them it grows with age
    late: float = 0.0  # of a round
    parts: int = 1  # of the replica
    fragments: int = 1  # of the anchor, sent in turn in random groups
    merge: Literal["shift", "scaled", "half"] = "shift"


@dataclass(frozen=True)
class Text:
    """What a swarm trains on, and the windows (W, T + 1) that it is judged by."""

    sources: Sequence[Source]
    held_out: Tensor
    tokenizer_sha256: str
    end_of_text: int

    @classmethod
    def of(cls, corpus: Corpus, context_length: int) -> "Text":
        """Take all domains in equal parts, and the first held-out windows of each."""
        sources, windows = [], []
        for domain in corpus.info.domains:
            sources += corpus.sources(domain)
            tokens = torch.from_numpy(corpus.heldout(domain).astype("int64"))
            windows.append(tokens.unfold(0, context_length + 1, context_length)[:HELD_OUT_WINDOWS])
        return cls(sources, torch.cat(windows), corpus.info.tokenizer_sha256, corpus.info.end_of_text)


def run_spec(rule: Rule, text: Text, model: ModelSpec, inner: InnerSpec, *, steps: int, seed: int) -> RunSpec:
    """Return the spec of a run in which each of `rule.peers` takes `steps` inner steps."""
    total = steps * rule.peers * inner.batch_tokens
    first, last = rule.ticks
    return RunSpec.model_validate(
        {
            "name": "quality",
            "seed": seed,
            "total_tokens": total,
            "model": model,
            "strategy": {"kind": "replicas", "parts": rule.parts, "common_tokens": total // 10},
            "inner": inner.model_copy(update={"warmup_tokens": total // 20}),
            "outer": {"codec": rule.codec, "alpha": rule.alpha, "mu": rule.mu},
            # 1, 2, 4 and 8 ticks from a tenth, three and seven tenths of the run on
            "rounds": {
                "tick_seconds": 1,
                "first_ticks": first,
                "last_ticks": last,
                "double_tokens": total // 10,
                "fragments": rule.fragments,
            },
            "genesis": 0.0,
            "tokenizer_sha256": text.tokenizer_sha256,
            "end_of_text": text.end_of_text,
        }
    )


class Peer:
    """A replica, in one block or several, and what it trains: the worker and the daemon of one peer in one process."""

    def __init__(self, spec: RunSpec, text: Text, state: OuterState, index: int) -> None:
        self.name = f"peer{index}"
        self.replicas = {COMMON: Replica(state, spec, self.name)}
        self.trainee = Trainee(spec, Strategy.of(spec.strategy, 1), state.phi, text.sources, [index])
        self._spec = spec
        self._tokens = 0
        self._snapshots: dict[str, Tensor] = {}
        self._sent_tokens = {COMMON: 0}  # of this peer, at a block's last snapshot
        self._anchor_tokens = {COMMON: 0}  # of these, what the anchor's age has

    @property
    def ages(self) -> dict[str, int]:
        """The ages of the anchors."""
        return {block: replica.state.age for block, replica in self.replicas.items()}

    def step(self, position: int) -> None:
        """Take one inner step; the rates follow the anchors' ages and what was trained since, as in the worker."""
        self._tokens += self._spec.inner.batch_tokens
        fresh = {block: self._tokens - counted for block, counted in self._anchor_tokens.items()}
        self.trainee.step(position, {block: age + fresh[block] for block, age in self.ages.items()})

    def part(self) -> None:
        """Leave the common phase: the parts take the place of the one block, and θ is its last state."""
        common, strategy = self.replicas.pop(COMMON), self.trainee.strategy
        self.trainee.use(REPLICA)
        self.trainee.rows.copy_in(common.state.phi, self.trainee.layout.blocks)
        for block in self.trainee.layout.blocks:
            self.replicas[block] = Replica(derive(strategy, block, common.state, self._spec), self._spec, self.name)
        self._sent_tokens = dict.fromkeys(self.replicas, self._tokens)
        self._anchor_tokens = dict(self._sent_tokens)

    def cut(self, block: str, round_: int) -> tuple[Contribution, int]:
        """End a block's round: offer what was learnt. Return what the others decode, and the payload's size."""
        replica = self.replicas[block]
        self._snapshots[block], self._sent_tokens[block] = self.trainee.theta(block), self._tokens
        payload, norm = replica.offer(round_, self._snapshots[block], self._tokens)
        assert replica.pending is not None
        return Contribution(self.name, replica.pending.decoded, self._tokens, norm, "all"), len(payload)

    def mix(self, round_: int, offers: Sequence[Mixed], at: slice, holders: int) -> None:
        """Take the step of a random group, to which the own offer belongs."""
        own = next(offer.fragment for offer in offers if offer.contribution.peer_id == self.name)
        self.replicas[COMMON].mix(round_, own, offers, 1.0, at, holders)

    def mixed(self, round_: int, at: slice) -> tuple[Mixed, int]:
        """End a round in a random group: offer what was learnt since the last one, and a fragment of the anchor."""
        before, state = self._sent_tokens[COMMON], self.replicas[COMMON].state
        contribution, size = self.cut(COMMON, round_)
        payload = encode(FRAGMENT_CODEC, state.phi[at].contiguous())
        fragment = decode(FRAGMENT_CODEC, payload, at.stop - at.start)
        fresh = replace(contribution, tokens=contribution.tokens - before)
        return Mixed(fresh, fragment, state.age), size + len(payload)

    def take(self, rule: Rule, block: str) -> None:
        """Take the anchor that came of the snapshot, keeping what was learnt since."""
        phi, snapshot = self.replicas[block].state.phi, self._snapshots[block]
        if rule.merge == "half":
            theta = self.trainee.theta(block)
            self.trainee.shift(block, (theta + phi) / 2, theta)
        elif rule.merge == "scaled":
            self.trainee.shift(block, phi * math.exp(-rule.late / 2), snapshot * math.exp(-rule.late / 2))
        else:
            self.trainee.shift(block, phi, snapshot)
        self._anchor_tokens[block] = self._sent_tokens[block]


@dataclass(frozen=True)
class Outcome:
    """What came of a training: held-out loss in nats per token, rounds taken, and bytes that one peer offered.

    Where replicas differ, `loss` is the mean of theirs, and `merged_loss` that of the mean of their parameters.
    """

    loss: float
    merged_loss: float
    rounds: int
    offered_bytes: int


class Swarm:
    """Peers that train side by side, inner step by inner step."""

    def __init__(self, spec: RunSpec, rule: Rule, text: Text) -> None:
        self.spec, self.rule = spec, rule
        state = initial_state(spec, Strategy.of(spec.strategy, 1))
        self.peers = [Peer(spec, text, state, index) for index in range(rule.peers)]
        self.rounds = self.offered_bytes = 0
        self._due: dict[str, int] = {}  # block → the position at which its last round's anchor is taken

    def train(self, steps: int) -> None:
        """Take `steps` inner steps with every peer; the last one ends a round of every block."""
        for position in range(steps):
            for peer in self.peers:
                peer.step(position)
            self._after(position + 1, steps)

    def _after(self, position: int, steps: int) -> None:
        for block in [block for block, at in self._due.items() if position in (at, steps)]:
            self._take(block)
        tick, rest = divmod(position, TICK_STEPS)
        if rest or self.rule.group == "alone":
            return
        if self.rule.group == "random":
            self._exchange_in_groups(tick)
            return
        ages = self.peers[0].ages
        for block in ages if position == steps else due(self.spec, ages, tick):
            self._exchange(block, tick)
            share = self.rule.late if block == COMMON else self.rule.late / self.rule.parts
            late = math.ceil(share * self.spec.rounds.length(ages[block]) * TICK_STEPS)
            self._due[block] = position + late
            if not late or position == steps:
                self._take(block)

    def _take(self, block: str) -> None:
        del self._due[block]
        for peer in self.peers:
            peer.take(self.rule, block)
        if self.peers[0].replicas[block].state.is_final:
            for peer in self.peers:
                peer.part()

    def _exchange(self, block: str, round_: int) -> None:
        offers = [peer.cut(block, round_) for peer in self.peers]
        sealed = {contribution.peer_id: "0" * 64 for contribution, _ in offers}
        for peer in self.peers:
            peer.replicas[block].advance(round_, [contribution for contribution, _ in offers], sealed)
        self.rounds += block in (COMMON, REPLICA)
        self.offered_bytes += offers[0][1]

    def _exchange_in_groups(self, tick: int) -> None:
        """Let those peers exchange that are due at their own age, each with the others of its bucket."""
        lengths = {peer.name: self.spec.rounds.length(peer.ages[COMMON]) for peer in self.peers}
        ready = {peer.name: peer for peer in self.peers if tick % lengths[peer.name] == 0}
        draws = {name: draw(self.spec.run_id, COMMON, tick, name) for name in ready}
        bits = bits_for(len(self.peers), GROUP_SIZE)
        size = self.peers[0].replicas[COMMON].size
        at = span(size, self.rule.fragments, fragment_of(tick, self.rule.fragments))
        sent: dict[str, int] = {}
        for members in {group(name, draws, bits, GROUP_SIZE) for name in ready}:
            offers = [ready[name].mixed(tick, at) for name in members]
            sent |= {name: size for name, (_, size) in zip(members, offers, strict=True)}
            for name in members:
                ready[name].mix(tick, [offer for offer, _ in offers], at, len(self.peers))
                ready[name].take(self.rule, COMMON)
        if (first := self.peers[0].name) in ready:
            self.rounds += 1
            self.offered_bytes += sent[first]


def train(spec: RunSpec, rule: Rule, text: Text, steps: int) -> Outcome:
    """Train from scratch by `rule`; judge the anchors, or with `alone` the first peer."""
    if rule.group == "sync":
        strategy = Strategy.of(spec.strategy, 1)
        trainee = Trainee(spec, strategy, initial_state(spec, strategy).phi, text.sources, range(rule.peers))
        for position in range(steps):
            trainee.step(position, {COMMON: (position + 1) * rule.peers * spec.inner.batch_tokens})
        loss = held_out_loss(trainee.module, text.held_out)
        return Outcome(loss, loss, 0, 0)
    swarm = Swarm(spec, rule, text)
    swarm.train(steps)
    judge = swarm.peers[0].trainee
    if rule.group == "alone":
        loss = held_out_loss(judge.module, text.held_out)
        return Outcome(loss, loss, 0, 0)
    layout = judge.layout
    anchors = {
        tuple(peer.replicas[block].state.digest for block in layout.blocks): torch.cat(
            [peer.replicas[block].state.phi for block in layout.blocks]
        )
        for peer in swarm.peers
    }
    distinct = torch.stack(list(anchors.values()))
    losses = []
    for phi in (*distinct, distinct.mean(dim=0)):
        judge.rows.copy_in(phi, layout.blocks)
        losses.append(held_out_loss(judge.module, text.held_out))
    return Outcome(sum(losses[:-1]) / len(distinct), losses[-1], swarm.rounds, swarm.offered_bytes)


@torch.no_grad()
def held_out_loss(module: TokenLoss, windows: Tensor) -> float:
    """Return the mean loss in nats over every predicted token of `windows`, (W, T + 1)."""
    total = sum(float(module(part)) for part in torch.split(windows, EVALUATED_AT_ONCE))
    return total / (len(windows) * (windows.shape[1] - 1))
