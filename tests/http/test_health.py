"""What makes a peer unhealthy, on both sides of each threshold."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from status_example import PEERS, example, pulse

from benchmarks.patience import HANG_S
from configs.machine import PeerConfig
from peer.http.health import (
    LEAST_FREE_BYTES,
    MISSED_TICKS,
    SILENT_S,
    SILENT_STEPS,
    Pulse,
    health_of,
)
from peer.http.status import PeerStatus, Status
from peer.http.status_page import Actions, Shown, open_http

WELL = asyncio.run(pulse())
STATUS = example()  # at tick 412, ticks of 2 s, training
GONE = [PeerStatus(peer_id=peer, state="silent") for peer in PEERS[1:]]


def reasons(status: dict[str, Any] | None = None, **facts: Any) -> list[str]:
    found = health_of(STATUS.model_copy(update=status or {}), replace(WELL, **facts))
    assert found.is_healthy is not bool(found.reasons)
    return found.reasons


@pytest.mark.parametrize(
    ("status", "facts"),
    [
        ({}, {}),
        ({}, {"taken_tick": 412 - 14}),  # 28 s
        ({"tick_seconds": 20.0}, {"taken_tick": 412 - MISSED_TICKS + 1}),
        ({}, {"taken_tick": 0}),  # it has not begun
        ({}, {"silent_s": SILENT_S - 0.1}),
        ({}, {"silent_s": 59.9, "step_s": 6.0}),
        ({}, {"silent_s": SILENT_S - 0.1, "step_s": None}),
        *(({"state": state}, {"silent_s": 1e6, "is_worker_up": False}) for state in ("starting", "downloading")),
        *(({"state": state}, {"silent_s": 1e6, "is_worker_up": False}) for state in ("paused", "changing", "serving")),
        ({"peers": STATUS.peers[:1]}, {}),  # alone
        ({"peers": [STATUS.peers[0], GONE[0], STATUS.peers[2]]}, {}),
        ({"peers": [STATUS.peers[0], GONE[0], GONE[1].model_copy(update={"link": "relayed"})]}, {}),
        ({}, {"free_bytes": LEAST_FREE_BYTES}),
        ({}, {"free_bytes": 10 << 30, "needed_bytes": 10 << 30}),
    ],
)
def test_who_is_healthy(status: dict[str, Any], facts: dict[str, Any]) -> None:
    assert reasons(status, **facts) == []


@pytest.mark.parametrize(
    ("status", "facts", "says"),
    [
        ({}, {"taken_tick": 412 - 15}, "no tick was taken for 30 s"),
        ({"tick_seconds": 20.0}, {"taken_tick": 412 - MISSED_TICKS}, "no tick was taken for 100 s"),
        ({"state": "paused"}, {"taken_tick": 1}, "no tick"),
        ({}, {"silent_s": SILENT_S}, "the worker has taken no step for 30 s"),
        ({}, {"silent_s": 6.0 * SILENT_STEPS, "step_s": 6.0}, "no step for 60 s"),
        ({}, {"is_worker_up": False}, "the worker has ended and is being started again"),
        ({"peers": [STATUS.peers[0], *GONE]}, {}, "none of the 2 other peers is heard"),
        ({}, {"free_bytes": LEAST_FREE_BYTES - 1}, "nearly full: 64 MiB are free, 64 needed"),
        ({}, {"free_bytes": 9 << 30, "needed_bytes": 10 << 30}, "9,216 MiB are free, 10,240 needed"),
        ({}, {"free_bytes": None}, "cannot be looked at"),
        ({}, {"troubles": ("round 3: under way for 200 s",)}, "round 3: under way for 200 s"),
    ],
)
def test_who_is_not_and_why(status: dict[str, Any], facts: dict[str, Any], says: str) -> None:
    [reason] = reasons(status, **facts)
    assert says in reason


def test_all_reasons_are_given() -> None:
    assert len(reasons(silent_s=99.0, free_bytes=0, troubles=("the clock was set",))) == 3


def test_an_unhealthy_peer_is_alive() -> None:
    async def nothing() -> None:
        raise AssertionError("nobody asked for that")

    async def ill() -> Pulse:
        return replace(WELL, is_worker_up=False)

    async def main() -> None:
        def status() -> Status:
            return STATUS

        actions = Actions(nothing, nothing, nothing, nothing, dict, lambda body: nothing())
        async with (
            open_http(PeerConfig(), Shown(status, ill), actions) as url,
            httpx.AsyncClient(trust_env=False, timeout=HANG_S) as client,
        ):
            answer = await client.get(f"{url}/health")
            assert answer.status_code == 503
            assert not answer.json()["is_healthy"] and "worker" in answer.json()["reasons"][0]
            assert (answer.json()["state"], answer.json()["tick"]) == ("training", 412)
            assert (await client.get(f"{url}/live")).status_code == 200

    asyncio.run(main())
