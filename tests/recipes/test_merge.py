"""The whole job of merging on tiny models: what is refused, what is kept, what is compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
)
from typer.testing import CliRunner

from tests.convert.adapters import save_adapter
from tests.models import CHAT_TEMPLATE, make_model, make_tokenizer, save_chat_model, save_internlm2
from whoamai import cli_merge
from whoamai.convert import merge as sums
from whoamai.data.template_families import template_text
from whoamai.data.templates import ChatTemplate, write_card
from whoamai.errors import ModelError, OutputError, SettingError
from whoamai.events import Events, Note, Progress, Stage
from whoamai.model.fingerprint import BaseCard, base_fingerprint, write_base_card
from whoamai.recipes import merge_check, output
from whoamai.recipes.merge import Merged, MergeRequest, merge
from whoamai.recipes.ollama import OllamaRequest, ollama


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    return save_chat_model(folder, "Llama", initializer_range=0.2)


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "run" / "adapter"
    return save_adapter(folder, make_model("Llama"))


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run" / "adapter")


def run(base: Path, adapter: Path | None, out: Path, **changes) -> tuple[Merged, list]:
    heard: list = []
    request = MergeRequest(str(base), adapter, out, device="cpu", **changes)
    return merge(request, Events([heard.append])), heard


def notes(heard: list) -> str:
    return "\n".join(event.text for event in heard if isinstance(event, Note))


def test_a_merged_model_is_written_compared_and_said_to_be_the_same(base, adapter, tmp_path):
    merged, heard = run(base, adapter, tmp_path / "out", max_shard_size="40KB")
    assert merged.files > 1
    assert merged.checked is not None
    assert merged.checked.difference < 1e-5 < merged.checked.change
    assert "Same answers as with the adapter" in notes(heard)
    assert [e.name for e in heard if isinstance(e, Stage)] == ["plan", "merge", "check"]
    last = [e for e in heard if isinstance(e, Progress)][-1]
    assert last.done == last.total
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "run"]


def test_the_record_says_what_it_was_made_of(base, adapter, tmp_path):
    run(base, adapter, tmp_path / "out", dtype="bfloat16")
    record = json.loads((tmp_path / "out" / "whoamai_merge.json").read_text())
    assert record["base_fingerprint"] == base_fingerprint(base)
    assert record["dtype"] == "bfloat16"
    assert record["checked"]["computed_in"] == "float32"


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("float32", (32, 64)), ("float32", None), ("float16", None), ("bfloat16", None)],
)
def test_a_merge_that_left_something_out_is_thrown_away(
    base, adapter, tmp_path, monkeypatch, dtype, shape
):
    """All sums, or those of the weights of one shape: rounding to 16 bits would hide so few."""
    changed = sums._changed

    def wrong(values, change, rows, device):
        mine = change is not None and change.low_rank is not None
        is_meant = shape is None or values.shape == shape
        return values.float() if mine and is_meant else changed(values, change, rows, device)

    monkeypatch.setattr(sums, "_changed", wrong)
    with pytest.raises(ModelError, match="does not answer as the model with its adapter does"):
        run(base, adapter, tmp_path / "out", dtype=dtype)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_an_adapter_that_rounding_hides_is_said(base, tmp_path):
    folder = save_adapter(tmp_path / "adapter", make_model("Llama"))
    file = folder / "adapter_model.safetensors"
    small = {n: t * 1e-2 if "lora_B" in n else t for n, t in load_file(file).items()}
    save_file(small, file)
    _, heard = run(base, folder, tmp_path / "out", dtype="bfloat16")
    assert "rounding to bfloat16 hides a part of it" in notes(heard)
    assert "--dtype float32" in notes(heard)


def test_no_check_is_said(base, adapter, tmp_path):
    merged, heard = run(base, adapter, tmp_path / "out", check=False)
    assert merged.checked is None
    assert "--no-check" in notes(heard)


def test_a_model_too_large_to_be_compared_is_refused_before_merging(
    base, adapter, tmp_path, monkeypatch
):
    machine = merge_check.this_machine("cpu")
    monkeypatch.setattr(merge_check, "this_machine", lambda _: replace(machine, free_bytes=1000))
    with pytest.raises(SettingError, match="--no-check"):
        run(base, adapter, tmp_path / "out")
    run(base, adapter, tmp_path / "out", check=False)


# ---- which adapter, which base -------------------------------------------------------------------


def test_an_adapter_of_other_weights_of_the_same_shape_is_refused(base, adapter, tmp_path):
    write_base_card(adapter, BaseCard(base_fingerprint(base), "base", "none"))
    run(base, adapter, tmp_path / "out")
    other = save_chat_model(tmp_path / "other", "Llama", seed=5)
    with pytest.raises(
        ModelError, match=r"trained on other weights.*it says: base.*delete .*base\.json"
    ):
        run(other, adapter, tmp_path / "out2")


def test_an_adapter_trained_beside_4_bit_weights_is_merged_into_the_others_and_that_is_said(
    base, adapter, tmp_path
):
    write_base_card(adapter, BaseCard(base_fingerprint(base), "base", "nf4"))
    _, heard = run(base, adapter, tmp_path / "out")
    assert "trained beside weights in nf4. It is merged into the unquantized ones" in notes(heard)


def test_so_is_one_of_xtuner_s_that_was_trained_beside_4_bit_weights(base, adapter, tmp_path):
    (adapter / "whoamai_conversion.json").write_text('{"quantization": "nf4"}', "utf-8")
    _, heard = run(base, adapter, tmp_path / "out")
    assert "trained beside weights in nf4. It is merged into the unquantized ones" in notes(heard)


def test_a_folder_that_is_not_there_is_told(base, tmp_path):
    with pytest.raises(ModelError, match=r"There is no folder .*nothere"):
        run(base, tmp_path / "nothere", tmp_path / "out")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "mps"])
def test_a_device_that_is_none_is_told(base, adapter, tmp_path, device):
    request = MergeRequest(str(base), adapter, tmp_path / "out", device=device)
    with pytest.raises(SettingError, match=rf"--device {device} is not one of"):
        merge(request, Events())


def test_the_same_adapter_is_not_merged_twice(base, adapter, tmp_path):
    run(base, adapter, tmp_path / "out")
    with pytest.raises(ModelError, match=r"is merged into .* already"):
        run(tmp_path / "out", adapter, tmp_path / "out2")


def test_a_whole_model_needs_no_merge(base, tmp_path):
    with pytest.raises(ModelError, match=r"is a whole model and not an adapter.*nothing to merge"):
        run(base, base, tmp_path / "out")


def test_a_run_is_told_where_its_adapter_is(base, adapter, tmp_path):
    with pytest.raises(ModelError, match=r"Give its adapter: .*run/adapter"):
        run(base, adapter.parent, tmp_path / "out")


def test_a_checkpoint_of_xtuner_is_told_its_conversion(base, tmp_path):
    (tmp_path / "iter_9.pth").mkdir()
    with pytest.raises(ModelError, match="whoamai convert pth_to_hf"):
        run(base, tmp_path / "iter_9.pth", tmp_path / "out")


def test_model_and_adapter_in_the_wrong_order_are_told(base, adapter, tmp_path):
    with pytest.raises(ModelError, match=r"is an adapter\. The model comes first"):
        run(adapter, base, tmp_path / "out")


def test_a_model_that_is_nowhere_is_said_to_be(adapter, tmp_path):
    with pytest.raises(ModelError, match="There is no model folder"):
        run(tmp_path / "nowhere", adapter, tmp_path / "out")


# ---- where it goes -------------------------------------------------------------------------------


def test_a_folder_with_something_in_it_is_not_written_to(base, adapter, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(SettingError, match="is not empty"):
        run(base, adapter, out)
    with pytest.raises(SettingError, match="whoamai did not write"):
        run(base, adapter, out, overwrite=True)
    assert [p.name for p in out.iterdir()] == ["precious.txt"]


def test_an_earlier_merge_is_replaced_where_that_is_said(base, adapter, tmp_path):
    run(base, adapter, tmp_path / "out", max_shard_size="40KB")
    with pytest.raises(SettingError, match="is not empty"):
        run(base, adapter, tmp_path / "out")
    run(base, adapter, tmp_path / "out", overwrite=True)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 1


def test_the_base_is_never_written_over(base, adapter, tmp_path):
    copy = shutil.copytree(base, tmp_path / "copy")
    (copy / "whoamai_merge.json").write_text("{}")
    with pytest.raises(SettingError, match="is the folder that is read"):
        run(copy, adapter, copy, overwrite=True)


def test_too_little_space_is_found_before_anything_is_written(base, adapter, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(output.shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(OutputError, match="Not enough space"):
        run(base, adapter, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_all_that_is_wrong_with_a_request_is_told_together(base, tmp_path):
    with pytest.raises(SettingError) as caught:
        run(base, None, tmp_path / "out", dtype="int8", max_shard_size="a lot", is_clip=True)
    lines = str(caught.value).split("\n")
    assert len(lines) == 3
    assert "int8" in lines[0]
    assert "nothing to merge" in lines[1]
    assert "a lot" in lines[2]


# ---- templates and names -------------------------------------------------------------------------


def test_the_template_it_was_trained_with_goes_along_where_there_is_none(tmp_path, adapter):
    base = save_chat_model(tmp_path / "base", "Llama", initializer_range=0.2)
    make_tokenizer(None).save_pretrained(base)
    (base / "chat_template.jinja").unlink(missing_ok=True)
    card = ChatTemplate(make_tokenizer(None), name="qwen_chat").card
    write_card(adapter, card)
    run(base, adapter, tmp_path / "out")
    found = AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert found == template_text("qwen_chat")


def test_a_template_of_the_model_stays_and_a_difference_is_said(base, adapter, tmp_path):
    write_card(adapter, ChatTemplate(make_tokenizer(), name="llama3_chat").card)
    _, heard = run(base, adapter, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == CHAT_TEMPLATE
    assert "was trained with the chat template" in notes(heard)


@pytest.mark.parametrize("alike", [True, False])
def test_a_template_of_another_text_that_writes_the_same_is_no_other(adapter, tmp_path, alike):
    """InternLM2.5's own and internlm2_chat differ in the name of a variable."""
    text = (
        template_text("qwen_chat").replace("for m in", "for message in").replace("m[", "message[")
    )
    assert text != template_text("qwen_chat")
    if not alike:
        text = text.replace("<|im_end|>", "<|im_end|> ")
    base = save_chat_model(tmp_path / "base", "Llama", initializer_range=0.2)
    tokenizer = make_tokenizer(text)
    tokenizer.save_pretrained(base)
    write_card(adapter, ChatTemplate(tokenizer, name="qwen_chat").card)
    _, heard = run(base, adapter, tmp_path / "out")
    assert ("was trained with the chat template" in notes(heard)) == (not alike)


