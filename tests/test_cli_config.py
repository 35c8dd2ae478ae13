"""`whoamai list-cfg` and `whoamai copy-cfg`, as a person types them."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from whoamai.cli_config import fits, list_cfg, register
from whoamai.config.files import shipped_files
from whoamai.errors import SettingError
from whoamai.messages import use_language


def run(*arguments: str, memory_of=None) -> Result:
    app = typer.Typer()
    register(app, memory_of)
    return CliRunner().invoke(app, list(arguments))


def test_every_shipped_config_is_a_line_with_its_columns():
    lines = run("list-cfg").output.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(shipped_files())
    name, model, method, title = lines[-1].split("\t")
    assert (name, model, method) == ("tiny_chat_lora_identity", "tiny-chat", "LoRA")
    assert title


def test_the_memory_is_a_column_where_it_can_be_told():
    output = run(
        "list-cfg", "-p", "tiny_chat", memory_of=lambda c: f"{c.train.max_epochs} GB"
    ).output
    assert output.split("\t")[3] == "2 GB"


@pytest.mark.parametrize(
    "pattern", ["tiny", "TINY_chat", "tiny*identity", "t?ny", "tiny_chat_lora_identity.yaml"]
)
def test_a_pattern_is_a_part_of_the_name_or_has_stars_whatever_its_capitals(pattern: str):
    assert fits("tiny_chat_lora_identity", pattern)
    assert not fits("qwen3_8b_qlora", pattern)


def test_where_nothing_fits_the_nearest_are_named_and_the_exit_code_is_1():
    ran = run("list-cfg", "--pattern", "tiny_chat_lora_idenity")
    assert ran.exit_code == 1
    assert ran.stdout == ""
    assert "tiny_chat_lora_identity" in ran.stderr


def test_on_a_screen_it_is_a_table_in_which_no_name_is_cut(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    list_cfg(memory_of=lambda _: "99.9 GB")
    output = capsys.readouterr().out
    assert "\t" not in output
    for name in shipped_files():
        assert name in output
    assert "99.9 GB" in output
    assert "…" not in output


def test_titles_are_in_the_language_of_now(capsys):
    with use_language("zh"):
        list_cfg("tiny_chat")
    assert "自带" in capsys.readouterr().out


def test_a_copy_is_made_and_its_path_told(tmp_path: Path):
    ran = run("copy-cfg", "tiny_chat_lora_identity", str(tmp_path / "here"))
    copy = tmp_path / "here" / "tiny_chat_lora_identity_copy.yaml"
    assert ran.exit_code == 0
    assert str(copy) in ran.output
    assert copy.is_file()


def test_a_second_copy_needs_overwrite(tmp_path: Path):
    first = ("copy-cfg", "tiny_chat_lora_identity", str(tmp_path))
    assert run(*first).exit_code == 0
    assert "--overwrite" in str(run(*first).exception)
    assert run(*first, "--overwrite").exit_code == 0


def test_an_unknown_name_is_told_the_nearest(tmp_path: Path):
    error = run("copy-cfg", "tiny_chat_lora", str(tmp_path)).exception
    assert isinstance(error, SettingError)
    assert "tiny_chat_lora_identity" in str(error)
