"""The outer step against a reference, its bits, its caps, and blobs from strangers."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from configs.errors import PeerError
from configs.run import OuterSpec, RunSpec
from peer.train.outer import (
    MAX_PEERS,
    SWARM,
    Contribution,
    OuterState,
    lone_step,
    merge,
    new_state,
    outer_step,
    read_state,
    weights,
)

SIZE = 1000
OUTER = OuterSpec(alpha=0.7, mu=0.5)
SIZES = {"vocab_size": 300, "hidden_size": 8, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "mlp_size": 8,
         "context_length": 8}  # fmt: skip


def values(seed: int) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def offered(peer: str, seed: int, tokens: int = 100, norm: float = 1.0, domain: str = "all") -> Contribution:
    return Contribution(peer, values(seed), tokens, norm, domain)


def begin(**ages: int) -> OuterState:
    return new_state("model", values(0), None, version=0, round_=0, ages=ages, is_final=False)


def run(common: int | None = None, total: int = 10**9) -> RunSpec:
    """Return a run whose offers count for at most 1,000 tokens, and whose common phase ends at the age `common`."""
    strategy = {"kind": "replicas"} if common is None else {"kind": "experts", "common_tokens": common}
    return RunSpec.model_validate(
        {
            "total_tokens": total,
            "model": SIZES,
            "strategy": strategy,
            "inner": {"learning_rate": 0.1, "batch_tokens": 8},
            "outer": OUTER.model_dump(),
            "rounds": {"tick_seconds": 1, "double_tokens": 10**9, "max_tokens": 1000 if total == 10**9 else 2**32},
            "genesis": 0.0,
            "tokenizer_sha256": "0" * 64,
            "end_of_text": 0,
        }
    )


def step(state: OuterState, *contributions: Contribution, common: int | None = None) -> OuterState:
    return outer_step(state, contributions, run(common), round_=state.round + 1)


def test_it_is_diloco_s_nesterov() -> None:
    """Against torch's own SGD with Nesterov momentum, fed with the mean pseudo-gradient."""
    state = begin()
    parameter = torch.nn.Parameter(state.phi.clone())
    reference = torch.optim.SGD([parameter], lr=OUTER.alpha, momentum=OUTER.mu, nesterov=True)
    for number in range(5):
        pair = offered("a", 2 * number + 1, 100 * (number + 1)), offered("b", 2 * number + 2, 100 * (number + 1))
        parameter.grad = (pair[0].values + pair[1].values) / 2
        reference.step()
        state = step(state, *pair)
    torch.testing.assert_close(state.phi, parameter.data, atol=1e-5, rtol=1e-5)
    assert state.version == 5 and state.age == 1000


def test_the_bits_depend_neither_on_order_nor_on_threads() -> None:
    contributions = [offered(peer, seed, 50 * seed, float(seed)) for seed, peer in enumerate("dacb", 1)]
    digests = set()
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for order in itertools.permutations(contributions):
                digests.add(step(begin(a=7), *order).digest)
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_domains_weigh_the_same_and_tokens_count_inside_one() -> None:
    contributions = [
        offered("a", 1, 300, domain="x"),
        offered("b", 2, 100, domain="x"),
        offered("c", 3, 100, domain="y"),
    ]
    assert weights(contributions, [300, 100, 100]) == pytest.approx([0.375, 0.125, 0.5])


def test_a_fast_peer_is_capped_and_an_outlying_norm_scaled_down() -> None:
    fast = [offered("a", 1, 900), offered("b", 2, 100), offered("c", 3, 100)]
    assert weights(fast, [900, 100, 100]) == pytest.approx([4 / 6, 1 / 6, 1 / 6])
    loud = [offered("a", 1, norm=100.0), offered("b", 2), offered("c", 3)]
    assert weights(loud, [100, 100, 100])[0] == pytest.approx(1 / 3 * 2 / 100)


def test_who_brings_no_new_tokens_weighs_nothing() -> None:
    assert weights([offered("a", 1, 100), offered("b", 2, 50)], [0, 50]) == pytest.approx([0.0, 1.0])
    state = step(begin(a=100), offered("a", 1, 100), offered("b", 2, 50))
    assert torch.equal(state.momentum, values(2))


def test_age_only_grows_by_at_most_the_cap_and_ends_the_common_phase() -> None:
    state = step(begin(a=100), offered("a", 1, 5_000), offered("b", 2, 30), common=1_130)
    assert state.ages == {"a": 1_100, "b": 30}
    assert state.is_final
    assert step(begin(a=100), offered("a", 1, 40), common=101).ages == {"a": 100}


def test_one_offer_does_not_end_the_run_whatever_it_claims() -> None:
    """Of a run of 16,000 tokens: a lie counts for a part of it, and what all others bring as well for all it is."""
    spec = run(total=16_000)

    def ages(*tokens: int) -> list[int]:
        offers = [offered(peer, seed, count) for seed, (peer, count) in enumerate(zip("abcd", tokens, strict=False))]
        return list(outer_step(begin(), offers, spec, round_=1).ages.values())

    assert ages(2**32) == [1000]
    assert ages(2**32, 10) == [1000, 10] and ages(2**32, 10, 0) == [1000, 10, 0]
    assert ages(8_000, 2_000) == [8_000, 2_000]  # a fast peer, not a liar
    assert ages(900, 1) == [900, 1]
    later = outer_step(begin(a=1000), [offered("a", 1, 1500)], spec, round_=1)
    assert later.ages == {"a": 1500}  # what did not count at once


