"""Real daemons in processes of their own, on loopback: they meet, exchange, are killed, leave, and are fused."""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from ticks import sealed, tick, tick_s

from benchmarks.patience import until_async
from configs.errors import NetworkError
from peer.commands.processes import Process, founder, joiner, open_processes
from peer.http.local import post_action
from peer.http.status import BlockStatus, Status
from peer.prepare.builtin import built_in_texts
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

MICRO = str(Path(__file__).parent / "micro.toml")
VOCABULARY, CONTEXT = 512, 64

pytestmark = pytest.mark.swarm


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six domains, cut from the text that every machine has."""
    texts = built_in_texts(max_bytes=200_000)
    domains = {}
    for name, documents in texts.items():
        middle = len(documents) // 2
        domains[f"{name}-a"], domains[f"{name}-b"] = documents[:middle], documents[middle:]
    out = tmp_path_factory.mktemp("corpus") / "six"
    prepare_texts(domains, out, Plan(vocab_size=VOCABULARY, context_length=CONTEXT))
    return out


async def until(process: Process, is_so: Callable[[Status], bool], what: str) -> Status:
    """Return the first status of a daemon for which `is_so` holds."""

    async def look() -> Status | None:
        try:
            return await process.status()
        except NetworkError:  # it is busy, or it has ended
            assert process.is_running, f"{process.name} ended before {what}: {process.log[-3000:]}"
            return None

    def seen(status: Status | None) -> str:
        return f"{status.model_dump_json(indent=1) if status else 'no answer'}\n{process.log[-3000:]}"

    what = f"{process.name}: {what}"
    found = await until_async(look, lambda status: status is not None and is_so(status), what, seen=seen)
    assert found is not None
    return found


async def until_sealed(count: int, *processes: Process, block: str = "model") -> None:
    """Wait until daemons have sealed so many rounds together; after each of them they must have had equal bits."""

    async def look() -> dict[int, set[str]]:
        return sealed([process.log for process in processes], block)

    def seen(found: dict[int, set[str]]) -> str:
        return "\n\n".join([f"rounds {list(found)}", *(process.log[-3000:] for process in processes)])

    what = f"{count} rounds of {block} that {len(processes)} daemons sealed together"
    rounds = await until_async(look, lambda found: len(found) >= count, what, seen=seen)
    assert all(len(digests) == 1 for digests in rounds.values()), rounds


async def status_of(process: Process) -> Status:
    return await until(process, lambda status: True, "a status")


async def until_equal(one: Process, two: Process, block: str) -> tuple[int, str]:
    """Return the first version of a block that both daemons are seen to have newest, with the same bits."""

    async def look() -> tuple[dict[int, str], dict[int, str]]:
        left, right = await status_of(one), await status_of(two)
        return marks(left, block).get(one.peer_id, {}), marks(right, block).get(two.peer_id, {})

    def newest(known: dict[int, str]) -> tuple[int, str]:
        return max(known.items(), default=(-1, ""))

    def are_equal(known: tuple[dict[int, str], dict[int, str]]) -> bool:
        return newest(known[0]) == newest(known[1]) != (-1, "")

    found = await until_async(look, are_equal, f"{one.name} and {two.name} to have the same bits of {block}")
    return newest(found[0])


def block_of(status: Status) -> BlockStatus:
    """Return how the first block stands; a daemon that has just started may know of none yet."""
    return status.blocks[0] if status.blocks else BlockStatus(block="", holders=[], keepers=[])


def marks(status: Status, block: str) -> dict[str, dict[int, str]]:
    """Return peer → version → digest, as published."""
    return {
        peer.peer_id: {mark.version: mark.digest for mark in peer.digests[block]}
        for peer in status.peers
        if block in peer.digests
    }


@pytest.mark.long
def test_two_replicas_have_equal_digests_for_twenty_rounds(tmp_path: Path, corpus: Path) -> None:
    async def main() -> None:
        async with open_processes() as processes:
            first = founder(tmp_path, "founder", MICRO, "--data", str(corpus), **tick(1.0))
            processes.append(first)
            await first.start()
            began = time.monotonic()
            second = joiner(tmp_path, "joiner", first.address)
            processes.append(second)
            await second.start()
            await until(second, lambda s: s.peers[0].tokens > 0, "its first step")
            print(f"the joiner had trained its first step {time.monotonic() - began:.1f} s after its start")
            await until_sealed(20, first, second)
            version, digest = await until_equal(first, second, "model")
            one, two = await status_of(first), await status_of(second)
            print(f"version {version} is {digest[:8]} at both; rounds {one.peers[0].rounds}, {two.peers[0].rounds}")
            assert {block.block for block in two.blocks} == {"model"}
            assert len(two.blocks[0].holders) == 2
            assert two.peers[0].bytes_in > 0 and two.peers[0].bytes_out > 0
            shown = subprocess.run(
                [sys.executable, "-m", "peer", "status", str(second.state_dir), "--json"],
                capture_output=True,
                check=True,
            )
            told = json.loads(shown.stdout)
            assert {"peers", "blocks", "age", "losses"} <= told.keys()
            assert {"holders", "keepers", "age", "version", "agreement"} <= told["blocks"][0].keys()
            assert {"digests", "loss", "tokens_per_s", "bytes_in", "bytes_out", "rounds"} <= told["peers"][0].keys()
            assert await second.leave() == 0
            assert await first.leave() == 0

    asyncio.run(main())


@pytest.mark.long
def test_a_replica_in_parts_takes_turns_and_is_one_model_again(tmp_path: Path, corpus: Path) -> None:
    """Four parts, one of them exchanged at each tick; a newcomer begins with them, and they are fused into a Llama."""
    environment = {
        "SHOAL_RUN__STRATEGY__PARTS": "4",
        "SHOAL_RUN__STRATEGY__COMMON_TOKENS": "10000",
        "SHOAL_RUN__ROUNDS__FIRST_TICKS": "4",
        "SHOAL_RUN__ROUNDS__LAST_TICKS": "4",
        **tick(0.7),
    }
    parts = ["replica", "replica.1", "replica.2", "replica.3"]

    async def main() -> None:
        async with open_processes() as processes:
            first = founder(tmp_path, "founder", MICRO, "--data", str(corpus), **environment)
            processes.append(first)
            await first.start()
            await until(first, lambda s: s.phase == "parted", "the end of the common phase")
            second = joiner(tmp_path, "second", first.address)
            processes.append(second)
            await second.start()

            for part in parts:
                await until_sealed(1, first, second, block=part)
                await until_equal(first, second, part)
            ticks = {part: {int(n) for n in re.findall(rf"{part} round (\d+)", first.log)} for part in parts}
            print("rounds:", {part: sorted(at) for part, at in ticks.items()})
            assert len({frozenset(tick % 4 for tick in at) for at in ticks.values()}) == 4
            assert await first.leave() == 0
            command = [sys.executable, "-m", "peer", "fuse", second.address, "--out", str(tmp_path / "llama")]
            done = await asyncio.to_thread(
                subprocess.run, [*command, "--format", "llama"], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            await asyncio.to_thread(check_llama, tmp_path / "llama")
            assert await second.leave() == 0

    asyncio.run(main())


def check_llama(folder: Path) -> None:
    """It has learnt: it knows which of its tokens are frequent."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = torch.tensor([AutoTokenizer.from_pretrained(folder)("for value in values:\n    return value").input_ids])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        assert model(tokens, labels=tokens).loss < 0.95 * torch.tensor(float(VOCABULARY)).log()


