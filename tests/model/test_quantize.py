from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.models import make_model, make_nf4_model, save_chat_model
from whoamai.errors import ModelError
from whoamai.model import quantize
from whoamai.model.load import load_chat_model
from whoamai.model.lora import add_lora
from whoamai.model.quantize import (
    describe_precision,
    is_quantized,
    problem_with_nf4,
    require_nf4,
    weights_by_format,
)

bitsandbytes = pytest.importorskip("bitsandbytes")
IDS = torch.arange(1, 25).reshape(2, 12)
SIZES = {"hidden_size": 64, "intermediate_size": 128}


def unquantized(layer) -> torch.Tensor:
    """out × in, as float32."""
    weight = layer.weight
    return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).float()


def plain_twin(model):
    """A float32 model with the weights that the nf4 model stands for."""
    twin = make_model("Llama", **SIZES)
    weights = {n: p.detach().float() for n, p in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weights[f"{name}.weight"] = unquantized(module)
    twin.load_state_dict(weights, strict=False)
    return twin


@pytest.fixture(scope="module")
def nf4():
    return make_nf4_model(**SIZES)


def linear4(model) -> list:
    return [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_layers_are_held_in_nf4_and_all_else_in_the_precision_computed_in(
    dtype: torch.dtype, double: bool
):
    model = make_nf4_model(dtype=dtype, double_quantization=double, **SIZES)
    layers = linear4(model)
    assert len(layers) == 14
    assert {m.weight.quant_type for m in layers} == {"nf4"}
    assert {m.weight.quant_state.nested for m in layers} == {double}
    assert {m.compute_dtype for m in layers} == {dtype}
    rest = [p for n, p in model.named_parameters() if p.dtype != torch.uint8]
    assert {p.dtype for p in rest} == {dtype}
    assert {model.lm_head.weight.dtype, model.get_input_embeddings().weight.dtype} == {dtype}


@pytest.mark.parametrize("double", [False, True])
def test_a_forward_pass_is_that_of_the_weights_it_stands_for(double: bool):
    model = make_nf4_model(double_quantization=double, **SIZES)
    with torch.no_grad():
        expected = plain_twin(model)(IDS).logits
        assert torch.allclose(model(IDS).logits, expected, atol=1e-5)
    with torch.no_grad():
        unrounded = make_model("Llama", **SIZES)(IDS).logits
    assert not torch.allclose(unrounded, expected, atol=1e-4)  # 4 bits do change it


def adapter_gradients(model) -> dict[str, torch.Tensor]:
    """Of a fixed loss in train mode, for an adapter that is no longer zero."""
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(p, 0.01)
    model.zero_grad()
    model.train()
    logits = model(IDS).logits
    F.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def with_lora(model):
    return add_lora(model, r=4, alpha=8, dropout=0.0, seed=0)


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    error = sum((a[n] - b[n]).square().sum() for n in a)
    return float(error**0.5 / sum(b[n].square().sum() for n in b) ** 0.5)


def test_gradients_are_those_of_the_weights_it_stands_for():
    model = make_nf4_model(**SIZES)
    expected = adapter_gradients(with_lora(plain_twin(model)))
    assert distance(adapter_gradients(with_lora(model)), expected) < 1e-5


def test_answering_questions_between_steps_changes_neither_weights_nor_gradients():
    """bitsandbytes would rearrange the weights, for a product without gradient."""
    model = with_lora(make_nf4_model(**SIZES))
    layers = [m.weight for m in linear4(model)]
    held = [w.data.clone() for w in layers]
    expected = adapter_gradients(model)
    model.eval()
    with torch.no_grad():
        model(IDS)
    assert all(torch.equal(w.data, h) for w, h in zip(layers, held, strict=True))
    assert distance(adapter_gradients(model), expected) == 0


def test_a_step_changes_the_adapter_and_not_a_bit_of_the_base():
    model = with_lora(make_nf4_model(**SIZES))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    scales = [m.weight.quant_state.absmax.clone() for m in linear4(model)]
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    adapter_gradients(model)
    optimizer.step()
    after = dict(model.named_parameters())
    assert {n for n in before if not torch.equal(before[n], after[n])} == trained
    assert all("lora_" in n and after[n].dtype == torch.float32 for n in trained)
    for layer, scale in zip(linear4(model), scales, strict=True):
        assert torch.equal(layer.weight.quant_state.absmax, scale)


def test_weights_are_counted_by_the_format_they_are_held_in(nf4):
    plain = make_model("Llama", **SIZES)
    linear = sum(m.weight.numel() for m in linear4(nf4)) * 2
    total = sum(p.numel() for p in plain.parameters())
    assert weights_by_format(nf4) == {"nf4": linear, "float32": total - linear}
    assert weights_by_format(plain) == {"float32": total}


def test_precision_is_described_in_a_sentence(nf4):
    assert describe_precision(make_model()) == "The weights are held in float32."
    assert describe_precision(nf4).startswith("The weights are held in nf4 6")
    assert "float32" in describe_precision(nf4)


def test_a_quantized_model_is_known(nf4):
    assert is_quantized(nf4)
    assert not is_quantized(make_model("Llama", dtype=torch.bfloat16))


def test_a_folder_written_in_nf4_is_loaded_and_not_quantized_twice(tmp_path: Path, nf4):
    save_chat_model(tmp_path / "m", "Llama", **SIZES)  # the tokenizer
    nf4.save_pretrained(tmp_path / "m")
    chat = load_chat_model(str(tmp_path / "m"), device="cpu")
    assert is_quantized(chat.model)
    with torch.no_grad():
        assert torch.allclose(chat.model(IDS).logits, nf4.eval()(IDS).logits, atol=1e-5)
    with pytest.raises(ModelError, match="already quantized"):
        load_chat_model(str(tmp_path / "m"), device="cpu", quantization="nf4")


# ---- where bitsandbytes is missing or broken -----------------------------------------------------


def test_here_nothing_is_wrong():
    assert problem_with_nf4("cpu") is None
    require_nf4("cpu")


def test_without_bitsandbytes_the_command_and_the_alternative_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save_chat_model(tmp_path / "m")
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as error:
        load_chat_model(str(tmp_path / "m"), device="cpu", quantization="nf4")
    assert "pip install bitsandbytes" in str(error.value)
    assert "quantization: none" in str(error.value)
    assert load_chat_model(str(tmp_path / "m"), device="cpu").label == "m"


BROKEN = """
import logging, sys
print("NOISE 1")
print("NOISE 2", file=sys.stderr)
logging.getLogger(__name__).error("NOISE 3")
raise RuntimeError('no driver\\nand a long story')
"""
JOB = """
import sys
import whoamai.model.load as load
from whoamai.errors import ModelError
from whoamai.model.lora import add_lora
assert "bitsandbytes" not in sys.modules
chat = load.load_chat_model(sys.argv[1], device="cpu")
assert "bitsandbytes" not in sys.modules
for job in (
    lambda: load.load_chat_model(sys.argv[1], device="cpu", quantization="nf4"),
    lambda: add_lora(chat.model, r=2, alpha=4, dropout=0.0, seed=0),
):
    try:
        job()
    except ModelError as error:
        print(error)
"""


def test_a_broken_bitsandbytes_is_told_in_one_sentence_and_its_output_swallowed(tmp_path: Path):
    save_chat_model(tmp_path / "m")
    broken = tmp_path / "broken" / "bitsandbytes"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(BROKEN)
    path = os.pathsep.join([str(tmp_path / "broken"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", JOB, str(tmp_path / "m")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        check=True,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert "cannot be imported: no driver. Install it again: pip install" in lines[0]
    assert "quantization: none" in lines[0]
    assert "peft" in lines[1]
    assert "pip uninstall bitsandbytes" in lines[1]


def test_an_installation_without_the_library_for_this_gpu_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It can be imported, and says so at its first use only."""

    def fails(*_: object, **__: object) -> None:
        print("NOISE")
        raise RuntimeError("\n🚨 Forgot to compile the bitsandbytes library? 🚨\n1. much more")

    monkeypatch.setattr(bitsandbytes.functional, "quantize_4bit", fails)
    problem = problem_with_nf4("cpu")
    assert problem is not None
    assert "in nf4 on cpu: Forgot to compile the bitsandbytes library? Install" in problem
    assert "pip install --upgrade bitsandbytes" in problem
    assert capsys.readouterr() == ("", "")


def test_a_bitsandbytes_too_old_for_transformers_is_told(monkeypatch: pytest.MonkeyPatch):
    from transformers.utils import import_utils

    monkeypatch.setattr(import_utils, "is_bitsandbytes_available", lambda: False)
    assert "newer bitsandbytes" in (problem_with_nf4("cpu") or "")
