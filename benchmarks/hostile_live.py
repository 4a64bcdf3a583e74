"""One hostile member among five real daemons: what it costs the model, and when it is left out.

A closed run of five daemons trains until all its tokens are trained; then the founder's state is fused and scored on
held-out text. Once with five honest members, then with one that lies in its values (`hostile_daemon.py`), shows two
faces, or claims other digests. Beside the product's rule for closed runs stands its plain mean.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from benchmarks.boxes import MICRO, Box, open_boxes, shoal
from benchmarks.report import arguments, at_most, exit_with, finish
from peer.prepare.builtin import built_in_corpus

KINDS = ("sign_flip", "alie", "equivocation", "false_digests", "false_states")
MEMBERS = 5
TOKENS, QUICK_TOKENS = 3_000_000, 1_000_000
MOST_S = 900.0
LATEST_TICKS = 4  # from the first round with two offers until its signer is in no view
TICK_S = 1.0  # as in MICRO


def main() -> int:
    args = arguments(__doc__.splitlines()[0])
    tokens = QUICK_TOKENS if args.quick else TOKENS
    with tempfile.TemporaryDirectory(prefix="shoal-hostile-") as folder:
        data = built_in_corpus(Path(folder), 512, 64).path
        rules = ("robust",) if args.quick else ("robust", "mean")
        found: dict[str, dict[str, Any]] = {rule: {} for rule in rules}
        for rule in rules:
            for kind in ("", *(KINDS if rule == "robust" else KINDS[:2])):
                place = Path(folder) / f"{rule}-{kind or 'honest'}"
                place.mkdir()
                found[rule][kind or "honest"] = _train(place, data, rule, kind, tokens)
                print(rule, kind or "honest", json.dumps(found[rule][kind or "honest"]), file=sys.stderr, flush=True)
    ratios = {
        rule: {kind: each["loss"] / cells["honest"]["loss"] for kind, each in cells.items() if kind != "honest"}
        for rule, cells in found.items()
    }
    worst = max(ratios["robust"], key=ratios["robust"].__getitem__)
    mean = max(ratios["mean"].values()) if "mean" in ratios else None
    ticks = found["robust"]["equivocation"]["left_out_ticks"]
    what = f"worst loss over the honest run's, under {worst}; baseline: the plain mean's"
    bars = [
        at_most("hostile_live", what, ratios["robust"][worst], 1.02, mean),
        at_most("left_out", "ticks until who has two faces is in no view, with proof", ticks, LATEST_TICKS),
    ]
    missing = ["the plain mean: left out by --quick"] if args.quick else []
    table = Table("rule", "hostile member", "loss, nats", "over honest", "rounds sealed")
    for rule, cells in found.items():
        for kind, each in cells.items():
            over = ratios[rule].get(kind, 1.0)
            table.add_row(rule, kind, f"{each['loss']:.4f}", f"{over:.4f}", f"{each['rounds']}")
    return finish(args, bars, {"seeds": [0], "tokens": tokens, "runs": found, "over_honest": ratios}, missing, table)


def _train(place: Path, data: Path, rule: str, kind: str, tokens: int) -> dict[str, Any]:
    """Train a run to its end; return the loss of what the founder has, its rounds, and when the liar was left out."""
    own = ["--host", "127.0.0.1", "--threads", "1", "--data", str(data)]
    settings = [f"SHOAL_RUN__TOTAL_TOKENS={tokens}", f"SHOAL_RUN__OUTER__COMBINE={rule}"]
    left_out: list[float] = []
    with open_boxes() as boxes:
        boxes += [Box(place, f"peer{index}", behind=("nice", "-n", "1")) for index in range(MEMBERS)]
        founder, others = boxes[0], boxes[1:]
        at = ["--state-dir", str(founder.state_dir)]
        start = [sys.executable, "-m", "peer", "start", "--config", str(MICRO), "--closed", *own, *at]
        founder.start(["env", *settings, *start])
        founder.wait_for(r"^(ready)")
        for box in others:
            peer_id = shoal("identity", "show", "--state-dir", str(box.state_dir)).strip()
            line = shoal("invite", peer_id, *at).split()
            is_liar = kind and box is others[-1]
            program = [sys.executable, "-m", *(["benchmarks.hostile_daemon", kind] if is_liar else ["peer"])]
            box.start([*program, *line[1:], *own, "--state-dir", str(box.state_dir)])
        liar = shoal("identity", "show", "--state-dir", str(others[-1].state_dir)).strip()
        met: list[float] = []
        deadline = time.monotonic() + MOST_S
        while (status := founder.status()).phase != "done" and time.monotonic() < deadline:
            is_seen = any(liar in warning and "left out" in warning for warning in status.warnings)
            if is_seen and not met:
                met.append(status.tick)
            if is_seen and not left_out and all(liar not in block.holders for block in status.blocks):
                left_out.append(status.tick - met[0])
            time.sleep(TICK_S / 4)
        rounds = founder.status().peers[0].rounds
        for box in reversed(boxes):
            box.stop()
    shoal("fuse", str(founder.state_dir), "--out", str(place / "model"))
    scored = json.loads(shoal("eval", str(place / "model"), "--data", str(data), "--json"))
    loss = fmean(scored["loss"].values())
    return {"loss": loss, "rounds": rounds, "left_out_ticks": left_out[0] if left_out else MOST_S}


if __name__ == "__main__":
    exit_with(main)
