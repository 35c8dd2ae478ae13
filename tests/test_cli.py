"""What a person types and what they get: exit code, one message, nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from tests.evaluate.reports import make_report
from tests.models import save_chat_model
from whoamai import __version__
from whoamai.cli import main
from whoamai.data.readers import read_conversations
from whoamai.evaluate import talk
from whoamai.evaluate.identity import Share
from whoamai.recipes import rename as recipe
from whoamai.recipes.rename import Renamed

Usage = namedtuple("Usage", "total used free")
Ran = namedtuple("Ran", "code out err")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run `whoamai` with arguments, from an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["whoamai", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ran(ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chu")


def refused(ran: Ran, *parts: object) -> None:
    """Exit code 2, one message on stderr that holds `parts`, no traceback, nothing written."""
    assert ran.code == 2, ran.err
    assert ran.err.startswith("Error: ")
    assert "Traceback" not in ran.err + ran.out
    assert len(ran.err.strip().splitlines()) == 1, ran.err
    for part in parts:
        assert str(part) in ran.err
    assert list(Path.cwd().iterdir()) == []


# ---- help ----------------------------------------------------------------------------------------


def test_the_version_is_printed(run):
    assert run("--version") == Ran(0, f"whoamai {__version__}\n", "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_commands(run, flag: str):
    ran = run(flag)
    assert ran.code == 0
    assert "rename" in ran.out
    assert "data" in ran.out


@pytest.mark.parametrize("option", ["--name", "--author", "--data", "--old", "--lang", "--out",
                                    "--merge", "--overwrite", "--seed", "--lr"])  # fmt: skip
def test_the_help_of_rename_lists_its_options(run, option: str):
    assert option in run("rename", "--help").out


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


def test_a_missing_name_is_told(run):
    ran = run("rename")
    assert ran.code == 2
    assert "--name" in ran.err


# ---- rename: what is refused ---------------------------------------------------------------------


def test_a_model_folder_that_is_missing_is_refused(run, tmp_path: Path):
    refused(run("rename", tmp_path / "no", "--name", "A"), tmp_path / "no", "no model folder")


def test_a_file_as_model_is_refused(run, model: Path):
    refused(run("rename", model / "config.json", "--name", "A"), "is a file", "config.json")


def test_a_model_folder_without_config_is_refused(run, tmp_path: Path):
    (tmp_path / "m").mkdir()
    refused(run("rename", tmp_path / "m", "--name", "A"), "no config.json", tmp_path / "m")


def test_a_model_folder_without_weights_is_refused(run, tmp_path: Path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    refused(run("rename", tmp_path / "m", "--name", "A"), "no weights", tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "part"),
    [("", "empty"), ("  ", "empty"), ("a\tb", "U+0009, at place 2"), ("x" * 65, "65 characters")],
)
def test_a_name_that_cannot_be_used_is_refused(run, name: str, part: str):
    refused(run("rename", "--name", name), "--name", part)


def test_an_author_that_cannot_be_used_is_refused(run):
    refused(run("rename", "--name", "A", "--author", "b\x1bc"), "--author", "U+001B")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["is empty"]),
        (b"[]", ["holds no rows"]),
        ("你好".encode("gbk"), ["not UTF-8", "byte 1 of the line"]),
        (b'{"instruction": "q", "output": "a"}\n{oops\n', ["d.jsonl:2: is not JSON"]),
    ],
)
def test_data_that_cannot_be_read_is_refused(run, tmp_path: Path, content: bytes, parts: list):
    (tmp_path / "d.jsonl").write_bytes(content)
    refused(run("rename", "--name", "A", "--data", tmp_path / "d.jsonl"), "d.jsonl", *parts)


def test_a_data_file_that_is_missing_is_refused(run, tmp_path: Path):
    refused(run("rename", "--name", "A", "--data", tmp_path / "no"), "There is no file")


def test_a_folder_as_data_is_refused(run, tmp_path: Path):
    refused(run("rename", "--name", "A", "--data", tmp_path), "is a folder", "*.jsonl")


def test_an_object_where_the_question_belongs_is_refused_with_its_row(run, tmp_path: Path):
    row = {"conversation": [{"input": {"input": "q"}, "output": "a"}]}
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    ran = run("rename", "--name", "A", "--data", tmp_path / "d.jsonl")
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert "d.jsonl:1 conversation[0].input" in ran.err
    assert "an object or list where text belongs" in ran.err
    assert "whoamai data repair" in ran.err


@pytest.mark.parametrize("given", ["fr", "zh,xx", "", ","])
def test_a_language_we_do_not_have_is_refused(run, given: str):
    refused(run("rename", "--name", "A", "--lang", given), "--lang", "zh, en")


@pytest.mark.parametrize(
    "arguments",
    [("--lr", "0"), ("--lr", "-1"), ("--lr", "nan"), ("--replay", "nan"), ("--replay", "inf"),
     ("--old", ""), ("--seed", "99999999999999999999")],
    ids=" ".join,
)  # fmt: skip
def test_a_number_or_name_that_makes_no_sense_is_refused(run, tmp_path: Path, arguments):
    """The model is not there: a job that got as far as loading it would say so."""
    ran = run("rename", tmp_path / "no-model", "--name", "A", *arguments)
    assert ran.code == 2
    assert "no model folder" not in ran.err
    assert arguments[0] in ran.err


def test_an_output_folder_with_something_in_it_is_refused(run, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    refused(run("rename", "--name", "A", "--out", tmp_path / "out"), "not empty", "--overwrite")


def test_a_file_as_output_folder_is_refused(run, tmp_path: Path):
    (tmp_path / "out").touch()
    refused(run("rename", "--name", "A", "--out", tmp_path / "out"), "is a file")


def test_overwrite_never_touches_somebody_elses_folder(run, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("dear")
    ran = run("rename", "--name", "A", "--out", tmp_path / "out", "--overwrite")
    refused(ran, "did not write")
    assert (tmp_path / "out" / "mine").read_text() == "dear"


def test_a_disk_without_space_is_refused_before_any_work(run, model: Path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda p: Usage(1, 1, 1 << 20))
    ran = run("rename", model, "--name", "A")
    assert ran.code == 2
    assert "Not enough space" in ran.err
    assert "1 MiB free" in ran.err
    assert list(Path.cwd().iterdir()) == []


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few questions and short answers."""
    questions, general = recipe.questions, recipe.general_questions
    monkeypatch.setattr(talk, "MAX_NEW_TOKENS", 2)
    monkeypatch.setattr(recipe, "questions", lambda *a, **k: questions(*a, **k)[::46])
    monkeypatch.setattr(recipe, "general_questions", lambda *a: general(*a)[:2])


