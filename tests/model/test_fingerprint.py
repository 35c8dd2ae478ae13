"""The hash of a model folder: the same for the same weights, another for others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models import save_chat_model
from whoamai.errors import ModelError
from whoamai.model.fingerprint import (
    BaseCard,
    base_fingerprint,
    read_base_card,
    write_base_card,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "model", "Qwen2")


def test_it_does_not_depend_on_how_the_weights_are_cut_into_files(model, tmp_path):
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    places = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        save_file({n: tensors[n] for n in part}, tmp_path / file)
        places |= dict.fromkeys(part, file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (tmp_path / "config.json").write_text("{}")
    assert base_fingerprint(tmp_path) == base_fingerprint(model)


def test_pytorch_files_of_the_same_weights_have_the_same(model, tmp_path):
    torch.save(load_file(model / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text("{}")
    assert base_fingerprint(tmp_path) == base_fingerprint(model)


@pytest.mark.parametrize("changes", [{"seed": 4}, {"dtype": torch.bfloat16}, {"vocab_size": 330}])
def test_other_weights_have_another(model, tmp_path, changes):
    other = save_chat_model(tmp_path / "other", "Qwen2", **changes)
    assert base_fingerprint(other) != base_fingerprint(model)


def test_a_change_of_one_layer_shows(model, tmp_path):
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.self_attn.o_proj.weight"] *= 1.01
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert base_fingerprint(tmp_path) != base_fingerprint(model)


def test_the_bundled_model_has_one():
    assert len(base_fingerprint("tiny-chat")) == 64


def test_a_card_is_read_as_it_was_written(tmp_path):
    assert read_base_card(tmp_path) is None
    card = BaseCard("ab" * 32, "some/model", "nf4")
    write_base_card(tmp_path, card)
    assert read_base_card(tmp_path) == card


@pytest.mark.parametrize(
    "text", ["{}", "[]", "{", '{"fingerprint": 1, "model": "", "quantization": ""}']
)
def test_a_card_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "whoamai_base.json").write_text(text)
    with pytest.raises(ModelError, match=r"whoamai_base\.json"):
        read_base_card(tmp_path)


def test_a_name_that_was_never_downloaded_has_none():
    with pytest.raises(ModelError, match=r"some/model is no local folder, and could not be had"):
        base_fingerprint("some/model")
