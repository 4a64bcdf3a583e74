"""What links really do: rate, delay, jitter and loss between two peers of `links.py`, measured from this process.

    python -m benchmarks.probe       the links themselves, at several rates: is the bed good enough for the benchmarks?

A socket stays in the network namespace that it was made in, so one process can hold sockets of all peers.
"""

import argparse
import socket
import statistics
import struct
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from benchmarks.patience import HANG_S
from benchmarks.report import at_most, finish, run
from benchmarks.usage import cpu_seconds
from peer.chaos.links import Link, Links, Peer, enter_place, open_links

SO_RCVBUFFORCE, SO_TIMESTAMPNS = (
    33,
    35,
)  # Linux; with the second the kernel notes when a datagram came in, so a late reader does not count
PORT = 5000
SETTLED_S = 1.0  # without a datagram, after which no more will come
DATAGRAM_BYTES = 100
DELAY_MS = 50.0


@dataclass(frozen=True)
class Delays:
    """Of datagrams one way, in milliseconds, and the share that did not arrive."""

    median_ms: float
    jitter_ms: float  # 99th percentile over the median
    lost: float


def socket_in(peer: Peer, kind: socket.SocketKind) -> socket.socket:
    """Return a new socket that lives in the peer's namespace."""

    with ThreadPoolExecutor(1, initializer=enter_place, initargs=(peer,)) as thread:  # it changes over, and ends
        made = thread.submit(socket.socket, socket.AF_INET, kind).result()
    made.settimeout(HANG_S)
    return made


def measure_rate(sender: Peer, receiver: Peer, seconds: float, port: int = PORT) -> float:
    """Return the megabits a second, headers included, that one TCP stream brings from peer to peer.

    Counts what arrives from a fifth of the time on: TCP has found the rate by then.
    """
    with socket_in(receiver, socket.SOCK_STREAM) as listening, socket_in(sender, socket.SOCK_STREAM) as sending:
        listening.bind((receiver.address, port))
        listening.listen()
        sending.connect((receiver.address, port))
        receiving, _ = listening.accept()
        began = time.monotonic()
        pushing = threading.Thread(target=_push, args=(sending, began + seconds))
        pushing.start()
        with receiving:
            rate = _count(receiving, receiver, began + seconds / 5, began + seconds)
            pushing.join()
    return rate


def measure_delay(sender: Peer, receiver: Peer, number: int, pause_s: float, port: int = PORT) -> Delays:
    """Send `number` datagrams one way, one each `pause_s`, and return how long they took."""
    with socket_in(receiver, socket.SOCK_DGRAM) as taking, socket_in(sender, socket.SOCK_DGRAM) as giving:
        taking.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        taking.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        taking.bind((receiver.address, port))
        giving.connect((receiver.address, port))
        for _ in range(number):
            giving.send(struct.pack("q", time.time_ns()).ljust(DATAGRAM_BYTES))
            time.sleep(pause_s)
        taking.settimeout(SETTLED_S)
        took_ms = sorted(_datagrams(taking))
    late = took_ms[min(len(took_ms) - 1, int(0.99 * len(took_ms)))]
    median = statistics.median(took_ms)
    return Delays(median, late - median, 1 - len(took_ms) / number)


def main(args: argparse.Namespace) -> int:
    seconds = 2.0 if args.quick else 8.0
    table = Table("links", "rate, Mbit/s", "delay, ms", "jitter, ms", "relay, share of a core", title="The links")
    rows = []
    for mbit in (5, 20, 100):
        with open_links([Link(mbit, mbit, DELAY_MS)] * 4) as links:
            rows.append(_row(f"2 at {mbit} Mbit/s", links, 1, seconds))
    with open_links([Link(100, 100, DELAY_MS)] * 4) as links:
        rows.append(_row("4 in a ring at 100 Mbit/s", links, 4, seconds))
    with open_links([Link()] * 4) as links:
        rows.append(_row("2, unlimited", links, 1, seconds))
    for row in rows:
        rates = ", ".join(f"{rate:.1f}" for rate in row["rates_mbit"])
        idle = row["idle"]
        table.add_row(
            row["links"], rates, f"{idle['median_ms']:.2f}", f"{idle['jitter_ms']:.2f}", f"{row['relay_share']:.2f}"
        )
    errors = [abs(row["rates_mbit"][0] / mbit - 1) for row, mbit in zip(rows, (5, 20), strict=False)]
    late_ms = [row["idle"]["median_ms"] + row["idle"]["jitter_ms"] - DELAY_MS for row in rows[:3]]
    bars = [
        at_most("links_rate", "error of a TCP stream's rate at 5 and 20 Mbit/s, share", max(errors), 0.1),
        at_most("links_delay", "lateness of 99 % of the datagrams on idle links, ms", max(late_ms), 5.0),
        at_most("links_cpu", "relay at 4 x 100 Mbit/s, share of a core", rows[3]["relay_share"], 0.5),
    ]
    return finish(args, bars, {"seeds": [0], "delay_ms": DELAY_MS, "links": rows}, table=table)


def _row(name: str, links: Links, streams: int, seconds: float) -> dict[str, Any]:
    """Measure the delay while nothing else is sent, then the rate of streams that are sent at once, in a ring."""
    peers = links.peers
    idle = measure_delay(peers[0], peers[1], 200, 0.002)
    before, began = cpu_seconds(links.relay_pid()), time.monotonic()
    with ThreadPoolExecutor(streams) as threads:
        at_once = [
            threads.submit(measure_rate, peers[i], peers[(i + 1) % len(peers)], seconds, PORT + i)
            for i in range(streams)
        ]
        rates = [each.result() for each in at_once]
    share = (cpu_seconds(links.relay_pid()) - before) / (time.monotonic() - began)
    return {"links": name, "rates_mbit": rates, "idle": asdict(idle), "relay_share": share, "counts": links.counts()}


def _push(sending: socket.socket, until: float) -> None:
    chunk = bytes(1 << 16)
    while time.monotonic() < until:
        sending.send(chunk)


def _count(receiving: socket.socket, receiver: Peer, since: float, until: float) -> float:
    """Read on, and return the rate at the receiver's device between two points in time."""
    buffer = bytearray(1 << 18)
    marks: list[tuple[float, int]] = []
    for at in (since, until):
        while time.monotonic() < at:
            receiving.recv_into(buffer)
        marks.append((time.monotonic(), receiver.wire_bytes()[0]))
    (begin, bytes_before), (end, bytes_after) = marks
    return 8e-6 * (bytes_after - bytes_before) / (end - begin)


def _datagrams(taking: socket.socket) -> Sequence[float]:
    took_ms: list[float] = []
    while True:
        try:
            data, ancillary, _, _ = taking.recvmsg(DATAGRAM_BYTES, 256)
        except TimeoutError:
            return took_ms
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
        took_ms.append((seconds * 10**9 + nanoseconds - struct.unpack("q", data[:8])[0]) / 1e6)


if __name__ == "__main__":
    run(main, "What the links of the benchmarks really do: rate, delay, jitter, CPU.")
