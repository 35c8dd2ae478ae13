from __future__ import annotations

import json
import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models import make_model, make_nf4_model
from whoamai.engine.precision import (
    LossScaler,
    Precision,
    clip_and_step,
    clip_gradients,
    make_optimizer,
    precision_for,
)
from whoamai.model.lora import add_lora

IDS = torch.arange(1, 65).reshape(2, 32)
SIXTEEN = [torch.bfloat16, torch.float16]
SIZES = {"hidden_size": 64, "intermediate_size": 128}


def with_lora(dtype: torch.dtype, **more):
    """A model held in `dtype` with an adapter that is no longer zero."""
    model = make_model("Llama", dtype=dtype, **SIZES)
    tuned = add_lora(model, r=4, alpha=8, dropout=0.0, seed=0, **more)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, p in tuned.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(p, std=0.05)
    return tuned.train()


def loss_of(model) -> torch.Tensor:
    logits = model(input_ids=IDS).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), IDS[:, 1:].flatten())


def gradients(model, precision: Precision, *, lean: bool = True) -> torch.Tensor:
    model.zero_grad()
    with precision.lean(model) if lean else nullcontext():
        with precision.autocast():
            loss = loss_of(model)
        loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


# ---- autocast ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype", "mixed"),
    [
        ("auto", torch.float32, False),
        ("float32", torch.float32, False),
        ("bfloat16", torch.bfloat16, True),
        ("float16", torch.float16, True),
    ],
)
def test_a_config_names_its_precision(name: str, dtype: torch.dtype, mixed: bool):
    precision = precision_for(name, "cpu")
    assert (precision.dtype, precision.device_type) == (dtype, "cpu")
    assert precision.is_mixed is mixed
    with precision.autocast():
        assert torch.is_autocast_enabled("cpu") is mixed
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_precision_is_described_in_a_sentence():
    assert precision_for("float32", "cpu").describe() == "Everything is computed in float32."
    assert "computed in bfloat16" in precision_for("bfloat16", "cpu").describe().lower()
    assert "scaled" in precision_for("float16", "cpu").describe()


@pytest.mark.parametrize("variant", ["lora", "dora", "pissa"])
@pytest.mark.parametrize("dtype", SIXTEEN)
def test_gradients_in_16_bits_are_float32_and_near_those_of_float32(dtype: torch.dtype, variant):
    model = with_lora(dtype, variant=variant)
    got = gradients(model, Precision(dtype, "cpu"))
    exact = with_lora(torch.float32, variant=variant)
    exact.load_state_dict(model.state_dict())
    expected = gradients(exact, Precision(torch.float32, "cpu"))
    assert got.dtype == torch.float32
    assert distance(got, expected) < (0.03 if dtype == torch.bfloat16 else 0.005)


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_lean_or_not_the_gradients_are_the_same_to_the_last_bit(dtype: torch.dtype):
    model, precision = with_lora(dtype), Precision(dtype, "cpu")
    lean, plain = (gradients(model, precision, lean=each) for each in (True, False))
    assert torch.equal(lean, plain)


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_quantized_weights_give_gradients_in_16_bits_too(dtype: torch.dtype):
    pytest.importorskip("bitsandbytes")
    held = {}
    for each in (dtype, torch.float32):
        model = make_nf4_model("Llama", dtype=each, **SIZES)
        tuned = add_lora(model, r=4, alpha=8, dropout=0.0, seed=0).train()
        for name, p in tuned.named_parameters():
            if "lora_B" in name:
                nn.init.constant_(p, 0.01)
        held[each] = gradients(tuned, Precision(each, "cpu"))
        assert torch.equal(held[each], gradients(tuned, Precision(each, "cpu"), lean=False))
    assert distance(held[dtype], held[torch.float32]) < 0.03


