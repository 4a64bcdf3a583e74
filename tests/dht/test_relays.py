"""A peer that cannot be dialled is reached through one that can; what that one gives is asked for, and checked."""

from pathlib import Path

import pytest
from loop import in_loop

from configs.errors import NetworkError, PeerError
from dht.network import open_network
from dht.relays import Terms, ask_terms, read_terms

# A relay's answer without its reservation: type STATUS; the limit, 1,800 s and 4 GiB; status OK.
GIVEN = bytes.fromhex("0802 2209 08880e 108080808010 2864")


@in_loop
async def test_a_relayed_address_can_be_dialled(tmp_path: Path) -> None:
    async with open_network(tmp_path / "relay.key", host="127.0.0.1", reachability="public") as relay:
        at = (await relay.addresses())[0]
        hidden_way = {"relays": [at], "reachability": "private"}
        async with (
            open_network(tmp_path / "hidden.key", host="127.0.0.1", **hidden_way) as hidden,  # type: ignore[arg-type]
            open_network(tmp_path / "asker.key", host="127.0.0.1") as asker,
        ):
            await hidden.connect([at])
            await ask_terms(hidden.p2p, relay.peer_id, 10.0)  # from here on the relay passes on what comes for it
            relayed = [address for address in await hidden.addresses() if "/p2p-circuit" in address]
            assert relayed == [f"{at}/p2p-circuit/p2p/{hidden.peer_id}"]
            assert await asker.connect(relayed) == [hidden.peer_id]
            assert await asker.connected() >= {hidden.peer_id}


@in_loop
async def test_a_relay_says_what_it_gives(tmp_path: Path) -> None:
    async with (
        open_network(tmp_path / "relay.key", host="127.0.0.1", reachability="public") as relay,
        open_network(tmp_path / "asker.key", host="127.0.0.1") as asker,
    ):
        await asker.connect(await relay.addresses())
        terms = await ask_terms(asker.p2p, relay.peer_id, 10.0)
    assert terms == Terms(1800, 4 << 30)


@in_loop
async def test_who_is_not_there_relays_nothing(tmp_path: Path) -> None:
    async with open_network(tmp_path / "asker.key", host="127.0.0.1") as asker:
        with pytest.raises(NetworkError, match="does not relay"):
            await ask_terms(asker.p2p, "QmUSJF12njboA8tpXunKmEzz48HcV9bnTSEr9rPpDwX7zh", 5.0)


def test_terms_are_read() -> None:
    assert read_terms(GIVEN) == Terms(1800, 4 << 30)
    assert read_terms(b"\x08\x02\x28\x64") == Terms(0, 0), "a relay without limits"


@pytest.mark.parametrize("status", [b"\x28\xc9\x01", b""])  # 201, too many reservations; none
def test_a_refusal_is_one(status: bytes) -> None:
    with pytest.raises(NetworkError, match="refuses"):
        read_terms(b"\x08\x02" + status)


@pytest.mark.parametrize("nonsense", [b"\x08", b"\x22\x7f\x00", b"\xff" * 20, b"\x09\x01", b"\x28\x64\x22\x02\x0a\x00"])
def test_nonsense_is_refused(nonsense: bytes) -> None:
    with pytest.raises(PeerError):
        read_terms(nonsense)
