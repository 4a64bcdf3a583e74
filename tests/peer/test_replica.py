import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.run import RunSpec
from peer.replica import Replica, load_state
from peer.train.outer import Contribution, OuterState, new_state
from protocols.offers import SealedRound

SIZE = 4096


@pytest.fixture
def spec() -> RunSpec:
    sizes = {"vocab_size": 300, "hidden_size": 8, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "mlp_size": 8}
    return RunSpec.model_validate(
        {
            "total_tokens": 10**9,
            "model": {**sizes, "context_length": 8},
            "strategy": {"kind": "replicas"},
            "inner": {"learning_rate": 0.1, "batch_tokens": 8},
            "outer": {"codec": "int8", "alpha": 1.0, "mu": 0.0},
            "rounds": {"tick_seconds": 1, "double_tokens": 10**9},
            "genesis": 0.0,
            "tokenizer_sha256": "0" * 64,
            "end_of_text": 0,
        }
    )


def state(seed: int = 0, version: int = 0, round_: int = 0) -> OuterState:
    phi = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))
    return new_state("model", phi, None, version=version, round_=round_, ages={}, is_final=False)


def progress(seed: int) -> Tensor:
    return 0.01 * torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def contribution(replica: Replica) -> Contribution:
    assert replica.pending is not None
    return Contribution("me", replica.pending.decoded, replica.tokens, 1.0, "all")


def test_nothing_is_lost_or_counted_twice_over_many_rounds(spec: RunSpec) -> None:
    """φ₀ − φ (applied) plus the residual, plus what θ has beyond φ, is all the work that was made."""
    replica, chance = Replica(state(), spec, "me"), random.Random(3)
    theta = replica.state.phi.clone()
    made = torch.zeros(SIZE, dtype=torch.float64)
    counts = {"sealed": 0, "without the own offer": 0, "skipped": 0}
    start = replica.state.phi.double()
    for round_ in range(1, 101):
        step = progress(round_)
        theta, made = theta - step, made + step.double()
        replica.offer(round_, theta, tokens=100 * round_)
        fate = chance.choice(list(counts))
        counts[fate] += 1
        if fate == "skipped":
            replica.skip(round_)
            continue
        sealed, given = ({"me": "0" * 64}, [contribution(replica)]) if fate == "sealed" else ({}, [])
        cut = theta
        replica.advance(round_, given, sealed)
        theta = theta + (replica.state.phi - cut)
    applied = start - replica.state.phi.double()
    under_way = replica.state.phi.double() - theta.double()
    print(counts)
    assert all(counts.values())
    torch.testing.assert_close(applied + replica.residual.double() + under_way, made, atol=2e-5, rtol=0)


@pytest.mark.parametrize("was_counted", [True, False])
@pytest.mark.parametrize("is_counted", [True, False])
def test_the_residual_follows_the_history_that_counts(spec: RunSpec, was_counted: bool, is_counted: bool) -> None:
    replica = Replica(state(), spec, "me")
    replica.offer(1, replica.state.phi - progress(1), tokens=100)
    assert replica.pending is not None
    decoded, mine = replica.pending.decoded, contribution(replica)
    if was_counted:
        replica.advance(1, [mine], {"me": "0" * 64})
    else:
        replica.skip(1)
    before = replica.residual.clone()
    other = state(5, version=1, round_=1)
    offers = {"me": "0" * 64} if is_counted else {"you": "0" * 64}
    rounds = [SealedRound(version=1, round=1, offers=offers, digest=other.digest)]
    replica.adopt([other], rounds, [], since_round=0)
    expected = before + (int(was_counted) - int(is_counted)) * decoded
    torch.testing.assert_close(replica.residual, expected)
    assert replica.marks[-1].digest == other.digest


def test_after_a_kill_between_offer_and_seal_the_work_waits_in_the_residual(spec: RunSpec, tmp_path: Path) -> None:
    replica = Replica(state(), spec, "me")
    replica.save(tmp_path, with_pending=False)
    replica.offer(4, replica.state.phi - progress(1), tokens=700)
    replica.save(tmp_path, with_pending=True)
    assert replica.pending is not None
    produced, decoded = replica.pending.produced, replica.pending.decoded

    saved = load_state(tmp_path, "model", SIZE)
    assert saved is not None and saved.digest == replica.state.digest
    again = Replica(saved, spec, "me")
    again.resume(tmp_path)
    assert torch.equal(again.residual, produced)
    assert (again.offered_round, again.tokens) == (4, 700)  # it never signs a second offer for the round
    other = state(5, version=1, round_=4)
    rounds = [SealedRound(version=1, round=4, offers={"me": "0" * 64}, digest=other.digest)]
    again.adopt([other], rounds, [], since_round=0)
    torch.testing.assert_close(again.residual, produced - decoded)


def test_after_a_kill_later_the_checkpoint_s_residual_counts(spec: RunSpec, tmp_path: Path) -> None:
    replica = Replica(state(), spec, "me")
    replica.offer(1, replica.state.phi - progress(1), tokens=100)
    replica.save(tmp_path, with_pending=True)
    replica.advance(1, [contribution(replica)], {"me": "0" * 64})
    replica.save(tmp_path, with_pending=False)
    saved = load_state(tmp_path, "model", SIZE)
    assert saved is not None and saved.version == 1
    again = Replica(saved, spec, "me")
    again.resume(tmp_path)
    assert torch.equal(again.residual, replica.residual)


def test_one_holder_puts_what_it_still_owed_into_the_block(spec: RunSpec) -> None:
    replica = Replica(state(), spec, "me")
    replica.residual = progress(2)
    theta = replica.state.phi - progress(1)
    replica.advance_alone(1, theta, tokens=50)
    torch.testing.assert_close(replica.state.phi, theta - progress(2))
    assert not replica.residual.any() and replica.state.age == 50
