"""Fusion: the whole model from its blocks, written as a directory that others can load.

Four forms. `routed`: the sub-models side by side with Shoal's router, for every strategy (peer/fused/routed.py).
`mixtral`: one standard Mixtral, for `experts`. `llama`: one standard model, for `replicas` or a single sub-model. These
two load with plain Transformers. `peft`: adapters by themselves. Fusing never averages blocks of different domains:
that destroys a model.

Shapes: B texts, T tokens, K experts, H hidden size, M size of an MLP, V tokens of the vocabulary.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from torch import Tensor
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedModel

from configs.corpus import TaskFormat
from configs.errors import DataError, StateError, UsageError
from configs.run import OriginSpec, RunSpec
from peer.corpus.tokenizer import open_tokenizer
from peer.fused.adapter import write_adapter
from peer.fused.card import Format, model_card
from peer.fused.chat_files import write_chat_files
from peer.fused.routed import COUNTS, MANIFEST, TASK, Manifest, SubModelInfo, quiet_transformers
from peer.fused.tune import MAX_VOTES, Tuning, tune
from peer.train.adapters import merge
from peer.train.model import build_model
from peer.train.partition import COMMON, Strategy

GATE_TEXTS, GATE_TOKENS = 64, 64  # texts that each expert writes for the gates to learn from, and their length
GATE_RIDGE = 1e-3  # regularisation, as a share of the mean variance of a hidden value


@dataclass(frozen=True)
class Parts:
    """What is gathered from a swarm before it is fused."""

    spec: RunSpec
    blocks: Mapping[str, Tensor]  # flat float32, in the layout of peer/train/partition.py
    counts: Mapping[str, np.ndarray]  # domain → unigram counts (V,), in the order of the domains
    tokenizer_json: bytes
    task: TaskFormat | None = None  # of the domains that are tasks
    base: Tensor | None = None  # the frozen model, flat float32, if the blocks are adapters
    ages: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # block → peer → tokens that it has put in
    files: Mapping[str, bytes] = field(default_factory=dict)  # small ones of a pretrained model (peer/train/origin.py)

    @property
    def strategy(self) -> Strategy:
        """The strategy of the run over these domains."""
        return Strategy.of(self.spec.strategy, len(self.counts))

    @property
    def sub_models(self) -> tuple[str, ...]:
        """The sub-models that exist: before they part there is only `model`."""
        parted = {block for name in self.strategy.sub_models for block in self.strategy.blocks(name)}
        return self.strategy.sub_models if parted & self.blocks.keys() else (COMMON,)

    def domain(self, sub_model: str) -> str:
        """Return the name of the domain that `sub_model` was trained on."""
        index = self.strategy.domain(sub_model)
        return "all" if index is None else list(self.counts)[index]

    def domain_counts(self, sub_model: str) -> np.ndarray:
        """Return the unigram counts (V,) of what `sub_model` was trained on."""
        tables = [count.astype(np.uint64) for count in self.counts.values()]
        index = self.strategy.domain(sub_model)
        return np.asarray(np.sum(tables, axis=0, dtype=np.uint64) if index is None else tables[index])


def fuse(
    parts: Parts, out: Path, format: Format = "routed", sub_model: str | None = None, tuning: Tuning | None = None
) -> None:
    """Write the fused model into the new directory `out`: all of it, or nothing.

    `sub_model` fuses just that one (`llama` needs it when there are several). A block that nobody has yet is
    derived from `model`. Nothing of the swarm's text is needed, but for the `tuning` of a Mixtral.
    Raises DataError: a block is missing or has a wrong size. UsageError: `out` is taken, or the form does not suit
    the strategy. StateError: it cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists and is not empty; choose another directory")
    known = (*parts.strategy.sub_models, COMMON)
    if sub_model is not None and sub_model not in known:
        raise UsageError(f"this run has no sub-model '{sub_model}'; it has {', '.join(known)}")
    names = parts.sub_models if sub_model is None else (sub_model,)
    if format == "llama" and len(names) > 1:
        raise UsageError(
            f"one Llama holds one sub-model: name it with --sub-model ({', '.join(names)}), or choose another format"
        )
    if format == "mixtral" and not all(name.startswith("expert.") for name in names):
        raise UsageError("a Mixtral needs experts that have parted (strategy experts); use routed or llama")
    if tuning is not None and format != "mixtral":
        raise UsageError("only a Mixtral is tuned; choose that format, or leave the tune out")
    if format == "peft" and parts.spec.model.adapter is None:
        raise UsageError("only adapters are written as PEFT keeps them (strategy adapters); choose another format")
    models = {} if format == "peft" else {name: build_sub_model(parts, name) for name in names}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with quiet_transformers(), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            fresh = Path(scratch) / "model"
            fresh.mkdir(mode=0o755)
            if format == "routed":
                _write_routed(parts, models, fresh)
            elif format == "mixtral":
                mixtral = build_mixtral(parts, models, tuning)
                if tuning is not None:
                    tune(mixtral, parts.spec, [parts.domain(name) for name in names], tuning)
                _write_model(parts, mixtral, fresh)
            elif format == "peft":
                for name in names:
                    place = fresh if sub_model is not None else fresh / name
                    write_adapter(parts.spec, named_parameters(parts.spec, parts.strategy, parts.blocks, name), place)
                    _write_tokenizer(parts, place)
            else:
                _write_model(parts, models[names[0]], fresh)
            if format == "routed":
                _write_tokenizer(parts, fresh)
            if parts.task is not None:
                (fresh / TASK).write_text(parts.task.model_dump_json(indent=2) + "\n", encoding="utf-8")
            card = model_card(parts.spec, {name: parts.domain(name) for name in names}, format, parts.ages, parts.task)
            (fresh / "README.md").write_text(card, encoding="utf-8")
            _open_to_readers(fresh)
            if out.exists():
                out.rmdir()
            fresh.replace(out)
    except (OSError, SafetensorError) as error:  # the latter is how safetensors says that the disk is full
        raise StateError(f"{out} cannot be written: {error}; free space or choose another place") from None


