"""A complete group of which some members are hostile, in one process: the product's trainer, codec, offers and steps.

Every honest member trains on one domain alone, the next on the next. What the hostile ones offer stands in
`adversary.py`; those who train do so on domains that honest members have, too. Nothing is signed and nothing is sent:
`tests/inloop/test_liars.py` has some attacks in whole daemons. Where a rule is not the product's, everything else is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from benchmarks.adversary import ATTACKS, BOASTING, TRAINING, Scene
from benchmarks.in_process_swarm import held_out_loss
from benchmarks.trainee import Trainee
from configs.run import InnerSpec, ModelSpec, RunSpec
from peer.block.replica import Replica
from peer.block.store import initial_state
from peer.block.timing import due
from peer.corpus.data import Corpus, Source, open_tokens
from peer.train.outer import Contribution, OuterState, nesterov, outer_step
from peer.train.partition import COMMON, Strategy
from protocols.codecs import roundtrip

MODEL = ModelSpec(
    vocab_size=512, hidden_size=48, num_layers=2, num_heads=2, num_kv_heads=2, mlp_size=128, context_length=64
)
INNER = InnerSpec(learning_rate=1e-2, batch_tokens=256)
TICK_STEPS = 5  # inner steps
HELD_OUT_WINDOWS = 64  # of each domain
BOAST = 2**32  # tokens that are claimed and were not trained
SEALED = "0" * 64  # stands for the id of an offer


@dataclass(frozen=True)
class Cell:
    """One training."""

    rule: str  # `mean` and `robust` are the product's, the others are in `BASELINES`
    attack: str  # nothing: there is none
    honest: int
    hostile: int
    steps: int  # inner steps of each member
    seed: int

    def spec(self, corpus: Corpus) -> RunSpec:
        """Return the run that it trains."""
        total = self.steps * (self.honest + self.hostile) * INNER.batch_tokens
        return RunSpec.model_validate(
            {
                "name": "hostile",
                "seed": self.seed,
                "total_tokens": total,
                "model": MODEL,
                "strategy": {"kind": "replicas"},
                "inner": INNER.model_copy(update={"warmup_tokens": total // 20}),
                "outer": {"codec": "int4", "combine": "robust" if self.rule == "robust" else "mean"},
                "rounds": {"tick_seconds": 1, "first_ticks": 1, "last_ticks": 4, "double_tokens": total // 8},
                "genesis": 0.0,
                "tokenizer_sha256": corpus.info.tokenizer_sha256,
                "end_of_text": corpus.info.end_of_text,
            }
        )


def trimmed_mean(offers: Tensor) -> Tensor:
    """Return the mean of each value without the fifth that is largest and the fifth that is smallest (1803.01498)."""
    cut = len(offers) // 5
    return offers.sort(dim=0).values[cut : len(offers) - cut].mean(dim=0)


def geometric_median(offers: Tensor) -> Tensor:
    """Return the point whose distances to the offers add up to least, by 32 steps of Weiszfeld's (1912.13445)."""
    middle = offers.mean(dim=0)
    for _ in range(32):
        near = 1 / (offers - middle).norm(dim=1).clamp_min(1e-9)
        middle = (near[:, None] * offers).sum(dim=0) / near.sum()
    return middle


# Of all offers of a group, (M, N); Hivemind's averager is the mean of what each member sends.
BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "hivemind": lambda offers: offers.mean(dim=0),
    "trimmed": trimmed_mean,
    "geometric": geometric_median,
}


def stepped(rule: str, base: OuterState, offers: Sequence[Contribution], spec: RunSpec, round_: int) -> OuterState:
    """Return the state after a round by `rule`; by those that are not the product's tokens weigh nothing."""
    if rule not in BASELINES:
        return outer_step(base, offers, spec, round_=round_)
    outcome = BASELINES[rule](torch.stack([offer.values for offer in offers]))
    ages = {**base.ages, **{offer.peer_id: offer.tokens for offer in offers if offer.tokens < BOAST}}
    one = Contribution("", outcome, 0, 0.0, "all")
    return nesterov(base, [one], [1.0], spec.outer, round_=round_, ages=ages, common_tokens=None)


class Ruled(Replica):
    """The product's replica, whose group combines by `rule`."""

    rule = "mean"

    def _stepped(self, base: OuterState, round_: int, contributions: Sequence[Contribution]) -> OuterState:
        return stepped(self.rule, base, contributions, self.spec, round_)


