"""Content addressing: a blob is named by the hash of its chunk hashes, so each chunk can be checked as it arrives.

The hash is BLAKE3: with SHA-256 a tenth of a round's CPU time went into it, and more on a processor that has no
instructions for that.
"""

from collections.abc import Iterable, Sequence

from blake3 import blake3

CHUNK_BYTES = 1 << 18
HASH_BYTES = 32

Buffer = bytes | bytearray | memoryview


def num_chunks(size_bytes: int) -> int:
    """Return how many chunks a blob of `size_bytes` has."""
    return -(-size_bytes // CHUNK_BYTES)


def chunk_of(data: Buffer, index: int) -> memoryview:
    """Return a chunk of `data`, not copied; nothing beyond its end."""
    return memoryview(data).cast("B")[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


def hash_chunk(chunk: Buffer) -> bytes:
    """Return the hash of a chunk."""
    return blake3(chunk).digest()


def chunk_hashes(data: Buffer) -> list[bytes]:
    """Return the hash of each chunk of `CHUNK_BYTES` (the last may be shorter; an empty blob has none)."""
    return [hash_chunk(chunk_of(data, index)) for index in range(num_chunks(memoryview(data).nbytes))]


def split_hashes(data: bytes) -> list[bytes]:
    """Return the hashes that lie one after the other in `data`; a cut last one is too short to be any chunk's."""
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def content_id(hashes: Sequence[bytes], size_bytes: int) -> str:
    """Return the name, in hex, of the blob of `size_bytes` that has these chunk hashes."""
    return blake3(size_bytes.to_bytes(8, "big") + b"".join(hashes)).hexdigest()


def content_id_of(data: Buffer) -> str:
    """Return the name of `data`."""
    return content_id(chunk_hashes(data), memoryview(data).nbytes)


def content_id_of_pieces(pieces: Iterable[Buffer]) -> str:
    """Return the name of what `pieces` are one after the other, without ever holding more than one of them."""
    hashes: list[bytes] = []
    begun, size_bytes = bytearray(), 0
    for piece in pieces:
        view = memoryview(piece).cast("B")
        size_bytes += view.nbytes
        head = view[: -len(begun) % CHUNK_BYTES]
        begun += head
        if len(begun) == CHUNK_BYTES:
            hashes.append(hash_chunk(begun))
            begun.clear()
        view = view[len(head) :]
        whole = view.nbytes - view.nbytes % CHUNK_BYTES
        hashes += chunk_hashes(view[:whole])
        begun += view[whole:]
    if begun:
        hashes.append(hash_chunk(begun))
    return content_id(hashes, size_bytes)
