"""Blobs travel whole or not at all: from good and bad sources, over interruptions, into memory and files."""

import asyncio
import errno
import random
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hivemind.p2p import P2P, P2PContext, PeerID

from benchmarks.patience import HANG_S
from configs.content import CHUNK_BYTES, content_id_of
from configs.errors import NetworkError, StateError
from configs.files import disk_errors
from protocols.shards import ChunkRequest, ManifestRequest, Shards, _Download, download, download_bytes
from protocols.sinks import FileSink, MemorySink
from protocols.traffic import Traffic
from protocols.wire import Frame, Frames, frames_of

BLOB = random.Random(0).randbytes(40 * CHUNK_BYTES + 1234)
WANTED = content_id_of(BLOB)
LIMITS = {"deadline_s": HANG_S}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.shards.FRAME_S", HANG_S)


class Fault(Enum):
    WRONG_CHUNK = "sends other bytes"
    LONG_CHUNK = "sends a chunk that is too long"
    WRONG_MANIFEST = "tells of other chunks"
    HUGE_MANIFEST = "tells of a blob of 2^62 bytes"
    ENDLESS_MANIFEST = "never stops telling"
    ENDS_EARLY = "ends after three chunks"
    BREAKS_OFF = "closes after three chunks, without the end mark"
    FALLS_SILENT = "stops answering after three chunks"
    FAILS = "raises an error"
    HAS_NOTHING = "does not have the blob"


class BadShards:
    """Serves as `Shards` does, but for one fault."""

    def __init__(self, fault: Fault, honest: Shards) -> None:
        self.fault = fault
        self.honest = honest

    async def rpc_manifest(self, request: ManifestRequest, context: P2PContext) -> Frames:
        if self.fault is Fault.HAS_NOTHING:
            async for frame in frames_of(b""):
                yield frame
        if self.fault is Fault.FAILS:
            raise RuntimeError("a bug\nover two lines")
        if self.fault is Fault.HUGE_MANIFEST:
            yield Frame((1 << 62).to_bytes(8, "big"))
        elif self.fault is Fault.WRONG_MANIFEST:
            yield Frame(len(BLOB).to_bytes(8, "big") + bytes(32 * 41))
        elif self.fault is Fault.ENDLESS_MANIFEST:
            while True:
                yield Frame(bytes(1000))
        else:
            async for frame in self.honest.rpc_manifest(request, context):
                yield frame

    async def rpc_chunks(self, request: ChunkRequest, context: P2PContext) -> Frames:
        sent = 0
        async for frame in self.honest.rpc_chunks(request, context):
            if sent == 3 and self.fault is Fault.BREAKS_OFF:
                return
            if sent == 3 and self.fault is Fault.ENDS_EARLY:
                yield Frame(b"")
            if sent == 3 and self.fault is Fault.FALLS_SILENT:
                await asyncio.Event().wait()
            if self.fault is Fault.WRONG_CHUNK:
                frame = Frame(bytes(len(frame.data)))
            if self.fault is Fault.LONG_CHUNK and sent == 0:
                frame = Frame(bytes(frame.data) + b"x")
            yield frame
            sent += 1


def lookup(content_id: str) -> memoryview | None:
    return memoryview(BLOB) if content_id == WANTED else None


async def serve(p2p: P2P, fault: Fault | None = None) -> Traffic:
    traffic = Traffic()
    honest = Shards(lookup, traffic)
    await honest.add_p2p_handlers(p2p, wrapper=BadShards(fault, honest) if fault else None)
    return traffic


def stubs(p2p: P2P) -> Callable[[str], Any]:
    return lambda peer: Shards.get_stub(p2p, PeerID.from_base58(peer))


def name(p2p: P2P) -> str:
    return str(p2p.peer_id.to_base58())


