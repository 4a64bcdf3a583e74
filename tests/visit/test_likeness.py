"""What text is sorted like."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs.errors import DataError
from peer.visit import likeness
from peer.visit.likeness import likeness_of


def corpus(*tasks: object) -> SimpleNamespace:
    domains = [SimpleNamespace(name=f"d{n}", task=task) for n, task in enumerate(tasks)]
    counts = {domain.name: np.arange(3, dtype=np.uint64) for domain in domains}
    return SimpleNamespace(
        info=SimpleNamespace(domains=domains), tokenizer_json=lambda: b"{}", all_counts=lambda: counts
    )


def test_text_is_sorted_by_the_counts_of_each_domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(likeness, "opened_corpus", lambda place: nullcontext(corpus(None, None)))
    found = likeness_of(str(tmp_path))
    assert (found.tokenizer_json, found.context_length, list(found.counts)) == (b"{}", None, ["d0", "d1"])


def test_text_cannot_be_sorted_into_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(likeness, "opened_corpus", lambda place: nullcontext(corpus(None, "answer")))
    with pytest.raises(DataError, match=r"has tasks \(d1\)"):
        likeness_of(str(tmp_path))
