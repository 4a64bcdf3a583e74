"""Answers side by side are those that one prompt gets alone, whatever the model is made of."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from configs.run import ModelSpec
from peer.corpus.examples import Encoded
from peer.fused import answers
from peer.fused.answers import NO_REPEAT, answer, preferred
from peer.fused.generate import Generation
from peer.fused.routed import RoutedModel, SubModelInfo
from peer.fused.router import Router
from peer.fused.sampling import Sampling, repeating
from peer.train.model import build_config

SPEC = ModelSpec(
    vocab_size=260, hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, mlp_size=24, context_length=48
)
END = 7
PROMPTS = [np.random.default_rng(length).integers(8, 260, length) for length in (3, 17, 9, 1, 30, 17)]


def llama(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(build_config(SPEC)).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(4)  # decided enough that rounding does not matter
    return model


def mixtral() -> torch.nn.Module:
    torch.manual_seed(5)
    sizes = {"vocab_size": 260, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 48}
    return MixtralForCausalLM(
        MixtralConfig(**sizes, **heads, num_local_experts=3, num_experts_per_tok=1, eos_token_id=END)
    ).eval()


def routed(*models_: torch.nn.Module) -> RoutedModel:
    infos = tuple(SubModelInfo(name=f"branch.{k}", domain=f"domain{k}") for k in range(len(models_)))
    tokenizer = Tokenizer(models.WordLevel({f"w{token}": token for token in range(260)}, unk_token="w0"))
    return RoutedModel(infos, models_, Router(np.ones((len(models_), 260), dtype=np.uint64)), END, tokenizer)


@pytest.fixture(scope="module", params=["llama", "routed", "mixtral"])
def model(request: pytest.FixtureRequest) -> RoutedModel:
    return {
        "llama": lambda: routed(llama(0)),
        "routed": lambda: routed(llama(0), llama(1)),
        "mixtral": lambda: routed(mixtral()),
    }[request.param]()


def test_a_batch_answers_as_one_prompt_alone(model: RoutedModel) -> None:
    limits = [12, 10, 12, 12, 18, 5]
    progress: list[tuple[int, int]] = []
    found = answer(model, PROMPTS, limits, lambda done, total: progress.append((done, total)))
    for prompt, limit, tokens in zip(PROMPTS, limits, found, strict=True):
        alone = Generation(model, prompt.tolist(), Sampling(max_tokens=limit, temperature=0, no_repeat_ngram=NO_REPEAT))
        list(alone)
        assert tokens == [token for token in alone.tokens[len(prompt) :] if token != END]
        assert 0 < len(tokens) <= limit
    assert progress[-1] == (6, 6)


def test_an_answer_stops_at_the_end_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    model = routed(llama(0))
    first = answer(model, PROMPTS[:2], [6, 6])
    ending = RoutedModel(model.sub_models, model.models, model.router, first[0][2], None)
    cut = answer(ending, PROMPTS[:1], [6])
    assert len(cut[0]) <= 6 and first[0][2] not in cut[0]
    assert answer(model, [], []) == []


def test_the_option_with_the_least_loss_per_token_wins(model: RoutedModel) -> None:
    options = [np.array([9, END]), np.array([50, 60, 70, 80, END]), np.array([200, 201, END])]
    example = Encoded(PROMPTS[1], (options[0], *options), False)
    means = []
    for option in options:
        document = np.concatenate([PROMPTS[1], option])
        means.append(-model.mixture(model.log_likelihoods([document])[0])[17:].mean())
    assert preferred(model, [example, example]) == [int(np.argmin(means))] * 2


def test_a_likeliest_answer_goes_round_in_no_circle(monkeypatch: pytest.MonkeyPatch) -> None:
    def repeats(tokens: list[int]) -> int:
        runs = [tuple(tokens[at : at + NO_REPEAT]) for at in range(len(tokens) - NO_REPEAT + 1)]
        return len(runs) - len(set(runs))

    model = routed(llama(0))
    assert repeats(answer(model, PROMPTS[:1], [40])[0]) == 0
    monkeypatch.setattr(answers, "repeating", lambda tokens, length: [])
    assert repeats(answer(model, PROMPTS[:1], [40])[0]) > 0


def test_which_tokens_would_repeat_a_sequence() -> None:
    assert repeating([1, 2, 3, 4, 1, 2, 3], length=4) == [4]
    assert repeating([1, 2, 1, 3, 1], length=2) == [2, 3]
    assert repeating([1, 2, 3], length=4) == repeating([], length=4) == []
