import io
import subprocess
import sys
from collections.abc import Iterator

import pytest
from rich.console import Console

from peer.commands.main import main
from peer.commands.replay import LANE_CHARS, LONGEST_S, detail, lane, line, pauses
from peer.http.history import Part, RoundRecord, Rounds


def record(**over: object) -> RoundRecord:
    parts = [
        Part(peer="12D3KooWAAAAAA", fate="sealed", offer_s=0.4, list_s=1.2, size_bytes=610_000, tokens=24_000),
        Part(peer="12D3KooWBBBBBB", fate="late", offer_s=3.8, why="its offer came 0.8 s after the cut"),
        Part(peer="12D3KooWCC[/]C", fate="absent", why="nothing was heard of it\x1b[2J"),
    ]
    facts = {
        "block": "expert.1",
        "tick": 812,
        "at": 1_790_000_000.0,
        "length_s": 6.0,
        "cut_s": 3.0,
        "outcome": "sealed 1 of 3",
        "version": 406,
        "age": 2_410_000,
        "digest": "0123456789abcdef" * 4,
        "phases": {"snapshot": 0.02, "offer": 0.4, "gathered": 3.0, "sealed": 3.4},
        "parts": parts,
        "bytes_in": 610_000,
        "bytes_out": 1_220_000,
    }
    return RoundRecord.model_validate({**facts, **over})


def drawn(what: object) -> str:
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(what)
    return console.export_text()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.page_swarm", "--peers", "6", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def test_a_round_is_a_line_with_its_reasons() -> None:
    text = drawn(line(record()))
    assert "812  expert.1     ●▲○  sealed 1 of 3  in 610.0 kB, out 1.2 MB" in text
    assert "BBBBBB late: its offer came 0.8 s after the cut" in text
    assert "CC[/]C absent: nothing was heard of it·[2J" in text  # neither markup nor control of a stranger's has effect


def test_the_detail_has_phases_and_members() -> None:
    text = drawn(detail(record()))
    for words in (
        "copied out",
        "offers gathered",
        "agreed",
        "cut",
        "3.00 s",
        "never",
        "610.0 kB",
        "24,000",
        "version 406",
    ):
        assert words in text
    drawn(detail(record(phases={}, parts=[], cut_s=0.0, digest="")))  # of which little is known


def test_a_lane_begins_and_ends_where_the_phase_does() -> None:
    assert lane(0.0, 4.0, 4.0).rstrip() == "█" * LANE_CHARS
    assert lane(2.0, 4.0, 4.0).rstrip() == " " * (LANE_CHARS // 2) + "█" * (LANE_CHARS // 2)
    assert lane(1.0, 1.0, 4.0).strip() == "▏"
    assert lane(0.0, 0.0, 0.0).strip() == "▏"


def test_a_replay_keeps_the_pace_but_never_waits_long() -> None:
    records = [record(at=at) for at in (100.0, 106.0, 112.0, 5_000.0, 4_999.0)]
    assert pauses(records, 60.0) == [0.0, 0.1, 0.1, LONGEST_S, 0.0]
    assert pauses(records, 0.0) == [0.0] * 5
    assert pauses(records[:1], 60.0) == [0.0]
    assert pauses([], 60.0) == []


def test_the_command_prints_rounds_one_round_and_json(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", url, "--last", "20", "--block", "expert.1"]) == 0
    out = capsys.readouterr().out
    assert "20 rounds, " in out
    assert "expert.1" in out
    assert "trunk" not in out
    assert main(["replay", url, "--json", "--last", "3"]) == 0
    found = Rounds.model_validate_json(capsys.readouterr().out)
    assert len(found.rounds) == 3
    tick = found.rounds[0].tick
    assert main(["replay", url, "--round", str(tick)]) == 0
    assert "offers gathered" in capsys.readouterr().out


def test_what_is_not_there_is_said_in_a_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", url, "--round", "7"]) == 1
    assert "no round that began at tick 7 is remembered; /rounds lists those that are" in capsys.readouterr().err
    assert main(["replay", url, "--block", "no.such"]) == 0
    assert "no round of no.such is remembered yet" in capsys.readouterr().out
    assert main(["replay", url, "--last", "501"]) == 2
