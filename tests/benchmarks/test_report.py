import json
import math
from pathlib import Path

import pytest

from benchmarks.report import arguments, at_least, at_most, baseline, between, finish
from configs.errors import ShoalError

pytestmark = pytest.mark.bench


def test_bars_hold_at_their_ends_and_not_beyond() -> None:
    assert at_most("a", "", 1.0, 1.0).holds and not at_most("a", "", 1.1, 1.0).holds
    assert at_least("a", "", 1.0, 1.0).holds and not at_least("a", "", 0.9, 1.0).holds
    assert [between("a", "", value, 1.0, 2.0).holds for value in (0.9, 1.0, 2.0, 2.1)] == [False, True, True, False]
    assert not at_most("a", "", math.nan, 1.0).holds


def test_writes_everything_that_a_reader_needs(tmp_path: Path) -> None:
    args = arguments("a test", ["--quick", "--json", str(tmp_path / "out.json")])
    assert finish(args, [at_most("a", "seconds", 1.0, 2.0, 3.0)], {"seeds": [7], "raw": [1, 2]}, ["the rest"]) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["bars"] == [{"id": "a", "what": "seconds", "value": 1.0, "bar": 2.0, "holds": True, "baseline": 3.0}]
    assert (written["quick"], written["seeds"], written["raw"], written["not_measured"]) == (
        True,
        [7],
        [1, 2],
        ["the rest"],
    )
    assert {"shoal", "torch", "hivemind", "python"} <= set(written["versions"])
    assert {"cores", "cpu", "memory_gib"} <= set(written["machine"])
    assert written["seconds"] > 0


def test_a_bar_that_does_not_hold_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    bars = [at_most("good", "", 1.0, 2.0), at_most("bad", "seconds [s]", 3.0, 2.0)]
    assert finish(arguments("a test", []), bars, {"seeds": []}) == 1
    assert "seconds [s]" in capsys.readouterr().out


def test_a_baseline_that_fails_is_said_and_costs_nothing_else() -> None:
    def stumble() -> float:
        raise ShoalError("member 2 ended:\nsome words\n99.6 % of the values are the mean")

    left = ["the rest"]
    assert baseline(lambda: 2.0, "speed", left) == 2.0 and left == ["the rest"]
    assert baseline(stumble, "speed", left) is None
    said = "the baseline of speed, which failed: member 2 ended: … 99.6 % of the values are the mean"
    assert left == ["the rest", said]
    with pytest.raises(ZeroDivisionError):
        baseline(lambda: 1 / 0, "speed", left)
