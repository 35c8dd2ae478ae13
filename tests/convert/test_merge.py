"""Merged weights against peft's own computation, and against XTuner's files where they are here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.conftest import SHARED
from tests.convert.adapters import logits, save_adapter, with_adapter
from tests.models import make_gpt2, make_model, make_tokenizer, save_chat_model
from whoamai.convert.adapter import read_adapter
from whoamai.convert.merge import plan_merge, write_merged
from whoamai.errors import ModelError
from whoamai.model.lora import add_lora
from whoamai.model.stored import StoredModel, read_tensors

XTUNER = SHARED / "fixtures" / "xtuner_ckpt"


def load(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def merged(
    base: Path, adapter: Path, out: Path, *, max_shard_bytes: int = 10**9, **choices
) -> Path:
    out.mkdir()
    plan = plan_merge(StoredModel(base), read_adapter(adapter), **choices)
    write_merged(plan, out, max_shard_bytes=max_shard_bytes)
    return out


def same_as_peft(base: Path, adapter: Path, out: Path, *, atol: float = 1e-5, **choices) -> Path:
    """Merge in float32 and compare the reloaded model with peft on the base."""
    folder = merged(base, adapter, out, dtype=torch.float32, **choices)
    with_it = logits(with_adapter(load(base), adapter))
    assert not torch.allclose(with_it, logits(load(base)), atol=100 * atol)
    torch.testing.assert_close(logits(load(folder)), with_it, atol=atol, rtol=0)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "qwen2", "Qwen2")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 6}},
        {"alpha_pattern": {"down_proj": 3, "self_attn.o_proj": 1.5}},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "norm"]},
        {"target_modules": ["v_proj"], "bias": "all"},
        {"target_modules": ["q_proj", "k_proj"], "lora_bias": True},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ],
    ids=str,
)
def test_every_form_of_lora_is_merged_as_peft_computes_it(qwen, tmp_path, settings):
    adapter = save_adapter(tmp_path / "adapter", load(qwen), **settings)
    same_as_peft(qwen, adapter, tmp_path / "out")


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "pissa"])
def test_every_variant_we_train_is_merged(qwen, tmp_path, variant):
    tuned = add_lora(load(qwen), r=3, alpha=6, dropout=0.0, seed=0, variant=variant)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name and parameter.requires_grad:
            parameter.data.add_(0.03 * torch.randn_like(parameter))
    tuned.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    same_as_peft(qwen, tmp_path / "adapter", tmp_path / "out")


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}], ids=str)
def test_layers_that_hold_their_weights_transposed_are_merged(tmp_path, settings):
    base = tmp_path / "base"
    make_gpt2().save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    adapter = save_adapter(
        tmp_path / "adapter",
        load(base),
        target_modules=["c_attn", "c_proj"],
        fan_in_fan_out=True,
        **settings,
    )
    same_as_peft(base, adapter, tmp_path / "out")


def test_files_whose_names_lack_the_first_part_are_found(tmp_path):
    """GPT-2's own file on the hub calls "transformer.h.0" just "h.0"."""
    base = tmp_path / "base"
    make_gpt2().save_pretrained(base)
    adapter = save_adapter(
        tmp_path / "adapter", load(base), target_modules=["c_fc"], fan_in_fan_out=True
    )
    file = base / "model.safetensors"
    shorter = {n.removeprefix("transformer."): t.clone() for n, t in load_file(file).items()}
    save_file(shorter, file, metadata={"format": "pt"})
    same_as_peft(base, adapter, tmp_path / "out")


