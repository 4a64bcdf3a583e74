"""Summaries, translation, answers: a swarm of real peers, from scratch, against one peer and against no training.

    python -m benchmarks.tasks [--data DIR] [--task NAME …] [--quick] [--json FILE]

For each task four daemons train one model by its preset on loopback; then one daemon trains alone for as long as the
busiest of the four did, in inner steps: a peer of its own with the same time. What each fuses to is scored by `shoal
eval --metrics` on the task's own held-out examples, which no peer has seen.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.boxes import shoal
from benchmarks.patience import until_async
from benchmarks.report import Bar, at_least, at_most, finish, parser
from configs.errors import ShoalError
from configs.load import load
from peer.commands.processes import Process, founder, joiner, open_processes
from peer.http.status import Status

DATA = Path("../shared/data/tasks")
PEERS = 4
MAX_RATIO = 0.97  # of the single peer's loss
TRAINED_S = 7200.0  # after which a run must have absorbed its tokens; it takes some minutes on two cores
TOKENS = 900_000  # of the swarm
QUICK_TOKENS, QUICK_LIMIT = 100_000, 20


@dataclass(frozen=True)
class Task:
    """A task, the preset that suits it, and what its bars are called."""

    id: str
    preset: str
    context_length: int
    metric: str  # of `shoal eval --metrics`
    bar: str
    limit: int  # held-out examples that are answered


TASKS = {
    "sum_science": Task("sum", "summarize", 512, "ROUGE-1", "sum_rouge1", 99),
    "mt_en_de": Task("mt", "translate", 128, "chrF", "mt_chrf", 300),
    "qa_trivia_en": Task("qa", "answer", 128, "accuracy", "qa_accuracy", 331),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="a folder with one for each task")
    own.add_argument("--task", action="append", choices=list(TASKS), help="only this one; may be repeated")
    args = own.parse_args(argv)
    chosen = args.task or (["mt_en_de"] if args.quick else list(TASKS))
    if missing := [name for name in chosen if not (args.data / name / "train.jsonl").is_file()]:
        print(f"no {args.data / missing[0] / 'train.jsonl'}; name the folder of the tasks with --data", file=sys.stderr)
        return 2
    found = {name: asyncio.run(_measure(args.data / name, TASKS[name], is_quick=args.quick)) for name in chosen}
    bars = [bar for name, rows in found.items() for bar in _bars(TASKS[name], rows)]
    left = [f"{name}" for name in TASKS if name not in chosen]
    return finish(args, bars, {"seeds": [0], "tasks": found}, left, _table(found))


async def _measure(folder: Path, task: Task, *, is_quick: bool) -> dict[str, Any]:
    """Train and score; return the rows: what trained → figures."""
    with tempfile.TemporaryDirectory(prefix="shoal-tasks-") as name:
        place = Path(name)
        corpus = place / "corpus"
        plan = load(task.preset).run
        assert plan is not None
        total = QUICK_TOKENS if is_quick else TOKENS
        limit = QUICK_LIMIT if is_quick else task.limit
        examples = place / folder.name
        examples.mkdir()
        _with_options(folder / "train.jsonl", examples / "train.jsonl")
        await _shoal(
            "prepare", str(examples / "train.jsonl"), "--out", str(corpus), "--vocab-size", str(plan.model.vocab_size),
            "--context-length", str(task.context_length),
        )  # fmt: skip
        began = time.monotonic()
        tokens = await _train(place, "swarm", task, corpus, total, PEERS)
        swarm_s = time.monotonic() - began
        await _train(place, "single", task, corpus, max(tokens), 1)
        single_s = time.monotonic() - began - swarm_s
        await _train(place, "untrained", task, corpus, 1, 1)
        rows = {}
        for kind in ("untrained", "single", "swarm"):
            rows[kind] = await _score(place / f"{kind}-model", corpus, limit)
        rows["untrained"] |= {"trained_s": 0.0, "trained_tokens": 0}
        rows["single"] |= {"trained_s": single_s, "trained_tokens": max(tokens)}
        rows["swarm"] |= {"trained_s": swarm_s, "trained_tokens": sum(tokens), "tokens_of_each": tokens}
        for kind, row in rows.items():
            score = _metric(row, task.metric)
            said = (
                f"loss {_loss(row):.4f}, {task.metric} {score['value']:.2f} ({score['low']:.2f} to {score['high']:.2f})"
            )
            print(f"{folder.name}, {kind}, {row['trained_tokens']:,} tokens: {said}", file=sys.stderr, flush=True)
        return rows


async def _train(place: Path, kind: str, task: Task, corpus: Path, total: int, peers: int) -> list[int]:
    """Let so many daemons absorb `total` tokens, and fuse; return what each has trained."""
    rate = {"SHOAL_RUN__INNER__LEARNING_RATE": "1e-12"} if kind == "untrained" else {}
    warm_up = {"SHOAL_RUN__INNER__WARMUP_TOKENS": str(total // 20)}
    environment = {"SHOAL_RUN__TOTAL_TOKENS": str(total), **warm_up, **rate}
    async with open_processes() as processes:
        processes.append(founder(place, f"{kind}0", task.preset, "--data", str(corpus), **environment))
        await processes[0].start()
        for index in range(1, peers):
            processes.append(joiner(place, f"{kind}{index}", processes[0].address))
        await asyncio.gather(*(process.start() for process in processes[1:]))
        await asyncio.gather(*(_until_done(process) for process in processes))
        tokens = [(await process.status()).peers[0].tokens for process in processes]
        await _shoal("fuse", processes[0].address, "--out", str(place / f"{kind}-model"), "--format", "llama")
        for process in processes:
            await process.leave()
    return tokens


async def _until_done(process: Process) -> None:
    """Wait until a daemon's run has absorbed its tokens; one that is too busy to answer is asked again."""

    async def look() -> Status | None:
        try:
            return await process.status()
        except ShoalError as error:
            if not process.is_running:
                raise ShoalError(f"{process.name} ended: {error}; its log ends with: {process.log[-2000:]}") from None
            return None

    def is_done(status: Status | None) -> bool:
        return status is not None and status.phase == "done"

    def seen(status: Status | None) -> str:
        return f"{status.model_dump_json() if status else 'no answer'}; its log ends with: {process.log[-2000:]}"

    await until_async(look, is_done, f"{process.name} to be done", seen=seen, most_s=TRAINED_S)


