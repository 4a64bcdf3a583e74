"""The first parameters are a pure function of the seed; the loss in chunks is the loss; memory is predicted."""

import pytest
import torch
from torch.nn import functional

from configs.errors import DeviceError
from configs.run import ModelSpec
from peer.train import model as model_module
from peer.train.memory import activation_bytes, fit, free_bytes, state_bytes
from peer.train.model import NOT_COUNTED, TokenLoss, build_model, initial_parameters

SPEC = ModelSpec(
    vocab_size=600, hidden_size=64, num_layers=3, num_heads=4, num_kv_heads=2, mlp_size=192, context_length=64
)


def test_initial_parameters_follow_the_seed_alone() -> None:
    first, again, other = (initial_parameters(SPEC, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
    build_model(SPEC).load_state_dict(first, strict=False)


@pytest.mark.parametrize("hidden", [64, 256])
def test_the_first_parameters_are_smaller_in_wider_models(hidden: int) -> None:
    named = initial_parameters(SPEC.model_copy(update={"hidden_size": hidden}), 0)
    deviation = float(named["model.embed_tokens.weight"].std())
    assert deviation == pytest.approx(0.5 / hidden**0.5, rel=0.05)
    into_the_stream = float(named["model.layers.0.mlp.down_proj.weight"].std())
    assert into_the_stream == pytest.approx(deviation / 6**0.5, rel=0.05)


def test_loss_in_chunks_is_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    llama = build_model(SPEC)
    tokens = torch.randint(0, SPEC.vocab_size, (10, SPEC.context_length + 1))
    whole = TokenLoss(llama)(tokens)
    whole.backward()
    gradient = llama.lm_head.weight.grad.clone()
    llama.zero_grad()
    monkeypatch.setattr(model_module, "LOSS_VALUES", 1)  # chunks of MIN_CHUNK, made again in the backward pass
    chunked = TokenLoss(llama)(tokens)
    chunked.backward()
    logits = llama(tokens[:, :-1]).logits
    expected = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(chunked, expected)
    torch.testing.assert_close(llama.lm_head.weight.grad, gradient, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("targets", [0, 1, 12])
def test_of_a_task_only_the_targets_reach_the_head(targets: int) -> None:
    torch.manual_seed(0)
    llama = build_model(SPEC)
    tokens = torch.randint(0, SPEC.vocab_size, (3, SPEC.context_length + 1))
    marked = tokens.clone()
    marked[:, : SPEC.context_length + 1 - targets] = ~marked[:, : SPEC.context_length + 1 - targets]
    rows: list[int] = []
    llama.lm_head.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[0]))
    loss = TokenLoss(llama)(marked)
    loss.backward()
    assert rows == [3 * targets]
    logits = llama(input_ids=tokens[:, :-1]).logits
    labels = tokens[:, 1:].masked_fill(marked[:, 1:] < 0, NOT_COUNTED)
    expected = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(loss, expected if targets else torch.zeros(()))


@pytest.mark.parametrize("heads", [1, 4])
def test_activation_memory_is_predicted(heads: int) -> None:
    spec = SPEC.model_copy(update={"num_kv_heads": heads})
    module = TokenLoss(build_model(spec))
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in own:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(torch.randint(0, spec.vocab_size, (4, spec.context_length + 1)))
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert measured <= activation_bytes(spec, 4) <= 2 * measured


def test_the_micro_batch_that_fits_is_found() -> None:
    spec = SPEC.model_copy(update={"hidden_size": 1024, "mlp_size": 4096})
    state, one = state_bytes(spec), activation_bytes(spec, 1)
    assert fit(spec, ranks=1, rows=64, free=1 << 40).micro_batch == 64
    assert fit(spec, ranks=1, rows=64, free=1 << 40, micro_batch=4).micro_batch == 4
    assert 4 <= fit(spec, ranks=1, rows=64, free=int((state + 8 * one) / 0.85)).micro_batch <= 16
    assert not fit(spec, ranks=2, rows=64, free=1 << 40).is_sharded
    assert fit(spec, ranks=2, rows=64, free=int((state / 2 + 2 * one) / 0.85)).is_sharded


def test_a_model_that_does_not_fit_is_refused_with_a_remedy() -> None:
    with pytest.raises(DeviceError, match=r"needs .* GB .* more devices"):
        fit(SPEC, ranks=1, rows=8, free=state_bytes(SPEC))


def test_this_machine_has_free_memory() -> None:
    assert free_bytes(torch.device("cpu")) > 1 << 20
