"""What a peer concludes of how it is reached, from what others have found."""

from pathlib import Path

import pytest
from loop import in_loop

from configs.machine import PeerConfig
from dht.network import open_network
from dht.p2pd import Reachability
from peer.member.arrival import WAY_FILE, Way, find_way, judge, listening_port, opened_port
from protocols.reach import Outcome, Reach, ReachAnswer

INTERNET, HERE = "5.5.0.2", "192.168.1.2"


def answer(outcome: Outcome, host: str = INTERNET) -> ReachAnswer:
    return ReachAnswer(outcome=outcome, family="ip4", host=host, port=4001)


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([answer("open")], "public"),
        ([answer("silent")], "private"),
        ([answer("refused")], "private"),
        ([answer("other")], "private"),
        ([answer("silent"), answer("open")], "public"),  # one has reached it; the other's own firewall may be before it
        ([answer("open", HERE)], "public"),  # nobody of the Internet is in the swarm that it knows
        ([answer("open", HERE), answer("silent")], "private"),  # what is open at home is not open outside
        ([answer("silent", HERE), answer("open")], "public"),
        ([answer("busy")], "unknown"),
        ([ReachAnswer(outcome="relayed")], "unknown"),
        ([answer("busy"), answer("silent")], "private"),
        ([], "unknown"),
    ],
)
def test_whether_others_can_dial_this_peer(answers: list[ReachAnswer], found: Reachability) -> None:
    assert judge(answers) == found


def test_a_port_that_the_router_has_opened_is_at_the_address_where_others_see_this_peer() -> None:
    told = ["/ip4/192.168.1.2/tcp/4003/p2p/QmOwn", f"/ip4/{INTERNET}/tcp/17001/p2p/QmOwn"]
    assert opened_port(told, INTERNET) == 17001
    assert opened_port(told, "5.5.0.3") is None
    assert opened_port([f"/ip4/{INTERNET}/tcp/4001/p2p/QmRelay/p2p-circuit/p2p/QmOwn"], INTERNET) is None


def test_the_listening_port_is_that_of_the_first_direct_address() -> None:
    relayed = "/ip4/5.5.0.1/tcp/4001/p2p/QmRelay/p2p-circuit/p2p/QmOwn"
    assert listening_port([relayed, "/ip4/192.168.1.2/tcp/4003/p2p/QmOwn"]) == 4003
    assert listening_port([relayed]) == 0


@pytest.mark.parametrize(
    ("config", "known", "way"),
    [
        (PeerConfig(port=4001), (), Way("public", 4001)),  # a founder: it is reached, or nobody joins
        (PeerConfig(host="127.0.0.1"), ("/ip4/5.5.0.1/tcp/1/p2p/Qm",), Way("public", 0)),
        (PeerConfig(announce=("/ip4/5.5.0.1/tcp/1",)), ("/ip4/5.5.0.1/tcp/1/p2p/Qm",), Way("public", 0)),
        (PeerConfig(use_relay=False, port=7), ("/ip4/5.5.0.1/tcp/1/p2p/Qm",), Way("unknown", 7)),
    ],
)
@in_loop
async def test_who_knows_without_asking_does_not_ask(
    config: PeerConfig, known: tuple[str, ...], way: Way, tmp_path: Path
) -> None:
    assert await find_way(config, tmp_path / "identity.key", known) == way
    assert not (tmp_path / "identity.key").exists()


@pytest.mark.parametrize("can_say", [True, False])
@in_loop
async def test_who_is_asked_dials(can_say: bool, tmp_path: Path) -> None:
    async with open_network(tmp_path / "asked.key", host="127.0.0.1") as asked:
        if can_say:  # a peer of an earlier version cannot
            await asked.serve(Reach(asked.seen_at))
        addresses = tuple(await asked.addresses())
        way = await find_way(PeerConfig(state_dir=tmp_path), tmp_path / "identity.key", addresses)
    assert way.reachability == ("public" if can_say else "unknown")
    assert way.port > 0, "the port that was tried is the one to listen on"
    assert way.relays == (() if can_say else addresses)


GONE = "/ip4/127.0.0.1/tcp/1/p2p/QmUSJF12njboA8tpXunKmEzz48HcV9bnTSEr9rPpDwX7zh"


@pytest.mark.parametrize(
    ("kept", "way"),
    [
        ("", Way("unknown", 0, (GONE,))),
        ("{", Way("unknown", 0, (GONE,))),
        ('{"reachability": "private", "relays": ["no address"]}', Way("unknown", 0, (GONE,))),
        ('{"reachability": "private", "relays": []}', Way("unknown", 0, (GONE,))),
        ('{"reachability": "public"}', Way("public", 0)),
        (f'{{"reachability": "private", "relays": ["{GONE}"]}}', Way("private", 0, (GONE,))),
    ],
)
@in_loop
async def test_where_nobody_answers_it_is_as_the_last_time(kept: str, way: Way, tmp_path: Path) -> None:
    if kept:
        (tmp_path / WAY_FILE).write_text(kept)
    assert await find_way(PeerConfig(state_dir=tmp_path), tmp_path / "identity.key", (GONE,)) == way
