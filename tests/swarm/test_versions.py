"""A running swarm is updated peer by peer: this version of Shoal and copies that are later ones, side by side."""

import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mistake import MICRO, Daemon, mistake, mistake_of, running, shoal, until_status

from peer import __version__
from peer.http.status import Status

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("configs", "dht", "protocols", "peer")

pytestmark = [pytest.mark.swarm, pytest.mark.timeout(900)]


def later(folder: Path, version: str, protocol: int, oldest: int) -> dict[str, str]:
    """Make a later version of this project, which says more in its records and descriptions; return how to run it."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))

    def change(file: str, *changes: tuple[str, str]) -> None:
        text = (folder / file).read_text()
        for before, after in changes:
            assert text.count(before) == 1, (file, before)
            text = text.replace(before, after)
        (folder / file).write_text(text)

    change("peer/__init__.py", (f'"{__version__}"', f'"{version}"'))
    change(
        "configs/protocol.py",
        ("PROTOCOL_VERSION = 1 ", f"PROTOCOL_VERSION = {protocol} "),
        ("OLDEST_PROTOCOL = 1 ", f"OLDEST_PROTOCOL = {oldest} "),
    )
    change(
        "dht/records.py",
        (
            '    sub_model: Name = ""\n    keeps',
            '    novelty: dict[str, list[int]] = {}\n    sub_model: Name = ""\n    keeps',
        ),
        (
            "    payload = record.model_dump_json(exclude_defaults=True).encode()\n",
            "    if kind == 'member':\n        record = record.model_copy(update={'novelty': {'deep': [1]}})\n"
            "    payload = record.model_dump_json(exclude_defaults=True).encode()\n",
        ),
    )
    change(
        "protocols/describe.py",
        ("    knows_hints: bool = False", "    asks_more: bool = True\n    knows_hints: bool = False"),
        ("    now: WallSeconds\n", "    now: WallSeconds\n    novelty: str = 'new'\n"),
    )
    return of(folder)


def of(folder: Path) -> dict[str, str]:
    """Return the environment in which `python -m peer` is the project in `folder`."""
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


def exchanged(daemon: Daemon, rounds: dict[str, int], protocols: set[int], what: str) -> Status:
    """Wait until both peers have sealed more rounds than `rounds`, together; return the status then."""

    def is_so(status: Status) -> bool:
        return (
            len(status.peers) == 2
            and all(peer.rounds > rounds.get(peer.peer_id, 0) + 2 for peer in status.peers)
            and any(block.outcome == "sealed 2 of 2" for block in status.blocks)
            and {peer.protocol for peer in status.peers} == protocols
            and not any(peer.why for peer in status.peers)
            and bool(common_marks(status))
        )

    return until_status(daemon, is_so, what)


def common_marks(status: Status) -> dict[int, tuple[str, str]]:
    """Return the digests of both peers' states at the versions that both have told lately."""
    one, other = ({mark.version: mark.digest for mark in peer.digests["model"]} for peer in status.peers)
    return {version: (one[version], other[version]) for version in one.keys() & other.keys()}


def check_nothing_lost(before: Status, after: Status) -> dict[str, int]:
    """Check that the swarm has gone on from where it was, with one state; return each peer's rounds."""
    [was], [block] = before.blocks, after.blocks
    assert after.run_id == before.run_id
    assert block.agreement == 1.0 and block.version > was.version and block.age > was.age
    marks = common_marks(after)
    assert max(marks) > was.version and all(one == other for one, other in marks.values())
    tokens = {peer.peer_id: peer.tokens for peer in before.peers}
    assert all(peer.tokens >= tokens[peer.peer_id] for peer in after.peers)
    assert after.faults == {}
    return {peer.peer_id: peer.rounds for peer in after.peers}


@pytest.mark.long
def test_a_swarm_is_updated_peer_by_peer(corpus: Path, tmp_path: Path) -> None:
    present, following = of(ROOT), later(tmp_path / "next", "9.0", protocol=2, oldest=1)
    start = shoal("start", "--config", MICRO, "--data", str(corpus))
    one, two = tmp_path / "one", tmp_path / "two"
    again = [sys.executable, "-m", "peer", "start"]
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        founder = first.enter_context(running(start, one, **present))
        joiner = second.enter_context(running(shoal("join", founder.address), two, **present))
        status = exchanged(founder, {}, {1}, "the first rounds of two old peers")
        assert status.version == __version__
        rounds = {peer.peer_id: peer.rounds for peer in status.peers}

        second.close()
        joiner = second.enter_context(running(again, two, **following))
        mixed = exchanged(founder, rounds, {1, 2}, "rounds of an old and a new peer, as the old one sees them")
        rounds = check_nothing_lost(status, mixed)
        assert exchanged(joiner, {}, {1, 2}, "the same, as the new one sees them").version == "9.0"

        first.close()
        founder = first.enter_context(running(again, one, **following))
        check_nothing_lost(mixed, exchanged(founder, rounds, {2}, "rounds of two new peers"))

        refuses_who_is_too_new(founder, tmp_path)
        second.close()
        too_new = {**of(tmp_path / "last")}
        said = mistake_of([*again, "--state-dir", str(two)], **too_new)
        assert "speaks protocol 1 to 2, this peer speaks 3: update that one (pip install -U shoal)" in said
        with running(again, two, **following) as joiner:  # nothing has happened to its state
            assert joiner.run_id == founder.run_id


def refuses_who_is_too_new(member: Daemon, folder: Path) -> None:
    """A peer that speaks none of the swarm's protocols is told why, and what helps; so is the member that it asked."""
    too_new = later(folder / "last", "99.0", protocol=3, oldest=3)
    said = mistake_of([*shoal("join", member.address), "--state-dir", str(folder / "three")], **too_new)
    assert "speaks protocol 1 to 2, this peer speaks 3: update that one (pip install -U shoal)" in said

    def told() -> bool:
        return "which asks to join, speaks protocol 3, this peer speaks 1 to 2: update this one" in member.log

    assert told(), member.log[-2000:]


def test_who_is_too_old_for_a_run_is_told_to_update(corpus: Path, tmp_path: Path) -> None:
    following = later(tmp_path / "next", "9.0", protocol=2, oldest=1)
    start: Callable[..., list[str]] = shoal
    with running(start("start", "--config", MICRO, "--data", str(corpus)), tmp_path / "one", **following) as founder:
        said = mistake("join", founder.address, "--state-dir", str(tmp_path / "two"))
    assert "this peer speaks protocol 1, the run needs 2: pip install -U shoal" in said
