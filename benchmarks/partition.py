"""Three and three: a swarm is parted, both halves train on, and are joined again.

Measured: rounds from the joining until all six have the same bits; the held-out loss of what they then have, over that
of the better half's last state; whether the tokens of both halves are in the block's age.
"""

import asyncio
import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.report import Bar, at_least, at_most
from benchmarks.routes import DEFAULT, losses, sub_models_of
from configs.files import read_model
from configs.run import RunSpec
from peer.chaos.faults import Stage, do, undo
from peer.chaos.invariants import AGREE_ROUNDS, Done, agreed_at, recovery_rounds
from peer.chaos.play import Swarm, open_swarm, seen_of
from peer.chaos.schedule import Fault, Schedule
from peer.corpus.data import Corpus, open_corpus
from peer.prepare.builtin import built_in_texts
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

ROUNDS, QUICK_ROUNDS = 10, 4  # that each half seals by itself, at least
TICK_S = 2.0
HALVES = ((0, 1, 2), (3, 4, 5))
LAPSE_TICKS = 12  # until a half has given up the other
HELD_OUT = 8192  # tokens of each domain
BLOCK = "model"


def measure(swarm: Swarm, facts: dict[str, Any], *, is_quick: bool) -> list[Bar]:
    """Part a swarm and join it; return the bars, and put what was seen into `facts`."""
    with tempfile.TemporaryDirectory(prefix="shoal-partition-") as name:
        found = asyncio.run(_part(swarm, Path(name), QUICK_ROUNDS if is_quick else ROUNDS))
    facts["partition"] = found
    better = min(found["loss_of_halves"])
    after, halves = found["tokens"], found["tokens_of_halves"]
    had = [(peer, tokens) for half in halves for peer, tokens in half.items()]
    kept = sum(min(tokens, after.get(peer, 0)) for peer, tokens in had) / sum(tokens for _, tokens in had)
    return [
        at_most("partition", f"rounds until 3 + 3 agree, {found['rounds_apart']} apart", found["rounds"], AGREE_ROUNDS),
        at_most("partition_loss", "held-out loss when they agree, over the better half's", found["loss"] / better, 1.0),
        at_least("partition_tokens", "share of the tokens of either half, by peer, that are in the age", kept, 1.0),
    ]


async def _part(swarm: Swarm, folder: Path, rounds: int) -> dict[str, Any]:
    corpus = _corpus(folder / "corpus")
    parting = Fault(kind="partition", sides=HALVES, ticks=float(rounds))
    schedule = Schedule(peers=6, tick_seconds=TICK_S, faults=(parting,))
    swarm = Swarm(swarm.config, corpus.path, swarm.program, swarm.environment)
    async with open_swarm([schedule], swarm, folder) as stage:
        await asyncio.sleep(10 * TICK_S)  # so that there is something to lose
        began = time.time()
        await do(stage, parting)
        await asyncio.sleep((LAPSE_TICKS + rounds) * TICK_S)
        halves = [_copy(stage, side[0], folder / f"half{n}") for n, side in enumerate(HALVES)]
        await undo(stage, parting)
        done = [Done(parting, began, time.time())]
        seen = seen_of(stage, done, began)
        deadline = time.monotonic() + 3 * AGREE_ROUNDS * TICK_S
        while agreed_at(seen) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        after = _copy(stage, 0, folder / "after")
        spec = read_model(stage.daemons[0].files / "run.json", RunSpec)
    assert spec is not None
    apart = min(
        sum(line.is_step and began < line.at < done[0].ended for line in seen.rounds(side[0])) for side in HALVES
    )
    found_losses = [_loss(spec, path, corpus) for path in (*halves, after)]
    return {
        "rounds": recovery_rounds(seen),
        "rounds_apart": apart,
        "tokens_of_halves": [_tokens(path) for path in halves],
        "tokens": _tokens(after),
        "loss_of_halves": found_losses[:2],
        "loss": found_losses[2],
    }


def _copy(stage: Stage, peer: int, to: Path) -> Path:
    shutil.copy(stage.daemons[peer].files / "blocks" / f"{BLOCK}.safetensors", to)
    return to


def _tokens(path: Path) -> dict[str, int]:
    """Return the tokens of each peer that a state has absorbed."""
    from peer.train.checkpoint import read_facts

    tokens: dict[str, int] = json.loads(read_facts(path)["ages"])
    return tokens


def _loss(spec: RunSpec, path: Path, corpus: Corpus) -> float:
    from peer.train.outer import read_state
    from peer.train.partition import COMMON, Strategy

    size = Strategy.of(spec.strategy, 1).layout(COMMON, spec.model).size
    phi = read_state(bytearray(path.read_bytes()), BLOCK, size).phi
    named = sub_models_of(spec, {BLOCK: phi}, len(corpus.info.domains))
    return fmean(losses(named, spec.model, corpus, HELD_OUT)[DEFAULT].values())


def _corpus(folder: Path) -> Corpus:
    prepare_texts(built_in_texts(max_bytes=400_000), folder, Plan(vocab_size=512, context_length=64))
    return open_corpus(folder)
