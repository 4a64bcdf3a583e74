import asyncio
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hivemind.dht.routing import DHTID
from hivemind.p2p import P2PContext, ServicerBase
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer

import dht.network
from benchmarks.patience import HANG_S, patience
from configs.clock import clock_skew
from configs.errors import NetworkError, StateError, UsageError
from dht.identity import Identity
from dht.network import Network, open_network
from dht.records import MemberRecord, member_key, sign_record

TICK_S = 30.0

MESSAGE = dht_pb2.PingRequest


def run(main: Coroutine[Any, Any, None]) -> None:
    uvloop.run(main)


@asynccontextmanager
async def swarm(paths: list[Path], run_id: str) -> AsyncIterator[list[Network]]:
    """Networks on loopback, each joined to the run's DHT by the first one alone."""
    async with AsyncExitStack() as stack:
        networks = [await stack.enter_async_context(open_network(path, host="127.0.0.1")) for path in paths]
        first = await networks[0].addresses()
        await networks[0].open_dht([], run_id, TICK_S)
        for network in networks[1:]:
            await network.open_dht(await network.connect(first), run_id, TICK_S)
        yield networks


def p2pds(folder: Path) -> list[str]:
    """The command lines of running p2pd processes whose identity lies in `folder`."""
    lines = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if "p2pd" in line and f"-id={folder}" in line]


class Echo(ServicerBase):
    async def rpc_echo(self, request: MESSAGE, context: P2PContext) -> MESSAGE:
        return request


class Slow(ServicerBase):
    async def rpc_slow(self, request: MESSAGE, context: P2PContext) -> MESSAGE:
        await asyncio.sleep(0.1)
        return request


def test_an_answer_in_the_instant_of_its_time_out_leaves_the_peer_hearing(identity_paths: list[Path]) -> None:
    """Both are there when a busy event loop turns again: the answer, and the time after which nobody waits for it."""

    async def main() -> None:
        async with open_network(identity_paths[0], host="127.0.0.1") as network:
            slow = await asyncio.create_subprocess_exec(
                sys.executable, __file__, str(identity_paths[1]), stdout=asyncio.subprocess.PIPE
            )
            assert slow.stdout is not None
            try:
                (peer,) = await network.connect([(await slow.stdout.readline()).decode().strip()])
                stub = network.stub(Slow, peer)
                await stub.rpc_slow(MESSAGE())
                broken = asyncio.ensure_future(network.broken())
                for _ in range(3):
                    asyncio.get_running_loop().call_later(0.05, time.sleep, 0.3)
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await stub.rpc_slow(MESSAGE())
                assert (await stub.rpc_slow(MESSAGE(validate=True), timeout=HANG_S)).validate
                assert not broken.done()
                network.p2p._client.control._read_task.cancel()
                with pytest.raises(
                    NetworkError, match=r"connection with libp2p's process p2pd broke off; start the peer"
                ):
                    await broken
            finally:
                slow.terminate()
                await slow.wait()

    run(main())


async def serve_slow(identity_path: Path) -> None:
    async with open_network(identity_path, host="127.0.0.1") as network:
        await network.serve(Slow())
        print((await network.addresses())[0], flush=True)
        await asyncio.sleep(HANG_S)


def test_a_third_peer_is_called_by_its_id_alone(identity_paths: list[Path], run_id: str) -> None:
    async def main() -> None:
        async with swarm(identity_paths, run_id) as (_, second, third):
            await third.serve(Echo(), namespace="test")
            answer = await second.stub(Echo, third.peer_id, "test").rpc_echo(MESSAGE(validate=True), timeout=HANG_S)
            assert answer.validate

    run(main())


def test_the_dht_s_bytes_are_counted_on_both_sides(identity_paths: list[Path], run_id: str) -> None:
    async def main() -> None:
        async with swarm(identity_paths, run_id) as networks:
            one = networks[0]
            before, now = [network.gate.dht_bytes for network in networks], time.time()
            data = sign_record(one.identity, "member", MemberRecord(run_id=run_id), now)
            assert await one.store(member_key(run_id), one.peer_id, data, now + 60)
            came, went = (
                sum(n.gate.dht_bytes[way] - old[way] for n, old in zip(networks, before, strict=True)) for way in (0, 1)
            )
            assert went >= len(data) and came >= len(data)

    run(main())


