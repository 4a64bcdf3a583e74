"""Multiaddrs that people type and peers publish: parsed, ordered by who can reach them, and why a dial failed."""

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from configs.errors import UsageError
from configs.names import MAX_ADDRESS_CHARS, MAX_ADDRESSES

EXAMPLE = "/ip4/203.0.113.7/tcp/4000/p2p/Qm…"
_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")
# What p2pd dials and Hivemind's multiaddrs know; the library that parses here knows more.
_DIALLED = {*_HOSTS, "tcp", "udp", "quic", "quic-v1", "tls", "ws", "wss", "p2p", "p2p-circuit"}
_HOST_PORT = re.compile(r"^(?:\w+://)?\[?([\w.:-]+?)\]?:(\d+)/?$")


@lru_cache(maxsize=4096)
def parse_address(text: str) -> tuple[str, str]:
    """Return the address as it should be written and the peer id that it ends in.

    Raises UsageError: names the address, what is wrong with it and how it should look.
    """
    address = _parse(text)
    peer_id = _last_peer_id(address)
    if peer_id is None:
        raise UsageError(f"the address '{text}' names no peer; it must end in /p2p/ and the peer id, as in {EXAMPLE}")
    return str(address), peer_id


def parse_announce(text: str, peer_id: str) -> str:
    """Return an address of this very peer for others to dial, with its peer id. Raises UsageError."""
    address = _parse(text)
    if _last_peer_id(address) not in (None, peer_id):
        raise UsageError(f"the announced address '{text}' names another peer; leave its /p2p/ part away")
    if any(value == "0" for protocol, value in address.items() if protocol.name in ("tcp", "udp")):
        raise UsageError(f"the announced address '{text}' needs the port that others can reach, not 0")
    return str(address) if _last_peer_id(address) else f"{address}/p2p/{peer_id}"


def addresses_of(peer_id: str, addresses: Iterable[str]) -> list[str]:
    """Return those of `addresses`, published by a stranger, that are well formed and name this very peer."""
    valid = []
    for text in list(addresses)[:MAX_ADDRESSES]:
        with suppress(UsageError):
            address, owner = parse_address(text)
            if owner == peer_id:
                valid.append(address)
    return valid


def reachable_first(addresses: Iterable[str]) -> list[str]:
    """Order addresses by how many can reach them, without repetitions or unspecified ones (0.0.0.0, ::).

    Public and named ones, then those of a local network, then relayed ones, then loopback.
    """
    ranked = {address: _rank(address) for address in addresses}
    return sorted((address for address, rank in ranked.items() if rank is not None), key=lambda a: ranked[a] or 0)


def distance(own: Iterable[str], theirs: Iterable[str]) -> int:
    """Return how far a peer is by what it publishes: 0 on the same machine, 1 in the same network, else 2."""
    theirs = list(theirs)
    here, there = _hosts(own), _hosts(theirs)
    is_relayed = any("/p2p-circuit" in address for address in theirs)
    if there and all(host.is_loopback for host in there) and not is_relayed:
        return 0  # or nobody could reach it
    shared = {host for host in here & there if not host.is_loopback}
    if any(not host.is_global for host in shared):
        return 0
    networks = {network for host in here if (network := _network(host)) is not None}
    return 1 if shared or networks & {_network(host) for host in there} else 2


def is_internet(host: str) -> bool:
    """Return whether `host` is an IP address of the Internet, and not of a local network or of one machine."""
    with suppress(ValueError):
        return ip_address(host).is_global
    return False


def dial_target(address: str) -> str:
    """Return the address without the peer id at its end, as libp2p's connect call wants it."""
    return address.rsplit("/p2p/", 1)[0]


def explain(address: str, raw: str) -> str:
    """Say in plain words why libp2p could not dial `address`, and what to do; `raw` is p2pd's whole message."""
    target, port = dial_target(address), re.search(r"/(?:tcp|udp)/\d+.*$", dial_target(address))
    lines = re.findall(r"\* \[(\S+)\] (.+)", raw)
    said = [reason for where, reason in lines if where == target]
    if not said and target.startswith("/dns") and port:
        said = [reason for where, reason in lines if where.endswith(port[0])]
        if (lines and not said) or (not lines and "addresses" in raw):
            return "its name cannot be resolved; check the spelling, or use the machine's IP address"
    reason = said[-1] if said else raw
    for pattern, words in _REASONS:
        if re.search(pattern, reason):
            found = re.search(r"remote key matches (\w+)", reason)
            return words.format(found[1] if found else "")
    return reason.strip().splitlines()[-1][:200] if reason.strip() else "no reason given"


