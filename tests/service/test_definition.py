"""What systemd and launchd are told of a peer, read as they read it, and done as they do it."""

import os
import plistlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from peer.ending import LEAVE_S
from peer.service.definition import MISTAKE, Peer, plist, unit

PEER = Peer(Path(sys.executable), Path("/var/lib/shoal"))


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_it_has_longer_to_leave_than_leaving_takes() -> None:
    assert int(settings(unit(PEER, is_system=False, version=252))["TimeoutStopSec"]) > LEAVE_S
    assert plistlib.loads(plist(PEER))["ExitTimeOut"] > LEAVE_S


@pytest.mark.parametrize(("version", "grows"), [(252, False), (253, False), (254, True), (257, True)])
def test_waits_between_two_starts_grow_where_systemd_can(version: int, grows: bool) -> None:
    told = settings(unit(PEER, is_system=True, version=version))
    assert ("RestartSteps" in told, "RestartMaxDelaySec" in told) == (grows, grows)
    assert told["Restart"] == "on-failure" and told["RestartPreventExitStatus"] == str(MISTAKE)


def test_a_gpu_stays_in_reach() -> None:
    told = settings(unit(PEER, is_system=True, version=257))
    assert not {"PrivateDevices", "DevicePolicy", "MemoryDenyWriteExecute", "PrivateUsers"} & told.keys()


@pytest.mark.parametrize("is_system", [True, False])
@pytest.mark.parametrize("folder", ["state", 'a state 100% "mine" $HOME \\ü'])
def test_systemd_itself_finds_nothing_wrong(is_system: bool, folder: str, tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not here (Debian: apt-get install systemd)")
    version = int(subprocess.run([verify, "--version"], capture_output=True, text=True).stdout.split()[1])
    place = tmp_path / folder
    place.mkdir()
    path = tmp_path / "shoal.service"
    path.write_text(unit(Peer(Path(sys.executable), place), is_system=is_system, version=version))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    scope = "--system" if is_system else "--user"
    command = [verify, scope, "--man=no", "--recursive-errors=no", "verify", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    path.write_text(path.read_text().replace("Restart=on-failure", "Restart=on-a-whim\nRestrat=1"))
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "on-a-whim" in done.stderr and "Restrat" in done.stderr, "it would have been found"


def test_the_launchd_job_is_started_again_unless_it_ended_in_peace() -> None:
    job = plistlib.loads(plist(PEER))
    assert job["ProgramArguments"] == PEER.command
    assert job["KeepAlive"] == {"SuccessfulExit": False} and job["RunAtLoad"] is True
    assert all(isinstance(value, str | bool | int | list | dict) for value in job.values())


def test_no_start_is_tried_again_that_only_a_person_can_mend(tmp_path: Path) -> None:
    """What the unit starts, started as it says: here without a run to go on with."""
    command = Peer(Path(sys.executable), tmp_path / "empty").command
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == MISTAKE and "nothing to found" in done.stderr


assert signal.SIGTERM
