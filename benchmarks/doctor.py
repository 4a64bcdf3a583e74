"""Does `shoal doctor` name what is wrong? Situations made for real, in network namespaces, each asked about by itself.

    python -m benchmarks.doctor [--situation NAME …] [--quick] [--json FILE]

A situation counts if every check that it is about has the answer that is right there, in the words that are right
there, nothing else is called wrong, the exit code follows from that, and nothing was changed in the state directory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.boxes import SHOAL
from benchmarks.nats import Site, open_world
from benchmarks.onlookers import Looks, Onlooker, open_onlooker
from benchmarks.report import at_least, exit_with, finish, parser
from configs.errors import ShoalError
from configs.load import load
from configs.run import RunSpec
from peer.chaos.links import Peer

PORT = 4003  # of the machine that is looked at
SITES = {
    "founder": Site("open"),
    "member": Site("open"),
    "open": Site("open"),
    "closed": Site("closed"),
    "cone": Site("cone"),
    "symmetric": Site("symmetric"),
    "forwarded": Site("cone", (PORT,)),
    "hidden": Site("cone"),  # of a member that is reached through the founder's relay
    "six": Site("six"),
}
TIMEOUT_S = 120.0

Ask = Callable[[Peer, list[str], Mapping[str, str]], tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class Situation:
    """One thing that is wrong, or not, and what the doctor must say: check → answer, or answer and words."""

    name: str
    right: Mapping[str, str]
    case: str
    site: str = "open"
    target: str = "founder"  # whom it asks; empty: nobody
    state: str = "none"  # see `state_of`
    before: tuple[str, ...] = ()  # a command that runs the doctor's
    settings: Mapping[str, str] = field(default_factory=dict)


CLEAR = "others can dial this machine"
SITUATIONS = (
    Situation("open port", {"reachable": "yes open", "nat": "yes none", "relay": "yes", "clock": "yes"}, CLEAR),
    Situation(
        "closed by a firewall",
        {"reachable": "no firewall", "nat": "yes none", "relay": "yes"},
        "behind a firewall, reached through a relay",
        site="closed",
    ),
    Situation(
        "cone NAT",
        {"reachable": "no forward TCP port 4003", "nat": "yes cone", "relay": "yes"},
        "behind a cone NAT, reached through a relay",
        site="cone",
    ),
    Situation(
        "symmetric NAT",
        {"reachable": "no forward TCP port 4003", "nat": "no symmetric", "relay": "yes"},
        "behind a symmetric NAT, reached through a relay",
        site="symmetric",
    ),
    Situation("forwarded port", {"reachable": "yes open", "nat": "yes cone"}, CLEAR, site="forwarded"),
    Situation(
        "peer behind a relay",
        {"address": "yes p2p-circuit", "reachable": "no forward TCP port 4003", "nat": "yes cone", "relay": "yes"},
        "behind a cone NAT, reached through a relay",
        site="cone",
        target="hidden",
    ),
    Situation("no route", {"address": "no no route"}, "no way to the peer", site="six"),
    Situation("nobody listens there", {"address": "no refused"}, "no way to the peer", target="refused"),
    Situation("firewall before the peer", {"address": "no firewall"}, "no way to the peer", target="silent"),
    Situation("another peer there", {"address": "no another peer"}, "no way to the peer", target="stranger"),
    Situation("clock off", {"clock": "no 120.0 s behind"}, CLEAR, target="early"),
    Situation("other version", {"versions": "no protocol version 2"}, CLEAR, target="other"),
    Situation("other run", {"run": "no give another --state-dir"}, CLEAR, state="other run"),
    Situation("damaged state", {"run": "no run.json"}, CLEAR, state="damaged"),
    Situation("disk full", {"disk": "no free some"}, CLEAR, state="full"),
    Situation("read-only state", {"disk": "no read-only"}, CLEAR, state="read-only"),
    Situation("few descriptors", {"open files": "no LimitNOFILE"}, CLEAR, before=("prlimit", "--nofile=512:512")),
    Situation("port in use", {"port": "no port 4003 is taken"}, CLEAR, state="port taken"),
    Situation("missing GPU", {"gpu": "no cuda:7"}, CLEAR, settings={"SHOAL_PEER__DEVICES": '["cuda:7"]'}),
    Situation("no address", {"port": "yes", "reachable": "not checked"}, "not known without an address", target=""),
)
QUICK = ("open port", "closed by a firewall", "symmetric NAT", "clock off", "disk full", "port in use")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    names = [situation.name for situation in SITUATIONS]
    options.add_argument("--situation", action="append", choices=names, help="only this one; may be repeated")
    args = options.parse_args()
    wanted = args.situation or (QUICK if args.quick else names)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="shoal-doctor-") as folder, open_clinic(Path(folder)) as clinic:
        for situation in SITUATIONS:
            if situation.name in wanted:
                began = time.monotonic()
                problems = clinic.try_out(situation, ask_command)
                found[situation.name] = {"problems": problems, "seconds": time.monotonic() - began}
                print(f"{situation.name}: {'; '.join(problems) or 'right'}", file=sys.stderr, flush=True)
    right = sum(not each["problems"] for each in found.values())
    what = f"situations of {len(found)} that the doctor names rightly, over all"
    bars = [at_least("doctor", what, right / len(found), 1.0)]
    return finish(args, bars, {"seeds": [], "situations": found}, table=_table_of(found))


def ask_command(place: Peer, arguments: list[str], settings: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Run `shoal doctor --json` as a user would, at a place; return its exit code and what it printed."""
    before, rest = arguments[: arguments.index("doctor")], arguments[arguments.index("doctor") :]
    command = [*place.command(*before, *SHOAL, *rest, "--json")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env={**os.environ, **settings}
    )
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise ShoalError(f"the doctor said nothing ({done.returncode}): {done.stderr.strip()[-1000:]}") from None
    return done.returncode, said


