"""The step in random groups: what pulls, what does not, what is owed, and how old a block is."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from configs.run import RunSpec
from peer.train.mixing import SWARM, Fragment, Mixed, grown_age, mixed_step, owed, pull, pull_limit, span
from peer.train.outer import Contribution, OuterState, new_state, outer_step, read_state

SIZE = 1000


@pytest.fixture
def spec(smallest_run: Callable[..., RunSpec]) -> RunSpec:
    return smallest_run(
        strategy={"kind": "experts", "common_tokens": 10_000},
        outer={"codec": "int8", "alpha": 0.7, "mu": 0.5},
        rounds={"tick_seconds": 1, "double_tokens": 10**9, "fragments": 4},
    )


def values(seed: int, size: int = SIZE) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def state(phi: Tensor, age: int = 0) -> OuterState:
    return new_state("model", phi, None, version=3, round_=5, ages={"a": age}, is_final=False)


def mixed(peer: str, update: Tensor, anchor: Tensor, tokens: int = 100, age: int = 0) -> Mixed:
    norm = float(torch.linalg.vector_norm(update))
    return Mixed(Contribution(peer, update, tokens, norm, "all"), anchor, age)


def step(before: OuterState, offers: list[Mixed], spec: RunSpec, at: slice, holders: float = 16.0) -> OuterState:
    return mixed_step(before, "a", Fragment(before.phi[at].clone(), at), offers, spec, round_=6, holders=holders)


def test_spans_cover_the_block_once() -> None:
    for size, fragments in ((1000, 16), (7, 16), (1, 1), (1024, 4)):
        covered = [i for fragment in range(fragments) for i in range(size)[span(size, fragments, fragment)]]
        assert covered == list(range(size))


def test_equal_replicas_take_the_step_of_one_group(spec: RunSpec) -> None:
    """Nothing pulls, and with equal tokens and one domain uniform weights are the same as theirs: the same bits."""
    before = state(values(0))
    at = span(SIZE, 4, 1)
    offers = [mixed(peer, values(seed), before.phi[at].clone()) for seed, peer in enumerate("abcd", 1)]
    after = step(before, offers, spec, at)
    reference = outer_step(
        state(values(0)),
        [Contribution(o.contribution.peer_id, o.contribution.values, 100, o.contribution.norm, "all") for o in offers],
        spec,
        round_=6,
    )
    assert torch.equal(after.phi, reference.phi) and torch.equal(after.momentum, reference.momentum)
    assert (after.version, after.round) == (4, 6)


def test_the_pull_stays_outside_the_momentum_and_in_its_fragment(spec: RunSpec) -> None:
    before, at = state(values(0)), span(SIZE, 4, 2)
    zero = torch.full((SIZE,), 1e-3)
    near = [before.phi[at] + 1e-3 * values(seed, 250) for seed in (1, 2)]
    offers = [mixed("a", zero, before.phi[at].clone()), *(mixed(p, zero, n) for p, n in zip("bc", near, strict=True))]
    pulled, still = step(before, offers, spec, at), step(before, [offers[0]], spec, at)
    assert torch.equal(pulled.momentum, still.momentum)
    elsewhere = torch.ones(SIZE, dtype=torch.bool)
    elsewhere[at] = False
    assert torch.equal(pulled.phi[elsewhere], still.phi[elsewhere])
    expected = still.phi[at] + (sum(near) + before.phi[at]) / 3 - before.phi[at]  # to the mean of the three
    torch.testing.assert_close(pulled.phi[at], expected, atol=1e-6, rtol=0)


def test_rounding_pulls_nobody(spec: RunSpec) -> None:
    """Equal replicas whose anchors are rounded stay where they are, not where they are rounded to."""
    before, at = state(values(0)), span(SIZE, 4, 0)
    rounded = before.phi[at].bfloat16().float()
    offers = [mixed(peer, torch.zeros(SIZE), rounded) for peer in "abc"]
    after = mixed_step(before, "a", Fragment(rounded.clone(), at), offers, spec, round_=6, holders=16.0)
    assert not torch.equal(rounded, before.phi[at]) and torch.equal(after.phi, before.phi)


def test_one_hostile_anchor_pulls_by_no_more_than_its_share_of_the_limit() -> None:
    own, limit = values(0, 250), 2.0
    honest = [own + 1e-3 * values(seed, 250) for seed in range(1, 8)]
    without = pull(own, [*honest[:6], own, own], limit)
    for far in (1e3, 1e20, 3e38):
        moved = pull(own, [*honest[:6], own, torch.full((250,), far)], limit) - without
        assert float(torch.linalg.vector_norm(moved)) <= limit / 8 * 1.001
        assert torch.isfinite(moved).all()
    # Clipped as a whole: the direction stays.
    one = pull(own, [own + 100 * values(9, 250)], limit)
    torch.testing.assert_close(one, -limit * values(9, 250) / torch.linalg.vector_norm(values(9, 250)))


def test_the_limit_follows_the_median_pseudo_gradient_on_the_fragment() -> None:
    at = span(SIZE, 4, 1)
    updates = [torch.zeros(SIZE) for _ in range(3)]
    for update, size in zip(updates, (1.0, 2.0, 1e9), strict=True):
        update[at.start] = size
        update[0] = 1e9  # elsewhere
    contributions = [Contribution("abc"[i], update, 1, 1.0, "all") for i, update in enumerate(updates)]
    assert pull_limit(contributions, at, 8.0) == 16.0


def test_the_bits_depend_neither_on_order_nor_on_threads(spec: RunSpec) -> None:
    before, at = state(values(0)), span(SIZE, 4, 3)
    offers = [mixed(p, values(seed), before.phi[at] + 0.1 * values(seed + 9, 250)) for seed, p in enumerate("abcd", 1)]
    digests, threads = set(), torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            digests |= {step(before, list(order), spec, at).digest for order in itertools.permutations(offers)}
    finally:
        torch.set_num_threads(threads)
    assert len(digests) == 1


def test_the_residual_keeps_what_was_not_used() -> None:
    produced, decoded = values(1), values(2)
    assert torch.equal(owed(produced, decoded, 0.0), produced)
    torch.testing.assert_close(owed(produced, decoded, 1.0), produced - decoded)
    torch.testing.assert_close(owed(produced, decoded, 0.75), produced - 0.75 * decoded)


def test_age_grows_by_what_all_holders_add(spec: RunSpec) -> None:
    zero = torch.zeros(1)
    offers = [mixed(peer, zero, zero, tokens, age) for peer, tokens, age in (("a", 100, 1000), ("b", 300, 1200))]
    assert grown_age(offers, 8.0, spec) == 1000 + 8 // 2 * 400


def test_a_liar_ages_nobody(spec: RunSpec) -> None:
    zero = torch.zeros(1)
    honest = [mixed(peer, zero, zero, 100, 1000) for peer in "abcd"]
    assert grown_age([*honest, mixed("e", zero, zero, 2**40, 2**47)], 10.0, spec) == 1000 + 2 * (400 + 400)
    assert grown_age([*honest, mixed("e", zero, zero, -5, 0)], 10.0, spec) == 1000 + 2 * 400
    pair = [honest[0], mixed("e", zero, zero, 2**40, 2**47)]
    assert grown_age(pair, 2.0, spec) < spec.total_tokens / 8


def test_age_never_falls_and_ends_the_common_phase(spec: RunSpec) -> None:
    before, at = state(values(0), age=9_000), span(SIZE, 4, 0)
    young = step(before, [mixed("b", torch.zeros(SIZE), before.phi[at], 10, age=0)], spec, at)
    assert young.ages == {"a": 9_000, SWARM: 0} and not young.is_final
    old = step(before, [mixed("a", torch.zeros(SIZE), before.phi[at], 100, age=9_000)], spec, at)
    assert old.age == 10_600 and old.is_final
    assert read_state(bytes(old.blob), "model", SIZE).digest == old.digest
