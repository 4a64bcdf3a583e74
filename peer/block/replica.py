"""One block on one peer: its state, what compression still owes, and its past. No network, no clock, no asyncio.

The same code runs in the daemon and wherever rounds are replayed. Work is never lost or counted twice: whatever this
peer's offers have not yet put into the block is in `residual`, and whenever the history that counts changes, the
residual follows it.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from configs.content import Buffer
from configs.errors import PeerError, StateError
from configs.files import write_file, write_json
from configs.run import RunSpec
from peer.block.codec_choice import CodecChoice
from peer.block.hearing import Hearing
from peer.block.lone_work import LoneWork
from peer.block.own_offers import OwnOffer, counted_in, packed, unpacked
from peer.block.saved import facts_of, load_owed, read_block_facts
from peer.train.checkpoint import write_tensors
from peer.train.mixing import Fragment, Mixed, mixed_step, owed
from peer.train.outer import (
    Contribution,
    OuterState,
    common_tokens_of,
    lone_step,
    outer_step,
    unwritten,
)
from protocols.codecs import decode, is_finite, roundtrip
from protocols.offers import KEPT_ROUNDS, SealedRound
from protocols.parcels import Offer, OfferHeader
from protocols.sealing import MARKS, Mark

NORM_TOLERANCE = 0.01


@dataclass(frozen=True)
class Pending:
    """What was offered last, until a step is taken: u = e + Δ, and D(u). After a skip it is still owed."""

    round: int
    produced: Tensor  # u, (N,)
    decoded: Tensor  # D(u), (N,)
    codec: str
    payload: bytes  # D(u), encoded


@dataclass(frozen=True)
class Origin:
    """How a restart makes the residual: u − share·D(u), with u from the file of the last offer.

    `share` is the part of that offer that was counted.
    """

    round: int
    share: float


def read_offer(offer: Offer, size: int) -> Contribution:
    """Decode a checked offer of a block of `size` parameters. Raises PeerError if it is not one of a complete group."""
    if offer.header.fragment is not None:
        raise PeerError(f"offer of {offer.header.peer} for {offer.header.block} is for a random group")
    return read_values(offer.header, offer.payload, size)


def read_values(header: OfferHeader, payload: Buffer, size: int) -> Contribution:
    """Decode an offer's `size` values. Raises PeerError if their norm is not the signed one."""
    values = decode(header.codec, payload, size)
    norm = float(torch.linalg.vector_norm(values))
    if not math.isfinite(norm) or abs(norm - header.norm) > NORM_TOLERANCE * max(norm, header.norm):
        raise PeerError(f"offer of {header.peer} for {header.block}: its norm is {norm:.6g}, signed {header.norm:.6g}")
    return Contribution(header.peer, values, header.tokens, header.norm, header.domain)


