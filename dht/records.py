"""What peers say in the DHT, each record signed by the peer that says it.

A record travels as a msgpack map (`Signed`) around the JSON of its model. Everything in it is bounded: it comes from
strangers. Which records a node accepts is `validator.py`'s affair; what they mean for a tick is `membership.py`'s.
"""

import logging
import time
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import msgpack
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from configs.corpus import MAX_DOMAINS, DomainInfo
from configs.errors import PeerError, ProtocolError
from configs.names import MAX_ADDRESSES, Address, BlockName, Count, Digest, DomainName, PeerId, RunId, WallSeconds
from configs.protocol import (
    FIRST_PROTOCOL,
    OLDEST_PROTOCOL,
    PROTOCOL_VERSION,
    Oldest,
    Protocol,
    Spoken,
    check_need,
)
from dht.identity import MAX_PUBLIC_KEY_BYTES, MAX_SIGNATURE_BYTES, Identity, verify

log = logging.getLogger(__name__)

MAX_RECORD_BYTES = 64 << 10
MAX_PROOFS = 8  # that one peer tells
MAX_SCORED = 8  # domains of which a peer tells the held-out loss
MIN_LIFETIME_S = 60.0  # of a record in the DHT; longer than any difference of clocks
_SIGNED_FOR = b"shoal dht record 1\0"  # keeps these signatures apart from all others of the same key

Kind = Literal["member", "domain", "group", "exclusion"]
Name = Annotated[str, Field(max_length=64, pattern=r"^[\w.-]*$")]
NotNegative = Annotated[float, Field(ge=0)]
Stride = Annotated[int, Field(ge=1, le=2**16)]  # a power of two
Envelope = Annotated[str, Field(max_length=8192, pattern=r"^([0-9a-f]{2})+$")]  # a SignedOffer, serialised, in hex
Holders = Annotated[float, Field(ge=1, le=2**32)]  # of a block, by a peer's estimate


class Record(BaseModel):
    """What is common to all records: strict, immutable, and named by a key in the DHT.

    Which protocol a record is of is said when it is signed. What the first does not say is left out, so that a record
    has the same bytes as before there was a second; `configs/protocol.py` says who can read it.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    max_bytes: ClassVar[int] = MAX_RECORD_BYTES
    lifetime_ticks: ClassVar[int]  # in the DHT, from its issue on, at least MIN_LIFETIME_S
    is_lasting: ClassVar[bool] = False  # it is read long after its writer may speak another protocol

    run_id: RunId
    protocol: Protocol = FIRST_PROTOCOL
    oldest: Oldest = FIRST_PROTOCOL

    @property
    def key(self) -> str:
        """The raw DHT key. Nodes see only its SHA-1, so they compare that with this, which is signed."""
        raise NotImplementedError

    @classmethod
    def lifetime_s(cls, tick_s: float) -> float:
        """Return how long after its issue a record expires in the DHT of a run with such ticks, and no later.

        Else somebody could store an old record of a peer again, so that it outlives the peer's newer ones.
        """
        return max(MIN_LIFETIME_S, cls.lifetime_ticks * tick_s)


class Report(BaseModel):
    """What a peer tells the others of its own progress; nothing is decided by it. See `peer/http/status.py`."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    state: Name = ""
    sub_model: Name = ""
    domain: Name = ""
    rounds: Count = 0
    loss: float | None = None  # nats per token
    tokens: Count = 0
    tokens_per_s: NotNegative = 0.0
    bytes_in: Count = 0
    bytes_out: Count = 0
    # domain → nats per token of held-out text, as its sub-model was looked at last
    held_out: Annotated[dict[DomainName, NotNegative], Field(max_length=MAX_SCORED)] = {}
    # block → (version, digest) of its last five states
    digests: Annotated[
        dict[BlockName, Annotated[list[tuple[Count, Digest]], Field(max_length=5)]], Field(max_length=8)
    ] = {}


class MemberPlace(Record):
    """What nodes of every version look at in a member's record."""

    max_bytes: ClassVar[int] = 16 << 10
    lifetime_ticks: ClassVar[int] = 10

    @property
    def key(self) -> str:
        """Where the members of a run are listed, each under its peer id."""
        return member_key(self.run_id)


