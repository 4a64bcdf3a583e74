import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from benchmarks.patience import until_async
from configs.clock import Clock
from configs.names import MAX_COUNT
from dht.address_book import AddressBook
from dht.credible import ALL_LISTED, MAX_HOLDERS
from dht.identity import Identity
from dht.membership import (
    ACT_TICKS,
    HOLD_TICKS,
    Member,
    Membership,
    Span,
    absorb,
    credible,
    hold,
    present,
    strides_of,
    view_of,
)
from dht.network import Network, open_network
from dht.records import MemberRecord, sign_record

TICK_S = 1.0

RUN = "0" * 32


def says(tick: int, previous: Member | None = None, leaving: bool = False, **holdings: Span) -> Member:
    record = MemberRecord(run_id=RUN, holdings=holdings, is_leaving=leaving)
    return absorb(previous, record, float(tick), tick)


def ticks(member: Member, block: str = "model") -> list[int]:
    return [tick for tick in range(200) if view_of({"a": member}, block, tick)]


def test_a_record_acts_two_ticks_after_it_was_written() -> None:
    assert ticks(says(10, model=(12, 18))) == list(range(12, 18))
    assert ticks(says(10, model=(3, 18))) == list(range(12, 18))  # it cannot claim to have been there before


def test_a_renewed_holding_has_no_gap_and_a_newcomer_agrees_when_it_may_act() -> None:
    first = says(10, model=(12, 18))
    renewed = says(14, first, model=(12, 22))
    assert ticks(renewed) == list(range(12, 22))
    newcomer = says(14, None, model=(12, 22))
    assert ticks(newcomer) == list(range(14 + ACT_TICKS, 22))


def test_whoever_missed_a_renewal_agrees_again_after_the_next() -> None:
    first = says(10, model=(12, 18))
    missed = says(16, first, model=(12, 24))
    seen = says(16, says(13, first, model=(12, 21)), model=(12, 24))
    assert ticks(missed) == ticks(seen)


def test_leaving_and_dropping_act_two_ticks_later_as_well() -> None:
    first = says(10, model=(12, 18))
    assert ticks(says(13, first, leaving=True)) == [12, 13, 14]
    assert ticks(says(13, first, model=(12, 14))) == [12, 13, 14]
    parted = says(13, first, trunk=(15, 21))
    assert ticks(parted) == [12, 13, 14]
    assert ticks(parted, "trunk") == list(range(15, 21))


def test_nothing_is_held_for_long_without_renewal() -> None:
    assert ticks(says(10, model=(12, 2**40))) == list(range(12, 10 + HOLD_TICKS))


def strides(member: Member, ticks: range) -> list[int]:
    return [strides_of({"a": member}, "model", tick)["a"] for tick in ticks]


def takes(tick: int, previous: Member | None, stride: Span) -> Member:
    record = MemberRecord(run_id=RUN, holdings={"model": (0, tick + HOLD_TICKS)}, strides={"model": stride})
    return absorb(previous, record, float(tick), tick)


def test_a_stride_acts_two_ticks_after_it_was_written_and_stays() -> None:
    first = says(10, model=(12, 40))
    slower = takes(13, first, (15, 4))
    assert strides(slower, range(12, 18)) == [1, 1, 1, 4, 4, 4]
    assert strides(takes(16, slower, (15, 4)), range(12, 20)) == [1, 1, 1, 4, 4, 4, 4, 4]  # said again
    quicker = takes(16, slower, (18, 1))
    assert strides(quicker, range(14, 22)) == [1, 4, 4, 4, 1, 1, 1, 1]


def test_a_stride_cannot_change_what_is_already_in_effect() -> None:
    first = says(10, model=(12, 40))
    assert strides(takes(13, first, (3, 8)), range(12, 17)) == [1, 1, 1, 8, 8]
    assert strides(takes(13, first, (15, 3)), range(12, 17)) == [1, 1, 1, 1, 1]  # no power of two


def test_records_without_a_stride_are_what_they_were(tmp_path: Path) -> None:
    identity = Identity.load_or_create(tmp_path / "identity.key")
    data = sign_record(identity, "member", MemberRecord(run_id=RUN), 1.0)
    assert b"strides" not in data
    assert b"strides" in sign_record(identity, "member", MemberRecord(run_id=RUN, strides={"model": (3, 2)}), 1.0)


