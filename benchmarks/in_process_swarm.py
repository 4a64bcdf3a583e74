"""A swarm in one process: real replicas, real text, the product's own rounds, and neither network nor clock.

Time is counted in inner steps. A tick is `TICK_STEPS` of them; `RoundSpec.length` says which ticks end a round, as in
the daemon. Everything that changes a parameter is the product's: `Inner` takes the steps, `Replica` makes offers
and takes outer steps, `Rows` copies θ out and shifts it. What differs between two trainings is a `Rule`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from configs.run import InnerSpec, ModelSpec, RunSpec
from peer.replica import Replica
from peer.session import initial_state
from peer.train.data import Corpus, Sampler, Source
from peer.train.inner import Inner, Schedule
from peer.train.mixing import FRAGMENT_CODEC, Mixed, span
from peer.train.model import TokenLoss
from peer.train.outer import Contribution, OuterState
from peer.train.partition import COMMON, Strategy
from peer.train.sharded import Ranks, Rows, build_sharded
from protocols.codecs import decode, encode
from protocols.grouping import bits_for, draw, fragment_of, group

TICK_STEPS = 5  # inner steps
GROUP_SIZE = 4  # of random groups
CPU = torch.device("cpu")
STRATEGY = Strategy("replicas", 1)
HELD_OUT_WINDOWS = 64  # of each domain
EVALUATED_AT_ONCE = 32  # windows


@dataclass(frozen=True)
class Rule:
    """How replicas learn from each other.

    `sync` averages gradients at every inner step; `alone` never exchanges; `all` exchanges among all holders every
    round, `random` among those of a bucket, GROUP_SIZE on average, and never late. A correction arrives `late` × the
    round's length after its snapshot, and θ takes it as `merge` says: `shift` θ + (φ − θₛ), the product's; `scaled`
    the same times exp(−late/2); `half` (θ + φ)/2 (2501.18512).
    """

    group: Literal["sync", "alone", "all", "random"]
    peers: int = 4
    codec: str = "float32"
    alpha: float = 0.7
    mu: float = 0.5
    ticks: tuple[int, int] = (1, 8)  # a round's first and last length; between them it grows with age
    late: float = 0.0  # of a round
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
            "strategy": {"kind": "replicas"},
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


class Trainee:
    """Parameters in training, their optimizer, and the streams of text that they are trained on."""

    def __init__(self, spec: RunSpec, text: Text, phi: Tensor, streams: Sequence[int]) -> None:
        self.layout = STRATEGY.layout(COMMON, spec.model)
        self.module = build_sharded(spec.model, CPU, None)
        self.rows = Rows(self.module, self.layout)
        self.rows.copy_in(phi, self.layout.blocks)
        self._inner = Inner(spec.inner, self.module, Ranks(0, 1, CPU), is_bfloat16=False)
        self._inner.use(self.layout, is_fresh=True)
        self._schedule = Schedule(spec, STRATEGY)
        self._batch = spec.inner.batch_tokens // spec.model.context_length
        self._samplers = [
            Sampler(text.sources, spec.model.context_length, 1000 * spec.seed + stream) for stream in streams
        ]

    def step(self, position: int, age: int) -> None:
        """Take one inner step with the rate of `age`, on the windows that stand at `position` of each stream."""
        windows = torch.cat([sampler.batch(position, self._batch) for sampler in self._samplers])
        self._inner.step(windows, len(windows), {COMMON: self._schedule.rate(COMMON, age)})

    def theta(self) -> Tensor:
        """Return a copy of the parameters, (N,)."""
        flat = torch.empty(self.layout.size)
        self.rows.copy_out(flat)
        return flat


class Peer:
    """One replica and what it trains: the worker and the daemon of one peer without the processes."""

    def __init__(self, spec: RunSpec, text: Text, state: OuterState, index: int) -> None:
        self.replica = Replica(state, spec, f"peer{index}")
        self.trainee = Trainee(spec, text, state.phi, [index])
        self.snapshot = state.phi.clone()
        self._batch_tokens = spec.inner.batch_tokens
        self._age = self._tokens = self._anchor_tokens = self._snapshot_tokens = 0

    def step(self, position: int) -> None:
        """Take one inner step; the rate follows the anchor's age and what was trained since, as in the worker."""
        self.trainee.step(position, self._age + self._tokens - self._anchor_tokens + self._batch_tokens)
        self._tokens += self._batch_tokens

    def cut(self, round_: int) -> tuple[Contribution, int]:
        """End a round: take the snapshot and offer it. Return what the others decode, and the payload's size."""
        self.snapshot, self._snapshot_tokens = self.trainee.theta(), self._tokens
        payload, norm = self.replica.offer(round_, self.snapshot, self._tokens)
        assert self.replica.pending is not None
        return Contribution(self.replica.me, self.replica.pending.decoded, self._tokens, norm, "all"), len(payload)

    def mix(self, round_: int, offers: Sequence[Mixed], at: slice, holders: int) -> None:
        """Take the step of a random group, to which the own offer belongs."""
        own = next(offer.fragment for offer in offers if offer.contribution.peer_id == self.replica.me)
        self.replica.mix(round_, own, offers, 1.0, at, holders)

    def mixed(self, round_: int, at: slice) -> tuple[Mixed, int]:
        """End a round in a random group: offer what was learnt since the last one, and a fragment of the anchor."""
        before = self._snapshot_tokens
        contribution, size = self.cut(round_)
        payload = encode(FRAGMENT_CODEC, self.replica.state.phi[at].contiguous())
        fragment = decode(FRAGMENT_CODEC, payload, at.stop - at.start)
        fresh = replace(contribution, tokens=contribution.tokens - before)
        return Mixed(fresh, fragment, self.replica.state.age), size + len(payload)

    def take(self, rule: Rule) -> None:
        """Take the anchor that came of the snapshot, keeping what was learnt since."""
        phi, rows, blocks = self.replica.state.phi, self.trainee.rows, self.trainee.layout.blocks
        if rule.merge == "half":
            rows.copy_in((self.trainee.theta() + phi) / 2, blocks)
        elif rule.merge == "scaled":
            rows.shift(phi * math.exp(-rule.late / 2), self.snapshot * math.exp(-rule.late / 2), blocks)
        else:
            rows.shift(phi, self.snapshot, blocks)
        self._age, self._anchor_tokens = self.replica.state.age, self._snapshot_tokens


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
        state = initial_state(spec, STRATEGY)
        self.peers = [Peer(spec, text, state, index) for index in range(rule.peers)]
        self.rounds = self.offered_bytes = 0
        self._due: int | None = None  # the position at which the last round's anchor is taken

    def train(self, steps: int) -> None:
        """Take `steps` inner steps with every peer; the last one should end a round."""
        for position in range(steps):
            for peer in self.peers:
                peer.step(position)
            self._after(position + 1, steps)

    def _after(self, position: int, steps: int) -> None:
        if position == self._due:
            self._take()
        tick, rest = divmod(position, TICK_STEPS)
        if rest or self.rule.group == "alone":
            return
        if self.rule.group == "random":
            self._exchange_in_groups(tick)
            return
        length = self.spec.rounds.length(self.peers[0].replica.state.age)
        if tick % length:
            return
        self._exchange(tick)
        self._due = position + math.ceil(self.rule.late * length * TICK_STEPS)
        if self._due == position or position == steps:
            self._take()

    def _take(self) -> None:
        self._due = None
        for peer in self.peers:
            peer.take(self.rule)

    def _exchange(self, round_: int) -> None:
        offers = [peer.cut(round_) for peer in self.peers]
        sealed = {contribution.peer_id: "0" * 64 for contribution, _ in offers}
        for peer in self.peers:
            peer.replica.advance(round_, [contribution for contribution, _ in offers], sealed)
        self.rounds += 1
        self.offered_bytes += offers[0][1]

    def _exchange_in_groups(self, tick: int) -> None:
        """Let those peers exchange that are due at their own age, each with the others of its bucket."""
        lengths = {peer.replica.me: self.spec.rounds.length(peer.replica.state.age) for peer in self.peers}
        due = {peer.replica.me: peer for peer in self.peers if tick % lengths[peer.replica.me] == 0}
        draws = {name: draw(self.spec.run_id, COMMON, tick, name) for name in due}
        bits = bits_for(len(self.peers), GROUP_SIZE)
        at = span(self.peers[0].replica.size, self.rule.fragments, fragment_of(tick, self.rule.fragments))
        sent: dict[str, int] = {}
        for members in {group(name, draws, bits, GROUP_SIZE) for name in due}:
            offers = [due[name].mixed(tick, at) for name in members]
            sent |= {name: size for name, (_, size) in zip(members, offers, strict=True)}
            for name in members:
                due[name].mix(tick, [offer for offer, _ in offers], at, len(self.peers))
                due[name].take(self.rule)
        if (first := self.peers[0].replica.me) in due:
            self.rounds += 1
            self.offered_bytes += sent[first]