class MemberRecord(MemberPlace):
    """One peer: where it is, which blocks it holds from when until when, and what it stores for others."""

    addresses: Annotated[list[Address], Field(max_length=MAX_ADDRESSES)] = []  # multiaddrs with /p2p/ID
    holdings: Annotated[dict[BlockName, tuple[Count, Count]], Field(max_length=64)] = {}  # (from_tick, until_tick)
    # block → (from_tick, factor): from then on only every factor-th round is this peer's. Left out of most records.
    strides: Annotated[dict[BlockName, tuple[Count, Stride]], Field(max_length=64)] = {}
    sub_model: Name = ""
    keeps: Annotated[dict[BlockName, Count], Field(max_length=256)] = {}  # block → version of the stored state
    ages: Annotated[dict[BlockName, Count], Field(max_length=256)] = {}  # block → age of the stored state, in tokens
    leases: Annotated[list[Digest], Field(max_length=32)] = []  # data shards that it trains on, by content id
    crowds: Annotated[dict[BlockName, Holders], Field(max_length=64)] = {}  # large blocks → holders, about
    report: Report = Report()
    is_leaving: bool = False


class GroupPlace(Record):
    """What nodes of every version look at in the record of a bucket."""

    max_bytes: ClassVar[int] = 8 << 10
    lifetime_ticks: ClassVar[int] = 4

    block: BlockName
    tick: Count
    prefix: Annotated[str, Field(max_length=64, pattern=r"^[01]*$")]  # bits with which the draws of the bucket begin

    @property
    def key(self) -> str:
        """Where the members of one bucket are listed, each under its peer id."""
        return group_key(self.run_id, self.block, self.tick, self.prefix)


class GroupRecord(GroupPlace):
    """«At this tick I shall exchange this block in this bucket.» What a bucket is stands in `protocols/grouping.py`."""

    holders: Holders
    addresses: Annotated[list[Address], Field(max_length=MAX_ADDRESSES)] = []


class ExclusionPlace(Record):
    """What nodes of every version look at in a record of exclusions."""

    max_bytes: ClassVar[int] = 48 << 10
    lifetime_ticks: ClassVar[int] = 10

    @property
    def key(self) -> str:
        """Where the proofs of a run are listed, each peer's under its peer id."""
        return exclusion_key(self.run_id)


class ExclusionRecord(ExclusionPlace):
    """«These have signed two offers for one round»: both signed headers of each, which prove it to anybody."""

    proofs: Annotated[list[Annotated[tuple[Envelope, Envelope], Field(strict=False)]], Field(max_length=MAX_PROOFS)]


class DomainRecord(Record):
    """One domain of the corpus, which sub-model `index` trains. It is told by peers, and never in the DHT."""

    is_lasting: ClassVar[bool] = True

    index: Annotated[int, Field(ge=0, lt=MAX_DOMAINS)]
    domain: DomainInfo

    @property
    def key(self) -> str:
        """Where a domain is described, by each peer that says so under its peer id."""
        return domain_key(self.run_id, self.index)


