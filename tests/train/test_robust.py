"""The robust combination: its bits, what it does to liars, what it leaves alone, and both sides of its threshold."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from configs.errors import PeerError
from configs.run import OuterSpec, RunPlan, RunSpec
from peer.train import robust
from peer.train.outer import Contribution, OuterState, lone_step, merge, new_state, outer_step, read_state
from peer.train.robust import CHUNK, MAX_TRUSTED, ROBUST_MEMBERS, UNIT, drawn, exact_products, judged, kept

SIZE = 3000
SIZES = {"vocab_size": 300, "hidden_size": 8, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "mlp_size": 8,
         "context_length": 8}  # fmt: skip
GOAL = torch.randn(SIZE, generator=torch.Generator().manual_seed(99))  # what all honest members learn a part of


def run(combine: str = "robust") -> RunSpec:
    return RunSpec.model_validate(
        {
            "total_tokens": 10**9,
            "model": SIZES,
            "strategy": {"kind": "replicas"},
            "inner": {"learning_rate": 0.1, "batch_tokens": 8},
            "outer": {"combine": combine},
            "rounds": {"tick_seconds": 1, "double_tokens": 10**9},
            "genesis": 0.0,
            "tokenizer_sha256": "0" * 64,
            "end_of_text": 0,
        }
    )


def noise(seed: int) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def offered(peer: str, values: Tensor, tokens: int) -> Contribution:
    return Contribution(peer, values, tokens, float(values.norm()), "all")


def honest(round_: int, members: str = "abcd") -> list[Contribution]:
    return [offered(each, GOAL + noise(100 * round_ + ord(each)), 100 * round_) for each in members]


def begin() -> OuterState:
    return new_state("model", torch.zeros(SIZE), None, version=0, round_=0, ages={}, is_final=False)


def step(state: OuterState, offers: list[Contribution], combine: str = "robust") -> OuterState:
    return outer_step(state, offers, run(combine), round_=state.round + 1)


def moved(before: OuterState, after: OuterState) -> float:
    """Return how far a step went towards the goal."""
    return float((before.phi - after.phi) @ GOAL / GOAL.norm())


def test_products_are_the_same_bits_for_threads_and_tiles_and_near_the_true_ones() -> None:
    size = 5 * CHUNK + 17
    vectors = [torch.randn(size, generator=torch.Generator().manual_seed(n)) * 10.0**n for n in range(-3, 4)]
    vectors.append(torch.zeros(size))
    found = []
    before = torch.get_num_threads()
    try:
        for threads, chunk in itertools.product((1, 2, 5), (CHUNK, 1000, size)):
            torch.set_num_threads(threads)
            spans = [slice(at, min(at + chunk, size)) for at in range(0, size, chunk)]
            found.append(exact_products(vectors, spans))
            found.append(exact_products(vectors, spans[::-1]))
    finally:
        torch.set_num_threads(before)
    assert all(each == found[0] for each in found)
    for (i, one), (j, other) in itertools.combinations_with_replacement(enumerate(vectors), 2):
        scale = float(one.double().norm() * other.double().norm())
        assert found[0][i][j] == pytest.approx(float(one.double() @ other.double()), abs=1e-3 * scale)
    assert found[0][-1] == [0.0] * len(vectors)


@pytest.mark.parametrize("largest", [1e-40, 1e-30, 1.0, 1e30])
def test_products_of_the_largest_and_the_smallest_values_are_finite(largest: float) -> None:
    vectors = [torch.full((10,), largest), torch.full((10,), -largest)]
    value = float(torch.tensor(largest, dtype=torch.float32))
    assert exact_products(vectors, [slice(0, 10)])[0][1] == pytest.approx(-10 * value * value, rel=1e-6)


def test_no_sum_reaches_the_bound_of_exactness() -> None:
    """Every value the largest: the sum is the largest that there can be, and counts each of them."""
    spans = [slice(at, at + CHUNK) for at in range(0, robust.SAMPLED, CHUNK)]
    ones = torch.ones(robust.SAMPLED)
    ones[0] = 1 - 2**-10
    assert exact_products([ones, torch.ones(robust.SAMPLED)], spans)[0][1] == robust.SAMPLED - 2**-10


def test_of_a_large_block_chunks_are_drawn_by_what_was_sealed() -> None:
    assert list(drawn(CHUNK + 1, "")) == [slice(0, CHUNK), slice(CHUNK, CHUNK + 1)]
    whole = sum(span.stop - span.start for span in drawn(robust.SAMPLED, ""))
    assert whole == robust.SAMPLED
    large = 10 * robust.SAMPLED
    draws = {tuple(span.start for span in drawn(large, str(seed))) for seed in range(50)}
    assert len(draws) == 10  # every offset, and nothing else
    assert all(0 < len(draw) * CHUNK <= robust.SAMPLED for draw in draws)
    assert set().union(*draws) == set(range(0, large, CHUNK))


def test_the_bits_depend_neither_on_order_nor_on_threads() -> None:
    state = step(begin(), [*honest(1), offered("e", -GOAL, 100)])
    offers = [*honest(2), offered("e", noise(5), 200)]
    digests = set()
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            digests |= {step(state, list(order)).digest for order in list(itertools.permutations(offers))[::7]}
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_members_that_are_like_each_other_step_as_in_the_mean() -> None:
    one, other = begin(), begin()
    for round_ in range(1, 6):
        one, other = step(one, honest(round_, "abcde")), step(other, honest(round_, "abcde"), "mean")
        assert torch.equal(one.phi, other.phi) and torch.equal(one.momentum, other.momentum)
    assert other.trust == {} and one.trust.keys() == set("abcde")


LIES = {
    "sign flip": lambda round_: -GOAL - noise(round_),
    "loud": lambda round_: -1000 * GOAL,
    "noise": lambda round_: noise(7 * round_),
    "little noise": lambda round_: 1e-3 * noise(7 * round_),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_liar_of_five_takes_nothing_from_the_others(lie: str) -> None:
    attacked, clean = begin(), begin()
    for round_ in range(1, 6):
        liar = offered("e", LIES[lie](round_), 100 * round_)
        before = attacked, clean
        attacked, clean = step(attacked, [*honest(round_), liar]), step(clean, honest(round_), "mean")
        assert moved(before[0], attacked) > 0.95 * moved(before[1], clean)
    assert max(attacked.trust["e"]) < 0.2 * UNIT < 0.4 * UNIT < min(map(min, (attacked.trust[m] for m in "abcd")))


def test_who_repeats_the_last_steps_counts_nothing_and_who_learns_as_the_others_do_in_full() -> None:
    members, norms = list("abcde"), [1.0] * 5

    def factor(cosine: float, running: float = 0.0) -> float:
        """Return what an offer counts at that share of the others' cosine to the last steps, now and lately."""
        last = torch.zeros(8)
        last[0] = 1.0
        values = []
        for index, ahead in enumerate([0.3, 0.3, 0.3, 0.3, 0.3 * cosine]):
            offer = torch.zeros(8)
            offer[0], offer[1], offer[2 + index] = ahead, 0.3, math.sqrt(1 - ahead**2 - 0.09)
            values.append(offer)
        old = round(0.3 * UNIT)
        trust = dict.fromkeys("abcd", (old, old)) | {"e": (round(old * (running or cosine)), old)}
        factors, _ = judged(members, values, norms, last, trust)
        assert factors[:4] == [1.0] * 4
        return factors[4]

    assert factor(1.0) == factor(1.2) == 1.0, "as honest members on unlike texts are, at most"
    assert 0.0 < factor(1.7, running=1.0) < 1.0 and factor(2.0, running=1.0) == 0.0
    assert 0.0 < factor(1.3, running=1.4) < 1.0 and factor(1.3, running=1.6) == 0.0


