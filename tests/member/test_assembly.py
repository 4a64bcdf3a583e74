"""How the parts of a member reach the same services of others."""

from typing import Any, cast

from dht.network import Network
from peer.member.assembly import caller
from protocols.describe import Describe
from protocols.state import State


def test_a_service_is_reached_in_its_run_or_where_every_daemon_has_it() -> None:
    asked: list[tuple[Any, str, str | None]] = []

    class Recorded:
        def stub(self, service: Any, peer_id: str, namespace: str | None) -> None:
            asked.append((service, peer_id, namespace))

    network = cast(Network, Recorded())
    caller(network, State, "run")("peer")
    caller(network, Describe)("other")
    assert asked == [(State, "peer", "run"), (Describe, "other", None)]
