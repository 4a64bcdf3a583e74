"""The bytes of which a run's id is the hash: a library that wrote them otherwise would part every run there is.

They are pydantic's JSON: fields in the order of the model, floats as short as they read back, without spaces.
"""

import hashlib
from typing import Any

import pytest

from configs.run import RunSpec

MODEL = {
    "vocab_size": 32_000,
    "hidden_size": 768,
    "num_layers": 12,
    "num_heads": 12,
    "num_kv_heads": 4,
    "mlp_size": 2_048,
    "context_length": 1_024,
    "rms_norm_eps": 1e-6,
}
VALUES = {
    "name": "golden",
    "seed": 7,
    "total_tokens": 10_000_000_000,
    "model": MODEL,
    "inner": {"learning_rate": 0.0006, "batch_tokens": 65_536, "warmup_tokens": 20_000_000},
    "rounds": {"tick_seconds": 10.5, "double_tokens": 300_000_000, "pull_clip": 1e-7},
    "genesis": 1_764_426_555.123456,
    "tokenizer_sha256": "ab" * 32,
    "end_of_text": 2,
}
KINDS: dict[str, dict[str, Any]] = {
    "replicas": {"strategy": {"kind": "replicas", "common_tokens": 1, "parts": 4}, "outer": {"codec": "sparse"}},
    "experts": {"strategy": {"kind": "experts", "common_tokens": 2_500_000_000}},
    "branches": {
        "strategy": {"kind": "branches"},
        "outer": {"codec": "float32", "alpha": 1, "mu": 1e-5},
        "initial_id": "cd" * 32,
    },
    "adapters": {
        "strategy": {"kind": "adapters"},
        "model": {**MODEL, "adapter": {"rank": 8}},
        "initial_id": "cd" * 32,
    },
}
# Of each kind: the run's id, and what differs between the kinds in the bytes: model's end, strategy, outer, the end.
GOLDEN = {
    "replicas": (
        "850f9a0096548211e5de96cb20ddbae6",
        "",
        '{"kind":"replicas","common_tokens":1,"parts":4}',
        '{"codec":"sparse","alpha":1.0,"mu":0.0}',
        "",
    ),
    "experts": (
        "5fd70b1f375a7e6ade6e18835bb34bb2",
        "",
        '{"kind":"experts","common_tokens":2500000000}',
        '{"codec":"int4","alpha":0.7,"mu":0.5}',
        "",
    ),
    "branches": (
        "6f12f4b4d8aaccb674432ad73cc240bc",
        "",
        '{"kind":"branches","common_tokens":0}',
        '{"codec":"float32","alpha":1.0,"mu":0.00001}',
        ',"initial_id":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"',
    ),
    "adapters": (
        "34f1dd88b005b9ffd9199f9cf74073de",
        ',"adapter":{"rank":8,"alpha":32}',
        '{"kind":"adapters","common_tokens":0}',
        '{"codec":"int4","alpha":0.7,"mu":0.5}',
        ',"initial_id":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"',
    ),
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_a_spec_is_written_in_these_bytes_and_no_others(kind: str) -> None:
    run_id, adapter, strategy, outer, end = GOLDEN[kind]
    golden = (
        '{"name":"golden","seed":7,"total_tokens":10000000000,'
        '"model":{"vocab_size":32000,"hidden_size":768,"num_layers":12,"num_heads":12,"num_kv_heads":4,"mlp_size":2048,'
        f'"context_length":1024,"rope_theta":10000.0,"rms_norm_eps":1e-6,"tie_embeddings":true{adapter}}},'
        f'"strategy":{strategy},'
        '"inner":{"optimizer":"adamw","learning_rate":0.0006,"weight_decay":0.1,"betas":[0.9,0.95],"grad_clip":1.0,'
        '"batch_tokens":65536,"warmup_tokens":20000000,"min_rate_share":0.1},'
        f'"outer":{outer},'
        '"rounds":{"tick_seconds":10.5,"first_ticks":1,"last_ticks":8,"double_tokens":300000000,"cut_share":0.2,'
        '"group_size":8,"fragments":32,"pull_clip":1e-7,"max_tokens":4294967296},'
        '"protocol":1,"genesis":1764426555.123456,'
        '"tokenizer_sha256":"abababababababababababababababababababababababababababababababab","end_of_text":2'
        f"{end}}}"
    )
    spec = RunSpec.model_validate({**VALUES, **KINDS[kind]})
    assert spec.model_dump_json() == golden
    assert spec.run_id == run_id == hashlib.sha256(golden.encode()).hexdigest()[:32]
    assert RunSpec.model_validate_json(golden) == spec
