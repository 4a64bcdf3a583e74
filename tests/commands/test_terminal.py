import math

import pytest
from status_example import example

from configs.text import printable
from peer.commands.terminal import progress, show_evaluation, show_segments, show_status
from peer.fused.evaluate import Evaluation
from peer.fused.generate import Segment
from peer.http.status import BlockStatus


def test_a_status_that_is_printed_once_leaves_nothing_out(capsys: pytest.CaptureFixture[str]) -> None:
    status = example()
    status.blocks = [BlockStatus(block=f"expert.{k}", holders=[], keepers=[]) for k in range(60)]
    show_status(status)
    shown = capsys.readouterr().out
    assert "expert.59" in shown
    assert "more" not in shown


def test_perplexities_are_shown_with_their_means(capsys: pytest.CaptureFixture[str]) -> None:
    alone = {"expert.0": {"a": math.log(2), "b": math.log(8)}, "expert.1": {"a": math.log(9), "b": math.log(4)}}
    show_evaluation(Evaluation({"a": math.log(2), "b": math.log(4.5)}, {"a": 1000, "b": 24}, alone, 2, 1.5))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "1,000", "0.693", "2.000", "2.000", "9.000"]
    assert lines[3].split() == ["mean", "1,024", "1.099", "3.000", "4.000", "6.000"]


def test_a_model_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_segments(
        [Segment("one\x1b[2J", "expert.0", "[bold]a", 0.93, True), Segment("two", "expert.1", "b", 1.0, False)]
    )
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "[bold]a" in shown
    assert "93%" in shown
    assert printable("a\n\tb\x1b\x07\r") == "a\n\tb···"


def test_progress_stays_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        report("reading", 1, 0)
        report("reading", 5, 10)
    assert capsys.readouterr() == ("", "")