class Signed(BaseModel):
    """The envelope: a record's JSON, who says it and when, and the signature of both."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Kind
    peer_id: PeerId
    public_key: Annotated[bytes, Field(max_length=MAX_PUBLIC_KEY_BYTES)]
    payload: Annotated[bytes, Field(max_length=MAX_RECORD_BYTES)]
    issued: WallSeconds  # by the signer's clock
    signature: Annotated[bytes, Field(max_length=MAX_SIGNATURE_BYTES)]


R = TypeVar("R", bound=Record)
M = TypeVar("M", bound=BaseModel)


class Opened(NamedTuple, Generic[R]):
    """A record whose signature holds."""

    record: R
    peer_id: str
    issued: float


def member_key(run_id: str) -> str:
    """Return the DHT key under which all members of a run are listed."""
    return f"shoal/{run_id}/members"


def group_key(run_id: str, block: str, tick: int, prefix: str) -> str:
    """Return the DHT key under which the holders are listed whose draw for a tick begins with `prefix`."""
    return f"shoal/{run_id}/group/{block}/{tick}/{prefix}"


def exclusion_key(run_id: str) -> str:
    """Return the DHT key under which is listed who has signed two offers for one round."""
    return f"shoal/{run_id}/exclusions"


def domain_key(run_id: str, index: int) -> str:
    """Return the DHT key under which a domain is described."""
    return f"shoal/{run_id}/domain/{index}"


def sign_record(identity: Identity, kind: Kind, record: Record, now: float | None = None) -> bytes:
    """Return `record` as signed bytes, issued at `now` (wall-clock seconds; default: this machine's clock).

    Raises ValueError when the record is larger than its kind may be: the writer must shorten it.
    """
    issued = time.time() if now is None else float(now)
    record = record.model_copy(update={"protocol": PROTOCOL_VERSION, "oldest": OLDEST_PROTOCOL})
    payload = record.model_dump_json(exclude_defaults=True).encode()
    signature = identity.sign(_signed_bytes(kind, identity.peer_id, payload, issued))
    signed = Signed(
        kind=kind,
        peer_id=identity.peer_id,
        public_key=identity.public_key,
        payload=payload,
        issued=issued,
        signature=signature,
    )
    data: bytes = msgpack.packb(signed.model_dump())
    if len(data) > record.max_bytes:
        raise ValueError(f"a {kind} record of {len(data)} bytes exceeds {record.max_bytes}")
    return data


def open_record(data: bytes, kind: Kind, model: type[R]) -> Opened[R]:
    """Check size, form and signature of a record of `kind`, and return it with its signer and time of issue.

    Raises PeerError, and nothing else, whatever the bytes are; a ProtocolError where its signer is of a protocol that
    this version does not understand: that it was signed by that peer, at that time, is true then. A pure function: it
    asks no clock.
    """
    signed = _verified(data, kind, model.max_bytes)
    spoken = _read(signed, Spoken)
    if model.is_lasting:
        check_need(spoken.oldest, f"a {kind} record of {signed.peer_id}")
    elif reason := spoken.why_apart(f"peer {signed.peer_id}"):
        raise ProtocolError(reason)
    return Opened(_read(signed, model, spoken.unknown_fields), signed.peer_id, signed.issued)


def open_place(data: bytes, kind: Kind, model: type[R]) -> Opened[R]:
    """Check of a record what nodes of every version check alike: size, signature, and what its key follows from.

    Raises PeerError. What else it says is for those to judge who read it.
    """
    signed = _verified(data, kind, model.max_bytes)
    return Opened(_read(signed, model, "ignore"), signed.peer_id, signed.issued)


def open_entry(peer_id: str, data: bytes, kind: Kind, model: type[R], key: str, latest: float) -> Opened[R]:
    """Open what stands under `key` for a peer: a record that is its own, belongs there, and was issued by `latest`.

    Raises PeerError.
    """
    opened = open_record(data, kind, model)
    record, signer, issued = opened
    if signer != peer_id or record.key != key or issued > latest:
        raise PeerError(f"a {kind} record of {signer} for {record.key} of {issued:.0f} stands for {peer_id} at {key}")
    return opened


def open_entries(
    found: Mapping[str, bytes], limit: int, kind: Kind, model: type[R], key: str, latest: float
) -> dict[str, Opened[R]]:
    """Return what `open_entry` takes of the first `limit` entries, by peer. A bad one costs itself and no other."""
    opened = {}
    for peer_id, data in sorted(found.items())[:limit]:
        try:
            opened[peer_id] = open_entry(peer_id, data, kind, model, key, latest)
        except PeerError as error:
            log.debug("a %s record was refused: %s", kind, error)
        except Exception:  # a mistake of ours
            log.exception("the %s record of %s cannot be used", kind, peer_id)
    return opened


def open_envelope(data: bytes) -> Signed:
    """Read the envelope alone, without trusting anything in it. Raises PeerError."""
    if len(data) > MAX_RECORD_BYTES:
        raise PeerError(f"a record of {len(data)} bytes exceeds {MAX_RECORD_BYTES}")
    try:
        fields: Any = msgpack.unpackb(data, strict_map_key=True, max_ext_len=0, max_array_len=0, max_map_len=16)
    except Exception as error:  # msgpack raises half a dozen kinds, down to RecursionError
        raise PeerError(f"a record is not msgpack: {type(error).__name__}") from None
    try:
        return Signed.model_validate(fields)
    except ValidationError as error:
        raise PeerError(f"a record is malformed: {_first(error)}") from None


def signer_of(data: bytes) -> str:
    """Return who has signed a record, by its own word; nothing if it is none."""
    try:
        return open_envelope(data).peer_id
    except PeerError:
        return ""


def _verified(data: bytes, kind: Kind, max_bytes: int) -> Signed:
    """Return the envelope of a record of `kind` whose size and signature are right. Raises PeerError."""
    signed = open_envelope(data)
    if signed.kind != kind:
        raise PeerError(f"a {signed.kind} record stands where a {kind} record should")
    if len(data) > max_bytes:
        raise PeerError(f"a {kind} record of {len(data)} bytes exceeds {max_bytes}")
    content = _signed_bytes(signed.kind, signed.peer_id, signed.payload, signed.issued)
    if not verify(signed.peer_id, signed.public_key, content, signed.signature):
        raise PeerError(f"a {kind} record bears a wrong signature of {signed.peer_id}")
    return signed


def _read(signed: Signed, model: type[M], extra: Literal["ignore"] | None = None) -> M:
    try:
        return model.model_validate_json(signed.payload, extra=extra)
    except ValidationError as error:
        raise PeerError(f"a {signed.kind} record of {signed.peer_id} is malformed: {_first(error)}") from None


def _signed_bytes(kind: str, peer_id: str, payload: bytes, issued: float) -> bytes:
    return _SIGNED_FOR + bytes(msgpack.packb([kind, peer_id, payload, issued]))


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in problem['loc'])[:80]}: {problem['msg'][:120]}"
