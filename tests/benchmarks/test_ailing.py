"""What counts as named, and what the table says: the pure parts of the benchmark of ailing swarms."""

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.ailing import AILMENTS, HOUSE, Ailment
from benchmarks.diagnosis import Course, is_shown, named, table_of
from benchmarks.ward import TOGETHER, Setting, Ward
from peer.chaos.daemons import Life, RoundLine
from peer.http.status import Finding

FULL = Ailment("full", "disk", r"\d+ MiB are free", "free some", 0, HOUSE)
FINDING = Finding(code="disk", affects="what is saved", cause="3 MiB are free for /x", cure="free some, or move it")


def test_a_finding_names_an_ailment_by_its_code_its_cause_and_its_cure() -> None:
    assert named(FULL, [FINDING]) is FINDING
    assert named(FULL, []) is None
    for wrong in ({"code": "memory"}, {"cause": "the disk is full"}, {"cure": "buy another"}):
        assert named(FULL, [FINDING.model_copy(update=wrong)]) is None


def test_a_page_must_say_all_of_it() -> None:
    text = "What is wrong\n3 MiB are free for /x\nWhat helps free some\nsevere · affects what is saved · disk"
    assert is_shown(FULL, text)
    assert not is_shown(FULL, text.replace("free some", "")) and not is_shown(FULL, "Nothing is wrong")


def test_there_are_at_least_twelve_and_each_can_be_carried_out() -> None:
    assert len({each.name for each in AILMENTS}) == len(AILMENTS) >= 12
    for each in AILMENTS:
        assert (each.stage is None) is (each.cured is not None), "it is done to a swarm, or the run is founded so"
        assert each.patient < each.setting.peers
        for pattern in (each.cause, each.cure):
            re.compile(pattern)
        assert each.cured != each.setting


class Box:
    def __init__(self, *outcomes: str, is_running: bool = True) -> None:
        self.is_running = is_running
        self.life = Life(
            0.0, rounds=[RoundLine(10.0 + k, "model", k, text, 1, 1, "") for k, text in enumerate(outcomes)]
        )


@pytest.mark.parametrize(
    ("outcomes", "is_well"),
    [
        (["sealed 2 of 2"] * TOGETHER, True),
        (["sealed 2 of 2"] * (TOGETHER - 1), False),
        (["skipped", *["sealed 2 of 2"] * TOGETHER], True),
        ([*["sealed 2 of 2"] * TOGETHER, "sealed 1 of 2"], False),
    ],
)
def test_a_swarm_is_well_when_all_seal_with_all(outcomes: list[str], is_well: bool) -> None:
    boxes = [Box(*outcomes), Box(*["sealed 2 of 2"] * TOGETHER), Box(is_running=False)]
    ward = Ward(Setting(), Path(), boxes, None, Path())  # type: ignore[arg-type]
    assert ward.is_well(0.0) is is_well
    assert not ward.is_well(time.time()), "those rounds were before"


def test_the_table_has_what_was_said_and_why_one_does_not_count() -> None:
    console = Console(width=200, file=io.StringIO())
    console.print(table_of([Course("a", 3.0, 9.0, "it [hangs]", "leave"), Course("b", problem="not named in 180 s")]))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "3 s" in text and "it [hangs]; leave" in text and "not named in 180 s" in text
