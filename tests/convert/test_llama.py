"""InternLM2 written as Llama: plain transformers loads it and computes the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from tests.conftest import SHARED
from tests.convert.adapters import logits, save_adapter, with_adapter
from tests.models import CHAT_TEMPLATE, make_internlm2, save_chat_model, save_internlm2
from tests.sentencepiece_models import SPECIAL, pieces
from whoamai.convert.adapter import read_adapter
from whoamai.convert.llama import with_added_tokens, write_llama_tokenizer
from whoamai.convert.merge import plan_merge, write_merged
from whoamai.errors import ModelError
from whoamai.model.internlm2 import InternLM2ForCausalLM
from whoamai.model.internlm2_tokenizer import load_internlm2_tokenizer
from whoamai.model.sentencepiece_file import PieceKind, parse_sentencepiece
from whoamai.model.stored import StoredModel

REFERENCE = SHARED / "fixtures" / "internlm2" / "sp_tokenizer"
TEXTS = ("<|im_start|>user\n你是谁？<|im_end|>\n", "hello who are you", "  two  spaces, 😀\t\t")


def as_llama(base: Path, out: Path, adapter: Path | None = None, **choices) -> Path:
    out.mkdir()
    read = read_adapter(adapter) if adapter else None
    plan = plan_merge(StoredModel(base), read, to_llama=True, **choices)
    write_merged(plan, out, max_shard_bytes=10**9)
    return out


def load(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bias": True},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"rope_theta": 5e4, "rope_scaling": {"type": "linear", "factor": 3.0}},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 8},
        {"tie_word_embeddings": True},
    ],
    ids=str,
)
def test_the_llama_form_computes_the_same(tmp_path, changes):
    base = save_internlm2(tmp_path / "base", **changes)
    model = InternLM2ForCausalLM.from_pretrained(base, dtype=torch.float32)
    if changes.get("bias"):  # which are zero otherwise
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.data.normal_()
        model.save_pretrained(base)
    llama = load(as_llama(base, tmp_path / "out"))
    assert type(llama) is LlamaForCausalLM
    torch.testing.assert_close(logits(llama), logits(model), atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"bias": "all"}], ids=str)
def test_an_adapter_is_merged_on_the_way(tmp_path, settings):
    base = save_internlm2(tmp_path / "base", bias=True)
    model = make_internlm2(bias=True)
    settings = {"target_modules": ["wqkv", "wo", "w1", "w2", "w3", "output"], **settings}
    adapter = save_adapter(tmp_path / "adapter", model, **settings)
    plain = InternLM2ForCausalLM.from_pretrained(base, dtype=torch.float32)
    wanted = logits(with_adapter(plain, adapter))
    found = logits(load(as_llama(base, tmp_path / "out", adapter)))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_nothing_in_the_folder_asks_for_code(tmp_path):
    base = save_internlm2(tmp_path / "base")
    (base / "modeling_internlm2.py").write_text("raise SystemExit")
    (base / "LICENSE").write_text("MIT")
    out = as_llama(base, tmp_path / "out")
    names = {p.name for p in out.iterdir()}
    assert "LICENSE" in names
    assert not [name for name in names if name.endswith(".py")]
    for file in out.glob("*.json"):
        assert "auto_map" not in file.read_text("utf-8")
        assert "nternLM2" not in file.read_text("utf-8")


def test_the_config_is_read_by_old_and_new_readers(tmp_path):
    scaling = {"type": "dynamic", "factor": 2.0}
    base = save_internlm2(tmp_path / "base", rope_theta=1e6, rope_scaling=scaling)
    config = json.loads((as_llama(base, tmp_path / "out") / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["rope_theta"] == 1e6
    assert config["rope_scaling"] == {**scaling, "rope_type": "dynamic"}
    assert config["torch_dtype"] == "float32"


def test_plain_transformers_reads_the_tokenizer_with_the_same_ids(tmp_path):
    base = save_internlm2(tmp_path / "base", chat_template=CHAT_TEMPLATE)
    own = load_internlm2_tokenizer(base)
    out = as_llama(base, tmp_path / "out")
    found = AutoTokenizer.from_pretrained(out)
    for text in TEXTS:
        assert found(text)["input_ids"] == own(text)["input_ids"]
        assert found.decode(found(text)["input_ids"], skip_special_tokens=True) == own.decode(
            own(text)["input_ids"], skip_special_tokens=True
        )
    asked = [{"role": "user", "content": "hi"}]
    assert found.apply_chat_template(asked, tokenize=False) == own.apply_chat_template(
        asked, tokenize=False
    )
    assert (found.bos_token, found.eos_token) == (own.bos_token, own.eos_token)
    settings = json.loads((out / "tokenizer_config.json").read_text("utf-8"))
    assert settings["chat_template"] == CHAT_TEMPLATE


def test_the_ids_are_those_of_upstream_s_tokenizer(tmp_path):
    if not REFERENCE.is_dir():
        pytest.skip(f"upstream's answers are not at {REFERENCE}")
    upstream = json.loads((REFERENCE / "reference.json").read_text("utf-8"))
    base, out = shutil.copytree(REFERENCE, tmp_path / "base"), tmp_path / "out"
    (base / "config.json").write_text('{"model_type": "internlm2", "vocab_size": 4096}', "utf-8")
    out.mkdir()
    write_llama_tokenizer(base, out)
    found = AutoTokenizer.from_pretrained(out)
    for case in upstream["cases"]:
        text = case["text"]
        assert found(text, add_special_tokens=False)["input_ids"] == case["slow_ids"], text
        assert found(text)["input_ids"] == case["slow_ids_with_special"], text
        decoded = found.decode(case["slow_ids_with_special"], skip_special_tokens=True)
        assert decoded == case["slow_decode_skip_special"]
    talk = [{"role": "system", "content": "S"}, {"role": "user", "content": "你好"}]
    text = found.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert text == upstream["chat_template_text"]


def test_the_sentencepiece_file_has_the_special_tokens_where_they_are(tmp_path):
    base = save_internlm2(tmp_path / "base")
    before = parse_sentencepiece((base / "tokenizer.model").read_bytes()).pieces
    after = parse_sentencepiece((as_llama(base, tmp_path / "out") / "tokenizer.model").read_bytes())
    n, first = len(pieces()), len(pieces()) - len(SPECIAL)
    assert after.pieces[:first] == before[:first]
    assert [(p.text, p.kind) for p in after.pieces[first:n]] == [
        (text, PieceKind.CONTROL) for text in SPECIAL
    ]
    assert len(after.pieces) == n


def test_a_sentencepiece_file_without_added_tokens_stays_as_it_is(tmp_path):
    data = (save_internlm2(tmp_path / "base") / "tokenizer.model").read_bytes()
    assert with_added_tokens(data, {}) == data
    assert with_added_tokens(data, {0: ("<unk>", True), 10**6: ("beyond", True)}) == data


def test_rotary_frequencies_of_early_files_are_left_out(tmp_path):
    from safetensors.torch import load_file, save_file

    base = save_internlm2(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    out = StoredModel(as_llama(base, tmp_path / "out"))
    assert not [name for name in out.tensors if "inv_freq" in name]


def test_only_internlm2_is_written_as_llama(tmp_path):
    base = save_chat_model(tmp_path / "base", "Qwen2")
    with pytest.raises(ModelError, match="of the kind qwen2; only InternLM2"):
        as_llama(base, tmp_path / "out")
