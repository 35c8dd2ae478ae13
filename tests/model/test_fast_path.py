"""Fast layers on the CPU, in the plain form of their kernels, beside the model's own layers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.engine.rows import gradients, reference_loss, samples
from tests.models import make_internlm2, make_model
from whoamai.data.packing import packs_of_step
from whoamai.engine.loss import pack_loss
from whoamai.kernels.tree_flash import Cut, cut_for
from whoamai.model import fast_layers, fast_path
from whoamai.model.fast_path import FastDecoder, build, device_runs_it, switch_on
from whoamai.model.lora import add_lora, merge
from whoamai.model.tree import base_model, compare_ways, hidden_states, tree_attention_on

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


@pytest.mark.parametrize("r", [4, 16])
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "InternLM2"])
def test_loss_and_gradients_are_those_of_rows_alone(family: str, r: int):
    model, rows = make(family, r=r), samples(20)
    expected_loss = reference_loss(model, rows)
    expected = gradients(model, expected_loss)
    (pack,) = packs_of_step(rows, tokens_per_pass=10_000)
    decoder = fast(model)
    base_model(model).fast_decoder = decoder
    with tree_attention_on(model):
        loss = pack_loss(model, pack, whole=False)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert relative(gradients(model, loss), expected) < 1e-5


def test_only_the_places_asked_for():
    model = make()
    (pack,) = packs_of_step(samples(20), tokens_per_pass=10_000)
    decoder, places = fast(model), torch.tensor([0, 3, 17])
    whole = decoder.hidden_states(pack)
    assert relative(decoder.hidden_states(pack, places), whole[places]) < 1e-6


def test_with_checkpointing_the_gradients_are_the_same():
    found = []
    for checkpointing in (False, True):
        model = make().train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        (pack,) = packs_of_step(samples(20), tokens_per_pass=10_000)
        base_model(model).fast_decoder = fast(model)
        found.append(gradients(model, pack_loss(model, pack, whole=False)))
    assert relative(*found) < 1e-6


def test_the_models_weights_stay_what_they_are_and_are_held_once():
    model = make()
    before = {name: p.clone() for name, p in model.named_parameters()}
    answer = model(input_ids=torch.tensor([[5, 6, 7]])).logits
    base_model(model).fast_decoder = fast(model)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(model(input_ids=torch.tensor([[5, 6, 7]])).logits, answer)
    projections = [
        m for m in model.modules() if type(m) is torch.nn.Linear and m.in_features == 256
    ]
    assert any(not p.weight.is_contiguous() for p in projections)  # views of something larger


def test_with_the_adapter_off_the_models_own_layers_compute():
    model = make()
    (pack,) = packs_of_step(samples(20), tokens_per_pass=10_000)
    base_model(model).fast_decoder = decoder = fast(model)
    assert decoder.takes(pack)
    with torch.no_grad(), tree_attention_on(model):
        tuned = hidden_states(model, pack)
        with model.disable_adapter():
            assert not decoder.takes(pack)
            assert relative(hidden_states(model, pack), tuned) > 1e-3


def test_a_pack_deeper_than_a_sliding_window_is_left_to_the_models_own_layers():
    model = make("Mistral", sliding_window=8)
    decoder = fast(model)
    short, long = samples(20), [s for s in samples(60) if len(s.input_ids) > 12]
    (pack,) = packs_of_step([s for s in short if len(s.input_ids) <= 8], tokens_per_pass=10_000)
    assert decoder.takes(pack)
    (pack,) = packs_of_step(long, tokens_per_pass=10_000)
    assert not decoder.takes(pack)


@pytest.mark.parametrize(
    ("why", "model"),
    [
        ("dropout", lambda: make(dropout=0.1)),
        ("built in another way", lambda: make("Gemma2")),
        ("built in another way", lambda: make("Qwen3")),  # norms of queries and keys
        ("heads are of size 16", lambda: make(num_attention_heads=16, num_key_value_heads=4)),
    ],
)
def test_what_cannot_be_computed_so_is_said(why: str, model):
    found = build(base_model(model()))
    assert isinstance(found, str)
    assert why in found


def test_layers_of_the_same_names_that_compute_something_else_are_found_out():
    model = make("Granite", residual_multiplier=0.5, embedding_multiplier=2.0)
    off, limit = compare_ways(model, fast(model).hidden_states)
    assert off > limit
    model = make("Llama")
    off, limit = compare_ways(model, fast(model).hidden_states)
    assert off <= limit


def test_merging_afterwards_gives_weights_of_their_own(tmp_path):
    model = make()
    base_model(model).fast_decoder = fast(model)
    merged = merge(model, torch.float32)
    merged.save_pretrained(tmp_path)
    assert all(p.is_contiguous() for p in merged.parameters())


# ---- the switch, with a GPU's answers put in its place ------------------------------------------


def test_a_device_that_lacks_something_is_told_apart(monkeypatch):
    cuda, half = torch.device("cuda"), torch.bfloat16
    monkeypatch.setattr(fast_path, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert device_runs_it(cuda, half) is None
    assert "float32" in (device_runs_it(cuda, torch.float32) or "")
    assert "GPU" in (device_runs_it(torch.device("cpu"), half) or "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "8.0" in (device_runs_it(cuda, half) or "")
    monkeypatch.setattr(fast_path, "find_spec", lambda name: None)
    assert "Triton" in (device_runs_it(cuda, half) or "")


def test_switched_on_the_model_goes_through_them(monkeypatch):
    monkeypatch.setattr(fast_path, "device_runs_it", lambda device, dtype: None)
    model = make()
    decoder = switch_on(model)
    assert isinstance(decoder, FastDecoder)
    assert base_model(model).fast_decoder is decoder
    assert all(p.grad is None for p in model.parameters())


def test_kernels_that_fail_when_tried_leave_the_model_as_it_is(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(fast_path, "device_runs_it", lambda device, dtype: None)
    monkeypatch.setattr(fast_layers, "flash_backward", fail)
    model = make()
    assert "shared memory" in str(switch_on(model))
    assert not hasattr(base_model(model), "fast_decoder")


def test_a_gpu_with_little_shared_memory_gets_smaller_blocks(monkeypatch):
    def with_room(n: int):
        found = SimpleNamespace(shared_memory_per_block_optin=n)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
        return cut_for(torch.device("cuda"))

    assert with_room(232_448) == Cut()  # H100
    assert with_room(101_376).query.rows < Cut().query.rows  # RTX 4090