def test_two_sources_share_the_work(open_peers: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_peers(3) as (one, two, client):
            served = [await serve(one), await serve(two)]
            counter = Traffic()
            peers = [name(one), name(two), name(one)]
            target = tmp_path / "blobs" / WANTED
            await download(stubs(client), peers, WANTED, len(BLOB), target, on_bytes=counter.receiver("text"), **LIMITS)
            assert target.read_bytes() == BLOB
            assert [path.name for path in target.parent.iterdir()] == [WANTED]
            assert all(traffic.bytes_out >= CHUNK_BYTES for traffic in served)
            assert counter.bytes_in >= len(BLOB)
            data = await download_bytes(stubs(client), peers, WANTED, 2 * len(BLOB), **LIMITS)
            assert data == BLOB

    uvloop.run(main())


@pytest.mark.parametrize("fault", Fault)
def test_a_bad_source_costs_only_itself(open_peers: Any, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with open_peers(3) as (good, bad, client):
            await serve(good)
            await serve(bad, fault)
            data = await download_bytes(stubs(client), [name(bad), name(good)], WANTED, len(BLOB), **LIMITS)
            assert data == BLOB
            monkeypatch.setattr("protocols.shards.FRAME_S", 0.5)
            with pytest.raises(NetworkError) as error:  # one line that names the peer and its fault
                await download_bytes(stubs(client), [name(bad)], WANTED, len(BLOB), deadline_s=10.0)
            assert name(bad) in str(error.value) and "\n" not in str(error.value)

    uvloop.run(main())


def test_an_interrupted_download_goes_on_where_it_was(open_peers: Any, tmp_path: Path) -> None:
    target = tmp_path / "blob"

    async def main() -> None:
        async with open_peers(2) as (server, client):
            traffic = await serve(server)
            arrived = 0

            async def interrupt(count: int) -> None:
                nonlocal arrived
                arrived += count
                if arrived > len(BLOB) // 2:
                    task.cancel()

            call = download(stubs(client), [name(server)], WANTED, len(BLOB), target, on_bytes=interrupt, **LIMITS)
            task = asyncio.create_task(call)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not target.exists()
            counter, sent = Traffic(), traffic.bytes_out
            await download(
                stubs(client), [name(server)], WANTED, len(BLOB), target, on_bytes=counter.receiver("text"), **LIMITS
            )
            assert target.read_bytes() == BLOB
            assert counter.bytes_in <= len(BLOB) // 2 + 4 * CHUNK_BYTES  # those on their way
            assert traffic.bytes_out >= sent

    uvloop.run(main())


def test_a_damaged_partial_file_is_mended(open_peers: Any, tmp_path: Path) -> None:
    partial = bytearray(BLOB + b"longer than the blob")
    partial[5 * CHUNK_BYTES] ^= 1
    (tmp_path / "blob.partial").write_bytes(partial)

    async def main() -> None:
        async with open_peers(2) as (server, client):
            await serve(server)
            counter = Traffic()
            await download(
                stubs(client),
                [name(server)],
                WANTED,
                len(BLOB),
                tmp_path / "blob",
                on_bytes=counter.receiver("text"),
                **LIMITS,
            )
            assert (tmp_path / "blob").read_bytes() == BLOB
            assert counter.bytes_in == CHUNK_BYTES

    uvloop.run(main())


def test_a_source_that_dies_is_replaced(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(3) as (one, two, client):
            await serve(one)
            await serve(two)
            deaths: list[asyncio.Task[None]] = []

            async def kill(count: int) -> None:
                if not deaths:
                    deaths.append(asyncio.create_task(two.shutdown()))

            data = await download_bytes(
                stubs(client), [name(two), name(one)], WANTED, len(BLOB), on_bytes=kill, **LIMITS
            )
            assert data == BLOB
            await asyncio.gather(*deaths)

    uvloop.run(main())


def test_a_blob_beyond_the_limit_is_refused(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            await serve(server)
            with pytest.raises(NetworkError, match="are allowed"):
                await download_bytes(stubs(client), [name(server)], WANTED, CHUNK_BYTES, **LIMITS)

    uvloop.run(main())


def test_files_are_served_unless_they_are_damaged(open_peers: Any, tmp_path: Path) -> None:
    blobs = {"whole": BLOB[: 3 * CHUNK_BYTES], "empty": b"", "damaged": b"was something else"}
    ids = {content_id_of(data): tmp_path / key for key, data in blobs.items()}
    for key, data in blobs.items():
        (tmp_path / key).write_bytes(data if key != "damaged" else b"is damaged")

    async def main() -> None:
        async with open_peers(2) as (server, client):
            await Shards(ids.get, Traffic()).add_p2p_handlers(server)
            for key in ("whole", "empty"):
                data = await download_bytes(stubs(client), [name(server)], content_id_of(blobs[key]), 1 << 20, **LIMITS)
                assert data == blobs[key]
            with pytest.raises(NetworkError, match="does not have it"):
                await download_bytes(stubs(client), [name(server)], content_id_of(blobs["damaged"]), 1 << 20, **LIMITS)

    uvloop.run(main())


def test_without_sources_the_error_says_so(tmp_path: Path) -> None:
    def stub(peer: str) -> Any:
        raise AssertionError("nobody is there to be asked")

    with pytest.raises(NetworkError, match="no peer is known"):
        asyncio.run(download(stub, [], WANTED, 1, tmp_path / "blob", deadline_s=1.0))


class Unscanned(set[int]):
    """Chunks of which one may ask whether they are in it, but which nobody goes through while there are many."""

    def __iter__(self) -> Iterator[int]:
        assert len(self) <= 100
        return super().__iter__()


def test_a_claim_does_not_go_through_all_chunks() -> None:
    """Of a blob of 27 GB there are 100,000, and 6,000 claims."""
    job = _Download(stubs, WANTED, 1, MemorySink(), None)  # type: ignore[arg-type]
    job.num_chunks, job.missing = 100_000, Unscanned(index for index in range(100_000) if index != 5)
    assert [job._claim(peer) for peer in "aba"] == [range(5), range(6, 22), range(22, 38)]
    job.missing.difference_update(range(5), range(6, 10))
    job._release("b", range(6, 22))  # it failed on the way
    assert [job._claim("a"), job._claim("b")] == [range(10, 22), range(38, 54)]
    while len(job.missing) > 60:
        run = job._claim("c")
        assert run is not None
        job.missing.difference_update(run)
        job._release("c", run)
    assert len(job._fetchers) <= 100


def test_near_the_end_the_chunks_of_slower_sources_are_claimed_too() -> None:
    job = _Download(stubs, WANTED, 1, MemorySink(), None)  # type: ignore[arg-type]
    job.num_chunks, job.missing = 3, {0, 1, 2}
    assert job._claim("a") == range(3)
    assert [job._claim("b") for _ in range(4)] == [range(2, 3), range(1, 2), range(1), None]
    assert job._claim("c") == range(2, 3)


def test_a_mistake_of_ours_is_logged_once_and_costs_one_source(caplog: pytest.LogCaptureFixture) -> None:
    def stub(peer: str) -> Any:
        raise TypeError("a mistake of ours")

    with pytest.raises(NetworkError, match="ann: it could not be asked"):
        asyncio.run(download_bytes(stub, ["ann"], WANTED, 1, deadline_s=HANG_S))
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_a_full_disk_is_a_state_error(tmp_path: Path) -> None:
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    with full, pytest.raises(StateError, match="free some space"), disk_errors(tmp_path):
        full.write(b"x")


def test_a_place_that_cannot_be_written_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match="check its folder"), FileSink(tmp_path / "file" / "blob"):
        pass


def test_the_disk_ends_a_download_at_once(open_peers: Any) -> None:
    """A full disk in mid-download, told by the sink, is not blamed on the sources."""

    async def main() -> None:
        async with open_peers(2) as (server, client):
            await serve(server)

            async def fail(count: int) -> None:
                with disk_errors(Path("blob")):
                    raise OSError(errno.ENOSPC, "No space left on device")

            with pytest.raises(StateError, match="free some space"):
                await download_bytes(stubs(client), [name(server)], WANTED, len(BLOB), on_bytes=fail, **LIMITS)

    uvloop.run(main())