class Clinic:
    """The machines and peers of all situations."""

    def __init__(self, places: Mapping[str, Peer], spec: RunSpec, targets: Mapping[str, str], folder: Path) -> None:
        self._places, self._spec, self._targets, self._folder = places, spec, targets, folder

    def try_out(self, situation: Situation, ask: Ask) -> list[str]:
        """Return what is wrong with what the doctor says of a situation; nothing if it is right."""
        place = self._places[situation.site]
        with self._state(situation, place) as state_dir:
            before = _listing(state_dir)
            arguments = [*situation.before, "doctor", "--port", str(PORT), "--state-dir", str(state_dir)]
            if situation.target:
                arguments.append(self._targets[situation.target])
            code, said = ask(place, arguments, situation.settings)
            changed = [] if _listing(state_dir) == before else ["the state directory was changed"]
        return [*changed, *compare(situation, code, said)]

    @contextmanager
    def _state(self, situation: Situation, place: Peer) -> Iterator[Path]:
        """Hold a state directory as the situation has it."""
        state_dir = Path(tempfile.mkdtemp(dir=self._folder))
        with ExitStack() as stack:
            match situation.state:
                case "none":
                    state_dir = state_dir / "not there"
                case "other run":
                    other = self._spec.model_copy(update={"seed": 1})
                    (state_dir / "run.json").write_text(other.model_dump_json())
                case "damaged":
                    (state_dir / "run.json").write_text("{")
                case "full" | "read-only":
                    size = "size=8m" if situation.state == "full" else "size=1g,ro"
                    _run("mount", "-t", "tmpfs", "-o", size, "tmpfs", str(state_dir))
                    stack.callback(_run, "umount", str(state_dir))
                case "port taken":
                    stack.enter_context(_listening(place))
            yield state_dir


def compare(situation: Situation, code: int, said: Mapping[str, Any]) -> list[str]:
    """Return where the doctor's words differ from what is right."""
    problems = []
    checks = {check["name"]: check for check in said["checks"]}
    for name, right in situation.right.items():
        check = checks[name]
        answer = next(each for each in ("not checked", "yes", "no") if right.startswith(each))
        words = right.removeprefix(answer).strip()
        text = f"{check['said']} {check['remedy']}"
        if check["answer"] != answer or words not in text:
            problems.append(f"{name} is '{check['answer']}: {text}', and not '{right}'")
        if answer == "no" and not check["remedy"]:
            problems.append(f"{name} says not what to do")
    for name, check in checks.items():
        if check["answer"] == "no" and name not in situation.right:
            problems.append(f"{name} is called wrong: {check['said']}")
    if situation.case not in said["case"]:
        problems.append(f"the case is '{said['case']}', and not '{situation.case}'")
    is_well = all(check["answer"] != "no" for check in said["checks"])
    if code != (0 if is_well else 1) or said["is_well"] != is_well:
        problems.append(f"the exit code is {code}")
    return problems


@contextmanager
def open_clinic(folder: Path) -> Iterator[Clinic]:
    """Hold the machines, and the peers that are asked. Raises UsageError where this cannot be done."""
    spec = _spec(folder)
    with open_world(list(SITES.values())) as machines, ExitStack() as stack:
        places = dict(zip(SITES, machines, strict=True))

        def there(name: str, looks: Looks) -> Onlooker:
            return stack.enter_context(open_onlooker(places[name], looks))

        member = there("member", Looks(spec, 4001))
        founder = there("founder", Looks(spec, 4001, {member.peer_id: member.addresses}))
        hidden = there("hidden", Looks(spec, 4001, relays=(founder.addresses[0],)))
        early = there("member", Looks(spec, 4002, clock_s=120.0))
        other = there("member", Looks(spec, 4004, protocol=2))
        at = founder.addresses[0]
        targets = {
            "founder": at,
            "hidden": next(address for address in hidden.addresses if "/p2p-circuit" in address),
            "early": early.addresses[0],
            "other": other.addresses[0],
            "refused": at.replace("/tcp/4001/", "/tcp/4999/"),
            "silent": at.replace(places["founder"].address, places["closed"].address),
            "stranger": at.replace(founder.peer_id, member.peer_id),
        }
        yield Clinic(places, spec, targets, folder)


def _spec(folder: Path) -> RunSpec:
    run = load("tiny").run
    assert run is not None
    return run.founded(2.0, genesis=float(int(time.time())), tokenizer_sha256="0" * 64, end_of_text=0)


@contextmanager
def _listening(place: Peer) -> Iterator[None]:
    """Hold another program that has the port, at a place."""
    code = f"import socket; s = socket.create_server(('0.0.0.0', {PORT})); print('here', flush=True); input()"
    program = subprocess.Popen(
        place.command(sys.executable, "-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    program.stdout.readline()
    try:
        yield
    finally:
        program.kill()
        program.communicate()


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*"))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ShoalError(f"{' '.join(command)} failed: {done.stderr.strip()}")


def _table_of(found: Mapping[str, dict[str, Any]]) -> Table:
    table = Table("situation", "named rightly", "s", title="shoal doctor", min_width=70)
    for name, each in found.items():
        table.add_row(name, "; ".join(each["problems"]) or "yes", f"{each['seconds']:.1f}")
    return table


if __name__ == "__main__":
    exit_with(main)
