"""One sub-model: Hugging Face's Llama, or what its family builds, its first parameters and its loss.

Transformers is imported only where a model is built (it takes seconds); the daemon uses the rest without it.
Shapes: B sequences, T tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from configs.run import ModelSpec
from peer.train.adapters import build_in, first_factors, is_turned
from peer.train.family import build, head_of
from peer.train.partition import adapted_modules, parameter_shapes

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel

NOT_COUNTED = -100  # the label that cross_entropy passes over
LOSS_VALUES = 1 << 23  # logits that exist at a time; more tokens are taken in chunks, at least MIN_CHUNK each
MIN_CHUNK = 256  # tokens of a chunk, at least
INITIAL_GAIN = 0.5  # deviation of a matrix's first values times √H: 0.018 at GPT-2's width, 0.0625 at 64


def build_config(spec: ModelSpec) -> LlamaConfig:
    """Return the configuration of the Llama that `spec` describes."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.mlp_size,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        num_key_value_heads=spec.num_kv_heads,
        max_position_embeddings=spec.context_length,
        rms_norm_eps=spec.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": spec.rope_theta},
        tie_word_embeddings=spec.tie_embeddings,
        attention_dropout=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation="sdpa",
    )


def build_model(spec: ModelSpec) -> PreTrainedModel:
    """Return a float32 model on torch's default device; a Llama has Transformers' own random parameters, others none.

    With an adapter it is frozen, and the adapter alone is trained.
    """
    if spec.config is None:
        from transformers import LlamaForCausalLM

        model: PreTrainedModel = LlamaForCausalLM(build_config(spec)).float()
    else:
        model = build(spec.config)
    if spec.adapter is None:
        return model
    modules = [name for name, _ in adapted_modules(spec)]
    return build_in(model, spec.adapter, modules, is_turned=is_turned(spec))


def initial_parameters(spec: ModelSpec, seed: int) -> dict[str, Tensor]:
    """Draw the parameters that training begins with: a pure function of `spec` and `seed`, float32 on the CPU.

    Of a model with an adapter these are the adapter's.

    Normal with a deviation that falls with the width: GPT-2's constant 0.02 leaves a narrow model on the plateau of
    word frequencies for longer (after 100 steps at a width of 128: 5.35 against 4.75 nats). Matrices that write into
    the residual stream are scaled down by the number of such writes (GPT-2, section 2.3); norms are ones.
    """
    if spec.adapter is not None:
        return first_factors(spec, seed)
    generator = torch.Generator().manual_seed(seed)
    normal_std = INITIAL_GAIN / spec.hidden_size**0.5
    residual_std = normal_std / (2 * spec.num_layers) ** 0.5
    parameters: dict[str, Tensor] = {}
    for name, shape in parameter_shapes(spec):
        if len(shape) == 1:
            parameters[name] = torch.ones(shape)
            continue
        std = residual_std if name.endswith(("o_proj.weight", "down_proj.weight")) else normal_std
        parameters[name] = torch.empty(shape).normal_(0.0, std, generator=generator)
    return parameters


class TokenLoss(nn.Module):
    """A causal LM that returns the summed cross entropy of its next-token predictions.

    It is what gets sharded as a whole, so that the head is gathered when the loss needs it.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._vocab_size = int(model.config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the sum over all B·T predictions but those of marked tokens (data.py), in nats.

        `tokens` is (B, T + 1).
        """
        is_marked = tokens < 0
        read = torch.where(is_marked, ~tokens, tokens)[:, :-1]
        labels = tokens.masked_fill(is_marked, NOT_COUNTED)[:, 1:]
        head = head_of(self.model)
        if head is None:
            logits = self.model(input_ids=read, use_cache=False).logits  # (B, T, V)
            return summed_loss(logits.flatten(0, 1), nn.Identity(), self._vocab_size, labels.flatten())
        hidden = self.model.base_model(input_ids=read, use_cache=False).last_hidden_state  # (B, T, H)
        counted = labels != NOT_COUNTED
        if not counted.all():  # of a task the targets alone: the head is a quarter of a small model's work
            return summed_loss(hidden[counted], head, self._vocab_size, labels[counted])
        return summed_loss(hidden.flatten(0, 1), head, self._vocab_size, labels.flatten())


def summed_loss(hidden: Tensor, head: Callable[[Tensor], Tensor], vocab_size: int, targets: Tensor) -> Tensor:
    """Sum the cross entropy over all tokens without ever holding all logits. `hidden` (N, H), `targets` (N,).

    Targets that are NOT_COUNTED add nothing.
    When the logits are many they are made chunk by chunk and made again in the backward pass: half of the memory
    at the same speed.
    """
    chunk = max(MIN_CHUNK, LOSS_VALUES // vocab_size)

    def loss_of(part: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(head(part).float(), labels, ignore_index=NOT_COUNTED, reduction="sum")

    if len(targets) <= chunk:
        return loss_of(hidden, targets)
    total = hidden.new_zeros((), dtype=torch.float32)
    for part, labels in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
        total = total + cast(Tensor, checkpoint(loss_of, part, labels, use_reentrant=False))
    return total
