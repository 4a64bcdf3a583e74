"""A peer in this very process, with real daemons beside it in processes of their own."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from loop import in_loop

import shoal
from benchmarks.patience import patience, until_async
from peer.commands.processes import joiner, open_processes
from peer.http.local import holds, post_action
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

MICRO = str(Path(__file__).parent.parent / "swarm" / "micro.toml")
TEXTS = {"songs": [f"verse {number}: the tide comes in, the tide goes out again" for number in range(2000)]}

pytestmark = pytest.mark.swarm


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("songs") / "corpus"
    prepare_texts(TEXTS, out, Plan(vocab_size=512, context_length=64))
    return out


@pytest.fixture
def settings(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., shoal.Settings]:
    def make(**options: object) -> shoal.Settings:
        given = {"state_dir": tmp_path / "peer", "data": corpus, "host": "127.0.0.1", "threads": 1}
        with monkeypatch.context() as founding:
            founding.setenv("SHOAL_RUN__ROUNDS__TICK_SECONDS", "2")
            return shoal.load(MICRO, **{**given, **options})

    return make


async def event(peer: shoal.Peer, is_it: Callable[[shoal.Event], bool], what: str) -> shoal.Event:
    async with patience(what, seen=lambda: peer.status().model_dump_json()):
        async for one in peer.events():
            if is_it(one):
                return one
    raise AssertionError(f"the peer has left without {what}")


@in_loop
async def test_a_peer_in_the_callers_loop_from_its_first_to_its_last(
    settings: Callable[..., shoal.Settings], tmp_path: Path
) -> None:
    async with shoal.open_peer(settings()) as peer, open_processes() as others:
        hearing = asyncio.create_task(_all_of(peer))
        await event(peer, lambda one: one.kind == "state" and one.text == "training", "its first step")
        other = joiner(tmp_path, "other", peer.address)
        others.append(other)
        await other.start()
        sealed = await event(peer, lambda one: "sealed 2 of 2" in one.text, "a round with a daemon")
        assert (sealed.kind, sealed.block) == ("round", "model")
        assert {each.peer_id for each in peer.status().peers} == {peer.status().peer_id, other.peer_id}

        await peer.pause()
        assert peer.status().state == "paused"
        tokens = peer.status().peers[0].tokens
        await event(peer, lambda one: (one.kind, one.text) == ("state", "paused"), "the pause")
        await peer.resume()
        await until_async(
            lambda: asyncio.to_thread(lambda: peer.status().peers[0].tokens), lambda now: now > tokens, "more tokens"
        )

        with pytest.raises(shoal.StateError, match=r"a daemon .* uses"):
            async with shoal.open_peer(settings()):
                raise AssertionError("two peers have one state directory")
        await peer.leave()
        assert peer.has_left
    heard = await hearing
    assert [one.text for one in heard if one.kind == "state"][-1] == "leaving"
    assert not holds(tmp_path / "peer")
    assert (tmp_path / "peer" / "blocks" / "model.safetensors").exists()


@in_loop
async def test_an_error_in_the_block_leaves_the_run_and_comes_out_as_it_is(
    settings: Callable[..., shoal.Settings], tmp_path: Path
) -> None:
    class OwnError(Exception):
        pass

    with pytest.raises(OwnError):
        async with shoal.open_peer(settings()):
            raise OwnError
    assert not holds(tmp_path / "peer")
    assert (tmp_path / "peer" / "blocks" / "model.safetensors").exists()


def test_a_cancellation_leaves_the_run_first(settings: Callable[..., shoal.Settings], tmp_path: Path) -> None:
    async def main() -> None:
        entered = asyncio.Event()

        async def block() -> None:
            async with shoal.open_peer(settings()):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())  # a loop of the standard library does as well
    assert not holds(tmp_path / "peer")
    assert (tmp_path / "peer" / "blocks" / "model.safetensors").exists()


@in_loop
async def test_a_peer_that_fails_ends_the_block_with_the_reason(
    settings: Callable[..., shoal.Settings], tmp_path: Path
) -> None:
    with pytest.raises(shoal.NetworkError, match="p2pd"):
        async with shoal.open_peer(settings()):
            os.kill(int((tmp_path / "peer" / "identity.key.p2pd").read_text()), signal.SIGKILL)
            await asyncio.Event().wait()
    assert not holds(tmp_path / "peer")


@in_loop
async def test_mistakes_are_one_line_each(settings: Callable[..., shoal.Settings], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(shoal.NetworkError, match=f"port {port} is taken"):
            async with shoal.open_peer(settings(port=port)):
                raise AssertionError("the port is taken")
    with pytest.raises(shoal.ConfigError, match="nothing to found"):
        async with shoal.open_peer(state_dir=tmp_path / "new"):
            raise AssertionError("no preset was given")
    with pytest.raises(shoal.UsageError, match="either settings or options"):
        async with shoal.open_peer(settings(), port=1):
            raise AssertionError("both were given")
    with pytest.raises(shoal.ConfigError, match="no such key"):
        shoal.load(prot=4001)


def test_a_peer_beside_a_program_without_a_loop(settings: Callable[..., shoal.Settings], tmp_path: Path) -> None:
    with shoal.SyncPeer(settings()) as peer:
        assert peer.address.startswith("/ip4/127.0.0.1/tcp/")
        while not any(event.kind == "round" for event in peer.events(seconds=60)):
            pass
        peer.pause()
        assert peer.status().state == "paused"
        peer.resume()
        with pytest.raises(shoal.StateError, match=r"a daemon .* uses"):
            shoal.SyncPeer(settings())
    assert not holds(tmp_path / "peer")
    with pytest.raises(shoal.StateError, match="this peer has left"):
        peer.status()
    peer.leave()  # once more does nothing


def test_a_peer_that_is_told_to_leave_by_the_command(settings: Callable[..., shoal.Settings], tmp_path: Path) -> None:
    with shoal.SyncPeer(settings()) as peer:
        post_action(tmp_path / "peer", "leave")
        while peer.events(seconds=60):
            pass
        assert peer.status().state == "leaving"


async def _all_of(peer: shoal.Peer) -> list[shoal.Event]:
    return [one async for one in peer.events()]