class Replica:
    """A block that this peer trains.

    `previous` is the state before the last step, kept so that a step which the others did not take can be undone.
    Its methods run in threads; what the loop reads meanwhile is put in place whole, and never changed.
    """

    def __init__(self, state: OuterState, spec: RunSpec, me: str) -> None:
        self.state = state
        self.previous: OuterState | None = None
        self.spec = spec
        self.me = me
        self.residual = torch.zeros_like(state.phi)
        self.marks: tuple[Mark, ...] = (Mark(state.version, state.digest),)
        self.lineage: tuple[SealedRound, ...] = ()
        self.own: dict[int, OwnOffer] = {}
        self.hearing = Hearing(me)
        self.pending: Pending | None = None
        self.choice = CodecChoice(spec.outer.codec)
        self.offered_round = state.round  # no second offer is ever signed for one round
        self.tokens = state.ages.get(me, 0)  # cumulative, of this peer on this block, in its last offer
        self._counted_tokens = state.ages.get(me, 0)  # in the history with which `own` and `residual` are settled
        self._lone: LoneWork | None = None
        self._origin: Origin | None = None  # of the residual, as long as the disk has what it is made of

    @property
    def block(self) -> str:
        """The block's name."""
        return self.state.block

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.state.size

    @property
    def may_count(self) -> bool:
        """Whether the history of this state may have, or lack, what was done on this block before."""
        return self._lone is not None or any(round_ <= self.state.round for round_ in self.own)

    def offer(self, round_: int, theta: Tensor, tokens: int) -> tuple[bytes, float]:
        """Return the payload for this round and the norm of its decoded values; remember what it was made of.

        `theta` are the local parameters at the round's end, (N,); `tokens` this peer's cumulative count.
        """
        self.tokens = max(self.tokens, tokens)
        produced = torch.sub(self.state.phi, theta, out=unwritten(self.size))
        produced += self.residual
        codec = self.choice.codec
        payload, decoded = roundtrip(codec, produced)
        self.pending = Pending(round_, produced, decoded, codec, payload)
        self.offered_round = round_
        return payload, float(torch.linalg.vector_norm(decoded))

    def advance(self, round_: int, contributions: Sequence[Contribution], sealed: Mapping[str, str]) -> None:
        """Take the outer step of a sealed round; what the own offer lacked stays in the residual."""
        is_counted = self.me in sealed
        self._push(self._stepped(self.state, round_, contributions), sealed)
        self._settle(round_, float(is_counted))
        self._close(round_, is_counted)
        self.pending = None

    def advance_alone(self, round_: int, theta: Tensor, tokens: int) -> None:
        """Take the step of a round with one holder: φ ← θ. Raises ValueError, and takes none, if θ is not finite."""
        if not is_finite(theta):  # this may be the only copy of the block
            raise ValueError(f"what was trained of {self.block} alone is not finite")
        self.tokens = max(self.tokens, tokens)
        common, before, counted_tokens = common_tokens_of(self.spec, self.block), self.state.phi, self._counted_tokens
        theta = theta - self.residual  # what could not be sent while there were others is not lost
        self.residual, self._origin = torch.zeros_like(theta), None
        self._push(lone_step(self.state, theta, self.me, self.tokens, round_=round_, common_tokens=common), {})
        self._close(round_, False)
        self.pending = None
        if self.state.ages.keys() - {self.me}:  # others, who could not be heard, may have gone on without this work
            earlier = self._lone or LoneWork(round_, 0, "", counted_tokens, torch.zeros_like(theta))
            work = earlier.work + (before - self.state.phi)
            self._lone = replace(earlier, version=self.state.version, digest=self.state.digest, work=work)

    def mix(
        self,
        round_: int,
        fragment: Tensor,
        offers: Sequence[Mixed],
        share: float,
        at: slice,
        holders: float,
    ) -> None:
        """Take the step of a random group; `share` of the own offer counted in it, the rest stays in the residual.

        `fragment`, at `at`, is the own one as the others decode it; `offers` and `holders` are as in `mixed_step`.
        """
        own = Fragment(fragment, at)
        after = mixed_step(self.state, self.me, own, offers, self.spec, round_=round_, holders=holders)
        self._push(after, {})
        self._settle(round_, share)
        self.pending = None

    def skip(self, round_: int) -> None:
        """Leave everything as it was; remember the own offer, which others may have counted."""
        self._close(round_, False)

    def wait(self, round_: int, theta: Tensor, tokens: int, folder: Path) -> None:
        """Take no step, but write down what has been learnt: if this peer is killed, it is not lost.

        Raises StateError, and ValueError if `theta` is not finite.
        """
        self.offer(round_, theta, tokens)
        self.save_offered(folder)
        self.skip(round_)

    def put_off(self, theta: Tensor, tokens: int) -> None:
        """Owe all that `theta`, (N,), has beyond φ; to be sent when this peer returns to the block.

        Of a `theta` that is not finite nothing could ever be sent: then what was offered last is owed, and no more.
        """
        if is_finite(theta):
            self.residual, self._origin = self.residual + (self.state.phi - theta), None
            self.tokens = max(self.tokens, tokens)
        elif self.pending is not None:
            self.residual, self._origin = self.pending.produced, None
        self.pending = None

    def base_in(self, marks: Sequence[Mark]) -> OuterState | None:
        """Return the newest state here that lies in a history; its rounds can be replayed from there."""
        return next((s for s in (self.state, self.previous) if s and Mark(s.version, s.digest) in marks), None)

    def replayed(self, base: OuterState, round_: SealedRound, contributions: Sequence[Contribution]) -> OuterState:
        """Return the state that a sealed round of the others makes of `base`. Raises PeerError if its bits differ."""
        state = self._stepped(base, round_.round, contributions)
        if (state.version, state.digest) != (round_.version, round_.digest):
            raise PeerError(f"replay of {self.block} version {round_.version} did not give the digest that was claimed")
        return state

    def adopt(
        self,
        states: Sequence[OuterState],
        rounds: Sequence[SealedRound],
        parents: Sequence[Mark],
        base: OuterState | None,
    ) -> None:
        """Follow another history: its `states`, newest last, and those of its `rounds` after `base` that are told.

        `base` is the newest state in common, if any is known; `parents` are the marks that the new history has behind
        it. The residual follows: an offer of this peer that the new history has and the old one had not is taken out
        of it, and the other way round.
        """
        after = states[-1]
        tokens, counted_tokens, lone = after.ages.get(self.me, 0), self._counted_tokens, self._lone
        if lone is not None:
            told = {mark.version: mark.digest for mark in (*parents, *(Mark(r.version, r.digest) for r in rounds))}
            is_older = tokens < counted_tokens
            lacking = lone.lacking_in(told, is_older) if base is None else lone.lacking_after(base, self.state)
            if lacking is not None:
                self._owe(lacking)
                counted_tokens, self._lone = lone.counted_tokens, None
        for round_, is_counted in counted_in(self.own, self.me, after, rounds, base, counted_tokens).items():
            mine = self.own[round_]
            if is_counted != mine.is_counted:
                decoded = decode(mine.codec, mine.payload, self.size)
                self._owe(-decoded if is_counted else decoded)
                mine.is_counted = is_counted
        self._counted_tokens = tokens
        self.previous = states[-2] if len(states) > 1 else None
        self.state = after
        kept = [m for m in parents if m.version < self.state.version]
        self.marks = (*kept, Mark(self.state.version, self.state.digest))[-MARKS:]
        versions = {r.version for r in rounds}
        older = [r for r in self.lineage if versions and r.version < min(versions)]
        self.lineage = (*older, *rounds)[-KEPT_ROUNDS:]

    def merged(self, state: OuterState, parents: Sequence[Mark]) -> None:
        """Go on from the mean of this history and others: what was learnt alone is in it, and nowhere else."""
        self.adopt([state], [], parents, state)
        if self._lone is not None:
            self._lone = replace(self._lone, version=state.version, digest=state.digest)

    def reconcile(self, rounds: Sequence[SealedRound]) -> None:
        """Settle what the history that leads to this state has counted of the own offers, after being away.

        `rounds` are its last ones; those of another state say nothing.
        """
        if not rounds or rounds[-1].digest != self.state.digest:
            rounds = ()
        self.adopt([self.state], rounds, [Mark(r.version, r.digest) for r in rounds], None)

    def save_offered(self, folder: Path) -> None:
        """Write what is about to be offered, before anybody sees it. Raises StateError."""
        assert self.pending is not None
        round_ = self.pending.round
        facts = {"round": str(round_), "tokens": str(self.tokens), "codec": self.pending.codec}
        tensors = {"produced": self.pending.produced} | packed(self.own, self.state.round + 1)
        write_tensors(folder / f"{self.block}.offered", tensors, facts)
        self._origin = Origin(round_, 0.0)

    def save(self, folder: Path) -> OuterState:
        """Write the state and what is owed, and return it; a crash between two writes costs no work.

        Raises StateError.
        """
        state = self.state
        # What was offered up to that round is in here. The count stands here, too: a state that is fetched when this
        # peer comes back replaces the block's other files, and what is owed would then weigh nothing.
        facts = {"round": str(self.offered_round), "tokens": str(self.tokens), "digest": state.digest}
        facts["counted_tokens"] = str(self._counted_tokens)
        tensors = {}
        if self._origin is not None and self._origin.round == self.offered_round:
            facts["share"] = str(self._origin.share)
        else:  # after a restart, θ begins at φ
            tensors["residual"] = self.residual if self.pending is None else self.pending.produced
        if self._lone is not None:
            facts |= {"lone_round": str(self._lone.round), "lone_version": str(self._lone.version)}
            facts |= {"lone_digest": self._lone.digest, "lone_counted_tokens": str(self._lone.counted_tokens)}
            tensors["lone"] = self._lone.work
        write_tensors(folder / f"{self.block}.residual", tensors | packed(self.own, self._first_untold()), facts)
        write_file(folder / f"{self.block}.safetensors", state.blob)
        write_json(folder / f"{self.block}.json", facts_of(state, self.tokens).model_dump())
        return state

    def _first_untold(self) -> int:
        """Return the round from which on another history than this may have other offers of this peer."""
        if self._lone is None:
            return self.state.round
        counted_tokens = self._lone.counted_tokens
        return min([self.state.round, *(r for r, mine in self.own.items() if mine.tokens > counted_tokens)])

    def resume(self, folder: Path) -> None:
        """Take up what was owed when this peer ended. Raises StateError if a file is damaged.

        on disk                                                     the residual is
        no offer since the checkpoint, which has a residual         the checkpoint's
        an offer of a later round, which others may have counted    u, until their history says that they have
        an offer of the checkpoint's round, which says a share      u − share·D(u)
        """
        kept, facts = load_owed(folder / f"{self.block}.residual", self.size)
        offered, offered_facts = load_owed(folder / f"{self.block}.offered", self.size)
        saved_round = -1 if facts.round is None else facts.round
        offered_round = -1 if offered_facts.round is None else offered_facts.round
        with suppress(StateError):  # then the block's own ages say what has counted
            saved = read_block_facts(folder, self.block)
            self.tokens = max(self.tokens, 0 if saved is None else saved.tokens)
        self.tokens = max(self.tokens, facts.tokens)
        if facts.counted_tokens is not None:
            self._counted_tokens = facts.counted_tokens
        if "lone" in kept:
            place = facts.lone_round, facts.lone_version, facts.lone_digest, facts.lone_counted_tokens
            self._lone = LoneWork(*place, kept["lone"])
        self._recall(kept)
        if "residual" in kept:
            self.residual = kept["residual"]
        if "produced" in offered and (
            offered_round > saved_round or (offered_round == saved_round and "residual" not in kept)
        ):
            self._recall(offered)
            self.tokens = max(self.tokens, offered_facts.tokens)
            self.residual, self.offered_round = offered["produced"], max(offered_round, self.offered_round)
            codec = offered_facts.codec
            payload, decoded = roundtrip(codec, self.residual)
            share = facts.share if offered_round == saved_round else 0.0
            self.own[offered_round] = OwnOffer(codec, payload, share > 0, offered_facts.tokens)
            self._origin = Origin(offered_round, share)
            self.residual = owed(self.residual, decoded, share)

    def _recall(self, tensors: Mapping[str, Tensor]) -> None:
        self.own |= unpacked(tensors)
        self.offered_round = max(self.offered_round, *self.own, 0)

    def _settle(self, round_: int, share: float) -> None:
        """Keep in the residual what a step has not counted of the offer of its round."""
        if self.pending is None or self.pending.round != round_:
            return
        self.residual = owed(self.pending.produced, self.pending.decoded, share)
        if self._origin is not None and self._origin.round == round_:
            self._origin = Origin(round_, share)

    def _owe(self, work: Tensor) -> None:
        """Add to what has yet to be sent; an offer that is under way was made before and did not have it."""
        self.residual, self._origin = self.residual + work, None
        if self.pending is not None:
            self.pending = replace(self.pending, produced=self.pending.produced + work)

    def _stepped(self, base: OuterState, round_: int, contributions: Sequence[Contribution]) -> OuterState:
        return outer_step(base, contributions, self.spec, round_=round_)

    def _push(self, state: OuterState, sealed: Mapping[str, str]) -> None:
        self.previous, self.state = self.state, state
        self._counted_tokens = state.ages.get(self.me, 0)
        if self._lone is not None and state.version > self._lone.version + MARKS:
            self._lone = None
        self.marks = (*self.marks, Mark(state.version, state.digest))[-MARKS:]
        sealed_round = SealedRound(version=state.version, round=state.round, offers=dict(sealed), digest=state.digest)
        self.lineage = (*self.lineage, sealed_round)[-KEPT_ROUNDS:]

    def _close(self, round_: int, is_counted: bool) -> None:
        if self.pending is not None and self.pending.round == round_:
            self.own[round_] = OwnOffer(self.pending.codec, self.pending.payload, is_counted, self.tokens)
            for old in sorted(self.own)[:-KEPT_ROUNDS]:
                del self.own[old]
