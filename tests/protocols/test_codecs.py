"""All codecs: exact sizes, bounded errors, the same bytes every time, and nothing but PeerError for hostile bytes."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from configs.errors import PeerError
from protocols import sparse
from protocols.codecs import CODECS, decode, encode, encoded_size, roundtrip
from protocols.quantized import INT4, INT8

CHUNKS = {"float32": 1024, "bfloat16": 1024, "int8": INT8.chunk, "int4": INT4.chunk, "sparse": sparse.CHUNK}
SIZES = sorted(
    {size for chunk in CHUNKS.values() for size in (chunk - 1, chunk, chunk + 1)} | {0, 1, 3, 63, 65, 70_001}
)
LARGEST = 2.0**99  # well inside of what each codec takes


def values(size: int, seed: int = 0) -> Tensor:
    """Values whose scale differs much from chunk to chunk, as pseudo-gradients do."""
    generator = torch.Generator().manual_seed(seed)
    scales = 10.0 ** (torch.arange(size) // 1024 % 7 - 3)
    return torch.randn(size, generator=generator) * scales


def heavy_tailed(size: int) -> Tensor:
    """Values of which a few are much larger than the others, and a third is zero."""
    return values(size, seed=1) ** 3 * (torch.rand(size, generator=torch.Generator().manual_seed(2)) > 0.3)


def alike(size: int) -> Tensor:
    """Values of which many have the same magnitude."""
    return torch.randint(-3, 4, (size,), generator=torch.Generator().manual_seed(3)).float()


def bounds(codec: str, chunk: Tensor) -> Tensor:
    """Return the largest error of each value of a chunk, as the codecs' docstring has it."""
    magnitudes = chunk.abs()
    largest = magnitudes.max()
    if codec == "sparse":
        sent = magnitudes.sort(descending=True, stable=True).indices[: sparse.KEPT]
        least = magnitudes[sent].min()
        others = torch.full_like(chunk, float(least))
        return others.index_fill(0, sent, float((largest - least) / 2 + largest / 256))
    by_codec = {"float32": 0 * magnitudes, "bfloat16": magnitudes / 256, "int8": largest / 253, "int4": largest / 13.9}
    return by_codec[codec].expand_as(chunk)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("make", [values, heavy_tailed, alike])
@pytest.mark.parametrize("size", SIZES)
def test_errors_are_bounded_and_bytes_the_same(codec: str, make: Callable[[int], Tensor], size: int) -> None:
    original = make(size)
    before = original.clone()
    data = encode(codec, original)
    assert len(data) == encoded_size(codec, size)
    decoded = decode(codec, data, size)
    assert decoded.dtype == torch.float32 and decoded.shape == (size,)
    if size:
        allowed = torch.cat([bounds(codec, chunk) for chunk in original.split(CHUNKS[codec])])
        assert ((decoded - original).abs() <= allowed + 2.0**-100).all()
    assert encode(codec, original) == data and torch.equal(original, before)
    assert torch.equal(decode(codec, encode(codec, decoded), size), decoded)  # what was rounded once stays
    decoded += 1  # belongs to the caller


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", SIZES)
def test_a_round_trip_gives_the_receivers_bits(codec: str, size: int) -> None:
    original = values(size)
    original[::7] *= -0.0
    payload, decoded = roundtrip(codec, original)
    assert payload == encode(codec, original)
    received = decode(codec, payload, size)
    assert torch.equal(decoded.view(torch.int32), received.view(torch.int32))  # 0 and −0 differ in this


@pytest.mark.parametrize("codec", CODECS)
def test_threads_do_not_change_a_bit(codec: str) -> None:
    threads, made = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            payload, decoded = roundtrip(codec, torch.cat([values(700_001), alike(300_000)]))
            made.append((payload, decoded, decode(codec, payload, len(decoded))))
    finally:
        torch.set_num_threads(threads)
    for payload, *tensors in made[1:]:
        assert payload == made[0][0]
        assert all(torch.equal(tensor, made[0][1]) for tensor in tensors)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-38, 1e-31, 1e-25, 1e25, LARGEST])
