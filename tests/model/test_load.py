from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.models import make_model, make_tokenizer, save_chat_model
from whoamai.errors import ModelError, SettingError
from whoamai.model.load import choose_device, compute_dtype, load_chat_model


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


def test_a_tokenizer_with_more_tokens_than_embeddings_is_told(folder: Path):
    make_model(vocab_size=100).save_pretrained(folder)
    assert "its tokenizer knows 3" in refused(folder)


def test_embeddings_to_spare_are_no_fault(folder: Path):
    make_model(vocab_size=len(make_tokenizer()) + 64).save_pretrained(folder)
    assert load_chat_model(str(folder), device="cpu").label == "chu"


def test_weights_that_are_to_be_trained_are_held_in_float32_whatever_is_computed_in(tmp_path: Path):
    save_chat_model(tmp_path / "m", dtype=torch.bfloat16)
    chat = load_chat_model(str(tmp_path / "m"), device="cpu", dtype="bfloat16", trainable=True)
    assert {p.dtype for p in chat.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_precision_that_is_asked_for_is_taken(folder: Path, dtype: str):
    chat = load_chat_model(str(folder), device="cpu", dtype=dtype)
    assert {p.dtype for p in chat.model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), torch.float16)],
)
def test_on_a_gpu_the_precision_is_what_it_has(
    capability: tuple[int, int], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert compute_dtype("auto", "cuda:0") == expected
    assert compute_dtype("float32", "cuda:0") == torch.float32
    assert compute_dtype("auto", "cpu") == torch.float32


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(SettingError, match=r"torch .* sees no GPU"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == "cuda"
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(SettingError, match="cuda:0 to cuda:1"):
        choose_device("cuda:2")


def test_a_model_too_large_for_the_gpu_is_told_with_the_cure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    from transformers import Qwen3ForCausalLM

    def to(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Qwen3ForCausalLM, "to", to)
    told = refused(folder)
    assert "does not fit the memory" in told
    assert "quantization: nf4" in told


def test_loading_prints_nothing_and_leaves_transformers_as_talkative_as_it_was(
    folder: Path, capfd: pytest.CaptureFixture[str]
):
    from transformers.utils import logging

    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    load_chat_model(str(folder), device="cpu")
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
