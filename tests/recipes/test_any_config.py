from __future__ import annotations

from pathlib import Path

import pytest

from tests.convert.xtuner_configs import write_xtuner_config
from whoamai.config.reading import read_config
from whoamai.errors import ConfigError, SettingError
from whoamai.recipes.any_config import load_config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_xtuner_config(tmp_path / "mine.py", "a/model", "rows.jsonl")


def test_a_config_of_ours_is_read_as_it_is_and_nothing_is_told():
    loaded, told = load_config("tiny_chat_lora_identity", ["train.lr=1e-3"])
    assert loaded == read_config("tiny_chat_lora_identity", ["train.lr=1e-3"])
    assert told == []


def test_one_of_xtuner_s_is_converted_and_what_differs_is_told(file: Path):
    loaded, told = load_config(str(file))
    assert loaded.config.model.pretrained_model_name_or_path == "a/model"
    assert loaded.config.data.files == ("rows.jsonl",)
    assert (loaded.name, loaded.path, loaded.work_dir) == ("mine", file, Path("work_dirs/mine"))
    assert told[0] == f"{file} is a config of XTuner's. It is read as text and never run."
    assert "no counterpart" in told[1]
    assert any("trust_remote_code" in line for line in told[2:])
    assert all(line.startswith("  - ") for line in told[2:])


def test_settings_behind_it_count_before_the_file(file: Path):
    loaded, _ = load_config(str(file), ["train.lr=5e-4", "model.device=cpu", "lora.r=2"])
    assert loaded.config.train.lr == 5e-4
    assert loaded.config.model.device == "cpu"
    assert loaded.config.lora is not None
    assert loaded.config.lora.r == 2
    assert loaded.config.data.max_length == 128


def test_its_work_dir_is_taken(tmp_path: Path):
    file = write_xtuner_config(tmp_path / "x.py", "a/m", "r.jsonl", more="\nwork_dir = 'runs/x'\n")
    assert load_config(str(file))[0].work_dir == Path("runs/x")


def test_wrong_settings_behind_it_are_told_all_together(file: Path):
    with pytest.raises(ConfigError) as caught:
        load_config(str(file), ["train.lrr=1", "data.max_length=many"])
    assert "train.lrr" in str(caught.value)
    assert "data.max_length" in str(caught.value)


def test_a_file_that_is_not_there_or_no_config_is_told(tmp_path: Path):
    with pytest.raises(SettingError, match=r"nothere\.py cannot be read"):
        load_config(str(tmp_path / "nothere.py"))
    (tmp_path / "other.py").write_text("print('hello')")
    with pytest.raises(SettingError, match="no config of the kind that is converted"):
        load_config(str(tmp_path / "other.py"))


def test_the_file_is_not_run(tmp_path: Path):
    mark = tmp_path / "ran"
    more = f"\nopen({str(mark)!r}, 'w').close()\n"
    file = write_xtuner_config(tmp_path / "x.py", "a/model", "rows.jsonl", more=more)
    load_config(str(file))
    assert not mark.exists()
