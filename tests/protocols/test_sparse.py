"""The sparse codec against a plain reference, and what is wrong in its bytes."""

import struct

import pytest
import torch
from torch import Tensor

from configs.errors import PeerError
from protocols.codecs import decode, encode, encoded_size
from protocols.sparse import CHUNK, KEPT


def values(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def record(indices: list[int], low: float = 1.0, high: float = 2.0, codes: int = 0) -> bytes:
    """Return a record with these indices, each with the same code."""
    padded = indices + [0] * (-len(indices) % 4)
    bits = sum(index << 12 * i for i, index in enumerate(padded))
    all_codes = sum(codes << 2 * i for i in range(len(indices)))
    parts = bits.to_bytes(len(padded) * 3 // 2, "little") + all_codes.to_bytes(len(padded) // 4, "little")
    return struct.pack("<f", low)[2:] + struct.pack("<f", high)[2:] + parts


@pytest.mark.parametrize("size", [1, 2, 5, KEPT - 1, KEPT, KEPT + 1, CHUNK - 1, CHUNK, 2 * CHUNK + 100])
def test_against_a_plain_reference(size: int) -> None:
    original = values(size)
    expected = torch.zeros(size)
    for at in range(0, size, CHUNK):
        chunk = original[at : at + CHUNK]
        sent = sorted(range(len(chunk)), key=lambda i: (-abs(float(chunk[i])), i))[:KEPT]
        magnitudes = chunk[sent].abs()
        middle = (magnitudes.min() + magnitudes.max()) / 2
        low = magnitudes[magnitudes <= middle].double().mean()
        high = magnitudes[magnitudes > middle].double().mean() if magnitudes.max() > middle else low
        for i in sent:
            magnitude = abs(float(chunk[i]))
            nearest = high if magnitude - float(low) > float(high) - magnitude else low
            expected[at + i] = nearest * chunk[i].sign()
    decoded = decode("sparse", encode("sparse", original), size)
    torch.testing.assert_close(decoded, expected, rtol=1 / 250, atol=0)
    assert (decoded != 0).sum() == (expected != 0).sum()


def test_a_record_bit_by_bit() -> None:
    indices = [*range(61), 300, 2047, 4095]
    original = torch.zeros(CHUNK).index_fill(0, torch.tensor(indices), -2.0)
    assert encode("sparse", original) == record(indices, low=2.0, high=2.0, codes=2)
    assert torch.equal(decode("sparse", record(indices, low=2.0, high=3.0, codes=2), CHUNK), original)
    two = bytes([0b0000_0000, 0b0001_0000, 0, 0, 0, 0, 0b1100])  # indices 0, 1; small and positive, large and negative
    assert encode("sparse", torch.tensor([1.0, -3.0])) == struct.pack("<HH", 0x3F80, 0x4040) + two


def test_the_first_of_equals_are_sent() -> None:
    decoded = decode("sparse", encode("sparse", torch.full((CHUNK,), -2.0)), CHUNK)
    assert decoded.tolist() == [-2.0] * KEPT + [0.0] * (CHUNK - KEPT)


def test_few_values_are_sent_as_they_are() -> None:
    original = torch.zeros(CHUNK)
    original[[7, 4000]] = torch.tensor([5.0, -5.0])
    assert torch.equal(decode("sparse", encode("sparse", original), CHUNK), original)
    original[[8, 9]] = 0.1
    decoded = decode("sparse", encode("sparse", original), CHUNK)
    assert decoded.nonzero().flatten().tolist() == [7, 4000]  # what is zero stays so, what is small waits


def test_what_was_sent_is_never_more_than_there_was() -> None:
    """Else the residual of error feedback could grow without end."""
    for seed in range(20):
        original = values(CHUNK, seed) ** 5
        decoded = decode("sparse", encode("sparse", original), CHUNK)
        assert float((original - decoded).norm()) < 0.999 * float(original.norm())
        assert (decoded * original >= 0).all()


def test_all_is_sent_in_the_end() -> None:
    residual, rounds = values(CHUNK), 0
    start = float(residual.norm())
    while float(residual.norm()) > 0.05 * start:
        residual, rounds = residual - decode("sparse", encode("sparse", residual), CHUNK), rounds + 1
        assert rounds < 4 * CHUNK // KEPT
    assert rounds >= CHUNK // KEPT // 2


FULL = list(range(KEPT))


@pytest.mark.parametrize(
    ("data", "size", "says"),
    [
        (record(FULL, low=float("nan")), CHUNK, "scales"),
        (record(FULL, high=float("inf")), CHUNK, "scales"),
        (record(FULL, low=-1.0), CHUNK, "scales"),
        (record(FULL, low=3.0), CHUNK, "scales"),
        (record(FULL, high=1e38), CHUNK, "scales"),
        (record([0, *FULL[:-1]]), CHUNK, "ascend"),
        (record(FULL[::-1]), CHUNK, "ascend"),
        (record([*FULL[:-1], 100]), 100, "outside"),
        (record(FULL) + record([1]), CHUNK + 1, "outside"),
        (record([0, 1, 2, 3]), 3, "beyond the last"),
        (record(FULL)[:-1] + b"\x40", KEPT - 1, "beyond the last"),
    ],
)
def test_hostile_records_are_refused(data: bytes, size: int, says: str) -> None:
    assert len(data) == encoded_size("sparse", size)
    with pytest.raises(PeerError, match=says):
        decode("sparse", data, size)
    with pytest.raises(PeerError):
        decode("sparse", encode("sparse", values(CHUNK)) + data, CHUNK + size)  # the same after a good record


def test_codes() -> None:
    for code, value in enumerate([1.0, 2.0, -1.0, -2.0]):
        assert decode("sparse", record(FULL, codes=code), KEPT).eq(value).all()
