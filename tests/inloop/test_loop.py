"""The event loop has others to answer: no work on a block's values is done in it, and none on a block's bytes.

Where it is done is seen exactly, by who calls; how long a pause that leaves on a large block is `benchmarks.pauses`'s.
"""

import asyncio
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import pytest
import torch
from jumping import JumpingLoop
from swarm import GENESIS, Fault, InLoopSwarm, Kind
from torch.utils._python_dispatch import TorchDispatchMode

from configs import content
from configs.run import RunSpec
from dht.identity import Identity

OWN = str(Path(__file__).parent)

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")


class Watch(TorchDispatchMode):
    """Notes who works on `size` values or more in the event loop; what these tests do themselves does not count."""

    def __init__(self, loop: JumpingLoop, size: int) -> None:
        super().__init__()
        self.found: list[str] = []
        self._loop, self._size = loop, size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        sizes = [value.numel() for value in (*args, result) if isinstance(value, torch.Tensor)]
        if max(sizes, default=0) >= self._size and not function.is_view:
            self.note(str(function))
        return result

    def note(self, what: str) -> None:
        """Note work that is being done, unless it is in a thread."""
        if self._loop.in_thread:
            return
        calls = traceback.extract_stack(sys._getframe(1))
        inner = [call for call in calls if "/asyncio/" not in call.filename and "/torch/" not in call.filename][-8:]
        if not any(call.filename.startswith(OWN) and not call.filename.endswith(__file__) for call in inner[:-1]):
            self.found.append(f"{what}: " + " < ".join(f"{call.name} ({call.lineno})" for call in reversed(inner)))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[JumpingLoop, int], Watch]:
    def watch(loop: JumpingLoop, size: int) -> Watch:
        found = Watch(loop, size)

        def hashed(data: Any) -> Any:
            if memoryview(data).nbytes >= size and sys._getframe(2).f_code.co_name != "add":  # a chunk that has come
                found.note("blake3")
            return blake3.blake3(data)

        monkeypatch.setattr(content, "blake3", hashed)
        return found

    return watch


@pytest.mark.parametrize(("kind", "group_size"), [("replicas", 16), ("branches", 16), ("replicas", 2)])
def test_no_work_on_a_block_is_done_in_the_loop(
    kind: str,
    group_size: int,
    smallest_run: Callable[..., RunSpec],
    identities: list[Identity],
    tmp_path: Path,
    watched: Callable[[JumpingLoop, int], Watch],
) -> None:
    parted = {"common_tokens": 1200} if kind == "branches" else {}
    rounds = {"tick_seconds": 1, "double_tokens": 10**9, "first_ticks": 2, "last_ticks": 2, "group_size": group_size}
    spec = smallest_run(strategy={"kind": kind, **parted}, genesis=GENESIS, rounds=rounds)
    loop = JumpingLoop()
    swarm = InLoopSwarm(spec, identities[:3], tmp_path, seed=1)
    watch = watched(loop, 1000)

    async def main() -> None:
        for fault in (
            Fault(Kind.LOST_CALLS, 0, 8, 6.0),
            Fault(Kind.LEAVE, 1, 12, 3.0),
            Fault(Kind.KILL, 2, 16, 3.0),
            Fault(Kind.PAUSE, 0, 20, 3.0),
        ):
            swarm.befall(fault)
        await swarm.start(stagger_s=1.0)
        await swarm.settled()
        await swarm.until(40)
        await swarm.stop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner, watch:
        runner.run(main())
    assert not watch.found, "\n".join(sorted(set(watch.found)))
