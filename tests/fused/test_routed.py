"""Scores of the routed form: every token counts, earlier tokens decide, documents are apart."""

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from configs.errors import DataError
from configs.run import ModelSpec
from peer.fused.routed import RoutedModel, SubModelInfo
from peer.fused.router import Router
from peer.train.model import build_config, initial_parameters

SPEC = ModelSpec(
    vocab_size=260, hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=2, mlp_size=24, context_length=16
)
END = 7


def llama(seed: int) -> LlamaForCausalLM:
    model = LlamaForCausalLM(build_config(SPEC)).eval()
    drawn = initial_parameters(SPEC, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(drawn[name] * 10)  # opinions that differ
    return model


@pytest.fixture(scope="module")
def routed() -> RoutedModel:
    counts = np.random.default_rng(0).integers(1, 50, (3, 260)).astype(np.uint64)
    infos = tuple(SubModelInfo(name=f"branch.{k}", domain=f"domain{k}") for k in range(3))
    return RoutedModel(infos, tuple(llama(seed) for seed in range(3)), Router(counts), END, None)


def document(tokens: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(8, 260, tokens).astype(np.uint16)


def test_every_token_is_scored_as_the_model_alone_would(routed: RoutedModel) -> None:
    text = document(41)  # two windows and a part of a third
    (scores,) = routed.log_likelihoods([text])
    assert scores.shape == (3, 41)
    for index, model in enumerate(routed.models):
        expected = []
        for start in range(0, 41, 16):
            window = torch.tensor([[END, *text[start : start + 16].astype(int)]])
            with torch.no_grad():
                logs = model(input_ids=window[:, :-1]).logits.log_softmax(-1)
            expected += logs.gather(2, window[:, 1:, None]).flatten().tolist()
        assert scores[index] == pytest.approx(expected, abs=1e-4)


def test_documents_of_unlike_length_do_not_touch_each_other(routed: RoutedModel) -> None:
    texts = [document(length, seed) for seed, length in enumerate((1, 40, 7, 16, 17, 2))]
    together = routed.log_likelihoods(texts)
    for text, scores in zip(texts, together, strict=True):
        assert scores == pytest.approx(routed.log_likelihoods([text])[0], abs=1e-4)


def test_a_later_token_does_not_change_an_earlier_score(routed: RoutedModel) -> None:
    text = document(40)
    changed = text.copy()
    changed[25] = 8 if text[25] != 8 else 9
    before, after = (routed.mixture(routed.log_likelihoods([each])[0]) for each in (text, changed))
    assert after[:25] == pytest.approx(before[:25], abs=1e-5)
    assert after[25] != pytest.approx(before[25], abs=1e-5)


def test_the_route_is_carried_across_windows(routed: RoutedModel) -> None:
    text = document(48)
    (scores,) = routed.log_likelihoods([text])
    weights, _ = routed.router.route(scores)
    assert not np.allclose(weights[:, 16], routed.router.log_prior, atol=0.2)


def test_the_mixture_is_a_distribution(routed: RoutedModel) -> None:
    start = document(20)
    texts = [np.append(start, token) for token in range(260)]
    last = [routed.mixture(scores)[-1] for scores in routed.log_likelihoods(texts)]
    assert np.exp(last).sum() == pytest.approx(1.0, abs=1e-4)


def test_one_sub_model_alone_is_scored_by_the_same_code(routed: RoutedModel) -> None:
    text = document(40)
    alone = routed.only("branch.1")
    (scores,) = routed.log_likelihoods([text])
    assert alone.mixture(alone.log_likelihoods([text])[0]) == pytest.approx(scores[1])
    with pytest.raises(DataError, match=r"no sub-model 'expert\.9'"):
        routed.only("expert.9")


def test_foreign_tokens_are_refused(routed: RoutedModel) -> None:
    with pytest.raises(DataError, match="outside the model's vocabulary"):
        routed.log_likelihoods([np.array([5, 260])])
