"""Real worker processes: they train, hand over, die and come back, and end with the daemon."""

import asyncio
import math
import os
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.patience import HANG_S, patience, until_async
from configs.errors import DataError, DeviceError
from configs.load import load
from configs.machine import PeerConfig
from configs.run import AdapterSpec, InnerSpec, ModelSpec, RoundSpec, RunSpec, StrategySpec
from peer.corpus.data import Sampler, Source
from peer.corpus.source import Part
from peer.train import launch
from peer.train.model import initial_parameters
from peer.train.partition import COMMON, TRUNK, Strategy
from peer.workers import supervisor
from peer.workers.supervisor import Workers, open_workers
from peer.workers.trainer import Event

STRATEGY = Strategy("experts", 2)
SPEC = RunSpec(
    name="test",
    total_tokens=10_000_000,
    model=ModelSpec(
        vocab_size=300, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, mlp_size=48, context_length=16
    ),
    strategy=StrategySpec(kind="experts", common_tokens=1_000_000),
    inner=InnerSpec(learning_rate=0.003, batch_tokens=64),
    rounds=RoundSpec(tick_seconds=1, double_tokens=1000),
    genesis=0,
    end_of_text=0,
    tokenizer_sha256="0" * 64,
)
BATCH_TOKENS = 64
Events = asyncio.Queue[Event]


def write_tokens(path: Path) -> Source:
    np.random.default_rng(0).integers(0, 40, 20_000).astype("<u2").tofile(path)
    return Source(str(path), 300)


def config_of(devices: tuple[str, ...]) -> PeerConfig:
    return PeerConfig(devices=devices, threads=1)


@asynccontextmanager
async def training(
    folder: Path, devices: tuple[str, ...] = ("cpu",), spec: RunSpec = SPEC, spare: int | None = None
) -> AsyncIterator[tuple[Workers, Events]]:
    """Hold workers that train the common model; for their first step they get only `spare` bytes, if that is given."""
    events: Events = asyncio.Queue()
    async with open_workers(config_of(devices), events.put_nowait) as workers:
        await workers.start(spec, seed=1)
        with nullcontext() if spare is None else limited_memory(workers, spare):
            named = initial_parameters(spec.model, 0)
            layout = STRATEGY.layout(COMMON, spec.model)
            workers.anchor.copy_(torch.cat([named[slot.name].reshape(-1) for slot in layout.slots]))
            await workers.load(STRATEGY, COMMON, [write_tokens(folder / "tokens")], {COMMON: 0})
            yield workers, events


async def trained(workers: Workers, tokens: int) -> None:
    """Wait until the workers have trained so many tokens since `load`."""
    what = f"{tokens} tokens to be trained"
    await until_async(workers.take_snapshot, lambda snapshot: snapshot.tokens >= tokens, what)


def pids(workers: Workers) -> list[int]:
    return [rank.process.pid or 0 for rank in workers._ranks]


