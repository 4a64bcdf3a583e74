"""A frozen model on the pages of its file computes what it does as a float32 copy, and none is made."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.families import FAMILIES, write_model
from configs.run import AdapterSpec, ModelSpec
from peer.train import frozen
from peer.train.adapters import base_bytes, base_dtype, base_layout, first_factors
from peer.train.frozen import FrozenEmbedding, FrozenLinear, take_base
from peer.train.memory import state_bytes
from peer.train.model import TokenLoss
from peer.train.partition import COMMON, Strategy
from peer.train.pretrained import read_parameters, read_pretrained
from peer.train.sharded import Rows, build_sharded, fill_base

PLAN = ModelSpec(
    vocab_size=320, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, mlp_size=48, context_length=24
)
TOKENS = torch.randint(0, 320, (2, 25), generator=torch.Generator().manual_seed(2))
CPU = torch.device("cpu")


@pytest.fixture(params=["bfloat16", "float16", "float32"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=FAMILIES)
def spec_and_path(request: pytest.FixtureRequest, tmp_path: Path, dtype: str) -> tuple[ModelSpec, Path]:
    """A tiny model of each family, as a run keeps it."""
    folder = write_model(tmp_path / "base", request.param)
    adapter = AdapterSpec(rank=4, base_dtype=dtype)
    spec = read_pretrained(folder, PLAN.model_copy(update={"adapter": adapter}))[0]
    assert spec.adapter is not None
    spec = spec.model_copy(update={"adapter": spec.adapter.model_copy(update={"base_dtype": dtype})})
    plain = spec.model_copy(update={"adapter": None})
    path = tmp_path / "blob"
    flat = torch.cat([each.reshape(-1).to(base_dtype(spec)) for each in read_parameters(folder, plain)])
    path.write_bytes(flat.view(torch.uint8).numpy().tobytes())
    return spec, path


def begun(spec: ModelSpec) -> tuple[TokenLoss, torch.Tensor]:
    """Return a model without values, and those of its adapter, which are no zeros."""
    factors = torch.cat([each.reshape(-1) for each in first_factors(spec, 0).values()])
    noise = torch.randn(factors.shape, generator=torch.Generator().manual_seed(3))
    return build_sharded(spec, CPU, None), factors + 0.1 * noise


def gradients(module: TokenLoss, spec: ModelSpec, factors: torch.Tensor) -> tuple[float, torch.Tensor]:
    Rows(module, Strategy("adapters", 1).layout(COMMON, spec)).copy_in(factors, [COMMON])
    loss = module(TOKENS)
    loss.backward()
    found = [each.grad.reshape(-1) for each in module.parameters() if each.requires_grad and each.grad is not None]
    return loss.item(), torch.cat(found)


@pytest.mark.parametrize("part_values", [frozen.PART_VALUES, 700])  # of matrices of 32 by 32 values, and more
def test_loss_and_gradients_are_those_of_a_float32_copy(
    spec_and_path: tuple[ModelSpec, Path], part_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "PART_VALUES", part_values)
    spec, path = spec_and_path
    (copied, factors), (mapped, _) = begun(spec), begun(spec)
    fill_base(copied, spec, path)
    take_base(mapped, spec, path)
    (loss, wanted), (own_loss, own) = gradients(copied, spec, factors), gradients(mapped, spec, factors)
    assert own_loss == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(own, wanted, rtol=1e-4, atol=1e-6 * float(wanted.abs().max()))


def test_no_matrix_is_copied(spec_and_path: tuple[ModelSpec, Path]) -> None:
    spec, path = spec_and_path
    module, _ = begun(spec)
    take_base(module, spec, path)
    held = {each.weight for each in module.modules() if isinstance(each, FrozenLinear | FrozenEmbedding)}
    assert {each.dtype for each in held} == {base_dtype(spec)}
    still = [each for each in module.parameters() if not each.requires_grad]
    if spec.config is None or not any(kind in spec.config for kind in ("gpt2", "gemma")):
        assert max(each.dim() for each in still) == 1  # norms and biases; those families compute in ways of their own
        assert not [each for each in module.modules() if type(each) is nn.Embedding]
    assert state_bytes(spec, ranks=2) - state_bytes(spec) == 4 * base_layout(spec).size - base_bytes(spec)


def test_with_autocast_it_computes_in_that(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "base", "llama")
    spec = read_pretrained(folder, PLAN.model_copy(update={"adapter": AdapterSpec(rank=4)}))[0]
    path = tmp_path / "blob"
    plain = spec.model_copy(update={"adapter": None})
    path.write_bytes(torch.cat([each.reshape(-1) for each in read_parameters(folder, plain)]).numpy().tobytes())
    (copied, factors), (mapped, _) = begun(spec), begun(spec)
    fill_base(copied, spec, path)
    take_base(mapped, spec, path)
    with torch.autocast("cpu", torch.bfloat16):
        (loss, wanted), (own_loss, own) = gradients(copied, spec, factors), gradients(mapped, spec, factors)
    assert own_loss == pytest.approx(loss, rel=1e-2)
    assert float((own - wanted).norm() / wanted.norm()) < 0.05
