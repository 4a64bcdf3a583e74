"""A run's name follows from every value of its spec; what cannot be trained is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from configs.load import load
from configs.run import RoundSpec, RunSpec

FOUNDED = {"genesis": 12.5, "tokenizer_sha256": "a" * 64, "end_of_text": 0}


@pytest.fixture
def values() -> dict[str, Any]:
    plan = load("tiny").run
    assert plan is not None
    return plan.founded(1.0, **FOUNDED).model_dump()


def changed(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    section, _, key = path.rpartition(".")
    if not section:
        return {**values, key: value}
    return {**values, section: {**values[section], key: value}}


def test_the_run_id_survives_the_wire(values: dict[str, Any]) -> None:
    spec = RunSpec(**values)
    assert RunSpec.model_validate_json(spec.model_dump_json()).run_id == spec.run_id
    assert len(spec.run_id) == 32 and int(spec.run_id, 16) >= 0


OTHERS = {
    "name": "other",
    "seed": 1,
    "total_tokens": 4_000_001,
    "genesis": 12.6,
    "tokenizer_sha256": "b" * 64,
    "end_of_text": 1,
    "model.num_layers": 5,
    "model.tie_embeddings": False,
    "strategy.kind": "branches",
    "inner.learning_rate": 0.004,
    "outer.mu": 0.6,
    "rounds.cut_share": 0.3,
}


def test_any_other_value_makes_another_run(values: dict[str, Any]) -> None:
    ids = [RunSpec(**changed(values, path, value)).run_id for path, value in OTHERS.items()]
    assert len({*ids, RunSpec(**values).run_id}) == len(OTHERS) + 1


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("model.num_heads", 3, "multiple of num_heads"),
        ("model.num_kv_heads", 3, "multiple of num_kv_heads"),
        ("model.hidden_size", 0, "greater than or equal to 8"),
        ("model.colour", "red", "Extra inputs"),
        ("inner.batch_tokens", 127, "at least one window"),
        ("inner.learning_rate", float("nan"), "finite"),
        ("strategy.kind", "soup", "'replicas', 'experts', 'branches' or 'adapters'"),
        ("strategy.common_tokens", 4_000_001, "exceeds total_tokens"),
        ("strategy.parts", 4, "parts is only for kind replicas, not for experts"),
        ("outer.mu", 1.0, "less than 1"),
        ("outer.codec", "pickle", "'float32', 'bfloat16', 'int8', 'int4' or 'sparse'"),
        ("rounds.first_ticks", 3, "power of two"),
        ("rounds.first_ticks", 16, "must not exceed last_ticks"),
        ("rounds.tick_seconds", 0.1, "greater than or equal to 0.2"),
        ("tokenizer_sha256", "A" * 64, "pattern"),
        ("name", "../etc", "pattern"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], path: str, value: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        RunSpec(**changed(values, path, value))


def test_a_spec_does_not_change(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunSpec(**values).seed = 3


def test_rounds_double_with_age_up_to_the_longest() -> None:
    rounds = RoundSpec(tick_seconds=1, first_ticks=2, last_ticks=16, double_tokens=100)
    ages = {0: 2, 99: 2, 100: 4, 299: 4, 300: 8, 699: 8, 700: 16, 1500: 16, 2**48: 16}
    assert {age: rounds.length(age) for age in ages} == ages


def test_a_run_from_the_seed_is_written_as_before_there_were_others(values: dict[str, Any]) -> None:
    given = {**values, "initial_id": "c" * 64}
    assert RunSpec(**given).run_id != RunSpec(**values).run_id
    assert "initial_id" in RunSpec(**given).model_dump_json()
    assert "initial_id" not in RunSpec(**values).model_dump_json()


def test_adapters_need_a_model_that_they_are_on(values: dict[str, Any]) -> None:
    adapters = changed(changed(values, "strategy.kind", "adapters"), "inner.optimizer", "adamw")
    whole = {**changed(adapters, "model.adapter", {"rank": 8}), "initial_id": "c" * 64}
    assert RunSpec(**whole).is_seeded
    assert not RunSpec(**{**values, "initial_id": "c" * 64}).is_seeded
    for lacking in (adapters, {**adapters, "initial_id": "c" * 64}, {**whole, "initial_id": None}):
        with pytest.raises(ValidationError, match=r"needs initial_id and model\.adapter"):
            RunSpec(**lacking)
    with pytest.raises(ValidationError, match="muon is for whole matrices"):
        RunSpec(**changed(whole, "inner.optimizer", "muon"))
    with pytest.raises(ValidationError, match=r"only for strategy\.kind adapters"):
        RunSpec(**{**whole, "strategy": {"kind": "branches"}})
    assert RunSpec(**whole).run_id != RunSpec(**changed(whole, "model.adapter", {"rank": 9})).run_id
