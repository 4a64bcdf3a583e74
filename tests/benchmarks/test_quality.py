"""The swarm in one process is what it says: no work is lost, and in a trivial case it is plain averaging."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.in_process_swarm import TICK_STEPS, Rule, Swarm, Text, run_spec, train
from configs.run import InnerSpec, ModelSpec
from peer.corpus.data import open_corpus
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan
from peer.train.partition import COMMON, REPLICA

MODEL = ModelSpec(
    vocab_size=300, hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=2, mlp_size=32, context_length=16
)
INNER = InnerSpec(learning_rate=1e-2, batch_tokens=64)
STEPS = 8 * TICK_STEPS
AVERAGING = Rule("all", peers=3, alpha=1.0, mu=0.0)


pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    folder: Path = tmp_path_factory.mktemp("corpus") / "corpus"
    words = [" ".join(f"{a} times {b} is {a * b}." for b in range(60)) for a in range(120)]
    prepare_texts({"tables": words}, folder, Plan(MODEL.vocab_size, context_length=MODEL.context_length))
    return Text.of(open_corpus(folder), MODEL.context_length)


def swarm_of(rule: Rule, text: Text) -> Swarm:
    return Swarm(run_spec(rule, text, MODEL, INNER, steps=STEPS, seed=0), rule, text)


def test_plain_averaging_is_the_mean_of_the_replicas(text: Text) -> None:
    swarm = swarm_of(replace(AVERAGING, ticks=(1, 1)), text)
    swarm.train(TICK_STEPS)
    ends = [peer._snapshots[COMMON] for peer in swarm.peers]
    assert not torch.equal(ends[0], ends[1])  # each read other text
    for peer in swarm.peers:
        torch.testing.assert_close(peer.trainee.theta(COMMON), torch.stack(ends).mean(dim=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("codec", "late"), [("float32", 0.0), ("int8", 0.0), ("int8", 0.2)])
def test_no_work_is_lost(text: Text, codec: str, late: float) -> None:
    """With α = 1 and μ = 0 the anchor has moved by the mean of all work, but for what the replicas still owe."""
    swarm = swarm_of(replace(AVERAGING, codec=codec, late=late), text)
    start = swarm.peers[0].replicas[COMMON].state.phi.clone()
    made = torch.zeros_like(start)

    def step(position: int) -> Tensor:
        before = torch.stack([peer.trainee.theta(COMMON) for peer in swarm.peers])
        for peer in swarm.peers:
            peer.step(position)
        return (torch.stack([peer.trainee.theta(COMMON) for peer in swarm.peers]) - before).mean(dim=0)

    for position in range(STEPS):
        made += step(position)
        swarm._after(position + 1, STEPS)
    owed = torch.stack([peer.replicas[COMMON].residual for peer in swarm.peers]).mean(dim=0)
    assert swarm.rounds > 2
    assert len({peer.replicas[COMMON].state.digest for peer in swarm.peers}) == 1
    assert (made.abs().max() > 0.05) and bool(owed.any()) == (codec == "int8")
    torch.testing.assert_close(swarm.peers[1].replicas[COMMON].state.phi - owed, start + made, atol=1e-5, rtol=0)


def test_a_late_correction_comes_late_and_keeps_what_was_learnt_meanwhile(text: Text) -> None:
    swarm = swarm_of(replace(AVERAGING, ticks=(2, 2), late=0.5), text)
    peer = swarm.peers[0]
    for position in range(2 * TICK_STEPS):
        for each in swarm.peers:
            each.step(position)
        swarm._after(position + 1, STEPS)
    assert torch.equal(peer.trainee.theta(COMMON), peer._snapshots[COMMON])  # sealed, and not yet taken
    for position in range(2 * TICK_STEPS, 3 * TICK_STEPS):
        for each in swarm.peers:
            each.step(position)
        meanwhile = peer.trainee.theta(COMMON) - peer._snapshots[COMMON]
        swarm._after(position + 1, STEPS)
    torch.testing.assert_close(
        peer.trainee.theta(COMMON), peer.replicas[COMMON].state.phi + meanwhile, atol=1e-6, rtol=0
    )


def test_the_same_rule_and_seed_give_the_same_loss(text: Text) -> None:
    for rule in (AVERAGING, Rule("sync", peers=3), Rule("alone", peers=1)):
        spec = run_spec(rule, text, MODEL, INNER, steps=STEPS, seed=0)
        first, second = (train(spec, rule, text, STEPS) for _ in range(2))
        assert first == second
        assert first.loss < 5.0  # ln 300 is 5.7


def test_parts_take_turns_and_each_is_late_by_its_part_of_the_delay(text: Text) -> None:
    """After the common phase, a tenth of the run: rounds of four ticks, a part in each, a quarter of a tick late."""
    rule = replace(AVERAGING, parts=4, ticks=(4, 4), late=0.25)
    swarm = swarm_of(rule, text)
    peer, exchanged = swarm.peers[0], []
    for position in range(STEPS):
        for each in swarm.peers:
            each.step(position)
        before = {block: replica.state.digest for block, replica in peer.replicas.items()}
        swarm._after(position + 1, STEPS)
        if before.keys() == peer.replicas.keys():
            changed = {block for block, digest in before.items() if peer.replicas[block].state.digest != digest}
            exchanged += [((position + 1) / TICK_STEPS, sorted(changed))] if changed else []
            assert all(at - position - 1 <= (5 if block == COMMON else 2) for block, at in swarm._due.items())
    assert exchanged == [
        (4, [COMMON]),  # taken a tick later, when the parts begin
        (6, ["replica.2"]),
        (7, ["replica.3"]),
        (8, ["replica", "replica.1", "replica.2", "replica.3"]),  # the end
    ]
    for block in swarm.peers[0].trainee.strategy.blocks(REPLICA):
        assert len({each.replicas[block].state.digest for each in swarm.peers}) == 1
        assert peer.ages[block] == 3 * STEPS * INNER.batch_tokens


@pytest.mark.parametrize("fragments", [1, 4])
def test_random_groups_hold_replicas_together_that_differ(text: Text, fragments: int) -> None:
    rule = Rule("random", peers=8, codec="int8", fragments=fragments)
    swarm = swarm_of(rule, text)
    swarm.train(STEPS)
    anchors = torch.stack([peer.replicas[COMMON].state.phi for peer in swarm.peers])
    apart = float((anchors - anchors.mean(dim=0)).square().sum(dim=1).mean())
    travelled = float((anchors.mean(dim=0) - swarm_of(rule, text).peers[0].replicas[COMMON].state.phi).square().sum())
    assert swarm.rounds > 2
    assert 0 < apart < 0.5 * travelled
    ages = [peer.replicas[COMMON].state.age for peer in swarm.peers]
    assert max(ages) < 1.5 * min(ages)
    assert sum(ages) / 8 == pytest.approx(STEPS * 8 * INNER.batch_tokens, rel=0.3)
