"""A look before the work says what `prepare` would do, and what it would refuse, in the same words."""

import json
from pathlib import Path

import pytest
from folders import UMLAUTS, fill

from peer.commands.main import main
from peer.corpus.data import open_corpus

PARAGRAPHS = "\n\n".join(f"Paragraph {number} of a text, which says a little. " * 4 for number in range(40))
LINES = "".join(f"Line {number} of a list says this much.\n" for number in range(60))


def looked(*arguments: str | Path) -> int:
    return main(["prepare", *map(str, arguments), "--dry-run"])


def facts(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    capsys.readouterr()
    looked(*arguments, "--json")
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def records(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_it_says_what_a_document_is_and_which_encodings_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "t", "prose/a.txt", content=PARAGRAPHS)
    fill(tmp_path / "t", "lists/a.txt", "lists/b.txt", content=LINES)
    fill(tmp_path / "t", "lists/c.txt", content=LINES.encode("utf-16"))
    assert looked(tmp_path / "t") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("4 files, ")
    assert "lists: one document is a line in 3 files of text" in said
    assert "lists: not UTF-8: 1 file in utf-16" in said
    assert "prose: one document is a paragraph or some short ones in 1 file of text" in said
    assert any(line.startswith("lists: ") and " documents, " in line for line in said)
    looked(tmp_path / "t" / "lists", "--document", "file")
    said = capsys.readouterr().out.splitlines()
    assert "lists: one document is the whole file in 3 files of text" in said


def test_what_prepare_would_refuse_stands_after_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "one", "a.txt", content="Just one short document.\n")
    assert looked(tmp_path / "one") == 2
    said = capsys.readouterr()
    assert said.out.startswith("1 file, 25 bytes") and "1 document, " in said.out
    assert said.err.count("\n") == 1 and "has only one document" in said.err
    assert main(["prepare", str(tmp_path / "one"), "--out", str(tmp_path / "c"), "--vocab-size", "300"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == said.err.strip()


def test_too_much_that_is_bad_is_refused_as_prepare_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "t", "a.txt", content=PARAGRAPHS)
    fill(tmp_path / "t", "b.txt", content=UMLAUTS * 20)
    assert looked(tmp_path / "t") == 2
    said = capsys.readouterr()
    assert "left out: 1 (" in said.out and "in no encoding that is sure" in said.out
    assert "more than --max-bad 0.01 allows" in said.err and said.err.count("\n") == 1
    assert looked(tmp_path / "t", "--max-bad", "1") == 0
    assert facts(capsys, tmp_path / "t")["refusal"] == said.err.strip().partition(": ")[2]


def test_text_that_filters_leave_nothing_of_is_shown_as_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "t", "a.txt", content=PARAGRAPHS)
    assert looked(tmp_path / "t", "--min-characters", "100000") == 2
    said = capsys.readouterr()
    assert said.out.startswith("1 file, ") and "leave out what is too strict" in said.err


def test_duplicates_are_documents_and_go_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"{number} " + f"word{number} and some more of it " * 20 for number in range(200)]
    again = texts[:50] + [text.replace("more", "less", 1) for text in texts[50:70]]
    source = records(tmp_path / "a.jsonl", texts + again)
    whole = facts(capsys, source)
    [domain] = whole["domains"]  # type: ignore[misc]
    assert 40 < whole["duplicates"] <= 50, "but for those that are held out"  # type: ignore[operator]
    assert domain["documents"] == 270
    for options in (["--deduplicate"], ["--deduplicate", "--near-duplicates", "0.7"]):
        cleaned = facts(capsys, source, *options)
        out = tmp_path / f"c{len(options)}"
        assert main(["prepare", str(source), "--out", str(out), "--vocab-size", "300", "--json", *options]) == 0
        prepared = json.loads(capsys.readouterr().out)
        assert cleaned["skipped"] == prepared["skipped"]
        assert cleaned["skipped"]["DUPLICATE"]["count"] == whole["duplicates"]  # type: ignore[index]


def test_one_long_document_that_comes_twice_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "\n".join(f"line {number} of a document that is read in many pieces" for number in range(9000))
    source = records(tmp_path / "a.jsonl", [long, long, *(f"short {number} text" for number in range(300))])
    found = facts(capsys, source)
    [domain] = found["domains"]  # type: ignore[misc]
    assert (found["duplicates"], domain["documents"]) == (1, 302)


def test_text_whose_domains_are_to_be_found_is_one_until_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "t", "x/a.txt", "y/b.txt", content=LINES)
    [domain] = facts(capsys, tmp_path / "t", "--domains", "2")["domains"]  # type: ignore[misc]
    assert domain["name"] == "all"
    (tmp_path / "t" / "z").mkdir()
    (tmp_path / "t" / "z" / "t.jsonl").write_text('{"input": "a", "target": "b"}\n' * 9)
    assert looked(tmp_path / "t", "--domains", "2") == 2
    assert "'z' is a task" in capsys.readouterr().err


def test_a_look_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "t", "a.txt", content=PARAGRAPHS)
    assert looked(tmp_path / "t", "--out", tmp_path / "c", "--near-duplicates", "0.7") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    assert main(["prepare", str(tmp_path / "t"), "--out", str(tmp_path / "c"), "--vocab-size", "300"]) == 0
    assert open_corpus(tmp_path / "c").info.domains