async def _score(model: Path, corpus: Path, limit: int) -> dict[str, Any]:
    """Return the loss and the metrics, with their intervals."""
    said = await _shoal("eval", str(model), "--data", str(corpus), "--metrics", "--limit", str(limit), "--json")
    told: dict[str, Any] = json.loads(said)
    return told


async def _shoal(*arguments: str) -> str:
    return await asyncio.to_thread(shoal, *arguments)


def _with_options(source: Path, target: Path) -> None:
    """Copy examples; what stands in an input's last line after `options:` becomes the options that are ranked."""
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        for line in lines:
            example = json.loads(line)
            _, is_there, listed = example["input"].rpartition("\noptions: ")
            if is_there:
                example["options"] = listed.split(" | ")
            out.write(json.dumps(example, ensure_ascii=False) + "\n")


def _loss(row: Mapping[str, Any]) -> float:
    losses = list(row["loss"].values())
    return float(sum(losses) / len(losses))


def _metric(row: Mapping[str, Any], metric: str) -> dict[str, float]:
    scores: dict[str, float] = next(iter(row["tasks"].values()))["scores"][metric]
    return scores


def _bars(task: Task, rows: Mapping[str, Any]) -> list[Bar]:
    single, swarm = rows["single"], rows["swarm"]
    before = _loss(rows["untrained"]) / _loss(single)
    what = "held-out loss on the targets, swarm over a single peer; baseline: untrained over it"
    of_single, of_swarm = _metric(single, task.metric), _metric(swarm, task.metric)
    gain = of_swarm["value"] - of_single["value"]
    is_outside = of_swarm["low"] > of_single["high"]
    said = "outside of the 95 % intervals" if is_outside else "the 95 % intervals overlap"
    more = f"{task.metric} of the swarm minus the single peer's ({said}); baseline: the single peer's"
    return [
        at_most(f"{task.id}_loss", what, _loss(swarm) / _loss(single), MAX_RATIO, before),
        at_least(task.bar, more, gain, 1e-9, of_single["value"]),
    ]


def _table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("task", "trained by", title="held-out examples, 95 % intervals")
    for column in ("tokens", "seconds", "loss", "metric", "value", "interval"):
        table.add_column(column, justify="right")
    for name, rows in found.items():
        for kind, row in rows.items():
            for at, (metric, score) in enumerate(next(iter(row["tasks"].values()))["scores"].items()):
                own = (kind, f"{row['trained_tokens']:,}", f"{row['trained_s']:.0f}", f"{_loss(row):.3f}")
                interval = f"{score['low']:.2f} to {score['high']:.2f}"
                table.add_row(
                    name if not at else "", *(own if not at else ("",) * 4), metric, f"{score['value']:.2f}", interval
                )
        table.add_section()
    return table


if __name__ == "__main__":
    sys.exit(main())