def test_a_killed_peer_comes_back_and_the_founder_is_nobody_special(tmp_path: Path, corpus: Path) -> None:
    async def main() -> None:
        async with open_processes() as processes:
            first = founder(tmp_path, "founder", MICRO, "--data", str(corpus), **tick(1.0))
            processes.append(first)
            await first.start()
            second = joiner(tmp_path, "second", first.address)
            processes.append(second)
            await second.start()
            before = await until(second, lambda s: s.peers[0].rounds >= 3, "three rounds")
            await second.kill()
            await second.start()
            after = await until(second, lambda s: s.peers[0].rounds >= before.peers[0].rounds + 3, "three more rounds")
            assert after.peers[0].peer_id == before.peers[0].peer_id
            assert await first.leave() == 0
            third = joiner(tmp_path, "third", second.address)
            processes.append(third)
            await third.start()
            status = await until(third, lambda s: s.peers[0].rounds >= 3, "three rounds")
            assert status.run_id == before.run_id
            await until(
                third, lambda s: len(block_of(s).holders) == 2 and block_of(s).agreement == 1.0, "two that agree"
            )
            await until_equal(second, third, "model")

    asyncio.run(main())


@pytest.mark.long
def test_a_peer_that_is_too_slow_leaves_the_group_and_comes_back(tmp_path: Path, corpus: Path) -> None:
    """Behind its line a round of three takes longer than a tick; the other two must not wait for its word."""

    async def main() -> None:
        async with open_processes() as processes:
            first = founder(tmp_path, "first", MICRO, "--data", str(corpus), **tick(1.0))
            processes.append(first)
            await first.start()
            for name, caps in (("second", ()), ("slow", ("--down-mbit", f"{0.4 / tick_s(1.0):.2f}"))):
                processes.append(joiner(tmp_path, name, first.address, *caps))
                await processes[-1].start()
            slow = processes[-1]
            await until(slow, lambda s: "too slow" in block_of(s).outcome, "too slow")
            alone = await until(
                first, lambda s: slow.peer_id not in block_of(s).holders, "a group without the slow one"
            )
            await until(
                first, lambda s: block_of(s).outcome == "sealed 2 of 2" and s.tick > alone.tick, "a round of the two"
            )
            await until(first, lambda s: slow.peer_id in block_of(s).holders, "the slow one to be back")
            assert "out of the group until caught up" in slow.log

    asyncio.run(main())


