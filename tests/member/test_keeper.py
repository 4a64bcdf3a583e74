"""Who stores which blocks for others, and hands them over."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import NetworkError, PeerError
from configs.run import RunSpec
from dht.leases import keepers
from peer.member.keeper import Keeper, rules_of

MEMBERS = ("a", "b", "c", "me")


@pytest.fixture
def rooms(smallest_run: Callable[..., RunSpec]) -> Any:
    kept: list[str] = []

    async def newest(block: str, sources: list[str]) -> Any:
        if block == "unreachable":
            raise NetworkError("nobody answers")
        return SimpleNamespace(block=block), sources

    async def keep_from(state: Any, sources: list[str]) -> None:
        kept.append(state.block)

    ages = {"held": 1, "unreachable": 1, "wanted": 1}
    views = {"held": ("a", "me"), "unreachable": ("a",), "wanted": ("a",)}
    return SimpleNamespace(
        kept=kept,
        facts=SimpleNamespace(me="me", config=SimpleNamespace(copies=4, keep_ticks=8)),
        membership=SimpleNamespace(
            holders=lambda block, tick: views[block],
            known_members=lambda tick: MEMBERS,
            stores=lambda peer, block: True,
        ),
        store=SimpleNamespace(newest=newest, keep_from=keep_from),
        outlook=SimpleNamespace(ages=lambda: ages),
    )


def keeper_of(rooms: Any, stub: Any = None) -> Keeper:
    return Keeper(rooms.facts, rooms.membership, rooms.store, rooms.outlook, stub)


def test_a_block_that_cannot_be_had_keeps_no_other_from_being_kept(rooms: Any) -> None:
    keeper = keeper_of(rooms)
    assert not keeper.is_due(7) and keeper.is_due(8)
    asyncio.run(keeper.keep(8))
    assert rooms.kept == ["wanted"], "what is trained here is kept already"
    assert not keeper.is_due(15) and keeper.is_due(16)


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_a_peer_keeps_only_what_lacks_copies(rooms: Any, copies: int) -> None:
    rooms.facts.config.copies = copies
    is_mine = "me" in keepers("wanted", ("a",), MEMBERS, copies)
    assert keeper_of(rooms).is_kept_here("wanted", 8) == is_mine
    assert copies > 1 or not is_mine


def test_one_keeper_that_fails_keeps_no_other_from_taking_over(
    rooms: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    async def ask_keep(stub: str, state: Any) -> None:
        asked.append(stub)
        if stub == "b":
            raise NetworkError("gone")

    monkeypatch.setattr("peer.member.keeper.ask_keep", ask_keep)
    rooms.store.block_states = lambda: [SimpleNamespace(block="wanted", version=3)]
    asyncio.run(keeper_of(rooms, lambda peer: peer).hand_over(8))
    assert sorted(asked) == ["b", "c"], "a holds it"
    assert "could not hand wanted over to b: gone" in caplog.text


def test_only_who_holds_a_block_may_ask_a_keeper_of_it(rooms: Any) -> None:
    rooms.facts.clock = SimpleNamespace(tick=lambda: 8)
    keeps = {"c": ("wanted",)}
    rooms.membership.stores = lambda peer, block: block in keeps.get(peer, ())
    rules = rules_of(rooms.facts, rooms.membership)
    for peer in ("a", "c"):  # it holds the block; it keeps it, and leaves
        rules.check("wanted", peer)
    with pytest.raises(PeerError, match="b neither holds nor keeps wanted"):
        rules.check("wanted", "b")
    rooms.facts.config.copies = 1
    with pytest.raises(PeerError, match="none of the keepers"):
        rules.check("held", "a")  # the other holder, me, is copy enough
