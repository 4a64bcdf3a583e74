"""The experts as one mixture that Transformers has: a Mixtral, of Qwen3 a Qwen3-MoE, with gates fitted in closed form.

Shapes: B texts, T tokens, K experts, H hidden size, M size of an MLP, V tokens of the vocabulary.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from peer.fused.parts import Parts, filled, set_as_its_origin
from peer.fused.tune import MAX_VOTES, Tuning
from peer.train.mixtures import mixture_config

GATE_TEXTS, GATE_TOKENS = 64, 64  # texts that each expert writes for the gates to learn from, and their length
GATE_RIDGE = 1e-3  # regularisation, as a share of the mean variance of a hidden value


def build_mixture(parts: Parts, models: Mapping[str, PreTrainedModel], tuning: Tuning | None = None) -> PreTrainedModel:
    """Return the experts as one mixture that sends each token of each layer to one expert, or to several for a tune.

    With the route forced to k it computes what (trunk, expert k) computes. Its gates come from `fit_gates`, on texts
    that the experts write, or on those that there are for a tune.
    """
    experts = list(models.values())
    config = mixture_config(experts[0].config, len(experts), 1 if tuning is None else min(MAX_VOTES, len(experts)))
    states = [dict(model.named_parameters()) for model in experts]
    named = {name: value for name, value in states[0].items() if ".mlp." not in name}
    if tuning is None:
        counts = [parts.domain_counts(name) for name in models]
        texts = [
            write_texts(*each, parts.spec.seed * len(experts) + at)
            for at, each in enumerate(zip(experts, counts, strict=True))
        ]
    else:
        texts = [tuning.texts(parts.domain(name), parts.spec) for name in models]
    gates = fit_gates(experts, texts)
    for layer, gate in enumerate(gates):
        mlp = f"model.layers.{layer}.mlp."
        projections = [[state[f"{mlp}{part}_proj.weight"] for state in states] for part in ("gate", "up", "down")]
        gate_KMH, up_KMH, down_KHM = (torch.stack(each) for each in projections)
        named[mlp + "experts.gate_up_proj"] = torch.cat([gate_KMH, up_KMH], dim=1)
        named[mlp + "experts.down_proj"] = down_KHM
        named[mlp + "gate.weight"] = gate
    mixture: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    set_as_its_origin(mixture, parts.spec)
    return filled(mixture, named)


@torch.no_grad()
def fit_gates(models: Sequence[PreTrainedModel], texts: Sequence[Tensor]) -> list[Tensor]:
    """Return the gate rows (K, H) of each layer: a ridge classifier of hidden states, in closed form.

    `texts` are some of each expert's domain, (B, T) each. All experts read them, so that a wrong turn in an early layer
    does not mislead the later ones. Of the states x that enter the MLPs of a layer, G = Σ x xᵀ and C = Σ y xᵀ are
    summed, where y says whose domain the token is of; the gate is C (G + λI)⁻¹.
    """
    layers, hidden = models[0].config.num_hidden_layers, models[0].config.hidden_size
    outer = [torch.zeros(hidden, hidden, dtype=torch.float64) for _ in range(layers)]
    cross = [torch.zeros(len(models), hidden, dtype=torch.float64) for _ in range(layers)]
    seen = 0
    for index, text in enumerate(texts):
        target = torch.full((len(models), 1), -1.0 / len(models), dtype=torch.float64)
        target[index] += 1.0
        for reader in models:
            for layer, x_NH in enumerate(_mlp_inputs(reader, text)):
                outer[layer] += x_NH.T @ x_NH
                cross[layer] += target * x_NH.sum(dim=0)
            seen += text.numel()
    gates = []
    for G, C in zip(outer, cross, strict=True):
        ridge = GATE_RIDGE * G.trace() / hidden + 1e-9 * seen
        gates.append(torch.linalg.solve(G + ridge * torch.eye(hidden, dtype=torch.float64), C.T).T.float())
    return gates


@torch.no_grad()
def write_texts(model: PreTrainedModel, counts: np.ndarray, seed: int) -> Tensor:
    """Let a sub-model write texts (B, T) by plain sampling, each from a first token drawn from its domain's counts."""
    generator = torch.Generator().manual_seed(seed)
    frequencies = torch.from_numpy(counts.astype(np.float64)) + 1e-3
    tokens = torch.multinomial(frequencies, GATE_TEXTS, replacement=True, generator=generator)[:, None]
    cache = None
    for _ in range(min(GATE_TOKENS, model.config.max_position_embeddings) - 1):
        output = model(input_ids=tokens[:, -1:], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        following = torch.multinomial(output.logits[:, -1].softmax(dim=-1), 1, generator=generator)
        tokens = torch.cat([tokens, following], dim=1)
    return tokens


def _mlp_inputs(model: PreTrainedModel, texts: Tensor) -> list[Tensor]:
    """Return, for each layer, the states (B·T, H) that enter its MLP."""
    inputs: list[Tensor] = []
    handles = [
        layer.mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0].flatten(0, 1).double()))
        for layer in model.model.layers
    ]
    try:
        model.model(input_ids=texts, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return inputs
