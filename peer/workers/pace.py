"""What this machine can do, measured, and the clock that a run founded here gets from it."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from configs.errors import DeviceError
from configs.machine import PeerConfig
from configs.run import RoundPlan, RunPlan
from peer.train.channel import packed
from peer.train.launch import Setup, shared
from peer.train.messages import Answered, Asked, Failed, Measure, Measured
from peer.train.partition import COMMON, Strategy
from peer.workers.ranks import Rank, open_ranks, preload
from protocols.codecs import encoded_size, roundtrip

MIN_TICK_S, MAX_TICK_S = 1.0, 300.0  # bounds of a tick that nobody named
ROOM = 4.0  # times that an offer's making and sending fit before the cut of the first rounds
MEASURE_S = 600.0  # seconds for a few steps, imports included, after which they count as hung


@dataclass(frozen=True)
class Pace:
    """How long a machine takes for what a round is made of, in seconds."""

    step_s: float  # one inner step
    offer_s: float  # to encode an offer and to decode it
    send_s: float  # to send an offer to one other peer, by the cap on what is sent; 0 without one


def choose_tick(rounds: RoundPlan, pace: Pace) -> tuple[float, str]:
    """Return the tick in seconds with which a machine of this pace founds a run, and why: so many of its steps.

    The first rounds are the shortest. Their cut must leave time for an offer to be made, sent, and read by others.
    """
    steps_s = rounds.tick_steps * pace.step_s
    needed_s = ROOM * (pace.offer_s + pace.send_s) / (rounds.cut_share * rounds.first_ticks)
    tick_s = min(MAX_TICK_S, max(MIN_TICK_S, steps_s, needed_s))
    if tick_s == steps_s:
        why = f"{rounds.tick_steps:g} steps of {pace.step_s:.2g} s"
    elif tick_s == needed_s:
        why = f"an offer takes {pace.offer_s + pace.send_s:.2g} s to make and to send"
    else:
        bound = "longest" if tick_s == MAX_TICK_S else "shortest"
        why = f"the {bound} that is chosen by itself, where a step takes {pace.step_s:.2g} s"
    return round(tick_s, 2), why


async def measure_pace(config: PeerConfig, plan: RunPlan, base: Path | None = None) -> Pace:
    """Measure this machine for a run. `base`: the frozen model, if adapters are trained on one.

    Raises DeviceError: there is no such device, or the model does not fit.
    """
    step_s = await measure_step(config, plan, base)
    size = Strategy.of(plan.strategy, 1).layout(COMMON, plan.model).size
    codec = plan.outer.codec
    offer_s = await asyncio.to_thread(_offer_seconds, codec, size)
    send_s = 8e-6 * encoded_size(codec, size) / config.up_mbit if config.up_mbit else 0.0
    return Pace(step_s, offer_s, send_s)


async def measure_step(config: PeerConfig, plan: RunPlan, base: Path | None = None) -> float:
    """Return the seconds that one inner step of `plan` takes on this machine's devices, in a worker of its own."""
    preload()
    size = Strategy.of(plan.strategy, 1).layout(COMMON, plan.model).size
    with tempfile.TemporaryDirectory(prefix="shoal-") as folder:
        rendezvous = str(Path(folder) / "measure")
        setup = Setup.first(config, plan, rendezvous=rendezvous, micro_batch=config.micro_batch, base=base)
        async with asyncio.timeout(MEASURE_S), open_ranks(setup, shared(size), shared(size)) as ranks:
            return await _slowest(ranks)


async def _slowest(ranks: Sequence[Rank]) -> float:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_ask(rank)) for rank in ranks]
    return max(task.result() for task in asked)


async def _ask(rank: Rank) -> float:
    rank.writer.write(packed(Asked(id=0, request=Measure())))
    async for message in rank.messages():
        match message:
            case Failed(reason=reason):
                raise DeviceError(reason)
            case Answered(answer=Measured(step_s=step_s)):
                return step_s
    raise DeviceError(f"{rank.name} ended while a step was measured; see its log, then start again")


def _offer_seconds(codec: str, size: int) -> float:
    values = torch.randn(size)
    began = time.monotonic()
    roundtrip(codec, values)
    return time.monotonic() - began
