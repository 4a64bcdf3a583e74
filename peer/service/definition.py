"""What a service manager is told of a peer: pure, from how it is started to the text of its files."""

import plistlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from peer.ending import LEAVE_S

NAME = "shoal"  # of the systemd unit
LABEL = "network.shoal.peer"  # of the launchd job
STOP_S = int(LEAVE_S) + 20  # longer than leaving takes, after which a manager kills
RESTART_S, MOST_RESTART_S, RESTART_STEPS = 5, 300, 8  # between two starts: the first wait, the longest, how soon
BACK_OFF_SINCE = 254  # the version of systemd from which on waits grow
MISTAKE = 2  # the exit code of a start that no other start can mend
TMPDIR = "/tmp"  # short enough for sockets, whatever the owner's own is


@dataclass(frozen=True)
class Peer:
    """How a peer is started."""

    python: Path
    state_dir: Path
    user: str = ""  # as whom, of a service of the whole machine

    @property
    def command(self) -> list[str]:
        """What starts it again, with all that its state directory keeps."""
        return [str(self.python), "-m", "peer", "start", "--state-dir", str(self.state_dir)]


def unit(peer: Peer, *, is_system: bool, version: int) -> str:
    """Return a systemd unit, for a systemd of this version, of the whole machine or of a user.

    Nothing in it hides devices, for a GPU is one, or forbids memory that is written and run, for compilers need it.
    """
    grows = version >= BACK_OFF_SINCE
    lines = [
        "[Unit]",
        "Description=Shoal, a peer that trains a language model with others",
        # Started again for ever: what keeps it from starting, such as a network that is down, may end by itself.
        "StartLimitIntervalSec=0",
        *(["Wants=network-online.target", "After=network-online.target"] if is_system else []),
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(map(_quoted, peer.command))}",
        f"WorkingDirectory={_escaped(str(peer.state_dir))}",
        f"Environment=TMPDIR={TMPDIR}",
        *([f"User={peer.user}"] if is_system and peer.user else []),
        "Restart=on-failure",
        f"RestartPreventExitStatus={MISTAKE}",
        f"RestartSec={RESTART_S if grows else 4 * RESTART_S}",
        *([f"RestartSteps={RESTART_STEPS}", f"RestartMaxDelaySec={MOST_RESTART_S}"] if grows else []),
        # The daemon alone is told to go: it ends its workers when what they have learnt is saved.
        "KillMode=mixed",
        "KillSignal=SIGTERM",
        f"TimeoutStopSec={STOP_S}",
        "OOMPolicy=continue",
        "LimitNOFILE=65536",
        "UMask=0077",
        "NoNewPrivileges=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        *(_hardening(peer) if is_system else []),
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if is_system else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def plist(peer: Peer) -> bytes:
    """Return a launchd job of a user: it is started again, after a while, unless it ends in peace."""
    log = str(peer.state_dir / "service.log")
    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": peer.command,
            "WorkingDirectory": str(peer.state_dir),
            "EnvironmentVariables": {"TMPDIR": TMPDIR},
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 4 * RESTART_S,
            "ExitTimeOut": STOP_S,
            "ProcessType": "Background",
            "StandardOutPath": log,
            "StandardErrorPath": log,
        }
    )


def _hardening(peer: Peer) -> list[str]:
    return [
        "ProtectSystem=full",
        "ProtectKernelTunables=no",  # a worker says in /proc that it goes first where memory is short
        "ProtectKernelModules=no",  # NVIDIA's driver may have to be loaded
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "RestrictNamespaces=yes",
        f"ReadWritePaths={_quoted(str(peer.state_dir))}",
    ]


def _quoted(word: str) -> str:
    """Return a word of a command as systemd reads it."""
    escaped = _escaped(word).replace("$", "$$")
    plain = shlex.quote(word) == word
    return escaped if plain else '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
