"""All codecs: exact sizes, bounded errors, the same bytes every time, and nothing but PeerError for hostile bytes."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from configs.errors import PeerError
from protocols import sparse
from protocols.codecs import CODECS, decode, encode, encoded_size, roundtrip
from protocols.quantized import INT4, INT8, Grid

CHUNKS = {"float32": 1, "bfloat16": 1, "int8": INT8.chunk, "int4": INT4.chunk, "sparse": sparse.CHUNK}
SIZES = sorted({size for chunk in CHUNKS.values() for size in (chunk - 1, chunk, chunk + 1)} | {3, 63, 5011, 200_001})


def values(size: int, seed: int = 0) -> Tensor:
    """Values whose scale differs much from chunk to chunk, as pseudo-gradients do."""
    generator = torch.Generator().manual_seed(seed)
    scales = 10.0 ** (torch.arange(size) // 1024 % 7 - 3)
    return torch.randn(size, generator=generator) * scales


def heavy_tailed(size: int, seed: int = 0) -> Tensor:
    """Values of which few are a thousand times the others, and a third is zero."""
    generator = torch.Generator().manual_seed(seed)
    return values(size, seed) ** 3 * (torch.rand(size, generator=generator) > 0.3)


def bound(codec: str, chunk: Tensor) -> Tensor:
    """Return the largest error of each value of a chunk that the codecs' docstring allows."""
    magnitudes = chunk.abs()
    peak = magnitudes.max() if len(chunk) else torch.tensor(0.0)
    if codec == "sparse":
        sent = magnitudes.sort(descending=True, stable=True).indices[: sparse.KEPT]
        least = magnitudes[sent].min()
        bounds = torch.full_like(chunk, float(least))
        bounds[sent] = (peak - least) / 2 + peak / 256
        return bounds
    parts = {"float32": 0 * peak, "bfloat16": magnitudes / 256, "int8": peak / 253, "int4": peak / 13.9}
    return parts[codec].expand_as(chunk)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [values, heavy_tailed])
def test_round_trips(codec: str, size: int, make: Callable[[int], Tensor]) -> None:
    original = make(size)
    data = encode(codec, original)
    assert len(data) == encoded_size(codec, size)
    decoded = decode(codec, data, size)
    assert decoded.dtype == torch.float32 and decoded.shape == (size,)
    width = size if codec in ("float32", "bfloat16") else CHUNKS[codec]  # these have no chunks: all at once
    for chunk, got in zip(original.split(width or 1), decoded.split(width or 1), strict=True):
        if len(chunk):
            assert ((got - chunk).abs() <= bound(codec, chunk) + 2.0**-99).all()
    payload, same = roundtrip(codec, original)
    assert payload == data and torch.equal(same, decoded)
    assert torch.equal(decode(codec, encode(codec, decoded), size), decoded)  # what was rounded once stays
    decoded += 1  # belongs to the caller


@pytest.mark.parametrize("codec", CODECS)
def test_threads_do_not_change_a_bit(codec: str) -> None:
    original, threads = values(300_000), torch.get_num_threads()
    try:
        encoded = []
        for count in (1, 4):
            torch.set_num_threads(count)
            encoded.append(encode(codec, original))
    finally:
        torch.set_num_threads(threads)
    assert encoded[0] == encoded[1]


def test_how_much_is_sent() -> None:
    million = 1_000_000
    assert 3 * encoded_size("int4", million) / million <= 1.6  # to three others
    assert 3 * encoded_size("sparse", million) / million <= 0.15


def test_float32_is_exact_and_bfloat16_rounds_to_nearest() -> None:
    original = values(3000)
    assert torch.equal(decode("float32", encode("float32", original), 3000), original)
    assert torch.equal(decode("bfloat16", encode("bfloat16", original), 3000), original.bfloat16().float())


@pytest.mark.parametrize(("codec", "grid"), [("int8", INT8), ("int4", INT4)])
def test_grids_against_a_plain_reference(codec: str, grid: Grid) -> None:
    original = values(3 * grid.chunk + 99)
    decoded = decode(codec, encode(codec, original), len(original))
    for chunk, got in zip(original.split(grid.chunk), decoded.split(grid.chunk), strict=True):
        scale = (chunk.abs().max() / grid.levels).to(grid.scale).double()
        assert torch.allclose(got.double(), (chunk.double() / scale).round() * scale, atol=float(scale) * 1e-4)