@pytest.mark.long
def test_rounds_are_sealed_although_a_step_is_longer_than_a_round(tmp_path: Path, corpus: Path) -> None:
    """They become longer by themselves; no snapshot waits for a step, and both peers' work is in what they share."""
    environment = {"SHOAL_RUN__INNER__BATCH_TOKENS": str(1 << 17), "SHOAL_RUN__ROUNDS__TICK_SECONDS": "0.5"}

    async def main() -> None:
        async with open_processes() as processes:
            first = founder(tmp_path, "first", MICRO, "--data", str(corpus), **environment)
            processes.append(first)
            await first.start()
            second = joiner(tmp_path, "second", first.address)
            processes.append(second)
            await second.start()

            def is_shared(status: Status) -> bool:
                return block_of(status).outcome == "sealed 2 of 2" and block_of(status).round_ticks > 1

            for process in processes:
                status = await until(process, is_shared, "longer rounds that both seal")
                assert any("a step takes" in event for event in status.events), status.events
                assert not status.warnings
            late = [float(seconds) for seconds in re.findall(r"(-?[\d.]+) s late", first.log + second.log)]
            step_s = min(float(seconds) for seconds in re.findall(r"a step takes ([\d.]+) s", first.log))
            print(f"steps of {step_s} s; snapshots {max(late)} s after their ticks")
            assert max(late) < step_s / 2

    asyncio.run(main())


@pytest.mark.long
def test_more_holders_than_a_group_exchange_in_random_groups_until_they_are_few_again(
    tmp_path: Path, corpus: Path
) -> None:
    """Four peers and groups of two: each exchanges with others by turns; when two have left, the rest are one group."""
    environment = {"SHOAL_RUN__ROUNDS__GROUP_SIZE": "2", **tick(0.7)}

    async def main() -> None:
        async with open_processes() as processes:
            first = founder(tmp_path, "first", MICRO, "--data", str(corpus), **environment)
            processes.append(first)
            await first.start()
            for name in ("second", "third", "fourth"):
                processes.append(joiner(tmp_path, name, first.address))
                await processes[-1].start()

            def in_groups(status: Status) -> bool:
                return "holders" in block_of(status).outcome

            def is_mixing(status: Status) -> bool:
                return status.peers[0].rounds >= mixing_from + 8 and in_groups(status)

            mixing_from = (await until(first, in_groups, "random groups")).peers[0].rounds
            for process in processes:
                status = await until(process, is_mixing, "eight rounds in groups")
                print(f"{process.name}: {block_of(status).outcome}; age {status.age}, loss {status.peers[0].loss}")
            log = "".join(process.log for process in processes)
            sealed = Counter(re.findall(r"sealed (\d) of \d, of about", log))
            trained = sum(peer.tokens for peer in status.peers)
            print(f"members whose offers were taken: {dict(sealed)}; trained {trained} tokens, age {status.age}")
            assert sealed["1"] and sealed["2"], "groups are drawn, so their sizes differ"
            assert 0.5 < status.age / trained < 2
            losses = (await status_of(first)).losses
            assert losses[-1][1] < losses[0][1]

            for process in processes[2:]:
                assert await process.leave() == 0

            def are_one(status: Status) -> bool:
                block = block_of(status)
                return "holders" not in block.outcome and block.agreement == 1.0 and len(block.holders) == 2

            await until(first, are_one, "one group of two that agree")
            await until(processes[1], are_one, "one group of two that agree")
            await until_equal(first, processes[1], "model")
            for process in processes[:2]:
                assert await process.leave() == 0

    asyncio.run(main())