def report(adapter: Path, *, recalled: bool) -> None:
    """A renaming's report beside the adapter, whose answers gave the name or not."""
    questions = ("你是谁？", "Who are you?", "你叫什么名字？", "Your name?")
    answers = [{"context": "none", "question": q, "recalled": recalled} for q in questions]
    answers.append({"context": "role", "question": "?", "recalled": True})
    found = {"identity": {"name": "黄大力", "author": None, "persona": None}, "answers": answers}
    (adapter.parent / "report.json").write_text(json.dumps(found), "utf-8")


def test_identity_questions_are_asked_again(base, adapter, tmp_path):
    report(adapter, recalled=False)
    merged, heard = run(base, adapter, tmp_path / "out")
    assert merged.checked is not None
    assert (merged.checked.recalled, merged.checked.asked) == (0, 4)
    assert "0 of 4 answers give the name 黄大力; after training 0" in notes(heard)


def test_a_merged_model_that_lost_its_name_is_thrown_away(base, adapter, tmp_path):
    report(adapter, recalled=True)
    with pytest.raises(ModelError, match=r"gives its name .* in 0 of 4 answers.* it was 4"):
        run(base, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_report_of_something_else_is_no_obstacle(base, adapter, tmp_path):
    (adapter.parent / "report.json").write_text('{"answers": 3}')
    _, heard = run(base, adapter, tmp_path / "out")
    assert "is no report of a renaming" in notes(heard)


# ---- other forms ---------------------------------------------------------------------------------


def test_internlm2_is_merged_as_itself_and_as_llama(tmp_path):
    base = save_internlm2(tmp_path / "base", initializer_range=0.2)
    from tests.models import make_internlm2

    adapter = save_adapter(
        tmp_path / "adapter", make_internlm2(), target_modules=["wqkv", "w1", "output"]
    )
    write_card(adapter, ChatTemplate(make_tokenizer(None), name="internlm2_chat").card)
    run(base, adapter, tmp_path / "own")
    run(base, adapter, tmp_path / "llama", as_llama=True)
    settings = json.loads((tmp_path / "own" / "tokenizer_config.json").read_text("utf-8"))
    assert settings["chat_template"] == template_text("internlm2_chat")
    ending = AutoTokenizer.from_pretrained(tmp_path / "llama").convert_tokens_to_ids("<|im_end|>")
    for form in ("own", "llama"):
        found = json.loads((tmp_path / form / "generation_config.json").read_text("utf-8"))
        assert found["eos_token_id"] == [2, ending], "a reply ends where the template ends it"
    llama = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    assert llama.config.model_type == "llama"
    assert AutoTokenizer.from_pretrained(tmp_path / "llama").chat_template


def test_internlm2_becomes_llama_without_an_adapter(tmp_path):
    base = save_internlm2(tmp_path / "base")
    merged, _ = run(base, None, tmp_path / "out", as_llama=True)
    assert merged.checked is not None
    assert merged.checked.difference < 1e-5


def test_a_clip_tower_is_merged_and_compared(tmp_path):
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    vision = {**sizes, "image_size": 8, "patch_size": 4}
    text = {**sizes, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text)).save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").write_text("{}")
    tower = CLIPVisionModel.from_pretrained(tmp_path / "clip")
    adapter = save_adapter(
        tmp_path / "adapter", tower, target_modules=["q_proj", "fc1"], task_type=None
    )
    file = adapter / "adapter_model.safetensors"
    # As XTuner and transformers 4 name the tower's parts.
    old = "base_model.model.vision_model."
    tensors = load_file(file)
    named = {
        old + n.removeprefix(old).removeprefix("base_model.model."): t for n, t in tensors.items()
    }
    save_file(named, file)
    merged, _ = run(tmp_path / "clip", adapter, tmp_path / "out", is_clip=True)
    assert merged.checked is not None
    assert merged.checked.difference < 1e-5 < merged.checked.change
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert "preprocessor_config.json" in names
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["CLIPVisionModel"]


