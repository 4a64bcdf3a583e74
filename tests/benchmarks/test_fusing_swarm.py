"""A swarm in one process parts, exchanges and is fused as the product does; what is compared with it trains as well."""

from pathlib import Path

import pytest

from benchmarks.costs import flops_per_token, parameters
from benchmarks.fused_forms import largest_difference, late_domain, parts_of
from benchmarks.fusing_swarm import train_central, train_swarm
from benchmarks.joint_mixture import train_joint
from benchmarks.routes import DEFAULT, ORACLE, losses, sub_models_of
from configs.run import ModelSpec, RunSpec
from peer.corpus.data import Corpus, open_corpus
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan
from peer.train.partition import COMMON, Strategy

MODEL = ModelSpec(
    vocab_size=300, hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=2, mlp_size=32, context_length=16
)
STEPS, BATCH, PEERS = 60, 64, 2
TEXTS = {
    "fish": [f"a shoal of fish swims in sea number {n}. " * 20 for n in range(40)],
    "bird": [f"{n} BIRDS FLY OVER THE HILLS! " * 20 for n in range(40)],
}
LATE = {"number": [f"{n} 2 3 4 5 6 7 8 9 0 " * 20 for n in range(40)]}


pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("corpora") / "two"
    prepare_texts(TEXTS, out, Plan(vocab_size=300, context_length=16))
    return open_corpus(out)


def spec_of(corpus: Corpus, kind: str, common: float = 0.5) -> RunSpec:
    total = STEPS * BATCH * PEERS
    facts = {
        "total_tokens": total,
        "model": MODEL,
        "strategy": {"kind": kind, "common_tokens": 0 if kind == "replicas" else int(common * total)},
        "inner": {"learning_rate": 0.02, "batch_tokens": BATCH, "optimizer": "muon"},
        "rounds": {"tick_seconds": 1, "first_ticks": 2, "last_ticks": 4, "double_tokens": total // 4},
        "genesis": 0.0,
        "tokenizer_sha256": corpus.info.tokenizer_sha256,
        "end_of_text": corpus.info.end_of_text,
    }
    return RunSpec.model_validate(facts)


@pytest.mark.parametrize("kind", ["branches", "experts"])
def test_sub_models_part_and_each_knows_its_domain_best(corpus: Corpus, kind: str) -> None:
    spec = spec_of(corpus, kind)
    trained = train_swarm(spec, corpus, PEERS, STEPS, late_steps=1)
    assert trained.rounds and trained.offered_bytes
    assert set(trained.blocks) == {
        COMMON,
        *(b for s in Strategy(kind, 2).sub_models for b in Strategy(kind, 2).blocks(s)),
    }
    scored = losses(sub_models_of(spec, trained.blocks, 2), MODEL, corpus, 2000)
    common = losses(sub_models_of(spec, {COMMON: trained.blocks[COMMON]}, 2), MODEL, corpus, 2000)
    for domain in TEXTS:
        assert scored[ORACLE][domain] < common[DEFAULT][domain]
        assert scored[DEFAULT][domain] == pytest.approx(scored[ORACLE][domain], rel=0.1)
    if kind == "experts":
        assert largest_difference(parts_of(spec, corpus, trained.blocks)) < 1e-5


def test_private_text_stays_with_its_peer_and_all_learn(corpus: Corpus) -> None:
    spec = spec_of(corpus, "branches")
    trained = train_swarm(spec, corpus, PEERS, STEPS, is_private=True)
    scored = losses(sub_models_of(spec, {COMMON: trained.blocks[COMMON]}, 2), MODEL, corpus, 2000)[DEFAULT]
    assert max(scored.values()) < 5.0  # a guess is 5.7


def test_a_late_domain_gets_its_own_branch(corpus: Corpus, tmp_path: Path) -> None:
    tokenizer = corpus.path / "tokenizer.json"
    prepare_texts(TEXTS | LATE, tmp_path / "three", Plan(tokenizer=tokenizer, context_length=16))
    spec = spec_of(corpus, "branches")
    blocks = train_swarm(spec, corpus, PEERS, STEPS).blocks
    found = late_domain(spec, corpus, open_corpus(tmp_path / "three"), blocks, 2000)
    assert found.name == "number" and found.loss_after < found.loss_before - 0.5
    assert found.worst_ratio < 1.05


def test_what_it_is_compared_with_learns_too(corpus: Corpus) -> None:
    spec = spec_of(corpus, "replicas")
    flat = train_central(spec, corpus, steps=STEPS * PEERS)
    dense = losses(sub_models_of(spec, {COMMON: flat}, 2), MODEL, corpus, 2000)[DEFAULT]
    joint = losses(train_joint(spec, corpus, steps=STEPS * PEERS), MODEL, corpus, 2000)[ORACLE]
    assert max(*dense.values(), *joint.values()) < 3.0
    wide = MODEL.model_copy(update={"mlp_size": 64})
    assert (
        flops_per_token(wide) > flops_per_token(MODEL) == pytest.approx(6 * parameters(MODEL) + 6 * 16 * 16, rel=0.02)
    )
