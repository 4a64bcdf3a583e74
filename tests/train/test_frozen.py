"""A frozen model on the pages of its file computes what it does as a float32 copy, and none is made."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.families import FAMILIES, write_model
from configs.run import AdapterSpec, ModelSpec
from peer.train import frozen
from peer.train.adapters import base_bytes, base_dtype, base_layout, first_factors
from peer.train.frozen import FourBitLinear, FrozenEmbedding, FrozenLinear, take_base
from peer.train.memory import NF4_BYTES, state_bytes
from peer.train.model import TokenLoss
from peer.train.partition import COMMON, Strategy, adapted_modules, trained_shapes
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


def llama(folder: Path) -> tuple[ModelSpec, Path]:
    """Return a small pretrained model with adapters, and its parameters in float32 in one file."""
    base = write_model(folder / "base", "llama")
    spec = read_pretrained(base, PLAN.model_copy(update={"adapter": AdapterSpec(rank=4)}))[0]
    path = folder / "blob"
    plain = spec.model_copy(update={"adapter": None})
    path.write_bytes(torch.cat([each.reshape(-1) for each in read_parameters(base, plain)]).numpy().tobytes())
    return spec, path


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
    spec, path = llama(tmp_path)
    (copied, factors), (mapped, _) = begun(spec), begun(spec)
    fill_base(copied, spec, path)
    take_base(mapped, spec, path)
    with torch.autocast("cpu", torch.bfloat16):
        (loss, wanted), (own_loss, own) = gradients(copied, spec, factors), gradients(mapped, spec, factors)
    assert own_loss == pytest.approx(loss, rel=1e-2)
    assert float((own - wanted).norm() / wanted.norm()) < 0.05


def test_in_four_bits_it_is_nearly_the_same_and_learns(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra qlora")
    spec, path = llama(tmp_path)
    (whole, factors), (packed, _) = begun(spec), begun(spec)
    take_base(whole, spec, path)
    take_base(packed, spec, path, "nf4")
    (loss, wanted), (own_loss, own) = gradients(whole, spec, factors), gradients(packed, spec, factors)
    assert own_loss == pytest.approx(loss, rel=0.05) and own_loss != loss
    assert float(torch.cosine_similarity(own, wanted, dim=0)) > 0.9
    quantized = [each for each in packed.modules() if isinstance(each, FourBitLinear)]
    assert len(quantized) == len(adapted_modules(spec))
    assert {each.weight.dtype for each in quantized} == {torch.uint8}


def test_four_bits_are_what_the_memory_is_planned_with() -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra qlora")
    packed = FourBitLinear(torch.randn(512, 512), None)
    scales = packed._state
    held = packed.weight.nbytes + scales.absmax.nbytes + scales.state2.absmax.nbytes
    assert held / 512**2 == pytest.approx(NF4_BYTES, rel=0.01)
    adapted = ModelSpec(**{**PLAN.model_dump(), "adapter": AdapterSpec(base_dtype="bfloat16")})
    matrices = sum(shape[0] * shape[1] for _, shape in adapted_modules(adapted))
    saved = state_bytes(adapted) - state_bytes(adapted, base_precision="nf4")
    assert saved == pytest.approx((2 - NF4_BYTES) * matrices, abs=1)


def test_seven_billion_parameters_take_what_the_readme_says() -> None:
    llama = {"vocab_size": 32_000, "hidden_size": 4096, "num_layers": 32, "num_heads": 32, "num_kv_heads": 32}
    model = ModelSpec(**llama, mlp_size=11_008, context_length=512, tie_embeddings=False)
    spec = model.model_copy(update={"adapter": AdapterSpec(base_dtype="bfloat16")})
    adapters = 16 * sum(math.prod(shape) for _, shape in trained_shapes(spec))
    assert (state_bytes(spec) - adapters) / 1e9 == pytest.approx(13.5, abs=0.05)
    assert (state_bytes(spec, base_precision="nf4") - adapters) / 1e9 == pytest.approx(3.9, abs=0.05)