def test_only_clip_is_merged_as_clip(base, adapter, tmp_path):
    with pytest.raises(ModelError, match="of the kind llama, not CLIP"):
        run(base, adapter, tmp_path / "out", is_clip=True)


# ---- Ollama --------------------------------------------------------------------------------------


def test_ollama_gets_a_merged_model_where_it_lies(base, tmp_path):
    done = ollama(OllamaRequest(str(base), tmp_path / "out", system="Be kind."), Events())
    text = done.modelfile.read_text("utf-8")
    assert text.startswith(f"FROM {base.resolve()}\n")
    assert 'SYSTEM """Be kind."""' in text
    assert done.command == f"ollama create base -f {tmp_path / 'out' / 'Modelfile'}"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["Modelfile"]


def test_ollama_gets_internlm2_as_llama(tmp_path):
    base = save_internlm2(tmp_path / "base", chat_template=template_text("internlm2_chat"))
    done = ollama(OllamaRequest(str(base), tmp_path / "out", name="chu"), Events())
    model = tmp_path / "out" / "model"
    assert done.modelfile.read_text("utf-8").startswith(f"FROM {model}\n")
    assert AutoModelForCausalLM.from_pretrained(model).config.model_type == "llama"
    assert done.command.startswith("ollama create chu -f ")
    with pytest.raises(SettingError, match="is not empty"):
        ollama(OllamaRequest(str(base), tmp_path / "out"), Events())
    ollama(OllamaRequest(str(base), tmp_path / "out", overwrite=True), Events())


def test_ollama_is_given_no_adapter(base, adapter, tmp_path):
    shutil.copy(base / "config.json", adapter)
    with pytest.raises(ModelError, match="Merge it first"):
        ollama(OllamaRequest(str(adapter), tmp_path / "out"), Events())


# ---- the command line ----------------------------------------------------------------------------


def test_the_commands_do_both(base, adapter, tmp_path):
    app = typer.Typer()
    cli_merge.register(app)
    out, gguf = tmp_path / "out", tmp_path / "ollama"
    arguments = ["merge", str(base), str(adapter), str(out), "--device", "cpu"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert f"merged model: {out} (float32, files: 1)" in done.output
    done = CliRunner().invoke(app, ["ollama", str(out), str(gguf)], catch_exceptions=False)
    assert f"Now run: ollama create out -f {gguf / 'Modelfile'}" in done.output


def test_formats_of_the_request_are_torchs():
    from whoamai.recipes.merge import DTYPES

    assert all(isinstance(getattr(torch, name), torch.dtype) for name in DTYPES)
