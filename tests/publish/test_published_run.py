"""A run outlives its swarm: a daemon publishes it, all of it is lost, and another one goes on from the bucket."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import Server

from benchmarks.patience import until_async
from configs.errors import NetworkError
from peer.commands.processes import LOCAL, Process, founder, open_processes
from peer.http.status import Status
from peer.prepare.builtin import built_in_texts
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

MICRO = str(Path(__file__).parents[1] / "swarm" / "micro.toml")
TICK = {"SHOAL_RUN__ROUNDS__TICK_SECONDS": "2.0"}

pytestmark = [pytest.mark.swarm, pytest.mark.long]


async def until_status(process: Process, is_so: Callable[[Status], bool], what: str) -> Status:
    async def look() -> Status | None:
        try:
            return await process.status()
        except NetworkError:
            assert process.is_running, f"{process.name} ended before {what}: {process.log[-3000:]}"
            return None

    def holds(status: Status | None) -> bool:
        return status is not None and is_so(status)

    found = await until_async(look, holds, what, seen=lambda status: f"{status}\n{process.log[-3000:]}")
    assert found is not None
    return found


def test_a_run_goes_on_from_where_it_was_published(s3: Server, tmp_path: Path) -> None:
    corpus, curves = tmp_path / "corpus", tmp_path / "curves"
    prepare_texts(built_in_texts(max_bytes=200_000), corpus, Plan(vocab_size=512, context_length=64))

    async def main() -> tuple[Status, Status]:
        async with open_processes() as processes:
            flags = ["--data", str(corpus), "--publish", "s3://fish/run", "--publish-every", "2 rounds"]
            first = founder(tmp_path, "first", MICRO, *flags, "--track", f"tensorboard:{curves}", **TICK)
            processes.append(first)
            await first.start()

            def published(status: Status) -> bool:
                return sum("published s3://fish/run" in event for event in status.events) >= 2 and not status.warnings

            before = await until_status(first, published, "two checkpoints that are published")
            await first.kill()
            shutil.rmtree(first.state_dir)
            flags = ["--from", "s3://fish/run", "--data", str(corpus)]
            second = Process("second", tmp_path / "second", ["start", *LOCAL, *flags], {})
            processes.append(second)
            await second.start()
            rounds = await until_status(second, lambda status: status.peers[0].rounds >= 1, "a round of the same run")
            assert await second.leave() == 0, second.log[-3000:]
            return before, rounds

    before, after = asyncio.run(main())
    assert after.run_id == before.run_id and after.peer_id != before.peer_id
    assert after.blocks[0].version >= 2 and after.age > 0
    out = tmp_path / "model"
    command = [sys.executable, "-m", "peer", "fuse", "s3://fish/run", "--out", str(out), "--push", "s3://fish/model"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "pushed" in done.stdout, done.stderr
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(curves))
    events.Reload()
    assert events.Scalars("loss/train")[-1].step > 0
