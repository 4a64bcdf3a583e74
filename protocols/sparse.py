"""The largest values of each chunk and nothing else, as in SparseLoCo (2508.15706, 3): the codec sparse.

A payload is a record for each chunk of 4,096 values. Of w values the k = min(64, w) largest by magnitude are sent, the
first of equals; their magnitude is one of two scales. In a record, with G = k / 4 rounded up (116 bytes for G = 16):

    2 × bfloat16   low ≤ high
    6 G bytes      the indices in the chunk, ascending, 12 bits each, little-endian
    G bytes        2 bits for each, the first in the lowest: 1 if its magnitude is high, and 2 if it is negative

Entries beyond k are zero bits. The scales are the means of the magnitudes below and above the middle of their range.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from configs.errors import PeerError
from protocols.quantized import LARGEST

CHUNK = 4096
KEPT = 64  # of a chunk
SCALE_BYTES = 4
INDEX_BITS = 12
MAGNITUDE = 0x7FFF_FFFF  # the bits of a float32 without its sign: as integers they are ordered as the magnitudes are
CODE_SHIFTS = torch.arange(0, 8, 2, dtype=torch.int32)  # of four codes in a byte
TILE = 16  # chunks of which the largest values are chosen at once: their keys take half a megabyte


def encoded_size(size: int) -> int:
    """Return how many bytes `size` values become."""
    return sum(rows * _record_bytes(width) for _, rows, width in _blocks(size))


def encode(values: Tensor, payload: Tensor, decoded: Tensor | None) -> None:
    """Write `values`, (N,), as bytes into `payload`, and what these will be decoded to into zeros `decoded`, (N,).

    Raises ValueError if a value is NaN, infinite or too large.
    """
    at = 0
    for start, rows, width in _blocks(len(values)):
        chunks = values[start : start + rows * width].view(rows, width)
        indices, picked = _largest(chunks)
        scales, codes = _quantize(picked)
        if not _are_good(scales):
            raise ValueError("values to send are not finite, or beyond 2**100")
        size_bytes = rows * _record_bytes(width)
        payload[at : at + size_bytes].view(rows, -1).copy_(_packed(scales, indices, codes))
        at += size_bytes
        if decoded is not None:
            _scatter(decoded[start : start + rows * width], width, scales, indices, codes)


def decode(payload: Tensor, decoded: Tensor) -> None:
    """Write the values that `payload` holds into the zeros of `decoded`, (N,).

    Raises PeerError if there are no such values.
    """
    at = 0
    for start, rows, width in _blocks(len(decoded)):
        size_bytes = rows * _record_bytes(width)
        scales, indices, codes = _unpacked(payload[at : at + size_bytes].view(rows, -1))
        at += size_bytes
        kept = min(KEPT, width)
        if not _are_good(scales):
            raise PeerError("scales that are negative, too large, not finite, or not in order")
        if indices[:, kept:].any() or codes[:, kept:].any():
            raise PeerError("entries beyond the last")
        indices, codes = indices[:, :kept], codes[:, :kept]
        if not (indices[:, 1:] > indices[:, :-1]).all() or not (indices[:, -1] < width).all():
            raise PeerError("indices that do not ascend, or lie outside of the values")
        _scatter(decoded[start : start + rows * width], width, scales, indices, codes)


def _blocks(size: int) -> Iterator[tuple[int, int, int]]:
    """Return start, number and width of chunks: those of the whole ones, and those of the shorter last one."""
    rows, rest = divmod(size, CHUNK)
    if rows:
        yield 0, rows, CHUNK
    if rest:
        yield rows * CHUNK, 1, rest


def _record_bytes(width: int) -> int:
    return SCALE_BYTES + 7 * -(-min(KEPT, width) // 4)


def _largest(chunks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices, ascending, and the values of the largest of each of the chunks (C, width): (C, k) each."""
    rows, width = chunks.shape
    kept = min(KEPT, width)
    indices = torch.empty(rows, kept, dtype=torch.int64)
    last = torch.arange(CHUNK - 1, CHUNK - 1 - width, -1)
    for at in range(0, rows, TILE):
        keys = (chunks[at : at + TILE].view(torch.int32) & MAGNITUDE).long()
        keys = keys.bitwise_left_shift_(INDEX_BITS).bitwise_or_(last)  # no two are equal, so the choice is unique
        best = keys.topk(kept, dim=1, sorted=False).values
        indices[at : at + TILE] = (CHUNK - 1 - (best & (CHUNK - 1))).sort(dim=1).values
    return indices, chunks.gather(1, indices)


