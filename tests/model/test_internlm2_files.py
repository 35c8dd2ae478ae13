from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.model.internlm2_forms import DYNAMIC, FORMS, LINEAR, close, ids_of, logits, model_of
from tests.models import save_internlm2
from whoamai.errors import ModelError
from whoamai.model.internlm2 import (
    InternLM2Config,
    InternLM2ForCausalLM,
    InternLM2Model,
    InternLM2RotaryEmbedding,
    join_wqkv,
    register_internlm2,
    split_wqkv,
)

# Its keys are upstream's and transformers', which a type checker does not see.
Config: Any = InternLM2Config


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_internlm2()


# ---- files ---------------------------------------------------------------------------------------


def test_saved_weights_have_upstreams_names_and_load_again(tmp_path: Path):
    model = model_of(bias=True, rope_scaling=DYNAMIC)
    model.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    layer = {
        f"model.layers.0.{name}"
        for name in (
            *("attention.wqkv.weight", "attention.wqkv.bias", "attention.wo.weight"),
            *("attention.wo.bias", "attention_norm.weight", "ffn_norm.weight"),
            *(f"feed_forward.w{number}.weight" for number in (1, 2, 3)),
        )
    }
    assert {name for name in names if ".layers.0." in name} == layer
    assert {name for name in names if ".layers." not in name} == {
        *("model.tok_embeddings.weight", "model.norm.weight", "output.weight")
    }
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is InternLM2ForCausalLM
    (ids,) = ids_of(30)
    assert np.array_equal(logits(again.eval(), ids), logits(model, ids))
    assert type(AutoModel.from_pretrained(tmp_path)) is InternLM2Model


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_in_several_files_are_loaded(tmp_path: Path, kind: str):
    """As upstream's folders have them; early ones also hold the rotary frequencies."""
    model = model_of()
    model.config.save_pretrained(tmp_path)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    weights["model.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(4)
    names, place = sorted(weights), {}
    stem = "model" if kind == "safetensors" else "pytorch_model"
    for number in range(2):
        file = f"{stem}-0000{number + 1}-of-00002.{kind}"
        part = {name: weights[name] for name in names[number::2]}
        (save_file if kind == "safetensors" else torch.save)(part, tmp_path / file)
        place |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": place}
    (tmp_path / f"{stem}.{kind}.index.json").write_text(json.dumps(index))
    loading: Any = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    again, info = loading
    assert not any(info.values())
    (ids,) = ids_of(10)
    assert np.array_equal(logits(again.eval(), ids), logits(model, ids))


def test_tied_embeddings_are_one_matrix_after_loading(tmp_path: Path):
    model_of(tie_word_embeddings=True).save_pretrained(tmp_path)
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.output.weight is again.model.tok_embeddings.weight
    model_of(tie_word_embeddings=False).save_pretrained(tmp_path)
    apart: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not torch.equal(apart.output.weight, apart.model.tok_embeddings.weight)


def test_code_in_the_folder_is_not_run_and_its_slow_attention_not_taken(tmp_path: Path):
    folder = save_internlm2(tmp_path / "m")
    for name in ("configuration", "modeling"):
        (folder / f"{name}_internlm2.py").write_text("raise SystemExit('it was run')")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is InternLM2ForCausalLM
    assert model.config._attn_implementation == "sdpa"
    asked = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    assert asked.config._attn_implementation == "eager"


def test_a_model_on_no_device_gets_its_weights_and_angles_when_loaded(tmp_path: Path):
    """Loading builds the model without memory first; nothing may be left unset."""
    model = model_of(rope_scaling=LINEAR)
    model.save_pretrained(tmp_path)
    with torch.device("meta"):
        empty = InternLM2ForCausalLM(model.config)
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    assert not list(empty.buffers())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


# ---- configs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", [None, LINEAR, DYNAMIC])
def test_upstreams_rope_keys_are_read_and_written(tmp_path: Path, scaling: dict | None):
    config = Config(rope_theta=1000000, rope_scaling=scaling, attn_implementation="eager")
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["rope_theta"], written["rope_scaling"]) == (1000000, scaling)
    assert "rope_parameters" not in written
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.rope_parameters == config.rope_parameters
    assert type(again) is InternLM2Config
    assert again.rope_scaling == scaling
    assert LINEAR == {"type": "linear", "factor": 3.0}  # a dictionary that is read stays as it is


def test_rope_may_be_changed_in_a_config_that_is_there():
    config = Config(rope_theta=1000000, rope_scaling=LINEAR)
    config.rope_scaling = DYNAMIC
    assert config.rope_parameters == {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1000000}
    config.rope_scaling = None
    config.rope_theta = 5000
    assert (config.rope_scaling, config.rope_theta) == (None, 5000)
    with pytest.raises(ModelError, match="yarn"):
        config.rope_scaling = {"type": "yarn", "factor": 2.0}


