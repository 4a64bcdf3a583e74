"""Whatever bytes others send, everything that reads them takes them or refuses them in one of our own errors.

`python -m benchmarks.fuzz` finds inputs by the million, guided by coverage; what it found is kept in `tests/fuzz/`.
"""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks.decoders import HOSTILE, changed, decoders
from benchmarks.fuzz import KEPT, kept

DECODERS = decoders()
QUICK, SLOW = 120, 25  # inputs of a decoder in a test


def test_every_decoder_takes_its_examples() -> None:
    for name, decoder in DECODERS.items():
        for seed in decoder.seeds:
            try:
                decoder.read(seed)
            except Exception as error:
                pytest.fail(f"{name}: {error}")


def test_what_was_kept_is_of_a_decoder() -> None:
    folders = {path.name for path in (Path(__file__).parent.parent / KEPT).iterdir()}
    assert folders and all(any(kept(name) for name in DECODERS if name.replace(" ", "-") == each) for each in folders)


@pytest.mark.parametrize("name", DECODERS)
def test_what_showed_something_once_is_refused(name: str) -> None:
    for data in kept(name):
        with suppress(*DECODERS[name].raises):
            DECODERS[name].read(data)


@pytest.mark.parametrize("name", DECODERS)
def test_any_bytes_are_taken_or_refused(name: str) -> None:
    decoder = DECODERS[name]
    seeds = st.sampled_from(decoder.seeds)
    parts = st.builds(changed, seeds, st.just(decoder.form), st.integers(0, 1 << 16), st.sampled_from(HOSTILE))
    twice = st.builds(changed, parts, st.just(decoder.form), st.integers(0, 1 << 16), st.sampled_from(HOSTILE))
    cut = st.builds(lambda data, at, more: data[: at % (len(data) + 1)] + more, seeds, st.integers(0), st.binary())

    @settings(
        max_examples=SLOW if decoder.share < 1 else QUICK,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @example(b"")
    @given(st.one_of(st.binary(max_size=4096), parts, twice, cut))
    def check(data: bytes) -> None:
        with suppress(*decoder.raises):
            decoder.read(data)

    check()
