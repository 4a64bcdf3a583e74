"""The commands about who takes part, as far as they need no daemon."""

from pathlib import Path

import pytest

from peer.commands import admission, answers
from peer.commands.main import main

STRANGER = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out.strip(), err.strip()


def test_an_identity_is_shown_backed_up_and_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there, file = (str(tmp_path / name) for name in ("here", "there", "backup.json"))
    code, peer_id, _ = said(capsys, "identity", "show", "--state-dir", here)
    assert code == 0 and said(capsys, "identity", "show", "--state-dir", here)[1] == peer_id
    assert peer_id in said(capsys, "identity", "backup", file, "--state-dir", here)[1]
    assert peer_id in said(capsys, "identity", "restore", file, "--state-dir", there)[1]
    assert said(capsys, "identity", "show", "--state-dir", there)[1] == peer_id


def test_help_shows_the_commands_of_each_room(capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys, "--help")[1]
    assert admission.WHO in shown
    for command in (*admission.app.registered_commands, *answers.app.registered_commands):
        assert command.callback is not None and command.callback.__name__ in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("invite", "me"), "'me' is no peer id; the other side sees its own by `shoal identity show`"),
        (("revoke", STRANGER, "me"), "is no peer id"),
        (("invite", STRANGER), "is in no closed run; found one with `shoal start --closed`"),
        (("revoke", STRANGER), "is in no closed run; found one with `shoal start --closed`"),
        (("members",), "no daemon runs in"),
        (("invite", STRANGER, "--read-only", "--may-invite"), "leave out --read-only or --may-invite"),
        (("identity", "restore", "nothing-there"), "there is nothing at nothing-there"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *arguments, "--state-dir", str(tmp_path / "s"))
    assert code in (1, 2) and out == "" and says in err and len(err.splitlines()) == 1
