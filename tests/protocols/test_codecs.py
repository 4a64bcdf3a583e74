"""Codecs: exact sizes, bounded errors, the same bytes every time, and nothing but PeerError for hostile bytes."""

import pytest
import torch
from torch import Tensor

from configs.errors import PeerError
from protocols.codecs import CHUNK, CODECS, decode, encode, encoded_size

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 17]


def values(size: int, seed: int = 0) -> Tensor:
    """Values whose scale differs much from chunk to chunk, as pseudo-gradients do."""
    generator = torch.Generator().manual_seed(seed)
    scales = 10.0 ** (torch.arange(size) // CHUNK % 7 - 3)
    return torch.randn(size, generator=generator) * scales


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", SIZES)
def test_sizes_and_determinism(codec: str, size: int) -> None:
    original = values(size)
    data = encode(codec, original)
    assert len(data) == encoded_size(codec, size)
    decoded = decode(codec, data, size)
    assert decoded.dtype == torch.float32 and decoded.shape == (size,)
    assert encode(codec, original) == data
    assert encode(codec, decoded) == data  # what was rounded once stays
    decoded += 1  # belongs to the caller


def test_threads_do_not_change_a_bit() -> None:
    original, threads = values(300_000), torch.get_num_threads()
    try:
        encoded = []
        for count in (1, 4):
            torch.set_num_threads(count)
            encoded.append(encode("int8", original))
    finally:
        torch.set_num_threads(threads)
    assert encoded[0] == encoded[1]


def test_float32_is_exact() -> None:
    original = values(3000)
    assert torch.equal(decode("float32", encode("float32", original), 3000), original)


def test_bfloat16_rounds_to_nearest() -> None:
    original = values(3000)
    assert torch.equal(decode("bfloat16", encode("bfloat16", original), 3000), original.bfloat16().float())


def test_int8_against_a_plain_reference() -> None:
    original = values(3 * CHUNK + 100)
    decoded = decode("int8", encode("int8", original), len(original))
    for at in range(0, len(original), CHUNK):
        chunk, got = original[at : at + CHUNK].double(), decoded[at : at + CHUNK].double()
        scale = chunk.abs().max() / 127
        assert (got - chunk).abs().max() <= scale * 0.5001
        assert torch.allclose(got, (chunk / scale).round() * scale, atol=float(scale) * 1e-4)


def test_int8_of_zeros_and_of_tiny_values() -> None:
    for value in (0.0, 1e-44, 1e-38, 1e-31):
        assert decode("int8", encode("int8", torch.full((10,), value)), 10).eq(0).all()


def test_int8_is_unbiased_over_many_values() -> None:
    original = torch.randn(200_000, generator=torch.Generator().manual_seed(3))
    error = decode("int8", encode("int8", original), len(original)) - original
    assert abs(float(error.mean())) < 1e-4


def test_a_view_encodes_like_its_copy() -> None:
    strided = values(4000)[::2]
    for codec in CODECS:
        assert encode(codec, strided) == encode(codec, strided.clone())


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_sent(codec: str, bad: float) -> None:
    broken = values(2000)
    broken[1500] = bad
    with pytest.raises(ValueError, match="not finite"):
        encode(codec, broken)


def test_only_flat_float32_is_sent() -> None:
    for tensor in (torch.zeros(2, 2), torch.zeros(2, dtype=torch.float64)):
        with pytest.raises(ValueError, match="flat float32"):
            encode("int8", tensor)


@pytest.mark.parametrize("codec", CODECS)
def test_wrong_lengths_are_refused(codec: str) -> None:
    data = encode(codec, values(2000))
    for hostile in (b"", data[:-1], data + b"\0"):
        with pytest.raises(PeerError, match="2000 values"):
            decode(codec, hostile, 2000)


@pytest.mark.parametrize(
    ("codec", "hostile"),
    [
        ("float32", torch.tensor([float("nan")])),
        ("float32", torch.tensor([-float("inf")])),
        ("bfloat16", torch.tensor([float("inf")], dtype=torch.bfloat16)),
    ],
)
def test_values_that_are_not_finite_are_refused(codec: str, hostile: Tensor) -> None:
    with pytest.raises(PeerError, match="not finite"):
        decode(codec, hostile.view(torch.uint8).numpy().tobytes(), 1)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, 1e38])
def test_hostile_scales_are_refused(scale: float) -> None:
    data = torch.tensor([scale]).view(torch.uint8).numpy().tobytes() + b"\x7f"
    with pytest.raises(PeerError, match="scales"):
        decode("int8", data, 1)


def test_unknown_codecs_are_refused() -> None:
    for call in (lambda: decode("gzip" * 99, b"", 0), lambda: encode("gzip", torch.zeros(1))):
        with pytest.raises(PeerError, match="unknown codec"):
            call()
