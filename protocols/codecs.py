"""Tensors to bytes and back: what an offer's payload consists of. Same values, same bytes, on every machine.

    float32    4 bytes a value, exact
    bfloat16   2 bytes a value, rounded to nearest even
    int8       1 byte a value and a float32 scale for each chunk of 1,024: |error| ≤ scale / 2 ≤ max|chunk| / 254

Everything is little-endian, as all machines are that torch runs on. Each step is elementwise or a maximum, so it
does not depend on threads. Hivemind's own 8-bit codecs are not used: they are wrong with NumPy 2.4.
"""

from typing import get_args

import numpy as np
import torch
from torch import Tensor

from configs.errors import PeerError
from configs.run import OuterSpec

CODECS: tuple[str, ...] = get_args(OuterSpec.model_fields["codec"].annotation)
CHUNK = 1024  # values that share a scale
LEVELS = 127  # of int8, on either side of zero
SCALE_BYTES = 4
SMALLEST = 2.0**-100  # chunks without a larger value are sent as zeros: their scale might not be a normal number
LARGEST = 2.0**100  # no honest update has a scale beyond

Buffer = bytes | bytearray | memoryview


def encoded_size(codec: str, size: int) -> int:
    """Return how many bytes `size` values become. Raises PeerError for an unknown codec."""
    if codec == "float32":
        return 4 * size
    if codec == "bfloat16":
        return 2 * size
    if codec == "int8":
        return SCALE_BYTES * -(-size // CHUNK) + size
    raise PeerError(f"unknown codec {codec[:40]!r}; known are {', '.join(CODECS)}")


def encode(codec: str, values: Tensor) -> bytes:
    """Return `values` (1-D float32, on the CPU) as bytes. Raises ValueError if one is NaN or infinite."""
    if values.dtype != torch.float32 or values.dim() != 1:
        raise ValueError(f"a codec takes a flat float32 tensor, not {values.dtype} of {values.dim()} dimensions")
    encoded_size(codec, 0)
    values = values.detach().contiguous()
    if codec == "int8":
        return _encode_int8(values)
    encoded = values if codec == "float32" else values.to(torch.bfloat16)
    if not _is_finite(encoded):
        raise ValueError("values to send are not finite")
    return _bytes_of(encoded)


def decode(codec: str, data: Buffer, size: int) -> Tensor:
    """Return the `size` values that `data` holds, as a new float32 tensor. Raises PeerError for anything else."""
    expected = encoded_size(codec, size)
    if len(data) != expected:
        raise PeerError(f"{len(data)} bytes of {codec} for {size} values, which take {expected}")
    raw = torch.empty(expected, dtype=torch.uint8)
    raw.numpy()[:] = np.frombuffer(data, dtype=np.uint8)  # the tensor may be written to, `data` may not
    if codec == "int8":
        return _decode_int8(raw, size)
    values = raw.view(torch.float32) if codec == "float32" else raw.view(torch.bfloat16).float()
    if not _is_finite(values):
        raise PeerError(f"{codec} values that are not finite")
    return values


def _encode_int8(values: Tensor) -> bytes:
    scales, levels = zip(*(_quantize(part) for part in _in_chunks(values)), strict=True)
    return b"".join(_bytes_of(part.reshape(-1)) for part in (*scales, *levels))


def _quantize(chunks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scales (C, 1) and levels (C, CHUNK) of values (C, CHUNK)."""
    if not chunks.numel():
        return chunks.new_empty(0), chunks.new_empty(0, dtype=torch.int8)
    peaks = torch.maximum(chunks.amax(dim=1, keepdim=True), -chunks.amin(dim=1, keepdim=True))
    if not _is_finite(peaks):
        raise ValueError("values to send are not finite")
    scales = torch.where(peaks < SMALLEST, 0.0, peaks / LEVELS)
    divisors = torch.where(scales == 0, 1.0, scales)
    return scales, (chunks / divisors).round_().to(torch.int8)  # torch rounds halves to even


def _decode_int8(raw: Tensor, size: int) -> Tensor:
    scale_bytes = len(raw) - size
    scales = raw[:scale_bytes].view(torch.float32)
    if not ((scales >= 0) & (scales <= LARGEST)).all():  # false for NaN as well
        raise PeerError("int8 scales that are negative, too large, or not finite")
    values = raw[scale_bytes:].view(torch.int8).float()
    whole, rest = _in_chunks(values)
    whole *= scales[: len(whole)].unsqueeze(1)
    rest *= scales[len(whole) :].unsqueeze(1)
    return values


def _in_chunks(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return views of the whole chunks (C, CHUNK) and of the shorter last one (1, rest), or (0, 0) without it."""
    whole = len(values) // CHUNK * CHUNK
    rest = len(values) - whole
    return values[:whole].view(-1, CHUNK), values[whole:].view(1 if rest else 0, rest)


def _is_finite(values: Tensor) -> bool:
    """Return whether no value is NaN or infinite: five times faster than `isfinite().all()`."""
    return not values.numel() or all(bool(torch.isfinite(extreme)) for extreme in values.aminmax())


def _bytes_of(values: Tensor) -> bytes:
    return values.contiguous().view(torch.uint8).numpy().tobytes()