def test_transformers_own_rope_keys_are_read_too():
    given = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 5e5}
    config = InternLM2Config(rope_parameters=given)
    assert config.rope_parameters == given
    assert config.to_dict()["rope_scaling"] == DYNAMIC


def test_defaults_are_upstreams():
    config = InternLM2Config()
    assert (config.bias, config.num_key_value_heads, config.tie_word_embeddings) == (
        True,
        32,
        False,
    )
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}


def test_all_that_is_wrong_with_a_config_is_told_at_once():
    with pytest.raises(ModelError) as error:
        Config(
            hidden_size=30,
            num_attention_heads=4,
            num_key_value_heads=3,
            rope_scaling={"type": "yarn", "factor": 2.0},
        )
    for part in ("config.json", "hidden_size 30", "num_key_value_heads 3", '"yarn"'):
        assert part in str(error.value)


def test_a_config_that_cannot_be_used_is_named(tmp_path: Path):
    folder = save_internlm2(tmp_path / "chu")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_scaling": {"type": "yarn"}}))
    with pytest.raises(ModelError, match="chu cannot be used"):
        AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("factor", [None, 0.5, "2"])
def test_a_factor_that_is_no_scale_is_refused(factor: object):
    with pytest.raises(ModelError, match="factor of rope_scaling"):
        Config(rope_scaling={"type": "linear", "factor": factor})


def test_angles_of_the_plain_rope_are_llamas():
    config = InternLM2Config(hidden_size=32, num_attention_heads=4, num_key_value_heads=2)
    llama = LlamaForCausalLM(LlamaConfig(**_llama_sizes(config))).model.rotary_emb
    x, positions = torch.zeros(1, 9, 32), torch.arange(9)[None]
    ours = InternLM2RotaryEmbedding(config)(x, positions)
    for found, expected in zip(ours, llama(x, positions), strict=True):
        torch.testing.assert_close(found, expected)


# ---- as Llama has it -----------------------------------------------------------------------------


def _llama_sizes(config: InternLM2Config) -> dict:
    same = (
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "rms_norm_eps",
        "vocab_size",
    )
    sizes = {key: getattr(config, key) for key in same}
    return {**sizes, "intermediate_size": 64, "num_hidden_layers": 2, "attention_bias": config.bias}


@pytest.mark.parametrize("form", ["grouped heads", "bias", "as many key-value heads as heads"])
def test_split_wqkv_makes_a_stock_llama_of_the_same_logits(form: str):
    model = model_of(**FORMS[form])
    config, own = model.config, model.state_dict()
    llama = LlamaForCausalLM(LlamaConfig(**_llama_sizes(config))).eval()
    theirs = llama.state_dict()
    rest = {"feed_forward.w1": "mlp.gate_proj", "feed_forward.w3": "mlp.up_proj"}
    rest |= {"feed_forward.w2": "mlp.down_proj", "attention.wo": "self_attn.o_proj"}
    rest |= {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    rest |= {"tok_embeddings": "embed_tokens", "output": "lm_head"}
    for name, value in own.items():
        if "wqkv" in name:
            for part, rows in zip("qkv", split_wqkv(value, config), strict=True):
                theirs[name.replace("attention.wqkv", f"self_attn.{part}_proj")] = rows
            continue
        stock = next((name.replace(a, b) for a, b in rest.items() if a in name), name)
        assert stock in theirs
        theirs[stock] = value
    llama.load_state_dict(theirs, assign=True)
    (ids,) = ids_of(20)
    close(logits(llama, ids), logits(model, ids), atol=2e-5)


@pytest.mark.parametrize("shape", [(32,), (64, 32), (64, 5)])
def test_join_wqkv_undoes_split_wqkv(shape: tuple[int, ...]):
    config = InternLM2Config(hidden_size=32, num_attention_heads=4, num_key_value_heads=2)
    wqkv = torch.randn(64, *shape[1:])
    query, key, value = split_wqkv(wqkv, config)
    assert (len(query), len(key), len(value)) == (32, 16, 16)
    assert torch.equal(key[:8], wqkv[16:24])  # the first group: two heads of eight, key, value
    assert torch.equal(join_wqkv(query, key, value, config), wqkv)


def test_a_wqkv_of_another_model_is_refused():
    config = InternLM2Config(hidden_size=32, num_attention_heads=4, num_key_value_heads=2)
    with pytest.raises(ModelError, match="60 rows"):
        split_wqkv(torch.zeros(60, 32), config)
