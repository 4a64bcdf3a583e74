"""The baseline as a member of a group (see `group.py`): Hivemind's `DecentralizedAverager` with float16.

It averages as many float32 parameters as a holder's block has, in settings that suit it: everybody looks for the group
ahead of the step's tick (`scheduled_time`, as Hivemind's own optimizer does), not all at the same moment, and exchanges
when the tick has come and the group is there. So matchmaking is in the CPU time, and said apart from the seconds.
Its 8-bit codecs would send less, but are wrong with the NumPy that is installed.
"""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import hivemind
import torch
from hivemind.averaging.control import AveragingStage
from hivemind.averaging.partition import AllreduceException
from hivemind.compression import Float16Compression

from benchmarks.usage import tree_cpu_seconds
from peer.commands import logs

MATCHMAKING_S = 5.0  # before the tick; groups that are not whole by then dissolve and form anew every 5 s
STAGGER_S = 0.5  # between two that begin to look: of those that ask each other at once, none is accepted
PREFIX = "baseline"


def main(plan: dict[str, Any], index: int) -> None:
    earlier = json.loads(sys.stdin.readline())["earlier"]
    host, peers = plan["hosts"][index], len(plan["hosts"])
    dht = hivemind.DHT(host_maddrs=[f"/ip4/{host}/tcp/0"], initial_peers=earlier, start=True)
    averager = hivemind.DecentralizedAverager(
        [torch.zeros(plan["size"])],
        dht,
        prefix=PREFIX,
        target_group_size=peers,
        min_group_size=plan.get("least", peers),
        next_chunk_timeout=plan.get("silence_s"),
        compression=Float16Compression(),
        allow_state_sharing=False,
        start=True,
    )
    try:
        address = next(str(each) for each in dht.get_visible_maddrs() if host in str(each))
        print(json.dumps({"address": address}), flush=True)
        genesis = json.loads(sys.stdin.readline())["genesis"]
        for number in range(1, plan["steps"] + 1):
            said = step(averager, index, genesis + number * plan["tick_seconds"], plan["tick_seconds"])
            print(json.dumps({"step": number, **said}), flush=True)
        print(json.dumps({"done": True}), flush=True)
        sys.stdin.readline()  # serve until all are done
    finally:
        averager.shutdown()
        dht.shutdown()


def step(averager: hivemind.DecentralizedAverager, index: int, at: float, timeout_s: float) -> dict[str, Any]:
    """Average once, with the others, at wall-clock time `at` or when the group has formed."""
    with averager.get_tensors() as tensors:
        tensors[0].fill_(float(index))
    wait_until(at - MATCHMAKING_S + index * STAGGER_S)
    cpu_before, looked = tree_cpu_seconds(os.getpid()), time.time()
    control = averager.step(scheduled_time=at, timeout=timeout_s, require_trigger=True, wait=False)
    while control.stage in (AveragingStage.IDLE, AveragingStage.LOOKING_FOR_GROUP):
        time.sleep(0.005)
    matched = time.time()
    wait_until(at)
    control.allow_allreduce()
    began, gathered = time.monotonic(), None
    with suppress(TimeoutError, AllreduceException):  # no group was found in time: a step of nobody
        gathered = control.result(timeout_s)
    seconds = time.monotonic() - began
    cpu_s = tree_cpu_seconds(os.getpid()) - cpu_before
    size = len(gathered) if gathered else 0
    with averager.get_tensors() as tensors:
        is_mean = (tensors[0] - (size - 1) / 2).abs() < 0.01
    return {
        "seconds": seconds,
        "matchmaking_s": matched - looked,
        "group": size,
        "averaged": float(is_mean.float().mean()),
        "cpu_s": cpu_s,
    }


def wait_until(at: float) -> None:
    time.sleep(max(0.0, at - time.time()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    logs.configure("warning")
    main(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]))
