"""Tensors to bytes and back: what an offer's payload consists of. Same values, same bytes, on every machine.

    float32    4 bytes a value, exact
    bfloat16   2 bytes a value, rounded to nearest even: |error| ≤ |value| / 256
    int8       1 byte a value, 4 for each chunk of 1,024: |error| ≤ max|chunk| / 253
    int4       1/2 byte a value, 2 for each chunk of 128: |error| ≤ max|chunk| / 13.9
    sparse     116 bytes for each chunk of 4,096, of which the 64 largest values are sent in 2 bits: |error| of the
               others ≤ the least of these, of these ≤ (the largest − the least) / 2 + the largest / 256

Beside that, what is smaller than 2⁻¹⁰⁰ may become zero. Rounding is idempotent: what was decoded encodes to values that
are equal. `protocols/quantized.py` has int8 and int4, `protocols/sparse.py` has sparse.

Everything is little-endian, as all machines are that torch runs on. Each step is elementwise, a maximum, or a choice in
which the index decides between equals, so it does not depend on threads. Hivemind's own 8-bit codecs are not used:
they are wrong with NumPy 2.4.
"""

from typing import get_args

import numpy as np
import torch
from torch import Tensor

from configs.content import Buffer
from configs.errors import PeerError
from configs.run import OuterSpec
from protocols import quantized, sparse

CODECS: tuple[str, ...] = get_args(OuterSpec.model_fields["codec"].annotation)
FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # codecs that send each value by itself
GRIDS = {"int8": quantized.INT8, "int4": quantized.INT4}


def encoded_size(codec: str, size: int) -> int:
    """Return how many bytes `size` values become. Raises PeerError for an unknown codec."""
    if codec in FLOATS:
        return FLOATS[codec].itemsize * size
    if codec in GRIDS:
        return quantized.encoded_size(GRIDS[codec], size)
    if codec == "sparse":
        return sparse.encoded_size(size)
    raise PeerError(f"unknown codec {codec[:40]!r}; known are {', '.join(CODECS)}")


def encode(codec: str, values: Tensor) -> bytes:
    """Return `values` (1-D float32, on the CPU) as bytes.

    Raises ValueError if one is NaN or infinite, or so large (beyond 2¹⁰⁰) that no receiver would take its scale.
    """
    return _encode(codec, values, None)


def roundtrip(codec: str, values: Tensor) -> tuple[bytes, Tensor]:
    """Return what `encode` does and what `decode` makes of that, for less than both cost."""
    decoded = _values(codec, len(values))
    return _encode(codec, values, decoded), decoded


def decode(codec: str, data: Buffer, size: int) -> Tensor:
    """Return the `size` values that `data` holds, as a new float32 tensor. Raises PeerError for anything else."""
    expected = encoded_size(codec, size)
    if len(data) != expected:
        raise PeerError(f"{len(data)} bytes of {codec} for {size} values, which take {expected}")
    payload = _bytes(expected)
    payload.numpy()[:] = np.frombuffer(data, dtype=np.uint8)  # the tensor may be written to, `data` may not
    if codec == "float32":
        return _checked(payload.view(torch.float32))
    decoded = _values(codec, size)
    if codec == "bfloat16":
        return _checked(decoded.copy_(payload.view(torch.bfloat16)))
    if codec == "sparse":
        sparse.decode(payload, decoded)
    else:
        quantized.decode(GRIDS[codec], payload, decoded)
    return decoded


def _encode(codec: str, values: Tensor, decoded: Tensor | None) -> bytes:
    """Return `values` as bytes; write what these will be decoded to into `decoded`, which was made by `_values`."""
    if values.dtype != torch.float32 or values.dim() != 1:
        raise ValueError(f"a codec takes a flat float32 tensor, not {values.dtype} of {values.dim()} dimensions")
    payload = _bytes(encoded_size(codec, len(values)))
    values = values.detach().contiguous()
    if codec == "sparse":
        sparse.encode(values, payload, decoded)
    elif codec in GRIDS:
        quantized.encode(GRIDS[codec], values, payload, decoded)
    else:
        encoded = payload.view(FLOATS[codec]).copy_(values)
        if not is_finite(encoded):
            raise ValueError("values to send are not finite")
        if decoded is not None:
            decoded.copy_(encoded)
    return payload.numpy().tobytes()


def is_finite(values: Tensor) -> bool:
    """Return whether no value is NaN or infinite: five times faster than `isfinite().all()`."""
    return not values.numel() or all(bool(torch.isfinite(extreme)) for extreme in values.aminmax())


def _checked(values: Tensor) -> Tensor:
    if not is_finite(values):
        raise PeerError("values that are not finite")
    return values


def _values(codec: str, size: int) -> Tensor:
    """Return values yet to be written; zeros for `sparse`, which writes some of them."""
    if codec == "sparse":
        return torch.from_numpy(np.zeros(size or 1, dtype=np.float32))[:size]
    return _bytes(4 * size).view(torch.float32)


def _bytes(size: int) -> Tensor:
    """Return bytes yet to be written."""
    return torch.from_numpy(np.empty(size or 1, dtype=np.uint8))[:size]  # nothing of an empty array could be viewed