_REASONS = (
    (r"dial to self", "this is the address of this very peer; give another peer's"),
    (
        r"peer id mismatch",
        "another peer ({}) answers there; ask for the present address line (`shoal status` shows it)",
    ),
    (r"connection refused", "connection refused: nobody listens there; check the port, and that the peer is running"),
    (r"no route to host|network is unreachable|cannot assign", "no route to it; check the address, IPv6 and the VPN"),
    (r"timeout|deadline|no answer", "no answer: the machine is off, or a firewall or NAT drops it; open its port"),
    (r"no addresses|no good addresses|no transport|QUIC draft", "this kind of address cannot be dialled; use /tcp/"),
    (r"dial backoff", "it failed a moment ago; libp2p waits some seconds before it dials it again"),
    (r"relay|circuit", "the relay did not pass it on; the peer is not connected to that relay"),
    (r"negotiate|EOF|reset", "something answers there that is no Shoal peer; check the port"),
)


def is_address(text: str) -> bool:
    """Say whether somebody who may type a path or an address has typed an address; it may be a wrong one."""
    return text.startswith(("/ip", "/dns"))


@lru_cache(maxsize=4096)
def _parse(text: str) -> Multiaddr:
    text = text.strip()
    host_port = _HOST_PORT.match(text)
    if host_port:
        family = "ip6" if ":" in host_port[1] else "ip4" if host_port[1].replace(".", "").isdigit() else "dns4"
        raise UsageError(
            f"'{text}' is not a multiaddr; write /{family}/{host_port[1]}/tcp/{host_port[2]}/p2p/ and the peer id"
        )
    if not text.startswith("/") or len(text) > MAX_ADDRESS_CHARS or not text.isprintable():
        raise UsageError(f"{text[:MAX_ADDRESS_CHARS]!r} is not a multiaddr; it should look like {EXAMPLE}")
    if text.startswith("/ip/"):
        raise UsageError(f"the address '{text}' begins with /ip/; write /ip4/ (or /ip6/) instead")
    try:
        address = Multiaddr(text.rstrip("/").replace("/ipfs/", "/p2p/"))
        parts = [(protocol.name, value) for protocol, value in address.items()]
    except (MultiaddrError, ValueError, LookupError) as error:
        raise UsageError(f"the address '{text}' is wrong: {_reason(error)}; it should look like {EXAMPLE}") from None
    if not parts or parts[0][0] not in _HOSTS:
        raise UsageError(f"the address '{text}' must begin with one of /{'/, /'.join(_HOSTS)}/, as in {EXAMPLE}")
    if len(parts) < 2 or parts[1][0] not in ("tcp", "udp"):
        raise UsageError(
            f"the address '{text}' names no port; write /tcp/ and the port after the host, as in {EXAMPLE}"
        )
    if unknown := [name for name, _ in parts if name not in _DIALLED]:
        raise UsageError(f"the address '{text}' cannot be dialled: it has /{unknown[0]} in it; use one as in {EXAMPLE}")
    return address


def _reason(error: Exception) -> str:
    """Cut the multiaddr library's message down to what it says of the address."""
    text = re.sub(r" \(string: .*", "", re.sub(r"^Invalid MultiAddr '.*?': ", "", str(error)))
    return re.sub(r"^Invalid CID: (\S+)$", r"\1 is not a peer id (was it cut off?)", text)


def _last_peer_id(address: Multiaddr) -> str | None:
    protocol, value = list(address.items())[-1]
    return str(value) if protocol.name == "p2p" else None


def _hosts(addresses: Iterable[str]) -> set[IPv4Address | IPv6Address]:
    """Return the addresses of machines that are dialled directly, and by number."""
    found = set()
    for address in addresses:
        kind, host = address.split("/")[1:3]
        if kind in ("ip4", "ip6") and "/p2p-circuit" not in address:
            found.add(ip_address(host))
    return found


def _network(host: IPv4Address | IPv6Address) -> IPv4Network | IPv6Network | None:
    """Return the local network that a machine is in by its address; of a public IPv4 address nothing is known."""
    if host.is_loopback or host.is_link_local or (host.version == 4 and host.is_global):
        return None
    return ip_network(f"{host}/{24 if host.version == 4 else 64}", strict=False)


def _rank(address: str) -> int | None:
    kind, host = address.split("/")[1:3]
    if "/p2p-circuit" in address:
        return 2
    if kind.startswith("dns"):
        return 3 if host == "localhost" else 0
    ip = ip_address(host)
    if ip.is_unspecified:
        return None
    if ip.is_loopback or ip.is_link_local:
        return 3
    return 0 if ip.is_global else 1
