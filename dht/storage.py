"""What a node of the DHT keeps for others, and how much one question may ask: bounded for each signer, key and in all.

Names cost nothing, so a bound alone would let whoever comes first keep out all others: the records of signers that this
peer knows take the place of those that it does not know.

Hivemind's node keeps whatever its validator lets through, and answers a request however many keys it names, in one go.
Importing this module bounds the latter: `rpc_find` and `rpc_store` of `DHTProtocol` are replaced by ones that look
first.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import wraps
from itertools import chain
from typing import Any

from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.utils import get_dht_time

MAX_KEYS = 64  # of one request; ours name one or two
MAX_BYTES_OF_SIGNER = 1 << 20  # that of a member, and some thousand of the buckets of its blocks, of 300 bytes each
MAX_BYTES_OF_KEY = 2 << 20  # of all records under one key: they are one answer, and p2pd's longest message has 4 MiB
MAX_BYTES = 64 << 20  # of the records of all signers


class BoundedStorage(DHTLocalStorage):  # type: ignore[misc]
    """Keeps records until they expire: of one signer, under one key and in all at most so many bytes.

    The records of signers that are `known` take the place of those of others where there is no more room.
    """

    def __init__(self, known: Callable[[str], bool] = lambda signer: False) -> None:
        super().__init__()
        self._known = known
        self._held: dict[str, dict[DHTID, tuple[float, int]]] = {}  # signer → key → expiration, bytes
        self._bytes = 0
        self._bytes_of_key: Counter[DHTID] = Counter()

    def store_subkey(self, key: DHTID, subkey: str, value: bytes, expiration_time: float) -> bool:
        """Store a record under its signer's subkey; return whether that was done."""
        if not self._has_room(key, subkey, len(value)):
            self._forget_expired()
            if self._known(subkey) and self._is_within_own_bound(key, subkey, len(value)):
                self._make_room(key, subkey, len(value))
            if not self._has_room(key, subkey, len(value)):
                return False
        if not super().store_subkey(key, subkey, value, expiration_time):
            return False
        held = self._held.setdefault(subkey, {})
        more = len(value) - held.get(key, (0.0, 0))[1]
        self._bytes += more
        self._bytes_of_key[key] += more
        held[key] = expiration_time, len(value)
        return True

    def records(self) -> int:
        """Return how many records are kept now, of all signers."""
        return sum(len(held.value) if isinstance(held.value, DictionaryDHTValue) else 1 for _, held in self.items())

    def _is_within_own_bound(self, key: DHTID, signer: str, size_bytes: int) -> bool:
        others = sum(size for at, (_, size) in self._held.get(signer, {}).items() if at != key)
        return others + size_bytes <= MAX_BYTES_OF_SIGNER

    def _has_room(self, key: DHTID, signer: str, size_bytes: int) -> bool:
        more = size_bytes - self._held.get(signer, {}).get(key, (0.0, 0))[1]
        if self._bytes + more > MAX_BYTES or self._bytes_of_key[key] + more > MAX_BYTES_OF_KEY:
            return False
        return self._is_within_own_bound(key, signer, size_bytes)

    def _make_room(self, key: DHTID, signer: str, size_bytes: int) -> None:
        """Drop records of signers that are not known until there is room: those under the key, if that is full."""
        strangers = [each for each in self._held if not self._known(each)]
        under_it = [(each, key) for each in strangers if key in self._held[each]]
        elsewhere = ((each, at) for each in strangers for at in list(self._held[each]) if at != key)
        for each, at in chain(under_it, elsewhere):
            if self._has_room(key, signer, size_bytes):
                return
            if at != key and self._bytes + size_bytes <= MAX_BYTES:
                return  # nothing elsewhere is in the way
            found = self.get(at)
            if found is not None and isinstance(found.value, DictionaryDHTValue):
                del found.value[each]
            size = self._held[each].pop(at)[1]
            self._bytes -= size
            self._bytes_of_key[at] -= size

    def _forget_expired(self) -> None:
        now = get_dht_time()
        self._held = {
            signer: kept
            for signer, held in self._held.items()
            if (kept := {key: what for key, what in held.items() if what[0] >= now})
        }
        self._bytes, self._bytes_of_key = 0, Counter()
        for held in self._held.values():
            for key, (_, size) in held.items():
                self._bytes += size
                self._bytes_of_key[key] += size


def _bounded(answer: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return a method that refuses a request with too many keys."""

    @wraps(answer)  # Hivemind reads its types
    async def look_first(self: DHTProtocol, request: Any, context: Any) -> Any:
        if len(request.keys) > MAX_KEYS:
            raise ValueError(f"a request names {len(request.keys)} keys, and at most {MAX_KEYS} are looked at")
        return await answer(self, request, context)

    return look_first


DHTProtocol.rpc_find = _bounded(DHTProtocol.rpc_find)
DHTProtocol.rpc_store = _bounded(DHTProtocol.rpc_store)