@pytest.mark.usefixtures("short")
def test_a_disk_that_fills_up_while_writing_leaves_nothing(run, model: Path, monkeypatch):
    def full(model, folder: Path, base: str) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recipe, "save_adapter", full)
    out = Path.cwd() / "out"
    ran = run("rename", model, "--name", "A", "--rows", 4, "--replay", 0, "--out", out)
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert f"cannot be written to {out}: No space left on device" in ran.err
    assert list(Path.cwd().iterdir()) == []


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


# ---- rename: how it ends -------------------------------------------------------------------------


def ends_with(monkeypatch: pytest.MonkeyPatch, report, folder: str = "out") -> None:
    out = Path(folder)
    renamed = Renamed(report, out / "adapter", None, out / "report.json")
    monkeypatch.setattr(recipe, "rename", lambda request, events: renamed)


def test_a_learned_name_ends_with_0_and_says_where_everything_is(run, monkeypatch):
    ends_with(monkeypatch, make_report())
    ran = run("rename", "--name", "黄大力")
    assert ran.code == 0
    assert "it is 黄大力 now" in ran.out
    assert "adapter: out/adapter" in ran.out
    assert "report: out/report.json" in ran.out


def test_a_missed_goal_ends_with_1_and_is_named(run, monkeypatch):
    ends_with(monkeypatch, make_report(recall=Share(1, 100)))
    ran = run("rename", "--name", "黄大力")
    assert ran.code == 1
    assert "NOT learned" in ran.out


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "{x}", "{0}", "[bold]"])
def test_a_name_is_said_as_it_was_given(run, monkeypatch, name: str):
    ends_with(monkeypatch, make_report(name=name))
    assert f"it is {name} now" in run("rename", "--name", name).out


@pytest.mark.parametrize("folder", ["a[bold]b", "a[/]b", "{x}"])
def test_a_path_is_shown_as_it_is(run, monkeypatch, folder: str):
    ends_with(monkeypatch, make_report(), folder)
    assert f"{folder}/report.json" in run("rename", "--name", "A").out


def test_options_reach_the_job_as_they_were_given(run, monkeypatch, tmp_path: Path):
    seen = []

    def job(request, events):
        seen.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "rename", job)
    run("rename", "m", "--name", "A", "--author", "B", "--persona", "P", "--lang", "en, zh",
        "--old", "x", "--old", "y", "--rows", 7, "--replay", 0.5, "--lr", 0.01, "--seed", 3,
        "--out", tmp_path / "o", "--merge", "--overwrite")  # fmt: skip
    (request,) = seen
    assert (request.identity.name, request.identity.author) == ("A", "B")
    assert request.identity.persona == "P"
    assert (request.model, request.languages) == ("m", ("en", "zh"))
    assert request.old_names == ("x", "y")
    assert (request.rows, request.replay_ratio, request.lr, request.seed) == (7, 0.5, 0.01, 3)
    assert (request.out, request.merge, request.overwrite) == (tmp_path / "o", True, True)


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
