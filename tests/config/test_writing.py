"""A config that was written is read back as the same config."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from whoamai.config import DataSettings, EvaluationSettings, LoraSettings, RunConfig, TrainSettings
from whoamai.config.reading import read_config
from whoamai.config.writing import write_config
from whoamai.errors import OutputError

# What a file's name in UTF-8 can hold: anything but half characters and NUL.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LIKE_VALUES = [
    "1e-4",
    "010",
    "null",
    "~",
    "true",
    "no",
    "<<",
    "=",
    "- a",
    "a: b",
    "# a",
    "*a",
    " a ",
]
NAMES = st.one_of(TEXT, st.sampled_from(LIKE_VALUES))


def config(**sections: Any) -> RunConfig:
    return RunConfig(**{"data": DataSettings(data_path="a.jsonl"), **sections})


def written(one: RunConfig, folder: Path) -> RunConfig:
    write_config(one, folder / "config.yaml")
    return read_config(folder / "config.yaml").config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


@given(
    st.one_of(st.none(), NAMES),
    st.lists(NAMES),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.integers(0, 2**32 - 1),
    st.one_of(st.just("auto"), st.integers(1, 10**6)),
    st.one_of(st.none(), st.builds(LoraSettings, r=st.integers(1, 4096))),
)
@example(
    "\x85a\u2028b\ufeff",
    ["", "\n", "a\n\n", "\r\n", " \n x", "\t", "😀你", "'", '"', "\\"],
    1e-5,
    0,
    1,
    None,
)
def test_any_config_is_read_back_equal(folder: Path, name, texts, lr, seed, tokens, lora):
    one = config(
        data=DataSettings(
            data_path=["a", *(t for t in texts if t.strip())], system=name, old_names=texts
        ),
        evaluation=EvaluationSettings(evaluation_inputs=texts, system=name),
        train=TrainSettings(lr=lr, seed=seed, tokens_per_pass=tokens),
        lora=lora,
        allow=texts,
    )
    assert written(one, folder) == one


def test_chinese_is_written_as_it_is_and_long_texts_stay_on_their_line(tmp_path: Path):
    one = config(evaluation=EvaluationSettings(evaluation_inputs=["请介绍 " * 100, "一\n二"]))
    assert written(one, tmp_path) == one
    text = (tmp_path / "config.yaml").read_text("utf-8")
    assert "请介绍 " * 100 in text
    assert "一\n" in text


def test_every_setting_is_written_by_its_section(tmp_path: Path):
    written(config(), tmp_path)
    values = yaml.safe_load((tmp_path / "config.yaml").read_text("utf-8"))
    assert values["train"]["lr"] == 0.0002
    assert values.keys() == RunConfig.model_fields.keys()


def test_an_older_config_is_replaced_and_nothing_else_is_left(tmp_path: Path):
    written(config(), tmp_path)
    assert written(config(work_dir="x"), tmp_path).work_dir == "x"
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_an_older_config_stays_where_the_new_one_cannot_be_written(tmp_path: Path, monkeypatch):
    written(config(), tmp_path)
    before = (tmp_path / "config.yaml").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_config(config(work_dir="x"), tmp_path / "config.yaml")
    assert (tmp_path / "config.yaml").read_bytes() == before
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_config(config(), tmp_path / "missing" / "config.yaml")