def test_sparse_against_a_plain_reference() -> None:
    original = heavy_tailed(2 * sparse.CHUNK)
    decoded = decode("sparse", encode("sparse", original), len(original))
    for chunk, got in zip(original.split(sparse.CHUNK), decoded.split(sparse.CHUNK), strict=True):
        largest = chunk.abs().sort(descending=True, stable=True).indices[: sparse.KEPT]
        assert {*got.nonzero().flatten().tolist()} <= {*largest.tolist()}
        assert torch.equal(got[largest].sign(), chunk[largest].sign())
        assert len(got[largest].abs().unique()) <= 2
        assert float((got - chunk)[largest].norm() / chunk[largest].norm()) < 0.5


def test_of_equals_the_first_are_sent() -> None:
    decoded = decode("sparse", encode("sparse", torch.ones(200)), 200)
    assert torch.equal(decoded, torch.cat([torch.ones(sparse.KEPT), torch.zeros(200 - sparse.KEPT)]))


@pytest.mark.parametrize("codec", ["int8", "int4", "sparse"])
def test_zeros_and_tiny_values(codec: str) -> None:
    for value in (0.0, 1e-44, 1e-38, 1e-32):
        decoded = decode(codec, encode(codec, torch.full((10,), value)), 10)
        assert (decoded.abs() <= max(1.01 * value, 0)).all() and torch.isfinite(decoded).all()


@pytest.mark.parametrize("codec", ["int8", "int4"])
def test_grids_are_unbiased_over_many_values(codec: str) -> None:
    original = torch.randn(400_000, generator=torch.Generator().manual_seed(3))
    error = decode(codec, encode(codec, original), len(original)) - original
    assert abs(float(error.mean())) < 2e-3


@pytest.mark.parametrize("codec", CODECS)
def test_error_feedback_sends_everything_in_the_end(codec: str) -> None:
    """What was offered plus the residual is what was produced, and the residual stays bounded."""
    residual, produced, sent = torch.zeros(10_000), torch.zeros(10_000).double(), torch.zeros(10_000).double()
    sizes = []
    for round_ in range(200):
        work = 0.01 * torch.randn(10_000, generator=torch.Generator().manual_seed(round_))
        payload, decoded = roundtrip(codec, residual + work)
        residual = residual + work - decoded
        produced, sent = produced + work.double(), sent + decode(codec, payload, 10_000).double()
        sizes.append(float(residual.norm()))
    torch.testing.assert_close(sent + residual.double(), produced, atol=1e-4, rtol=0)
    assert sizes[-1] <= 1.2 * max(sizes[:100]) + 1e-6


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


@pytest.mark.parametrize("codec", CODECS)
def test_hostile_bytes_become_finite_values_or_a_peer_error(codec: str) -> None:
    chance, outcomes = random.Random(5), Counter[str]()
    good = encode(codec, values(5000))
    for _ in range(400):
        data = bytearray(good)
        for _ in range(chance.choice((1, 1, 4, 200))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            decoded = decode(codec, bytes(data) if chance.random() < 0.9 else chance.randbytes(len(data)), 5000)
        except PeerError:
            outcomes["refused"] += 1
        else:
            outcomes["decoded"] += 1
            assert torch.isfinite(decoded).all()
    print(codec, dict(outcomes))
    assert outcomes["decoded"] or codec == "sparse"


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


@pytest.mark.parametrize("codec", ["int8", "int4", "sparse"])
@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, 1e38])
def test_hostile_scales_are_refused(codec: str, scale: float) -> None:
    data = bytearray(encode(codec, torch.ones(1)))
    kind = torch.float32 if codec == "int8" else torch.bfloat16
    size = kind.itemsize
    data[:size] = torch.tensor([scale], dtype=kind).view(torch.uint8).numpy().tobytes()
    with pytest.raises(PeerError, match="scales"):
        decode(codec, data, 1)


def test_indices_that_do_not_ascend_or_lie_outside_are_refused() -> None:
    good = bytearray(encode("sparse", values(200)))
    assert good[4:7] != good[7:10]
    swapped, outside, beyond = bytearray(good), bytearray(good), bytearray(encode("sparse", values(3)))
    swapped[4:7], swapped[7:10] = good[7:10], good[4:7]
    outside[4 + 6 * 16 - 1] = 0xFF
    beyond[-1] |= 0b11_000000
    for hostile, size, what in ((swapped, 200, "indices"), (outside, 200, "indices"), (beyond, 3, "beyond")):
        with pytest.raises(PeerError, match=what):
            decode("sparse", hostile, size)


def test_unknown_codecs_are_refused() -> None:
    for call in (lambda: decode("gzip" * 99, b"", 0), lambda: encode("gzip", torch.zeros(1))):
        with pytest.raises(PeerError, match="unknown codec"):
            call()