class Member:
    """One peer that trains, on one domain's text: its worker and its daemon."""

    def __init__(self, cell: Cell, spec: RunSpec, source: Source, state: OuterState, index: int) -> None:
        self.name = f"peer{index}"
        self.replica = Ruled(state, spec, self.name)
        self.replica.rule = cell.rule
        self.tokens = 0
        self._batch_tokens = spec.inner.batch_tokens
        self._trainee = Trainee(spec, Strategy.of(spec.strategy, 1), state.phi, [source], [index])

    def step(self, position: int) -> None:
        """Take one inner step, at the rate of the anchor's age and what was trained since, as the worker does."""
        self.tokens += self._batch_tokens
        state = self.replica.state
        self._trainee.step(position, {COMMON: state.age + self.tokens - state.ages.get(self.name, 0)})

    def cut(self, round_: int) -> Contribution:
        """End a round: offer what was learnt."""
        self._snapshot = self._trainee.theta(COMMON)
        _, norm = self.replica.offer(round_, self._snapshot, self.tokens)
        assert self.replica.pending is not None
        return Contribution(self.name, self.replica.pending.decoded, self.tokens, norm, "all")

    def take(self, round_: int, offers: Sequence[Contribution]) -> None:
        """Take the outer step, and the new anchor."""
        self.replica.advance(round_, offers, {offer.peer_id: SEALED for offer in offers})
        self._trainee.shift(COMMON, self.replica.state.phi, self._snapshot)

    def loss(self, windows: Tensor) -> float:
        """Return what the anchor scores."""
        self._trainee.rows.copy_in(self.replica.state.phi, [COMMON])
        return held_out_loss(self._trainee.module, windows)


class Swarm:
    """The members of a cell, and what the hostile ones remember."""

    def __init__(self, cell: Cell, corpus: Corpus, scratch: Path) -> None:
        self.cell, self.spec = cell, cell.spec(corpus)
        state = initial_state(self.spec, Strategy.of(self.spec.strategy, 1))
        domains = corpus.info.domains
        sources = [corpus.sources(domains[index % len(domains)])[0] for index in range(cell.honest)]
        self.honest = [Member(cell, self.spec, source, state, index) for index, source in enumerate(sources)]
        if cell.attack == "label_flip":
            sources = [flipped(source, scratch) for source in sources[: cell.hostile]]
        self.hostile = [
            Member(cell, self.spec, source, state, cell.honest + index)
            for index, source in enumerate(sources[: cell.hostile])
        ]
        self._trains = cell.attack in TRAINING
        self._chance = torch.Generator().manual_seed(cell.seed)
        self._kept: dict[str, Tensor] = {}

    def train(self) -> None:
        """Take all inner steps, and the rounds that are due between them."""
        active = [*self.honest, *(self.hostile if self._trains else [])]
        for position in range(1, self.cell.steps + 1):
            for member in active:
                member.step(position - 1)
            tick, rest = divmod(position, TICK_STEPS)
            ages = {COMMON: self.honest[0].replica.state.age}
            if position == self.cell.steps or (not rest and due(self.spec, ages, tick)):
                offers = self._offers(tick, position / self.cell.steps)
                for member in active:
                    member.take(tick, offers)

    def _offers(self, tick: int, share: float) -> list[Contribution]:
        offers = [member.cut(tick) for member in self.honest]
        if not self.cell.hostile:
            return offers
        base = self.honest[0].replica.state
        tokens = BOAST if self.cell.attack in BOASTING else offers[0].tokens

        def lies(values: Sequence[Tensor]) -> list[Contribution]:
            decoded = [roundtrip(self.spec.outer.codec, each.contiguous())[1] for each in values]
            return [
                Contribution(member.name, each, tokens, float(each.norm()), "all")
                for member, each in zip(self.hostile, decoded, strict=False)
            ]

        def combine(values: Sequence[Tensor]) -> Tensor:
            after = stepped(self.cell.rule, base, [*offers, *lies(values)], self.spec, tick)
            return after.momentum - self.spec.outer.mu * base.momentum

        scene = Scene(
            share=share,
            honest=torch.stack([offer.values for offer in offers]),
            own=torch.stack([member.cut(tick).values for member in self.hostile]) if self._trains else None,
            hostile=self.cell.hostile,
            combine=combine,
            last=base.momentum,
            chance=self._chance,
            kept=self._kept,
        )
        return [*offers, *lies(ATTACKS[self.cell.attack](scene))]


def train(cell: Cell, corpus: Corpus, scratch: Path) -> dict[str, float]:
    """Train a cell from scratch; return the anchor's held-out loss on each domain that honest members train on."""
    swarm = Swarm(cell, corpus, scratch)
    swarm.train()
    losses = {}
    for domain in corpus.info.domains[: cell.honest]:
        tokens = torch.from_numpy(corpus.heldout(domain).astype("int64"))
        length = MODEL.context_length
        losses[domain.name] = swarm.honest[0].loss(tokens.unfold(0, length + 1, length)[:HELD_OUT_WINDOWS])
    return losses


def flipped(source: Source, scratch: Path) -> Source:
    """Return a text in which every token stands for another one: the first for the last, and so on."""
    tokens = open_tokens(Path(source.path), source.vocab_size)
    path = scratch / f"{Path(source.path).name}.flipped"
    (source.vocab_size - 1 - np.asarray(tokens)).astype(tokens.dtype).tofile(path)
    return replace(source, path=str(path))


def mean_loss(losses: Mapping[str, float]) -> float:
    """Return the mean over the domains."""
    return fmean(losses.values())
