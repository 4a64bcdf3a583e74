"""The links of the benchmarks do what they say, and nothing of them is left."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.patience import HANG_S, until
from benchmarks.probe import PORT, measure_delay, measure_rate, socket_in
from configs.errors import UsageError
from peer.chaos.links import PREFIX, Link, Peer, forbidden, lacking, open_links

pytestmark = pytest.mark.bench
needs_namespaces = pytest.mark.skipif(forbidden() is not None, reason=str(forbidden()))


def namespaces_of(pid: int) -> list[str]:
    return [path.name for path in Path("/run/netns").glob(f"{PREFIX}-{pid}-*")]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_tools_are_here() -> None:
    assert lacking() is None


@needs_namespaces
def test_each_peer_has_its_own_rate_up_and_down() -> None:
    with open_links([Link(up_mbit=20, down_mbit=40, delay_ms=10), Link(up_mbit=8, down_mbit=80, delay_ms=10)]) as links:
        slow, fast = links.peers
        assert best_rate(slow, fast, 20) == pytest.approx(20, rel=0.1)  # the sender's way up is narrower
        assert best_rate(fast, slow, 8) == pytest.approx(8, rel=0.1)
    with open_links([Link(up_mbit=100, delay_ms=10), Link(down_mbit=30, delay_ms=10)]) as links:
        assert best_rate(links.peers[0], links.peers[1], 30) == pytest.approx(30, rel=0.1)  # the receiver's way down is


def best_rate(sender: Peer, receiver: Peer, mbit: float) -> float:
    """Return the highest rate of some attempts, as many as it takes: who else runs on this machine only lowers it."""
    rate = 0.0
    for port in range(PORT, PORT + 20):
        rate = max(rate, measure_rate(sender, receiver, 2.5, port))
        if rate > 0.95 * mbit:
            break
    return rate


@needs_namespaces
def test_delays_are_those_of_the_sender() -> None:
    with open_links([Link(20, 20, delay_ms=50), Link(20, 20, delay_ms=5)]) as links:
        far, near = links.peers
        there, back = measure_delay(far, near, 100, 0.002), measure_delay(near, far, 100, 0.002)
    assert there.median_ms >= 50 and back.median_ms >= 5
    assert there.median_ms - back.median_ms == pytest.approx(45, abs=5)  # who else runs on this machine delays both
    assert there.lost == back.lost == 0


@needs_namespaces
def test_losses_follow_from_the_seed() -> None:
    def lost(seed: int) -> list[int]:
        with open_links([Link(loss=0.05), Link()], seed) as links:
            measured = measure_delay(links.peers[0], links.peers[1], 1000, 0.0002)
            counts = links.counts()
        assert measured.lost == pytest.approx(counts[0]["lost"] / 1000)
        return [each["lost"] for each in counts]

    first = lost(1)
    assert 25 <= first[0] <= 75 and first[1] == 0  # 50 are expected, with a deviation of 7
    assert lost(1) == first


@needs_namespaces
def test_a_full_queue_drops() -> None:
    with open_links([Link(up_mbit=0.1), Link()]) as links:
        measured = measure_delay(links.peers[0], links.peers[1], 1000, 0.0)
        assert links.counts()[0]["dropped_up"] == pytest.approx(1000 * measured.lost)
    assert measured.lost > 0.5  # 142 kB, of which 12.5 kB go in a second, and 1.25 kB have room


@needs_namespaces
def test_commands_run_inside_and_end_with_the_links() -> None:
    with open_links([Link(), Link()]) as links:
        code = (
            "import socket; socket.socket().bind(('10.0.0.2', 80)); socket.socket().bind(('127.0.0.1', 80)); print(1)"
        )
        done = subprocess.run(links.peers[1].command(sys.executable, "-c", code), capture_output=True, text=True)
        assert done.stdout == "1\n", done.stderr
        left = subprocess.Popen(links.peers[0].command("sleep", "100"))
        until(lambda: pids_in(links.peers[0]), lambda pids: str(left.pid) in pids, "the command to run inside")
        assert len(namespaces_of(os.getpid())) == 2
    assert left.wait(HANG_S) == -signal.SIGKILL
    assert not namespaces_of(os.getpid())


def pids_in(peer: Peer) -> list[str]:
    return subprocess.run(["ip", "netns", "pids", peer.namespace], capture_output=True, text=True).stdout.split()


@needs_namespaces
def test_what_runs_at_a_peer_can_be_killed_without_the_network() -> None:
    with open_links([Link(), Link()]) as links:
        inside = [subprocess.Popen(peer.command("sleep", "100")) for peer in links.peers]
        until(lambda: [pids_in(peer) for peer in links.peers], all, "both to run")
        links.peers[1].kill_all()
        assert inside[1].wait(HANG_S) == -signal.SIGKILL and inside[0].poll() is None
        assert len(links.counts()) == 2 and is_running(links.relay_pid())
        inside[0].kill()
        inside[0].wait()


@needs_namespaces
def test_nothing_is_left_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), open_links([Link(), Link()]) as links:
        relay = links.relay_pid()
        raise ZeroDivisionError
    assert not namespaces_of(os.getpid()) and not is_running(relay)


@needs_namespaces
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_body_is_killed(by: signal.Signals) -> None:
    code = """if True:
        from peer.chaos.links import *
        with open_links([Link(), Link()]) as links:
            inside = subprocess.Popen(links.peers[0].command("sleep", "100"))
            print(links.relay_pid(), inside.pid, flush=True)
            inside.wait()
    """
    body = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert body.stdout is not None
    with body.stdout:
        relay, inside = map(int, body.stdout.readline().split())
        assert len(namespaces_of(body.pid)) == 2
        body.send_signal(by)
        body.wait(HANG_S)
    until(  # what removes the links of the dead sends no signal
        lambda: [*namespaces_of(body.pid), *(pid for pid in (relay, inside) if is_running(pid))],
        lambda left: not left,
        "the links of the dead to be removed",
    )


@needs_namespaces
def test_what_a_killed_owner_left_is_removed_by_the_next() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    stale = f"{PREFIX}-{gone.pid}-0-0"
    subprocess.run(["ip", "netns", "add", stale], check=True)
    with open_links([Link(), Link()]):
        assert stale not in [path.name for path in Path("/run/netns").iterdir()]


@needs_namespaces
def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.chaos.links._find", lambda tool: None)
    with pytest.raises(UsageError, match="please install gcc and libc6-dev and iproute2") as caught, open_links([]):
        pass
    assert "\n" not in str(caught.value)


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="need root"), open_links([Link(), Link()]):
        pass


@needs_namespaces
def test_a_link_changes_sides_part_and_an_address_moves() -> None:
    with open_links([Link(), Link()]) as links:
        one, two = links.peers
        assert measure_delay(one, two, 20, 0.002).median_ms < 20
        links.change(0, Link(delay_ms=40, jitter_ms=20))
        late = measure_delay(one, two, 100, 0.002)
        assert 40 <= late.median_ms < 75
        links.change(0, Link())
        assert answers(one, two)
        links.part([0, 1])
        assert not answers(one, two)
        links.part([0, 0])
        assert answers(one, two)
        links.move(1)
        assert links.peers[1].address != two.address
        assert not answers(one, two) and answers(one, links.peers[1])


def answers(one: Peer, two: Peer) -> bool:
    """Say whether a datagram of one reaches the other's address."""
    with socket_in(two, socket.SOCK_DGRAM) as there, socket_in(one, socket.SOCK_DGRAM) as here:
        there.bind(("", 0))
        there.settimeout(1.0)
        try:
            here.sendto(b"?", (two.address, there.getsockname()[1]))
            return there.recv(1) == b"?"
        except OSError:
            return False
