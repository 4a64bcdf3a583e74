"""Whether a peer does what it is there for: a pure function of its status and of a few facts. Who asks is elsewhere.

Healthy is also who has been told to pause, is only starting, has nobody to exchange with, or has nothing left to train.
What does not answer at all is not alive: that is another question, and a restart is its remedy. Here it seldom is.
"""

from dataclasses import dataclass

from pydantic import BaseModel

from peer.http.status import SILENT, Status

# Since the last inner step that was told, while the peer trains; the workers that answer nothing are started again
# after twice as long, or after as many steps (peer/workers/supervisor.py).
SILENT_S, SILENT_STEPS = 30.0, 10.0
MISSED_S, MISSED_TICKS = 30.0, 5  # since the last tick that was taken, both: a busy machine misses one now and then
LEAST_FREE_BYTES = 64 << 20
TRAINING = "training"  # a state of a peer, as the status names it


@dataclass(frozen=True)
class Pulse:
    """What the status does not say."""

    taken_tick: int  # the last one that the daemon has gone through; 0: it has not begun to
    is_worker_up: bool
    silent_s: float  # since the worker has told of a step, or was told to begin
    step_s: float | None  # how long one takes
    free_bytes: int | None  # on the disk of the state directory; None: it cannot be looked at
    needed_bytes: int  # to save all that this peer trains
    troubles: tuple[str, ...] = ()  # stuck work, rounds that are never sealed, a clock that is off: each with a remedy


class Health(BaseModel):
    """The verdict."""

    is_healthy: bool
    reasons: list[str]  # why it is not
    state: str
    tick: int


def health_of(status: Status, pulse: Pulse) -> Health:
    """Return whether a peer is healthy, and if not, why: all the reasons, each with what helps."""
    reasons = [*_ticks(status, pulse), *_worker(status, pulse), *_others(status), *_disk(pulse), *pulse.troubles]
    return Health(is_healthy=not reasons, reasons=reasons, state=status.state, tick=status.tick)


def _ticks(status: Status, pulse: Pulse) -> list[str]:
    missed = status.tick - pulse.taken_tick
    if not pulse.taken_tick or missed < MISSED_TICKS or missed * status.tick_seconds < MISSED_S:
        return []
    return [
        f"no tick was taken for {missed * status.tick_seconds:.0f} s: this machine slept, or is too busy for the "
        "daemon; end other programs, and start the peer again if that does not help"
    ]


def _worker(status: Status, pulse: Pulse) -> list[str]:
    if status.state != TRAINING:
        return []
    if not pulse.is_worker_up:
        return ["the worker has ended and is being started again; the last events and the log say why"]
    if pulse.silent_s < max(SILENT_S, SILENT_STEPS * (pulse.step_s or 0.0)):
        return []
    return [
        f"the worker has taken no step for {pulse.silent_s:.0f} s: it hangs, was stopped, or has no text; it is "
        "started again if it does not answer, and the log says more"
    ]


def _others(status: Status) -> list[str]:
    others = status.peers[1:]
    if not others or any(peer.state != SILENT or peer.link for peer in others):
        return []
    return [
        f"none of the {len(others)} other peers is heard or connected any more: the network is down, or they are gone; "
        "see `shoal doctor ADDR`"
    ]


def _disk(pulse: Pulse) -> list[str]:
    if pulse.free_bytes is None:
        return ["the disk of the state directory cannot be looked at: is it there, and may this user read it?"]
    needed = max(LEAST_FREE_BYTES, pulse.needed_bytes)
    if pulse.free_bytes >= needed:
        return []
    free_mib, needed_mib = pulse.free_bytes / 2**20, needed / 2**20
    return [
        f"the disk of the state directory is nearly full: {free_mib:,.0f} MiB are free, {needed_mib:,.0f} needed to "
        "save; free some"
    ]