def test_zero_tiny_and_huge_values(codec: str, scale: float) -> None:
    original = (alike(5003) / 3) * scale
    decoded = decode(codec, encode(codec, original), len(original))
    largest = float(original.abs().max())
    assert ((decoded - original).abs() <= largest + 2.0**-100).all() and decoded.abs().max() <= largest * 1.01
    if scale >= 1e-25:
        assert decoded.abs().max() >= largest * 0.99
    elif codec.startswith("int"):
        assert not decoded.any()  # nothing is divided by what is not a normal number


def test_what_the_codecs_cost_in_bytes() -> None:
    size = 20_000_000
    shares = {codec: encoded_size(codec, size) / size for codec in CODECS}
    assert shares["float32"] == 4 and shares["bfloat16"] == 2
    assert shares["int8"] < 1.004 and 3 * shares["int4"] < 1.6 and shares["sparse"] < 0.03


def test_float32_is_exact() -> None:
    original = values(3000)
    assert torch.equal(decode("float32", encode("float32", original), 3000), original)


def test_bfloat16_rounds_to_nearest() -> None:
    original = values(3000)
    assert torch.equal(decode("bfloat16", encode("bfloat16", original), 3000), original.bfloat16().float())


def test_a_view_encodes_like_its_copy() -> None:
    strided = values(20_000)[::2]
    for codec in CODECS:
        assert encode(codec, strided) == encode(codec, strided.clone())


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [1500, 9999])
def test_what_is_not_finite_is_not_sent(codec: str, bad: float, at: int) -> None:
    broken = values(10_000)
    broken[at] = bad
    for call in (encode, roundtrip):
        with pytest.raises(ValueError, match="not finite"):
            call(codec, broken)


@pytest.mark.parametrize("codec", ["int8", "int4", "sparse"])
def test_what_nobody_would_take_is_not_sent(codec: str) -> None:
    with pytest.raises(ValueError, match="beyond"):
        encode(codec, torch.full((100,), 1e38))


def test_only_flat_float32_is_sent() -> None:
    for tensor in (torch.zeros(2, 2), torch.zeros(2, dtype=torch.float64)):
        with pytest.raises(ValueError, match="flat float32"):
            encode("int8", tensor)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [1, 2000, 4096])
def test_wrong_lengths_are_refused(codec: str, size: int) -> None:
    data = encode(codec, values(size))
    for hostile in (b"", data[:-1], data + b"\0", 2 * data):
        with pytest.raises(PeerError, match=f"{size} values"):
            decode(codec, hostile, size)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [1, 30, 131, 5001])
def test_bytes_of_an_enemy_are_refused_or_finite_and_bounded(codec: str, size: int) -> None:
    chance, fates = random.Random(size), {"refused": 0, "read": 0}
    for trial in range(300):
        data = bytearray(encode(codec, values(size, seed=trial)))
        if trial % 3 == 0:
            data = bytearray(chance.randbytes(len(data)))
        for _ in range(chance.randrange(1, 9)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            decoded = decode(codec, data, size)
        except PeerError:
            fates["refused"] += 1
            continue
        fates["read"] += 1
        assert decoded.shape == (size,) and torch.isfinite(decoded).all()
        if codec in ("int8", "int4", "sparse"):
            assert decoded.abs().max() <= 2.0**107  # 128 levels of the largest scale
    assert fates["read"]
    assert fates["refused"] or codec in ("float32", "bfloat16")  # few bytes of these are not finite


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


def test_unknown_codecs_are_refused() -> None:
    calls: list[Callable[[], object]] = [
        lambda: decode("gzip" * 99, b"", 0),
        lambda: encode("gzip", torch.zeros(1)),
        lambda: roundtrip("gzip", torch.zeros(1)),
        lambda: encoded_size("gzip", 1),
    ]
    for call in calls:
        with pytest.raises(PeerError, match="unknown codec"):
            call()
