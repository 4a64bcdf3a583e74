"""What a node of the DHT keeps for others, and how much one question may ask: bounded for each signer and in all.

Hivemind's node keeps whatever its validator lets through, and answers a request however many keys it names, in one go.
Importing this module bounds the latter: `rpc_find` and `rpc_store` of `DHTProtocol` are replaced by ones that look
first.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.utils import get_dht_time

MAX_KEYS = 64  # of one request; ours name one or two
MAX_BYTES_OF_SIGNER = 1 << 20  # that of a member, and some thousand of the buckets of its blocks, of 300 bytes each
MAX_BYTES = 64 << 20  # of the records of all signers


class BoundedStorage(DHTLocalStorage):  # type: ignore[misc]
    """Keeps records until they expire, of one signer at most MAX_BYTES_OF_SIGNER, and MAX_BYTES in all."""

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[str, dict[DHTID, tuple[float, int]]] = {}  # signer → key → expiration, bytes
        self._bytes = 0

    def store_subkey(self, key: DHTID, subkey: str, value: bytes, expiration_time: float) -> bool:
        """Store a record under its signer's subkey; return whether that was done."""
        if not self._has_room(key, subkey, len(value)):
            self._forget_expired()
            if not self._has_room(key, subkey, len(value)):
                return False
        if not super().store_subkey(key, subkey, value, expiration_time):
            return False
        held = self._held.setdefault(subkey, {})
        self._bytes += len(value) - held.get(key, (0.0, 0))[1]
        held[key] = expiration_time, len(value)
        return True

    def records(self) -> int:
        """Return how many records are kept now, of all signers."""
        return sum(len(held.value) if isinstance(held.value, DictionaryDHTValue) else 1 for _, held in self.items())

    def _has_room(self, key: DHTID, signer: str, size_bytes: int) -> bool:
        held = self._held.get(signer, {})
        more = size_bytes - held.get(key, (0.0, 0))[1]
        of_signer = sum(size for _, size in held.values())
        return of_signer + more <= MAX_BYTES_OF_SIGNER and self._bytes + more <= MAX_BYTES

    def _forget_expired(self) -> None:
        now = get_dht_time()
        self._held = {
            signer: kept
            for signer, held in self._held.items()
            if (kept := {key: what for key, what in held.items() if what[0] >= now})
        }
        self._bytes = sum(size for held in self._held.values() for _, size in held.values())


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
