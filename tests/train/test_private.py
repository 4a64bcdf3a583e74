"""What leaves a peer that clips and noises, and what is said of it."""

import json
import math
from pathlib import Path

import pytest
import torch

from configs.errors import ConfigError, StateError
from configs.load import load
from peer.train.private import DELTA, PRIVACY_FILE, Privacy, epsilon, released

SIZE = 4096


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize(("norm", "left"), [(0.4, 0.4), (0.5, 0.5), (0.51, 0.5), (80.0, 0.5)])
def test_what_is_learnt_is_scaled_down_to_the_norm(norm: float, left: float) -> None:
    anchor = torch.randn(SIZE, generator=generator())
    learnt = torch.randn(SIZE)
    learnt *= norm / torch.linalg.vector_norm(learnt)
    out = released(anchor, anchor + learnt, 0.5, 0.0, generator()) - anchor
    assert float(torch.linalg.vector_norm(out)) == pytest.approx(left, rel=1e-3)
    assert float(torch.cosine_similarity(out, learnt, dim=0)) > 0.999


def test_the_noise_is_as_large_as_is_said_and_new_each_time() -> None:
    anchor, noise = torch.zeros(SIZE), generator()
    one, two = (released(anchor, anchor, 0.5, 2.0, noise) for _ in range(2))
    assert float(one.std()) == pytest.approx(1.0, rel=0.05)
    assert abs(float(torch.cosine_similarity(one, two, dim=0))) < 0.1
    seeds = {Privacy(0.5, 2.0, Path("nowhere"))._generator.initial_seed() for _ in range(3)}
    assert len(seeds) == 3  # nobody can draw it again


def test_epsilon_is_that_of_the_gaussian_mechanism() -> None:
    """Beside the bound that Dwork and Roth give for one release (theorem A.1), and that which composes by Rényi's."""
    noise = math.sqrt(2 * math.log(1.25 / DELTA)) / 0.9
    assert 0.3 * 0.9 < epsilon(1, noise) <= 0.9
    rounds = 100
    assert epsilon(rounds, noise) <= rounds / (2 * noise**2) + math.sqrt(2 * rounds * math.log(1 / DELTA)) / noise
    assert epsilon(1, noise) < epsilon(2, noise) < epsilon(rounds, noise)
    assert epsilon(0, noise) == 0.0 and epsilon(1, 0.0) == math.inf


def test_releases_are_counted_over_restarts(tmp_path: Path) -> None:
    assert Privacy.of(None, 0.0, tmp_path) is None and not list(tmp_path.iterdir())
    first = Privacy.of(0.5, 4.0, tmp_path)
    assert first is not None
    for _ in range(3):
        first.release(torch.zeros(8), torch.ones(8))
    again = Privacy.of(0.5, 4.0, tmp_path)
    assert again is not None and again.releases == 3 and again.epsilon == epsilon(3, 4.0)
    assert "3 releases" in again.told() and f"ε {again.epsilon:.3g}" in again.told()
    assert json.loads((tmp_path / PRIVACY_FILE).read_text())["releases"] == 3
    (tmp_path / PRIVACY_FILE).write_text("nonsense")
    with pytest.raises(StateError, match=PRIVACY_FILE):
        Privacy.of(0.5, 4.0, tmp_path)


def test_without_noise_nothing_is_promised(tmp_path: Path) -> None:
    clipping = Privacy.of(0.5, 0.0, tmp_path)
    assert clipping is not None and "nothing is promised" in clipping.told()


def test_noise_needs_a_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_PEER__NOISE", "1.0")
    with pytest.raises(ConfigError, match="noise is a multiple of clip_norm: give both, or neither"):
        load("tiny")
    monkeypatch.setenv("SHOAL_PEER__CLIP_NORM", "0.5")
    assert load("tiny").peer.noise == 1.0