def saved_bytes(model, precision: Precision, *, lean: bool) -> int:
    """Of everything kept from the forward pass for the backward pass, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        precision.lean(model) if lean else nullcontext(),
        precision.autocast(),
    ):
        model.get_base_model().model(input_ids=IDS)
    return sum(storage.nbytes() for storage in kept.values())


def test_lean_q_k_and_v_share_the_input_they_keep():
    """Seven layers keep 4 inputs instead of 7, in each of the two blocks."""
    model, precision = with_lora(torch.bfloat16), Precision(torch.bfloat16, "cpu")
    saved = saved_bytes(model, precision, lean=False) - saved_bytes(model, precision, lean=True)
    one_input = IDS.numel() * 64 * 2
    # q, k and v: three copies become the one that is there; gate and up: two.
    assert saved >= 2 * 3 * one_input


def test_lean_the_layers_are_afterwards_as_they_were():
    model, precision = with_lora(torch.bfloat16), Precision(torch.bfloat16, "cpu")
    with pytest.raises(ZeroDivisionError), precision.lean(model):
        raise ZeroDivisionError
    model(input_ids=IDS)  # without autocast peft must cast again


def test_lean_means_nothing_without_an_adapter_and_in_float32():
    model = make_model("Llama", **SIZES)
    with precision_for("bfloat16", "cpu").lean(model), precision_for("float32", "cpu").lean(model):
        model(input_ids=IDS)
    with precision_for("float32", "cpu").lean(with_lora(torch.float32)):
        pass


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_checkpointing_computes_the_same_again(dtype: torch.dtype):
    model, precision = with_lora(dtype), Precision(dtype, "cpu")
    expected = gradients(model, precision)
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    assert torch.equal(gradients(model, precision), expected)


# ---- learning ------------------------------------------------------------------------------------


def learned(model, precision: Precision, *, steps: int, lr: float) -> list[float]:
    """The loss before each step."""
    optimizer = make_optimizer(model, lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    scaler, losses = precision.make_scaler(), []
    for _ in range(steps):
        with precision.lean(model):
            with precision.autocast():
                loss = loss_of(model)
            scaler.scale(loss).backward()
        scaler.unscale(optimizer)
        norm = clip_gradients(model.parameters(), 1.0)
        if good := math.isfinite(norm):
            optimizer.step()
        scaler.update(good)
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_full_fine_tuning_in_16_bits_learns_as_in_float32(dtype: torch.dtype):
    runs = {}
    for each in (dtype, torch.float32):
        model = make_model("Llama", **SIZES).train()
        runs[each] = learned(model, Precision(each, "cpu"), steps=12, lr=3e-3)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert runs[dtype][-1] < 0.7 * runs[dtype][0]
    assert runs[dtype][-1] == pytest.approx(runs[torch.float32][-1], rel=0.02)


def test_steps_too_small_for_16_bits_are_kept():
    """The reason for holding what is trained in float32."""
    weight = nn.Linear(1, 1, bias=False)
    nn.init.ones_(weight.weight)
    optimizer = make_optimizer(weight, lr=1e-4, betas=(0.0, 0.0), weight_decay=0.0)
    for _ in range(10):
        weight.weight.grad = torch.ones(1, 1)
        optimizer.step()
    assert weight.weight.item() == pytest.approx(1 - 1e-3, rel=1e-4)
    held_in_16 = torch.ones((), dtype=torch.bfloat16)
    for _ in range(10):
        held_in_16 -= 1e-4
    assert held_in_16 == 1


# ---- the loss scale ------------------------------------------------------------------------------


def one_step(scaler: LossScaler, gradient: float) -> bool:
    """A step whose unscaled gradient is `gradient`; is it finite after unscaling?"""
    p = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([p], lr=1.0)
    scaler.scale((p * gradient).sum()).backward()
    scaler.unscale(optimizer)
    assert p.grad is not None
    good = bool(p.grad.isfinite().all())
    if good:
        assert torch.allclose(p.grad, torch.full((3,), gradient))
    scaler.update(good)
    return good


def test_an_overflow_is_seen_and_halves_the_scale():
    scaler = LossScaler("cpu", enabled=True)
    assert scaler.value == 2**16
    assert one_step(scaler, 0.5)
    assert scaler.value == 2**16
    assert not one_step(scaler, math.inf)
    assert scaler.value == 2**15
    assert not one_step(scaler, math.nan)
    assert scaler.value == 2**14


def test_two_thousand_good_steps_double_the_scale():
    scaler = LossScaler("cpu", enabled=True)
    scaler.load_state_dict({**scaler.state_dict(), "_growth_tracker": 1998})
    one_step(scaler, 1.0)
    assert scaler.value == 2**16
    one_step(scaler, 1.0)
    assert scaler.value == 2**17


def test_a_step_skipped_for_its_loss_halves_the_scale_too():
    scaler = LossScaler("cpu", enabled=True)
    p = nn.Parameter(torch.zeros(1))
    scaler.scale(p.sum()).backward()
    scaler.unscale(torch.optim.SGD([p], lr=1.0))
    scaler.update(False)
    assert scaler.value == 2**15


def test_the_scale_is_settling_until_it_is_1():
    scaler = LossScaler("cpu", enabled=True)
    for _ in range(16):
        assert scaler.is_settling
        one_step(scaler, math.inf)
    assert scaler.value == 1
    assert not scaler.is_settling


def test_the_state_goes_through_json_and_another_scaler_goes_on_with_it():
    scaler = LossScaler("cpu", enabled=True)
    one_step(scaler, math.inf)
    one_step(scaler, 1.0)
    state = json.loads(json.dumps(scaler.state_dict()))
    other = LossScaler("cpu", enabled=True)
    other.load_state_dict(state)
    assert other.state_dict() == scaler.state_dict()
    assert other.value == 2**15
    one_step(other, math.inf)
    assert other.value == 2**14


def test_where_nothing_is_scaled_nothing_happens():
    for dtype in (torch.float32, torch.bfloat16):
        scaler = Precision(dtype, "cpu").make_scaler()
        assert one_step(scaler, 2.0)
        assert not one_step(scaler, math.inf)
        assert scaler.value == 1
        assert not scaler.is_settling
        assert scaler.state_dict() == {}
        scaler.load_state_dict({})


def test_gradients_that_float16_has_no_number_for_survive_by_scaling():
    x = torch.full((1, 4), 1e-4)
    found = {}
    for enabled in (False, True):
        layer = nn.Linear(4, 1, bias=False)
        scaler = LossScaler("cpu", enabled=enabled)
        with torch.autocast("cpu", dtype=torch.float16):
            loss = layer(x).float().sum() * 1e-5
        scaler.scale(loss).backward()
        scaler.unscale(torch.optim.SGD(layer.parameters(), lr=1.0))
        found[enabled] = layer.weight.grad
    assert torch.equal(found[False], torch.zeros(1, 4))
    assert torch.allclose(found[True], torch.full((1, 4), 1e-9), rtol=0.01)


# ---- gradient and optimizer ----------------------------------------------------------------------


def parameters_with(*gradients: list[float]) -> list[nn.Parameter]:
    parameters = []
    for gradient in gradients:
        p = nn.Parameter(torch.zeros(len(gradient)))
        p.grad = torch.tensor(gradient)
        parameters.append(p)
    return [*parameters, nn.Parameter(torch.zeros(2))]  # one without a gradient


def grads(parameters: list[nn.Parameter]) -> torch.Tensor:
    return torch.cat([p.grad for p in parameters if p.grad is not None])


def test_a_long_gradient_is_shortened_as_one_vector():
    parameters = parameters_with([3.0, 0.0], [4.0])
    assert clip_gradients(parameters, 1.0) == pytest.approx(5.0)
    assert torch.allclose(grads(parameters), torch.tensor([0.6, 0.0, 0.8]), rtol=1e-5)


def test_a_short_gradient_is_left_as_it_is():
    parameters = parameters_with([0.3, 0.0], [0.4])
    assert clip_gradients(parameters, 1.0) == pytest.approx(0.5)
    assert torch.equal(grads(parameters), torch.tensor([0.3, 0.0, 0.4]))


@pytest.mark.parametrize("wrong", [math.inf, math.nan])
def test_a_gradient_that_is_no_number_has_no_length_and_is_not_changed(wrong: float):
    parameters = parameters_with([3.0, wrong], [4.0])
    assert not math.isfinite(clip_gradients(parameters, 1.0))
    assert grads(parameters)[[0, 2]].tolist() == [3.0, 4.0]


def test_matrices_decay_and_vectors_do_not():
    model = make_model("Qwen2", **SIZES)
    optimizer = make_optimizer(model, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    groups = {g["weight_decay"]: set(g["param_names"]) for g in optimizer.param_groups}
    assert groups.keys() == {0.1, 0.0}
    assert "model.layers.0.self_attn.q_proj.weight" in groups[0.1]
    assert "model.layers.0.self_attn.q_proj.bias" in groups[0.0]
    assert "model.norm.weight" in groups[0.0]
    assert groups[0.1] | groups[0.0] == {n for n, _ in model.named_parameters()}


def test_what_pissa_holds_still_stays_through_weight_decay():
    model = with_lora(torch.float32, variant="pissa")
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    start = layer.lora_A["default"].weight[4:].detach().clone()
    optimizer = make_optimizer(model, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    assert torch.equal(layer.lora_A["default"].weight[4:], start)
    assert not torch.equal(layer.lora_A["default"].weight[:4], start)


def test_only_what_is_trained_is_optimized_with_names_in_the_models_order():
    model = with_lora(torch.bfloat16)
    optimizer = make_optimizer(model, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert [n for g in optimizer.param_groups for n in g["param_names"]] == trained
    assert optimizer.defaults["betas"] == (0.9, 0.99)
    assert optimizer.defaults["fused"] is False
    assert optimizer.defaults["foreach"] is True


def stepped(gradients: list[float], loss: float, *, max_norm: float, on_device: bool):
    """(parameters after one step of a fused AdamW, was it taken?, norm told)."""
    ps = [torch.nn.Parameter(torch.ones(2)) for _ in gradients]
    optimizer = torch.optim.AdamW(ps, lr=0.1, fused=True, weight_decay=0.0, eps=1.0)
    for p, g in zip(ps, gradients, strict=True):
        p.grad = torch.full((2,), g)
    if on_device:
        good, told, norm = clip_and_step(optimizer, ps, max_norm, torch.tensor(loss))
        assert told == loss or math.isnan(loss)
    else:
        norm = clip_gradients(ps, max_norm)
        good = math.isfinite(norm) and math.isfinite(loss)
        if good:
            optimizer.step()
    return torch.cat([p.detach() for p in ps]), good, norm


@pytest.mark.parametrize(
    ("gradients", "loss"),
    [([0.1, 0.2], 1.0), ([3.0, 40.0], 1.0), ([1.0, math.nan], 1.0), ([1.0, 2.0], math.inf)],
)
def test_a_step_decided_in_the_optimizers_kernel_is_the_same_step(gradients, loss):
    """Short, clipped, and left out because of a gradient or the loss."""
    ours = stepped(gradients, loss, max_norm=1.0, on_device=True)
    theirs = stepped(gradients, loss, max_norm=1.0, on_device=False)
    assert ours[1] == theirs[1]
    assert ours[2] == pytest.approx(theirs[2], nan_ok=True)
    torch.testing.assert_close(ours[0], theirs[0])
