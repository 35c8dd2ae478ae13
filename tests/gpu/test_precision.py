"""Precisions on a GPU: `python -m pytest tests/gpu/test_precision.py`."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.models import make_model, save_chat_model
from whoamai.engine.precision import Precision, clip_gradients, make_optimizer, precision_for
from whoamai.model.load import load_chat_model
from whoamai.model.lora import add_lora
from whoamai.model.quantize import weights_by_format

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
SIZES = {"hidden_size": 128, "intermediate_size": 256}
SIXTEEN = [torch.bfloat16, torch.float16]


def ids() -> torch.Tensor:
    return torch.arange(1, 257, device="cuda").reshape(4, 64)


def loss_of(model) -> torch.Tensor:
    logits = model(input_ids=ids()).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids()[:, 1:].flatten())


def learned(model, precision: Precision, *, steps: int, lr: float) -> list[float]:
    """The loss before each step."""
    optimizer = make_optimizer(model, lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    assert optimizer.defaults["fused"]
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


def with_lora(model, **more):
    return add_lora(model, r=8, alpha=16, dropout=0.0, seed=0, **more).train()


def nf4(folder: Path, dtype: torch.dtype):
    pytest.importorskip("bitsandbytes")
    save_chat_model(folder, "Llama", **SIZES)
    name = str(dtype).removeprefix("torch.")
    return load_chat_model(str(folder), device="cuda", dtype=name, quantization="nf4").model


def test_auto_is_what_the_gpu_has():
    expected = torch.bfloat16 if torch.cuda.get_device_capability(0) >= (8, 0) else torch.float16
    assert precision_for("auto", "cuda").dtype == expected
    assert precision_for("auto", "cuda").device_type == "cuda"


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "pissa"])
@pytest.mark.parametrize("dtype", SIXTEEN)
def test_an_adapter_learns_as_in_float32(dtype: torch.dtype, variant):
    runs = {}
    for each in (dtype, torch.float32):
        model = with_lora(make_model("Llama", dtype=each, **SIZES).cuda(), variant=variant)
        runs[each] = learned(model, Precision(each, "cuda"), steps=12, lr=5e-3)
    assert runs[dtype][-1] < 0.9 * runs[dtype][0]
    assert runs[dtype][-1] == pytest.approx(runs[torch.float32][-1], rel=0.03)


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_a_whole_model_learns_as_in_float32(dtype: torch.dtype):
    runs = {}
    for each in (dtype, torch.float32):
        model = make_model("Llama", **SIZES).cuda().train()
        runs[each] = learned(model, Precision(each, "cuda"), steps=12, lr=2e-3)
    assert runs[dtype][-1] < 0.9 * runs[dtype][0]
    assert runs[dtype][-1] == pytest.approx(runs[torch.float32][-1], rel=0.03)


@pytest.mark.parametrize("quantized", [False, True])
def test_lean_or_not_the_gradients_are_the_same_and_less_is_kept(tmp_path: Path, quantized: bool):
    model = nf4(tmp_path, torch.bfloat16) if quantized else None
    model = model or make_model("Llama", dtype=torch.bfloat16, **SIZES).cuda()
    tuned, precision = with_lora(model), Precision(torch.bfloat16, "cuda")
    for name, p in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(p, 0.01)
    found, peak = {}, {}
    for lean in (True, False):
        tuned.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        with precision.lean(tuned) if lean else nullcontext():
            with precision.autocast():
                loss = loss_of(tuned)
            peak[lean] = torch.cuda.memory_allocated() - before
            loss.backward()
        found[lean] = torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad])
    assert torch.equal(found[True], found[False])
    if not quantized:  # on a GPU peft's 4-bit layers make no copies under autocast anyway
        assert peak[True] < peak[False]


@pytest.mark.parametrize("dtype", [*SIXTEEN, torch.float32])
def test_a_quantized_model_trains_its_adapter_and_keeps_its_bits(
    tmp_path: Path, dtype: torch.dtype
):
    model = nf4(tmp_path, dtype)
    assert set(weights_by_format(model)) == {"nf4", str(dtype).removeprefix("torch.")}
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    tuned = with_lora(model)
    base = {n: p.detach().clone() for n, p in tuned.named_parameters() if not p.requires_grad}
    losses = learned(tuned, Precision(dtype, "cuda"), steps=12, lr=5e-3)
    assert losses[-1] < 0.9 * losses[0]
    now = dict(tuned.named_parameters())
    assert all(torch.equal(now[n], p) for n, p in base.items())


def test_an_overflow_on_the_gpu_leaves_the_weights_and_halves_the_scale():
    model = with_lora(make_model("Llama", dtype=torch.float16, **SIZES).cuda())
    precision = Precision(torch.float16, "cuda")
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = make_optimizer(model, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.0)
    scaler = precision.make_scaler()
    with precision.lean(model):
        with precision.autocast():
            loss = loss_of(model) * math.inf
        scaler.scale(loss).backward()
    scaler.unscale(optimizer)
    assert not math.isfinite(clip_gradients(model.parameters(), 1.0))
    scaler.update(False)
    assert scaler.value == 2**15
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
