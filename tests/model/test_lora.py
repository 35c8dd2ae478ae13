from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.models import make_gpt2, make_model, make_nf4_model, save_chat_model
from whoamai.errors import ModelError, SettingError
from whoamai.model.lora import (
    add_lora,
    added_up,
    merge,
    save_adapter,
    trainable_parameters,
    without_adapter,
)
from whoamai.model.targets import linear_layers

FAMILIES = ["Llama", "Qwen2", "Qwen3"]
IDS = torch.arange(1, 13).reshape(2, 6)


VARIANTS = ["lora", "rslora", "dora", "pissa"]


def with_lora(model, seed: int = 0, **more):
    return add_lora(model, r=4, alpha=8, dropout=0.0, seed=seed, **more)


def moved(model, size: float = 0.05):
    """As after some training: B is no longer zero."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(9)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=size)
    return model


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_but_the_head_gets_an_adapter(family: str, tied: bool):
    model = make_model(family, tie_word_embeddings=tied)
    n_linear = sum(isinstance(m, nn.Linear) for m in model.modules())
    tuned = with_lora(model)
    wrapped = [n for n, m in tuned.named_modules() if hasattr(m, "lora_A") and "lora" not in n]
    assert len(wrapped) == n_linear - 1 == 14
    assert not [n for n in wrapped if "lm_head" in n]


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_adapter_can_be_trained(family: str):
    trained = {n for n, p in with_lora(make_model(family)).named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in n for n in trained)


def test_the_linear_layers_are_named_without_their_place():
    assert linear_layers(make_model("Llama")) == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }


def test_a_model_without_linear_layers_is_refused():
    model = nn.Module()
    model.head = nn.Linear(2, 2)
    model.get_output_embeddings = lambda: model.head  # type: ignore[assignment]
    with pytest.raises(ModelError, match="no linear layers"):
        with_lora(model)


def test_a_fresh_adapter_changes_nothing():
    model = make_model()
    before = logits(model)
    assert torch.equal(logits(with_lora(model)), before)


def _adapter(model) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}


def test_the_same_seed_draws_the_same_adapter_whatever_was_drawn_before():
    first = _adapter(with_lora(make_model(), seed=3))
    torch.rand(7)
    second = _adapter(with_lora(make_model(), seed=3))
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_another_seed_draws_another_adapter():
    first, second = (_adapter(with_lora(make_model(), seed=s)) for s in (3, 4))
    assert not any(torch.equal(first[n], second[n]) for n in first if "lora_A" in n)


def test_adding_an_adapter_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with_lora(make_model())
    assert torch.equal(torch.rand(3), expected)


def test_without_its_adapter_the_model_answers_as_before():
    model = make_model()
    before = logits(model)
    tuned = moved(with_lora(model))
    with without_adapter(tuned):
        assert torch.equal(logits(tuned), before)
    assert not torch.equal(logits(tuned), before)


def stepped(model, steps: int = 2):
    """Really trained for a few steps."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tied", [False, True])
