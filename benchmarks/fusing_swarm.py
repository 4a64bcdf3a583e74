"""A swarm whose sub-models part, in one process: the product's trainer, rounds and states; no network and no clock.

Every peer takes its inner steps side by side with the others. A tick is one inner step, and `RoundSpec.length` says
which ticks end a round of which block, as in the daemon. `Trainee` takes the steps, `Replica` makes offers and takes
outer steps, `Strategy` says what parts into what.

Beside it, what it is compared with: one model trained in one place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.trainee import Trainee
from configs.run import RunSpec
from peer.block.replica import Replica
from peer.block.store import derive, initial_state
from peer.block.timing import due
from peer.corpus.data import Corpus, Source
from peer.train.outer import SWARM, Contribution, OuterState, new_state
from peer.train.partition import COMMON, Strategy

SEALED = "0" * 64  # stands for the id of an offer: nothing is signed here


def sources_of(corpus: Corpus, domain: int | None) -> list[Source]:
    """Return the text of one domain, or of all in equal parts."""
    chosen = corpus.info.domains if domain is None else (corpus.info.domains[domain],)
    return [source for each in chosen for source in corpus.sources(each)]


class Member:
    """One peer: its replicas of the blocks of a sub-model, and what trains it."""

    def __init__(
        self,
        spec: RunSpec,
        strategy: Strategy,
        corpus: Corpus,
        state: OuterState,
        index: int,
        *,
        is_private: bool,
        frozen: Path | None = None,
    ) -> None:
        self.name = f"peer{index}"
        self.domain = index % strategy.num_domains
        self.replicas = {COMMON: Replica(state, spec, self.name)}
        own = self.domain if is_private else None
        self.trainee = Trainee(spec, strategy, state.phi, sources_of(corpus, own), [index], frozen)
        self._spec, self._strategy, self._corpus = spec, strategy, corpus
        self._batch_tokens = spec.inner.batch_tokens
        self._told = str(own) if is_private else "all"
        self._tokens = {COMMON: 0}  # of this peer on each block
        self._sent_tokens = {COMMON: 0}  # of these, what was offered last
        self._anchor_tokens = {COMMON: 0}  # of these, what the anchor's age has
        self._snapshots: dict[str, Tensor] = {}

    def step(self, position: int) -> None:
        """Take one inner step; rates follow the anchors' ages and what was trained since, as in the worker."""
        ages = {
            block: replica.state.age + self._tokens[block] - self._anchor_tokens[block] + self._batch_tokens
            for block, replica in self.replicas.items()
        }
        self.trainee.step(position, ages)
        for block in self.replicas:
            self._tokens[block] += self._batch_tokens

    def cut(self, block: str, round_: int) -> tuple[Contribution, int]:
        """End a block's round: offer what was learnt. Return what the others decode, and the payload's size."""
        replica = self.replicas[block]
        self._snapshots[block] = self.trainee.theta(block)
        payload, norm = replica.offer(round_, self._snapshots[block], self._tokens[block])
        assert replica.pending is not None
        values, tokens = replica.pending.decoded, self._tokens[block]
        return Contribution(self.name, values, tokens, norm, self._told), len(payload)

    def advance(self, block: str, round_: int, offers: Sequence[Contribution]) -> None:
        """Take the outer step; θ takes the new anchor with `take`."""
        self.replicas[block].advance(round_, offers, {offer.peer_id: SEALED for offer in offers})
        self._sent_tokens[block] = self._tokens[block]

    def take(self, block: str) -> None:
        """Take the new anchor, keeping what was learnt since the snapshot."""
        self.trainee.shift(block, self.replicas[block].state.phi, self._snapshots[block])
        self._anchor_tokens[block] = self._sent_tokens[block]

    def advance_alone(self, block: str, round_: int) -> None:
        """Take the step of a round with one holder."""
        self.replicas[block].advance_alone(round_, self.trainee.theta(block), self._tokens[block])
        self._anchor_tokens[block] = self._tokens[block]

    def part(self) -> None:
        """Begin with the sub-model of the own domain, from the common model."""
        common = self.replicas[COMMON].state
        sub_model = self._strategy.sub_models[self.domain]
        self.trainee.rows.copy_in(common.phi, [COMMON])
        self.trainee.use(sub_model)
        self.trainee.read(sources_of(self._corpus, self._strategy.domain(sub_model)))
        self.replicas = {}
        for block in self.trainee.layout.blocks:
            replica = Replica(derive(self._strategy, block, common, self._spec), self._spec, self.name)
            self.replicas[block] = replica
            self._tokens[block] = self._anchor_tokens[block] = replica.tokens
        self._told = str(self.domain)


