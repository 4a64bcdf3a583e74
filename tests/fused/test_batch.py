"""Texts that are written side by side are those that each would be alone, however they come and go."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fused_example
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from benchmarks.families import FAMILIES, write_model
from benchmarks.patience import HANG_S
from peer.fused.batch import MAX_TEXTS, Batch
from peer.fused.generate import Generation
from peer.fused.routed import RoutedModel, SubModelInfo
from peer.fused.router import Router
from peer.fused.sampling import Sampling

LENGTHS = (3, 17, 9, 1, 30, 17)
END = 0

pytestmark = pytest.mark.usefixtures("one_thread")


def routed(folders: Sequence[Path]) -> RoutedModel:
    models = tuple(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in folders)
    for model in models:
        model.config.max_position_embeddings = 48
    infos = tuple(SubModelInfo(name=f"branch.{k}", domain=f"domain{k}") for k in range(len(models)))
    counts = np.random.default_rng(0).integers(1, 9, (len(models), 320)).astype(np.uint64)
    tokenizer = Tokenizer.from_buffer(fused_example.tokenizer_json())
    return RoutedModel(infos, models, Router(counts), END, tokenizer)


@pytest.fixture(params=["llama", "mistral", "gemma3_text", "gemma2", "gpt2", "granite", "two"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> RoutedModel:
    """Families that look back in different ways; and a routed model of two."""
    if request.param == "two":
        return routed([write_model(tmp_path / str(seed), "qwen3", seed) for seed in (1, 2)])
    return routed([write_model(tmp_path / "one", request.param)])


def asked(model: RoutedModel, number: int, batch: Batch | None = None) -> Generation:
    tokens = np.random.default_rng(number).integers(1, 256, LENGTHS[number % len(LENGTHS)]).tolist()
    sampling = Sampling(max_tokens=5 + 7 * (number % 5), temperature=0.0 if number % 2 else 0.7, seed=number)
    return Generation(model, tokens, sampling, number % 3 > 0, 2, batch)


def test_side_by_side_is_as_alone(model: RoutedModel) -> None:
    """Twelve texts, six at a time: they begin and end at different tokens, and some run over the context."""
    batch = Batch(model)
    assert batch.most == MAX_TEXTS
    alone, together = ([asked(model, number, each) for number in range(12)] for each in (None, batch))
    for generation in alone:
        list(generation)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(list, together, timeout=HANG_S))
    for one, other in zip(alone, together, strict=True):
        assert other.tokens == one.tokens
        assert np.allclose(other._shares, one._shares, atol=1e-4)
        for mine, theirs in zip(other.chances, one.chances, strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or theirs is None or abs(mine.log_probability - theirs.log_probability) < 1e-4
    assert not batch._seats and not batch._caches


def test_who_stops_in_the_middle_holds_nobody_up(model: RoutedModel) -> None:
    batch = Batch(model)
    stopped = iter(asked(model, 4, batch))
    next(stopped)
    staying = asked(model, 1, batch)
    done = threading.Event()
    writing = threading.Thread(target=lambda: (list(staying), done.set()))
    writing.start()
    assert not done.wait(0.2)  # the first has not asked for more
    stopped.close()
    assert done.wait(HANG_S)
    writing.join()
    alone = asked(model, 1)
    list(alone)
    assert staying.tokens == alone.tokens


def test_what_fails_is_told_to_everybody(model: RoutedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(model)
    first, second = asked(model, 0, batch), asked(model, 4, batch)
    together = threading.Barrier(2)
    whole = batch.model.models[0].forward

    def fail(*given: object, **named: torch.Tensor) -> object:
        if len(named["input_ids"]) > 1:
            raise RuntimeError("no memory is left")
        return whole(*given, **named)

    monkeypatch.setattr(batch.model.models[0], "forward", fail)

    def write(generation: Generation) -> str:
        pieces = iter(generation)
        next(pieces)
        together.wait(HANG_S)
        with pytest.raises(RuntimeError, match="no memory is left"):
            list(pieces)
        return "told"

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(write, (first, second), timeout=HANG_S)) == ["told", "told"]
    assert not batch._seats


def test_what_remembers_otherwise_is_written_one_by_one(tmp_path: Path) -> None:
    FAMILIES["lfm2"] = {"layer_types": ["conv", "full_attention"]}
    try:
        model = routed([write_model(tmp_path, "lfm2")])
    finally:
        del FAMILIES["lfm2"]
    batch = Batch(model)
    assert batch.most == 1
    generation = asked(model, 1, batch)
    list(generation)
    with torch.inference_mode():
        tokens = torch.tensor([[END, *generation.tokens[:-1]]])
        expected = model.models[0](input_ids=tokens, use_cache=False).logits[0].argmax(dim=-1)
    assert generation.tokens[generation.prompt_tokens :] == expected[generation.prompt_tokens :].tolist()
