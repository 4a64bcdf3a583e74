"""θ in the caller's module: what the peer wants of it waits for the end of a step, and nothing waits for the peer."""

import asyncio
from collections.abc import Callable

import pytest
import torch
from loop import in_loop
from torch.nn import Linear, Module, Sequential

from configs.errors import DeviceError, UsageError
from configs.run import RunSpec
from peer.train.partition import COMMON, Strategy
from shoal.trainee import Parameters, Trainee

REPLICAS = Strategy("replicas", 1)


def module() -> Module:
    torch.manual_seed(0)
    return Sequential(Linear(2, 3), Linear(3, 1))


def trainee(of: Module) -> Trainee:
    return Trainee(Parameters.of(of))


def flat(of: Module) -> torch.Tensor:
    return torch.cat([each.detach().reshape(-1) for each in of.parameters()])


async def turn() -> None:
    """Let what has been started come as far as it can: threads of the loop's pool included."""
    for _ in range(3):
        await asyncio.to_thread(lambda: None)
        await asyncio.sleep(0)


def test_frozen_parameters_and_the_second_of_tied_ones_are_not_exchanged() -> None:
    one = module()
    one[0].bias.requires_grad_(False)
    one.register_module("twin", one[1])
    assert [name for name, _ in Parameters.of(one).named] == ["0.weight", "1.weight", "1.bias"]
    assert Parameters.of(one).size == 6 + 3 + 1


def test_parameters_of_other_precisions_come_and_go_as_float32() -> None:
    one = module().to(torch.bfloat16)
    parameters, values = Parameters.of(one), torch.arange(13.0)
    parameters.write(values)
    read = torch.zeros(13)
    parameters.read(read)
    assert torch.equal(read, values)
    parameters.add(torch.ones(13))
    assert torch.equal(flat(one), (values + 1).bfloat16())


@in_loop
async def test_a_snapshot_waits_for_the_step_and_has_its_tokens() -> None:
    own = module()
    it = trainee(own)
    await it.load(REPLICAS, COMMON, [], {})
    it.hold()
    taking = asyncio.create_task(it.take_snapshot())
    await turn()
    assert not taking.done()  # a forward or backward pass may go on
    with torch.no_grad():
        own[0].weight.fill_(2.0)
    it.step(7, 1.5)
    taken = await taking
    assert taken.tokens == 7
    assert torch.equal(it.snapshot, flat(own))
    it.step(7, None)
    assert it.progress.loss == 1.5


@in_loop
async def test_a_new_anchor_keeps_what_was_learnt_since_the_snapshot() -> None:
    own = module()
    it = trainee(own)
    it.hold()
    taking = asyncio.create_task(it.take_snapshot())
    await turn()
    it.step(1, None)
    await taking
    before = flat(own)
    with torch.no_grad():
        own[1].bias.add_(8.0)  # learnt while the round goes on
    it.anchor.copy_(it.snapshot).add_(1.0)
    await it.apply({COMMON: 1})  # returns though no step is over
    it.anchor.zero_()  # both buffers may be written again
    assert not torch.equal(flat(own), before + 1)
    it.step(1, None)
    expected = before + 1
    expected[-1] += 8.0
    assert torch.allclose(flat(own), expected)


@in_loop
async def test_a_snapshot_that_is_asked_for_after_an_anchor_has_it() -> None:
    own = module()
    it = trainee(own)
    before = flat(own)
    it.hold()
    it.anchor.fill_(1.0)
    await it.apply({COMMON: 1})
    taking = asyncio.create_task(it.take_snapshot())
    await turn()
    it.step(1, None)
    await taking
    assert torch.allclose(it.snapshot, before + 1)


@in_loop
async def test_without_a_loop_that_holds_it_nothing_waits() -> None:
    own = module()
    it = trainee(own)
    it.hold()
    taking = asyncio.create_task(it.take_snapshot())
    await turn()
    it.release()  # the last step is over
    await taking
    it.anchor.fill_(3.0)
    await it.load(REPLICAS, COMMON, [], {})
    assert torch.equal(flat(own), torch.full((13,), 3.0))
    assert (await it.take_snapshot()).tokens == 0


@in_loop
async def test_a_snapshot_that_nobody_waits_for_any_more_is_not_taken() -> None:
    it = trainee(module())
    it.hold()
    taking = asyncio.create_task(it.take_snapshot())
    await turn()
    taking.cancel()
    await turn()
    it.step(1, None)
    assert not it.snapshot.any()


@in_loop
async def test_parameters_that_are_not_finite_end_it() -> None:
    own = module()
    it = trainee(own)
    with torch.no_grad():
        own[0].weight[0, 0] = float("nan")
    with pytest.raises(DeviceError, match="training has diverged"):
        await it.take_snapshot()


def test_another_module_and_a_language_model_are_refused(smallest_run: Callable[..., RunSpec]) -> None:
    it = trainee(module())
    with pytest.raises(UsageError, match="trains a language model"):
        it.check(smallest_run())
    other = Parameters.of(Sequential(Linear(3, 2), Linear(2, 2, bias=False)))
    spec = smallest_run(model=other.spec, tokenizer_sha256=other.sha256)
    with pytest.raises(UsageError, match=r"12 values in 3 parameters, this one has 13 in 4; build"):
        it.check(spec)
    turned = Parameters.of(Sequential(Linear(3, 1), Linear(2, 3)))
    with pytest.raises(UsageError, match=r"13 in 4, with other names or shapes; build"):
        it.check(smallest_run(model=turned.spec, tokenizer_sha256=turned.sha256))
    own = it.parameters
    it.check(smallest_run(model=own.spec, tokenizer_sha256=own.sha256))
