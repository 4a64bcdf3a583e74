"""What lies on disk of one block. Nothing there is trusted for being one's own: damage is found here, and said."""

import logging
import re
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from configs.errors import PeerError, StateError
from configs.files import first_problem, read_bytes, read_model
from configs.names import BlockName, Count, Digest
from peer.train.checkpoint import read_facts, read_tensors
from peer.train.outer import OuterState, read_state
from protocols.codecs import CODECS, is_finite

log = logging.getLogger(__name__)

OFFER = re.compile(rf"offer\.\d{{1,18}}\.({'|'.join(CODECS)})\.[01]\.\d{{1,18}}")


class Facts(BaseModel):
    """What `NAME.json` says of a block's state, so that the state need not be read for it."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    block: BlockName
    version: Count
    round: Count
    age: Count
    digest: Digest
    tokens: Count = 0  # this peer's own, of a block that it has trained


class Owed(BaseModel):
    """What `NAME.residual` and `NAME.offered` say of their tensors."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    round: Count | None = None
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    tokens: Count = 0
    counted_tokens: Count | None = None  # those of them that the block's history had
    codec: str = ""
    lone_round: Count = 0
    lone_version: Count = 0
    lone_digest: str = ""
    lone_counted_tokens: Count = 0


def facts_of(state: OuterState, tokens: int = 0) -> Facts:
    """Return what is remembered of a state."""
    return Facts(
        block=state.block, version=state.version, round=state.round, age=state.age, digest=state.digest, tokens=tokens
    )


def load_facts(folder: Path, block: str, size: int) -> Facts | None:
    """Return what is known of the state of `block` in `folder`, from the state itself if its facts are damaged.

    Returns None if there is no state, or none that could be used.
    """
    if not (folder / f"{block}.safetensors").exists():
        return None
    try:
        return read_block_facts(folder, block)
    except StateError as error:
        log.warning("%s", error)
    try:
        state = load_state(folder, block, size)
    except StateError as error:
        log.warning("%s", error)
        return None
    return None if state is None else facts_of(state)


def read_block_facts(folder: Path, block: str) -> Facts | None:
    """Return what `NAME.json` says, or None if there is none. Raises StateError if it is damaged."""
    path = folder / f"{block}.json"
    facts = read_model(path, Facts, "it is made anew from the state beside it")
    if facts is not None and facts.block != block:
        raise StateError(f"{path} is of block {facts.block}; leave it: it is made anew from the state beside it")
    return facts


def load_state(folder: Path, block: str, size: int) -> OuterState | None:
    """Return the state of `block` in `folder`, or None if there is none. Raises StateError if it is damaged."""
    path = folder / f"{block}.safetensors"
    data = read_bytes(path)
    if data is None:
        return None
    try:
        state = read_state(data, block, size)
    except PeerError as error:
        raise StateError(f"{path} is damaged ({error}); move it away to download it again") from None
    try:
        told = read_block_facts(folder, block)
    except StateError:
        return state
    known = [] if told is None or told.version != state.version else [told.digest]
    if known:  # whoever was killed between two writes has noted the digest before the first of them
        known.append(read_facts(folder / f"{block}.residual").get("digest", ""))
    if known and state.digest not in known:
        raise StateError(
            f"{path} is damaged (its digest is not the one in {block}.json); move it away to download it again, "
            f"or, if nobody else has it, {block}.json to go on with it as it is"
        )
    return state


def load_owed(path: Path, size: int) -> tuple[dict[str, Tensor], Owed]:
    """Return what is owed of a block of `size` parameters, or its last offers, by `path`; nothing if there is none.

    Raises StateError if it is damaged.
    """
    tensors, said = read_tensors(path) or ({}, {})
    try:
        facts = Owed.model_validate(said)
    except ValidationError as error:
        raise StateError(f"{path} is damaged ({first_problem(error)}); {_LOSS}") from None
    for name, tensor in tensors.items():
        if OFFER.fullmatch(name):
            is_right = tensor.dtype == torch.uint8
        else:
            is_right = tensor.dtype == torch.float32 and tensor.shape == (size,) and is_finite(tensor)
        if not is_right or (name == "produced" and facts.codec not in CODECS) or facts.round is None:
            raise StateError(f"{path} is damaged ({name} is not what it should be); {_LOSS}")
    return tensors, facts


_LOSS = "move it away: what this peer had yet to send of the block is lost with it, and no more"
