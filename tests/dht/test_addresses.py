import pytest
from hivemind.utils.multiaddr import protocols

from configs.errors import UsageError
from dht.addresses import _DIALLED, addresses_of, distance, explain, parse_address, parse_announce, reachable_first

PEER = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
OTHER = "QmZypX5vhPhZeKTFcvgyx88rJow7GSmp5VEgKdZ7jDJJvt"


@pytest.mark.parametrize(
    "host",
    [
        "/ip4/1.2.3.4/tcp/4000",
        "/ip6/2001:db8::1/tcp/4000",
        "/dns4/a.example/tcp/4000",
        "/dns/a.example/tcp/4000",
        "/ip4/1.2.3.4/udp/4000/quic-v1",
        f"/ip4/1.2.3.4/tcp/4000/p2p/{OTHER}/p2p-circuit",
    ],
)
def test_good_addresses_are_taken(host: str) -> None:
    assert parse_address(f" {host}/p2p/{PEER}/\n") == (f"{host}/p2p/{PEER}", PEER)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"/ip/1.2.3.4/tcp/4000/p2p/{PEER}", "begins with /ip/; write /ip4/"),
        ("/ip4/1.2.3.4/tcp/4000", r"names no peer; it must end in /p2p/"),
        (f"/ip4/1.2.3.4/tcp/4000/p2p/{PEER[:-3]}", "is not a peer id"),
        (f"/ip4/1.2.3.4/p2p/{PEER}", "names no port"),
        (f"/ip4/1.2.3.4/tcp/p2p/{PEER}", "is wrong"),
        (f"/ip4/1.2.3.4/tcp/99999/p2p/{PEER}", "is wrong: integer not in range"),
        (f"/ip4/1.2.3/tcp/4000/p2p/{PEER}", "'1.2.3' is not IPv4"),
        (f"/udp/1/p2p/{PEER}", "must begin with one of"),
        (f"/foo/1.2.3.4/tcp/1/p2p/{PEER}", "unknown protocol: foo"),
        ("1.2.3.4:4000", "write /ip4/1.2.3.4/tcp/4000/p2p/"),
        ("http://box.example:4000", "write /dns4/box.example/tcp/4000/p2p/"),
        ("[::1]:4000", "write /ip6/::1/tcp/4000/p2p/"),
        ("/", "must begin with one of"),
        ("//", "must begin with one of"),
        (f"/ip4/1.2.3.4/tcp/1/noise/p2p/{PEER}", "cannot be dialled: it has /noise in it"),
        (f"/ip4/1.2.3.4/udp/1/quic-v1/webtransport/p2p/{PEER}", "cannot be dialled: it has /webtransport in it"),
        (f"/dns/a\x1b[31m\nb/tcp/1/p2p/{PEER}", "is not a multiaddr"),
        ("box", "is not a multiaddr"),
        ("", "is not a multiaddr"),
        ("/" + "x" * 10_000, "is not a multiaddr"),
    ],
)
def test_typing_errors_are_named_in_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        parse_address(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_strangers_addresses_that_nobody_can_dial_are_left_out() -> None:
    good = f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}"
    assert addresses_of(PEER, ["/", f"/ip4/1.2.3.4/tcp/1/noise/p2p/{PEER}", good, f"/p2p/{PEER}", ""]) == [good]


@pytest.mark.parametrize("name", sorted(_DIALLED))
def test_what_may_be_in_an_address_is_known_to_who_dials_it(name: str) -> None:
    assert protocols.protocol_with_name(name)


def test_announced_addresses_get_the_own_peer_id() -> None:
    assert parse_announce("/dns4/a.example/tcp/4000", PEER) == f"/dns4/a.example/tcp/4000/p2p/{PEER}"
    assert parse_announce(f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}", PEER) == f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}"
    with pytest.raises(UsageError, match="names another peer"):
        parse_announce(f"/ip4/1.2.3.4/tcp/1/p2p/{OTHER}", PEER)
    with pytest.raises(UsageError, match="needs the port"):
        parse_announce("/ip4/1.2.3.4/tcp/0", PEER)


