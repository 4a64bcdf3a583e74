"""Networks with NATs and firewalls on one machine: a namespace for each machine and router, joined by an "Internet".

    with open_world([Site("open"), Site("cone"), Site("symmetric")]) as machines:
        subprocess.Popen(machines[1].command("python", "-m", "…"))

Addresses on the outside are public ones, for libp2p treats others differently; they exist in these namespaces only. The
kinds of sites are test data, each with why it is there. Needs root, `ip` and `nft`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from configs.errors import UsageError
from peer.chaos.links import Peer, _find, _run, open_namespaces

OUTSIDE = "5.5.0"  # 5.5.0.0/24, and 2a00:5:5::/64
OUTSIDE_6 = "2a00:5:5::"

Kind = Literal[
    "open",  # a server, or a home machine with a forwarded port: everybody can dial it
    "closed",  # a machine with a firewall of its own that drops what was not asked for
    "cone",  # behind a home router that keeps the port (Linux, most consumer routers)
    "symmetric",  # behind a router with another port for each destination (mobile networks, some companies)
    "six",  # has IPv6 only
    "dual",  # has both
]

# What a home router or a host's own firewall does: answers come in, and nothing that was not asked for.
CLOSED = """
table inet shoal {{
  chain input {{
    type filter hook input priority 0; policy drop;
    iif lo accept
    {inside}
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept
    ct state established,related accept
  }}
}}
"""
ROUTER = """
table inet shoal_nat {{
  chain leaving {{
    type nat hook postrouting priority 100;
    oif wan masquerade {how}
  }}
  chain passing {{
    type filter hook forward priority 0; policy drop;
    iif lan accept
    ct state established,related accept
  }}
}}
"""


@dataclass(frozen=True)
class Site:
    """Where a machine stands, and which ports its router forwards to it."""

    kind: Kind
    forwarded: tuple[int, ...] = ()


def lacking() -> str | None:
    """Return which tool is missing, and how to get it, or None."""
    missing = [package for tool, package in (("nft", "nftables"), ("ip", "iproute2")) if not _find(tool)]
    return f"please install {' and '.join(missing)}" if missing else None


@contextmanager
def open_world(sites: Sequence[Site]) -> Iterator[list[Peer]]:
    """Hold a machine for each of `sites`, in their order; an address is the one that the machine itself has.

    Blocks for a fraction of a second. Raises UsageError where this cannot be done, in one line.
    """
    if problem := lacking():
        raise UsageError(problem)
    routed = [site.kind in ("cone", "symmetric") for site in sites]
    with open_namespaces(1 + len(sites) + sum(routed)) as names:
        internet, *rest = names
        machines, routers = rest[: len(sites)], iter(rest[len(sites) :])
        _ip(internet, "link add wire type bridge", "link set wire up", "link set lo up")
        peers = []
        for number, (site, name, is_routed) in enumerate(zip(sites, machines, routed, strict=True), 1):
            if is_routed:
                peers.append(_behind(site, name, next(routers), internet, number))
            else:
                peers.append(_outside(site, name, internet, number))
        yield peers


def _outside(site: Site, name: str, internet: str, number: int) -> Peer:
    """Connect a machine to the Internet itself."""
    four, six = f"{OUTSIDE}.{number}", f"{OUTSIDE_6}{number}"
    _plug(internet, name, "eth0", number)
    if site.kind != "six":
        _ip(name, f"addr add {four}/24 dev eth0")
    if site.kind in ("six", "dual"):
        _ip(name, f"addr add {six}/64 dev eth0 nodad")
    if site.kind == "closed":
        _nft(name, CLOSED.format(inside=""))
    return Peer(name, six if site.kind == "six" else four)


def _behind(site: Site, name: str, router: str, internet: str, number: int) -> Peer:
    """Connect a machine to a router of its own, and that to the Internet."""
    _plug(internet, router, "wan", number)
    _ip(router, f"addr add {OUTSIDE}.{number}/24 dev wan", f"link add lan type veth peer name eth0 netns {name}")
    _ip(router, f"addr add 192.168.{number}.1/24 dev lan", "link set lan up")
    own = f"192.168.{number}.2"
    _ip(name, "link set lo up", f"addr add {own}/24 dev eth0", "link set eth0 up")
    _ip(name, f"route add default via 192.168.{number}.1")
    _run(*Peer(router, "").command("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"))
    _nft(router, ROUTER.format(how="fully-random" if site.kind == "symmetric" else ""))
    _nft(router, CLOSED.format(inside="iif lan accept"))
    for port in site.forwarded:
        _nft(
            router,
            f"table inet shoal_in {{\n chain arriving {{\n type nat hook prerouting priority -100;\n"
            f" iif wan tcp dport {port} dnat ip to {own}\n }}\n}}\n"
            f"table inet shoal_nat {{\n chain passing {{\n ip daddr {own} tcp dport {port} accept\n }}\n}}\n",
        )
    return Peer(name, own)


def _plug(internet: str, name: str, device: str, number: int) -> None:
    _ip(internet, f"link add port{number} type veth peer name {device} netns {name}")
    _ip(internet, f"link set port{number} master wire up")
    _ip(name, f"link set {device} up", "link set lo up")


def _ip(namespace: str, *lines: str) -> None:
    _run(_find("ip") or "ip", "-n", namespace, "-batch", "-", text="\n".join(lines) + "\n")


def _nft(namespace: str, rules: str) -> None:
    _run(*Peer(namespace, "").command(_find("nft") or "nft", "-f", "-"), text=rules)
