import random
import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks.plot import plot
from benchmarks.soak import is_growing, slope_of


def samples(per_1000: float, noise: float, level: float = 100.0) -> list[dict[str, float]]:
    """Return a thousand rounds: a third that settles, then a slope under noise."""
    random_ = random.Random(1)
    return [
        {"round": float(n), "memory": level + (n - 333) / 1000 * per_1000 + random_.gauss(0, noise) - (n < 333) * 50}
        for n in range(0, 1000, 5)
    ]


@pytest.mark.parametrize(
    ("per_1000", "noise", "grows"),
    [
        (5.0, 1.0, True),
        (0.0, 1.0, False),
        (-5.0, 1.0, False),
        (5.0, 60.0, False),
        (0.9, 0.01, False),
        (1.1, 0.01, True),
    ],
)
def test_what_grows_is_told_from_noise_and_from_nothing(per_1000: float, noise: float, grows: bool) -> None:
    level, slope, error = slope_of(samples(per_1000, noise), "memory")
    assert is_growing(level, slope, error) == grows
    if noise <= 1.0:
        assert slope == pytest.approx(per_1000, abs=3 * error + 0.05)


def test_too_few_samples_say_nothing() -> None:
    assert not is_growing(*slope_of(samples(50.0, 0.0)[:2], "memory"))


def test_a_plot_is_a_picture_of_every_quantity() -> None:
    svg = plot(
        [{"round": 1.0, "a <b>": 0.0, "c": 5.0}, {"round": 9.0, "a <b>": 0.0, "c": 4.0}], "round", ["a <b>", "c"]
    )
    root = ElementTree.fromstring(svg)
    lines = [each.attrib["points"] for each in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(lines) == 2 and all(len(line.split()) == 2 for line in lines)
    assert "a &lt;b&gt;" in svg
