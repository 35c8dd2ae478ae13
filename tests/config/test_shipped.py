"""The configs that come along: found by name, listed, copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from whoamai.config.reading import read_config
from whoamai.config.shipped import copy_config, find_shipped, shipped_configs
from whoamai.errors import OutputError, SettingError
from whoamai.messages import use_language

TINY = "# zh: 小模型\n# en: A small model\n#\n# zh: 别的\ndata:\n  data_path: a.jsonl\n"


@pytest.fixture(autouse=True)
def _two(shipped_folder: Path) -> None:
    (shipped_folder / "tiny_lora.yaml").write_text(TINY, "utf-8")
    (shipped_folder / "big_full.yaml").write_text("data: {data_path: a}\nlora: null\n", "utf-8")


def test_they_are_listed_by_name_each_read_and_with_its_title():
    big, tiny = shipped_configs()
    assert (big.name, big.title, big.config.method) == ("big_full", "", "full")
    assert (tiny.name, tiny.title, tiny.config.method) == ("tiny_lora", "A small model", "lora")


def test_the_title_is_in_the_language_of_now():
    with use_language("zh"):
        assert find_shipped("tiny_lora").title == "小模型"


def test_a_title_in_one_language_is_better_than_none(shipped_folder: Path):
    (shipped_folder / "tiny_lora.yaml").write_text(TINY.replace("en:", "fr:"), "utf-8")
    assert find_shipped("tiny_lora").title == "小模型"


def test_one_is_found_with_and_without_its_ending():
    assert find_shipped("tiny_lora") == find_shipped("tiny_lora.yaml")


def test_an_unknown_one_is_told_the_nearest():
    with pytest.raises(SettingError, match=r"The nearest are: tiny_lora\."):
        find_shipped("tiny_lra")


def test_a_copy_is_named_as_xtuner_names_it_and_is_a_config(tmp_path: Path):
    copy = copy_config("tiny_lora", tmp_path / "new" / "folder")
    assert copy == tmp_path / "new" / "folder" / "tiny_lora_copy.yaml"
    assert copy.read_text("utf-8") == TINY
    assert read_config(copy).name == "tiny_lora_copy"
    assert [file.name for file in copy.parent.iterdir()] == [copy.name]


def test_a_changed_copy_is_not_overwritten_unless_told(tmp_path: Path):
    copy = copy_config("tiny_lora", tmp_path)
    copy.write_text("mine", "utf-8")
    with pytest.raises(OutputError, match=r"tiny_lora_copy\.yaml exists already"):
        copy_config("tiny_lora", tmp_path)
    assert copy.read_text("utf-8") == "mine"
    copy_config("tiny_lora", tmp_path, overwrite=True)
    assert copy.read_text("utf-8") == TINY


def test_a_link_in_the_way_of_a_copy_is_in_the_way(tmp_path: Path):
    (tmp_path / "tiny_lora_copy.yaml").symlink_to("nowhere")
    with pytest.raises(OutputError, match="exists already"):
        copy_config("tiny_lora", tmp_path)


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        copy_config("tiny_lora", tmp_path / "file")
