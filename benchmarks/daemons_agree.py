"""Do real daemons train what the swarms in one process train? The same run by both, and the ratio of their losses.

    python -m benchmarks.daemons_agree [--data DIR] [--quick] [--json FILE]

Six daemons on loopback, with paced steps (`pacing.py`), so that a tick is a known number of them; then the same plan in
one process (`fusing_swarm.py`), on the same text, with anchors as late as they are there: one step. Each peer reads its
text in its own order, so the two are equal but for chance, and for what clocks, cuts and joining late do to real ones.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.boxes import Box, open_boxes
from benchmarks.fusing_swarm import train_swarm
from benchmarks.patience import HANG_S
from benchmarks.quality import WIDTH
from benchmarks.quality_cells import PEERS, scale_of
from benchmarks.report import between, finish, parser
from benchmarks.routes import DEFAULT, losses, sub_models_of
from benchmarks.text import DATA, corpus_for
from configs.load import load
from configs.run import RunPlan, RunSpec
from peer.visit.gather import Sources, gather

# Seconds of a step, and steps of a tick: with ticks of one second six daemons still joined in a third of the run.
PERIOD_S, TICK_STEPS = 0.5, 4
STEPS, QUICK_STEPS = 480, 160  # of each peer
BATCH, RATE = 256, 0.02
LATE_STEPS = 1
HELD_OUT = 16_384

PLAN = """
[run]
name = "agree"
total_tokens = {total}
[run.model]
vocab_size = {m.vocab_size}
hidden_size = {m.hidden_size}
num_layers = {m.num_layers}
num_heads = {m.num_heads}
num_kv_heads = {m.num_kv_heads}
mlp_size = {m.mlp_size}
context_length = {m.context_length}
[run.strategy]
kind = "branches"
common_tokens = {common}
[run.inner]
optimizer = "muon"
learning_rate = {rate}
batch_tokens = {batch}
warmup_tokens = {warmup}
[run.rounds]
tick_seconds = {tick_s}
first_ticks = 1
last_ticks = 2
cut_share = 0.5
double_tokens = {double}
[peer]
threads = 1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--data", type=Path, metavar="DIR", help=f"text, a folder for each domain (default: {DATA})")
    args = own.parse_args(argv)
    torch.set_num_threads(1)
    steps = QUICK_STEPS if args.quick else STEPS
    total = steps * PEERS * BATCH
    with tempfile.TemporaryDirectory(prefix="shoal-agree-") as name:
        folder, scale = Path(name), scale_of(WIDTH, (0,))
        corpus = corpus_for(args.data, folder, scale.model)
        config = folder / "agree.toml"
        facts = {"total": total, "common": int(0.4 * total), "rate": RATE, "batch": BATCH, "warmup": total // 50}
        facts |= {"tick_s": PERIOD_S * TICK_STEPS, "double": total // 10, "m": scale.model}
        config.write_text(PLAN.format(**facts))
        real, sealed = _by_daemons(folder, config, corpus.path, steps)
        plan = load(str(config)).run
        assert plan is not None
        spec = _in_steps(plan, corpus.info.tokenizer_sha256, corpus.info.end_of_text)
        trained = train_swarm(spec, corpus, PEERS, steps, late_steps=LATE_STEPS)
        domains = len(corpus.info.domains)
        held_out = 2048 if args.quick else HELD_OUT
        found = [
            fmean(losses(sub_models_of(spec, blocks, domains), spec.model, corpus, held_out)[DEFAULT].values())
            for blocks in (real, trained.blocks)
        ]
    what = f"loss of {PEERS} daemons over the same run in one process ({sealed:.0%} of their rounds were sealed by all)"
    bar = between("daemons_agree", what, found[0] / found[1], 0.99, 1.01)
    return finish(args, [bar], {"seeds": [0], "steps": steps, "daemons": found[0], "one_process": found[1]})


def _by_daemons(folder: Path, config: Path, data: Path, steps: int) -> tuple[dict[str, torch.Tensor], float]:
    """Let daemons train the plan to its end; return the blocks, and the share of the rounds that all sealed."""
    with open_boxes() as boxes:
        boxes += [Box(folder, f"peer{n}", None, PERIOD_S) for n in range(PEERS)]
        boxes[0].found(config, data)
        line = boxes[0].wait_for("^join with: (.+)")
        for box in boxes[1:]:
            box.join(line, data)
        for box in boxes:
            box.wait_for("^(ready)")
        for box in boxes:
            box.status_when(lambda status: status.phase == "done", "to be done", 5 * steps * PERIOD_S + HANG_S)
        for box in boxes:
            box.stop()
        ended = [line for box in boxes for line in box.log.splitlines() if " round " in line and "model" in line]
        full = sum(f"sealed {PEERS} of {PEERS}" in line for line in ended)
        parts = gather(Sources([str(box.state_dir) for box in boxes]))
    return dict(parts.blocks), full / max(1, len(ended))


def _in_steps(plan: RunPlan, tokenizer_sha256: str, end_of_text: int) -> RunSpec:
    """Return the plan as a run whose ticks are inner steps."""
    rounds = plan.rounds
    assert rounds.tick_seconds is not None
    lengths = {"first_ticks": TICK_STEPS * rounds.first_ticks, "last_ticks": TICK_STEPS * rounds.last_ticks}
    plan = plan.model_copy(update={"rounds": rounds.model_copy(update=lengths)})
    return plan.founded(rounds.tick_seconds, genesis=0.0, tokenizer_sha256=tokenizer_sha256, end_of_text=end_of_text)


if __name__ == "__main__":
    sys.exit(main())