def build_sub_model(parts: Parts, name: str) -> PreTrainedModel:
    """Return one sub-model in float32. Raises DataError: a block is missing or has a wrong size."""
    return build_one(parts.spec, parts.strategy, parts.blocks, name, parts.base)


def build_one(
    run: RunSpec, strategy: Strategy, found: Mapping[str, Tensor], name: str, base: Tensor | None = None
) -> PreTrainedModel:
    """Return the sub-model `name` of a run in float32, from its flat blocks; adapters go into the `base`.

    Raises DataError as `named_parameters`.
    """
    spec, named = run.model, named_parameters(run, strategy, found, name)
    if spec.adapter is not None:
        if base is None:
            raise DataError("the model that the adapters were trained on is missing: fuse from a peer of the run")
        named = merge(spec, base, named)
    model = build_model(spec.model_copy(update={"adapter": None}))
    model.config.use_cache = True
    _set_as_its_origin(model, run)
    return filled(model, named)


def named_parameters(run: RunSpec, strategy: Strategy, found: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return what is trained of the sub-model `name`, by the names of its parameters.

    Raises DataError: a block is missing and cannot be derived, or has a wrong size.
    """
    spec = run.model
    layout = strategy.layout(name, spec)
    blocks: dict[str, Tensor] = {}
    for block in layout.blocks:
        if block in found:
            blocks[block] = found[block]
        elif COMMON in found:
            blocks[block] = strategy.derive(block, found[COMMON], spec)
        else:
            raise DataError(f"block '{block}' is missing: fuse from a peer that holds or keeps it")
        if blocks[block].numel() != layout.block_size(block):
            raise DataError(
                f"block '{block}' has {blocks[block].numel()} values instead of {layout.block_size(block)}: "
                "it belongs to another run"
            )
    return strategy.assemble(name, blocks, spec)


def build_mixtral(
    parts: Parts, models: Mapping[str, LlamaForCausalLM], tuning: Tuning | None = None
) -> MixtralForCausalLM:
    """Return the experts as one Mixtral that sends each token of each layer to one expert, or to several for a tune.

    With the route forced to k it computes what (trunk, expert k) computes. Its gates come from `fit_gates`, on texts
    that the experts write, or on those that there are for a tune.
    """
    llamas = list(models.values())
    llama = llamas[0].config
    config = MixtralConfig(
        vocab_size=llama.vocab_size,
        hidden_size=llama.hidden_size,
        intermediate_size=llama.intermediate_size,
        num_hidden_layers=llama.num_hidden_layers,
        num_attention_heads=llama.num_attention_heads,
        num_key_value_heads=llama.num_key_value_heads,
        head_dim=llama.head_dim,
        hidden_act=llama.hidden_act,
        max_position_embeddings=llama.max_position_embeddings,
        initializer_range=llama.initializer_range,
        # Transformers' defaults differ between the two architectures: without these the logits are off.
        rms_norm_eps=llama.rms_norm_eps,
        rope_parameters=dict(llama.rope_parameters),
        tie_word_embeddings=llama.tie_word_embeddings,
        sliding_window=None,
        num_local_experts=len(llamas),
        num_experts_per_tok=1 if tuning is None else min(MAX_VOTES, len(llamas)),
    )
    states = [dict(model.named_parameters()) for model in llamas]
    named = {name: value for name, value in states[0].items() if ".mlp." not in name}
    if tuning is None:
        counts = [parts.domain_counts(name) for name in models]
        texts = [
            write_texts(*each, parts.spec.seed * len(llamas) + at)
            for at, each in enumerate(zip(llamas, counts, strict=True))
        ]
    else:
        texts = [tuning.texts(parts.domain(name), parts.spec) for name in models]
    gates = fit_gates(llamas, texts)
    for layer, gate in enumerate(gates):
        mlp = f"model.layers.{layer}.mlp."
        projections = [[state[f"{mlp}{part}_proj.weight"] for state in states] for part in ("gate", "up", "down")]
        gate_KMH, up_KMH, down_KHM = (torch.stack(each) for each in projections)
        named[mlp + "experts.gate_up_proj"] = torch.cat([gate_KMH, up_KMH], dim=1)
        named[mlp + "experts.down_proj"] = down_KHM
        named[mlp + "gate.weight"] = gate
    mixtral = MixtralForCausalLM(config)
    _set_as_its_origin(mixtral, parts.spec)
    return filled(mixtral, named)


@torch.no_grad()
def fit_gates(models: Sequence[LlamaForCausalLM], texts: Sequence[Tensor]) -> list[Tensor]:
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
def write_texts(model: LlamaForCausalLM, counts: np.ndarray, seed: int) -> Tensor:
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


def _mlp_inputs(model: LlamaForCausalLM, texts: Tensor) -> list[Tensor]:
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


@torch.no_grad()
def filled(model: Any, named: Mapping[str, Tensor]) -> Any:
    """Copy the values into a model's parameters; a tied weight has one name."""
    for name, parameter in model.named_parameters():
        parameter.copy_(named[name])
    return model.eval()


def _set_as_its_origin(model: PreTrainedModel, run: RunSpec) -> None:
    """Set what a pretrained model says of its tokens and its context.

    Of a model that began here a text ends with the end-of-text token, and the next one begins after it.
    """
    own = OriginSpec(context_length=run.model.context_length, begin=run.end_of_text)
    origin = run.origin or own
    ends = origin.ends or (run.end_of_text,)
    model.config.max_position_embeddings = origin.context_length
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.pad_token_id = origin.begin, origin.pad
        config.eos_token_id = ends[0] if len(ends) == 1 else list(ends)


def _write_model(parts: Parts, model: PreTrainedModel, out: Path) -> None:
    """Write a model into the folder `out`, in the dtype that it had, with its tokenizer and its own small files."""
    if parts.spec.origin is not None:
        model = model.to(getattr(torch, parts.spec.origin.dtype))
    model.save_pretrained(out)
    _write_tokenizer(parts, out)


def _write_routed(parts: Parts, models: Mapping[str, PreTrainedModel], out: Path) -> None:
    for name, model in models.items():
        _write_model(parts, model, out / name)  # each is one by itself
    save_file({"counts": np.stack([parts.domain_counts(name) for name in models])}, out / COUNTS)
    manifest = Manifest(
        run_id=parts.spec.run_id,
        run_name=parts.spec.name,
        strategy=parts.spec.strategy.kind,
        end_of_text=parts.spec.end_of_text,
        sub_models=tuple(SubModelInfo(name=name, domain=parts.domain(name)) for name in models),
    )
    (out / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _open_to_readers(folder: Path) -> None:
    """Give each file the mode that a file has which this user makes: safetensors makes those that nobody else reads."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        path.chmod(mode | (mode & 0o444) >> 2 if path.is_dir() else mode)


def _write_tokenizer(parts: Parts, out: Path) -> None:
    """Write the tokenizer so that AutoTokenizer loads it, whatever the architecture beside it; then a base's own files.

    These stand in the place of ours. Who was trained on chats, and has no template of its own, gets that of the format.
    """
    spec, tokenizer = parts.spec, open_tokenizer(parts.tokenizer_json)
    end_of_text = tokenizer.id_to_token(spec.end_of_text)
    begin = spec.end_of_text if spec.origin is None else spec.origin.begin
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None if begin is None else tokenizer.id_to_token(begin),
        "eos_token": end_of_text,
        "pad_token": end_of_text,
        "model_max_length": spec.model.context_length if spec.origin is None else spec.origin.context_length,
        "clean_up_tokenization_spaces": False,
    }
    (out / "tokenizer.json").write_bytes(parts.tokenizer_json)
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name, data in parts.files.items():
        (out / name).write_bytes(data)
    if parts.task is not None and parts.task.chat is not None:
        write_chat_files(out, parts.task.chat, tokenizer)
