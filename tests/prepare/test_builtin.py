"""The built-in corpus: there on every machine, the same each time, and unlike enough to be worth splitting."""

from pathlib import Path

import numpy as np

from peer.corpus.data import Corpus
from peer.prepare.builtin import built_in_corpus, built_in_texts


def test_domains_are_unlike_and_the_same_each_time() -> None:
    texts = built_in_texts(max_bytes=100_000)
    assert list(texts) == ["python", "docs", "cpp"]
    assert texts == built_in_texts(max_bytes=100_000)
    assert all(100_000 <= sum(map(len, documents)) < 250_000 for documents in texts.values())
    assert sum("#include" in text for text in texts["cpp"]) > 10
    assert not any("#include <" in text for text in texts["docs"])
    assert sum("import " in text for text in texts["python"]) > 10


def test_it_is_prepared_once_and_fits_the_tiny_preset(tmp_path: Path) -> None:
    corpus = built_in_corpus(tmp_path, 2048, 128)
    assert corpus.info.vocab_size == 2048
    for domain in corpus.info.domains:
        assert domain.tokens > 200_000
        assert len(domain.shards) > 1
        assert 0.01 < domain.heldout.tokens / domain.tokens < 0.15
    assert differences(corpus).min() > 0.3
    written = (corpus.path / "corpus.json").stat().st_mtime_ns
    assert built_in_corpus(tmp_path, 2048, 128) == corpus
    assert (corpus.path / "corpus.json").stat().st_mtime_ns == written


def differences(corpus: Corpus) -> np.ndarray:
    """Return the total variation distance between the unigrams of each two domains."""
    shares = [corpus.counts(domain) / domain.tokens for domain in corpus.info.domains]
    pairs = [(0, 1), (0, 2), (1, 2)]
    return np.array([np.abs(shares[a] - shares[b]).sum() / 2 for a, b in pairs])
