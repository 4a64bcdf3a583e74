"""When training gives way to the owner of the machine: pure decisions."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from configs.limits import Limits
from peer.member.wishes import QUIET_S, Held, Machine, held, wishes

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 6, 1, 12, tzinfo=BERLIN).timestamp()  # a Monday
ALL = Limits(hours="22:00-07:00", pause_on_battery=True, pause_on_gpu_use=True, pause_above_cpu=0.5)


def test_nothing_is_wished_where_no_limit_asks_for_it() -> None:
    assert wishes(NOON, Machine(True, ("game",), 1.0), Limits(), (), BERLIN) == {}
    assert not Limits(up_mbit=1, disk_gb=1).has_rules and ALL.has_rules


def test_what_cannot_be_known_is_no_reason() -> None:
    assert wishes(NOON, Machine(), ALL.changed(Limits(hours=None)), (), BERLIN) == {}


@pytest.mark.parametrize(
    ("limits", "machine", "reason"),
    [
        (Limits(hours="22:00-07:00"), Machine(), "it is outside of the hours 22:00-07:00; goes on at 22:00"),
        (Limits(hours="11:00-11:30"), Machine(), "outside of the hours 11:00-11:30; goes on on Tuesday at 11:00"),
        (Limits(pause_on_battery=True), Machine(is_on_battery=True), "the machine runs on its battery; goes on with"),
        (
            Limits(pause_on_gpu_use=True),
            Machine(gpu_users=("blender (process 7)",)),
            "blender (process 7) uses the GPU",
        ),
        (Limits(pause_above_cpu=0.5), Machine(cpu_share=0.6), "other programs use 60% of the cores, more than 50%"),
    ],
)
def test_each_limit_gives_its_reason(limits: Limits, machine: Machine, reason: str) -> None:
    (found,) = wishes(NOON, machine, limits, (), BERLIN).values()
    assert reason in found and "goes on" in found


@pytest.mark.parametrize("machine", [Machine(is_on_battery=False, gpu_users=(), cpu_share=0.5)])
def test_within_its_limits_it_trains(machine: Machine) -> None:
    assert wishes(NOON + 11 * 3600, machine, ALL, (), BERLIN) == {}


def test_others_load_must_fall_well_below_the_limit_before_training_goes_on() -> None:
    limits = Limits(pause_above_cpu=0.5)
    assert not wishes(NOON, Machine(cpu_share=0.3), limits, (), BERLIN)
    assert wishes(NOON, Machine(cpu_share=0.3), limits, ("pause_above_cpu",), BERLIN)
    assert not wishes(NOON, Machine(cpu_share=0.25), limits, ("pause_above_cpu",), BERLIN)


def test_a_pause_between_two_jobs_of_the_owner_is_no_end() -> None:
    seen = held(100.0, {"pause_on_gpu_use": "a game", "pause_on_battery": "no mains", "hours": "night"}, {}, ALL)
    assert {rule: each.reason for rule, each in seen.items()} == {
        "pause_on_gpu_use": "a game",
        "pause_on_battery": "no mains",
        "hours": "night",
    }
    assert held(100.0 + QUIET_S - 1, {}, seen, ALL) == {"pause_on_gpu_use": Held("a game", 100.0)}
    assert held(100.0 + QUIET_S, {}, seen, ALL) == {}
    assert held(101.0, {}, seen, Limits()) == {}, "a limit that was taken away counts no more"
