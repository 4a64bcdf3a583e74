"""Perplexity: nothing is left out, and a directory scores like the model in memory."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from configs.errors import DataError
from configs.run import ModelSpec
from peer.fused.evaluate import evaluate, split_documents
from peer.fused.routed import RoutedModel, SubModelInfo
from peer.fused.router import Router
from peer.train.model import build_config

SPEC = ModelSpec(
    vocab_size=260, hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=2, mlp_size=24, context_length=16
)
END = 7
RANDOM = np.random.default_rng(0)
HELDOUT = {"wide": RANDOM.integers(0, 260, 500).astype(np.uint16), "low": RANDOM.integers(0, 20, 300).astype(np.uint16)}


def plain(seed: int, is_uniform: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = build_config(SPEC)
    config.eos_token_id = END
    model = LlamaForCausalLM(config).eval()
    if is_uniform:
        torch.nn.init.zeros_(model.model.norm.weight)
    return model


def routed(*models: LlamaForCausalLM) -> RoutedModel:
    infos = tuple(SubModelInfo(name=f"branch.{k}", domain=f"domain{k}") for k in range(len(models)))
    return RoutedModel(infos, models, Router(np.ones((len(models), 260), dtype=np.uint64)), END, None)


def test_splitting_keeps_every_token_and_ends_with_the_end() -> None:
    stream = np.array([END, 1, 2, END, END, 3], dtype=np.uint16)
    documents = split_documents(stream, END)
    assert [document.tolist() for document in documents] == [[END], [1, 2, END], [END], [3]]
    assert split_documents(stream[:0], END) == []


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary() -> None:
    evaluation = evaluate(routed(plain(0, is_uniform=True), plain(1, is_uniform=True)), HELDOUT)
    assert evaluation.mean == pytest.approx(260, rel=1e-4)
    assert evaluation.perplexities == pytest.approx({"wide": 260, "low": 260}, rel=1e-4)
    assert evaluation.tokens == {"wide": 500, "low": 300}
    assert evaluation.forward_passes == 2


def test_domains_weigh_the_same_and_sub_models_come_along() -> None:
    model = routed(plain(0), plain(1))
    evaluation = evaluate(model, HELDOUT)
    assert evaluation.mean == pytest.approx(math.exp(sum(evaluation.losses.values()) / 2))
    for name in ("branch.0", "branch.1"):
        assert evaluation.alone[name] == pytest.approx(evaluate(model.only(name), HELDOUT).losses)
    assert evaluation.as_dict()["mean_perplexity"] == evaluation.mean


def test_a_plain_directory_scores_like_the_model_in_memory(tmp_path: Path) -> None:
    plain(3).save_pretrained(tmp_path)
    assert evaluate(tmp_path, HELDOUT).losses == pytest.approx(evaluate(routed(plain(3)), HELDOUT).losses)


def test_max_tokens_bounds_each_domain_and_progress_reaches_it() -> None:
    seen: list[tuple[str, int, int]] = []
    evaluation = evaluate(
        routed(plain(0)),
        HELDOUT,
        max_tokens=100,
        progress=lambda domain, done, total: seen.append((domain, done, total)),
    )
    assert evaluation.tokens == {"wide": 100, "low": 100}
    assert seen[-1] == ("low", 100, 100)


def test_nothing_to_evaluate_on_is_said(tmp_path: Path) -> None:
    model = routed(plain(0))
    with pytest.raises(DataError, match="'empty' has no held-out tokens"):
        evaluate(model, {"empty": HELDOUT["wide"][:0]})
    with pytest.raises(DataError, match="nothing to evaluate on"):
        evaluate(model, {})
    with pytest.raises(DataError, match="no model directory"):
        evaluate(tmp_path / "nowhere", HELDOUT)
