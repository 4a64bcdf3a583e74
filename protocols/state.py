"""Who has which state of which block, and the hand-over to keepers. The state's bytes travel by `shards.py`."""

import logging
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from hivemind.p2p import P2PContext
from hivemind.p2p.servicer import ServicerBase
from pydantic import Field

from configs.errors import NetworkError, PeerError, ShoalError
from configs.names import BlockName, Count, Digest
from protocols.wire import Message, call, printable

log = logging.getLogger(__name__)

CALL_S = 15.0
KEEP_S = 60.0  # that the smallest blob has to be fetched and stored
SLOW_MBIT = 10.0  # of a link that is not faster, or has rounds to carry as well
MAX_BLOCKS = 512
MAX_KEEPS = 4  # that are being fetched at the same time


class BlockState(Message):
    """«I have this state of this block.» Its content id is its digest."""

    block: BlockName
    version: Count  # outer steps taken
    round: Count  # tick of the last exchange
    age: Count  # tokens
    content_id: Digest
    size_bytes: Count
    is_final: bool  # the common phase's last state, from which sub-models part


class BlocksRequest(Message):
    """«Which blocks' states do you have?»"""


class BlockStates(Message):
    """The answer: one state for each block."""

    blocks: Annotated[list[BlockState], Field(max_length=MAX_BLOCKS)]


class KeepRequest(Message):
    """«I am leaving, or have few copies: fetch this state from me now and keep it.»"""

    state: BlockState


class Ack(Message):
    """«It is stored here», or why not."""

    is_stored: bool
    reason: Annotated[str, Field(max_length=400)] = ""


class Provider(Protocol):
    """What stores the blocks of this peer."""

    def block_states(self) -> Sequence[BlockState]:
        """Return the newest state of each block that can be had here."""

    async def keep(self, state: BlockState, from_peer: str) -> None:
        """Fetch a state from a peer and store it, within a deadline of its own. Raises ShoalError to decline."""


class State(ServicerBase):  # type: ignore[misc]
    """Tells what the provider stores, and lets it keep what others hand over."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._num_keeps = 0

    async def rpc_blocks(self, request: BlocksRequest, context: P2PContext) -> BlockStates:
        """Answer with the states that can be had here."""
        return BlockStates(blocks=list(self._provider.block_states()))

    async def rpc_keep(self, request: KeepRequest, context: P2PContext) -> Ack:
        """Fetch the state from whoever asks; answer when it is stored, or with the reason why it is not."""
        if self._num_keeps >= MAX_KEEPS:
            return Ack(is_stored=False, reason=f"busy with {self._num_keeps} other blocks; ask again later")
        self._num_keeps += 1
        try:
            await self._provider.keep(request.state, context.remote_id.to_base58())
        except (ShoalError, TimeoutError) as error:
            reason = str(error) or "not fetched in time"
            log.info("does not keep %s version %d: %s", request.state.block, request.state.version, reason)
            return Ack(is_stored=False, reason=reason[:400])
        finally:
            self._num_keeps -= 1
        return Ack(is_stored=True)


async def ask_blocks(stub: Any, timeout_s: float = CALL_S) -> list[BlockState]:
    """Return the states that a peer has. Raises NetworkError without an answer, PeerError for nonsense."""
    answer = await call(stub.rpc_blocks, BlocksRequest(), timeout_s)
    states: list[BlockState] = answer.blocks
    if len({state.block for state in states}) < len(states):
        raise PeerError("a peer tells of two states of one block")
    return states


async def ask_keep(stub: Any, state: BlockState, timeout_s: float | None = None) -> None:
    """Hand a state over to a keeper and wait until it is stored, as long as its size needs unless told otherwise.

    Raises NetworkError with the reason if it is not.
    """
    patience_s = keep_seconds(state.size_bytes, None) if timeout_s is None else timeout_s
    answer = await call(stub.rpc_keep, KeepRequest(state=state), patience_s)
    if not answer.is_stored:
        raise NetworkError(f"{state.block} version {state.version} is not kept: {printable(answer.reason)}")


def keep_seconds(size_bytes: int, mbit: float | None) -> float:
    """Return how long a blob may take to whoever keeps it, behind a cap of `mbit` (None: there is none).

    That is twice what a slow link needs for it, or a slower cap, and a minute.
    """
    return KEEP_S + 2 * 8 * size_bytes / (1e6 * min(SLOW_MBIT, mbit or SLOW_MBIT))
