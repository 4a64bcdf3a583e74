"""Content addressing: a blob is named by the hash of its chunk hashes, so each chunk can be checked as it arrives."""

import hashlib
from collections.abc import Sequence

CHUNK_BYTES = 1 << 18


def chunk_hashes(data: bytes | bytearray | memoryview) -> list[bytes]:
    """Return the SHA-256 of each chunk of `CHUNK_BYTES` (the last may be shorter; an empty blob has none)."""
    view = memoryview(data)
    return [hashlib.sha256(view[at : at + CHUNK_BYTES]).digest() for at in range(0, len(view), CHUNK_BYTES)]


def content_id(hashes: Sequence[bytes], size_bytes: int) -> str:
    """Return the name, in hex, of the blob of `size_bytes` that has these chunk hashes."""
    return hashlib.sha256(size_bytes.to_bytes(8, "big") + b"".join(hashes)).hexdigest()


def content_id_of(data: bytes | bytearray | memoryview) -> str:
    """Return the name of `data`."""
    return content_id(chunk_hashes(data), memoryview(data).nbytes)