def train(spec: RunSpec, rule: Rule, text: Text, steps: int) -> Outcome:
    """Train from scratch by `rule`; judge the anchors, or with `alone` the first peer."""
    if rule.group == "sync":
        trainee = Trainee(spec, text, initial_state(spec, STRATEGY).phi, range(rule.peers))
        for position in range(steps):
            trainee.step(position, (position + 1) * rule.peers * spec.inner.batch_tokens)
        loss = held_out_loss(trainee.module, text.held_out)
        return Outcome(loss, loss, 0, 0)
    swarm = Swarm(spec, rule, text)
    swarm.train(steps)
    judge = swarm.peers[0].trainee
    if rule.group == "alone":
        loss = held_out_loss(judge.module, text.held_out)
        return Outcome(loss, loss, 0, 0)
    anchors = torch.stack(list({peer.replica.state.digest: peer.replica.state.phi for peer in swarm.peers}.values()))
    losses = []
    for phi in (*anchors, anchors.mean(dim=0)):
        judge.rows.copy_in(phi, judge.layout.blocks)
        losses.append(held_out_loss(judge.module, text.held_out))
    return Outcome(sum(losses[:-1]) / len(anchors), losses[-1], swarm.rounds, swarm.offered_bytes)


@torch.no_grad()
def held_out_loss(module: TokenLoss, windows: Tensor) -> float:
    """Return the mean loss in nats over every predicted token of `windows`, (W, T + 1)."""
    total = sum(float(module(part)) for part in torch.split(windows, EVALUATED_AT_ONCE))
    return total / (len(windows) * (windows.shape[1] - 1))
