"""One inner step of the `small` preset on this machine, by the product's own worker: does it run, and what it takes.

    python -m benchmarks.small_step [--sequences N]

The whole step of the preset has 64 sequences of 1,024 tokens; on a CPU a part of it is enough. The tokens are random.
"""

import argparse
import asyncio
import math
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.patience import HANG_S, until_async
from configs.load import load
from configs.machine import PeerConfig
from peer.block.store import initial_state
from peer.corpus.data import Source
from peer.train.partition import COMMON, Strategy
from peer.workers.supervisor import open_workers


async def main(sequences: int) -> None:
    plan = load("small").run
    assert plan is not None
    length = plan.model.context_length
    inner = plan.inner.model_copy(update={"batch_tokens": sequences * length})
    founded = {"genesis": 0.0, "tokenizer_sha256": "0" * 64, "end_of_text": 0}
    spec = plan.founded(30.0, inner=inner.model_dump(), **founded)
    strategy = Strategy.of(spec.strategy, 1)
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        np.random.default_rng(0).integers(0, spec.model.vocab_size, 64 * length).astype("<u2").tofile(tokens)
        async with open_workers(PeerConfig(devices=("cpu",))) as workers:
            workers.check(spec)
            await workers.start(spec, seed=0)
            workers.anchor.copy_(initial_state(spec, strategy).phi)
            began = time.monotonic()
            await workers.load(strategy, COMMON, [Source(str(tokens), spec.model.vocab_size)], {COMMON: 0})
            snapshot = await until_async(
                workers.take_snapshot, lambda each: each.tokens > 0, "the first step", most_s=6 * HANG_S
            )
            seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{len(workers.anchor) / 1e6:.1f} M parameters, {snapshot.tokens:,} tokens in {seconds:.1f} s")
    guess = math.log(spec.model.vocab_size)
    print(f"micro-batch of {workers.micro_batch}; loss {snapshot.loss:.3f}, that of a guess is {guess:.3f}")
    print(f"the daemon's side took at most {peak:.2f} GB of memory")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=8, help="in the step; the preset has 64")
    asyncio.run(main(parser.parse_args().sequences))
