"""Values on a grid of equal steps, whose scale a chunk of them shares: the codecs int8 and int4.

A payload is the scales of all chunks, then the levels of all values. A value is its level times its chunk's scale.

    int8   a level of −127 … 127 is a byte
    int4   a level of −7 … 7 plus 8 is half a byte. The first half of a chunk's levels are the low halves of its bytes,
           the second half the high ones. An odd last chunk has a level of 0 more, which belongs to no value.

The levels −128 and −8 are never sent, but are levels as well: each byte means something, so only scales can be wrong.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from configs.errors import PeerError

SMALLEST = 2.0**-100  # chunks without a larger value are sent as zeros: their scale might not be a normal number
LARGEST = 2.0**100  # no honest update has a scale beyond
TILE = 1 << 16  # values: with as many levels half a megabyte
HALF = 8  # added to a level to store it in half a byte


class Grid(NamedTuple):
    """How values become levels."""

    chunk: int  # values that share a scale
    levels: int  # on either side of zero
    scale: torch.dtype
    in_byte: int  # levels, 1 or 2


INT8 = Grid(chunk=1024, levels=127, scale=torch.float32, in_byte=1)
INT4 = Grid(chunk=128, levels=7, scale=torch.bfloat16, in_byte=2)


def encoded_size(grid: Grid, size: int) -> int:
    """Return how many bytes `size` values become."""
    return _scale_bytes(grid, size) + -(-size // grid.in_byte)


def encode(grid: Grid, values: Tensor, payload: Tensor, decoded: Tensor | None) -> None:
    """Write `values`, (N,), as bytes into `payload`, and what these will be decoded to into `decoded`, (N,).

    Raises ValueError if a value is NaN, infinite or too large.
    """
    size = len(values)
    scratch = torch.empty(TILE)
    for start, stop, width in _tiles(grid, size):
        scales, packed = _parts(grid, payload, size, start, stop)
        levels = _quantize(grid, values[start:stop].view(-1, width), scales, scratch)
        if decoded is not None:
            levels += 0.0  # makes −0 the 0 that it is for a receiver
            torch.mul(levels[:, :width], scales.float(), out=decoded[start:stop].view(-1, width))
        _pack(grid, levels, packed)
    if not _are_good(_scales(grid, payload, size)):
        raise ValueError("values to send are not finite, or beyond 2**100")


def decode(grid: Grid, payload: Tensor, decoded: Tensor) -> None:
    """Write the values that `payload` holds into `decoded`, (N,). Raises PeerError if there are no such values."""
    size = len(decoded)
    if not _are_good(_scales(grid, payload, size)):
        raise PeerError("scales that are negative, too large, or not finite")
    if size % grid.in_byte and int(payload[-1]) >> 4 != HALF:
        raise PeerError("a level after the last value")
    scratch = torch.empty(TILE)
    for start, stop, width in _tiles(grid, size):
        scales, packed = _parts(grid, payload, size, start, stop)
        levels = scratch[: packed.numel() * grid.in_byte].view(len(scales), -1)
        levels.copy_(_unpacked(grid, packed))
        torch.mul(levels[:, :width], scales.float(), out=decoded[start:stop].view(-1, width))


def _quantize(grid: Grid, chunks: Tensor, scales: Tensor, scratch: Tensor) -> Tensor:
    """Write the scales, (C, 1), of chunks (C, width), and return the levels, (C, width or one more), in `scratch`.

    The scale of a chunk that is not finite is not finite either.
    """
    rows, width = chunks.shape
    peaks = torch.maximum(chunks.amax(dim=1, keepdim=True), -chunks.amin(dim=1, keepdim=True))
    scales.copy_(torch.where(peaks < SMALLEST, 0.0, peaks / grid.levels))
    divisors = scales.float()
    divisors = torch.where(divisors == 0, 1.0, divisors)
    padded = width + width % grid.in_byte
    levels = scratch[: rows * padded].view(rows, padded)
    levels[:, width:] = 0
    torch.div(chunks, divisors, out=levels[:, :width]).round_()  # halves to even
    return levels


def _pack(grid: Grid, levels: Tensor, packed: Tensor) -> None:
    """Write levels (C, W) as bytes (C, W / levels in a byte). Spoils the levels."""
    if grid.in_byte == 1:
        packed.view(torch.int8).copy_(levels)
        return
    half = packed.shape[1]
    low, high = levels[:, :half], levels[:, half:]
    packed.view(torch.int8).copy_(low.add_(high, alpha=16))
    packed += HALF + 16 * HALF  # modulo 256


def _unpacked(grid: Grid, packed: Tensor) -> Tensor:
    """Return the levels, (C, W), int8, of bytes (C, W / levels in a byte)."""
    if grid.in_byte == 1:
        return packed.view(torch.int8)
    half = packed.shape[1]
    nibbles = torch.empty(len(packed), 2 * half, dtype=torch.uint8)
    torch.bitwise_and(packed, 15, out=nibbles[:, :half])
    torch.bitwise_right_shift(packed, 4, out=nibbles[:, half:])
    return nibbles.view(torch.int8).sub_(HALF)


def _tiles(grid: Grid, size: int) -> Iterator[tuple[int, int, int]]:
    """Return start, stop and the chunks' width of values to be worked on at once."""
    whole = size // grid.chunk * grid.chunk
    for start in range(0, whole, TILE):
        yield start, min(whole, start + TILE), grid.chunk
    if whole < size:
        yield whole, size, size - whole


def _parts(grid: Grid, payload: Tensor, size: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Return views of the scales, (C, 1), and the levels' bytes, (C, bytes), of values from `start` to `stop`."""
    scales = _scales(grid, payload, size)[start // grid.chunk : -(-stop // grid.chunk)]
    packed = payload[_scale_bytes(grid, size) :][start // grid.in_byte : -(-stop // grid.in_byte)]
    return scales.unsqueeze(1), packed.view(len(scales), -1)


def _scales(grid: Grid, payload: Tensor, size: int) -> Tensor:
    """Return a view of the scales, (chunks,), in `payload`."""
    return payload[: _scale_bytes(grid, size)].view(grid.scale)


def _scale_bytes(grid: Grid, size: int) -> int:
    return grid.scale.itemsize * -(-size // grid.chunk)


def _are_good(scales: Tensor) -> bool:
    return bool(((scales >= 0) & (scales <= LARGEST)).all())  # false for NaN as well
