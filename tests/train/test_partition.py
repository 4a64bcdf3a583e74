"""The closed-form layout is Transformers' own, and blocks lose nothing."""

import pytest
import torch

from configs.errors import UsageError
from configs.run import ModelSpec
from peer.train.model import build_config
from peer.train.partition import COMMON, Layout, Strategy, parameter_shapes

SPEC = ModelSpec(
    vocab_size=300, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, mlp_size=48, context_length=16
)


@pytest.mark.parametrize("tied", [True, False])
def test_names_and_shapes_are_those_of_transformers(tied: bool) -> None:
    from transformers import LlamaForCausalLM

    spec = SPEC.model_copy(update={"tie_embeddings": tied})
    with torch.device("meta"):
        model = LlamaForCausalLM(build_config(spec))
    assert parameter_shapes(spec) == [(name, tuple(value.shape)) for name, value in model.named_parameters()]


@pytest.mark.parametrize("kind", ["replicas", "experts", "branches"])
def test_every_sub_model_has_every_parameter_once(kind: str) -> None:
    strategy = Strategy(kind, 3)
    total = sum(torch.Size(shape).numel() for _, shape in parameter_shapes(SPEC))
    for sub_model in (COMMON, *strategy.sub_models):
        layout = strategy.layout(sub_model, SPEC)
        assert sorted(slot.name for slot in layout.slots) == sorted(name for name, _ in parameter_shapes(SPEC))
        assert layout.size == total == sum(layout.block_size(block) for block in layout.blocks)
        assert layout.blocks == strategy.blocks(sub_model)


def test_a_derived_sub_model_is_the_common_model() -> None:
    strategy = Strategy("experts", 2)
    common = torch.randn(strategy.layout(COMMON, SPEC).size)
    blocks = {block: strategy.derive(block, common, SPEC) for block in strategy.blocks("expert.1")}
    named = strategy.assemble("expert.1", blocks, SPEC)
    whole = Layout.tensors(strategy.layout(COMMON, SPEC), common)
    assert named.keys() == whole.keys()
    assert all(torch.equal(named[name], whole[name]) for name in whole)


def test_domains_and_names() -> None:
    strategy = Strategy("branches", 2)
    assert strategy.sub_models == ("branch.0", "branch.1")
    assert (strategy.domain("branch.1"), strategy.domain(COMMON)) == (1, None)
    with pytest.raises(UsageError, match=r"branch\.7"):
        strategy.blocks("branch.7")
