"""The closed-form layout is Transformers' own, and blocks lose nothing."""

import pytest
import torch

from configs.errors import UsageError
from configs.run import ModelSpec
from peer.train.model import build_config
from peer.train.partition import COMMON, REPLICA, Layout, Strategy, even_parts, parameter_shapes, part_of

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


@pytest.mark.parametrize(("kind", "parts"), [("replicas", 1), ("replicas", 4), ("experts", 1), ("branches", 1)])
def test_every_sub_model_has_every_parameter_once(kind: str, parts: int) -> None:
    strategy = Strategy(kind, 3, parts)
    total = sum(torch.Size(shape).numel() for _, shape in parameter_shapes(SPEC))
    for sub_model in (COMMON, *strategy.sub_models):
        layout = strategy.layout(sub_model, SPEC)
        assert sorted(slot.name for slot in layout.slots) == sorted(name for name, _ in parameter_shapes(SPEC))
        assert layout.size == total == sum(layout.block_size(block) for block in layout.blocks)
        assert layout.blocks == strategy.blocks(sub_model)


@pytest.mark.parametrize(
    ("strategy", "sub_model"), [(Strategy("experts", 2), "expert.1"), (Strategy("replicas", 2, 4), REPLICA)]
)
def test_a_derived_sub_model_is_the_common_model(strategy: Strategy, sub_model: str) -> None:
    common = torch.randn(strategy.layout(COMMON, SPEC).size)
    blocks = {block: strategy.derive(block, common, SPEC) for block in strategy.blocks(sub_model)}
    named = strategy.assemble(sub_model, blocks, SPEC)
    whole = Layout.tensors(strategy.layout(COMMON, SPEC), common)
    assert named.keys() == whole.keys()
    assert all(torch.equal(named[name], whole[name]) for name in whole)


@pytest.mark.parametrize("count", range(1, 9))
def test_parts_are_about_equal_and_in_order(count: int) -> None:
    """None is larger than its share and the largest parameter, however large the embeddings are."""
    for vocab_size in (300, 30_000):
        shapes = parameter_shapes(SPEC.model_copy(update={"vocab_size": vocab_size}))
        parts = even_parts(shapes, count)
        sizes = [sum(torch.Size(shape).numel() for _, shape in part) for part in parts]
        assert [each for part in parts for each in part] == shapes
        assert len(parts) == count and all(parts)
        assert max(sizes) <= sum(sizes) / count + max(torch.Size(shape).numel() for _, shape in shapes)


@pytest.mark.parametrize("count", range(2, 9))
def test_the_names_of_parts_say_which_they_are(count: int) -> None:
    assert part_of(COMMON) is None and part_of("expert.1") is None
    assert [part_of(block) for block in Strategy("replicas", 1, count).blocks(REPLICA)] == list(range(count))


def test_domains_and_names() -> None:
    strategy = Strategy("branches", 2)
    assert strategy.sub_models == ("branch.0", "branch.1")
    assert (strategy.domain("branch.1"), strategy.domain(COMMON)) == (1, None)
    with pytest.raises(UsageError, match=r"branch\.7"):
        strategy.blocks("branch.7")