def test_reachable_addresses_come_first() -> None:
    relayed = f"/ip4/8.8.8.8/tcp/1/p2p/{OTHER}/p2p-circuit"
    shuffled = [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/0.0.0.0/tcp/1",
        relayed,
        "/ip6/::/tcp/1",
        "/ip4/10.0.0.5/tcp/1",
        "/dns4/a.example/tcp/1",
        "/ip4/8.8.8.8/tcp/1",
        "/ip4/8.8.8.8/tcp/1",
    ]
    assert reachable_first(shuffled) == [
        "/dns4/a.example/tcp/1",
        "/ip4/8.8.8.8/tcp/1",
        "/ip4/10.0.0.5/tcp/1",
        relayed,
        "/ip4/127.0.0.1/tcp/1",
    ]


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("dial tcp4 1.2.3.4:4000: connect: connection refused", "connection refused: nobody listens there"),
        (
            f"failed to negotiate security protocol: peer id mismatch: expected {PEER}, but remote key matches {OTHER}",
            OTHER,
        ),
        ("dial tcp4 1.2.3.4:4000: i/o timeout", "firewall or NAT"),
        ("dial tcp6: connect: network is unreachable", "no route"),
        ("dial backoff", "failed a moment ago"),
        ("something quite new", "something quite new"),
    ],
)
def test_a_failed_dial_is_explained_for_its_own_address(reason: str, says: str) -> None:
    raw = f"failed to dial: all dials failed\n  * [/ip4/9.9.9.9/tcp/1] other\n  * [/ip4/1.2.3.4/tcp/4000] {reason}"
    assert says in explain(f"/ip4/1.2.3.4/tcp/4000/p2p/{PEER}", raw)


@pytest.mark.parametrize(
    ("own", "theirs", "expected"),
    [
        (["/ip4/127.0.0.1/tcp/1"], ["/ip4/127.0.0.1/tcp/2"], 0),
        (["/ip4/192.168.1.5/tcp/1", "/ip4/127.0.0.1/tcp/1"], ["/ip4/127.0.0.1/tcp/2", "/ip4/192.168.1.5/tcp/2"], 0),
        (["/ip4/192.168.1.5/tcp/1"], ["/ip4/192.168.1.6/tcp/1", "/ip4/127.0.0.1/tcp/1"], 1),
        (["/ip4/192.168.1.5/tcp/1", "/ip4/8.8.8.8/tcp/1"], ["/ip4/8.8.8.8/tcp/2"], 1),  # behind the same NAT
        (["/ip6/fd00:1::5/tcp/1"], ["/ip6/fd00:1::6/tcp/1"], 1),
        (["/ip6/2001:db9:1:2::5/tcp/1"], ["/ip6/2001:db9:1:2::6/tcp/1"], 1),
        (["/ip4/192.168.1.5/tcp/1"], ["/ip4/192.168.2.5/tcp/1"], 2),
        (["/ip4/8.8.8.8/tcp/1"], ["/ip4/8.8.8.9/tcp/1"], 2),
        (["/ip4/192.168.1.5/tcp/1", "/ip4/127.0.0.1/tcp/1"], ["/ip4/8.8.8.9/tcp/1", "/ip4/127.0.0.1/tcp/1"], 2),
        (["/ip4/8.8.8.8/tcp/1"], [f"/ip4/8.8.8.8/tcp/1/p2p/{OTHER}/p2p-circuit"], 2),  # the relay is near, not it
        (["/ip4/8.8.8.8/tcp/1"], ["/ip4/127.0.0.1/tcp/1", f"/ip4/9.9.9.9/tcp/1/p2p/{OTHER}/p2p-circuit"], 2),
        (["/ip4/192.168.1.5/tcp/1"], ["/dns4/a.example/tcp/1"], 2),
        (["/ip4/192.168.1.5/tcp/1"], [], 2),
        ([], ["/ip4/192.168.1.5/tcp/1"], 2),
    ],
)
def test_how_far_a_peer_is_by_what_it_publishes(own: list[str], theirs: list[str], expected: int) -> None:
    assert distance(own, theirs) == expected
