"""A peer's own offers of a block, encoded, and which of them a history has: pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.content import Buffer
from peer.train.outer import SWARM, OuterState
from protocols.offers import SealedRound

SAVED_OFFERS = 8  # own offers since the last step that survive a restart: others may have counted them


@dataclass
class OwnOffer:
    """An offer of this peer, encoded, and whether the history that it follows has it."""

    codec: str
    payload: Buffer
    is_counted: bool
    tokens: int  # cumulative, of this peer on this block


def counted_in(
    own: Mapping[int, OwnOffer],
    me: str,
    state: OuterState,
    rounds: Sequence[SealedRound],
    base: OuterState | None,
    counted_tokens: int,
) -> dict[int, bool]:
    """Return, by round, whether the history of `state` has those of `me`'s `own` offers of which that can be told.

    Up to `base`, the newest state in common, nothing differs; the sealed `rounds` name who is in them. For whoever was
    away for longer than others keep rounds, the block's count of its tokens tells, beside the `counted_tokens` of the
    history that it followed: if there are more, the newest offer that they can hold is in; if fewer, those beyond are
    not. In random groups one count is for many, and tells nothing.
    """
    since = -1 if base is None else base.round
    is_whole = base is not None and bool(rounds) and rounds[0].version == base.version + 1
    untold_to = since if is_whole else min((r.round for r in rounds), default=state.round + 1) - 1
    sealed = {r.round for r in rounds if me in r.offers}
    counted = {round_: round_ in sealed for round_ in own if round_ > untold_to}  # none is in a state from before it
    untold = {round_: own[round_] for round_ in sorted(own) if since < round_ <= untold_to}
    tokens = state.ages.get(me, 0)
    if SWARM in state.ages or tokens == counted_tokens:
        return counted
    if tokens < counted_tokens:
        return counted | {round_: mine.is_counted and mine.tokens <= tokens for round_, mine in untold.items()}
    held = [round_ for round_, mine in untold.items() if not mine.is_counted and mine.tokens <= tokens]
    if held and not any(counted.values()):
        counted[held[-1]] = True
    return counted


def packed(own: Mapping[int, OwnOffer], first: int) -> dict[str, Tensor]:
    """Return the last offers from round `first` on, by names that say the rest of them."""
    return {
        f"offer.{round_}.{mine.codec}.{int(mine.is_counted)}.{mine.tokens}": torch.frombuffer(
            bytearray(mine.payload), dtype=torch.uint8
        )
        for round_, mine in sorted(own.items())[-SAVED_OFFERS:]
        if round_ >= first
    }


def unpacked(tensors: Mapping[str, Tensor]) -> dict[int, OwnOffer]:
    """Return the offers among a file's tensors, by round: what `packed` returned."""
    own = {}
    for name, payload in tensors.items():
        if name.startswith("offer."):
            _, round_, codec, is_counted, tokens = name.split(".")
            own[int(round_)] = OwnOffer(codec, payload.numpy().tobytes(), is_counted == "1", int(tokens))
    return own
