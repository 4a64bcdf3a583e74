"""Peers that cannot be dialled, between real network namespaces: what README says of NATs and firewalls."""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mistake import MICRO, Daemon, mistake_of, running
from ticks import sealed, tick

from benchmarks.patience import until

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
PORT = 4001
# What a home router or a host's own firewall does: answers come in, and nothing that was not asked for.
CLOSED = """
table inet shoal {
  chain input {
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
  }
}
"""

pytestmark = pytest.mark.swarm


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, env={**os.environ, "PATH": PATH})


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[str]]:
    """Hold `count` network namespaces, 10.77.0.1 and so on, on one switch."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not (shutil.which("ip", path=PATH) and shutil.which("nft", path=PATH)):
        pytest.skip("needs the programs ip and nft")
    tag = secrets.token_hex(3)
    names = [f"shoal-{tag}-{number}" for number in range(1, count + 1)]
    with contextlib.ExitStack() as stack:
        for name in names:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
            stack.callback(ip, "netns", "del", name)
        ip("-n", names[0], "link", "add", "wire", "type", "bridge")
        for number, name in enumerate(names[1:], 2):
            ends = f"port{number}", "wire"
            ip("-n", names[0], "link", "add", ends[0], "type", "veth", "peer", "name", ends[1], "netns", name)
            ip("-n", names[0], "link", "set", ends[0], "master", "wire", "up")
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "wire")
            for link in ("lo", "wire"):
                ip("-n", name, "link", "set", link, "up")
        yield names


def inside(name: str, *command: str) -> list[str]:
    return [shutil.which("ip", path=PATH) or "ip", "netns", "exec", name, *command]


def shoal(name: str, *arguments: str) -> list[str]:
    return inside(name, sys.executable, "-m", "peer", *arguments, "--threads", "1")


def close(name: str) -> None:
    """Let nothing into a machine that it did not ask for."""
    nft = shutil.which("nft", path=PATH) or "nft"
    subprocess.run(inside(name, nft, "-f", "-"), input=CLOSED, text=True, check=True)


def can_dial(name: str, host: str, port: int) -> bool:
    program = f"import socket; socket.create_connection(({host!r}, {port}), 5)"
    return subprocess.run(inside(name, sys.executable, "-c", program), capture_output=True).returncode == 0


def until_sealed(count: int, *daemons: Daemon) -> float:
    """Wait until `daemons` have sealed so many rounds together, with equal bits; return the seconds."""
    began = time.monotonic()
    rounds = until(
        lambda: sealed([daemon.log for daemon in daemons]),
        lambda found: len(found) >= count,
        f"{count} rounds that {len(daemons)} daemons sealed together",
        seen=lambda found: "\n\n".join([f"rounds {list(found)}", *(daemon.log[-3000:] for daemon in daemons)]),
    )
    assert all(len(digests) == 1 for digests in rounds.values()), rounds
    return time.monotonic() - began


def unseen(name: str, daemon: Daemon) -> str:
    """Return why a daemon does not see the first of the others, by its own words; nothing if it does."""
    command = inside(name, sys.executable, "-m", "peer", "status", "--json", str(daemon.state_dir))
    done = subprocess.run(command, capture_output=True, text=True)
    peers = json.loads(done.stdout)["peers"] if done.returncode == 0 else []
    return str(peers[1]["why"]) if len(peers) > 1 else ""


def port_of(daemon: Daemon) -> int:
    return int(re.findall(r"/tcp/(\d+)/", daemon.address)[0])


@pytest.mark.long
def test_a_joiner_that_cannot_be_dialled(corpus: Path, tmp_path: Path) -> None:
    with machines(2) as (open_one, closed_one), contextlib.ExitStack() as stack:
        close(closed_one)
        start = shoal(open_one, "start", "--config", MICRO, "--data", str(corpus), "--port", str(PORT))
        founder = stack.enter_context(running(start, tmp_path / "founder", **tick(1.0)))
        assert founder.address.startswith(f"/ip4/10.77.0.1/tcp/{PORT}/")
        join = shoal(closed_one, "join", founder.address)
        joiner = stack.enter_context(running(join, tmp_path / "joiner"))
        assert can_dial(closed_one, "10.77.0.1", PORT)
        assert not can_dial(open_one, "10.77.0.2", port_of(joiner))
        print(f"5 rounds with equal bits {until_sealed(5, founder, joiner):.1f} s after the joiner was ready")
        founder.process.kill()  # only the joiner can make the connection again
        founder.process.wait()
        seen = until(lambda: unseen(closed_one, joiner), lambda why: "silent for" in why, "the founder to be silent")
        assert "connection refused" in seen, seen
        again = stack.enter_context(running(start, tmp_path / "founder"))
        print(f"5 more {until_sealed(5, again, joiner):.1f} s after the founder was back")
    assert again.process.returncode == joiner.process.returncode == 0


@pytest.mark.long
def test_two_joiners_that_cannot_dial_each_other(corpus: Path, tmp_path: Path) -> None:
    """The founder relays between them, and passes on what each has to offer."""
    with machines(3) as (open_one, *closed), contextlib.ExitStack() as stack:
        for name in closed:
            close(name)
        start = shoal(open_one, "start", "--config", MICRO, "--data", str(corpus), "--port", str(PORT))
        # Three daemons share the cores of one machine.
        founder = stack.enter_context(running(start, tmp_path / "founder", **tick(2.0)))
        daemons = [founder]
        for number, name in enumerate(closed):
            join = shoal(name, "join", founder.address)
            daemons.append(stack.enter_context(running(join, tmp_path / f"joiner{number}")))
        assert not can_dial(closed[0], "10.77.0.3", port_of(daemons[2]))
        assert not can_dial(closed[1], "10.77.0.2", port_of(daemons[1]))
        print(f"3 rounds with equal bits {until_sealed(3, *daemons):.1f} s after the last joiner was ready")
    assert [daemon.process.returncode for daemon in daemons] == [0, 0, 0]


def test_a_founder_that_cannot_be_dialled(corpus: Path, tmp_path: Path) -> None:
    with machines(2) as (open_one, closed_one):
        close(closed_one)
        start = shoal(closed_one, "start", "--config", MICRO, "--data", str(corpus), "--port", str(PORT))
        with running(start, tmp_path / "founder") as founder:
            began = time.monotonic()
            said = mistake_of([*shoal(open_one, "join", founder.address), "--state-dir", str(tmp_path / "joiner")])
            print(f"said {time.monotonic() - began:.1f} s after the start")
            assert founder.address in said and "firewall" in said and "open its port" in said
        assert founder.process.returncode == 0
