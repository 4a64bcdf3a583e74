"""When training gives way to the owner of the machine: pure, of the time, the machine's facts and its limits.

How the machine is looked at is `peer/member/owner.py`'s, and what a wish leads to `control.py`'s.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

from configs.limits import Limits

QUIET_S = 60.0  # that the owner's programs must be quiet before training goes on: a pause between two jobs is no end
PATIENT = ("pause_on_gpu_use", "pause_above_cpu")  # limits of which that is so
RESUME_SHARE = 0.5  # of the limit on others' load, below which it counts as quiet


@dataclass(frozen=True)
class Machine:
    """What is seen of a machine. None: it cannot be known here."""

    is_on_battery: bool | None = None
    gpu_users: tuple[str, ...] | None = None  # programs of others on the GPUs on which this peer trains
    cpu_share: float | None = None  # of all cores, that others use
    unseen: Mapping[str, str] = field(default_factory=dict)  # limit → why what it asks for cannot be seen here


@dataclass(frozen=True)
class Held:
    """A limit by which training rests."""

    reason: str  # and when it goes on
    seen_at: float  # when that was last so, in monotonic seconds


def wishes(
    now: float, machine: Machine, limits: Limits, present: Container[str] = (), zone: tzinfo | None = None
) -> dict[str, str]:
    """Return the limits by which training should rest now, each with the reason and when it goes on; often none.

    `now` in wall-clock seconds; `present` are those by which it rests already; `zone` None is the machine's own.
    """
    found = {}
    hours = limits.opening_hours
    if hours is not None and not hours.are_open(now, zone):
        opening = hours.next_change(now, zone)
        goes_on = "" if opening is None else f"; goes on {_at(now, opening, zone)}"
        found["hours"] = f"it is outside of the hours {limits.hours}{goes_on}"
    if limits.pause_on_battery and machine.is_on_battery:
        found["pause_on_battery"] = "the machine runs on its battery; goes on with mains power"
    if limits.pause_on_gpu_use and machine.gpu_users:
        who = ", ".join(machine.gpu_users[:3])
        found["pause_on_gpu_use"] = f"{who} uses the GPU; goes on {QUIET_S:.0f} s after that has ended"
    most = limits.pause_above_cpu
    if most is not None and machine.cpu_share is not None:
        least = most * RESUME_SHARE if "pause_above_cpu" in present else most
        if machine.cpu_share > least:
            found["pause_above_cpu"] = (
                f"other programs use {machine.cpu_share:.0%} of the cores, more than {least:.0%}; goes on "
                f"{QUIET_S:.0f} s after they use less than {most * RESUME_SHARE:.0%}"
            )
    return found


def held(now: float, found: Mapping[str, str], before: Mapping[str, Held], limits: Limits) -> dict[str, Held]:
    """Return the limits by which training rests: those `found`, and those of a moment ago. `now`: monotonic seconds."""
    lasting = {
        rule: each
        for rule, each in before.items()
        if rule in PATIENT and getattr(limits, rule) and now < each.seen_at + QUIET_S
    }
    return lasting | {rule: Held(reason, now) for rule, reason in found.items()}


def _at(now: float, then: float, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(then, zone).strftime("at %H:%M" if then - now < 20 * 3600 else "on %A at %H:%M")
