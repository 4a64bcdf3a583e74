"""The model card names what was trained on what, and by whom."""

from configs.run import InnerSpec, ModelSpec, RoundSpec, RunSpec, StrategySpec
from peer.fused.card import MAX_LISTED, model_card
from peer.train.outer import SWARM


def card(ages: dict[str, dict[str, int]]) -> str:
    sizes = {"vocab_size": 300, "hidden_size": 8, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "mlp_size": 8}
    spec = RunSpec(
        name="test",
        total_tokens=10_000,
        model=ModelSpec(context_length=8, **sizes),
        strategy=StrategySpec(kind="branches"),
        inner=InnerSpec(learning_rate=1e-3, batch_tokens=64),
        rounds=RoundSpec(tick_seconds=1.0, double_tokens=100),
        genesis=0.0,
        tokenizer_sha256="0" * 64,
        end_of_text=0,
    )
    return model_card(spec, {"branch.0": "python", "branch.1": "docs"}, "routed", ages, None)


def test_contributions_are_listed_by_size_with_their_shares() -> None:
    text = card({"branch.0": {"QmOne": 1000, "QmTwo": 3000}})
    assert "| `branch.1` | docs |" in text
    rows = [line for line in text.splitlines() if "Qm" in line]
    assert rows == ["| `branch.0` | `QmTwo` | 3,000 | 75.0% |", "| `branch.0` | `QmOne` | 1,000 | 25.0% |"]


def test_a_crowd_is_summed_up() -> None:
    ages = {SWARM: 500} | {f"Qm{index:02}": 10 for index in range(MAX_LISTED + 4)}
    text = card({"model": ages})
    assert "| `model` | all others | 500 | 67.6% |" in text
    assert "| `model` | 5 more | 50 | 6.8% |" in text
    assert text.count("Qm") == MAX_LISTED - 1


def test_without_known_contributions_there_is_no_such_section() -> None:
    assert "Who trained it" not in card({})