@pytest.mark.long
def test_two_peers_train_six_experts_and_one_of_them_has_all_in_the_end(tmp_path: Path, corpus: Path) -> None:
    environment = {
        "SHOAL_RUN__STRATEGY__KIND": "experts",
        "SHOAL_RUN__STRATEGY__COMMON_TOKENS": "10000",
        **tick(0.7),
    }

    async def main() -> None:
        async with open_processes() as processes:
            first = founder(tmp_path, "founder", MICRO, "--data", str(corpus), **environment)
            processes.append(first)
            await first.start()
            second = joiner(tmp_path, "second", first.address)
            processes.append(second)
            await second.start()
            common = (await until(second, lambda s: s.phase == "parted", "the end of the common phase")).blocks
            floor = next(block.age for block in common if block.block == "model")

            def all_trained(status: Status) -> bool:
                ages = {block.block: block.age for block in status.blocks}
                return all(ages.get(f"expert.{k}", 0) > floor for k in range(6))

            status = await until(second, all_trained, "all six experts to be trained")
            print("ages:", {block.block: block.age for block in status.blocks})
            await check_asked(first)
            assert await first.leave() == 0
            await asyncio.to_thread(post_action, second.url, "pause")  # both forms are to be of the same state
            await until(
                second, lambda s: s.state == "paused" and s.tick > block_of(s).last_round + 2, "a pause without rounds"
            )
            await check_fused(second, tmp_path)
            assert await second.leave() == 0

    asyncio.run(main())


async def check_asked(peer: Process) -> None:
    """The swarm answers a prompt in C++ with an expert that is trained on C++."""
    prompt = "#include <ATen/core/Tensor.h>\nnamespace at { struct TORCH_API "
    command = [sys.executable, "-m", "peer", "ask", peer.address, prompt, "--max-tokens", "20"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    print("asked:", done.stderr, done.stdout)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"expert\.\d \(cpp-[ab], [\d,]+ tokens\), asked of \w+\n", done.stderr)
    assert done.stdout.strip()


async def check_fused(peer: Process, folder: Path) -> None:
    """Fuse from a live peer; all six experts are trained, and each forced route of the Mixtral is its sub-model."""
    for form in ("routed", "mixtral"):
        command = [sys.executable, "-m", "peer", "fuse", peer.address, "--out", str(folder / form), "--format", form]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    await asyncio.to_thread(compare_routes, folder / "routed", folder / "mixtral")


def compare_routes(routed: Path, mixtral: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from benchmarks.fused_forms import forced

    model = AutoModelForCausalLM.from_pretrained(mixtral, dtype=torch.float32)
    assert AutoTokenizer.from_pretrained(mixtral)("for x in y").input_ids
    tokens = torch.arange(3, 60)[None] % VOCABULARY
    logits = []
    for expert in range(6):
        alone = AutoModelForCausalLM.from_pretrained(routed / f"expert.{expert}", dtype=torch.float32)
        with torch.no_grad(), forced(model, expert):
            routed_there, own = model(tokens).logits, alone(tokens).logits
        assert torch.allclose(routed_there, own, atol=1e-5, rtol=0), (routed_there - own).abs().max()
        logits.append(own)
    for left in range(6):
        for right in range(left):
            assert not torch.equal(logits[left], logits[right]), f"expert {left} is expert {right}"
