"""A status as a busy swarm of three peers would give it; `index` says which of them speaks."""

import math

from peer.http.health import Pulse
from peer.http.status import BlockStatus, DigestMark, PeerStatus, Status

STARTED = 1_700_000_000.0 - 780
PEERS = ("12D3KooWGRUfqbiLJwwAzd3rYH5kdcF7mHhAaBbCcDdEeFAAAAAA", "12D3KooWBBBBBB", "12D3KooWCCCCCC")
DOMAINS = ("python", "docs", "cpp")


def peer(index: int) -> PeerStatus:
    trunk = [DigestMark(version=version, digest=f"{version:02x}" * 32) for version in range(68, 73)]
    return PeerStatus(
        peer_id=PEERS[index],
        sub_model=f"expert.{index}",
        domain=DOMAINS[index],
        state="training",
        rounds=412 + index,
        loss=3.2 + index / 10,
        tokens=800_000 + index,
        tokens_per_s=2_345.6,
        bytes_in=45_600_000,
        bytes_out=43_100_000,
        seen_tick=400,
        digests={"trunk": trunk, f"expert.{index}": [DigestMark(version=72, digest=f"{index}a" * 32)]},
    )


def example(index: int = 0) -> Status:
    blocks = [BlockStatus(block="trunk", holders=list(PEERS), keepers=list(PEERS), age=2_410_000, version=72)]
    blocks += [BlockStatus(block=f"expert.{k}", holders=[PEERS[k]], keepers=list(PEERS), age=803_000) for k in range(3)]
    for block in blocks:
        block.round_ticks, block.last_round, block.outcome = (
            2,
            410,
            f"sealed {len(block.holders)} of {len(block.holders)}",
        )
    order = [index, *(other for other in range(3) if other != index)]
    return Status(
        version="0.1.0",
        peer_id=PEERS[index],
        run_id="0123456789abcdef" * 2,
        run_name="tiny",
        strategy="experts",
        phase="parted",
        state="training",
        tick=412,
        tick_seconds=2.0,
        started_at=STARTED,
        addresses=[f"/ip4/192.168.178.120/tcp/41234/p2p/{PEERS[index]}"],
        join=f"shoal join /ip4/192.168.178.120/tcp/41234/p2p/{PEERS[index]} --run {'0123456789abcdef' * 2}",
        url="http://127.0.0.1:8080",
        sub_models={f"expert.{k}": DOMAINS[k] for k in range(3)},
        blocks=blocks,
        peers=[peer(i) for i in order],
        age=2_410_000,
        total_tokens=4_000_000,
        eta_s=372.0,
        losses=[(k * 1000, 7.6 * math.exp(-k / 60) + 3.2 + 0.05 * (k % 7)) for k in range(200)],
        events=[
            "BBBBBB joined",
            "CCCCCC joined",
            "sub-models parted: expert.0 is ours",
            "worker restarted: out of memory",
        ],
    )


async def pulse() -> Pulse:
    """Return the pulse of a peer that is well."""
    return Pulse(taken_tick=412, is_worker_up=True, silent_s=0.2, step_s=0.1, free_bytes=1 << 40, needed_bytes=1 << 20)