def test_copies_of_an_offer_count_as_much_as_one() -> None:
    offers = honest(1, "abcde")
    copies = [offered(each, offers[0].values, 100) for each in "yz"]
    seven = [*offers, *copies]
    factors, _ = judged([o.peer_id for o in seven], [o.values for o in seven], [o.norm for o in seven],
                        torch.zeros(SIZE), {})  # fmt: skip
    assert factors[1:5] == [1.0] * 4
    assert factors[0] == factors[5] == factors[6] == pytest.approx(1 / 3)
    clean, copied = step(begin(), offers), step(begin(), seven)
    assert torch.allclose(clean.phi, copied.phi, rtol=1e-4, atol=1e-6), "three who offer one thing are one"


@pytest.mark.parametrize(("cosine", "counts"), [(0.79, 1.0), (0.875, 1 / 1.5), (0.96, 0.5)])
def test_two_who_are_as_alike_as_those_of_one_text_weigh_in_full_and_nearly_the_same_offers_half(
    cosine: float, counts: float
) -> None:
    values = [torch.zeros(9) for _ in range(6)]
    for index, offer in enumerate(values):
        offer[0], offer[2 + index] = 0.6, 0.8
    values[5][:] = cosine * values[4]  # as far as it goes the same, and else a way of its own
    values[5][8] = 0.0
    values[5][1] = math.sqrt(1 - cosine**2)
    factors, _ = judged(list("abcdef"), values, [1.0] * 6, torch.zeros(9), {})
    assert factors == pytest.approx([1.0, 1.0, 1.0, 1.0, counts, counts], abs=1e-3)


