"""The baseline as a member of a group (see `group.py`): Hivemind's `DecentralizedAverager` with float16.

It averages as many float32 parameters as a holder's block has. The group is looked for before the step's tick
(`scheduled_time`, as Hivemind's own optimizer does), so its matchmaking is in the CPU time but not in the seconds.
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
from hivemind.compression import Float16Compression

from benchmarks.usage import tree_cpu_seconds
from peer import logs

MATCHMAKING_S = 5.0  # Hivemind's default; the group is complete earlier, when all have come
PREFIX = "baseline"


def main(plan: dict[str, Any], index: int) -> None:
    first = json.loads(sys.stdin.readline())["first"] if index else None
    dht = hivemind.DHT(
        host_maddrs=[f"/ip4/{plan['hosts'][index]}/tcp/0"], initial_peers=[first] if first else [], start=True
    )
    values = torch.zeros(plan["size"])
    averager = hivemind.DecentralizedAverager(
        [values],
        dht,
        prefix=PREFIX,
        target_group_size=len(plan["hosts"]),
        min_group_size=len(plan["hosts"]),
        min_matchmaking_time=MATCHMAKING_S,
        compression=Float16Compression(),
        allow_state_sharing=False,
        start=True,
    )
    try:
        address = next(str(each) for each in dht.get_visible_maddrs() if plan["hosts"][index] in str(each))
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
    """Average once, with the others, at wall-clock time `at`."""
    with averager.get_tensors() as tensors:
        tensors[0].fill_(float(index))
    time.sleep(max(0.0, at - MATCHMAKING_S - time.time()))
    cpu_before = tree_cpu_seconds(os.getpid())
    control = averager.step(scheduled_time=at, timeout=timeout_s, require_trigger=True, wait=False)
    time.sleep(max(0.0, at - time.time()))
    began = time.monotonic()
    control.allow_allreduce()
    gathered = None
    with suppress(TimeoutError):
        gathered = control.result(timeout_s)
    seconds = time.monotonic() - began
    cpu_s = tree_cpu_seconds(os.getpid()) - cpu_before
    size = len(gathered) if gathered else 0
    with averager.get_tensors() as tensors:
        is_mean = (tensors[0] - (size - 1) / 2).abs() < 0.01
        averaged = float(is_mean.float().mean())
    return {"seconds": seconds, "group": size, "averaged": averaged, "cpu_s": cpu_s}


if __name__ == "__main__":
    torch.set_num_threads(1)
    logs.configure("warning")
    main(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]))
