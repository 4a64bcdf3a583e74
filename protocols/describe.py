"""What a newcomer hears first: which run this is, by which tokenizer, with which domains and members.

A joining peer knows an address and perhaps a run id. Everything that it hears is checked here, but for the signed
domain records, which `dht/records.py` opens, and the tokenizer, whose SHA-256 stands in the spec.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from hivemind.p2p import P2PContext
from hivemind.p2p.servicer import ServicerBase
from pydantic import Field, ValidationError

from configs.clock import MAX_SKEW_S
from configs.corpus import MAX_DOMAINS
from configs.errors import NetworkError, PeerError, RefusedError, UsageError
from configs.machine import NO_HINTS, Hints
from configs.names import MAX_ADDRESSES, Address, Digest, Label, WallSeconds
from configs.protocol import Spoken
from configs.run import RunSpec
from protocols.wire import Message, call, printable

CALL_S = 15.0
MAX_NAMED = 64  # members that a description names
MAX_TOKENIZER_BYTES = 64 << 20


class DescribeRequest(Message):
    """«Which run is this?» Peers of every version answer it, so that they can say what divides them."""

    is_for_any_protocol: ClassVar[bool] = True

    knows_hints: bool = False  # who does not say so would refuse an answer that has them
    is_brief: bool = False  # without domains and members: a member asks again and again what the clock shows


class RunDescription(Message):
    """The answer: the run, and whom else to ask."""

    max_bytes: ClassVar[int] = 3 << 20  # domain records are large

    spec: Annotated[bytes, Field(max_length=64 << 10)]  # RunSpec as JSON
    tokenizer_id: Digest  # content id
    tokenizer_bytes: Annotated[int, Field(ge=1, le=MAX_TOKENIZER_BYTES)]
    domains: Annotated[list[Annotated[bytes, Field(max_length=64 << 10)]], Field(max_length=MAX_DOMAINS)]  # signed
    members: Annotated[
        dict[Label, Annotated[list[Address], Field(max_length=MAX_ADDRESSES)]], Field(max_length=MAX_NAMED)
    ]
    version: Annotated[str, Field(max_length=64)]  # of shoal
    now: WallSeconds
    # What the founder suggests to everybody's machine. Left out when None, as versions before did not know it.
    hints: Annotated[Hints | None, Field(exclude_if=lambda value: value is None)] = None


@dataclass(frozen=True)
class Offset:
    """How far a peer's clock is from ours, in seconds; half of the round trip may be the network's."""

    offset_s: float  # theirs minus ours
    uncertainty_s: float


@dataclass(frozen=True)
class Description:
    """A run as another peer described it, checked."""

    spec: RunSpec
    tokenizer_id: str  # content id
    tokenizer_bytes: int
    domains: tuple[bytes, ...]  # signed records, not opened
    members: Mapping[str, Sequence[str]]  # peer → its addresses; a hint, not checked
    version: str  # of the peer's shoal
    clock_offset_s: float  # the peer's clock minus ours
    hints: Hints  # what the run's founder suggests, as this peer says


class Describe(ServicerBase):  # type: ignore[misc]
    """Describes the run to whoever asks; served without a namespace, since a newcomer knows no run id.

    `domains` and `members` are asked anew each time: both grow.
    """

    def __init__(
        self,
        spec: RunSpec,
        tokenizer: tuple[str, int],  # content id, bytes
        domains: Callable[[], Sequence[bytes]],
        members: Callable[[], Mapping[str, Sequence[str]]],
        version: str,
        hints: Hints = NO_HINTS,
        # A peer may be about to join, or would like to: then why it and this one do not understand each other.
        on_asked: Callable[[str, str], object] = lambda peer_id, apart: None,
    ) -> None:
        self._spec = spec
        self._tokenizer = tokenizer
        self._domains = domains
        self._members = members
        self._version = version
        self._hints = hints
        self._on_asked = on_asked
        self.now: Callable[[], float] = time.time  # by which this peer's ticks are counted

    async def rpc_describe(self, request: DescribeRequest, context: P2PContext) -> RunDescription:
        """Answer with the run as it is now."""
        if not request.is_brief:
            peer_id = str(context.remote_id)
            spoken = Spoken(protocol=request.protocol, oldest=request.oldest)
            self._on_asked(peer_id, spoken.why_apart(f"peer {peer_id}, which asks to join,"))
        members = [] if request.is_brief else list(self._members().items())[:MAX_NAMED]
        return RunDescription(
            spec=self._spec.model_dump_json().encode(),
            tokenizer_id=self._tokenizer[0],
            tokenizer_bytes=self._tokenizer[1],
            domains=[] if request.is_brief else list(self._domains()),
            members={peer: list(addresses)[:MAX_ADDRESSES] for peer, addresses in members},
            version=self._version,
            now=self.now(),
            hints=self._hints if request.knows_hints and self._hints != NO_HINTS else None,
        )


NOT_SERVED = "protocols not supported"  # as libp2p says
STARTING_S = 0.5  # after which a peer that may only just have started is asked again


async def describe(
    stub: Any,
    *,
    expected_run_id: str | None = None,
    timeout_s: float = CALL_S,
    now: Callable[[], float] = time.time,
) -> Description:
    """Ask a peer which run it belongs to, through a stub of `Describe`.

    Raises UsageError (another run than expected: names both), NetworkError (no answer, or the clocks differ by more
    than 3 s: says by how much), ProtocolError (another protocol: names both, and who is to be updated), PeerError
    (nonsense).
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        asked = now()
        try:
            answer = await call(stub.rpc_describe, DescribeRequest(knows_hints=True), timeout_s)
            break
        except RefusedError:
            raise
        except NetworkError as error:
            is_starting = NOT_SERVED in str(error)  # libp2p answers before the daemon above it does
            if not is_starting or asyncio.get_running_loop().time() + STARTING_S > deadline:
                raise NetworkError(
                    f"the peer was reached but cannot describe its run ({error}); "
                    "check the address: is it a Shoal peer of this version?"
                ) from None
        await asyncio.sleep(STARTING_S)
    answered = now()
    spec = _checked_spec(answer.spec)
    if expected_run_id is not None and spec.run_id != expected_run_id:
        raise UsageError(
            f"this peer belongs to run {spec.run_id} ('{spec.name}'), not to run {expected_run_id}; "
            "check the address, or join with the run id that belongs to it"
        )
    offset_s = answer.now - (asked + answered) / 2
    _check_clock(offset_s, (answered - asked) / 2, answered)
    return Description(
        spec=spec,
        tokenizer_id=answer.tokenizer_id,
        tokenizer_bytes=answer.tokenizer_bytes,
        domains=tuple(answer.domains),
        members=answer.members,
        version=answer.version,
        clock_offset_s=offset_s,
        hints=answer.hints or NO_HINTS,
    )