def _quantize(picked: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales (C, 2), bfloat16, and codes (C, k) of values (C, k). What is not finite has scales that are not."""
    magnitudes = picked.abs()
    middle = (magnitudes.amin(dim=1, keepdim=True) + magnitudes.amax(dim=1, keepdim=True)) / 2
    is_high = magnitudes > middle
    high_count = is_high.sum(dim=1, keepdim=True)
    low = _sum(magnitudes.masked_fill(is_high, 0.0)) / (magnitudes.shape[1] - high_count)
    high = torch.where(high_count == 0, low, _sum(magnitudes.masked_fill(~is_high, 0.0)) / high_count)
    scales = torch.cat([low, high], dim=1).to(torch.bfloat16)
    low, high = scales.float().unsqueeze(1).unbind(dim=2)
    is_high = magnitudes - low > high - magnitudes  # the nearer one
    return scales, is_high + 2 * (picked < 0)


def _sum(values: Tensor) -> Tensor:
    """Return the sums of values (C, k) as (C, 1), added in an order that no machine changes."""
    values = pad(values, (0, KEPT - values.shape[1]))
    while (half := values.shape[1] // 2) > 0:
        values = values[:, :half] + values[:, half:]
    return values


def _packed(scales: Tensor, indices: Tensor, codes: Tensor) -> Tensor:
    """Return records (C, bytes) of scales (C, 2), indices (C, k) and codes (C, k)."""
    beyond = (0, -indices.shape[1] % 4)
    first, second = pad(indices, beyond).view(len(indices), -1, 2).unbind(dim=2)
    triples = torch.stack([first & 255, first >> 8 | (second & 15) << 4, second >> 4], dim=2)
    quads = (pad(codes, beyond).view(len(codes), -1, 4) << CODE_SHIFTS).sum(dim=2)
    return torch.cat([scales.view(torch.uint8), triples.flatten(1).to(torch.uint8), quads.to(torch.uint8)], dim=1)


def _unpacked(records: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scales (C, 2), indices (C, 4 G) and codes (C, 4 G) of records (C, bytes)."""
    groups = (records.shape[1] - SCALE_BYTES) // 7
    scales, triples = records[:, :SCALE_BYTES], records[:, SCALE_BYTES : SCALE_BYTES + 6 * groups]
    first, middle, last = triples.int().view(len(records), -1, 3).unbind(dim=2)
    indices = torch.stack([first | (middle & 15) << 8, middle >> 4 | last << 4], dim=2).flatten(1)
    codes = (records[:, -groups:].int().unsqueeze(2) >> CODE_SHIFTS & 3).flatten(1)
    return scales.clone(memory_format=torch.contiguous_format).view(torch.bfloat16), indices, codes


def _scatter(decoded: Tensor, width: int, scales: Tensor, indices: Tensor, codes: Tensor) -> None:
    """Write the values that were sent into `decoded`, (C * width,)."""
    low, high = scales.float().unsqueeze(1).unbind(dim=2)
    magnitudes = torch.where(codes & 1 == 1, high, low)
    first = torch.arange(0, len(decoded), width).unsqueeze(1)  # of each chunk
    decoded[(indices + first).flatten()] = torch.where(codes & 2 == 2, -magnitudes, magnitudes).flatten()


def _are_good(scales: Tensor) -> bool:
    low, high = scales.float().unbind(dim=1)
    return bool(((low >= 0) & (low <= high) & (high <= LARGEST)).all())  # false for NaN as well
