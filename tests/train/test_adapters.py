"""An adapter is laid out as peft has it, is all that is trained, and merged into its base computes the same."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from configs.errors import DataError
from configs.run import AdapterSpec, InnerSpec, ModelSpec
from peer.train.adapters import base_bytes, base_layout, map_base, merge
from peer.train.inner import Inner
from peer.train.memory import check_host, state_bytes
from peer.train.model import build_config, build_model, initial_parameters
from peer.train.partition import COMMON, Strategy, adapter_shapes, parameter_shapes
from peer.train.sharded import Ranks, Rows, build_sharded, fill_base

PLAIN = ModelSpec(
    vocab_size=300, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, mlp_size=48, context_length=16
)
SPEC = PLAIN.model_copy(update={"adapter": AdapterSpec(rank=4, alpha=12)})


def base_file(folder: Path) -> Path:
    named = initial_parameters(PLAIN, 3)
    path = folder / "base"
    path.write_bytes(torch.cat([named[slot.name].reshape(-1) for slot in base_layout(SPEC).slots]).numpy().tobytes())
    return path


def llama(named: dict[str, Tensor]) -> LlamaForCausalLM:
    model = LlamaForCausalLM(build_config(PLAIN))
    model.load_state_dict(named, strict=False)
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
def test_names_and_shapes_are_those_of_peft(tied: bool) -> None:
    spec = SPEC.model_copy(update={"tie_embeddings": tied})
    with torch.device("meta"):
        named = dict(build_model(spec).named_parameters())
    trained = [(name, tuple(value.shape)) for name, value in named.items() if value.requires_grad]
    assert adapter_shapes(spec) == trained
    assert len(named) == len(trained) + len(parameter_shapes(spec))  # all else is there, and frozen


def test_the_adapter_alone_is_trained_and_merges_into_the_base(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    path, ranks = base_file(tmp_path), Ranks(0, 1, torch.device("cpu"))
    base = map_base(path, SPEC)
    layout = Strategy("adapters", 2).layout(COMMON, SPEC)
    named = initial_parameters(SPEC, 0)
    flat = torch.cat([named[slot.name].reshape(-1) for slot in layout.slots])
    module = build_sharded(SPEC, ranks.device, None)
    fill_base(module, SPEC, path)
    rows, inner = Rows(module, layout), Inner(InnerSpec(learning_rate=0.01, batch_tokens=128), module, ranks, False)
    rows.copy_in(flat, layout.blocks)
    inner.use(layout, is_fresh=True)
    tokens = torch.randint(0, 300, (8, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # B is zero
        before = llama(base_layout(SPEC).tensors(base))(input_ids=tokens).logits
        assert torch.equal(module.model(input_ids=tokens).logits, before)
    losses = [inner.step(tokens, 4, {COMMON: 0.01}) for _ in range(60)]
    assert losses[-1] < losses[0] - 1
    trained, frozen = flat.clone(), torch.zeros_like(base)
    rows.copy_out(trained)
    Rows(module, base_layout(SPEC)).copy_out(frozen)
    assert torch.equal(frozen, map_base(path, SPEC)) and not torch.equal(trained, flat)
    with torch.no_grad():
        adapted = module.model(input_ids=tokens).logits
        merged = llama(merge(SPEC, base, layout.tensors(trained)))(input_ids=tokens).logits
    assert (adapted - before).abs().max() > 0.1
    assert (adapted - merged).abs().max() < 1e-5


def test_each_domain_s_adapter_begins_as_the_common_one() -> None:
    strategy = Strategy("adapters", 2)
    assert strategy.sub_models == ("adapter.0", "adapter.1")
    common = torch.randn(strategy.layout(COMMON, SPEC).size)
    assert torch.equal(strategy.derive("adapter.1", common, SPEC), common)
    named = strategy.assemble("adapter.1", {"adapter.1": common}, SPEC)
    assert [(name, tuple(value.shape)) for name, value in named.items()] == adapter_shapes(SPEC)


def test_a_round_of_a_large_model_costs_little() -> None:
    """The figures in docs/decisions.md and docs/protocol.md."""
    llama_7b = ModelSpec(
        vocab_size=32_000,
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=32,
        mlp_size=11_008,
        context_length=512,
        tie_embeddings=False,
        adapter=AdapterSpec(),
    )
    size = Strategy("adapters", 1).layout(COMMON, llama_7b).size
    assert size == 39_976_960
    assert round(base_bytes(llama_7b) / 1e9) == 27
    assert state_bytes(llama_7b) == 16 * size + base_bytes(llama_7b)
    check_host(llama_7b, is_training=False, free=4 << 30)


def test_a_base_that_is_cut_short_is_one_line(tmp_path: Path) -> None:
    path = base_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="missing or cut short"):
        map_base(path, SPEC)