@dataclass(frozen=True)
class Trained:
    """The flat blocks in the end, with `model` as it was when the sub-models parted, and what it took."""

    blocks: Mapping[str, Tensor]
    rounds: int
    offered_bytes: int  # by one peer


def train_swarm(
    spec: RunSpec,
    corpus: Corpus,
    peers: int,
    steps: int,
    *,
    is_private: bool = False,
    start: Tensor | None = None,
    late_steps: int = 0,
    frozen: Path | None = None,
) -> Trained:
    """Train `spec` from scratch with so many peers, each of which takes `steps` inner steps.

    `is_private` keeps each peer to its own domain's text from the first step. `start` are parameters to begin with
    at the end of a common phase that was trained elsewhere. A new anchor is taken `late_steps` after its snapshot.
    `frozen` is the file of the model that adapters are trained on.
    """
    strategy = Strategy.of(spec.strategy, len(corpus.info.domains))
    state = initial_state(spec, strategy)
    first = 0
    if start is not None:
        age = spec.strategy.common_tokens
        state = new_state(COMMON, start, None, version=0, round_=0, ages={SWARM: age}, is_final=True)
        first = age // (peers * spec.inner.batch_tokens)
    members = [
        Member(spec, strategy, corpus, state, index, is_private=is_private, frozen=frozen) for index in range(peers)
    ]
    taken = offered = 0
    common: dict[str, Tensor] = {}
    if state.is_final and spec.strategy.kind != "replicas":
        common = _part(members)
    coming: dict[str, int] = {}  # block → the position at which its new anchor is taken
    for position in range(first, steps):
        for block in [block for block, at in coming.items() if at <= position]:
            _take(members, coming, block)
        for member in members:
            member.step(position)
        tick = position + 1
        ages = {block: replica.state.age for member in members for block, replica in member.replicas.items()}
        blocks = list(ages) if tick == steps else due(spec, ages, tick)
        for block in blocks:
            _take(members, coming, block)
            size = _exchange(block, tick, [member for member in members if block in member.replicas])
            if size:
                coming[block] = tick + late_steps
            taken, offered = taken + bool(size), offered + size // peers
        if any(COMMON in member.replicas and member.replicas[COMMON].state.is_final for member in members):
            common = _part(members)
    blocks = {block: replica.state.phi for member in members for block, replica in member.replicas.items()}
    return Trained(common | blocks, taken, offered)


def _take(members: Sequence[Member], coming: dict[str, int], block: str) -> None:
    """Let θ take the block's new anchor, if there is one that it has not taken."""
    if coming.pop(block, None) is not None:
        for member in members:
            if block in member.replicas:
                member.take(block)


def _part(members: Sequence[Member]) -> dict[str, Tensor]:
    """Let the sub-models part; return the common model."""
    common = {COMMON: members[0].replicas[COMMON].state.phi}
    for member in members:
        member.part()
    return common


def _exchange(block: str, tick: int, holders: Sequence[Member]) -> int:
    """Let the holders of a block take a round; return the bytes that they offered together."""
    if len(holders) == 1:
        holders[0].advance_alone(block, tick)
        return 0
    offers = [member.cut(block, tick) for member in holders]
    for member in holders:
        member.advance(block, tick, [contribution for contribution, _ in offers])
    return sum(size for _, size in offers)


def train_late(spec: RunSpec, corpus: Corpus, domain: int, common: Tensor, steps: int) -> Tensor:
    """Train one more branch on a domain that came when the others were done, from the common model; return it."""
    strategy = Strategy.of(spec.strategy, len(corpus.info.domains))
    ages = {SWARM: spec.strategy.common_tokens}
    state = new_state(COMMON, common, None, version=0, round_=0, ages=ages, is_final=True)
    member = Member(spec, strategy, corpus, state, domain, is_private=False)
    member.part()
    for position in range(steps):
        member.step(position)
    block = strategy.sub_models[domain]
    member.advance_alone(block, steps)
    return member.replicas[block].state.phi


def train_central(
    spec: RunSpec, corpus: Corpus, *, steps: int, stop_after: int | None = None, frozen: Path | None = None
) -> Tensor:
    """Train one model in one place for `steps` steps of the schedule, or fewer; return its flat parameters, (N,).

    `frozen` is the file of the model that an adapter is trained on.
    """
    strategy = Strategy.of(spec.strategy, len(corpus.info.domains))
    trainee = Trainee(spec, strategy, initial_state(spec, strategy).phi, sources_of(corpus, None), [0], frozen)
    for position in range(steps if stop_after is None else stop_after):
        trainee.step(position, {COMMON: (position + 1) * spec.inner.batch_tokens})
    return trainee.theta(COMMON)