@contextmanager
def limited_memory(workers: Workers, spare: int) -> Iterator[None]:
    """Let the workers, and those that are started after them, allocate only `spare` bytes more than they have now."""
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    for pid in (server, *pids(workers)):
        kibibytes = re.search(r"^VmData:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
        assert kibibytes
        _, most = resource.prlimit(pid, resource.RLIMIT_DATA)
        resource.prlimit(pid, resource.RLIMIT_DATA, (int(kibibytes[1]) * 1024 + spare, most))
    try:
        yield
    finally:
        resource.prlimit(server, resource.RLIMIT_DATA, (most, most))  # it lives on, for the next test


@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu")])
def test_a_killed_rank_comes_back_from_the_anchor(tmp_path: Path, devices: tuple[str, ...]) -> None:
    async def main() -> None:
        async with training(tmp_path, devices) as (workers, events):
            await trained(workers, 4 * BATCH_TOKENS)
            await workers.pause()
            snapshot = await workers.take_snapshot()
            workers.anchor.copy_(workers.snapshot)
            await workers.apply({COMMON: snapshot.tokens})
            epoch = workers.epoch
            began = time.monotonic()
            os.kill(pids(workers)[-1], signal.SIGKILL)
            after = await asyncio.wait_for(workers.take_snapshot(), HANG_S)  # asked again until somebody answers
            print(f"restart with {len(devices)} ranks: {time.monotonic() - began:.2f} s")
            assert "SIGKILL" in (await events.get()).reason
            assert workers.epoch > epoch
            assert after.tokens == snapshot.tokens  # nothing that the anchor has is lost, and it is still paused
            assert torch.equal(workers.snapshot, workers.anchor)
            await workers.resume()
            await trained(workers, snapshot.tokens + 2 * BATCH_TOKENS)

    asyncio.run(main())


def test_an_anchor_in_mid_run_keeps_what_was_learnt_meanwhile(tmp_path: Path) -> None:
    async def main() -> None:
        async with training(tmp_path) as (workers, _):
            first = await workers.take_snapshot()
            theta = workers.snapshot.clone()
            await trained(workers, first.tokens + 2 * BATCH_TOKENS)
            await workers.pause()
            later = await workers.take_snapshot()
            meanwhile = workers.snapshot - theta
            workers.snapshot.copy_(theta)  # the exchange of the first snapshot ends only now
            workers.anchor.copy_(theta + 0.01)
            await workers.apply({COMMON: 1000})
            last = await workers.take_snapshot()
            assert last.tokens == later.tokens
            assert meanwhile.abs().max() > 0
            torch.testing.assert_close(workers.snapshot, workers.anchor + meanwhile, atol=1e-6, rtol=1e-5)

    asyncio.run(main())


def long_steps() -> RunSpec:
    """Return a run with the smallest model and steps that take a hundred times as long as a copy of it."""
    return SPEC.model_copy(update={"inner": SPEC.inner.model_copy(update={"batch_tokens": 1 << 16})})


def test_a_snapshot_and_an_anchor_wait_for_no_step(tmp_path: Path) -> None:
    async def main() -> None:
        spec = long_steps()
        async with training(tmp_path, spec=spec) as (workers, _):
            await trained(workers, 2 * spec.inner.batch_tokens)
            done, seen = workers.progress.tokens, 0
            while workers.progress.tokens == done and seen < 20:  # a step is under way; it is seen again and again
                first = await workers.take_snapshot()
                theta = workers.snapshot.clone()
                workers.anchor.copy_(theta + 0.01)
                await workers.apply({COMMON: 1000})
                second = await workers.take_snapshot()
                if second.tokens == first.tokens:  # of the same step: the anchor counts although θ is not there yet
                    assert torch.equal(workers.snapshot, theta + (workers.anchor - theta))
                    seen += 1
            assert seen > 3, "each snapshot has waited for a step"
            before = workers.anchor.clone()
            await trained(workers, second.tokens + 2 * spec.inner.batch_tokens)
            assert (workers.snapshot - before).abs().max() < 1  # and nothing was added twice

    asyncio.run(main())


def test_a_snapshot_does_not_wait_for_what_waits_for_a_step(tmp_path: Path) -> None:
    """New text and a pause come between two steps; a round that begins meanwhile is not kept."""

    async def main() -> None:
        spec = long_steps()
        async with training(tmp_path, spec=spec) as (workers, _):
            await trained(workers, 2 * spec.inner.batch_tokens)
            source = write_tokens(tmp_path / "other")
            for request in (lambda: workers.set_sources([source]), workers.pause):
                for _ in range(50):  # a step may end at any moment, also in this one
                    waiting = asyncio.create_task(request())
                    await asyncio.sleep(0)  # it is asked
                    await workers.take_snapshot()
                    has_waited = waiting.done()
                    await waiting
                    await workers.resume()
                    if not has_waited:
                        break
                assert not has_waited, "each snapshot has waited for a step"

    asyncio.run(main())


def test_sub_models_and_sources_change_in_mid_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with training(tmp_path) as (workers, events):
            await trained(workers, 2 * BATCH_TOKENS)
            blocks = [STRATEGY.derive(block, workers.snapshot, SPEC.model) for block in STRATEGY.blocks("expert.1")]
            workers.anchor.copy_(torch.cat(blocks))
            source = write_tokens(tmp_path / "other")
            await workers.load(STRATEGY, "expert.1", [source], {TRUNK: 500, "expert.1": 500})
            await trained(workers, 2 * BATCH_TOKENS)
            with pytest.raises(DataError):
                await workers.set_sources([Source(str(tmp_path / "missing"), 300)])
            idle = await workers.take_snapshot()
            await workers.set_sources([source])
            await trained(workers, idle.tokens + BATCH_TOKENS)
            assert events.empty()

    asyncio.run(main())


@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu")])
def test_held_out_text_is_scored_between_two_steps(tmp_path: Path, devices: tuple[str, ...]) -> None:
    """The loss on text like that which is trained on falls most; training goes on."""

    async def main() -> None:
        async with training(tmp_path, devices) as (workers, _):
            other = tmp_path / "held out"
            np.random.default_rng(1).integers(200, 240, 2_000).astype("<u2").tofile(other)
            sources = [write_tokens(tmp_path / "alike"), Source(str(other), 300)]
            await workers.pause()
            alike, _ = first = await workers.score(sources, 5)
            assert await workers.score(sources, 5) == first  # the same windows each time
            assert alike == pytest.approx(np.log(300), abs=1.0)
            await workers.resume()
            before = await workers.take_snapshot()
            await trained(workers, before.tokens + 60 * BATCH_TOKENS)
            alike_now, strange_now = await workers.score(sources, 5)
            assert alike_now < alike - 0.5 and strange_now > alike_now + 1.0
            with pytest.raises(DataError):
                await workers.score([Source(str(tmp_path / "missing"), 300)], 5)
            now = await workers.take_snapshot()
            await trained(workers, now.tokens + BATCH_TOKENS)

    asyncio.run(main())


def test_a_poisoned_anchor_stalls_and_a_good_one_heals(tmp_path: Path) -> None:
    async def main() -> None:
        async with training(tmp_path) as (workers, events):
            await trained(workers, BATCH_TOKENS)
            await workers.pause()
            snapshot = await workers.take_snapshot()
            good = workers.snapshot.clone()
            workers.anchor.fill_(torch.nan)
            await workers.apply({COMMON: 0})
            await workers.resume()
            kinds = [(await events.get()).kind for _ in range(4)]
            assert kinds == ["diverged", "diverged", "diverged", "stalled"]
            workers.anchor.copy_(good)
            workers.snapshot.fill_(torch.nan)  # θ is what the old anchor was
            workers.epoch -= 1  # as if the caller had not seen that θ went back: the anchor is taken as it is
            await workers.apply({COMMON: 0})
            await trained(workers, snapshot.tokens + 2 * BATCH_TOKENS)
            assert torch.isfinite(workers.snapshot).all()

    asyncio.run(main())


def test_a_cancelled_request_leaves_the_workers_usable(tmp_path: Path) -> None:
    async def main() -> None:
        async with training(tmp_path) as (workers, _):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):  # given up after it was sent
                    await workers.take_snapshot()
            await workers.pause()
            assert (await workers.take_snapshot()).tokens >= 0

    asyncio.run(main())


