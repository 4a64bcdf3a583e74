"""The baseline: one peer that trains with `hivemind.Optimizer`, as OpenDiLoCo (2407.07852) stands on it.

The same Llama, the same token files, the same AdamW, clipping and batch as a Shoal peer, and the same pacing. Each peer
takes local steps (`use_local_updates`), and when the swarm has trained `--target-batch` sequences (an *epoch*, which
is made as long as a round of Shoal's), the parameters are averaged by all-reduce in float16. What is set:

- `delay_state_averaging`, with its delta rule: the averaging is to run behind the training. (OpenDiLoCo forbids it and
  waits in its step.) In Hivemind 1.1.12 the next local step waits for it all the same: with the delta rule
  `TrainingStateAverager.step` waits for what is pending whenever it takes an optimizer step.
- `matchmaking_time` of 5 s, scheduled before the epoch ends: what Hivemind's guide says for few peers nearby
  (OpenDiLoCo's is 15 s or more); `averaging_timeout` of 60 s.
- Averaged parameters are what is exchanged; OpenDiLoCo's pseudo-gradients and outer Nesterov step are as many bytes.

Prints a JSON object on a line: `ready` with the address that others join by, then `epoch` and `averaged` as they come.
SIGTERM ends it, with the processes that Hivemind forks.
"""

import argparse
import json
import logging
import signal
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hivemind
import torch
from hivemind.compression import Float16Compression
from hivemind.utils.logging import get_logger
from torch import Tensor, nn

from benchmarks.pacing import Pace
from configs.load import load
from configs.run import RunPlan
from peer.corpus.data import Sampler, Source, open_corpus
from peer.train.model import TokenLoss, build_model, initial_parameters

MATCHMAKING_S = 5.0
AVERAGING_S = 60.0


def main() -> None:
    args = _arguments()
    torch.set_num_threads(1)
    plan = load(args.config).run
    assert plan is not None
    get_logger("hivemind.optim.state_averager").addHandler(Averagings(level=logging.INFO))
    module = build(plan)
    dht = hivemind.DHT(
        initial_peers=args.peers, host_maddrs=[f"/ip4/{args.host}/tcp/0"], use_ipfs=False, start=True, await_ready=True
    )
    optimizer = hivemind.Optimizer(
        dht=dht,
        run_id="baseline",
        target_batch_size=args.target_batch,
        batch_size_per_step=plan.inner.batch_tokens // plan.model.context_length,
        params=list(module.parameters()),
        optimizer=partial(
            torch.optim.AdamW,
            lr=plan.inner.learning_rate,
            betas=plan.inner.betas,
            weight_decay=plan.inner.weight_decay,
            fused=True,
        ),
        use_local_updates=True,
        delay_state_averaging=True,
        state_averaging_compression=Float16Compression(),
        matchmaking_time=MATCHMAKING_S,
        averaging_timeout=AVERAGING_S,
        verbose=True,
    )
    leaving = threading.Event()
    # Not earlier: the processes that Hivemind forks would inherit it, and could not be ended.
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    tell(kind="ready", address=str(dht.get_visible_maddrs()[0]))
    try:
        train(plan, module, optimizer, args, leaving)
    finally:
        optimizer.shutdown()
        dht.shutdown()


def build(plan: RunPlan) -> TokenLoss:
    """Return the model, with the parameters that a Shoal run of the same seed begins with."""
    model = build_model(plan.model)
    model.load_state_dict(initial_parameters(plan.model, plan.seed), strict=False)
    return TokenLoss(model)


def train(plan: RunPlan, module: TokenLoss, optimizer: Any, args: argparse.Namespace, leaving: threading.Event) -> None:
    """Take paced steps until told to leave."""
    corpus = open_corpus(args.data)
    files = [corpus.blob(shard.content_id) for domain in corpus.info.domains for shard in domain.shards]
    sampler = Sampler([Source(str(f), corpus.info.vocab_size) for f in files], plan.model.context_length, args.seed)
    count = plan.inner.batch_tokens // plan.model.context_length
    pace, step, epoch = Pace.from_environment(), 0, 0

    def one_step(windows: Tensor) -> float:
        loss = module(windows) / (count * plan.model.context_length)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), plan.inner.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    while not leaving.is_set():
        loss = pace.step(partial(one_step, sampler.batch(step, count)))
        step += 1
        if optimizer.local_epoch != epoch:
            epoch = optimizer.local_epoch
            tell(kind="epoch", epoch=epoch, tokens=step * plan.inner.batch_tokens, loss=round(loss, 4))


class Averagings(logging.Handler):
    """Says how each averaging ended: Hivemind tells it to its log alone."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(("Averaged parameters with", "Averaging failed")):
            tell(kind="averaged", outcome=text)


def tell(**facts: Any) -> None:
    print(json.dumps({"time": time.time(), **facts}), flush=True)


def _arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One peer of the baseline.")
    parser.add_argument("--config", required=True, help="the preset that Shoal's peers have")
    parser.add_argument("--data", type=Path, required=True, help="a corpus made by `shoal prepare`")
    parser.add_argument("--seed", type=int, required=True, help="of the order of the data")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--target-batch", type=int, required=True, help="sequences of the whole swarm in an epoch")
    parser.add_argument("--peers", nargs="*", default=[], help="addresses to join by")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
