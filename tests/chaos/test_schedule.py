import json
from pathlib import Path
from typing import get_args

import pytest

from configs.errors import UsageError
from peer.chaos.links import NAMED
from peer.chaos.schedule import EACH_KIND, Fault, Kind, Schedule, drawn, read_schedule

TOML = """
peers = 5
tick_seconds = 2.0

[[faults]]
kind = "sleep"
at = 3
ticks = 20
peers = [1, 4]

[[faults]]
kind = "partition"
at = 30
sides = [[0, 1], [2, 3, 4]]
"""


def test_a_schedule_is_read_from_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_text(TOML)
    schedule = read_schedule(tmp_path / "night.toml")
    assert (schedule.name, schedule.peers, len(schedule.faults)) == ("night", 5, 2)
    assert schedule.faults[0].victims() == {1, 4} and schedule.faults[1].victims() == {2, 3, 4}
    (tmp_path / "night.json").write_text(schedule.model_dump_json())
    assert read_schedule(tmp_path / "night.json") == schedule


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ({"kind": "meteor"}, "faults.0.kind: Input should be 'kill'"),
        ({"kind": "kill", "peers": [4]}, "there is no peer 4: they are 0 to 3"),
        ({"kind": "link", "link": "pigeon"}, "no link is called 'pigeon'; there are lan, good wifi"),
        ({"kind": "partition"}, "a partition needs `sides`"),
        ({"kind": "sleep", "is_final": True}, "is_final is only for the kinds kill and leave, not for sleep"),
        ({"kind": "kill", "tick": 3}, "Extra inputs are not permitted"),
        ({"kind": "kill_holders", "peers": [], "is_final": True}, 'kill_holders is for strategy = "experts"'),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said_in_one_line(tmp_path: Path, fault: object, what: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({"faults": [fault]}))
    with pytest.raises(UsageError, match="is no schedule") as caught:
        read_schedule(path)
    assert what in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_toml_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_schedule(tmp_path / "none.toml")
    (tmp_path / "not.toml").write_bytes(b"\xff faults = 3")
    with pytest.raises(UsageError, match="is no schedule"):
        read_schedule(tmp_path / "not.toml")


def test_every_kind_and_every_link_is_played_alone() -> None:
    faults = [fault for schedule in EACH_KIND.values() for fault in schedule.faults]
    assert {fault.kind for fault in faults} == set(get_args(Kind))
    assert {fault.link for fault in faults if fault.kind == "link"} == NAMED.keys() - {"lan"}


def test_a_seed_always_draws_the_same_and_no_peer_suffers_two_things_at_once() -> None:
    assert drawn(7) == drawn(7) != drawn(8)
    for seed in range(200):
        schedule = drawn(seed)
        assert 4 <= schedule.peers <= 6 and schedule.faults
        for number, fault in enumerate(schedule.faults):
            for other in schedule.faults[number + 1 :]:
                if fault.at < other.ends and other.at < fault.ends:
                    assert not fault.victims() & other.victims(), (seed, fault, other)


def test_without_kinds_that_a_machine_does_not_permit_the_rest_stays() -> None:
    schedule = Schedule(faults=(Fault(kind="cut"), Fault(kind="kill"), Fault(kind="full_disk", peers=(2,))))
    assert schedule.needs_links() and schedule.on_disks() == {2}
    rest = schedule.without({"cut", "full_disk"})
    assert [fault.kind for fault in rest.faults] == ["kill"] and not rest.needs_links() and not rest.on_disks()