def test_a_peer_that_is_remembered_joins_two_swarms(identity_paths: list[Path], run_id: str) -> None:
    """Two peers that founded the same run apart see one DHT after one has heard the other's addresses."""
    record = MemberRecord(run_id=run_id)

    async def main() -> None:
        async with (
            open_network(identity_paths[0], host="127.0.0.1") as one,
            open_network(identity_paths[1], host="127.0.0.1") as two,
        ):
            await one.open_dht([], run_id, TICK_S)
            await two.open_dht([], run_id, TICK_S)
            now = time.time()
            assert await one.store(record.key, one.peer_id, sign_record(one.identity, "member", record, now), now + 60)
            assert await two.store(record.key, two.peer_id, sign_record(two.identity, "member", record, now), now + 60)
            assert set(await one.fetch(record.key)) == {one.peer_id}
            await one.remember(two.peer_id, ["/ip4/nonsense", *await one.addresses(), *await two.addresses()])
            before = asyncio.all_tasks()
            await one.remember(two.peer_id, await two.addresses())
            assert asyncio.all_tasks() == before  # it is on its way already
            await asyncio.gather(*(task for task in before if task.get_name() == f"acquaint {two.peer_id}"))
            assert await one.connected() == {two.peer_id}
            assert set(await one.fetch(record.key)) == {one.peer_id, two.peer_id}

    run(main())


def test_start_is_quick_and_leaves_nothing_behind(identity_paths: list[Path], run_id: str) -> None:
    async def main() -> None:
        started = time.perf_counter()
        async with open_network(identity_paths[0], host="127.0.0.1") as network:
            await network.open_dht([], run_id, TICK_S)
            start_s = time.perf_counter() - started
            assert p2pds(identity_paths[0].parent)
            closing = time.perf_counter()
        close_s = time.perf_counter() - closing
        print(
            f"hivemind imported in {import_s:.2f} s; P2P and DHT started in {start_s:.2f} s, closed in {close_s:.2f} s"
        )
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert start_s < import_s

    began = time.perf_counter()  # the yardstick: another Python that finds what this one has imported
    subprocess.run([sys.executable, "-c", "import hivemind"], check=True)
    import_s = time.perf_counter() - began
    run(main())
    assert not p2pds(identity_paths[0].parent)
    assert [path.name for path in identity_paths[0].parent.iterdir()] == ["identity.key"]


def test_a_cancelled_start_leaves_nothing_behind(identity_paths: list[Path]) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), open_network(identity_paths[0], host="127.0.0.1"):
                raise AssertionError("too quick")

    run(main())
    assert not p2pds(identity_paths[0].parent)


def test_a_signal_for_the_group_does_not_reach_p2pd(identity_paths: list[Path]) -> None:
    async def main() -> None:
        async with open_network(identity_paths[0], host="127.0.0.1") as network:
            pid = network.p2p._child.pid
            assert os.getpgid(pid) != os.getpgid(0) and os.getsid(pid) != os.getsid(0)

    uvloop.run(main())


def test_a_p2pd_that_was_left_behind_is_ended_by_the_next_start(identity_paths: list[Path]) -> None:
    """When a daemon is killed its p2pd may live on for some seconds, with the port and the name of the next one."""

    async def main() -> None:
        async with open_network(identity_paths[0], host="127.0.0.1") as left_behind:
            port = int((await left_behind.addresses())[0].split("/")[4])
            async with open_network(identity_paths[0], host="127.0.0.1", port=port) as network:
                assert f"/tcp/{port}/" in (await network.addresses())[0]
                assert len(p2pds(identity_paths[0].parent)) == 1
                with pytest.raises(NetworkError, match=r"p2pd ended \(exit code -9\)"):
                    await left_behind.broken()
                assert await left_behind.connected() == set()
                with pytest.raises(NetworkError, match=r"p2pd has ended|No such file|refused"):
                    await left_behind.connect(await network.addresses())

    run(main())
    assert not p2pds(identity_paths[0].parent)


def test_errors_of_the_first_minute_name_the_remedy(identity_paths: list[Path], identities: list[Identity]) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(NetworkError, match=f"port {port} is taken"):
                async with open_network(identity_paths[0], host="127.0.0.1", port=port):
                    pass
        with pytest.raises(NetworkError, match=r"cannot listen on 203\.0\.113\.1"):
            async with open_network(identity_paths[0], host="203.0.113.1"):
                pass
        with pytest.raises(UsageError, match="is no IP address"):
            async with open_network(identity_paths[0], host="localhost"):
                pass
        async with (
            open_network(identity_paths[0], host="127.0.0.1") as one,
            open_network(identity_paths[1], host="127.0.0.1") as two,
        ):
            own, theirs = (await one.addresses())[0], (await two.addresses())[0]
            absent = identities[2].peer_id
            wrong_id = theirs.replace(two.peer_id, absent)
            closed = f"/ip4/127.0.0.1/tcp/1/p2p/{two.peer_id}"
            unnamed = f"/dns4/no-such-host.invalid/tcp/1/p2p/{identities[1].peer_id}"
            with pytest.raises(NetworkError) as error:
                await one.connect([wrong_id, closed, own])
            assert f"{wrong_id}: another peer ({two.peer_id}) answers there" in str(error.value)
            assert f"{closed}: connection refused" in str(error.value)
            assert f"{own}: this is the address of this very peer" in str(error.value)
            with pytest.raises(NetworkError, match="its name cannot be resolved"):
                await two.connect([unnamed.replace(two.peer_id, absent)])
            with pytest.raises(UsageError, match="begins with /ip/"):
                await one.connect([theirs.replace("/ip4/", "/ip/")])
            assert await one.connect([wrong_id, theirs]) == [two.peer_id]

    run(main())


