from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.convert.xtuner_files import adapter_state, config_text, real_files, save_pth, save_zero
from tests.models import make_model, save_chat_model
from whoamai.data.templates import read_card
from whoamai.errors import ModelError, OutputError, SettingError
from whoamai.events import Events, Note
from whoamai.recipes.pth_to_hf import Converted, ConvertRequest, pth_to_hf


def convert(checkpoint: Path, out: Path, **options) -> tuple[Converted, list[str]]:
    notes: list[str] = []
    events = Events([lambda e: notes.append(e.text) if isinstance(e, Note) else None])
    return pth_to_hf(ConvertRequest(checkpoint, out, **options), events), notes


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / "adapter_model.bin").exists():
        return torch.load(folder / "adapter_model.bin", weights_only=True)
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("checkpoint", "expected", "fp32", "safe"),
    [
        ("plain/iter_17.pth", "plain/hf_fp16", False, True),
        ("plain/iter_17.pth", "plain/hf_fp32", True, False),
        ("zero2_bf16_world2/iter_9.pth", "zero2_bf16_world2/hf", False, True),
    ],
)
def test_real_checkpoints_give_exactly_what_xtuner_makes_of_them(
    tmp_path: Path,
    checkpoint: str,
    expected: str,
    fp32: bool,
    safe: bool,
):
    real = real_files()
    convert(real / checkpoint, tmp_path / "hf", fp32=fp32, safe_serialization=safe)
    mine, theirs = weights_in(tmp_path / "hf"), weights_in(real / expected)
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert mine[name].dtype == tensor.dtype
        assert torch.equal(mine[name], tensor), name
    mine = json.loads((tmp_path / "hf" / "adapter_config.json").read_text())
    theirs = json.loads((real / expected / "adapter_config.json").read_text())
    assert mine["target_modules"] == sorted(theirs.pop("target_modules"))
    assert {key: mine[key] for key in theirs.keys() & mine.keys()} == {
        key: theirs[key] for key in theirs.keys() & mine.keys()
    }


def test_float32_of_a_sharded_checkpoint_is_not_rounded_and_this_is_said(tmp_path: Path):
    state = adapter_state()
    folder = save_zero(tmp_path / "iter_9.pth", state, world=3, cfg=config_text())
    _, notes = convert(folder, tmp_path / "hf", fp32=True)
    for name, tensor in weights_in(tmp_path / "hf").items():
        assert torch.equal(tensor, state["llm." + name.replace(".weight", ".default.weight")])
    assert any("XTuner rounds them" in note for note in notes)


def test_peft_loads_what_was_converted(tmp_path: Path):
    from peft import LoraConfig, PeftModel, get_peft_model

    trained = get_peft_model(
        make_model("Llama"), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"])
    )
    torch.manual_seed(1)
    state = {
        f"llm.{name}": torch.randn_like(p)
        for name, p in trained.named_parameters()
        if "lora_" in name
    }
    trained.load_state_dict({n.removeprefix("llm."): t for n, t in state.items()}, strict=False)
    path = save_pth(tmp_path / "iter_1.pth", state, config_text())
    convert(path, tmp_path / "hf", fp32=True)
    loaded = PeftModel.from_pretrained(make_model("Llama"), str(tmp_path / "hf"))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(trained.eval()(ids).logits, loaded.eval()(ids).logits)


def test_the_template_and_xtuner_s_config_are_kept_beside_the_adapter(tmp_path: Path):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), config_text())
    convert(path, tmp_path / "hf")
    card = read_card(tmp_path / "hf")
    assert card is not None
    assert card.name == "internlm2_chat"
    assert (tmp_path / "hf" / "xtuner_config.py").read_text() == config_text()


@pytest.mark.parametrize(
    ("quantization", "noted"),
    [
        ("dict(load_in_4bit=True, bnb_4bit_quant_type='nf4')", "nf4"),
        ("dict(load_in_8bit=True, load_in_4bit=False)", "int8"),
        ("None", "none"),
    ],
)
def test_what_the_frozen_weights_were_held_in_is_noted(
    tmp_path: Path, quantization: str, noted: str
):
    told = f"quantization_config={quantization}, torch_dtype"
    config = config_text().replace("torch_dtype", told, 1)
    convert(save_pth(tmp_path / "iter_1.pth", adapter_state(), config), tmp_path / "hf")
    record = json.loads((tmp_path / "hf" / "whoamai_conversion.json").read_text("utf-8"))
    assert record["quantization"] == noted


# ---- which config counts -------------------------------------------------------------------------


def test_what_the_checkpoint_records_wins_and_a_difference_is_said(tmp_path: Path):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), config_text(lora_alpha=8))
    (tmp_path / "x.py").write_text(config_text(lora_alpha=16, base="other/base"))
    done, notes = convert(path, tmp_path / "hf", config=str(tmp_path / "x.py"))
    assert done.base == "models/tiny-internlm2"
    assert any(note.endswith("What the checkpoint records counts.") for note in notes)
    written = json.loads((tmp_path / "hf" / "adapter_config.json").read_text())
    assert (written["lora_alpha"], written["r"]) == (8, 4)
    assert written["base_model_name_or_path"] == "models/tiny-internlm2"
    assert any("lora_alpha" in note and "16" in note for note in notes)
    assert any("other/base" in note for note in notes)


