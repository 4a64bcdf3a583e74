"""Which service a peer would be on a machine, and what is said where none can be."""

import plistlib
import sys
from pathlib import Path

import pytest

from configs.errors import StateError, UsageError
from peer.commands.main import main
from peer.commands.service import service
from peer.service import manager
from peer.service.definition import Peer
from peer.service.manager import service_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path


def test_a_dry_run_prints_the_unit_and_changes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "install", "--dry-run", "--state-dir", str(home / "state")]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"# {home}/.config/systemd/user/shoal.service\n[Unit]\n")
    assert f"ExecStart={sys.executable} -m peer start --state-dir {home}/state\n" in said
    assert "# then: systemctl --user enable --now shoal.service" in said
    assert not list(home.iterdir())


def test_of_the_whole_machine_it_may_run_as_somebody_else(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--system", "--run-as", "shoal", "--dry-run", "--state-dir", str(home / "state")]
    assert main(["service", "install", *arguments]) == 0
    said = capsys.readouterr().out
    assert said.startswith("# /etc/systemd/system/shoal.service") and "\nUser=shoal\n" in said
    assert main(["service", "install", "--run-as", "shoal", "--dry-run"]) == 2
    assert "--run-as is for --system" in capsys.readouterr().err


def test_without_a_manager_a_line_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(manager, "_why_no_systemd", lambda is_system: "there is no systemd here")
    for command in (["install"], ["uninstall"], ["status"]):
        code = main(["service", *command, "--state-dir", str(home)])
        said = capsys.readouterr()
        if command == ["install"]:
            assert code == 2 and "there is no systemd here; `shoal service install --dry-run`" in said.err
        else:
            assert code == 0 and "no service is installed" in said.out


def test_there_must_be_a_run_to_go_on_with(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "_why_no_systemd", lambda is_system: "")
    service = service_of(Peer(Path(sys.executable), home), is_system=False, platform="linux")
    with pytest.raises(StateError, match="belongs to no run yet"):
        manager.install(service, home)
    assert not service.path.exists()


def test_on_macos_it_is_a_launchd_job_of_the_user(home: Path) -> None:
    peer = Peer(Path(sys.executable), home)
    service = service_of(peer, is_system=False, platform="darwin")
    assert service.path == home / "Library/LaunchAgents/network.shoal.peer.plist"
    assert plistlib.loads(service.content)["ProgramArguments"] == peer.command
    assert service.install[0][:2] == ("launchctl", "bootstrap")
    with pytest.raises(UsageError, match="leave out --system"):
        service_of(peer, is_system=True, platform="darwin")
    with pytest.raises(UsageError, match="this is neither"):
        service_of(peer, is_system=False, platform="win32")


def test_a_service_is_installed_asked_about_and_forgotten_by_commands() -> None:
    assert {each.callback.__name__ for each in service.registered_commands if each.callback} == {
        "install",
        "uninstall",
        "status",
    }