async def clock_offset(stub: Any, timeout_s: float = CALL_S, now: Callable[[], float] = time.time) -> Offset:
    """Ask a peer what its clock shows, through a stub of `Describe`. Raises NetworkError, PeerError."""
    asked = now()
    answer = await call(stub.rpc_describe, DescribeRequest(is_brief=True), timeout_s)
    answered = now()
    return Offset(answer.now - (asked + answered) / 2, (answered - asked) / 2)


def _checked_spec(data: bytes) -> RunSpec:
    try:
        return RunSpec.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = printable(".".join(str(part) for part in problem["loc"]))
        raise PeerError(f"the peer's run spec is not valid: {where}: {problem['msg']}") from None


def _check_clock(offset_s: float, uncertainty_s: float, now: float) -> None:
    """Raise NetworkError if the clocks surely differ too much; half of the round trip may be the network's."""
    if abs(offset_s) - uncertainty_s <= MAX_SKEW_S:
        return
    here = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    slow, fast = ("this machine", "the peer") if offset_s > 0 else ("the peer", "this machine")
    raise NetworkError(
        f"the clocks differ by {abs(offset_s):.1f} s, at most {MAX_SKEW_S:.0f} s are allowed: either {slow}'s "
        f"is slow or {fast}'s is fast; here it is {here}; set the wrong one, for example by turning on NTP"
    )