def test_hold_is_what_a_reader_makes_of_it() -> None:
    """A writer's own plan and the view of the others are the same, through renewals, a change and a pause."""
    member: Member | None = None
    published: dict[str, Span] = {}
    for tick, blocks in [
        (0, ["model"]),
        (2, ["model"]),
        (5, ["trunk", "expert.1"]),
        (6, ["trunk", "expert.1"]),
        (40, ["trunk"]),
    ]:
        published = hold(published, blocks, tick)
        member = says(tick, member, **published)
        assert dict(member.holdings) == published
    assert published == {"trunk": (42, 48)}
    at_parting = hold(hold({}, ["model"], 0), ["trunk"], 5)
    assert at_parting == {"model": (2, 7), "trunk": (7, 13)}


def test_present_are_those_heard_of_lately() -> None:
    members = {"b": says(10), "a": says(12), "c": says(12, leaving=True)}
    assert present(members, 12) == ("a", "b")
    assert present(members, 10 + HOLD_TICKS) == ("a",)


def tells(**fields: object) -> Member:
    return Member(MemberRecord(run_id=RUN, **fields), 10.0, 10, {})  # type: ignore[arg-type]


def test_nobody_s_word_alone_makes_a_block_old() -> None:
    """The greatest age in one signed record would end everybody's training."""
    members = {
        "a": tells(ages={"model": 1000, "alone": 500}),
        "b": tells(ages={"model": 1100}),
        "liar": tells(ages={"model": MAX_COUNT - 1}),
    }
    found = {peer: member.record.ages for peer, member in credible(members).items()}
    assert found["liar"] == {"model": 1375}
    assert (found["a"], found["b"]) == ({"model": 1000, "alone": 500}, {"model": 1100})


def test_there_are_no_more_holders_than_members_where_all_are_listed() -> None:
    liar = tells(crowds={"model": 2.0**32})
    assert credible({"a": tells(), "liar": liar})["liar"].record.crowds == {"model": 2.0}
    large = {str(number): tells(crowds={"model": 5000.0}) for number in range(ALL_LISTED)}
    found = credible({**large, "liar": liar})
    assert found["0"] is large["0"] and found["liar"].record.crowds == {"model": MAX_HOLDERS}


def test_a_peer_stores_what_its_record_says() -> None:
    nobody: Any = None
    membership = Membership(cast(Any, SimpleNamespace(peer_id="me")), RUN, Clock(0.0, 1.0), nobody)
    membership._members = {"a": tells(keeps={"model": 3, "branch.1": 1}), "b": tells(keeps={"model": 2})}
    assert membership.stores("a", "branch.1") and not membership.stores("b", "branch.1")
    assert not membership.stores("c", "model")


