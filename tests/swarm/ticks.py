"""How long a tick is in the swarms of these tests, and which rounds their daemons sealed together."""

import functools
import re
import subprocess
import sys
import time
from collections.abc import Sequence

QUICK_S = 4.0  # for a Python that imports torch, on a machine where ticks of the length that a test names are enough


def tick_s(quick_s: float) -> float:
    """Return the length of a tick: `quick_s`, or in proportion more on a machine that is slower or busy."""
    return round(quick_s * _slowness(), 1)


@functools.cache
def _slowness() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return max(1.0, (time.monotonic() - began) / QUICK_S)


def tick(quick_s: float) -> dict[str, str]:
    """Return the environment of a founder whose run has such ticks."""
    return {"SHOAL_RUN__ROUNDS__TICK_SECONDS": str(tick_s(quick_s))}


def sealed(logs: Sequence[str], block: str = "model") -> dict[int, set[str]]:
    """Return the digests that daemons had after the rounds in which all of them sealed the work of all."""
    everybody = f"sealed {len(logs)} of {len(logs)}"
    found: list[dict[int, str]] = []
    for log in logs:
        lines = re.findall(rf"\b{re.escape(block)} round (\d+): (?:.*; )?{everybody};.* digest (\w+),", log)
        found.append({int(round_): digest for round_, digest in lines})
    common = set.intersection(*map(set, found))
    return {round_: {rounds[round_] for rounds in found} for round_ in sorted(common)}
