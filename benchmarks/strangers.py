"""What somebody hostile gets, and what he costs: an outsider before a closed run, a revoked member, one who floods.

A founder trains a tiny model on one core, with a member on another, for as long with the attack as before and after it.
The attacker, beside that member, does everything at once to the founder that `flooder.py` knows: calls of every kind,
streams, long polls, records, questions, idle streams, silent connections. What the founder trains in that time, after
the first half minute, in which questions use up the time that was saved for them, is compared with what it trains
without; the most memory that a daemon held is printed. A machine's speed can change from minute to minute by more than
what is looked for, so the share of the founder's core that each of its processes has is printed as well. Then the same
where the founder's daemon has a core beside training: the member pauses, and the founder may use both cores. Hivemind's
DHT has a hook for admission, its averager none: there is nothing to measure this against but itself.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from benchmarks.boxes import MICRO, Box, open_boxes, shoal
from benchmarks.patience import HANG_S
from benchmarks.report import Bar, arguments, at_least, at_most, exit_with, finish
from benchmarks.usage import account, peak_mib, tree
from configs.errors import ShoalError
from peer.prepare.builtin import built_in_corpus

WINDOW_S, QUICK_WINDOW_S = 60.0, 15.0
LEAD_S = 35.0  # of an attack, before what is measured: its imports, and what was saved up
CALM = ("before", "between", "after")  # windows without an attack
ONE_CORE, BESIDE = "one core", "a core beside"  # what the founder has: for all that it does, and beside training
ENDLESS = ["env", "SHOAL_RUN__TOTAL_TOKENS=100000000000"]  # before a founder's command: its run outlasts all windows
MEMORY_MIB = 1024  # that a daemon's own process may hold


def main() -> int:
    args = arguments(__doc__.splitlines()[0])
    window_s = QUICK_WINDOW_S if args.quick else WINDOW_S
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="shoal-strangers-") as folder, open_boxes() as boxes:
        place = Path(folder)
        data = built_in_corpus(place, 512, 64).path
        boxes += [
            Box(place, name, behind=["taskset", "-c", str(core)])
            for name, core in (("founder", cores[0]), ("member", cores[-1]))
        ]
        _start(boxes, data)
        address = boxes[0].wait_for(r"^listening on (\S+)")
        run_id = boxes[0].wait_for(r"^run (\S+)")
        attack = ["taskset", "-c", str(cores[-1]), sys.executable, "-m", "benchmarks.flooder", address, run_id]
        outside, hostile = place / "outsider", place / "hostile"
        # Every service, each once, with nobody in a hurry.
        refusals = {"outsider": _attack(attack, 0, outside)}
        _invite(hostile, place / "founder")
        windows, flood = {}, {}
        for has, allowed in ((ONE_CORE, cores[:1]), (BESIDE, cores)):
            if has == BESIDE:
                shoal("pause", "--state-dir", str(boxes[1].state_dir))
            _allow(boxes[0], allowed)
            windows[has], flood = _attacked(boxes[0], attack, window_s, outside, hostile)
        held_mib = {box.name: peak_mib(box.pid) for box in boxes}
        p2pd_mib = {box.name: max(map(peak_mib, tree(box.pid) - {box.pid})) for box in boxes}
        shoal("revoke", _peer_id(hostile), "--state-dir", str(boxes[0].state_dir))
        boxes[0].status_when(lambda s: any(not member.holds for member in s.members), "a revocation")
        refusals["revoked"] = _attack(attack, 0, hostile)
        for box in reversed(boxes):
            box.stop()
    tried = sum(sum(seen.values()) for each in refusals.values() for seen in each["seen"].values())
    refused = tried - sum(seen.get("answered", 0) for each in refusals.values() for seen in each["seen"].values())
    bars = [
        at_least(
            "outsider", "calls of an outsider and of a revoked member that are not answered", refused / tried, 1.0
        ),
        *_costs("outsider_speed", "that he tries all of it at", "outsider", windows, 0.98),
        *_costs("cost_of_one", "that a member floods", "flood", windows, 0.95),
        at_most("memory", "most memory of a daemon, MiB", max(held_mib.values()), MEMORY_MIB),
    ]
    figures = {
        "window_s": window_s,
        "windows": {has: {name: asdict(window) for name, window in found.items()} for has, found in windows.items()},
        "refusals": refusals,
        "flood": flood,
        "peak_mib": held_mib,
        "children_peak_mib": p2pd_mib,
    }
    return finish(args, bars, figures, (), _table(windows, refusals, flood))


def _start(boxes: list[Box], data: Path) -> None:
    founder, member = boxes
    own = ["--host", "127.0.0.1", "--threads", "1", "--data", str(data)]
    at = ["--state-dir", str(founder.state_dir)]
    founder.start([*ENDLESS, sys.executable, "-m", "peer", "start", "--config", str(MICRO), "--closed", *own, *at])
    founder.wait_for(r"^(ready)")
    peer_id = shoal("identity", "show", "--state-dir", str(member.state_dir)).strip()
    line = shoal("invite", peer_id, *at).split()
    member.start([sys.executable, "-m", "peer", *line[1:], *own, "--state-dir", str(member.state_dir)])
    founder.status_when(lambda s: any("sealed 2 of 2" in block.outcome for block in s.blocks), "a round together")


def _peer_id(state_dir: Path) -> str:
    return shoal("identity", "show", "--state-dir", str(state_dir)).strip()


def _invite(guest: Path, founder: Path) -> None:
    """Put an invitation into a state directory, as a guest would paste it."""
    word = shoal("invite", _peer_id(guest), "--state-dir", str(founder)).split()[-1]
    (guest / "invitation").write_text(word)


def _attack(command: list[str], seconds: float, state_dir: Path) -> dict[str, Any]:
    state_dir.mkdir(exist_ok=True)
    done = subprocess.run(
        [*command, str(seconds), str(state_dir)], capture_output=True, text=True, timeout=seconds + HANG_S
    )
    if done.returncode:
        raise ShoalError(f"the attacker failed: {done.stderr[-800:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@dataclass(frozen=True)
class Window:
    """What the founder does in some time."""

    tokens_per_s: float
    shares: dict[str, float]  # of its core: worker, daemon, p2pd


Windows = Mapping[str, Mapping[str, Window]]  # what the founder has → the window's name


def _window(box: Box, seconds: float) -> Window:
    before, used, began = box.status().peers[0].tokens, _used(box), time.monotonic()
    time.sleep(seconds)  # what is measured is a time
    took_s = time.monotonic() - began
    shares = {name: (value - used[name]) / took_s for name, value in _used(box).items()}
    return Window((box.status().peers[0].tokens - before) / took_s, shares)


def _attacked(
    box: Box, attack: list[str], window_s: float, outside: Path, hostile: Path
) -> tuple[dict[str, Window], dict[str, Any]]:
    """Return what one does in calm, beside an outsider and beside a member who floods, and what the latter saw."""
    windows = {"before": _window(box, window_s)}
    windows["outsider"], _ = _under(box, attack, window_s, outside)
    windows["between"] = _window(box, window_s)
    windows["flood"], flood = _under(box, attack, window_s, hostile)
    windows["after"] = _window(box, window_s)
    return windows, flood


def _costs(name: str, whose: str, attack: str, windows: Windows, least: float) -> list[Bar]:
    """Return what an attacked peer trains, and what its worker has of its core, over that in calm; in both places."""
    bars = []
    for place, suffix in ((ONE_CORE, "_one_core"), (BESIDE, "")):
        calm, attacked = [windows[place][each] for each in CALM], windows[place][attack]
        what = f"of the peer {whose}, {place}"
        speed = attacked.tokens_per_s / fmean(each.tokens_per_s for each in calm)
        share = attacked.shares["worker"] / fmean(each.shares["worker"] for each in calm)
        bars.append(at_least(f"{name}{suffix}", f"tokens/s {what}", speed, least))
        bars.append(at_least(f"{name}{suffix}_cpu", f"processor time of the worker {what}", share, least))
    return bars


def _allow(box: Box, cores: list[int]) -> None:
    """Let all threads of a daemon and of what it started use these cores."""
    for pid in tree(box.pid):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):  # a thread that has ended meanwhile
                os.sched_setaffinity(int(task.name), cores)


def _used(box: Box) -> dict[str, float]:
    """Return the CPU time of the daemon, of p2pd, and of the worker with all that is started for it, in seconds."""
    used = {"worker": 0.0, "daemon": 0.0, "p2pd": 0.0}
    for pid in tree(box.pid):
        found = account(Path(f"/proc/{pid}/stat"))
        used["daemon" if pid == box.pid else "p2pd" if found.name == "p2pd" else "worker"] += found.seconds
    return used


def _under(box: Box, command: list[str], seconds: float, state_dir: Path) -> tuple[Window, dict[str, Any]]:
    """Return what one does that is attacked, and what the attacker saw."""
    state_dir.mkdir(exist_ok=True)
    attack = [*command, str(LEAD_S + seconds + 5.0), str(state_dir)]
    attacker = subprocess.Popen(attack, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(LEAD_S)  # what is measured comes after it
    window = _window(box, seconds)
    said, failed = attacker.communicate(timeout=HANG_S)
    if attacker.returncode:
        raise ShoalError(f"the attacker failed: {failed[-800:]}")
    return window, json.loads(said.splitlines()[-1])


def _table(windows: Windows, refusals: dict[str, Any], flood: dict[str, Any]) -> Table:
    table = Table("kind of call", "outsider", "revoked", "flood: answered", "refused", "failed")
    for kind in flood["seen"]:
        once = ["+".join(each["seen"].get(kind, {})) or "-" for each in refusals.values()]
        seen = flood["seen"][kind]
        table.add_row(kind, *once, *(f"{seen.get(name, 0):,}" for name in ("answered", "refused", "failed")))
    table.caption = "; ".join(
        f"{place}, {name} {window.tokens_per_s:.0f} tokens/s, "
        + ", ".join(f"{process} {share:.3f}" for process, share in window.shares.items())
        for place, found in windows.items()
        for name, window in found.items()
    )
    return table


if __name__ == "__main__":
    exit_with(main)
