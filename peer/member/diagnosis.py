"""What is wrong with a peer, its run or its machine: why it is so, and what helps. Pure functions of what was seen."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from peer.http.health import SILENT_S, SILENT_STEPS
from peer.http.history import RoundRecord
from peer.http.status import Finding

LATE_ROUNDS, OF_ROUNDS = 3, 5  # so many of this peer's last rounds went without its offer; then it is said
DEATHS, DEATHS_S = 2, 900.0  # ends of the worker in so many seconds
RETURNS, RETURNS_S = 2, 900.0  # returns to the anchor, likewise
GAP_TURNS = 2.0  # turns of everybody through all sub-models, without anybody who trains one
REPEATS = 16.0  # times that a text was read; beyond, it teaches next to nothing more (Muennighoff et al. 2023)
BUSY_SHARE = 0.8  # of the cores that this peer may use, taken by others for a minute
SILENCE_TICKS = 6  # without anybody, after which that is said: who has just come has not heard anybody yet
SKEW = 20.0  # times that the largest domain is larger than the smallest
KILLED = (
    "another program ends it, or the system does, for memory (dmesg says so): stop that, then leave and start again"
)
REPORT = "leave and start again; if it comes back, please report it with the log"


@dataclass(frozen=True)
class Trouble:
    """Something that happened to the worker."""

    kind: str  # restarted, diverged, stalled, failed
    reason: str
    at: float  # seconds


@dataclass(frozen=True)
class SubModel:
    """How a sub-model is looked after."""

    name: str
    domain: str
    holders: int
    keepers: int
    unheld_turns: float  # of everybody through all sub-models, since somebody trained it last
    repeats: float  # how often its text was read
    is_done: bool


def told(code: str, affects: str, text: str, separator: str, is_severe: bool) -> Finding:
    """Return what another room says in one line, whose cause ends at a separator."""
    cause, _, cure = text.partition(separator)
    return Finding(code=code, affects=affects, cause=cause, cure=cure, is_severe=is_severe)


def of_lateness(records: Sequence[RoundRecord], me: str, step_s: float | None, tick_s: float) -> Finding | None:
    """Say that the others' rounds go without this peer's offers, and why; `records` are its last rounds."""
    shared = [record for record in records if len(record.parts) > 1][-OF_ROUNDS:]
    missed = [record for record in shared if record.is_step and _fate(record, me) != "sealed"]
    if len(missed) < LATE_ROUNDS:
        return None
    last = missed[-1]
    ready_s = last.phases.get("offer")
    affects = f"this peer's work: {len(missed)} of its last {len(shared)} rounds went without it"
    if step_s is not None and step_s > last.length_s:
        cause = f"your steps take {step_s:.2g} s, the cut is after {last.cut_s:.2g} s"
        code, cure = "long-steps", longer_ticks(step_s, tick_s)
    elif ready_s is None or ready_s > last.cut_s:
        ready = "is not ready by the cut" if ready_s is None else f"is ready after {ready_s:.2g} s"
        cause = f"your offer {ready}, the cut is after {last.cut_s:.2g} s: this machine is too busy for these rounds"
        code = "busy-processor"
        cure = "end other programs, or give the worker fewer threads (--threads); rounds are made longer by themselves"
    else:
        cause = (
            f"your offer of {_offer_bytes(last, me) / 1e6:.2g} MB is ready after {ready_s:.2g} s and does not reach "
            f"the others by the cut after {last.cut_s:.2g} s: the line is too slow for these rounds"
        )
        code = "slow-link"
        cure = "free it, say how fast it is with --up-mbit, or found the run with longer ticks"
    return Finding(code=code, affects=affects, cause=cause, cure=cure)


def of_long_steps(step_s: float | None, round_s: float, stride: int, tick_s: float) -> Finding | None:
    """Say that rounds are too short for the steps of everybody: of so many only one is held, the `stride`-th.

    A single slow peer is no reason to say so: then the stride of the group is 1.
    """
    if step_s is None or stride < 2 or step_s <= round_s:
        return None
    return Finding(
        code="long-steps",
        affects="the rounds of this run: they come later than it was founded for",
        cause=f"your steps take {step_s:.2g} s, the others' are as long, and a round should take {round_s:.2g} s: "
        f"only one in {stride} is held",
        cure=longer_ticks(step_s, tick_s),
    )


def longer_ticks(step_s: float, tick_s: float) -> str:
    """Return how a run is founded whose rounds are long enough for steps of that length."""
    return f"found the run with ticks of {max(2 * tick_s, 4 * step_s):.0f} s (SHOAL_RUN__ROUNDS__TICK_SECONDS)"


def of_silent_worker(silent_s: float, step_s: float | None) -> Finding | None:
    """Say that the worker, which should train, takes no step; how long the first one takes nobody knows."""
    if step_s is None or silent_s < max(SILENT_S, SILENT_STEPS * step_s):
        return None
    return Finding(
        code="worker",
        affects="this peer's training, and its rounds",
        cause=f"the worker has taken no step for {silent_s:.0f} s, and one takes {step_s:.2g} s: it hangs, was "
        "stopped, or has no text",
        cure="it is started again by itself if it does not answer; sooner if you leave and start again",
        is_severe=True,
    )


def of_worker(troubles: Sequence[Trouble], now: float, rate: float) -> list[Finding]:
    """Say what the worker suffers from: it dies again and again, or what it learns, at a `rate`, comes to nothing."""
    deaths = [each for each in troubles if each.kind == "restarted" and now - each.at < DEATHS_S]
    returns = [each for each in troubles if each.kind == "diverged" and now - each.at < RETURNS_S]
    found = []
    if len(deaths) >= DEATHS:
        is_memory = "memory" in deaths[-1].reason
        if is_memory:
            cure = "give it less at a time with --micro-batch 1, or end other programs"
        else:
            cure = KILLED if "SIGKILL" in deaths[-1].reason else REPORT
        cause = f"the worker has ended {len(deaths)} times in {DEATHS_S / 60:.0f} min: {deaths[-1].reason}"
        found.append(Finding(code="worker", affects="this peer's training", cause=cause, cure=cure, is_severe=True))
    if len(returns) >= RETURNS:
        found.append(
            Finding(
                code="diverging",
                affects="this peer's training: what was learnt since the last round is lost each time",
                cause=f"training has diverged {len(returns)} times in {RETURNS_S / 60:.0f} min: {returns[-1].reason}",
                cure=f"found a run with a lower rate than {rate:.2g} (SHOAL_RUN__INNER__LEARNING_RATE), such as "
                f"{rate / 10:.1g}; or look for broken text",
                is_severe=True,
            )
        )
    return found


def of_busy_cores(taken_share: float | None) -> Finding | None:
    """Say that other programs take the processor, so that training gets what they leave."""
    if taken_share is None or taken_share < BUSY_SHARE:
        return None
    return Finding(
        code="busy-processor",
        affects="this peer's training: it gives way to other programs",
        cause=f"other programs have taken {taken_share:.0%} of the processor in the last minute",
        cure="end other programs, or let training rest meanwhile (shoal limits --pause-above-cpu 0.5)",
    )


def of_disk(free_bytes: int | None, needed_bytes: int, folder: str) -> Finding | None:
    """Say that the disk is nearly full."""
    if free_bytes is None or free_bytes >= needed_bytes:
        return None
    return Finding(
        code="disk",
        affects="what this peer saves: where the disk is full it ends, with all that was saved",
        cause=f"{free_bytes / 2**20:,.0f} MiB are free for {folder}, {needed_bytes / 2**20:,.0f} MiB are the least",
        cure="free some, or move the state directory to another disk and name it with --state-dir",
        is_severe=True,
    )


def of_memory(free_bytes: int | None, needed_bytes: int) -> Finding | None:
    """Say that memory is nearly used up."""
    if free_bytes is None or free_bytes >= needed_bytes:
        return None
    return Finding(
        code="memory",
        affects="this peer: the system may end its worker, or itself",
        cause=f"{free_bytes / 2**20:,.0f} MiB of memory are free",
        cure="end other programs, or start with --micro-batch 1",
        is_severe=True,
    )


def of_sub_models(sub_models: Sequence[SubModel]) -> list[Finding]:
    """Say which sub-models nobody looks after, and which have too little text."""
    found = []
    for each in sub_models:
        affects = f"sub-model {each.name} ({each.domain})"
        if not each.holders and not each.is_done and each.unheld_turns >= GAP_TURNS:
            kept = "one peer keeps" if each.keepers == 1 else f"{each.keepers} peers keep"
            found.append(
                Finding(
                    code="gap",
                    affects=affects,
                    cause=f"nobody trains it; {kept} its state",
                    cure=f"start one more peer with --sub-model {each.name}",
                    is_severe=not each.keepers,
                )
            )
        if each.repeats >= REPEATS:
            found.append(
                Finding(
                    code="little-text",
                    affects=affects,
                    cause=f"its text was read {each.repeats:.0f} times; more of the same teaches next to nothing",
                    cure="found a run with more text for it (shoal prepare), or with fewer tokens "
                    "(SHOAL_RUN__TOTAL_TOKENS); the text of this one is what it was founded with",
                )
            )
    return found


def of_skew(tokens: Mapping[str, int]) -> Finding | None:
    """Say that one domain has much less text than another: its sub-model learns less, whoever trains it."""
    if len(tokens) < 2:
        return None
    least, most = min(tokens, key=tokens.__getitem__), max(tokens, key=tokens.__getitem__)
    if tokens[most] < SKEW * tokens[least]:
        return None
    return Finding(
        code="skewed-text",
        affects=f"the sub-model of domain {least}",
        cause=f"{least} has {tokens[least]:,} tokens of text, {most} has {tokens[most]:,}",
        cure=f"found a run with more text of {least}, or with small domains put together (shoal prepare --domains K)",
    )


def of_silence(known: int, silent_ticks: int, failures: Collection[str]) -> Finding | None:
    """Say that of all the peers that this one knows none is heard, for so many ticks now."""
    if not known or silent_ticks < SILENCE_TICKS:
        return None
    why = f": {next(iter(failures))}" if failures else ""
    return Finding(
        code="nobody-heard",
        affects="the whole run, as seen from here",
        cause=f"none of the {known} other peers that are known is heard{why}",
        cure="see whether this machine is online (shoal doctor ADDR); they may all have left",
        is_severe=True,
    )


def _fate(record: RoundRecord, peer: str) -> str:
    return next((part.fate for part in record.parts if part.peer == peer), "absent")


def _offer_bytes(record: RoundRecord, peer: str) -> int:
    return next((part.size_bytes for part in record.parts if part.peer == peer), 0)
