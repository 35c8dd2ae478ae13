from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tests.models import make_internlm2, make_model
from whoamai.config import LoraSettings
from whoamai.errors import ModelError
from whoamai.model.internlm2 import register_internlm2
from whoamai.model.load import bundled_model
from whoamai.model.lora import add_lora, trainable_parameters
from whoamai.plan.architecture import (
    Linear,
    adapted_linears,
    architecture_of,
    lora_parameters,
    of_model,
)
from whoamai.plan.known_models import KNOWN

# Parameters as the models' pages on the hub give them.
PUBLISHED = {
    "internlm2_5-7b-chat": 7_737_708_544,
    "internlm2-chat-1_8b": 1_889_110_016,
    "internlm2-chat-20b": 19_861_149_696,
    "Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen2.5-32B-Instruct": 32_763_876_352,
    "Qwen2.5-72B-Instruct": 72_706_203_648,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
    "Llama-3.1-8B-Instruct": 8_030_261_248,
    "Llama-3.2-1B-Instruct": 1_235_814_400,
    "Llama-3.2-3B-Instruct": 3_212_749_824,
    "Mistral-7B-Instruct-v0.3": 7_248_023_552,
}
FAMILIES = [
    "Llama",
    "Qwen2",
    "Qwen3",
    "Mistral",
    "Gemma",
    "Gemma2",
    "GPTNeoX",
    "Phi3",
    "Olmo2",
]


def model_of(family: str, **changes: Any) -> Any:
    if family == "InternLM2":
        return make_internlm2(**changes)
    if family in ("Gemma", "Gemma2"):
        changes = {"head_dim": 8, **changes}
    return make_model(family, **changes)


def saved_config(folder: Path, model: Any) -> Path:
    model.config.save_pretrained(folder)
    return folder


# ---- the table and the arithmetic ----------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_gives_the_number_of_parameters_of_the_models_page(name: str):
    assert architecture_of(f"somebody/{name}").n_parameters == PUBLISHED[name]


@pytest.mark.parametrize(
    "name",
    [
        "internlm2_5-7b-chat",
        "Llama-3.1-8B-Instruct",
        "Qwen2.5-7B-Instruct",
        "Qwen3-8B",
        "Mistral-7B-Instruct-v0.3",
    ],
)
def test_the_table_agrees_with_the_class_counted_on_the_meta_device(name: str):
    register_internlm2()
    known = dict(KNOWN[name])
    if known["model_type"] == "internlm2":
        del known["head_dim"]  # its config has no such key
    config = AutoConfig.for_model(known.pop("model_type"), **known)
    with torch.device("meta"):
        counted = of_model(AutoModelForCausalLM.from_config(config), label=name, basis="")
    from_table = architecture_of(name)
    assert counted.n_parameters == from_table.n_parameters
    assert set(counted.linears) == set(from_table.linears)
    assert counted.head == from_table.head
    assert counted.other_parameters == from_table.other_parameters
    assert (counted.kv_heads, counted.head_dim, counted.tied) == (
        from_table.kv_heads, from_table.head_dim, from_table.tied,
    )  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", [*FAMILIES, "InternLM2"])
def test_a_folder_gives_what_the_model_itself_holds(tmp_path: Path, family: str, tied: bool):
    model = model_of(family, tie_word_embeddings=tied)
    found = architecture_of(str(saved_config(tmp_path / "model", model)))
    assert found.n_parameters == sum(p.numel() for p in model.parameters())
    counted = of_model(model, label="", basis="")
    assert set(found.linears) == set(counted.linears)
    assert found.head == counted.head
    assert (found.tied, found.heads, found.layers) == (tied, 4, 2)


@pytest.mark.parametrize(
    ("family", "biases"),
    [
        ("Llama", {"attention_bias": True}),
        ("Llama", {"attention_bias": True, "mlp_bias": True}),
        ("Qwen3", {"attention_bias": True}),
        ("Gemma", {"attention_bias": True}),
        ("InternLM2", {"bias": True}),
    ],
)
def test_biases_are_counted(tmp_path: Path, family: str, biases: dict[str, bool]):
    model = model_of(family, **biases)
    found = architecture_of(str(saved_config(tmp_path / "model", model)))
    assert found.n_parameters == sum(p.numel() for p in model.parameters())


def test_the_linear_layers_of_gpt_2_are_found_though_they_are_no_linear_modules(tmp_path: Path):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4))
    found = architecture_of(str(saved_config(tmp_path / "model", model)))
    assert found.n_parameters == sum(p.numel() for p in model.parameters())
    assert Linear("c_attn", 32, 96, 2) in found.linears
    assert (found.layers, found.heads, found.head_dim, found.hidden) == (2, 4, 8, 32)


