"""How long a newcomer waits: from typing the join line to its first trained step, imports included, on loopback.

One process founds a run with `configs/tiny.toml` and trains; then the line that it printed is typed, several times,
each time with a fresh state directory, and the newcomer leaves again. It counts as trained when its own status says so,
which it does at the first tick after the step. One newcomer at a time, beside the founder: two cores are enough.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.boxes import Box, open_boxes
from benchmarks.report import arguments, at_most, finish

FIRST_STEP_S = 10.0  # the bar
SETTLE_S = 10.0  # for the founder to train by itself, and for a newcomer's leaving to be over
SHOAL = [sys.executable, "-m", "peer"]


def first_step(box: Box, line: str) -> tuple[float, float]:
    """Join by `line`; return the seconds until the newcomer says "ready", and until it has trained a step."""
    began = time.monotonic()
    box.start([*SHOAL, *line.split()[1:], "--state-dir", str(box.state_dir)])
    box.wait_for("^(ready)")
    ready_s = time.monotonic() - began
    box.status_when(lambda status: status.peers[0].tokens > 0, "its first step")
    return ready_s, time.monotonic() - began


def main() -> int:
    args = arguments(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder, open_boxes() as boxes:
        founder = Box(Path(folder), "founder")
        boxes.append(founder)
        founder.start([*SHOAL, "start", "--config", "configs/tiny.toml", "--state-dir", str(founder.state_dir)])
        line = founder.wait_for("^join with: (.+)")
        taken = []
        for number in range(1 if args.quick else 3):
            time.sleep(SETTLE_S)
            boxes.append(Box(Path(folder), f"newcomer{number}"))
            taken.append(first_step(boxes[-1], line))
            boxes[-1].stop()
        founder.stop()
    each = [round(first, 2) for _, first in taken]
    bar = at_most(
        "first_step",
        "seconds from the join line to the first trained step (median)",
        statistics.median(each),
        FIRST_STEP_S,
    )
    return finish(args, [bar], {"seeds": [], "first_step_s": each, "ready_s": [round(ready, 2) for ready, _ in taken]})


if __name__ == "__main__":
    sys.exit(main())
