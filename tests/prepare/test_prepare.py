"""`shoal prepare`: what it accepts, that it is deterministic and atomic, and each mistake that a user can make."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from tokenizers import Tokenizer

from configs.content import content_id_of
from configs.errors import DataError, StateError
from configs.files import disk_errors
from peer.corpus.data import open_corpus, open_tokens
from peer.prepare.assemble import COUNTED_TOKENS, counted_tokens, noised
from peer.prepare.engine import prepare, prepare_texts
from peer.prepare.plan import Plan
from peer.sources.documents import Reading

PLAN = Plan(vocab_size=300, context_length=16)


def passages(word: str, count: int = 30) -> list[str]:
    return [f"{word} number {index} of the {word}s, " * 40 for index in range(count)]


def text_file(path: Path, word: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(passages(word)), encoding="utf-8")
    return path


def json_lines(path: Path, records: list[object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def refusal(action: Callable[[], object], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sub_folders_are_domains_and_the_files_beside_them_one_more(tmp_path: Path) -> None:
    for part in ("one", "two"):
        text_file(tmp_path / "texts" / "deep" / part / "part.txt", f"whale {part}")
    text_file(tmp_path / "texts" / "flat.txt", "herring")
    (tmp_path / "texts" / ".hidden").mkdir()
    (tmp_path / "texts" / "logo.png").write_bytes(b"\x89PNG")
    info = prepare([tmp_path / "texts"], tmp_path / "corpus", PLAN).info
    assert [domain.name for domain in info.domains] == ["deep", "texts"]
    assert open_corpus(tmp_path / "corpus").info == info


def test_several_sources_are_a_domain_each(tmp_path: Path) -> None:
    files = [text_file(tmp_path / name / "train.txt", name) for name in ("cod", "eel")]
    info = prepare(files, tmp_path / "corpus", PLAN).info
    assert [domain.name for domain in info.domains] == ["cod", "eel"]
    info = prepare([file.parent for file in files], tmp_path / "again", PLAN).info
    assert [domain.name for domain in info.domains] == ["cod", "eel"]


def test_a_column_names_the_domain(tmp_path: Path) -> None:
    rows = [{"body": text, "kind": kind} for kind in ("sea fish", "bird") for text in passages(kind)]
    lines = json_lines(tmp_path / "all.jsonl", rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "all.parquet")
    columns = Reading("body", "kind")
    info = prepare([lines], tmp_path / "a", PLAN, columns).info
    assert [domain.name for domain in info.domains] == ["sea-fish", "bird"]
    assert prepare([tmp_path / "all.parquet"], tmp_path / "b", PLAN, columns).info == info


def test_tokens_decode_to_the_documents_and_none_is_lost(tmp_path: Path) -> None:
    texts = [*passages("grüße 海 🐟"), "the marker <|endoftext|> is plain text here", "line\r\nends\tstay "]
    prepare_texts({"fish": texts}, tmp_path / "corpus", Plan(400, context_length=16, shard_tokens=2000))
    corpus = open_corpus(tmp_path / "corpus")
    domain = corpus.info.domains[0]
    tokenizer = Tokenizer.from_buffer(corpus.tokenizer_json())
    assert len(domain.shards) > 2
    found = []
    for blob in (*domain.shards, domain.heldout):
        tokens = open_tokens(corpus.blob(blob.content_id), corpus.info.vocab_size)
        assert content_id_of(tokens.tobytes()) == blob.content_id
        assert tokens.size == blob.tokens and tokens.nbytes == blob.size_bytes
        ends = np.flatnonzero(tokens == corpus.info.end_of_text)
        assert ends[-1] == tokens.size - 1  # cuts fall between documents
        found += [tokenizer.decode(part[:-1].tolist()) for part in np.split(tokens, ends + 1)[:-1]]
    assert sorted(found) == sorted(texts)


def test_the_same_text_gives_the_same_bytes(tmp_path: Path) -> None:
    texts = {name: passages(name) for name in ("cod", "eel", "ray")}
    for out in ("a", "b"):
        prepare_texts(texts, tmp_path / out, Plan(400, context_length=16))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_document_stays_held_out_when_others_come(tmp_path: Path) -> None:
    many = [f"cod number {index}, " * 5 for index in range(4000)]
    few = many[:2500]
    heldout = []
    for out, texts in (("few", few), ("many", many)):
        info = prepare_texts({"cod": texts}, tmp_path / out, Plan(300, context_length=16, heldout_share=0.1))
        corpus = open_corpus(tmp_path / out)
        tokens = corpus.heldout(info.domains[0])
        ends = np.flatnonzero(tokens == info.end_of_text)
        tokenizer = Tokenizer.from_buffer(corpus.tokenizer_json())
        heldout.append({tokenizer.decode(part[:-1].tolist()) for part in np.split(tokens, ends + 1)[:-1]})
    assert heldout[0] == heldout[1] & set(few)
    assert 0.02 < len(heldout[1]) / len(many) < 0.25


def test_a_tokenizer_can_be_brought(tmp_path: Path) -> None:
    prepare_texts({"cod": passages("cod")}, tmp_path / "first", Plan(280, context_length=16))
    for out, tokenizer in (("a", tmp_path / "first"), ("b", tmp_path / "first" / "tokenizer.json")):
        info = prepare_texts({"eel": passages("eel")}, tmp_path / out, Plan(tokenizer=tokenizer, context_length=16))
        assert (tmp_path / out / "tokenizer.json").read_bytes() == (tmp_path / "first" / "tokenizer.json").read_bytes()
        assert info.vocab_size <= 280


def test_private_domains_say_so(tmp_path: Path) -> None:
    file = text_file(tmp_path / "cod.txt", "cod")
    assert not prepare([file], tmp_path / "a", replace(PLAN, is_private=True)).info.domains[0].is_public
    assert prepare([file], tmp_path / "b", PLAN).info.domains[0].is_public


def test_progress_ends_with_everything_done(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    prepare_texts(
        {"cod": passages("cod")}, tmp_path / "corpus", Plan(300, context_length=16), lambda *call: calls.append(call)
    )
    stages = list(dict.fromkeys(stage for stage, _, _ in calls))
    assert stages == ["reading", "training the tokenizer", "tokenizing"]
    assert calls[-1][1] == calls[-1][2] > 0


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    assert "no text was given" in refusal(lambda: prepare([], out))
    assert "no such file or folder" in refusal(lambda: prepare([tmp_path / "nowhere.txt"], out))
    (tmp_path / "notes.docx").write_bytes(b"PK")
    assert "must end in" in refusal(lambda: prepare([tmp_path / "notes.docx"], out))
    (tmp_path / "empty").mkdir()
    assert "holds no text; it needs files" in refusal(lambda: prepare([tmp_path / "empty"], out))
    twins = [text_file(tmp_path / half / "same" / "train.txt", "cod") for half in ("a", "b")]
    assert "rename one" in refusal(lambda: prepare(twins, out))
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "holds no text"),
        ("a.txt", b" \n\n\t\n", "holds no text"),
        ("a.jsonl", b"\n", "holds no text"),
        ("a.txt", b"fine\n\xef\xbb\xbfgood\nb\xe4d\n", "say it with --encoding"),
        ("a.txt", b"only one passage", "only one document"),
        ("a.txt", b"x\n\n" * 2000, "says the same"),
        ("a.txt", b"".join(b"%d\n\n" % n for n in range(1000)), "fewer than one window of 16384"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": "b"\n', "line 3: broken JSON"),
        ("a.jsonl", b"[1]\n", "line 1: holds list, no record"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "line 2: has no column 'text'; the columns are: body"),
        ("a.jsonl", b'{"text": 5}\n', "holds int, not text"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "half a character"),
        ("a.parquet", b"PAR0", "smaller than the minimum file footer"),
    ],
)
def test_text_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    plan = Plan(vocab_size=300, context_length=16_384)
    message = refusal(lambda: prepare([tmp_path / name], tmp_path / "corpus", plan))
    assert words in message
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing half-done is left behind


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    pyarrow.parquet.write_table(pyarrow.table({"body": ["a"], "kind": [None]}), tmp_path / "a.parquet")
    assert "only one document" in refusal(lambda: prepare([tmp_path / "a.parquet"], out))
    lines = json_lines(tmp_path / "a.jsonl", [{"text": "a", "kind": ""}])
    assert "no column 'topic'" in refusal(lambda: prepare([lines], out, how=Reading(domain_column="topic")))
    assert "'kind' is empty" in refusal(lambda: prepare([lines], out, how=Reading(domain_column="kind")))
    file = text_file(tmp_path / "cod.txt", "cod")
    assert "use JSON lines or Parquet" in refusal(lambda: prepare([file], out, how=Reading(domain_column="kind")))
    many = json_lines(tmp_path / "many.jsonl", [{"text": "a", "url": index} for index in range(65)])
    assert "more than 64 domains" in refusal(lambda: prepare([many], out, how=Reading(domain_column="url")))


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    file, out = text_file(tmp_path / "cod.txt", "cod"), tmp_path / "corpus"
    assert "choose from 258" in refusal(lambda: prepare([file], out, Plan(vocab_size=10)))
    assert "held-out share" in refusal(lambda: prepare([file], out, Plan(heldout_share=1.0)))
    assert "make them longer" in refusal(lambda: prepare([file], out, Plan(shard_tokens=10)))


def test_tokenizers_that_cannot_be_used(tmp_path: Path) -> None:
    file, out = text_file(tmp_path / "cod.txt", "cod"), tmp_path / "corpus"
    path = tmp_path / "tokenizer.json"
    assert "cannot read the tokenizer" in refusal(lambda: prepare([file], out, Plan(tokenizer=path)))
    path.write_text("{}", encoding="utf-8")
    assert "not a Hugging Face tokenizer.json" in refusal(lambda: prepare([file], out, Plan(tokenizer=path)))
    prepare([file], tmp_path / "other", Plan(vocab_size=300, context_length=16))
    raw = (tmp_path / "other" / "tokenizer.json").read_text(encoding="utf-8")
    path.write_text(raw.replace("<|endoftext|>", "<|unheard|>"), encoding="utf-8")
    assert "which token ends a text" in refusal(lambda: prepare([file], out, Plan(tokenizer=path)))
    path.write_text(raw, encoding="utf-8")
    said = refusal(lambda: prepare([file], out, Plan(tokenizer=path, vocab_size=258)))
    assert "prepare with --vocab-size 300," in said
    prepare([file], out, Plan(tokenizer=path, vocab_size=300, context_length=16))


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    file, out = text_file(tmp_path / "cod.txt", "cod"), tmp_path / "corpus"
    out.mkdir()
    prepare([file], out, PLAN)  # an empty folder is fine
    before = contents(out)
    assert "exists and is not empty" in refusal(lambda: prepare([file], out, PLAN))
    assert "exists and is not empty" in refusal(lambda: prepare([file], file, PLAN))
    assert contents(out) == before


def test_after_a_full_disk_it_goes_on_where_it_was(tmp_path: Path) -> None:
    def full(stage: str, done: int, total: int) -> None:
        if stage == "tokenizing":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    texts = {"cod": passages("cod")}
    message = refusal(lambda: prepare_texts(texts, tmp_path / "c", Plan(300, context_length=16), full), StateError)
    assert "free some space" in message
    assert [path.name for path in tmp_path.iterdir()] == [".c.unfinished"]
    stages: list[str] = []
    prepare_texts(texts, tmp_path / "c", Plan(300, context_length=16), lambda stage, done, total: stages.append(stage))
    assert "training the tokenizer" not in stages
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    (tmp_path / "file").touch()
    assert "cannot write" in refusal(lambda: prepare_texts(texts, tmp_path / "file" / "c"), StateError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_really_full_disk_is_a_state_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="the disk is full"), disk_errors(tmp_path / "corpus"):
        Path("/dev/full").write_bytes(b"x")


def test_text_and_examples_of_one_folder_are_two_domains(tmp_path: Path) -> None:
    text_file(tmp_path / "texts" / "a.txt", "cod")
    json_lines(tmp_path / "texts" / "b.jsonl", [{"input": f"cod {n}", "target": "fish"} for n in range(50)])
    info = prepare([tmp_path / "texts"], tmp_path / "corpus", replace(PLAN, prompt="{input}:", context_length=32)).info
    assert [(domain.name, domain.task is None) for domain in info.domains] == [("texts", True), ("texts-tasks", False)]


def test_examples_beside_a_text_column_are_text(tmp_path: Path) -> None:
    rows: list[object] = [{"text": text, "input": "x", "target": "y"} for text in passages("cod")]
    plain: list[object] = [{"text": text} for text in passages("cod")]
    found = [
        prepare([json_lines(tmp_path / f"{name}.jsonl", lines)], tmp_path / name, PLAN).info.domains[0].shards
        for name, lines in (("a", rows), ("b", plain))
    ]
    assert found[0] == found[1]


def test_counts_that_may_leave_are_noised_and_of_a_document_only_its_beginning_counts(tmp_path: Path) -> None:
    long = ["fish " * 4000, *passages("cod", 20)]
    exact = prepare_texts({"fish": long}, tmp_path / "exact", PLAN)
    corpus = open_corpus(tmp_path / "exact")
    tokens = corpus.counts(corpus.info.domains[0])
    assert int(tokens.sum()) == exact.domains[0].tokens
    vocabulary = SimpleNamespace(size=5, end=0)
    stream = np.array([1, 1, 1, 1, 0, 2, 2, 0, 3, 3, 3, 0], dtype=np.uint16)
    assert counted_tokens(stream, vocabulary, None).tolist() == [3, 4, 2, 3, 0]  # type: ignore[arg-type]
    assert counted_tokens(stream, vocabulary, 2).tolist() == [0, 2, 2, 2, 0]  # type: ignore[arg-type]
    assert counted_tokens(stream[:-1], vocabulary, 2).tolist() == [0, 2, 2, 2, 0]  # type: ignore[arg-type]
    noisy = noised(np.full(20_000, 10**6, dtype="<u8"), 2.0).astype(float) - 10**6
    assert noisy.std() == pytest.approx(2.0 * COUNTED_TOKENS, rel=0.05) and abs(noisy.mean()) < 100
    assert (noised(np.zeros(1000, dtype="<u8"), 1.0) >= 0).all()
    prepare_texts({"fish": long}, tmp_path / "noisy", replace(PLAN, counts_noise=1.0))
    other = open_corpus(tmp_path / "noisy")
    assert not np.array_equal(other.counts(other.info.domains[0]), tokens)
    with pytest.raises(DataError, match="a noise of 0 is not possible"):
        prepare_texts({"fish": long}, tmp_path / "none", replace(PLAN, counts_noise=0))