def test_two_of_ten_together_take_nothing_either() -> None:
    state = begin()
    for round_ in range(1, 6):
        before, lie = state, -GOAL + 0.1 * noise(3)
        liars = [offered(each, lie, 100 * round_) for each in "yz"]
        state = step(state, [*honest(round_, "abcdefgh"), *liars])
        assert moved(before, state) > 0.8 * moved(before, step(before, honest(round_, "abcdefgh"), "mean"))


def test_who_begins_to_lie_counts_nothing_at_once() -> None:
    state = begin()
    for round_ in range(1, 8):
        state = step(state, honest(round_, "abcde"))
    lie = offered("e", -GOAL, 800)
    clean = step(state, [*honest(8), offered("e", torch.zeros(SIZE), 700)])
    attacked = step(state, [*honest(8), lie])
    assert torch.equal(attacked.phi, clean.phi)  # who brings no tokens weighs nothing
    assert attacked.trust["e"] < state.trust["e"]


def test_who_has_lied_for_long_is_not_believed_at_once() -> None:
    state = begin()
    for round_ in range(1, 8):
        state = step(state, [*honest(round_), offered("e", -GOAL, 100 * round_)])
    names, values = list("abcde"), [each.values for each in honest(8, "abcde")]
    norms = [float(each.norm()) for each in values]
    factors, _ = judged(names, values, norms, state.momentum, state.trust)
    assert factors[:4] == [1.0] * 4 and factors[4] == 0.0


@pytest.mark.parametrize(("members", "is_judged"), [("abcd", False), ("abcde", True)])
def test_below_five_members_only_norms_are_clipped(members: str, is_judged: bool) -> None:
    assert len("abcde") == ROBUST_MEMBERS
    liar, others = members[-1], members[:-1]
    after = step(begin(), [*honest(1, others), offered(liar, -GOAL, 100)])
    mean = step(begin(), [*honest(1, others), offered(liar, -GOAL, 100)], "mean")
    assert torch.equal(after.phi, mean.phi) is not is_judged
    assert bool(after.trust) is is_judged


def test_false_tokens_weigh_and_age_no_more_than_the_median() -> None:
    fair = step(begin(), honest(1, "abcde"))
    offers = honest(1, "abcde")
    boast = Contribution("e", offers[4].values, 2**32, offers[4].norm, "all")
    after = step(begin(), [*offers[:4], boast])
    assert torch.equal(after.phi, fair.phi) and after.ages == fair.ages
    assert step(begin(), [*offers[:4], boast], "mean").age > fair.age  # there it is a part of the run