@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu")])
def test_a_worker_that_does_not_answer_is_started_again(
    tmp_path: Path, devices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with training(tmp_path, devices) as (workers, events):
            await trained(workers, 2 * BATCH_TOKENS)
            snapshot = await workers.take_snapshot()
            workers.anchor.copy_(workers.snapshot)
            await workers.apply({COMMON: snapshot.tokens})
            silent = pids(workers)[-1]

            def told(event: Event) -> None:
                monkeypatch.undo()  # those that are started now have the time that they need on a busy machine
                events.put_nowait(event)

            workers.on_event = told
            await until_async(anything, lambda _: workers.progress.step_s is not None, "a step whose length is told")
            monkeypatch.setattr(supervisor, "LEAST_ANSWER_S", 1.0)
            monkeypatch.setattr(supervisor, "ANSWER_STEPS", 0)  # the first step of two ranks may take seconds
            os.kill(silent, signal.SIGSTOP)
            async with patience("the worker to be given up"):
                while events.empty():  # it may answer once more before it stops
                    asked = await workers.take_snapshot()
            event = events.get_nowait()
            assert event.kind == "restarted"
            assert re.fullmatch(r"the worker on cpu did not answer for \d+ s and was ended", event.reason)
            assert asked.tokens >= snapshot.tokens  # what was asked was asked again
            assert silent not in pids(workers)
            await trained(workers, snapshot.tokens + 2 * BATCH_TOKENS)

    asyncio.run(main())


async def anything() -> None:
    """Ask nothing of the workers."""


def long_windows(sequences: int, length: int) -> RunSpec:
    """Return a run whose inner step has so many sequences; a token of them takes 15 kB until the backward pass."""
    sizes = {"hidden_size": 64, "mlp_size": 256, "context_length": length}
    inner = SPEC.inner.model_copy(update={"batch_tokens": sequences * length})
    return SPEC.model_copy(update={"model": SPEC.model.model_copy(update=sizes), "inner": inner})


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of another process: Linux only")
def test_out_of_memory_in_the_first_step_halves_the_micro_batch_until_it_fits(tmp_path: Path) -> None:
    async def main() -> None:
        spec = long_windows(sequences=64, length=256)  # 240 MB at once
        async with training(tmp_path, spec=spec, spare=100 << 20) as (workers, events):
            await trained(workers, 2 * spec.inner.batch_tokens)
            happened = [events.get_nowait() for _ in range(events.qsize())]
            print(*(event.reason for event in happened), sep="\n")
            assert [event.kind for event in happened] == ["restarted"] * len(happened)
            sizes = [int(event.reason.rpartition(" ")[2]) for event in happened]
            assert sizes == [32, 16, 8, 4, 2, 1][: len(sizes)] and sizes
            assert workers.micro_batch == sizes[-1]
            assert all(event.reason.startswith("out of memory; now with a micro-batch of") for event in happened)

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of another process: Linux only")
def test_a_sequence_that_does_not_fit_is_said_in_one_line(tmp_path: Path) -> None:
    async def main() -> None:
        spec = long_windows(sequences=2, length=16_384)  # 240 MB each
        async with training(tmp_path, spec=spec, spare=100 << 20) as (workers, events):
            with pytest.raises(DeviceError, match="out of memory even with one sequence at a time; give more") as error:
                await trained(workers, spec.inner.batch_tokens)
            print(error.value)
            assert "\n" not in str(error.value)
            assert "micro-batch of 1" in (await events.get()).reason

    asyncio.run(main())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without that GPU")
def test_a_missing_device_is_said_in_one_line() -> None:
    async def main() -> None:
        async with open_workers(config_of(("cuda:7",))) as workers:
            with pytest.raises(DeviceError, match="no device 'cuda:7' here"):
                await workers.start(SPEC, seed=1)

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is not a child: Linux only")
def adapted(**changes: object) -> RunSpec:
    model = SPEC.model.model_copy(update={"adapter": AdapterSpec(base_dtype="bfloat16")})
    strategy = StrategySpec(kind="adapters", common_tokens=1_000_000)
    return SPEC.model_copy(update={"model": model, "strategy": strategy, "initial_id": "0" * 64, **changes})


def test_adapters_learn_on_a_frozen_model_in_four_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra qlora")
    spec, strategy = adapted(), Strategy("adapters", 1)
    base = tmp_path / "base"
    named = initial_parameters(SPEC.model, 0)
    base.write_bytes(torch.cat([each.reshape(-1) for each in named.values()]).bfloat16().view(torch.uint8).numpy())

    async def main() -> None:
        async with open_workers(PeerConfig(devices=("cpu",), threads=1, base_precision="nf4")) as workers:
            workers.check(spec)
            await workers.start(spec, seed=1, base=base)
            factors = initial_parameters(spec.model, 0)
            workers.anchor.copy_(torch.cat([each.reshape(-1) for each in factors.values()]))
            await workers.load(strategy, COMMON, [write_tokens(tmp_path / "tokens")], {COMMON: 0})
            has_learnt = await until_async(
                workers.take_snapshot, lambda taken: taken.tokens >= 60 * BATCH_TOKENS and taken.steps > 0, "60 steps"
            )
            assert has_learnt.loss is not None and has_learnt.loss < math.log(SPEC.model.vocab_size) - 0.2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("devices", "spec", "package", "says"),
    [
        (("cpu",), SPEC, True, r"this run has none; leave it out"),
        (("cpu",), adapted(), False, r"pip install bitsandbytes"),
        (("cpu", "cpu"), adapted(), True, r"""name one with SHOAL_PEER__DEVICES, as '\["cpu"\]'"""),
    ],
)
def test_four_bits_that_cannot_be_are_one_line(
    devices: tuple[str, ...], spec: RunSpec, package: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: object() if package else None)
    monkeypatch.setenv("SHOAL_PEER__DEVICES", '["cpu"]')  # as the last one advises
    assert load("tiny").peer.devices == ("cpu",)

    async def main() -> None:
        async with open_workers(PeerConfig(devices=devices, base_precision="nf4")) as workers:
            with pytest.raises(DeviceError, match=says):
                workers.check(spec)

    asyncio.run(main())