def test_a_mistake_of_ours_about_one_record_costs_no_other(
    identity_paths: list[Path], run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what reads records in the background would end the daemon."""

    async def main() -> None:
        clock = Clock(Clock(0.0, 1.0).now() - 100.0, 1.0)
        async with (
            open_network(identity_paths[0], host="127.0.0.1") as one,
            open_network(identity_paths[1], host="127.0.0.1") as two,
            open_network(identity_paths[2], host="127.0.0.1") as three,
        ):
            await one.open_dht([], run_id, TICK_S)
            for network in (two, three):
                await network.open_dht(await network.connect(await one.addresses()), run_id, TICK_S)
                there = Membership(network, run_id, clock, AddressBook(tmp_path / network.peer_id))
                assert await there.publish(MemberRecord(run_id=run_id, addresses=await network.addresses()))

            mistakes = [IndexError("a mistake of ours")]

            def absorb_but_one(*arguments: Any) -> Member:
                if mistakes:
                    raise mistakes.pop()
                return absorb(*arguments)

            async def connected() -> set[str]:
                return set()

            async def remember(peer_id: str, addresses: object) -> None:
                raise IndexError("another one")

            monkeypatch.setattr("dht.membership.absorb", absorb_but_one)
            monkeypatch.setattr(one, "connected", connected)
            monkeypatch.setattr(one, "remember", remember)
            here = Membership(one, run_id, clock, AddressBook(tmp_path / "0.json"))
            await here.refresh()
            assert len(here.known().keys() & {two.peer_id, three.peer_id}) == 1

    uvloop.run(main())


def test_another_process_with_this_identity_is_noticed_by_both(
    identities: list[Identity], run_id: str, tmp_path: Path
) -> None:
    """Each reads what the other has written under their common id; one alone, started again, sees its own past."""
    records: dict[str, tuple[bytes, float]] = {}
    time = Time(1000.0)

    class Network:
        identity, peer_id, admission = identities[0], identities[0].peer_id, None

        async def connected(self) -> set[str]:
            return set()

        def neighbours(self) -> set[str]:
            return set()

        async def store(self, key: str, subkey: str, value: bytes, expiration: float) -> bool:
            if subkey not in records or records[subkey][1] < expiration:
                records[subkey] = value, expiration
            return True

        async def fetch(self, key: str) -> dict[str, bytes]:
            return {subkey: value for subkey, (value, _) in records.items()}

    async def main() -> None:
        network: Any = Network()
        one, again, twin = (
            Membership(network, run_id, Clock(0.0, 1.0, time), AddressBook(tmp_path / name)) for name in "abc"
        )
        await one.publish(MemberRecord(run_id=run_id))
        await one.refresh()
        time.seconds += 2.0
        await again.refresh()  # before its first record
        await again.publish(MemberRecord(run_id=run_id))
        await again.refresh()
        assert not one.has_twin and not again.has_twin
        for _ in range(3):
            for each in (again, twin):
                time.seconds += 1.0
                await each.publish(MemberRecord(run_id=run_id))
                await each.refresh()
            await again.refresh()
        time.seconds += 1.0
        await again.publish(MemberRecord(run_id=run_id))
        await twin.refresh()
        assert again.has_twin and twin.has_twin
        time.seconds += HOLD_TICKS  # the twin is gone
        await again.publish(MemberRecord(run_id=run_id))
        await again.refresh()
        assert not again.has_twin

    asyncio.run(main())


class Time:
    """A clock that stands still until it is told to move, at the real time so that nothing expires."""

    def __init__(self, start: float) -> None:
        self.seconds = start

    def __call__(self) -> float:
        return self.seconds


def test_members_find_each_other_and_survive_a_failed_read(
    identity_paths: list[Path], identities: list[Identity], run_id: str, tmp_path: Path
) -> None:
    async def main() -> None:
        loop_time = Time(Clock(0.0, 1.0).now())
        clock = Clock(loop_time.seconds - 100.0, 1.0, loop_time)
        async with (
            open_network(identity_paths[0], host="127.0.0.1") as one,
            open_network(identity_paths[1], host="127.0.0.1") as two,
        ):
            await one.open_dht([], run_id, TICK_S)
            await two.open_dht(await two.connect(await one.addresses()), run_id, TICK_S)
            books = [AddressBook(tmp_path / "0.json"), AddressBook(tmp_path / "1.json")]
            here, there = Membership(one, run_id, clock, books[0]), Membership(two, run_id, clock, books[1])

            async def publish(network: Network, membership: Membership, leaving: bool = False) -> None:
                holdings = {} if leaving else hold(membership.holdings(), ["model"], clock.tick())
                record = MemberRecord(
                    run_id=run_id, addresses=await network.addresses(), holdings=holdings, is_leaving=leaving
                )
                assert await membership.publish(record)

            await publish(one, here)
            await publish(two, there)
            await asyncio.gather(here.refresh(), there.refresh())
            everyone = tuple(sorted((one.peer_id, two.peer_id)))
            for membership in (here, there):
                assert membership.members(100) == everyone
                assert membership.view("model", 101) == ()
                assert membership.view("model", 102) == everyone
            assert AddressBook(tmp_path / "0.json").peers() == {two.peer_id: await two.addresses()}

            loop_time.seconds += 2
            await publish(two, there, leaving=True)
            await here.refresh()
            assert here.view("model", 103) == everyone
            assert here.view("model", 104) == (one.peer_id,)
            assert here.members(102) == (one.peer_id,)

            loop_time.seconds -= 5  # a clock set back makes no record older than the last
            await publish(two, there)
            await here.refresh()
            assert here.record(two.peer_id) == there.record(two.peer_id)
        known = here.known()
        await here.refresh()  # the network is gone
        assert here.known() == known

    uvloop.run(main())


@pytest.mark.parametrize("ahead_s", [60.0])
def test_a_record_from_the_future_is_not_believed(
    identity_paths: list[Path], run_id: str, tmp_path: Path, ahead_s: float
) -> None:
    async def main() -> None:
        clock = Clock(Clock(0.0, 1.0).now() - 100.0, 1.0)
        ahead = Clock(clock.genesis, 1.0, lambda: clock.now() + ahead_s)
        async with (
            open_network(identity_paths[0], host="127.0.0.1") as one,
            open_network(identity_paths[1], host="127.0.0.1") as two,
        ):
            await one.open_dht([], run_id, TICK_S)
            await two.open_dht(await two.connect(await one.addresses()), run_id, TICK_S)
            here = Membership(one, run_id, clock, AddressBook(tmp_path / "0.json"))
            there = Membership(two, run_id, ahead, AddressBook(tmp_path / "1.json"))
            await there.publish(MemberRecord(run_id=run_id))
            await here.refresh()
            assert here.record(two.peer_id) is None

    uvloop.run(main())


def test_a_member_of_another_protocol_counts_for_nothing_and_is_named_until_it_is_updated(
    identity_paths: list[Path], run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        ahead_s = [0.0]
        clock = Clock(time.time() - 100.0, 1.0, lambda: time.time() + ahead_s[0])
        async with (
            open_network(identity_paths[0], host="127.0.0.1") as one,
            open_network(identity_paths[1], host="127.0.0.1") as two,
        ):
            await one.open_dht([], run_id, TICK_S)
            await two.open_dht(await two.connect(await one.addresses()), run_id, TICK_S)
            here, there = (Membership(n, run_id, clock, AddressBook(tmp_path / n.peer_id)) for n in (one, two))

            async def publish(protocol: int, oldest: int) -> None:
                with monkeypatch.context() as patch:
                    patch.setattr("dht.records.PROTOCOL_VERSION", protocol)
                    patch.setattr("dht.records.OLDEST_PROTOCOL", oldest)
                    assert await there.publish(MemberRecord(run_id=run_id, holdings={"model": (0, 1000)}))
                await here.refresh()

            await publish(3, 3)
            said = f"peer {two.peer_id} speaks protocol 3, this peer speaks 1: update this one"
            assert here.apart()[two.peer_id].startswith(said)
            tick = clock.tick() + ACT_TICKS
            assert here.record(two.peer_id) is None and here.view("model", tick) == ()
            await publish(3, 1)
            assert here.apart() == {} and here.record(two.peer_id) is not None
            assert here.view("model", tick) == (two.peer_id,)
            await publish(3, 3)
            assert two.peer_id in here.apart()
            ahead_s[0] = MemberRecord.lifetime_s(1.0) + 1.0
            assert here.apart() == {}  # it is gone

    uvloop.run(main())


def test_peers_that_have_lost_each_other_as_neighbours_meet_again_over_the_connection_that_is_left(
    identity_paths: list[Path], run_id: str, tmp_path: Path
) -> None:
    """As after a broken link: both have dropped the other from their tables, and libp2p has not noticed anything."""

    async def main() -> None:
        ahead_s = [0.0]
        clock = Clock(time.time() - 100.0, 1.0, lambda: time.time() + ahead_s[0])
        async with (
            open_network(identity_paths[0], host="127.0.0.1") as one,
            open_network(identity_paths[1], host="127.0.0.1") as two,
        ):
            await one.open_dht([], run_id, TICK_S)
            await two.open_dht(await two.connect(await one.addresses()), run_id, TICK_S)
            here, there = (Membership(n, run_id, clock, AddressBook(tmp_path / n.peer_id)) for n in (one, two))
            await there.publish(MemberRecord(run_id=run_id, addresses=await two.addresses()))
            await here.refresh()
            for network in (one, two):
                table = network.node.protocol.routing_table
                for node_id in list(table.uid_to_peer_id):
                    del table[node_id]
                assert network.neighbours() == set()
            assert await one.connected() == {two.peer_id}
            await here.refresh()
            await asyncio.gather(*one._tasks - {t for t in one._tasks if t.get_name() == "refresh routes"})
            assert one.neighbours() == set()  # it was heard a moment ago
            ahead_s[0] = HOLD_TICKS + 1.0
            await here.refresh()
            await until_async(_none, lambda _: two.peer_id in one.neighbours(), "a neighbour that is known again")
            await until_async(_none, lambda _: one.peer_id in two.neighbours(), "the same at the other end")

    asyncio.run(main())


async def _none() -> None:
    return None


def test_a_flood_of_names_hides_nobody_who_is_known(
    identities: list[Identity], run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More names than are believed, each read before the honest peers' records; and the DHT then loses one of these."""
    monkeypatch.setattr("dht.membership.MAX_ON_TRIAL", 1)
    now = Time(Clock(0.0, 1.0).now())
    clock = Clock(now.seconds - 100.0, 1.0, now)
    me, friend, lost = identities
    strangers = [Identity.load_or_create(tmp_path / f"{number}.key") for number in range(3)]
    records: dict[str, bytes] = {}
    dialled: list[str] = []

    def says(identity: Identity) -> bytes:
        record = MemberRecord(
            run_id=run_id,
            addresses=[f"/ip4/192.0.2.1/tcp/1/p2p/{identity.peer_id}"],
            holdings={"model": (0, clock.tick() + HOLD_TICKS)},
        )
        return sign_record(identity, "member", record, now.seconds)

    class Network:
        identity, peer_id, admission = me, me.peer_id, None

        async def connected(self) -> set[str]:
            return {friend.peer_id, lost.peer_id}

        async def fetch(self, key: str) -> dict[str, bytes]:
            return records

        def neighbours(self) -> set[str]:
            return set()

        async def remember(self, peer_id: str, addresses: object) -> None:
            dialled.append(peer_id)

    async def main() -> None:
        network: Any = Network()
        here = Membership(network, run_id, clock, AddressBook(tmp_path / "book.json"))
        asked: list[str] = []

        async def ask(peer: str) -> list[bytes]:
            asked.append(peer)
            return [says(lost)] if peer == lost.peer_id else [b"nonsense"]

        here.ask = ask
        records.update({each.peer_id: says(each) for each in strangers})
        records.update({friend.peer_id: says(friend), lost.peer_id: says(lost)})
        await here.refresh()
        assert {friend.peer_id, lost.peer_id} <= here.known().keys()
        assert len(here.known().keys() & {each.peer_id for each in strangers}) == 1
        assert len(set(dialled) & {each.peer_id for each in strangers}) == 1
        assert here.known_members(clock.tick()) == tuple(sorted((friend.peer_id, lost.peer_id)))
        assert here._book.peers().keys() == {friend.peer_id, lost.peer_id}, "not who is only a name"
        del records[lost.peer_id]
        for _ in range(3 * HOLD_TICKS):
            now.seconds += 1.0
            records[friend.peer_id] = says(friend)
            await here.refresh()
        assert lost.peer_id in here.holders("model", clock.tick()), "it has said so itself"
        assert set(asked) == {lost.peer_id}, "whose records the DHT gives is not asked"
        assert set(here.signed_records()) >= {records[friend.peer_id]}

    asyncio.run(main())


def test_a_member_of_a_closed_run_tells_of_nobody_who_is_not_admitted(
    identities: list[Identity], run_id: str, tmp_path: Path
) -> None:
    """What lies in the DHT comes with its signer's invitation; what a member tells of others does not."""
    now = Time(Clock(0.0, 1.0).now())
    clock = Clock(now.seconds - 100.0, 1.0, now)
    me, friend, outsider = identities

    def says(identity: Identity) -> bytes:
        record = MemberRecord(run_id=run_id, holdings={"model": (0, clock.tick() + HOLD_TICKS)})
        return sign_record(identity, "member", record, now.seconds)

    found = {friend.peer_id: says(friend)}

    class Network:
        identity, peer_id = me, me.peer_id
        admission = SimpleNamespace(allows=lambda peer, right: (peer, right) == (friend.peer_id, "train"))

        async def connected(self) -> set[str]:
            return {friend.peer_id}

        async def fetch(self, key: str) -> dict[str, bytes]:
            return found

        def neighbours(self) -> set[str]:
            return {friend.peer_id}

    async def main() -> None:
        network: Any = Network()
        here = Membership(network, run_id, clock, AddressBook(tmp_path / "book.json"))
        asked: list[str] = []

        async def ask(peer: str) -> list[bytes]:
            asked.append(peer)
            return [says(friend), says(outsider)]

        here.ask = ask
        await here.refresh()
        now.seconds += 5.0  # the friend's record is late
        found.clear()
        await here.refresh()
        assert asked == [friend.peer_id]
        assert here.known().keys() == {friend.peer_id}
        assert here.view("model", clock.tick() + 2) == (friend.peer_id,)

    asyncio.run(main())
