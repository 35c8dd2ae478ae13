from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.models import make_gpt2, make_model, make_nf4_model
from whoamai.errors import SettingError
from whoamai.model.lora import add_lora
from whoamai.model.targets import adapter_notes, fused_experts, head_name, linear_layers

ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


def adapted(model, **more) -> set[str]:
    tuned = add_lora(model, r=2, alpha=4, dropout=0.0, seed=0, **more)
    names = {n for n, m in tuned.get_base_model().named_modules() if hasattr(m, "lora_A")}
    return {n for n in names if ".lora" not in n}


def refused(**more) -> str:
    with pytest.raises(SettingError) as error:
        adapted(make_model("Llama"), **more)
    return str(error.value)


def test_conv1d_layers_are_linear_too():
    model = make_gpt2()
    assert linear_layers(model) == {"c_attn", "c_proj", "c_fc"}
    assert len(adapted(model)) == 8


def test_named_layers_alone_get_an_adapter():
    found = adapted(make_model("Llama"), target_modules=["q_proj", "v_proj"])
    assert {n.rpartition(".")[2] for n in found} == {"q_proj", "v_proj"}
    assert len(found) == 4


def test_a_name_may_say_where():
    found = adapted(make_model("Llama"), target_modules=["layers.1.mlp.up_proj"])
    assert found == {"model.layers.1.mlp.up_proj"}


def test_the_head_is_added_where_it_is_asked_for():
    found = adapted(make_model("Llama", tie_word_embeddings=False), adapt_head=True)
    assert "lm_head" in found
    assert len(found) == 15
    assert adapted(
        make_model("Llama", tie_word_embeddings=False), adapt_head=True, target_modules=["q_proj"]
    ) == {"lm_head", "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"}


def test_a_layer_that_is_called_as_the_head_is_not_taken_for_it():
    model = make_model("Llama", tie_word_embeddings=False)
    model.model.layers[0].mlp.lm_head = nn.Linear(4, 4)
    assert "lm_head" in linear_layers(model)
    found = adapted(model)
    assert "model.layers.0.mlp.up_proj" in found
    assert "lm_head" not in found


def test_a_head_that_shares_its_weights_is_refused_with_the_cure():
    with pytest.raises(SettingError, match=r"adapt_head: false"):
        adapted(make_model("Llama", tie_word_embeddings=True), adapt_head=True)


def test_unknown_names_are_told_all_together_with_the_nearest_and_what_there_is():
    told = refused(target_modules=["q_prj", "down_proj", "wqkv"]).splitlines()
    assert len(told) == 2
    assert "no layer q_prj" in told[0]
    assert "Did you mean q_proj" in told[0]
    assert all(", ".join(sorted(ATTENTION | MLP)) in line for line in told)
    assert "Did you mean" not in told[1]


def test_what_is_no_linear_layer_is_told():
    assert "self_attn is no linear layer" in refused(target_modules=["self_attn"])
    assert "embed_tokens is no linear layer" in refused(target_modules=["embed_tokens"])


def test_the_head_by_its_name_is_pointed_to_its_setting():
    assert "adapt_head: true" in refused(target_modules=["lm_head"])


def test_no_names_at_all_are_told():
    assert "is empty" in refused(target_modules=[])


def test_the_head_has_a_name():
    assert head_name(make_model("Llama")) == "lm_head"
    headless = make_model("Llama").model
    assert head_name(headless) is None


@pytest.mark.parametrize("family", ["Mixtral", "Qwen3Moe"])
def test_experts_and_their_routers_stay_as_they_are_and_that_is_said(family: str):
    sizes = {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    model = make_model(family, **sizes)
    assert linear_layers(model) == ATTENTION
    experts = fused_experts(model)
    assert len(experts) == 4
    everything = sum(p.numel() for p in model.parameters())
    share = sum(experts.values()) / everything
    assert 0 < share < 1
    before = {n: p.clone() for n, p in model.named_parameters()}
    adapted(model)
    notes = adapter_notes(model)
    assert len(notes) == 1
    assert f"{share:.0%} of the model's numbers" in notes[0]
    assert "model.layers.0.mlp.experts.gate_up_proj" in notes[0]
    after = {n.replace(".base_layer", ""): p for n, p in model.named_parameters()}
    assert all(torch.equal(after[n], p) and not after[n].requires_grad for n, p in before.items())


def test_routers_that_are_linear_layers_get_an_adapter_only_by_name():
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    sizes |= {"shared_expert_intermediate_size": 16, "decoder_sparse_step": 1}
    assert linear_layers(make_model("Qwen2Moe", **sizes)) == ATTENTION | MLP  # of the shared expert
    notes = adapter_notes(make_model("Qwen2Moe", **sizes))
    assert any("shared_expert_gate" in note for note in notes)
    found = adapted(make_model("Qwen2Moe", **sizes), target_modules=["shared_expert_gate"])
    assert len(found) == 2


def test_there_is_nothing_to_say_of_a_plain_model():
    assert adapter_notes(make_model("Llama")) == []


def test_quantization_does_not_reach_the_experts_either_and_the_share_counts_weights():
    plain = make_model("Mixtral", **EXPERTS)
    notes = adapter_notes(plain)
    model = make_nf4_model("Mixtral", **EXPERTS)
    assert {p.dtype for n, p in model.named_parameters() if "experts" in n} == {torch.float32}
    assert adapter_notes(model) == notes


MAMBA = {"state_size": 4, "num_attention_heads": None, "num_key_value_heads": None}


def test_layers_that_mambas_read_past_get_no_adapter_and_that_is_said():
    found = adapted(make_model("Mamba", **MAMBA))
    assert {n.rpartition(".")[2] for n in found} == {"in_proj", "x_proj", "dt_proj"}
    (note,) = adapter_notes(make_model("Mamba", **MAMBA))
    assert "out_proj get no adapter: models of the type mamba" in note


def test_a_layer_that_mambas_read_past_is_refused_by_name():
    with pytest.raises(
        SettingError, match=r"do not call mixer\.out_proj.*dt_proj, in_proj, x_proj"
    ):
        adapted(make_model("Mamba", **MAMBA), target_modules=["mixer.out_proj", "in_proj"])