def test_ages_that_are_full_make_room_for_a_newcomer() -> None:
    """Who has no entry of its own brings all its tokens as new in every round."""
    full = begin(**{f"p{number:04}": number for number in range(1, MAX_PEERS + 1)})
    once = step(full, offered("new", 1, 100), offered("p0002", 2, 2))
    assert len(once.ages) == MAX_PEERS and once.age == full.age + 100
    assert (once.ages["new"], once.ages["p0002"], once.ages[SWARM]) == (100, 2, 1 + 3)
    assert not once.ages.keys() & {"p0001", "p0003"}
    twice = step(once, offered("new", 1, 150), offered("p0002", 2, 2))
    assert twice.ages == {**once.ages, "new": 150}
    third = step(twice, offered("newer", 1, 7))
    assert len(third.ages) == MAX_PEERS and third.ages[SWARM] == 1 + 3 + 2 and third.age == twice.age + 7
    assert read_state(bytes(third.blob), "model", SIZE).digest == third.digest


def test_a_lone_step_and_a_merge_leave_no_more_ages_than_a_reader_takes() -> None:
    full = begin(**{f"p{number:04}": number for number in range(1, MAX_PEERS + 1)})
    alone = lone_step(full, values(9), "me", 400, round_=7, common_tokens=None)
    other = lone_step(full, values(8), "you", 300, round_=7, common_tokens=None)
    merged = merge([alone, other])
    for state in (alone, other, merged):
        assert len(state.ages) == MAX_PEERS
        assert read_state(bytes(state.blob), "model", SIZE).digest == state.digest
    assert alone.age == full.age + 400 and alone.ages["me"] == 400
    assert merged.ages["me"] == 400 and merged.ages["you"] == 300
    assert merged.digest == merge([other, alone]).digest


def test_one_holder_takes_theta_and_forgets_the_momentum() -> None:
    state = lone_step(step(begin(), offered("a", 1)), values(9), "a", 400, round_=7, common_tokens=None)
    assert torch.equal(state.phi, values(9)) and not state.momentum.any()
    assert (state.age, state.round, state.version) == (400, 7, 2)


def test_the_blob_is_a_safetensors_file_that_reads_back() -> None:
    state = step(begin(a=3), offered("a", 1))
    tensors = load(bytes(state.blob))
    assert torch.equal(tensors["phi"], state.phi) and torch.equal(tensors["momentum"], state.momentum)
    again = read_state(bytes(state.blob), "model", SIZE)
    assert (again.digest, again.ages, again.version) == (state.digest, state.ages, state.version)


@pytest.mark.parametrize("damage", ["short", "name", "nan", "header", "empty"])
def test_a_hostile_blob_is_refused(damage: str) -> None:
    state = begin(a=3)
    data = bytearray(state.blob)
    if damage == "short":
        data = data[:-4]
    elif damage == "nan":
        data[-4:] = b"\x00\x00\xc0\x7f"
    elif damage == "header":
        data[8:20] = b"x" * 12
    elif damage == "empty":
        data = bytearray()
    with pytest.raises(PeerError):
        read_state(data, "other" if damage == "name" else "model", SIZE)


def forged(**facts: str) -> bytes:
    """A blob of an otherwise good state that says something else of itself."""
    good = bytes(begin(a=3).blob)
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    header["__metadata__"] |= facts
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)
    return len(data).to_bytes(8, "little") + data + bytes(good[8 + length :])


LIES = {
    "ages": ["", "[]", "3", '{"a":-1}', '{"a":Infinity}', '{"a":1e999}', '{"a":"3"}', '{"a":3.0}', '{"a":3,"a":3}'],
    "ages in another order, with a space, too large": ['{"b":1,"a":3}', '{"a": 3}', f'{{"a":{2**48}}}'],
    "ages too deep, too many": ["[" * 200_000, json.dumps({str(i): 1 for i in range(4097)})],
    "version": ["-1", "x", "1.5", " 1", str(2**48), "9" * 5000],
    "round": ["-1", "", str(2**48)],
    "is_final": ["2", "True", "yes"],
    "more": ["x"],
}


@pytest.mark.parametrize("about", LIES)
def test_a_header_that_nobody_would_write_is_refused(about: str) -> None:
    for lie in LIES[about]:
        with pytest.raises(PeerError) as error:
            read_state(forged(**{about.split()[0]: lie}), "model", SIZE)
        assert len(str(error.value)) < 200


def test_a_header_that_lays_the_tensors_out_otherwise_is_refused() -> None:
    """Another reader of the file would take the momentum for the parameters."""
    read_state(forged(), "model", SIZE)
    good = bytes(begin(a=3).blob)
    for old, new in ((b'"phi"', b'"psi"'), (b"[0,4000]", b"[4,4000]"), (b'"F32"', b'"I32"'), (b"[1000]", b"[9999]")):
        assert old in good
        with pytest.raises(PeerError):
            read_state(good.replace(old, new), "model", SIZE)
    with pytest.raises(PeerError):
        read_state((2**63).to_bytes(8, "little") + good[8:], "model", SIZE)


def test_a_merge_is_the_same_for_all_and_weighs_by_what_each_saw_alone() -> None:
    left, right = step(begin(), offered("a", 1, 300)), step(begin(), offered("b", 2, 100))
    one, two = merge([left, right]), merge([right, left])
    assert one.digest == two.digest
    torch.testing.assert_close(one.phi, 0.75 * left.phi + 0.25 * right.phi)
    assert one.ages == {"a": 300, "b": 100}


def test_a_merge_of_replicas_from_random_groups_counts_nobody_s_tokens_twice() -> None:
    phi = values(1)
    one = new_state("model", phi, None, version=3, round_=9, ages={"a": 300, SWARM: 700}, is_final=False)
    two = new_state("model", phi, None, version=4, round_=9, ages={"b": 200, SWARM: 850}, is_final=False)
    merged = merge([one, two])
    assert merged.ages == {"a": 300, "b": 200, SWARM: 550} and merged.age == 1050
