"""The reduced chaos suite: real daemons through some faults, for the invariants; and what cannot be played is said."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from benchmarks.chaos import PACED, known
from configs.errors import UsageError
from peer.chaos.links import forbidden
from peer.chaos.play import permitted, play
from peer.chaos.schedule import Fault, Schedule
from peer.commands.chaos import choose, facts_of
from peer.commands.main import main

NIGHT = Schedule(
    name="a night",
    peers=3,
    faults=(
        Fault(kind="kill_worker", peers=(0,)),
        Fault(kind="sleep", at=2, ticks=5, peers=(2,)),
        Fault(kind="kill", at=4, ticks=1, peers=(1,)),
    ),
)


@pytest.mark.long
@pytest.mark.swarm
def test_a_swarm_survives_a_night() -> None:
    said: list[str] = []
    played = asyncio.run(play(NIGHT, PACED, said.append))
    assert played.holds, played.broken
    assert not played.skipped and played.recovery_rounds < 20
    assert "kill of peer1" in "\n".join(said)
    assert json.loads(json.dumps(facts_of(played)))["holds"]


@pytest.mark.long
@pytest.mark.swarm
@pytest.mark.skipif(forbidden() is not None, reason=str(forbidden()))
def test_a_swarm_survives_what_needs_networks_disks_and_clocks() -> None:
    faults = (
        Fault(kind="cut", ticks=15),
        Fault(kind="full_disk", at=3, peers=(2,)),
        Fault(kind="clock", at=6, ticks=12, peers=(3,), seconds=-420.0),
    )
    played = asyncio.run(play(Schedule(name="a storm", faults=faults), PACED))
    assert played.holds, played.broken
    assert any("the disk is full" in line for line in played.refusals)


@pytest.mark.long
@pytest.mark.swarm
def test_what_was_played_in_part_is_known_by_the_schedule_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else a benchmark without rights would look for it in its cache for ever, and play it again."""
    monkeypatch.setattr("peer.chaos.play.forbidden", lambda: "network namespaces need root; run it as root")
    asked = Schedule(name="a part", peers=3, faults=(Fault(kind="cut"), Fault(kind="kill_worker")))
    played = asyncio.run(play(asked, PACED))
    assert played.schedule == asked and played.skipped == ["cut: network namespaces need root; run it as root"]
    (tmp_path / "a-part.json").write_text(json.dumps(facts_of(played)))
    assert known(tmp_path, asked) == facts_of(played)
    assert known(tmp_path, asked.model_copy(update={"seed": 1})) is None


def test_without_rights_the_rest_is_played_and_what_is_not_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule(faults=(Fault(kind="cut"), Fault(kind="kill"), Fault(kind="read_only"), Fault(kind="clock")))
    monkeypatch.setattr("peer.chaos.play.forbidden", lambda: "network namespaces need root; run it as root")
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    allowed, skipped = permitted(schedule)
    assert [fault.kind for fault in allowed.faults] == ["kill"]
    assert skipped == [
        "cut: network namespaces need root; run it as root",
        "read_only: network namespaces need root; run it as root",
        "clock: there is no C compiler",
    ]


def test_a_schedule_is_chosen_by_file_name_or_seed(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(NIGHT.model_dump_json())
    assert choose(str(path)) == NIGHT
    assert choose("power cut").faults == (Fault(kind="kill"),)
    assert choose("seed:3").name == "seed 3"
    for wrong, what in (("seed:x", "is no seed"), ("apocalypse", "there is no schedule 'apocalypse'")):
        with pytest.raises(UsageError, match=what):
            choose(wrong)


def test_mistakes_of_the_command_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, what in (
        (["chaos", "apocalypse"], "there is no schedule 'apocalypse'"),
        (["chaos", "power cut", "--config", "tiny"], "give a prepared corpus with --data"),
        (["chaos", "power cut", "--config", "huge"], "there is no preset huge"),
    ):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert what in said and said.count("\n") == 1


def test_all_kinds_and_links_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos"]) == 0
    said = capsys.readouterr().out
    assert "partition in three" in said and "(link) satellite" in said