def test_the_end_of_p2pd_is_one_error_whatever_the_disk_refuses_then(
    identity_paths: list[Path], run_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is said of calls that were under way, and of files that cannot be removed any more; no socket is left."""
    sockets: list[Path] = []

    async def main() -> None:
        key = Path(shutil.copy(identity_paths[0], tmp_path / "identity.key"))
        async with open_network(key, host="127.0.0.1") as network:
            await network.open_dht([], run_id, TICK_S)
            sockets.extend(network.temporary)
            pid_file = key.with_name("identity.key.p2pd")
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
            pid_file.unlink()
            pid_file.mkdir()
            for _ in range(20):  # to the one that is gone, until its end is noticed
                await network.addresses()
            await network.broken()

    with pytest.raises(NetworkError, match=r"p2pd (ended|broke off)|process p2pd"):
        run(main())
    gc.collect()
    assert not caplog.records
    assert len(sockets) == 2 and not any(path.exists() for path in sockets)


def test_a_connection_over_which_nobody_answers_is_closed_and_dialled_anew(
    identity_paths: list[Path], run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose other end has another address by now, in which libp2p believes until it times out."""
    monkeypatch.setattr(dht.network, "RPC_S", 0.5)
    monkeypatch.setattr(dht.network, "REDIAL_S", 0.5)

    async def acquainted(network: Network, peer_id: str, addresses: list[str]) -> None:
        network._dialling.clear()
        await network.remember(peer_id, addresses)
        await asyncio.gather(*(task for task in network._tasks if "acquaint" in task.get_name()))

    async def main() -> None:
        async with swarm(identity_paths[:2], run_id) as (one, two):
            addresses, p2pd = await two.addresses(), two.p2p._child.pid
            await acquainted(one, two.peer_id, addresses)
            assert await one.connected() == {two.peer_id}
            os.kill(p2pd, signal.SIGSTOP)
            try:
                await acquainted(one, two.peer_id, addresses)
                assert await one.connected() == set()
            finally:
                os.kill(p2pd, signal.SIGCONT)
            async with patience("the two to be connected again"):
                while two.peer_id not in one.neighbours() or await one.connected() != {two.peer_id}:
                    await acquainted(one, two.peer_id, addresses)

    run(main())


def test_a_disk_that_takes_no_process_id_is_one_error(identity_paths: list[Path], tmp_path: Path) -> None:
    key = Path(shutil.copy(identity_paths[0], tmp_path / "identity.key"))
    key.with_name("identity.key.p2pd").mkdir()

    async def main() -> None:
        async with open_network(key, host="127.0.0.1"):
            pass

    with pytest.raises(StateError, match=r"cannot write .*identity\.key\.p2pd"):
        run(main())
    assert not p2pds(tmp_path)


def test_who_has_only_begun_is_not_hung_up_on(identity_paths: list[Path], run_id: str) -> None:
    """Its libp2p is there before it is a node of the DHT, and it asks which run this is meanwhile."""

    async def main() -> None:
        async with (
            open_network(identity_paths[0], host="127.0.0.1") as one,
            open_network(identity_paths[1], host="127.0.0.1") as two,
        ):
            await one.open_dht([], run_id, TICK_S)
            await one.serve(Slow())
            await two.connect(await one.addresses())
            asking = asyncio.ensure_future(two.stub(Slow, one.peer_id).rpc_slow(MESSAGE()))
            await one.remember(two.peer_id, await two.addresses())
            await asyncio.gather(*(task for task in one._tasks if "acquaint" in task.get_name()))
            await asking
            assert await one.connected() == {two.peer_id}

    run(main())


def test_announced_addresses_are_what_others_are_told(identity_paths: list[Path]) -> None:
    async def main() -> None:
        told = ("/dns4/box.example/tcp/4000", "/ip4/192.168.1.5/tcp/4000")
        async with open_network(identity_paths[0], host="127.0.0.1", announce=told) as network:
            assert await network.addresses() == [f"{address}/p2p/{network.peer_id}" for address in told]

    run(main())


class DHTProtocol(ServicerBase):
    """A stranger in the place of hivemind's class of this name: by another clock, or unable to dial back."""

    def __init__(self, ahead_s: float, is_available: bool) -> None:
        self._ahead_s, self._is_available = ahead_s, is_available

    async def rpc_ping(self, request: dht_pb2.PingRequest, context: P2PContext) -> dht_pb2.PingResponse:
        return dht_pb2.PingResponse(
            peer=dht_pb2.NodeInfo(node_id=DHTID.generate(source="stranger").to_bytes()),
            dht_time=time.time() + self._ahead_s,
            available=self._is_available,
        )


@pytest.mark.parametrize(
    ("stranger", "says"),
    [
        (DHTProtocol(7.0, True), r"clock of peer \w+ is [5-7]\.\d s ahead of this machine's; set the wrong one by NTP"),
        (DHTProtocol(-7.0, True), r"clock of peer \w+ is [5-7]\.\d s behind"),
        (DHTProtocol(0.0, False), "cannot dial back to this one; open the port"),
        (None, "does not answer as a DHT node"),
    ],
)
def test_a_peer_that_will_not_do_is_said_with_the_reason(
    identity_paths: list[Path], run_id: str, stranger: DHTProtocol | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dht.network, "PATIENCE_S", (0.0,))

    async def main() -> None:
        async with (
            open_network(identity_paths[0], host="127.0.0.1") as one,
            open_network(identity_paths[1], host="127.0.0.1") as two,
        ):
            if stranger is not None:
                await two.serve(stranger)
            with pytest.raises(NetworkError, match=says):
                await one.open_dht(await one.connect(await two.addresses()), run_id, TICK_S)

    run(main())


def test_clock_skew_allows_for_the_time_of_the_question() -> None:
    assert clock_skew(10.0, 12.0, 11.0) == 0.0
    assert clock_skew(10.0, 12.0, 15.0) == 3.0
    assert clock_skew(10.0, 12.0, 6.0) == -4.0


def test_dht_traps(identity_paths: list[Path], identities: list[Identity], run_id: str) -> None:
    key = member_key(run_id)
    key_id = DHTID.generate(source=key)
    record = MemberRecord(run_id=run_id, sub_model="model")

    async def main() -> None:
        async with swarm(identity_paths, run_id) as (first, second, third):
            now = time.time()
            values = [sign_record(identity, "member", record, now) for identity in identities]

            # A regular value with a far expiration would block every honest subkey: it is refused.
            blocker = MSGPackSerializer.dumps(b"blocker")
            assert await third.node.protocol.call_store(first.p2p.peer_id, [key_id], [blocker], [now + 1e6]) == [False]
            assert await first.store(key, first.peer_id, values[0], now + 60)
            assert await third.fetch(key) == {first.peer_id: values[0]}

            # A node that has an older dictionary answers from it, unless it is asked for the latest.
            dumped = MSGPackSerializer.dumps(values[1])
            first.node.protocol.storage.store_subkey(key_id, second.peer_id, dumped, now + 70)
            assert set((await third.node.get(key)).value) == {first.peer_id}
            assert set(await third.fetch(key)) == {first.peer_id, second.peer_id}

            # One bad entry makes a reader drop that node's dictionary, not those of the others.
            second.node.protocol.storage.store_subkey(key_id, "stranger", b"junk", now + 80)
            assert set(await third.fetch(key)) == {first.peer_id, second.peer_id}

            # A record is not replaced by one that expires earlier; a withdrawal expires later.
            leaving = sign_record(identities[0], "member", MemberRecord(run_id=run_id, is_leaving=True), now + 1)
            assert not await first.store(key, first.peer_id, leaving, now + 59)
            assert (await third.fetch(key))[first.peer_id] == values[0]
            assert await first.store(key, first.peer_id, leaving, now + 61)
            assert (await third.fetch(key))[first.peer_id] == leaving

            # Far expirations and other peers' subkeys are refused by the writer's own node, too.
            assert not await third.store(key, third.peer_id, values[2], now + 2 * MemberRecord.lifetime_s(TICK_S))
            assert not await third.store(key, first.peer_id, values[2], now + 90)

    run(main())


if __name__ == "__main__":
    asyncio.run(serve_slow(Path(sys.argv[1])))


def test_both_families_are_listened_on_at_one_port(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_network(tmp_path / "identity.key", host="::") as network:
            places = {tuple(address.split("/")[1:5:3]) for address in await network.addresses()}
        families = {family for family, _ in places}
        assert "ip4" in families and len({port for _, port in places}) == 1
        assert "ip6" in families or not Path("/proc/net/if_inet6").read_text().strip()

    run(main())
