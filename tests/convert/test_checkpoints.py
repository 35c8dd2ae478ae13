from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.convert.xtuner_files import adapter_state, config_text, save_pth
from whoamai.convert.checkpoints import OwnCheckpoint, open_checkpoint
from whoamai.convert.weights import TrainedWeights
from whoamai.errors import ModelError


def told(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_of_xtuner_s_gives_its_weights_and_config(tmp_path: Path):
    state = adapter_state()
    found = open_checkpoint(save_pth(tmp_path / "iter_17.pth", state, config_text()))
    assert isinstance(found, TrainedWeights)
    assert found.config == config_text()
    assert all(torch.equal(found.weights[n].load(), t) for n, t in state.items())


def test_a_path_that_is_not_there_is_answered_with_the_checkpoints_nearby(tmp_path: Path):
    for n in (500, 1000):
        save_pth(tmp_path / f"iter_{n}.pth", adapter_state(), None)
    assert told(tmp_path / "iter_5.pth").endswith("iter_1000.pth, iter_500.pth.")


def test_a_work_folder_is_answered_with_its_checkpoints(tmp_path: Path):
    save_pth(tmp_path / "iter_17.pth", adapter_state(), None)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_17.pth"))
    message = told(tmp_path)
    assert "is no checkpoint" in message
    assert "iter_17.pth" in message


def test_the_file_that_names_the_last_checkpoint_is_told(tmp_path: Path):
    (tmp_path / "last_checkpoint").write_text("work_dirs/x/iter_17.pth")
    message = told(tmp_path / "last_checkpoint")
    assert "is a text file" in message
    assert "work_dirs/x/iter_17.pth" in message


def test_an_empty_file_and_an_empty_folder_are_told(tmp_path: Path):
    (tmp_path / "iter_1.pth").touch()
    (tmp_path / "iter_2.pth").mkdir()
    assert "iter_1.pth is empty" in told(tmp_path / "iter_1.pth")
    assert "iter_2.pth is empty" in told(tmp_path / "iter_2.pth")


def test_what_needs_no_conversion_is_told(tmp_path: Path):
    for name, sign in (("adapter", "adapter_config.json"), ("model", "config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / sign).write_text("{}")
        save_file({"x": torch.ones(1)}, tmp_path / name / "model.safetensors")
    assert "is a peft adapter already" in told(tmp_path / "adapter")
    assert "is a model folder already" in told(tmp_path / "model")
    assert "is a safetensors file" in told(tmp_path / "model" / "model.safetensors")


def test_a_model_for_pictures_is_told(tmp_path: Path):
    state = {"llm.x": torch.ones(1), "projector.model.0.weight": torch.ones(1)}
    message = told(save_pth(tmp_path / "x.pth", state, None))
    assert "LLaVA" in message
    assert "projector.model.0.weight" in message


def test_weights_of_another_program_are_told(tmp_path: Path):
    message = told(save_pth(tmp_path / "x.pth", {"encoder.weight": torch.ones(1)}, None))
    assert "encoder.weight" in message
    assert "llm." in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1, 2], "no weights by name"),
        ({"epoch": 3}, "holds no weights, but only: epoch"),
        ({"state": {0: {"step": 1}}, "param_groups": []}, "state of an optimizer"),
    ],
)
def test_torch_files_without_weights_are_told(tmp_path: Path, content: object, expected: str):
    torch.save(content, tmp_path / "x.pth")
    assert expected in told(tmp_path / "x.pth")


def test_bytes_of_no_known_kind_are_told(tmp_path: Path):
    (tmp_path / "x.pth").write_bytes(bytes(range(256)))
    assert "neither a file that torch.save wrote" in told(tmp_path / "x.pth")


def own(folder: Path) -> Path:
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    (folder / "state.json").write_text("{}")
    files = {name: {"size": 2} for name in ("adapter/adapter_config.json", "state.json")}
    (folder / "COMPLETE").write_text(json.dumps({"files": files}))
    return folder


def test_a_checkpoint_of_ours_is_known_and_an_incomplete_one_refused(tmp_path: Path):
    found = open_checkpoint(own(tmp_path / "step_000003"))
    assert isinstance(found, OwnCheckpoint)
    assert found.is_adapter
    (tmp_path / "step_000003" / "adapter" / "adapter_config.json").write_text("{")
    assert "adapter/adapter_config.json is cut off" in told(tmp_path / "step_000003")
    (tmp_path / "step_000003" / "COMPLETE").unlink()
    assert "COMPLETE is missing" in told(tmp_path / "step_000003")
