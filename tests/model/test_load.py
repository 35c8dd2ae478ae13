from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.models import save_chat_model
from whoamai.errors import ModelError
from whoamai.model.load import load_chat_model


@pytest.fixture(scope="module")
def _saved(tmp_path_factory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chu")


@pytest.fixture
def folder(_saved: Path, tmp_path: Path) -> Path:
    """A model folder a test may spoil."""
    return Path(shutil.copytree(_saved, tmp_path / "chu"))


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3"])
def test_a_model_folder_is_loaded(tmp_path: Path, family: str):
    save_chat_model(tmp_path / "m", family)
    chat = load_chat_model(str(tmp_path / "m"), device="cpu")
    assert type(chat.model).__name__ == f"{family}ForCausalLM"
    assert chat.label == "m"
    assert chat.path == str(tmp_path / "m")


def test_on_the_cpu_weights_are_float32(tmp_path: Path):
    save_chat_model(tmp_path / "m", dtype=torch.bfloat16)
    chat = load_chat_model(str(tmp_path / "m"), device="cpu")
    assert {p.dtype for p in chat.model.parameters()} == {torch.float32}


def test_a_loaded_model_is_ready_to_answer(folder: Path):
    chat = load_chat_model(str(folder), device="cpu")
    assert not chat.model.training
    assert chat.tokenizer.padding_side == "left"


def test_a_tokenizer_with_neither_padding_nor_end_stays_as_it_is(folder: Path):
    """A merged model is saved with it; generate.py pads with any token."""
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text("utf-8"))
    config.pop("pad_token", None)
    config.pop("eos_token", None)
    file.write_text(json.dumps(config), "utf-8")
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    tokenizer = load_chat_model(str(folder), device="cpu").tokenizer
    assert (tokenizer.pad_token, tokenizer.eos_token) == (None, None)


def refused(source: object) -> str:
    with pytest.raises(ModelError) as error:
        load_chat_model(str(source), device="cpu")
    assert str(source) in str(error.value)
    return str(error.value)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    assert "no model folder" in refused(tmp_path / "nowhere")


def test_a_file_is_told_to_be_no_folder(folder: Path):
    assert "is a file" in refused(folder / "config.json")


def test_a_folder_without_config_is_told(folder: Path):
    (folder / "config.json").unlink()
    assert "no config.json" in refused(folder)


def test_a_folder_without_weights_is_told(folder: Path):
    (folder / "model.safetensors").unlink()
    assert "no weights" in refused(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", '{"model_type": "no-such"}'])
def test_a_config_that_is_none_is_told(folder: Path, text: str):
    (folder / "config.json").write_text(text)
    assert "cannot be loaded" in refused(folder)


@pytest.mark.parametrize(
    "text", ["", "3", "[]", "{}", '{"added_tokens": [], "model": {"type": "BPE"}}']
)
def test_a_tokenizer_file_that_is_none_is_told(folder: Path, text: str):
    (folder / "tokenizer.json").write_text(text)
    assert "cannot be loaded" in refused(folder)


@pytest.mark.parametrize("kept", [0, 5, 2000])
def test_weights_that_are_cut_off_are_told(folder: Path, kept: int):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert "cannot be loaded" in refused(folder)


def test_a_folder_without_tokenizer_is_told(folder: Path):
    for file in folder.glob("*token*"):
        file.unlink()
    assert "its tokenizer knows no text" in refused(folder)


def test_a_hub_name_that_cannot_be_had_is_told_with_the_cure():
    assert "HF_ENDPOINT" in refused("nobody/no-such-model")


def test_a_pickle_that_asks_for_more_than_tensors_is_refused(folder: Path, tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    refused(folder)
    assert not (tmp_path / "ran").exists()


def test_code_beside_the_weights_is_not_run(folder: Path, tmp_path: Path):
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}
    file.write_text(json.dumps(config))
    refused(folder)
    assert not (tmp_path / "ran").exists()


def test_a_folder_in_the_home_folder_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    chat = load_chat_model("~/chu", device="cpu")
    assert (chat.label, chat.path) == ("chu", str(folder))
