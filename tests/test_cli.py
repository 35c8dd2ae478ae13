"""What every command has in common, and `data make`: exit code, one message, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_runs import Ran, Run, refused, runner
from whoamai import __version__
from whoamai.cli import main
from whoamai.data.readers import read_conversations
from whoamai.recipes import rename as recipe


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner(monkeypatch, capsys, tmp_path)


# ---- help ----------------------------------------------------------------------------------------


def test_the_version_is_printed(run):
    assert run("--version") == Ran(0, f"whoamai {__version__}\n", "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_commands(run, flag: str):
    ran = run(flag)
    assert ran.code == 0
    assert "rename" in ran.out
    assert "data" in ran.out


def test_the_help_of_data_lists_make(run):
    assert "make" in run("data", "--help").out


def _python(*arguments: str, language: str = "en") -> str:
    source = str(Path(__file__).parent.parent / "src")
    environment = {**os.environ, "WHOAMAI_LANG": language, "PYTHONPATH": source}
    ran = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return ran.stdout


def test_help_is_shown_in_chinese():
    text = _python("-m", "whoamai", "rename", "--help", language="zh")
    assert "The new name." not in text
    assert any("\u4e00" <= c <= "\u9fff" for c in text.replace("黄大力", ""))


def test_help_loads_no_heavy_library():
    code = "import sys, whoamai.cli; print(*{'torch', 'transformers', 'peft'} & {*sys.modules})"
    assert _python("-c", code).strip() == ""


def test_no_arguments_show_the_help(run):
    ran = run()
    assert "rename" in ran.out + ran.err


# ---- errors --------------------------------------------------------------------------------------


def test_errors_are_told_in_chinese(run, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WHOAMAI_LANG", "zh")
    ran = run("rename", tmp_path / "no", "--name", "A")
    assert ran.code == 2
    assert "Error" not in ran.err
    assert any("\u4e00" <= c <= "\u9fff" for c in ran.err)
    assert str(tmp_path / "no") in ran.err


def test_a_long_path_in_an_error_stays_in_one_piece(run, tmp_path: Path, monkeypatch):
    """So that it can be copied, in a narrow terminal or a log."""
    monkeypatch.setenv("COLUMNS", "60")
    path = tmp_path / ("x" * 70)
    assert str(path) in run("rename", path, "--name", "A").err


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "{x}"])
def test_an_error_is_never_read_as_markup(run, tmp_path: Path, name: str):
    assert name in run("rename", f"./{name}/m", "--name", "A").err


def test_ctrl_c_is_told_and_ends_with_130(run, monkeypatch):
    def job(request, events):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "rename", job)
    ran = run("rename", "--name", "A")
    assert ran.code == 130
    assert "Stopped. Nothing was written." in ran.err
    assert "Traceback" not in ran.err


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    def job(request, events):
        raise ZeroDivisionError

    monkeypatch.setattr(recipe, "rename", job)
    monkeypatch.setattr(sys, "argv", ["whoamai", "rename", "--name", "A"])
    with pytest.raises(ZeroDivisionError):
        main()


# ---- data make -----------------------------------------------------------------------------------


def test_made_data_can_be_read(run, tmp_path: Path):
    ran = run("data", "make", tmp_path / "d.jsonl", "--name", "黄大力", "--rows", 9)
    assert ran.code == 0
    assert f"9 conversations written to {tmp_path / 'd.jsonl'}" in ran.out
    rows = read_conversations(tmp_path / "d.jsonl")
    assert len(rows) == 9
    assert all("黄大力" in row.messages[-1].text for row in rows)


def test_the_same_seed_makes_the_same_file(run, tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("data", "make", tmp_path / name, "--name", "A", "--rows", 20, "--seed", seed)
    a, b, c = ((tmp_path / n).read_bytes() for n in "abc")
    assert a == b
    assert a != c


def test_made_data_never_replaces_a_file(run, tmp_path: Path):
    (tmp_path / "d.jsonl").write_text("mine")
    refused(run("data", "make", tmp_path / "d.jsonl", "--name", "A"), "exists already")
    assert (tmp_path / "d.jsonl").read_text() == "mine"


@pytest.mark.parametrize("given", ["fr", "zh,xx", "", "../x"])
def test_data_cannot_be_made_in_a_language_we_do_not_have(run, tmp_path: Path, given: str):
    refused(run("data", "make", tmp_path / "d", "--name", "A", "--lang", given), "--lang", "zh, en")


def test_data_without_a_name_to_see_is_refused(run, tmp_path: Path):
    refused(run("data", "make", tmp_path / "d", "--name", " "), "--name")


def test_data_for_a_folder_that_cannot_be_made_is_refused(run, tmp_path: Path):
    (tmp_path / "no").write_text("a file")
    refused(run("data", "make", tmp_path / "no" / "d", "--name", "A"), "cannot be written")
