"""Which records a DHT node stores and returns: only ours, each under its signer's own subkey.

A reader drops a whole dictionary for one entry that its validator refuses, so nodes must never disagree, of whatever
version they are: the answer is a pure function of the envelope and of the fields from which the key follows, without a
clock, a view or a version. What else a record says, in which protocol and of what time, those judge who read it.

Hivemind decodes before it asks a validator, and decodes extensions that lie in one another by calling itself: some
thousand of them, in 18 kB, overflow the stack and end the process. Importing this module bounds that.
"""

import logging
import threading
from typing import Any

import msgpack
from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.utils import MSGPackSerializer

from configs.errors import PeerError
from dht.admission import MAX_VALUE_BYTES, unvouched
from dht.records import (
    ExclusionPlace,
    GroupPlace,
    Kind,
    MemberPlace,
    Opened,
    Record,
    open_envelope,
    open_place,
)

log = logging.getLogger(__name__)

MAX_NESTED = 4  # extensions in one another; the DHT's dictionaries are one, with none in it

PLACES: dict[Kind, type[Any]] = {"member": MemberPlace, "group": GroupPlace, "exclusion": ExclusionPlace}
# What is remembered of checked entries: of each place (a key and a subkey) the newest and the one before, which
# other nodes may still tell. Bounded by their number alone, a long run would keep thousands that nobody repeats.
KEPT_OF_PLACE, KEPT_PLACES = 2, 4096
_known: dict[tuple[bytes, bytes], tuple[tuple[Any, Opened[Any]], ...]] = {}
ROUNDING_S = 1e-3  # by which an expiration may be later than it should


class RecordValidator(RecordValidatorBase):  # type: ignore[misc]
    """Accepts the signed records of one run, and nothing else; of a closed one those that come with an invitation."""

    def __init__(self, run_id: str, tick_s: float, admission: str | None = None) -> None:
        self._run_id, self._tick_s, self._admission = run_id, tick_s, admission

    def validate(self, record: DHTRecord) -> bool:
        """Return whether to store or believe `record`; hivemind calls this for every entry of every answer."""
        try:
            entry = record.key, record.subkey, record.value, record.expiration_time
            check(*entry, self._run_id, self._tick_s, self._admission)
        except PeerError as error:
            log.debug("refused a DHT record: %s", error)
            return False
        return True


def check(
    key: bytes,
    subkey: bytes,
    value: bytes,
    expiration: float,
    run_id: str,
    tick_s: float,
    admission: str | None = None,
) -> Opened[Record]:
    """Return the place of the record that an entry of a run's DHT holds; the run is closed by `admission`, if given.

    Each node on the way repeats the same entries, so the last ones of each place are remembered, as they were checked.

    `key` is the SHA-1 of the raw key; `subkey` and `value` are hivemind's msgpack of a string and of bytes.

    Raises PeerError: a regular value (whose "subkey" is None, and which would block the dictionary of everybody),
    another peer's subkey, another key, another run, a far expiration, a wrong signature, no invitation, too many bytes.
    """
    entry = value, expiration, run_id, tick_s, admission
    place = key, subkey
    known = _known.get(place, ())
    opened = next((each for said, each in known if said == entry), None)
    if opened is None:
        opened = _checked(key, subkey, *entry)
        known = (*known[1 - KEPT_OF_PLACE :], (entry, opened))
    _known.pop(place, None)
    _known[place] = known  # the last of all: what nobody has asked for in the longest time goes first
    if len(_known) > KEPT_PLACES:
        del _known[next(iter(_known))]
    return opened


def _checked(
    key: bytes, subkey: bytes, value: bytes, expiration: float, run_id: str, tick_s: float, admission: str | None
) -> Opened[Record]:
    owner, data = _unpack(subkey), _unpack(value)
    if not isinstance(owner, str) or not isinstance(data, bytes):
        raise PeerError("not a signed record under a peer's subkey")
    if admission is not None:
        invited, data = unvouched(data, admission)
        if invited != owner:
            raise PeerError(f"the record of {owner[:64]} comes with the invitation of {invited}")
    kind = open_envelope(data).kind
    if kind not in PLACES:
        raise PeerError(f"a {kind} record has no place in the DHT")
    opened: Opened[Any] = open_place(data, kind, PLACES[kind])
    if opened.peer_id != owner:
        raise PeerError(f"{opened.peer_id} wrote under the subkey of {owner[:64]}")
    if opened.record.run_id != run_id:
        raise PeerError(f"a record of run {opened.record.run_id} in the DHT of run {run_id}")
    if DHTID.generate(source=opened.record.key).to_bytes() != key:
        raise PeerError(f"a record for {opened.record.key} lies under another key")
    if not expiration <= opened.issued + opened.record.lifetime_s(tick_s) + ROUNDING_S:  # NaN is refused as well
        raise PeerError(f"a record of {owner} expires too long after its issue")
    return opened


def _unpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, max_bin_len=MAX_VALUE_BYTES, max_str_len=128, max_ext_len=0, max_array_len=0)
    except Exception as error:
        raise PeerError(f"not msgpack: {type(error).__name__}") from None


class _Nesting(threading.local):
    """How many extensions this thread is decoding, one in the other."""

    depth = 0


_nesting, _decode_extension = _Nesting(), MSGPackSerializer._decode_ext_types


def _decode_bounded(type_code: int, data: bytes) -> Any:
    """Decode an extension, as `MSGPackSerializer` does. Raises ValueError where too many lie in one another."""
    if _nesting.depth >= MAX_NESTED:
        raise ValueError(f"more than {MAX_NESTED} extensions lie in one another")
    _nesting.depth += 1
    try:
        return _decode_extension(type_code, data)
    finally:
        _nesting.depth -= 1


MSGPackSerializer._decode_ext_types = staticmethod(_decode_bounded)
