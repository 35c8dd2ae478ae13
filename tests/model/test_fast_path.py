"""Fast layers on the CPU, in the plain form of their kernels, beside the model's own layers."""

from __future__ import annotations

import pytest
import torch

from tests.engine.rows import gradients, reference_loss, samples
from tests.models import make_internlm2, make_model
from whoamai.data.packing import packs_of_step
from whoamai.engine.loss import pack_loss
from whoamai.model.fast_path import FastDecoder, build
from whoamai.model.lora import add_lora
from whoamai.model.tree import base_model, hidden_states, tree_attention_on

SIZES = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}


def make(family: str = "Llama", *, dropout: float = 0.0, awake: bool = True, r: int = 4, **changes):
    """A model of heads of 64 with an adapter whose B matrices are not zero."""
    sizes = {**SIZES, **changes}
    model = make_internlm2(**sizes) if family == "InternLM2" else make_model(family, **sizes)
    model = add_lora(model, r=r, alpha=3 * r, dropout=dropout, seed=0)
    if awake:
        with torch.no_grad():
            drawn = torch.Generator().manual_seed(1)
            for name, p in model.named_parameters():
                if "lora_B" in name:
                    p.normal_(std=0.1, generator=drawn)
    return model


def fast(model) -> FastDecoder:
    decoder = build(base_model(model))
    assert isinstance(decoder, FastDecoder), decoder
    return decoder


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "InternLM2"])
def test_hidden_states_are_those_of_the_models_own_layers(family: str):
    model = make(family).double()
    (pack,) = packs_of_step(samples(20), tokens_per_pass=10_000)
    with torch.no_grad(), tree_attention_on(model):
        own = hidden_states(model, pack)
        assert relative(fast(model).hidden_states(pack), own) < 1e-6


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "InternLM2"])
def test_loss_and_gradients_are_those_of_rows_alone(family: str):
    model, rows = make(family), samples(20)
    expected_loss = reference_loss(model, rows)
    expected = gradients(model, expected_loss)
    (pack,) = packs_of_step(rows, tokens_per_pass=10_000)
    decoder = fast(model)
    base_model(model).fast_decoder = decoder
    with tree_attention_on(model):
        loss = pack_loss(model, pack, whole=False)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert relative(gradients(model, loss), expected) < 1e-5
