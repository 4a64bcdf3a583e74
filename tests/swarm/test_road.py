"""README's road: a base model, JSON lines, two boxes; the fused model is that base, and answers the examples."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.families import TEMPLATE, add_tokenizer, write_model
from peer.commands.processes import founder, joiner, open_processes

TOTAL = 12_000  # tokens: some seconds
PLAN = {
    "TOTAL_TOKENS": str(TOTAL), "STRATEGY__COMMON_TOKENS": str(TOTAL), "INNER__BATCH_TOKENS": "256",
    "MODEL__CONTEXT_LENGTH": "56", "INNER__WARMUP_TOKENS": "500", "INNER__LEARNING_RATE": "1e-2",
    "ROUNDS__TICK_SECONDS": "1",
}  # fmt: skip
FISH = {"red": "cod", "blue": "eel", "pale": "ray"}

pytestmark = [pytest.mark.swarm, pytest.mark.long, pytest.mark.timeout(600)]


def shoal(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "peer", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_boxes_tune_a_base_model_for_a_task(tmp_path: Path) -> None:
    base, out, model = (tmp_path / name for name in ("base", "corpus", "model"))
    write_model(base, "llama")
    add_tokenizer(base)
    lines = [
        json.dumps({"input": f"{colour} {number}", "target": fish})
        for number in range(120)
        for colour, fish in FISH.items()
    ]
    (tmp_path / "fish.jsonl").write_text("\n".join(lines))
    sizes = ["--tokenizer", str(base), "--context-length", "56", "--prompt-format", "{input}: "]
    said = shoal("prepare", str(tmp_path / "fish.jsonl"), "--out", str(out), *sizes)
    assert f"shoal start --config answer --init-from {base} --data {out}" in said

    async def tune() -> None:
        environment = {f"SHOAL_RUN__{key}": value for key, value in PLAN.items()}
        async with open_processes() as boxes:
            boxes.append(
                founder(tmp_path, "first", "answer", "--init-from", str(base), "--data", str(out), **environment)
            )
            await boxes[0].start()
            boxes.append(joiner(tmp_path, "second", boxes[0].address, "--base", str(base)))
            await boxes[1].start()
            assert "taken on trust from" in boxes[1].log  # it joined by an address alone
            for box in boxes:
                await box.done()
            command = ["fuse", boxes[0].address, "--out", str(model), "--format", "llama", "--base", str(base)]
            await asyncio.to_thread(shoal, *command)
            for box in boxes:
                assert await box.leave() == 0

    asyncio.run(tune())
    assert (model / "chat_template.jinja").read_text() == TEMPLATE  # the base's own
    shown = shoal("eval", str(model), "--data", str(out), "--metrics", "--limit", "12", "--base", str(base))
    assert "exact match" in shown and "base" in shown
    tuned, before = (
        json.loads(shoal("eval", str(each), "--data", str(out), "--limit", "12", "--json"))["loss"]["fish"]
        for each in (model, base)
    )
    assert tuned < before - 0.1  # adapters on random weights learn little in so few steps
