"""Asks the service manager of this machine to run a peer: systemd, of a user or of the machine, or launchd."""

import getpass
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import ShoalError, StateError, UsageError
from configs.files import discard, disk_errors, make_folder
from peer.service.definition import LABEL, NAME, STOP_S, Peer, plist, unit

ASK_S = 30.0  # for an answer of a service manager; ending a peer takes longer
RUN_FILE = "run.json"  # of a state directory that has been in a run
BY_HAND = "install the service by hand: --dry-run prints what it is"


@dataclass(frozen=True)
class Service:
    """Where a service is written down, with what text, and what makes its manager know of it."""

    path: Path
    content: bytes
    install: tuple[tuple[str, ...], ...]  # commands, in their order
    uninstall: tuple[tuple[str, ...], ...]
    status: tuple[str, ...]
    lasting: tuple[str, ...] = ()  # lets it go on when its user logs out; may be refused
    absent: str = ""  # why there is no manager that could be asked; empty: there is one


def service_of(peer: Peer, *, is_system: bool, platform: str = sys.platform) -> Service:
    """Return the service that a peer would be on this machine. Raises UsageError where none can be."""
    if platform == "darwin":
        if is_system:
            raise UsageError("on macOS a peer is a service of its user; leave out --system")
        return _launchd(peer)
    if platform != "linux":
        raise UsageError(
            "a service is written for systemd (Linux) or launchd (macOS), and this is neither; run `shoal start` by "
            "what starts programs here"
        )
    return _systemd(peer, is_system=is_system)


def install(service: Service, state_dir: Path) -> str:
    """Write the service and start it; return what is to be known beside, often nothing.

    Raises StateError (no run to go on with), UsageError (no manager), ShoalError (it refuses).
    """
    if service.absent:
        raise UsageError(f"{service.absent}; `shoal service install --dry-run` shows what would be written")
    if not (state_dir / RUN_FILE).is_file():
        raise StateError(
            f"{state_dir} belongs to no run yet: start or join one there first, leave it, and then install the service"
        )
    make_folder(service.path.parent)
    with disk_errors(service.path):
        service.path.write_bytes(service.content)
    for command in service.install:
        _ask(command)
    try:
        if service.lasting:
            _ask(service.lasting)
    except ShoalError as error:
        return f"it ends when you log out: {error}"
    return ""


def uninstall(service: Service) -> bool:
    """Stop the service and forget it; return whether there was one. Raises UsageError, ShoalError."""
    if not service.path.exists():
        return False
    if service.absent:
        raise UsageError(f"{service.absent}; delete {service.path} to forget the service")
    stop, *rest = service.uninstall
    _ask(stop, STOP_S + ASK_S)
    discard(service.path)
    for command in rest:
        _ask(command)
    return True


def status(service: Service) -> str:
    """Return in a line or more what the manager says of the service. Raises ShoalError if it cannot be asked."""
    if not service.path.exists():
        return f"no service is installed (there is no {service.path})"
    if service.absent:
        return f"{service.path} is there, but {service.absent}"
    return _run(service.status, ASK_S).stdout.strip()


def _systemd(peer: Peer, *, is_system: bool) -> Service:
    scope = () if is_system else ("--user",)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folder = Path("/etc/systemd/system") if is_system else config / "systemd" / "user"
    ask = ("systemctl", *scope)
    facts = ("ActiveState", "SubState", "Result", "NRestarts", "ExecMainStatus", "ActiveEnterTimestamp")
    return Service(
        folder / f"{NAME}.service",
        unit(peer, is_system=is_system, version=systemd_version()).encode(),
        ((*ask, "daemon-reload"), (*ask, "enable", "--now", f"{NAME}.service")),
        ((*ask, "disable", "--now", f"{NAME}.service"), (*ask, "daemon-reload")),
        (*ask, "show", f"{NAME}.service", *(f"--property={fact}" for fact in facts)),
        () if is_system else ("loginctl", "enable-linger", getpass.getuser()),
        _why_no_systemd(is_system),
    )


def _launchd(peer: Peer) -> Service:
    path = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    domain = f"gui/{os.getuid()}"
    return Service(
        path,
        plist(peer),
        (("launchctl", "bootstrap", domain, str(path)),),
        (("launchctl", "bootout", f"{domain}/{LABEL}"),),
        ("launchctl", "print", f"{domain}/{LABEL}"),
        absent="" if shutil.which("launchctl") else "launchctl is not here",
    )


def systemd_version() -> int:
    """Return the version of this machine's systemd; 0 where there is none."""
    try:
        found = re.match(r"systemd (\d+)", _run(("systemctl", "--version"), ASK_S).stdout)
    except ShoalError:
        return 0
    return int(found[1]) if found else 0


def _why_no_systemd(is_system: bool) -> str:
    if not shutil.which("systemctl"):
        return "there is no systemd here"
    if not Path("/run/systemd/system").is_dir():  # what sd_booted(3) looks at
        return "systemd does not run this machine (a container, perhaps)"
    if is_system and os.geteuid() != 0:
        return "a service of the whole machine is installed by root (sudo); --user needs no rights"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if not is_system and not (runtime and Path(runtime, "systemd", "private").exists()):
        return "no systemd runs for this user here (XDG_RUNTIME_DIR); log in as the user, or take --system"
    return ""


def _ask(command: Sequence[str], timeout_s: float = ASK_S) -> None:
    done = _run(command, timeout_s)
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise ShoalError(f"`{' '.join(command)}` failed: {said}; {BY_HAND}")


def _run(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except FileNotFoundError:
        raise ShoalError(f"{command[0]} is not on this machine; {BY_HAND}") from None
    except subprocess.TimeoutExpired:
        raise ShoalError(
            f"`{' '.join(command)}` did not end within {timeout_s:g} s; try again, or run it yourself"
        ) from None
