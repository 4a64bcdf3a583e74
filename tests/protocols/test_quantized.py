"""int8 and int4 against plain references, and what is wrong in their bytes."""

import struct

import pytest
import torch
from torch import Tensor

from configs.errors import PeerError
from protocols.codecs import decode, encode
from protocols.quantized import INT4, INT8


def values(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, generator=generator) * 10.0 ** (torch.arange(size) // 100 % 7 - 3)


def test_int8_against_a_plain_reference() -> None:
    original = values(3 * INT8.chunk + 100)
    decoded = decode("int8", encode("int8", original), len(original))
    for chunk, got in zip(original.split(INT8.chunk), decoded.split(INT8.chunk), strict=True):
        scale = chunk.abs().max() / 127
        assert torch.equal(got, (chunk / scale).round() * scale)


@pytest.mark.parametrize("rest", [0, 1, 2, 99, 100])
def test_int4_against_a_plain_reference(rest: int) -> None:
    """The bytes themselves, put together value by value."""
    original = values(3 * INT4.chunk + rest)
    scales, packed, restored = [], [], []
    for chunk in original.split(INT4.chunk):
        scale = (chunk.abs().max() / 7).bfloat16()
        levels = [round(float(value / scale.float())) for value in chunk]
        half = (len(levels) + 1) // 2
        pairs = zip(levels[:half], [*levels[half:], 0], strict=False)
        scales.append(scale)
        packed += [low + 8 + 16 * (high + 8) for low, high in pairs]
        restored += [level * float(scale) for level in levels]
    data = encode("int4", original)
    assert data == torch.stack(scales).view(torch.uint8).numpy().tobytes() + bytes(packed)
    assert decode("int4", data, len(original)).tolist() == restored


@pytest.mark.parametrize("codec", ["int8", "int4"])
def test_unbiased_over_many_values(codec: str) -> None:
    original = torch.randn(200_000, generator=torch.Generator().manual_seed(3))
    error = decode(codec, encode(codec, original), len(original)) - original
    assert abs(float(error.mean())) < 6 * float(error.std()) / 200_000**0.5


@pytest.mark.parametrize(("codec", "error"), [("int8", 0.008), ("int4", 0.12)])
def test_error_of_gaussian_values(codec: str, error: float) -> None:
    original = torch.randn(200_000, generator=torch.Generator().manual_seed(4))
    decoded = decode(codec, encode(codec, original), len(original))
    assert 0.9 * error < float((decoded - original).norm() / original.norm()) < error


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, 1e38])
def test_hostile_scales_are_refused(scale: float) -> None:
    with pytest.raises(PeerError, match="scales"):
        decode("int8", struct.pack("<fb", scale, 127), 1)
    with pytest.raises(PeerError, match="scales"):
        decode("int4", struct.pack("<f", scale)[2:] + b"\x89", 1)


def test_every_level_means_something() -> None:
    """Also −8 and −128, which nobody sends."""
    one = struct.pack("<f", 1.0)
    assert decode("int4", one[2:] + bytes([0x0F, 0xF0]), 4).tolist() == [7, -8, -8, 7]
    assert decode("int8", one + bytes([0x80, 0x7F]), 2).tolist() == [-128, 127]


@pytest.mark.parametrize("size", [1, 3, INT4.chunk + 1])
def test_a_level_after_the_last_value_is_refused(size: int) -> None:
    data = bytearray(encode("int4", torch.ones(size)))
    data[-1] ^= 0x10
    with pytest.raises(PeerError, match="after the last"):
        decode("int4", data, size)