def test_workers_end_when_the_daemon_is_killed(tmp_path: Path) -> None:
    daemon = subprocess.Popen([sys.executable, __file__, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    worker = os.pidfd_open(int(daemon.stdout.readline()))
    daemon.kill()
    ended, _, _ = select.select([worker], [], [], HANG_S)
    os.close(worker)
    daemon.stdout.close()
    daemon.wait()
    assert ended, f"the worker lived on for {HANG_S:g} s"


async def _be_daemon(folder: Path) -> None:
    async with training(folder) as (workers, _):
        print(pids(workers)[0], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_be_daemon(Path(sys.argv[1])))


@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu")])
def test_workers_wait_for_text_that_is_being_fetched_and_answer_meanwhile(
    tmp_path: Path, devices: tuple[str, ...]
) -> None:
    async def main() -> None:
        async with training(tmp_path, devices) as (workers, events):
            await trained(workers, BATCH_TOKENS)
            parts = tuple(Part(str(tmp_path / f"part{at}"), 16 * 40 + 1) for at in range(3))
            source = Source("store", 300, parts=parts, active=1)
            content = np.random.default_rng(2).integers(0, 40, 16 * 40 + 1).astype("<u2").tobytes()
            sampler = Sampler([source], 16, 1)
            due = [(step, Path(part.path)) for step, part in sampler.ahead(0, BATCH_TOKENS // 16)]
            due[0][1].write_bytes(content)
            await workers.load(STRATEGY, COMMON, [source], {COMMON: 0}, position=0)
            await trained(workers, due[1][0] * BATCH_TOKENS)
            for step, path in due[1:3]:
                assert (await workers.take_snapshot()).tokens == step * BATCH_TOKENS  # not one step without its text
                assert workers.progress.position == step
                await workers.pause()  # whoever waits answers
                await workers.resume()
                path.write_bytes(content)
                assert (await workers.take_snapshot()).tokens == step * BATCH_TOKENS  # until it is told
                await workers.set_sources([source])
                await trained(workers, (step + due[1][0]) * BATCH_TOKENS)
            assert events.empty()

    asyncio.run(main())
