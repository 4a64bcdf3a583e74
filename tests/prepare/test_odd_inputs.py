"""Each odd input becomes the right corpus, or one line with a remedy that works; and no text is lost unsaid."""

import os
from pathlib import Path

import pytest
from odd_check import SIZES, check, spelled
from odd_entries import Odd, filled, lines_of, sentences
from odd_inputs import ODD

from peer.commands.main import main


@pytest.mark.parametrize("odd", ODD, ids=[spelled(odd.name) for odd in ODD])
def test_an_odd_input_becomes_the_right_corpus(odd: Odd, tmp_path: Path) -> None:
    if odd.needs_user and os.geteuid() == 0:
        pytest.skip("everything is open to a superuser")
    outcome = check(odd, tmp_path)
    if outcome.wrong:
        pytest.fail("\n".join(outcome.wrong), pytrace=False)
    assert outcome.found == outcome.put_in


def test_there_are_many_odd_inputs_and_each_has_a_name_of_its_own() -> None:
    assert len({odd.name for odd in ODD}) == len(ODD) >= 80


def test_the_check_sees_what_is_wrong(tmp_path: Path) -> None:
    texts = sentences("Weever", 100)
    write = filled({"in/a.jsonl": lines_of(texts), "in/b.bin": "x"})
    assert check(Odd("", write, {"in": texts[1:]}), tmp_path).wrong  # more text than there should be, and a skip
    (other := tmp_path / "other").mkdir()
    outcome = check(Odd("", write, {"in": [*texts, "Gone."]}, skipped={"KIND": (1, 1)}), other)
    assert len(outcome.wrong) == 1 and outcome.put_in - outcome.found == len("Gone.")


def test_what_is_left_out_is_listed_in_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled({"in/a.jsonl": lines_of(sentences("Zope", 100)), "in/b.txt": "", "in/c.pdf": "%PDF"})(tmp_path)
    folder = str(tmp_path / "in")
    assert main(["prepare", folder, "--out", str(tmp_path / "out"), *SIZES, "--context-length", "16"]) == 0
    said = capsys.readouterr().out
    assert f"left out: 1 (0 bytes) that is empty: {folder}/b.txt" in said
    assert f"left out: 1 (4 bytes) that is of a kind that holds no text: {folder}/c.pdf" in said