def test_plain_peft_loads_a_saved_adapter_on_the_plain_model_to_the_same_logits(
    tmp_path: Path, tied: bool, variant
):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    save_chat_model(tmp_path / "base", "Qwen3", tie_word_embeddings=tied)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    untrained = logits(base)
    tuned = stepped(with_lora(base, variant=variant))
    save_adapter(tuned, tmp_path / "adapter", str(tmp_path / "base"))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    loaded = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
    assert torch.equal(logits(loaded), logits(tuned))
    assert not torch.allclose(logits(loaded), untrained, atol=1e-2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_trained_is_float32_whatever_the_model_is_held_in(dtype: torch.dtype, variant):
    tuned = with_lora(make_model("Llama", dtype=dtype), variant=variant)
    held = {p.requires_grad: set() for p in tuned.parameters()}
    for p in tuned.parameters():
        held[p.requires_grad].add(p.dtype)
    assert held == {True: {torch.float32}, False: {dtype}}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_every_variant_starts_from_what_the_model_says_and_learns(family: str, variant):
    model = make_gpt2() if family == "GPT2" else make_model(family)
    before = logits(model.eval())
    tuned = with_lora(model, variant=variant)
    assert torch.allclose(logits(tuned), before, atol=1e-5)
    stepped(tuned)
    assert not torch.allclose(logits(tuned), before, atol=1e-3)
    with without_adapter(tuned):
        assert torch.allclose(logits(tuned), before, atol=1e-6)
    changed = logits(tuned)
    assert torch.allclose(logits(merge(tuned, torch.float32)), changed, atol=1e-4)


def test_rslora_divides_by_the_root_of_the_rank():
    tuned = with_lora(make_model(), variant="rslora")
    scales = {m.scaling["default"] for m in tuned.modules() if hasattr(m, "lora_A")}
    assert scales == {8 / 4**0.5}


def test_dora_also_trains_the_lengths_of_the_rows():
    trained = trainable_parameters(with_lora(make_model("Llama"), variant="dora"))
    lengths = {name: n for name, n in trained if "magnitude" in name}
    assert len(lengths) == 14
    assert set(lengths.values()) == {16, 32, 64}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_on_a_quantized_model(variant):
    model = make_nf4_model(hidden_size=64, intermediate_size=128)
    before = logits(model)
    tuned = with_lora(model, variant=variant)
    assert torch.allclose(logits(tuned), before, atol=1e-4)
    stepped(tuned)
    assert not torch.allclose(logits(tuned), before, atol=1e-3)


def test_what_is_trained_is_listed_with_its_size():
    tuned = with_lora(make_model("Llama"))
    trained = trainable_parameters(tuned)
    assert len(trained) == 28
    assert sum(n for _, n in trained) == sum(
        4 * (m.in_features + m.out_features) for m in tuned.modules() if hasattr(m, "lora_A")
    )
    name = "base_model.model.model.layers.0.self_attn.k_proj.lora_B.default.weight"
    assert dict(trained)[name] == 4 * 16


def test_an_adapted_head_is_saved_without_the_head_itself(tmp_path: Path):
    from peft import PeftModel
    from safetensors.torch import load_file

    tuned = stepped(with_lora(make_model("Llama", tie_word_embeddings=False), adapt_head=True))
    save_adapter(tuned, tmp_path, "base")
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(saved) == 30
    assert all("lora_" in name for name in saved)
    assert any("lm_head" in name for name in saved)
    plain = make_model("Llama", tie_word_embeddings=False)
    loaded = PeftModel.from_pretrained(plain, str(tmp_path))
    assert torch.equal(logits(loaded), logits(tuned))


def test_an_adapter_is_not_merged_into_quantized_weights():
    tuned = with_lora(make_nf4_model())
    with pytest.raises(ModelError, match="quantization: none"):
        merge(tuned, torch.bfloat16)


def test_quantized_weights_are_left_alone_when_others_are_added_up():
    tuned = with_lora(make_nf4_model())
    with added_up(tuned):
        assert not any(getattr(m, "merged", False) for m in tuned.modules())


def test_pissa_refuses_a_rank_its_smallest_layer_does_not_have():
    model = make_model("Llama", head_dim=4)
    with pytest.raises(SettingError, match=r"smallest layer has only 8 parts"):
        add_lora(model, r=16, alpha=16, dropout=0.0, seed=0, variant="pissa")


def test_a_saved_adapter_says_what_it_belongs_to_and_holds_nothing_else(tmp_path: Path):
    from peft import PeftConfig
    from safetensors.torch import load_file

    save_chat_model(tmp_path / "base")
    save_adapter(with_lora(make_model()), tmp_path / "adapter", str(tmp_path / "base"))
    config = PeftConfig.from_pretrained(str(tmp_path / "adapter"))
    assert config.base_model_name_or_path == str(tmp_path / "base")
    assert all("lora_" in n for n in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_answers_as_the_adapter_did(family: str, tied: bool):
    tuned = moved(with_lora(make_model(family, tie_word_embeddings=tied)))
    before = logits(tuned)
    merged = merge(tuned, torch.float32)
    assert torch.allclose(logits(merged), before, atol=1e-5)


def test_a_merged_model_is_the_plain_class_with_the_plain_names():
    model = make_model("Qwen3")
    names = set(model.state_dict())
    merged = merge(moved(with_lora(model)), torch.float32)
    assert type(merged).__name__ == "Qwen3ForCausalLM"
    assert set(merged.state_dict()) == names


def test_merged_weights_are_rounded_once_to_the_precision_asked_for():
    tuned = moved(with_lora(make_model("Llama", tie_word_embeddings=False)))
    layer = tuned.get_base_model().model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    exact = layer.base_layer.weight + 2.0 * (b @ a)
    merged = merge(tuned, torch.bfloat16)
    weight = merged.model.layers[0].self_attn.q_proj.weight
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    assert torch.allclose(weight.float(), exact.to(torch.bfloat16).float(), rtol=2**-7, atol=0)
    assert (weight.float() - exact).abs().max() <= exact.abs().max() * 2**-8


@pytest.mark.parametrize("family", FAMILIES)
def test_added_up_it_answers_the_same_and_is_afterwards_as_it_was(family: str):
    tuned = moved(with_lora(make_model(family)))
    before, adapter = logits(tuned), {n: p.clone() for n, p in tuned.named_parameters()}
    with added_up(tuned):
        assert any(getattr(m, "merged", False) for m in tuned.modules())
        assert torch.allclose(logits(tuned), before, atol=1e-5)
    assert not any(getattr(m, "merged", False) for m in tuned.modules())
    for name, p in tuned.named_parameters():
        assert torch.allclose(p, adapter[name], atol=1e-6), name
        assert "lora_" not in name or torch.equal(p, adapter[name])


def test_in_a_short_format_nothing_is_added_up():
    tuned = moved(with_lora(make_model("Llama", dtype=torch.bfloat16)))
    weights = {n: p.clone() for n, p in tuned.named_parameters()}
    with added_up(tuned):
        assert not any(getattr(m, "merged", False) for m in tuned.modules())
    assert all(torch.equal(p, weights[n]) for n, p in tuned.named_parameters())