def test_a_usual_folder_is_read_without_torch(tmp_path: Path):
    folder = saved_config(tmp_path / "model", make_model("Qwen3"))
    code = (
        "import sys; from whoamai.plan.architecture import architecture_of as of;"
        f"of({str(folder)!r}); of('internlm/internlm2_5-7b-chat'); of('tiny-chat');"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_bundled_model_is_known(tmp_path: Path):
    found = architecture_of("tiny-chat")
    model = AutoModelForCausalLM.from_pretrained(bundled_model())
    assert found.n_parameters == sum(p.numel() for p in model.parameters())
    assert found.label == "tiny-chat"


# ---- where a config is found ---------------------------------------------------------------------


def test_a_path_that_does_not_exist_is_looked_up_by_its_last_part_and_that_is_said(tmp_path: Path):
    path = str(tmp_path / "internlm2_5-7b-chat")
    found = architecture_of(path)
    assert found.n_parameters == 7_737_708_544
    assert path in found.basis
    assert "internlm2_5-7b-chat" in found.basis


def test_a_hub_name_of_the_table_has_it_as_its_basis():
    assert "table" in architecture_of("internlm/internlm2_5-7b-chat").basis


def test_a_folder_goes_before_the_table(tmp_path: Path):
    folder = saved_config(tmp_path / "internlm2_5-7b-chat", make_model("Llama"))
    assert architecture_of(str(folder)).layers == 2


def test_what_was_downloaded_goes_before_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = saved_config(tmp_path / "model", make_model("Llama"))
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda name, file: str(folder / "config.json")
    )
    assert architecture_of("Qwen/Qwen3-8B").layers == 2


@pytest.mark.parametrize(
    "source", ["nobody/nothing", "./not here", "/no/such/folder", "C:\\no\\such"]
)
def test_an_unknown_model_is_refused_with_what_to_do(source: str):
    with pytest.raises(ModelError) as caught:
        architecture_of(source)
    assert source in str(caught.value)
    assert "folder" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"model_type": "no-such-type"}', "\xff"])
def test_a_broken_config_json_is_refused_by_its_path(tmp_path: Path, text: str):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=str(tmp_path)):
        architecture_of(str(tmp_path))


def test_a_folder_without_config_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        architecture_of(str(tmp_path))


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "evil.Config"}}), "utf-8"
    )
    (tmp_path / "evil.py").write_text("raise SystemExit('was run')", "utf-8")
    with pytest.raises(ModelError):
        architecture_of(str(tmp_path))


# ---- adapters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*FAMILIES, "InternLM2"])
@pytest.mark.parametrize(
    "lora",
    [
        LoraSettings(r=3),
        LoraSettings(r=3, adapt_head=True),
        LoraSettings(r=3, variant="rslora"),
        LoraSettings(r=3, variant="pissa"),
    ],
    ids=["plain", "head", "rslora", "pissa"],
)
def test_an_adapter_has_the_numbers_that_peft_makes(family: str, lora: LoraSettings):
    changes = {"tie_word_embeddings": False}
    arch = of_model(model_of(family, **changes), label="", basis="")
    tuned = with_adapter(model_of(family, **changes), lora)
    expected = sum(n for _, n in trainable_parameters(tuned))
    assert sum(n for _, n in lora_parameters(arch, lora)) == expected


def test_dora_trains_a_length_for_each_output_besides():
    lora = LoraSettings(r=3, variant="dora")
    arch = of_model(make_model("Llama"), label="", basis="")
    expected = sum(n for _, n in trainable_parameters(with_adapter(make_model("Llama"), lora)))
    assert sum(n for _, n in lora_parameters(arch, lora)) == expected


@pytest.mark.parametrize(
    "names", [["q_proj"], ["self_attn.q_proj", "down_proj"], ["q_proj", "v_proj"]]
)
def test_only_the_layers_that_are_named_get_an_adapter(names: list[str]):
    lora = LoraSettings(r=2, target_modules=names)
    arch = of_model(make_model("Llama"), label="", basis="")
    expected = sum(n for _, n in trainable_parameters(with_adapter(make_model("Llama"), lora)))
    assert sum(n for _, n in lora_parameters(arch, lora)) == expected


def test_routers_of_experts_get_no_adapter_unless_named():
    linears = (Linear("gate", 8, 4, 2), Linear("q_proj", 8, 8, 2))
    arch = replace(architecture_of("tiny-chat"), linears=linears)
    assert [x.name for x in adapted_linears(arch, LoraSettings())] == ["q_proj"]
    assert [x.name for x in adapted_linears(arch, LoraSettings(target_modules=["gate"]))] == [
        "gate"
    ]


def test_the_article_of_the_seed_gets_its_formula_corrected():
    arch = architecture_of("internlm/internlm2_5-7b-chat")
    parts = {
        linear.name: n for linear, n in lora_parameters(arch, LoraSettings(r=64, adapt_head=True))
    }
    assert parts["wqkv"] == 64 * (4096 + 6144) * 32
    assert parts["w2"] == 64 * (14336 + 4096) * 32
    assert parts["output"] == 64 * (4096 + 92544)
    assert list(parts)[-1] == "output"


def with_adapter(model: Any, lora: LoraSettings) -> Any:
    return add_lora(
        model,
        r=lora.r,
        alpha=lora.lora_alpha,
        dropout=lora.lora_dropout,
        seed=0,
        variant=lora.variant,
        adapt_head=lora.adapt_head,
        target_modules=lora.target_modules,
    )
