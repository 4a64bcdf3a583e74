"""What cleaning leaves in a corpus: filters, duplicates and a list, from files to tokens."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from peer.corpus.data import open_corpus, open_tokens
from peer.prepare import survey
from peer.prepare.cleaning import Cleaning
from peer.prepare.engine import Prepared, prepare
from peer.prepare.plan import Plan
from peer.sources.documents import Reading
from peer.sources.skips import Reason

WORDS = [
    f"{first}{last}"
    for first in ("cod", "eel", "ray", "tuna", "carp")
    for last in ("fin", "tail", "bone", "eye", "net")
]


def sentence(seed: int, words: int = 60) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words)) + "."


def lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def texts_of(folder: Path) -> tuple[list[str], list[str]]:
    """Return what is trained on, and what is held out, of the one domain of a corpus."""
    corpus = open_corpus(folder)
    [domain] = corpus.info.domains
    tokenizer = Tokenizer.from_buffer(corpus.tokenizer_json())

    def documents(tokens: np.ndarray) -> Iterator[str]:
        for part in np.split(tokens, np.flatnonzero(tokens == corpus.info.end_of_text) + 1):
            if len(part):
                yield tokenizer.decode(part[:-1].tolist())

    shards = [open_tokens(corpus.blob(shard.content_id), corpus.info.vocab_size) for shard in domain.shards]
    return [text for shard in shards for text in documents(shard)], list(documents(corpus.heldout(domain)))


def cleaned(source: Path, out: Path, cleaning: Cleaning) -> Prepared:
    return prepare([source], out, Plan(vocab_size=400, context_length=16, cleaning=cleaning), Reading())


def test_of_equal_documents_the_first_stays_wherever_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "LEAST_PART_BYTES", 4096)  # some parts
    texts = [sentence(seed) for seed in range(200)]
    prepared = cleaned(lines(tmp_path / "a.jsonl", texts + texts[::2]), tmp_path / "c", Cleaning(is_deduplicated=True))
    trained, held = texts_of(tmp_path / "c")
    assert sorted({*trained, *held}) == sorted(texts)
    assert trained == [text for text in texts if text in trained], "in their order, each once"
    again = sum(text not in set(held) for text in texts[::2])
    assert prepared.skips.by_reason[Reason.DUPLICATE].count == again


def test_near_duplicates_go_and_what_is_like_a_held_out_document_too(tmp_path: Path) -> None:
    texts = [sentence(seed, 200) for seed in range(150)]
    changed = [text.replace(text.split()[5], "whale", 1) for text in texts[:60]]
    cleaned(lines(tmp_path / "a.jsonl", changed + texts), tmp_path / "c", Cleaning(near=0.7))
    trained, held = texts_of(tmp_path / "c")
    for one, other in zip(texts, changed, strict=False):
        assert (one in trained) + (other in trained) <= 1
        if one in held or other in held:
            assert one not in trained and other not in trained
    assert len(trained) > 120


def test_long_documents_are_judged_as_wholes(tmp_path: Path) -> None:
    long, short = "\n".join(sentence(seed) for seed in range(400)), [sentence(seed) for seed in range(1000, 1100)]
    bad = long + "\n" + " ".join(f"secret{n}" for n in range(40))
    (tmp_path / "list.txt").write_text(" ".join(f"secret{n}" for n in range(5, 25)))
    source = lines(tmp_path / "a.jsonl", [*short[:50], bad, *short[50:]])
    listed = cleaned(source, tmp_path / "c", Cleaning(decontaminate=(str(tmp_path / "list.txt"),)))
    assert listed.skips.by_reason[Reason.LISTED].size_bytes == len(bad)
    lengths = cleaned(source, tmp_path / "d", Cleaning(max_characters=5000))
    assert lengths.skips.by_reason[Reason.LENGTH].size_bytes == len(bad)
    assert lengths.info.domains[0].tokens == listed.info.domains[0].tokens


def test_other_languages_go(tmp_path: Path) -> None:
    english = [f"The ship number {n} left the harbour early in the morning with all of its crew." for n in range(60)]
    german = [f"Das Schiff Nummer {n} verließ den Hafen früh am Morgen mit der ganzen Mannschaft." for n in range(20)]
    prepared = cleaned(lines(tmp_path / "a.jsonl", english + german), tmp_path / "c", Cleaning(languages=("en",)))
    trained, held = texts_of(tmp_path / "c")
    assert sorted(trained + held) == sorted(english)
    assert prepared.skips.by_reason[Reason.LANGUAGE].count == 20