def test_the_base_of_config_is_told_where_only_that_one_is_here(tmp_path: Path):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), config_text())
    (tmp_path / "x.py").write_text(config_text(base=str(tmp_path)))
    done, _ = convert(path, tmp_path / "hf", config=str(tmp_path / "x.py"))
    assert done.base == str(tmp_path)
    written = json.loads((tmp_path / "hf" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == "models/tiny-internlm2", "as recorded"


@pytest.mark.parametrize("ours", [True, False])
def test_a_checkpoint_that_records_nothing_takes_config(tmp_path: Path, ours: bool):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), None)
    if ours:
        config = tmp_path / "x.yaml"
        config.write_text(
            "model: {pretrained_model_name_or_path: a/b}\ndata: {data_path: x.jsonl}\n"
            "lora: {r: 4, lora_alpha: 32}\n"
        )
    else:
        config = tmp_path / "x.py"
        config.write_text(config_text(lora_alpha=32, base="a/b"))
    convert(path, tmp_path / "hf", config=str(config))
    written = json.loads((tmp_path / "hf" / "adapter_config.json").read_text())
    assert (written["lora_alpha"], written["r"]) == (32, 4)
    assert written["base_model_name_or_path"] == "a/b"


def test_without_any_config_it_is_asked_for(tmp_path: Path):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), None)
    with pytest.raises(ModelError, match="Give the config first"):
        convert(path, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_a_config_that_is_not_needed_does_not_stop_the_job(tmp_path: Path):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), config_text())
    _, notes = convert(path, tmp_path / "hf", config="internlm2_5_chat_7b_qlora_oasst1_e3.py")
    assert any("CONFIG was not used" in note for note in notes)


def test_a_config_of_another_run_is_refused_by_its_rank(tmp_path: Path):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(r=4), config_text(r=64))
    with pytest.raises(ModelError, match=r"rank is 64, but its matrices have the rank 4"):
        convert(path, tmp_path / "hf")


def test_values_that_are_no_numbers_or_do_not_fit_are_refused(tmp_path: Path):
    state = adapter_state()
    first = next(iter(state))
    state[first][0, 0] = 1e6
    path = save_pth(tmp_path / "iter_1.pth", state, config_text())
    with pytest.raises(ModelError, match=r"too large for float16\. Convert with --fp32"):
        convert(path, tmp_path / "hf")
    convert(path, tmp_path / "hf32", fp32=True)
    state[first][0, 0] = float("nan")
    path = save_pth(tmp_path / "iter_2.pth", state, config_text())
    with pytest.raises(ModelError, match="no numbers"):
        convert(path, tmp_path / "hf")


# ---- whole models --------------------------------------------------------------------------------


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sharded", [True, False])
def test_a_whole_model_loads_as_it_was_trained(
    tmp_path: Path, tied: bool, safe: bool, sharded: bool
):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = save_chat_model(tmp_path / "base", "Llama", tie_word_embeddings=tied)
    trained = make_model("Llama", seed=5, tie_word_embeddings=tied)
    config = config_text(base=str(base), lora=False)
    if sharded:
        state = {f"llm.{n}": p.detach() for n, p in trained.named_parameters()}
        path = save_zero(tmp_path / "iter_1.pth", state, world=2, cfg=config)
    else:
        state = {f"llm.{n}": t for n, t in trained.state_dict().items()}
        path = save_pth(tmp_path / "iter_1.pth", state, config)
    done, _ = convert(
        path, tmp_path / "hf", fp32=True, max_shard_size="20KB", safe_serialization=safe
    )
    assert done.kind == "model"
    assert done.files > 1
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert loaded.dtype == torch.float32
    for name, tensor in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert AutoTokenizer.from_pretrained(tmp_path / "hf")("你好")["input_ids"]


