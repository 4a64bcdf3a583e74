"""Work is neither lost nor counted twice: over rounds, repairs, and kills between any two writes."""

import math
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.content import CHUNK_BYTES, content_id_of
from configs.errors import PeerError, StateError
from configs.files import LARGE_BYTES
from configs.run import RunSpec
from peer.block.codec_choice import COARSE
from peer.block.own_offers import SAVED_OFFERS
from peer.block.replica import Replica, read_offer
from peer.block.saved import load_state
from peer.train.mixing import Mixed
from peer.train.outer import TILE, Contribution, OuterState, merge, new_state
from protocols.codecs import CODECS, decode, encode
from protocols.offers import KEPT_ROUNDS, SealedRound
from protocols.parcels import Offer, OfferHeader
from protocols.sealing import MARKS

pytestmark = pytest.mark.usefixtures("one_thread")

# Values of a block: below and above what the code does otherwise with larger ones.
SMALL, LARGE = 4096, LARGE_BYTES // 4 + 4096
SIZE = SMALL


@pytest.fixture(autouse=True, params=[SMALL, LARGE], ids=["small", "large"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every law be one of small and of large blocks: tiles, chunks, files that are written over."""
    monkeypatch.setattr(sys.modules[__name__], "SIZE", request.param)


def test_the_sizes_are_on_both_sides_of_every_threshold() -> None:
    """A state has 8 bytes for a value, the smallest file that a large block must have written over has 4."""
    for threshold in (4 * TILE, LARGE_BYTES, CHUNK_BYTES):
        assert 8 * SMALL < threshold < 4 * LARGE


@pytest.fixture
def spec(smallest_run: Callable[..., RunSpec]) -> RunSpec:
    return smallest_run(outer={"codec": "int8", "alpha": 1.0, "mu": 0.0})


def state(seed: int = 0, version: int = 0, round_: int = 0) -> OuterState:
    phi = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))
    return new_state("model", phi, None, version=version, round_=round_, ages={}, is_final=False)


def progress(seed: int) -> Tensor:
    return 0.01 * torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def contribution(replica: Replica) -> Contribution:
    assert replica.pending is not None
    return Contribution("me", replica.pending.decoded, replica.tokens, 1.0, "all")


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_is_lost_or_counted_twice_over_many_rounds(spec: RunSpec, codec: str) -> None:
    """φ₀ − φ (applied) plus the residual, plus what θ has beyond φ, is all the work that was made."""
    spec = spec.model_copy(update={"outer": spec.outer.model_copy(update={"codec": codec})})
    replica, chance = Replica(state(), spec, "me"), random.Random(3)
    theta = replica.state.phi.clone()
    made = torch.zeros(SIZE, dtype=torch.float64)
    counts = {"sealed": 0, "without the own offer": 0, "skipped": 0}
    start = replica.state.phi.double()
    for round_ in range(1, 101 if SIZE == SMALL else 21):
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
    replica.adopt([other], rounds, [], state())
    expected = before + (int(was_counted) - int(is_counted)) * decoded
    torch.testing.assert_close(replica.residual, expected)
    assert replica.marks[-1].digest == other.digest


def test_after_a_kill_between_offer_and_seal_the_work_waits_in_the_residual(spec: RunSpec, tmp_path: Path) -> None:
    replica = Replica(state(), spec, "me")
    replica.save(tmp_path)
    replica.offer(4, replica.state.phi - progress(1), tokens=700)
    replica.save_offered(tmp_path)
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
    again.adopt([other], rounds, [], saved)
    torch.testing.assert_close(again.residual, produced - decoded)


def test_after_a_kill_later_the_checkpoint_s_residual_counts(spec: RunSpec, tmp_path: Path) -> None:
    replica = Replica(state(), spec, "me")
    replica.offer(1, replica.state.phi - progress(1), tokens=100)
    replica.save_offered(tmp_path)
    replica.advance(1, [contribution(replica)], {"me": "0" * 64})
    replica.save(tmp_path)
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


def test_training_that_is_not_finite_is_written_over_no_state(spec: RunSpec, tmp_path: Path) -> None:
    """Neither alone, where the state may be the only one, nor as what is owed when the block is put away."""
    replica = Replica(state(), spec, "me")
    replica.save(tmp_path)
    sound, lost = replica.state.phi - progress(1), replica.state.phi.clone()
    lost[SIZE // 2] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        replica.advance_alone(1, lost, tokens=50)
    assert (replica.state.version, replica.tokens) == (0, 0)
    replica.offer(1, sound, tokens=100)
    replica.skip(1)
    replica.put_off(lost, tokens=150)
    replica.save(tmp_path)
    again = resumed(spec, tmp_path)
    torch.testing.assert_close(again.residual, progress(1), atol=1e-6, rtol=0)
    assert (again.state.version, again.tokens) == (0, 100)


def test_unsent_work_is_owed_when_a_block_is_put_away(spec: RunSpec, tmp_path: Path) -> None:
    """A round that was offered and skipped, then more work, then a regular end."""
    replica = Replica(state(), spec, "me")
    theta = replica.state.phi - progress(1)
    replica.offer(1, theta, tokens=100)
    replica.save_offered(tmp_path)
    replica.skip(1)
    replica.put_off(theta - progress(2), tokens=150)
    replica.save(tmp_path)
    again = resumed(spec, tmp_path)
    torch.testing.assert_close(again.residual, progress(1) + progress(2), atol=1e-6, rtol=0)
    assert (again.tokens, again.offered_round) == (150, 1)


@pytest.mark.parametrize("others_follow", [True, False])
def test_what_was_learnt_cut_off_from_the_others_is_owed_when_they_went_on_without_it(
    spec: RunSpec, others_follow: bool
) -> None:
    """Two rounds alone, after the others were heard no more; then their history counts, or this peer's does."""
    begun = new_state("model", state().phi, None, version=3, round_=3, ages={"you": 50}, is_final=False)
    replica = Replica(begun, spec, "me")
    for round_ in (5, 6):
        replica.advance_alone(round_, replica.state.phi - progress(round_), tokens=100 * round_)
    if others_follow:
        mine = Contribution("you", progress(1), 900, float(progress(1).norm()), "all")
        replica.advance(8, [mine], {"you": "0" * 64})
    other = state(7, version=5, round_=9)
    rounds = [
        SealedRound(version=v, round=r, offers={"you": "0" * 64}, digest=other.digest) for v, r in ((4, 7), (5, 9))
    ]
    replica.adopt([other], rounds, [], replica.previous if others_follow else begun)
    expected = torch.zeros(SIZE) if others_follow else progress(5) + progress(6)
    torch.testing.assert_close(replica.residual, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("was_counted", [True, False])
def test_who_comes_back_to_a_later_state_owes_what_its_history_has_not_counted(
    spec: RunSpec, tmp_path: Path, was_counted: bool
) -> None:
    """It was killed after its offer for round 4; the others went on to round 6, with that offer or without it."""
    replica = Replica(state(), spec, "me")
    replica.offer(4, replica.state.phi - progress(1), tokens=700)
    replica.save_offered(tmp_path)
    assert replica.pending is not None
    produced, decoded = replica.pending.produced, replica.pending.decoded
    now = state(5, version=2, round_=6)
    offers = [{"me": "0" * 64} if was_counted else {"you": "0" * 64}, {"you": "0" * 64}]
    digests = ["1" * 64, now.digest]
    rounds = [
        SealedRound(version=version, round=2 + 2 * version, offers=offers[version - 1], digest=digests[version - 1])
        for version in (1, 2)
    ]
    again = Replica(now, spec, "me")
    again.resume(tmp_path)
    again.reconcile([SealedRound(version=2, round=6, offers={"me": "0" * 64}, digest="2" * 64)])  # of another state
    assert torch.equal(again.residual, produced)
    again.reconcile(rounds)
    torch.testing.assert_close(again.residual, produced - decoded if was_counted else produced)
    assert [mark.version for mark in again.marks] == [1, 2]


@pytest.mark.parametrize("versions", [MARKS - 1, MARKS + 1, KEPT_ROUNDS, KEPT_ROUNDS + 1, 100])
@pytest.mark.parametrize("was_counted", [True, False])
@pytest.mark.parametrize("has_state", [True, False], ids=["with its own state", "with that of the others"])
def test_however_long_it_was_away_what_its_history_has_counted_is_not_owed(
    spec: RunSpec, tmp_path: Path, versions: int, was_counted: bool, has_state: bool
) -> None:
    """Killed after its offer for round 4, which the others took or not; then they went on for so many versions."""
    witness, mine = Replica(state(), spec, "you"), Replica(state(), spec, "me")
    mine.save(tmp_path)
    mine.offer(4, mine.state.phi - progress(1), tokens=700)
    mine.save_offered(tmp_path)
    assert mine.pending is not None
    produced, decoded, offer = mine.pending.produced, mine.pending.decoded, contribution(mine)
    for version in range(1, versions + 1):
        theirs = [Contribution("you", progress(-version), 1000 * version, 1.0, "all")]
        theirs += [offer] if was_counted and version == 1 else []
        witness.advance(3 + version, theirs, {c.peer_id: "0" * 64 for c in theirs})
    again = Replica(state() if has_state else witness.state, spec, "me")
    again.resume(tmp_path)
    if has_state:
        assert follow(again, witness)
    else:
        again.reconcile(witness.lineage)
    torch.testing.assert_close(again.residual, produced - decoded if was_counted else produced)
    owed = again.residual.clone()
    again.save(tmp_path)
    again = resumed(spec, tmp_path)
    again.reconcile(witness.lineage)
    torch.testing.assert_close(again.residual, owed)


@pytest.mark.parametrize("is_known", [True, False], ids=["told", "untold"])
def test_what_was_learnt_alone_outlives_a_restart(spec: RunSpec, tmp_path: Path, is_known: bool) -> None:
    """Cut off for two rounds, ended and started again: on return its own state counts, or that of the others."""
    begun = new_state("model", state().phi, None, version=3, round_=3, ages={"you": 50, "me": 40}, is_final=False)
    mine, witness = Replica(begun, spec, "me"), Replica(begun, spec, "you")
    for round_ in (5, 6):
        mine.advance_alone(round_, mine.state.phi - progress(round_), tokens=100 * round_)
    mine.put_off(mine.state.phi - progress(7), tokens=700)
    mine.save(tmp_path)
    witness.advance_alone(8, witness.state.phi - progress(8), tokens=900)
    stayed = resumed(spec, tmp_path)
    assert stayed.may_count
    stayed.reconcile(mine.lineage)
    torch.testing.assert_close(stayed.residual, progress(7), atol=1e-6, rtol=0)
    again = Replica(witness.state, spec, "me")
    again.resume(tmp_path)
    again.reconcile(witness.lineage if is_known else ())
    learnt = progress(5) + progress(6) + progress(7)
    torch.testing.assert_close(again.residual, learnt, atol=1e-6, rtol=0)
    assert follow(stayed, witness)
    torch.testing.assert_close(stayed.residual, learnt, atol=1e-6, rtol=0)


@pytest.mark.parametrize("versions", [MARKS - 1, MARKS + 1, KEPT_ROUNDS + 1])
@pytest.mark.parametrize("was_counted", [True, False])
@pytest.mark.parametrize("is_ended", [True, False], ids=["ended in between", "running on"])
def test_an_offer_that_the_others_took_is_not_owed_with_what_was_learnt_alone(
    spec: RunSpec, tmp_path: Path, versions: int, was_counted: bool, is_ended: bool
) -> None:
    """Cut off right after its offer for round 4, it learns on alone; then it follows the others, who took it."""
    begun = new_state("model", state().phi, None, version=3, round_=3, ages={"you": 50, "me": 40}, is_final=False)
    witness, mine = Replica(begun, spec, "you"), Replica(begun, spec, "me")
    mine.offer(4, mine.state.phi - progress(1), tokens=70)
    offer = contribution(mine)
    assert mine.pending is not None
    decoded = mine.pending.decoded.clone()
    mine.skip(4)
    for version in range(1, versions + 1):
        theirs = [Contribution("you", progress(-version), 1000 * version, 1.0, "all")]
        theirs += [offer] if was_counted and version == 1 else []
        witness.advance(3 + version, theirs, {c.peer_id: "0" * 64 for c in theirs})
    for round_ in range(5, 4 + versions):  # with all that it had learnt before
        mine.advance_alone(round_, mine.state.phi - progress(round_) - (progress(1) if round_ == 5 else 0), 20 * round_)
    learnt = begun.phi - mine.state.phi
    if is_ended:
        mine.save(tmp_path)
        mine = resumed(spec, tmp_path)
    assert follow(mine, witness)
    torch.testing.assert_close(mine.residual, learnt - decoded if was_counted else learnt, atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_of_what_was_learnt_alone_only_what_the_others_did_not_take_over_is_owed(spec: RunSpec, steps: int) -> None:
    """Somebody takes over the state before the last lone step, or after it, and goes on; this peer follows."""
    begun = new_state("model", state().phi, None, version=3, round_=3, ages={"you": 50, "me": 40}, is_final=False)
    mine, witness = Replica(begun, spec, "me"), Replica(begun, spec, "you")
    for step in range(1, steps + 1):
        mine.advance_alone(3 + step, mine.state.phi - progress(step), tokens=100 * step)
        if step == max(1, steps - 1):
            witness = Replica(mine.state, spec, "you")
    witness.advance_alone(9, witness.state.phi - progress(9), tokens=900)
    assert follow(mine, witness)
    owed = torch.zeros(SIZE) if steps == 1 else progress(steps)
    torch.testing.assert_close(mine.residual, owed, atol=1e-6, rtol=0)


@pytest.mark.parametrize("versions", [1, MARKS + 1])
def test_what_was_learnt_alone_and_merged_is_owed_when_the_others_did_not_merge(spec: RunSpec, versions: int) -> None:
    """Its next offer has told the others a count that has the lone steps: counts do not tell what they have."""
    begun = new_state("model", state().phi, None, version=3, round_=3, ages={"you": 50, "me": 40}, is_final=False)
    mine, witness = Replica(begun, spec, "me"), Replica(begun, spec, "you")
    mine.advance_alone(4, mine.state.phi - progress(1), tokens=400)
    for version in range(1, versions + 1):
        witness.advance(
            3 + version, [Contribution("you", progress(-version), 60 + version, 1.0, "all")], {"you": "0" * 64}
        )
    marks = [*mine.marks, *witness.marks]
    mine.merged(merge([mine.state, witness.state]), marks)
    mine.offer(99, mine.state.phi.clone(), tokens=450)
    offer = contribution(mine)
    witness.advance(99, [offer, Contribution("you", progress(-99), 500, 1.0, "all")], {"me": "0" * 64, "you": "0" * 64})
    mine.advance(99, [offer], {"me": "0" * 64})
    assert follow(mine, witness)
    torch.testing.assert_close(mine.residual, progress(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("versions", [MARKS - 1, KEPT_ROUNDS + 1])
def test_what_was_learnt_alone_is_not_owed_when_the_others_went_on_from_there(spec: RunSpec, versions: int) -> None:
    """A lone holder's step, taken over by another, who was then alone for so many versions."""
    begun = new_state("model", state().phi, None, version=3, round_=3, ages={"you": 50}, is_final=False)
    mine = Replica(begun, spec, "me")
    mine.advance_alone(4, mine.state.phi - progress(1), tokens=100)
    witness = Replica(mine.state, spec, "you")
    for round_ in range(5, 5 + versions):
        witness.advance_alone(round_, witness.state.phi - progress(round_), tokens=100 * round_)
    assert follow(mine, witness)
    assert not mine.residual.any()


def test_the_count_of_tokens_survives_a_state_that_is_fetched_on_return(spec: RunSpec, tmp_path: Path) -> None:
    replica = Replica(state(), spec, "me")
    replica.put_off(replica.state.phi - progress(1), tokens=248)
    replica.save(tmp_path)
    (tmp_path / "model.json").unlink()  # as good as written anew for the state of the others
    again = Replica(state(5, version=3, round_=9), spec, "me")
    again.resume(tmp_path)
    assert again.tokens == 248


class Killed(BaseException):
    """What a test raises where a process would end."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Let the n-th half of a write from now on, bytes or name, be the last thing that happens; None lets all happen."""
    left: list[int | None] = [None]
    fsync = os.fsync

    def write_or_die(descriptor: int) -> None:
        fsync(descriptor)
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

    monkeypatch.setattr(os, "fsync", write_or_die)
    return lambda writes: left.__setitem__(0, writes)


def resumed(spec: RunSpec, folder: Path) -> Replica:
    saved = load_state(folder, "model", SIZE)
    assert saved is not None
    replica = Replica(saved, spec, "me")
    replica.resume(folder)
    return replica


def follow(mine: Replica, witness: Replica) -> bool:
    """Repair as `peer/block/exchange.py` does: from the last common state, or by a download."""
    if mine.marks[-1] == witness.marks[-1]:
        return False
    known = {mark.digest for mark in witness.marks}
    base = next((s for s in (mine.state, mine.previous) if s is not None and s.digest in known), None)
    rounds = [r for r in witness.lineage if base is None or r.version > base.version]
    mine.adopt([witness.state], rounds, list(witness.marks), base)
    return True


FATES = ("agrees", "hears nothing", "seals another set", "dies before the step", "dies in a write")


@pytest.mark.parametrize("seed", range(2))
def test_repairs_and_kills_at_any_point_neither_lose_work_nor_count_it_twice(
    spec: RunSpec, tmp_path: Path, kill_at: Callable[[int | None], None], seed: int
) -> None:
    """A witness has the history that counts: the D(u) that it took of mine, plus what I still owe, is what I made."""
    chance, fates = random.Random(seed), Counter[str]()
    witness, mine = Replica(state(), spec, "you"), Replica(state(), spec, "me")
    mine.save(tmp_path)
    theta = mine.state.phi.clone()
    made, seen, applied = (torch.zeros(SIZE, dtype=torch.float64) for _ in range(3))
    missed = 0  # rounds since the last repair: how many own offers survive a death is bounded
    for round_ in range(1, 101 if SIZE == SMALL else 41):
        theta, made = theta - progress(round_), made + progress(round_).double()
        fate = chance.choice(FATES) if missed < SAVED_OFFERS else "agrees"
        is_step = chance.random() < 0.8 or fate == "seals another set"
        missed = missed + 1 if fate != "agrees" else 0
        took = {"you": Contribution("you", progress(-round_), 100 * round_, 1.0, "all")} if is_step else {}
        fates[fate] += 1
        is_offered = False
        try:
            kill_at(chance.randrange(4, 15) % 9 if fate == "dies in a write" else None)  # the later ones more often
            mine.offer(round_, theta, tokens=100 * round_)
            offer = contribution(mine)
            mine.save_offered(tmp_path)
            is_offered, seen = True, made.clone()
            if is_step and chance.random() < 0.7:
                took["me"] = offer
                applied = applied + offer.values.double()
            if fate == "dies before the step":
                raise Killed
            before, cut = mine.state, theta
            fates["repaired"] += fate != "hears nothing" and follow(mine, witness)
            if fate == "hears nothing" or not is_step:
                mine.skip(round_)
                theta = theta + (mine.state.phi - before.phi)
            else:
                chosen = {"me": offer} if fate == "seals another set" else took
                mine.advance(round_, list(chosen.values()), dict.fromkeys(chosen, "0" * 64))
                theta = theta + (mine.state.phi - cut)
            if mine.state is not before:
                mine.save(tmp_path)
        except Killed:
            kill_at(None)
            mine = resumed(spec, tmp_path)
            theta = mine.state.phi.clone()
        if took:
            witness.advance(round_, list(took.values()), dict.fromkeys(took, "0" * 64))
        kill_at(None)
        if not is_offered:  # killed while it wrote what it was about to offer: no more than that is lost
            follow(mine, witness)
            theta = mine.state.phi.clone()
            mine.save(tmp_path)
            left = applied + mine.residual.double()
            made = min((made, seen), key=lambda sums: float((left - sums).abs().max()))
    before = mine.state
    follow(mine, witness)
    theta = theta + (mine.state.phi - before.phi)
    print(dict(fates), f"versions {witness.state.version}")
    assert mine.marks[-1] == witness.marks[-1]
    under_way = mine.state.phi.double() - theta.double()
    assert all(fates[fate] for fate in (*FATES, "repaired"))
    torch.testing.assert_close(applied + mine.residual.double() + under_way, made, atol=1e-4, rtol=0)


def signed(values: Tensor, norm: float, codec: str = "float32") -> Offer:
    payload = encode(codec, values)
    header = OfferHeader(
        run_id="run", block="model", round=1, peer="you", codec=codec, size_bytes=len(payload),
        content_id=content_id_of(payload), tokens=1, norm=norm, domain="all",
    )  # fmt: skip
    return Offer(header, b"", [], payload, "0" * 64)


def test_an_offer_counts_only_with_its_true_norm() -> None:
    values = torch.ones(SIZE)
    norm = math.sqrt(SIZE)
    assert read_offer(signed(values, norm), SIZE).norm == pytest.approx(norm)
    for lie in (0.0, 0.98 * norm, 1.02 * norm, 1e30):
        with pytest.raises(PeerError, match="norm"):
            read_offer(signed(values, lie), SIZE)
    with pytest.raises(PeerError, match="norm"):
        read_offer(signed(1e25 * values, 1.0), SIZE)  # its norm is beyond float32: infinite, and no signed one is near
    with pytest.raises(PeerError):
        read_offer(signed(values, norm), SIZE + 1)


def test_a_damaged_state_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not a state")
    with pytest.raises(StateError, match="move it away") as error:
        load_state(tmp_path, "model", SIZE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_in_a_random_group_the_share_that_was_not_taken_is_still_owed(
    spec: RunSpec, tmp_path: Path, share: float
) -> None:
    replica, at = Replica(state(), spec, "me"), slice(0, SIZE // 16)
    replica.offer(5, replica.state.phi - progress(1), 100)
    replica.save_offered(tmp_path)
    assert replica.pending is not None
    produced, decoded = replica.pending.produced, replica.pending.decoded
    other = Contribution("you", progress(2), 100, float(progress(2).norm()), "all")
    offers = [Mixed(other, replica.state.phi[at] + 0.001, 0)]
    if share:
        offers.append(Mixed(contribution(replica), replica.state.phi[at].clone(), 0))
    replica.mix(5, replica.state.phi[at].clone(), offers, share, at, 20.0)
    assert torch.allclose(replica.residual, produced - share * decoded, atol=1e-7)
    assert replica.state.version == 1 and replica.pending is None
    assert replica.state.ages.get("me", 0) == (100 if share else 0)
    replica.save(tmp_path)
    again = Replica(replica.state, spec, "me")
    again.resume(tmp_path)
    assert torch.equal(again.residual, replica.residual) and again.offered_round == 5


def test_an_offer_for_a_random_group_is_not_one_for_a_complete_group() -> None:
    payload = encode("int8", progress(1))
    header = OfferHeader(
        run_id="run", block="model", round=1, peer="me", codec="int8", size_bytes=len(payload), content_id="0" * 64,
        tokens=1, norm=float(progress(1).norm()), domain="all", fragment=3,
    )  # fmt: skip
    with pytest.raises(PeerError, match="random group"):
        read_offer(Offer(header, b"", [], payload, ""), SIZE)


def test_an_offer_keeps_the_codec_that_it_was_made_with(spec: RunSpec, tmp_path: Path) -> None:
    """The run's codec is int8; this peer's link was too slow for it, and is not any more."""
    replica = Replica(state(), spec, "me")
    replica.choice.codec = COARSE
    coarse, _ = replica.offer(1, replica.state.phi - progress(1), 100)
    replica.skip(1)
    replica.choice.codec = "int8"
    fine, _ = replica.offer(2, replica.state.phi - progress(1) - progress(2), 200)
    replica.save_offered(tmp_path)
    assert len(coarse) < len(fine) / 10
    again = Replica(replica.state, spec, "me")
    again.resume(tmp_path)
    assert [again.own[round_].codec for round_ in (1, 2)] == [COARSE, "int8"]
    others = SealedRound(version=1, round=1, offers={"me": "0" * 64}, digest="0" * 64)
    owed = again.residual.clone()
    again.adopt([state(1, version=1, round_=1)], [others], [], replica.state)
    assert torch.allclose(again.residual, owed - decode(COARSE, coarse, SIZE), atol=1e-7)
