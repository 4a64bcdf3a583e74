"""Answers to many prompts at once, none of which goes in circles, and which of several options a model prefers.

`generate.py` writes one text, with chance and an account of who spoke; here prompts are read side by side. The route is
the same: each prompt decides it for itself. Every token costs a forward pass of each sub-model.

Shapes: B prompts, K sub-models, T tokens of the longest prompt, V tokens of the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peer.corpus.data import Array
from peer.corpus.examples import Encoded
from peer.fused.routed import MAX_LOGITS, RoutedModel
from peer.fused.sampling import repeating

NO_REPEAT = 3  # tokens in a row that no answer has twice when it is scored: small models would go in circles
MAX_BATCH = 64  # prompts that are answered together; all wait for the slowest answer
MAX_READ = 8192  # tokens of prompts that are read together: each leaves its keys and values in memory

Progress = Callable[[int, int], None]  # (prompts done, prompts in all)


def answer(
    model: RoutedModel,
    prompts: Sequence[NDArray[np.int64]],
    limits: Sequence[int],
    progress: Progress | None = None,
) -> list[list[int]]:
    """Return the tokens of the answer to each prompt, without the end-of-text, at most `limits` of them.

    A prompt and the limit of its answer must fit into the context together.
    """
    found: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))  # little is spent on padding
    at = 0
    while at < len(order):
        longest = len(prompts[order[at]]) + 1
        logits = model.vocab_size * (longest if _is_routed(model) else 1)  # that exist of one prompt at a time
        rows = order[at : at + max(1, min(MAX_BATCH, MAX_READ // longest, MAX_LOGITS // logits))]
        at += len(rows)
        answers = _answer_batch(model, [prompts[row] for row in rows], [limits[row] for row in rows])
        for row, tokens in zip(rows, answers, strict=True):
            found[row] = tokens
        if progress is not None:
            progress(at, len(order))
    return found


def preferred(model: RoutedModel, examples: Sequence[Encoded], progress: Progress | None = None) -> list[int]:
    """Return which of each example's options has the least mean loss per token, its end mark included."""
    ranked = [(each, option) for each in examples for option in range(1, len(each.answers))]
    documents = [np.concatenate([each.prompt, each.answers[option]]) for each, option in ranked]
    log_likelihoods = iter(model.log_likelihoods(documents, progress))
    best = []
    for each in examples:
        means = [model.mixture(next(log_likelihoods))[len(each.prompt) :].mean() for _ in each.answers[1:]]
        best.append(int(np.argmax(means)))
    return best


def _is_routed(model: RoutedModel) -> bool:
    """Whether it matters how well each sub-model predicts a prompt."""
    return len(model.models) > 1


@torch.inference_mode()
def _answer_batch(model: RoutedModel, prompts: Sequence[NDArray[np.int64]], limits: Sequence[int]) -> list[list[int]]:
    reader = _Reader(model)
    log_likelihoods, following_KBV = reader.read(prompts)
    weights = [model.router.route(each)[1] for each in log_likelihoods]  # of each prompt, (K,)
    answers: list[list[int]] = [[] for _ in prompts]
    is_open = [limit > 0 for limit in limits]
    while any(is_open):
        weights_KB = torch.from_numpy(np.stack(weights, axis=1)).to(following_KBV.device)
        scores_BV = (following_KBV + weights_KB[:, :, None]).logsumexp(dim=0)
        for row, tokens in enumerate(answers):
            if is_open[row]:
                scores_BV[row, repeating(tokens, NO_REPEAT)] = -torch.inf
        chosen_B = scores_BV.argmax(dim=1)
        liked_KB = following_KBV.gather(2, chosen_B.expand(len(model.models), -1)[:, :, None])[:, :, 0].cpu().numpy()
        for row, token in enumerate(chosen_B.tolist()):
            if not is_open[row]:
                continue
            weights[row] = model.router.step(weights[row], liked_KB[:, row])
            is_open[row] = token not in model.ends
            if is_open[row]:
                answers[row].append(token)
                is_open[row] = len(answers[row]) < limits[row]
        if any(is_open):
            following_KBV = reader.follow(chosen_B)
    return answers


class _Reader:
    """Keeps what each sub-model has read of prompts that end at the same place: shorter ones are padded on the left."""

    def __init__(self, model: RoutedModel) -> None:
        self._model = model
        self._caches: list[Any] = [None] * len(model.models)
        self._is_read = torch.empty(0)  # (B, tokens so far): 0 is padding

    def read(self, prompts: Sequence[NDArray[np.int64]]) -> tuple[list[Array], Tensor]:
        """Read the prompts after an end-of-text.

        Returns the log likelihoods (K, T) of the tokens of each, and those (K, B, V) of the next tokens. With a single
        sub-model, which answers whatever it predicts, the former are not made: they are zeros.
        """
        longest = max(map(len, prompts)) + 1
        padded = np.full((len(prompts), longest), self._model.end_of_text, dtype=np.int64)
        is_read = np.zeros_like(padded)
        for row, prompt in enumerate(prompts):
            padded[row, longest - len(prompt) :] = prompt
            is_read[row, longest - len(prompt) - 1 :] = 1
        device = self._model.models[0].device
        self._is_read = torch.from_numpy(is_read).to(device)
        tokens = torch.from_numpy(padded).to(device)
        if not _is_routed(self._model):
            (logs_BTV,) = self._forward(tokens, logits_to_keep=1)
            return [np.zeros((1, len(prompt))) for prompt in prompts], logs_BTV[None, :, -1].double()
        chosen, following = [], []
        for logs_BTV in self._forward(tokens):
            chosen.append(logs_BTV[:, :-1].gather(2, tokens[:, 1:, None])[:, :, 0].double().cpu().numpy())
            following.append(logs_BTV[:, -1].double())
        chosen_KBT = np.stack(chosen)
        own = [chosen_KBT[:, row, longest - 1 - len(prompt) :] for row, prompt in enumerate(prompts)]
        return own, torch.stack(following)

    def follow(self, tokens: Tensor) -> Tensor:
        """Read one more token (B,) of each. Returns the log likelihoods (K, B, V) of the next."""
        self._is_read = torch.cat([self._is_read, self._is_read.new_ones(len(tokens), 1)], dim=1)
        return torch.stack([logs_BTV[:, -1].double() for logs_BTV in self._forward(tokens[:, None])])

    def _forward(self, tokens: Tensor, **more: int) -> Any:
        """Yield the log likelihoods (B, T, V) of each sub-model, one at a time; `more` is for the models."""
        positions = (self._is_read.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        for index, model in enumerate(self._model.models):
            output = model(
                input_ids=tokens,
                attention_mask=self._is_read,
                position_ids=positions,
                past_key_values=self._caches[index],
                use_cache=True,
                **more,
            )
            self._caches[index] = output.past_key_values
            yield output.logits.float().log_softmax(dim=-1)
