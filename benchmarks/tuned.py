"""A pretrained model that two peers tune for a task, beside the model as it was and a peer by itself in the same time.

    python -m benchmarks.tuned [--base DIR] [--data DIR] [--task NAME …] [--tokens N] [--limit N] [--quick]
                               [--json FILE]

For each task two daemons, each on a core of its own, train one LoRA adapter on the model by the task's preset, as
README.md says it; then one daemon with as many tokens as the busier of the two had: a peer by itself with the same
time. All are scored by `shoal eval --metrics` on held-out examples; some answers, to be read, are in the JSON. Without
`--base` the model is SmolLM2-135M-Instruct (`benchmarks/smollm2.py`, which needs `pip install gguf`).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.boxes import SHOAL, Box, open_boxes, shoal
from benchmarks.report import Bar, at_least, exit_with, finish, parser
from benchmarks.smollm2 import base_or_smollm2
from configs.load import load

DATA = Path("../shared/data/tasks")
TRAINED_S = 7200.0  # after which a run must have absorbed its tokens; on two cores it takes some minutes
TOKENS, QUICK_TOKENS = 120_000, 4_000  # of the swarm
BATCH_TOKENS = 512  # so few tokens are shared out among many small steps
PEERS = 2


@dataclass(frozen=True)
class Task:
    """A task, the preset that suits it, and what it is judged by."""

    preset: str
    metric: str  # of `shoal eval --metrics`
    limit: int  # held-out examples that are answered


TASKS = {
    "sum_science": Task("summarize", "ROUGE-1", 150),
    "mt_en_de": Task("translate", "chrF", 300),
    "qa_context_en": Task("answer", "F1", 300),
}
QUICK_LIMIT = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--base", type=Path, metavar="DIR", help="a Hugging Face model; else SmolLM2 is fetched")
    own.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="a folder with one for each task")
    own.add_argument("--task", action="append", choices=list(TASKS), help="only this one; may be repeated")
    own.add_argument("--tokens", type=int, help="of the swarm")
    own.add_argument("--limit", type=int, help="held-out examples that are answered, of each task")
    args = own.parse_args(argv)
    chosen = args.task or (["mt_en_de"] if args.quick else list(TASKS))
    if missing := [name for name in chosen if not (args.data / name / "train.jsonl").is_file()]:
        print(f"no {args.data / missing[0] / 'train.jsonl'}; name the folder of the tasks with --data", file=sys.stderr)
        return 2
    tokens = args.tokens or (QUICK_TOKENS if args.quick else TOKENS)
    with tempfile.TemporaryDirectory(prefix="shoal-tuned-") as name:
        base = base_or_smollm2(args.base, Path(name))
        if base is None:
            return 1
        found = {}
        for task in chosen:
            place = Path(name) / task
            place.mkdir()
            limit = args.limit or (QUICK_LIMIT if args.quick else TASKS[task].limit)
            found[task] = _measure(place, args.data / task, TASKS[task], base, tokens, limit)
    bars = [bar for name, rows in found.items() for bar in _bars(name, TASKS[name], rows)]
    left = [name for name in TASKS if name not in chosen]
    return finish(args, bars, {"seeds": [0], "tokens": tokens, "tasks": found}, left, _table(found))


def _measure(place: Path, data: Path, task: Task, base: Path, total: int, limit: int) -> dict[str, Any]:
    """Tune and score; return the rows: what was tuned → figures."""
    corpus, swarm, single = place / "corpus", place / "swarm", place / "single"
    sizes = ["--tokenizer", str(base), "--context-length", str(_context(task, base))]
    shoal("prepare", str(data / "train.jsonl"), "--out", str(corpus), *sizes)
    began = time.monotonic()
    tokens = _tune(place, "swarm", task, base, corpus, total, PEERS)
    swarm_s = time.monotonic() - began
    with ThreadPoolExecutor() as beside:  # the score of the first while the second trains, each on its own core
        scores = beside.submit(_score, swarm, corpus, limit, base, core=_cores()[-1])
        began = time.monotonic()
        _tune(place, "single", task, base, corpus, max(tokens), 1)
        single_s = time.monotonic() - began
    rows = {"swarm": scores.result(), "single": _score(single, corpus, limit)}
    rows["base"] = {"tasks": rows["swarm"].pop("base"), "loss": {}, "tokens": 0, "seconds": 0.0}
    rows["swarm"] |= {"tokens": sum(tokens), "seconds": swarm_s, "tokens_of_each": tokens}
    rows["single"] |= {"tokens": max(tokens), "seconds": single_s}
    return rows


def _tune(place: Path, kind: str, task: Task, base: Path, corpus: Path, total: int, peers: int) -> list[int]:
    """Let so many daemons, each on a core of its own, absorb `total` tokens, and fuse; return what each has trained."""
    plan = {
        "TOTAL_TOKENS": total, "STRATEGY__COMMON_TOKENS": total, "INNER__WARMUP_TOKENS": total // 20,
        "INNER__BATCH_TOKENS": max(BATCH_TOKENS, _context(task, base)), "ROUNDS__DOUBLE_TOKENS": total // 5,
    }  # fmt: skip
    environment = ["env", *(f"SHOAL_RUN__{key}={value}" for key, value in plan.items())]
    with open_boxes() as boxes:
        cores = _cores()
        for index in range(peers):
            core = str(cores[index % len(cores)])
            box = Box(place, f"{kind}{index}", behind=["taskset", "-c", core])
            boxes.append(box)
            own = ["--data", str(corpus), "--state-dir", str(box.state_dir), "--host", "127.0.0.1", "--threads", "1"]
            if index == 0:
                box.start([*environment, *SHOAL, "start", "--config", task.preset, "--init-from", str(base), *own])
            else:
                line = boxes[0].wait_for("^join with: shoal (.+)")
                box.start([*SHOAL, *line.split(), "--base", str(base), *own])
            box.wait_for("^(ready)")
        for box in boxes:
            box.status_when(lambda status: status.phase == "done", "to be done", TRAINED_S)
        tokens = [box.status().peers[0].tokens for box in boxes]
        for box in boxes:
            box.stop()
        shoal("fuse", str(boxes[0].state_dir), "--out", str(place / kind), "--format", "llama")
    return tokens


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _context(task: Task, base: Path) -> int:
    plan = load(task.preset, init_from=base).run
    assert plan is not None
    return plan.model.context_length


def _score(model: Path, corpus: Path, limit: int, base: Path | None = None, core: int | None = None) -> dict[str, Any]:
    """Return loss, metrics and samples of a model and, beside it, the metrics of its `base`."""
    more = [] if base is None else ["--base", str(base)]
    behind = [] if core is None else ["taskset", "-c", str(core)]
    said = shoal(
        "eval", str(model), "--data", str(corpus), "--metrics", "--limit", str(limit), "--json", *more, behind=behind
    )
    told: dict[str, Any] = json.loads(said)
    return told


def _only(row: Mapping[str, Any], key: str) -> Any:
    """Return what a row says of its only domain."""
    return next(iter(row[key].values()), None)


def _bars(name: str, task: Task, rows: Mapping[str, Any]) -> list[Bar]:
    of = {kind: _only(row, "tasks")["scores"][task.metric] for kind, row in rows.items()}
    over_base = of["swarm"]["low"] - of["base"]["high"]
    over_single = of["swarm"]["high"] - of["single"]["low"]
    said = f"{of['swarm']['value']:.1f} of {of['swarm']['low']:.1f} to {of['swarm']['high']:.1f}"
    return [
        at_least(
            "smollm2",
            f"{name}: lower end of the interval of {task.metric} ({said}) minus the base's upper end",
            over_base,
            1e-9,
            of["base"]["value"],
        ),
        at_least(
            "smollm2",
            f"{name}: upper end minus the single peer's lower end (not below it)",
            over_single,
            0.0,
            of["single"]["value"],
        ),
    ]


def _table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("task", "model", title="held-out examples, 95 % intervals")
    for column in ("tokens", "seconds", "loss", "metric", "value", "interval"):
        table.add_column(column, justify="right")
    for name, rows in found.items():
        for kind in ("base", "single", "swarm"):
            row, loss = rows[kind], _only(rows[kind], "loss")
            own = (f"{row['tokens']:,}", f"{row['seconds']:.0f}", "" if loss is None else f"{loss:.3f}")
            for at, (metric, score) in enumerate(_only(row, "tasks")["scores"].items()):
                values = (metric, f"{score['value']:.2f}", f"{score['low']:.2f} to {score['high']:.2f}")
                table.add_row(*((name if kind == "base" else "", kind, *own) if not at else ("",) * 5), *values)
        table.add_section()
    return table


if __name__ == "__main__":
    exit_with(main)