def test_a_whole_model_is_float16_by_default_and_says_so_in_its_config(tmp_path: Path):
    base = save_chat_model(tmp_path / "base", "Llama")
    state = {f"llm.{n}": t for n, t in make_model("Llama", seed=5).state_dict().items()}
    path = save_pth(tmp_path / "iter_1.pth", state, config_text(base=str(base), lora=False))
    convert(path, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype")) == "float16"
    assert all(
        t.dtype == torch.float16 for t in load_file(tmp_path / "hf/model.safetensors").values()
    )


def test_a_whole_model_that_lacks_weights_of_its_base_is_refused(tmp_path: Path):
    base = save_chat_model(tmp_path / "base", "Llama")
    state = {f"llm.{n}": t for n, t in make_model("Llama").state_dict().items() if "mlp" not in n}
    path = save_pth(tmp_path / "iter_1.pth", state, config_text(base=str(base), lora=False))
    with pytest.raises(ModelError, match="lacks 6 of the weights"):
        convert(path, tmp_path / "hf")


def test_a_base_that_was_moved_can_be_said_in_config(tmp_path: Path):
    base = save_chat_model(tmp_path / "base", "Llama")
    state = {f"llm.{n}": t for n, t in make_model("Llama", seed=5).state_dict().items()}
    path = save_pth(tmp_path / "iter_1.pth", state, config_text(base="./gone/base", lora=False))
    with pytest.raises(ModelError, match=r"no model folder \./gone/base"):
        convert(path, tmp_path / "hf")
    (tmp_path / "x.py").write_text(config_text(base=str(base), lora=False))
    convert(path, tmp_path / "hf", config=str(tmp_path / "x.py"))
    assert (tmp_path / "hf" / "tokenizer.json").is_file()


# ---- ours ----------------------------------------------------------------------------------------


def own_checkpoint(folder: Path, *, full: bool) -> Path:
    """A checkpoint as `whoamai train` leaves it."""
    from whoamai.config.schema import DataSettings, LoraSettings, ModelSettings, RunConfig
    from whoamai.config.writing import write_config
    from whoamai.engine.checkpoint import TrainState, save_checkpoint
    from whoamai.model.lora import add_lora

    base = save_chat_model(folder / "base", "Llama")
    config = RunConfig(
        model=ModelSettings(pretrained_model_name_or_path=str(base)),
        data=DataSettings(data_path="x.jsonl", prompt_template="qwen_chat"),
        lora=None if full else LoraSettings(r=2),
    )
    write_config(config, folder / "config.yaml")
    model = make_model("Llama", seed=3)
    if not full:
        model = add_lora(model, r=2, alpha=4, dropout=0.0, seed=0)
    return save_checkpoint(
        folder / "run",
        model=model,
        optimizer=torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]),
        state=TrainState(step=1),
        extra_files={"config.yaml": (folder / "config.yaml").read_text()},
        keep=1,
    )


def test_a_checkpoint_of_ours_is_copied_with_its_template(tmp_path: Path):
    saved = own_checkpoint(tmp_path, full=False)
    convert(saved, tmp_path / "hf")
    before = load_file(saved / "adapter" / "adapter_model.safetensors")
    after = weights_in(tmp_path / "hf")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    written = json.loads((tmp_path / "hf" / "adapter_config.json").read_text())
    assert (written["base_model_name_or_path"], written["lora_alpha"]) == (
        str(tmp_path / "base"),
        4,
    )
    card = read_card(tmp_path / "hf")
    assert card is not None
    assert card.name == "qwen_chat"


def test_a_checkpoint_of_ours_of_a_whole_model_becomes_a_model_with_its_tokenizer(tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    convert(own_checkpoint(tmp_path, full=True), tmp_path / "hf")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    for name, tensor in make_model("Llama", seed=3).state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert AutoTokenizer.from_pretrained(tmp_path / "hf")("你好")["input_ids"]


# ---- where it goes -------------------------------------------------------------------------------


def test_a_folder_that_is_not_empty_is_refused_and_replaced_only_where_it_is_ours(tmp_path: Path):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), config_text())
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(SettingError):
            convert(path, tmp_path / "hf", overwrite=overwrite)
    assert (tmp_path / "hf" / "mine.txt").read_text() == "mine"
    convert(path, tmp_path / "hf2")
    with pytest.raises(SettingError, match="not empty"):
        convert(path, tmp_path / "hf2")
    convert(path, tmp_path / "hf2", overwrite=True, fp32=True)
    assert next(iter(weights_in(tmp_path / "hf2").values())).dtype == torch.float32


@pytest.mark.parametrize("name", ["x.py", "x.yaml"])
def test_config_and_checkpoint_the_wrong_way_round_are_told(tmp_path: Path, name: str):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), config_text())
    with pytest.raises(SettingError, match=rf"{name} is a config\. It stands before"):
        convert(tmp_path / name, tmp_path / "hf", config=str(path))


def test_the_folder_that_is_read_is_never_the_one_written(tmp_path: Path):
    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), config_text())
    with pytest.raises(SettingError, match="what is to be read"):
        convert(path, tmp_path, overwrite=True)
    assert path.exists()


def test_nothing_is_left_where_it_fails_on_the_way(tmp_path: Path):
    state = adapter_state()
    state[list(state)[-1]][0, 0] = float("inf")
    path = save_pth(tmp_path / "iter_1.pth", state, config_text())
    with pytest.raises(ModelError):
        convert(path, tmp_path / "out" / "hf")
    assert [p.name for p in tmp_path.iterdir()] == ["iter_1.pth"]


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import shutil
    from collections import namedtuple

    path = save_pth(tmp_path / "iter_1.pth", adapter_state(), config_text())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000, 1000, 0))
    with pytest.raises(OutputError, match="Not enough space"):
        convert(path, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