# ---- head and embeddings -------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_change_of_one_of_two_tied_weights_unties_them(tmp_path, module, whole):
    base = save_chat_model(tmp_path / "base", "Llama", tie_word_embeddings=True)
    settings: dict[str, Any] = {"target_modules": ["q_proj", module]}
    if whole:
        settings = {"target_modules": ["q_proj"], "modules_to_save": [module]}
    adapter = save_adapter(tmp_path / "adapter", load(base), **settings)
    out = same_as_peft(base, adapter, tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    assert "lm_head.weight" in StoredModel(out).tensors
    plan = plan_merge(StoredModel(base), read_adapter(adapter))
    assert any("written apart" in note for note in plan.notes)


def test_tied_weights_that_nothing_changes_stay_tied(tmp_path):
    base = save_chat_model(tmp_path / "base", "Llama", tie_word_embeddings=True)
    adapter = save_adapter(tmp_path / "adapter", load(base))
    out = same_as_peft(base, adapter, tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is True
    assert "lm_head.weight" not in StoredModel(out).tensors


# ---- what is written -----------------------------------------------------------------------------


def test_small_files_and_one_large_file_hold_the_same(qwen, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", load(qwen))
    one = merged(qwen, adapter, tmp_path / "one")
    many = merged(qwen, adapter, tmp_path / "many", max_shard_bytes=20_000)
    files = sorted(many.glob("*.safetensors"))
    index = json.loads((many / "model.safetensors.index.json").read_text())
    assert len(files) > 3
    assert {f.name for f in files} == set(index["weight_map"].values())
    pieces = {}
    for file in files:
        found = load_file(file)
        sizes = [t.nbytes for t in found.values()]
        assert sum(sizes) <= 20_000 or len(sizes) == 1
        pieces |= found
    whole = load_file(one / "model.safetensors")
    assert pieces.keys() == whole.keys() == index["weight_map"].keys()
    assert all(torch.equal(pieces[name], whole[name]) for name in whole)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    assert torch.equal(logits(load(many)), logits(load(one)))


def test_tensors_of_several_formats_lie_in_one_file(tmp_path):
    base = save_chat_model(tmp_path / "base", "Llama")
    tensors = load_file(base / "model.safetensors")
    mixed = {n: t if "norm" in n else t.bfloat16() for n, t in tensors.items()}
    mixed["one.number"] = torch.tensor(7)
    save_file(mixed, base / "model.safetensors", metadata={"format": "pt"})
    adapter = save_adapter(tmp_path / "adapter", make_model("Llama"))
    found = load_file(merged(base, adapter, tmp_path / "out") / "model.safetensors")
    assert {n: t.dtype for n, t in found.items()} == {n: t.dtype for n, t in mixed.items()}
    assert found["one.number"] == 7


def test_the_sum_is_made_in_float32_and_rounded_once(tmp_path):
    base = save_chat_model(tmp_path / "base", "Llama", dtype=torch.bfloat16)
    adapter = save_adapter(tmp_path / "adapter", make_model("Llama"))
    found = load_file(merged(base, adapter, tmp_path / "out") / "model.safetensors")
    before, a = (
        load_file(base / "model.safetensors"),
        load_file(adapter / "adapter_model.safetensors"),
    )
    name = "model.layers.0.mlp.up_proj"
    part = f"base_model.model.{name}.lora_"
    delta = 8 / 4 * a[f"{part}B.weight"].float() @ a[f"{part}A.weight"].float()
    wanted = (before[f"{name}.weight"].float() + delta).bfloat16()
    assert torch.equal(found[f"{name}.weight"], wanted)


def test_the_config_says_the_format_that_was_written(qwen, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", load(qwen))
    out = merged(qwen, adapter, tmp_path / "out", dtype=torch.float16)
    config = json.loads((out / "config.json").read_text())
    assert (config.get("dtype") or config.get("torch_dtype")) == "float16"
    assert {t.dtype for t in StoredModel(out).tensors.values()} == {torch.float16}


def test_numbers_beyond_the_format_are_refused(tmp_path):
    base = save_chat_model(tmp_path / "base", "Llama", dtype=torch.bfloat16)
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    adapter = save_adapter(tmp_path / "adapter", make_model("Llama"))
    with pytest.raises(ModelError, match=r"up_proj.*float16 has not"):
        merged(base, adapter, tmp_path / "out", dtype=torch.float16)


def test_every_other_file_of_the_base_goes_along(qwen, tmp_path):
    base = shutil.copytree(qwen, tmp_path / "base")
    (base / "modeling_own.py").write_text("raise SystemExit")
    (base / "inner").mkdir()
    (base / "inner" / "notes.txt").write_text("hello")
    for name in (".hidden", "model.gguf", "tf_model.h5", "consolidated.00.pth"):
        (base / name).write_bytes(b"x")
    adapter = save_adapter(tmp_path / "adapter", load(qwen))
    out = merged(base, adapter, tmp_path / "out")
    assert (out / "modeling_own.py").read_text() == "raise SystemExit"
    assert (out / "inner" / "notes.txt").read_text() == "hello"
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert {p.name for p in out.iterdir()} == {
        *(p.name for p in qwen.iterdir()),
        "modeling_own.py",
        "inner",
    }


def test_pytorch_files_are_read_one_after_the_other(qwen, tmp_path):
    base = shutil.copytree(qwen, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names = list(tensors)
    halves = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for file, part in halves.items():
        torch.save({n: tensors[n] for n in part}, base / file)
    places = {n: file for file, part in halves.items() for n in part}
    index = base / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    adapter = save_adapter(tmp_path / "adapter", load(qwen))
    file = adapter / "adapter_model.safetensors"
    torch.save(load_file(file), adapter / "adapter_model.bin")
    expected = merged(qwen, adapter, tmp_path / "expected")
    file.unlink()
    out = merged(base, adapter, tmp_path / "out")
    assert not list(out.glob("*.bin*"))
    a, b = (load_file(f / "model.safetensors") for f in (out, expected))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[n], b[n]) for n in a)


# ---- what is refused -----------------------------------------------------------------------------


class _Malicious:
    """Reading it would make the file `trace`."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self):
        import os

        return os.system, (f"touch '{self._trace}'",)


@pytest.mark.parametrize("place", ["base", "adapter"])
def test_a_pickle_that_asks_for_more_is_refused_by_name(qwen, tmp_path, place):
    trace = tmp_path / "was_run"
    base = shutil.copytree(qwen, tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", load(qwen))
    if place == "base":
        (base / "model.safetensors").unlink()
        torch.save({"x": _Malicious(trace)}, base / "pytorch_model.bin")
    else:
        (adapter / "adapter_model.safetensors").unlink()
        torch.save({"x": _Malicious(trace)}, adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"would call (posix|nt)\.system.*Nothing was run"):
        merged(base, adapter, tmp_path / "out")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"hello, I am text and no weights at all"])
def test_files_that_are_no_weights_are_named(qwen, tmp_path, name, content):
    base = shutil.copytree(qwen, tmp_path / "base")
    (base / "model.safetensors").unlink()
    (base / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} cannot be read; it may be cut off"):
        StoredModel(base)


def test_a_file_that_was_cut_off_is_named(qwen, tmp_path):
    base = shutil.copytree(qwen, tmp_path / "base")
    whole = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read; it may be cut off"):
        StoredModel(base)


def test_files_that_an_index_names_must_be_there(qwen, tmp_path):
    base = shutil.copytree(qwen, tmp_path / "base")
    places = {"weight_map": {"a": "model-1.safetensors", "b": "model.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(places))
    with pytest.raises(ModelError, match=r"model-1\.safetensors\. Was the download finished"):
        StoredModel(base)


def test_an_adapter_for_other_layers_is_refused_by_their_names(qwen, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", make_gpt2(), target_modules=["c_attn"])
    with pytest.raises(
        ModelError, match=r"does not belong to this model: the model has no .*c_attn"
    ):
        merged(qwen, adapter, tmp_path / "out")


def test_an_adapter_for_layers_of_other_sizes_is_refused_with_both(qwen, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", make_model("Qwen2", intermediate_size=48))
    with pytest.raises(
        ModelError, match=r"down_proj.weight is 32 × 64 in the model and 32 × 48 in"
    ):
        merged(qwen, adapter, tmp_path / "out")


def test_a_quantized_base_is_refused(qwen, tmp_path):
    base = shutil.copytree(qwen, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (base / "config.json").write_text(json.dumps(config))
    adapter = save_adapter(tmp_path / "adapter", load(qwen))
    with pytest.raises(ModelError, match=r"quantized \(gptq\).*in 16 bits"):
        merged(base, adapter, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type is IA3"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights: pissa_niter_4"),
        ({"layer_replication": [[0, 1]]}, r"layer_replication: \[\[0, 1\]\]"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"something_of_tomorrow": {"a": 1}}, "something_of_tomorrow"),
        ({"r": 0}, "r in adapter_config.json is 0"),
        ({"r": 8}, "has the rank 4, adapter_config.json says 8"),
        ({"alpha_pattern": {"(": 1}}, "no regular expression"),
        ({"use_dora": True}, "lacks lora_magnitude_vector"),
    ],
    ids=str,
)
def test_what_is_not_known_of_an_adapter_is_refused_by_name(qwen, tmp_path, change, said):
    adapter = save_adapter(tmp_path / "adapter", load(qwen), target_modules=["q_proj"])
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelError, match=said):
        read_adapter(adapter)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t, n: t.pop(f"{n}.lora_A.weight"), "q_proj lacks lora_A"),
        (lambda t, n: t.update({f"{n}.lora_C.weight": torch.ones(1)}), r"not known: .*lora_C"),
        (lambda t, n: t[f"{n}.lora_A.weight"].fill_(float("nan")), "not finite"),
        (lambda t, _: t.clear(), "holds no tensors"),
    ],
)
def test_tensors_that_make_no_adapter_are_refused(qwen, tmp_path, edit, said):
    adapter = save_adapter(tmp_path / "adapter", load(qwen), target_modules=["q_proj"])
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    edit(tensors, "base_model.model.model.layers.0.self_attn.q_proj")
    save_file(tensors, file)
    with pytest.raises(ModelError, match=said):
        read_adapter(adapter)


# ---- XTuner's own files --------------------------------------------------------------------------


def test_the_merge_equals_what_xtuner_wrote(tmp_path):
    if not XTUNER.is_dir():
        pytest.skip(f"XTuner's files are not at {XTUNER}")
    adapter = read_adapter(XTUNER / "plain" / "hf_fp16")
    out = merged(XTUNER / "base", adapter.folder, tmp_path / "out", dtype=torch.float16)
    ours = load_file(out / "model.safetensors")
    theirs = read_tensors(XTUNER / "plain" / "merged" / "pytorch_model.bin")
    base = load_file(XTUNER / "base" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        difference = ours[name].float() - tensor.float()
        assert difference.abs().max() <= 1e-2
        if name in adapter.changes:
            change = tensor.float() - base[name].float()
            assert difference.norm() < 0.15 * change.norm()