def test_what_is_hidden_in_few_values_is_seen_by_the_signed_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a block that is looked at in part, whatever part is drawn."""
    monkeypatch.setattr(robust, "SAMPLED", SIZE // 4)
    monkeypatch.setattr(robust, "CHUNK", 50)
    last = GOAL.clone()
    for seed in range(40):
        values = [GOAL + noise(seed + 1000 * n) for n in range(5)]
        values[4] = GOAL.clone()
        values[4][:40] *= -100  # as loud as 15 others
        norms = [float(each.norm()) for each in values]
        factors, _ = judged(list("abcde"), values, norms, last, {})
        assert factors[:4] == [1.0] * 4 and factors[4] < 0.3, (seed, factors)


def test_who_offers_nothing_or_where_all_go_apart_nobody_is_punished() -> None:
    values = [noise(n) for n in range(5)]
    norms = [float(each.norm()) for each in values]
    apart, _ = judged(list("abcde"), [*values[:2], -values[0], -values[1], values[2]], norms, torch.zeros(SIZE), {})
    assert any(apart)
    still, trust = judged(list("abcde"), [torch.zeros(SIZE)] * 5, [0.0] * 5, torch.zeros(SIZE), {})
    assert still == [1.0] * 5 and set(trust.values()) == {(0, 0)}


def test_trust_travels_with_the_state_and_outlives_lone_steps_and_merges() -> None:
    state = step(step(begin(), honest(1, "abcde")), honest(2, "abcde"))
    again = read_state(bytes(state.blob), "model", SIZE)
    assert again.trust == state.trust and again.digest == state.digest
    alone = lone_step(state, torch.zeros(SIZE), "a", 300, round_=9, common_tokens=None)
    assert alone.trust == state.trust
    other = step(state, [*honest(3), offered("e", -GOAL, 300)])
    merged = merge([other, alone])
    assert merged.trust["e"] == min(other.trust["e"], alone.trust["e"]) < alone.trust["e"]
    few = step(other, honest(4, "abc"))
    assert few.trust == other.trust  # below five nobody is judged


def test_a_state_without_trust_is_written_as_ever_and_read() -> None:
    state = step(begin(), honest(1, "abcde"), "mean")
    assert b"trust" not in bytes(state.blob[: 8 + 600])
    assert read_state(bytes(state.blob), "model", SIZE).trust == {}


@pytest.mark.parametrize(
    "told", ['{"a":[1]}', '{"a":[1,2,3]}', '{"a":[1048577,0]}', '{"a":5}', "[1]", "x", '{"a":["1",2]}']
)
def test_an_impossible_trust_is_refused(told: str) -> None:
    state = step(begin(), honest(1, "abcde"))
    blob = bytes(state.blob)
    length = int.from_bytes(blob[:8], "little")
    head = blob[8 : 8 + length].rstrip()
    start = head.index(b'"trust":"') + len(b'"trust":"')
    end = head.index(b'"},', start)
    forged = head[:start] + told.replace('"', '\\"').encode() + head[end:]
    forged += b" " * (-len(forged) % 8)
    with pytest.raises(PeerError, match="state of model"):
        read_state(len(forged).to_bytes(8, "little") + forged + blob[8 + length :], "model", SIZE)


def test_trust_is_kept_of_as_many_as_there_is_room_for_the_least_trusted_first() -> None:
    many = {f"m{n:04}": (n, n) for n in range(2 * MAX_TRUSTED)}
    after = kept(many, {"now": (UNIT, UNIT)})
    assert len(after) == MAX_TRUSTED and after["now"] == (UNIT, UNIT)
    assert after.keys() - {"now"} == {f"m{n:04}" for n in range(MAX_TRUSTED - 1)}


def test_a_run_keeps_its_id_where_offers_are_averaged() -> None:
    assert "combine" not in OuterSpec().model_dump() and "combine" not in run("mean").model_dump_json()
    assert run("mean").run_id != run("robust").run_id
    assert OuterSpec.model_validate_json(OuterSpec(combine="robust").model_dump_json()).combine == "robust"
    assert math.isclose(OuterSpec(combine="robust").alpha, OuterSpec().alpha)


FOUNDED = [
    ({}, "replicas", None, "mean"),
    ({}, "replicas", "1" * 64, "robust"),
    ({}, "experts", "1" * 64, "mean"),
    ({"combine": "mean"}, "replicas", "1" * 64, "mean"),
    ({"combine": "robust"}, "experts", None, "robust"),
]


@pytest.mark.parametrize(("said", "kind", "admission", "combine"), FOUNDED)
def test_closed_replicas_combine_robustly_unless_they_are_told_otherwise(
    said: dict[str, str], kind: str, admission: str | None, combine: str
) -> None:
    values = run("mean").model_dump(exclude={"genesis", "tokenizer_sha256", "end_of_text", "protocol"})
    plan = RunPlan.model_validate({**values, "strategy": {"kind": kind}, "outer": {"codec": "int8", **said}})
    spec = plan.founded(1.0, genesis=0.0, tokenizer_sha256="0" * 64, end_of_text=0, admission=admission)
    assert spec.outer.combine == combine and spec.outer.codec == "int8"
