"""`shoal prepare --domains K`: domains that the text does not name are found, the same each time and of like sizes."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.corpus import CorpusInfo
from configs.errors import DataError
from peer.corpus.data import open_corpus
from peer.corpus.mixture import BOUNDS, Passages, alone, choose, fit, in_step, log_unigrams_of, settle
from peer.corpus.tokenizer import read_tokenizer
from peer.prepare.domains import enough, typical_words
from peer.prepare.engine import prepare, prepare_texts
from peer.prepare.plan import Plan
from peer.sources.documents import Reading, cut_text

WORDS = {
    "sea": ["fish", "net", "tide", "harbour", "gull", "wave", "salt", "keel", "mast", "oar", "shoal", "reef"],
    "law": [
        "court",
        "clause",
        "judge",
        "appeal",
        "statute",
        "section",
        "shall",
        "party",
        "claim",
        "oath",
        "deed",
        "jury",
    ],
    "kitchen": [
        "flour",
        "oven",
        "butter",
        "whisk",
        "simmer",
        "onion",
        "pepper",
        "dough",
        "bake",
        "spoon",
        "plate",
        "broth",
    ],
}
PLAN = Plan(vocab_size=400, context_length=16, domains=3)


def written(kind: str, count: int, words: int = 250) -> list[str]:
    """Write documents whose first word says what they are about."""
    random = np.random.default_rng(len(kind))
    return [f"{kind}{n} " + " ".join(random.choice([*WORDS[kind], "the", "of"], words)) for n in range(count)]


def mixed(count: int = 60) -> list[str]:
    return [text for texts in zip(*(written(kind, count) for kind in WORDS), strict=True) for text in texts]


def documents_of(path: Path) -> dict[str, list[list[str]]]:
    """Return what a corpus holds: domain → documents to train on, and documents held out."""
    corpus = open_corpus(path)
    tokenizer = read_tokenizer(path).tokenizer
    found: dict[str, list[list[str]]] = {}
    for domain in corpus.info.domains:
        parts = []
        for blobs in (domain.shards, [domain.heldout]):
            tokens = np.concatenate([np.fromfile(corpus.blob(blob.content_id), dtype="<u2") for blob in blobs])
            ends = np.flatnonzero(tokens == corpus.info.end_of_text)
            parts.append([tokenizer.decode(part[:-1].tolist()) for part in np.split(tokens, ends + 1)[:-1]])
        found[domain.name] = parts
    return found


def sizes(info: CorpusInfo) -> np.ndarray:
    tokens = np.array([domain.tokens for domain in info.domains])
    return tokens / tokens.mean()


def passages_of(count: int, random: np.random.Generator, num_kinds: int = 3, vocabulary: int = 30) -> Passages:
    """Draw passages of unlike kinds, of unlike lengths."""
    kinds = random.dirichlet(np.full(vocabulary, 0.3), size=num_kinds)
    lengths = random.integers(20, 80, size=count)
    return Passages.of([random.choice(vocabulary, length, p=kinds[n % num_kinds]) for n, length in enumerate(lengths)])


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_domains_of_mixed_text_are_found(tmp_path: Path) -> None:
    info = prepare_texts({"mixed": mixed()}, tmp_path / "corpus", PLAN)
    assert [domain.name for domain in info.domains] == ["cluster.0", "cluster.1", "cluster.2"]
    found = documents_of(tmp_path / "corpus")
    kinds = [{text[:3] for part in parts for text in part} for parts in found.values()]
    assert sorted(map(sorted, kinds)) == [["kit"], ["law"], ["sea"]]
    for name, words in typical_words(open_corpus(tmp_path / "corpus")).items():
        kind = found[name][0][0]
        assert words and set(words) <= set(WORDS[next(each for each in WORDS if kind.startswith(each))])
    assert sorted(text for parts in found.values() for part in parts for text in part) == sorted(mixed())


def test_the_same_text_gives_the_same_bytes(tmp_path: Path) -> None:
    for out in ("a", "b"):
        prepare_texts({"mixed": mixed()}, tmp_path / out, PLAN)
    a, b = (
        {path.name: path.read_bytes() for path in (tmp_path / out).rglob("*") if path.is_file()} for out in ("a", "b")
    )
    assert a == b


def test_what_is_held_out_is_never_trained_on(tmp_path: Path) -> None:
    texts = mixed(40)
    repeated = "\n".join([*texts[:30], *texts[:30]])  # a long document with the same passages in it as others
    prepare_texts({"mixed": [*texts, *texts, repeated, repeated]}, tmp_path / "corpus", PLAN)
    found = documents_of(tmp_path / "corpus")
    trained, held = ({text for parts in found.values() for text in parts[part]} for part in (0, 1))
    assert held and not trained & held


def test_sizes_stay_in_bounds_where_kinds_are_not_alike(tmp_path: Path) -> None:
    texts = [*written("sea", 300), *written("law", 20), *written("kitchen", 20)]
    found = sizes(prepare_texts({"mixed": texts}, tmp_path / "corpus", PLAN))
    assert found.min() > 0.25 and found.max() < 2.0


def test_files_and_folders_do_not_matter(tmp_path: Path) -> None:
    texts = mixed()
    for part, name in enumerate(("a/train.txt", "b/train.txt", "b/deep/train.txt")):
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(texts[part * 60 : part * 60 + 60]), encoding="utf-8")
    twins = [tmp_path / "texts" / half / "train.txt" for half in ("a", "b")]
    plan = Plan(vocab_size=400, context_length=16)
    assert len(prepare([tmp_path / "texts"], tmp_path / "one", replace(plan, domains=3)).info.domains) == 3
    assert len(prepare(twins, tmp_path / "two", replace(plan, domains=2)).info.domains) == 2
    assert len(prepare(twins, tmp_path / "all", replace(plan, domains=1)).info.domains) == 1


def test_what_cannot_be_found_is_one_clear_line(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    assert "choose from 1 to 64" in refusal(lambda: prepare_texts({"a": mixed()}, out, Plan(domains=65)))
    few = Plan(vocab_size=300, context_length=16, domains=8)
    assert "8 domains need at least 16 documents" in refusal(lambda: prepare_texts({"a": mixed(4)}, out, few))
    alike = ["one and the same text " * 20] * 50 + ["another text, and another " * 20] * 50
    message = refusal(lambda: prepare_texts({"a": alike}, out, Plan(vocab_size=300, context_length=16, domains=4)))
    assert "too much alike for 4 domains" in message
    rows = [json.dumps({"text": text, "kind": "a"}) for text in mixed()]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    both = refusal(lambda: prepare([tmp_path / "a.jsonl"], out, Plan(domains=2), Reading(domain_column="kind")))
    assert "leave one of them out" in both
    examples = [json.dumps({"input": f"{n} fish", "target": str(n)}) for n in range(50)]
    (tmp_path / "qa.jsonl").write_text("\n".join(examples), encoding="utf-8")
    assert "'qa' is a task" in refusal(lambda: prepare([tmp_path / "qa.jsonl"], out, Plan(domains=2)))
    assert not out.exists()


def test_a_long_text_is_cut_where_lines_or_words_end() -> None:
    text = "\n".join(" ".join(f"word{n}" for n in range(line, line + 9)) for line in range(0, 900, 9))
    pieces = list(cut_text(text, 200))
    assert "".join(pieces) == text
    assert all(len(piece) <= 200 and piece.endswith("\n") for piece in pieces[:-1])
    assert list(cut_text("abc " * 3, 6)) == ["abc", " abc", " abc "]
    assert list(cut_text("x" * 10, 4)) == ["xxxx", "xxxx", "xx"]
    assert list(cut_text(" \n", 4)) == []


def test_other_text_is_sorted_into_the_domains_of_a_corpus(tmp_path: Path) -> None:
    prepare_texts({"mixed": mixed()}, tmp_path / "theirs", PLAN)
    kinds = {name: parts[0][0][:3] for name, parts in documents_of(tmp_path / "theirs").items()}
    known = open_corpus(tmp_path / "theirs").all_counts()
    plan = Plan(tokenizer=tmp_path / "theirs", context_length=16, known=known)
    texts = [*written("law", 90)[60:], *written("kitchen", 90)[60:]]  # nothing of the sea
    prepare_texts({"mine": texts}, tmp_path / "mine", plan)
    found = documents_of(tmp_path / "mine")
    assert {kinds[name] for name in found} == {"law", "kit"}
    for name, parts in found.items():
        assert {text[:3] for part in parts for text in part} == {kinds[name]}
    assert sorted(text for parts in found.values() for part in parts for text in part) == sorted(texts)


def test_a_known_domain_without_enough_text_leaves_it_to_the_others(tmp_path: Path) -> None:
    scores = np.array([[0.0, -1.0, -9.0]] * 5 + [[-1.0, 0.0, -9.0]] * 5 + [[-2.0, -1.0, 0.0]] * 2)
    lengths = np.full(12, 10)
    assert enough(scores, lengths, 50).tolist() == [0] * 5 + [1] * 7  # type: ignore[union-attr]
    assert enough(scores, lengths, 100).tolist() == [1] * 12  # type: ignore[union-attr]
    assert enough(scores, lengths, 200) is None
    prepare_texts({"mixed": mixed()}, tmp_path / "theirs", PLAN)
    plan = Plan(tokenizer=tmp_path / "theirs", context_length=512, known=open_corpus(tmp_path / "theirs").all_counts())
    assert "too short for any of the domains" in refusal(
        lambda: prepare_texts({"mine": mixed(2)}, tmp_path / "mine", plan)
    )


def test_a_fit_recovers_the_kinds_and_is_a_function_of_the_seed() -> None:
    passages = passages_of(300, np.random.default_rng(2))
    clusters = fit(passages, (3, 30), seed=0).assign(passages)
    assert all(len(set(clusters[kind::3].tolist())) == 1 for kind in range(3))
    assert np.array_equal(clusters, fit(passages, (3, 30), seed=0).assign(passages))


@pytest.mark.parametrize("num_clusters", [2, 5, 16])
def test_prices_keep_sizes_in_bounds(num_clusters: int) -> None:
    random = np.random.default_rng(num_clusters)
    lengths = random.integers(50, 400, size=600)
    scores = random.normal(-6, 0.2, (600, num_clusters)) * lengths[:, None]
    scores[:, 0] += 0.5 * lengths  # which all like best
    (found,) = in_step([settle(scores, lengths, np.zeros(600, dtype=np.int64), BOUNDS)], alone)
    taken = choose(scores, lengths, found.prices)
    assert np.array_equal(taken, found.clusters) and found.moved == (taken != 0).sum()
    shares = np.bincount(taken, lengths, minlength=num_clusters) * num_clusters / lengths.sum()
    assert BOUNDS[0] <= shares.min() and shares.max() <= BOUNDS[1]


def test_scores_and_counts_are_those_of_a_plain_loop() -> None:
    passages = passages_of(20, np.random.default_rng(3))
    clusters = np.arange(20) % 3
    counts = np.zeros((3, 30), dtype=np.int64)
    ends = [*passages.starts[1:].tolist(), len(passages.tokens)]
    pieces = [passages.tokens[a:b] for a, b in zip(passages.starts.tolist(), ends, strict=True)]
    for cluster, piece in zip(clusters, pieces, strict=True):
        np.add.at(counts[cluster], piece, 1)
    assert np.array_equal(passages.counts(clusters, (3, 30)), counts)
    log_unigrams = log_unigrams_of(counts)
    assert np.allclose(np.exp(log_unigrams).sum(axis=1), 1, atol=1e-3)
    for (n, piece), k in itertools.product(enumerate(pieces), range(3)):
        assert passages.scores(log_unigrams)[n, k] == log_unigrams[k][piece].sum()
