"""`whoamai rename`, as a person types it: what is refused, how it ends, how it is gone on with."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path

import pytest

from tests.cli_runs import Run, refused, runner
from tests.evaluate.reports import make_report
from tests.models import save_chat_model
from tests.recipes.rename_runs import shorten
from whoamai.evaluate.identity import Share
from whoamai.events import Progress
from whoamai.recipes import rename as recipe
from whoamai.recipes.rename import Renamed
from whoamai.terminal_train import TrainListener

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chu")


@pytest.mark.parametrize("option", ["--name", "--author", "--data", "--old", "--lang", "--out",
                                    "--merge", "--overwrite", "--seed", "--lr", "--kl", "--no-stop",
                                    "--evaluation-freq", "--questions", "--retain", "--resume",
                                    "--goal-recall", "--goal-leak"])  # fmt: skip
def test_the_help_of_rename_lists_its_options(run, option: str):
    assert option in run("rename", "--help").out


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
    shorten(monkeypatch, tokens=2)


TINY = ("--rows", 60, "--replay", 0.1)


@pytest.mark.usefixtures("short")
def test_a_disk_that_fills_up_while_writing_is_told_and_what_was_trained_is_kept(
    run, model: Path, monkeypatch
):
    def full(model, folder: Path, base: str) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recipe, "save_adapter", full)
    out = Path.cwd() / "out"
    ran = run("rename", model, "--name", "A", *TINY, "--out", out)
    assert ran.code == 2
    assert len(ran.err.strip().splitlines()) == 1
    assert f"cannot be written to {out}: No space left on device" in ran.err
    assert [path.name for path in Path.cwd().iterdir()] == [".out.partial"]


def test_a_folder_that_may_not_be_written_to_is_refused(run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(run("rename", "--name", "A"), "may not be written to")


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("given", ["", ","])
def test_no_language_is_refused_also_with_questions_of_ones_own(run, tmp_path: Path, given: str):
    (tmp_path / "q.txt").write_text("Who?")
    ran = run("rename", "--name", "A", "--lang", given, "--questions", tmp_path / "q.txt")
    refused(ran, "--lang")


def test_questions_that_cannot_be_read_are_refused(run, tmp_path: Path):
    refused(run("rename", "--name", "A", "--questions", tmp_path / "no.txt"), "no.txt")


def test_a_retain_file_that_cannot_be_read_is_refused(run, tmp_path: Path):
    refused(run("rename", "--name", "A", "--retain", tmp_path / "no.jsonl"), "no.jsonl")


# ---- rename: how it ends -------------------------------------------------------------------------


def ends_with(monkeypatch: pytest.MonkeyPatch, report, folder: str = "out") -> None:
    out = Path(folder)
    renamed = Renamed(report, out / "adapter", None, out / "report.json", out / "report.html")
    monkeypatch.setattr(recipe, "rename", lambda request, events: renamed)


def test_a_learned_name_ends_with_0_and_says_where_everything_is(run, monkeypatch):
    ends_with(monkeypatch, make_report())
    ran = run("rename", "--name", "黄大力")
    assert ran.code == 0
    assert "it is 黄大力 now" in ran.out
    assert "adapter: out/adapter" in ran.out
    assert "report: out/report.html" in ran.out


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
    assert f"{folder}/report.html" in run("rename", "--name", "A").out


def test_options_reach_the_job_as_they_were_given(run, monkeypatch, tmp_path: Path):
    seen = []

    def job(request, events):
        seen.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "rename", job)
    (tmp_path / "q.txt").write_text("Who?\nWhat?")
    (tmp_path / "r.jsonl").write_text('{"question": "2+2?", "answer": "4"}')
    run("rename", "m", "--name", "A", "--author", "B", "--persona", "P", "--lang", "en, zh",
        "--old", "x", "--old", "y", "--rows", 7, "--replay", 0.5, "--kl", 0.2, "--lr", 0.01,
        "--seed", 3, "--no-stop", "--evaluation-freq", 9, "--goal-recall", 90, "--goal-leak", 5,
        "--questions", tmp_path / "q.txt", "--retain", tmp_path / "r.jsonl", "--device", "cpu",
        "--dtype", "float32", "--out", tmp_path / "o", "--merge", "--overwrite", "--resume")  # fmt: skip
    (request,) = seen
    assert (request.identity.name, request.identity.author) == ("A", "B")
    assert request.identity.persona == "P"
    assert (request.model, request.languages) == ("m", ("en", "zh"))
    assert request.old_names == ("x", "y")
    assert (request.rows, request.replay_ratio, request.lr, request.seed) == (7, 0.5, 0.01, 3)
    assert request.kl_weight == 0.2
    learning = request.learning
    assert (learning.stop, learning.probe_every) == (False, 9)
    assert (learning.rule.recall, learning.rule.leak) == (90, 5)
    assert (request.goals.recall, request.goals.leak) == (90, 5)
    assert [q.language for q in request.own_questions] == ["en", "en"]
    assert len(request.retain.questions) == 1
    assert (request.device, request.dtype) == ("cpu", "float32")
    assert (request.out, request.merge, request.overwrite) == (tmp_path / "o", True, True)
    assert request.resume
    assert request.command.startswith("whoamai rename m --name A")


def test_it_stops_once_learned_unless_told_otherwise(run, monkeypatch):
    seen = []
    monkeypatch.setattr(recipe, "rename", lambda request, events: seen.append(request) or 1 / 0)
    for option in ((), ("--stop",), ("--no-stop",)):
        with pytest.raises(ZeroDivisionError):
            run("rename", "--name", "A", *option)
    assert [request.learning.stop for request in seen] == [True, True, False]


# ---- rename: stopped and gone on with ------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_ctrl_c_saves_and_says_how_to_go_on_and_resume_does(run, model: Path, monkeypatch):
    call = TrainListener.__call__

    def listener(self, event) -> None:
        call(self, event)
        if isinstance(event, Progress) and (event.stage, event.done) == ("train", 7):
            signal.raise_signal(signal.SIGINT)

    command = ("rename", model, "--name", "A", *TINY, "--out", "out", "--seed", 5)
    with monkeypatch.context() as patch:
        patch.setattr(TrainListener, "__call__", listener)
        ran = run(*command)
    assert ran.code == 130
    assert "Stopping: the step is finished and saved first." in ran.out
    assert "Stopped after step 7 of" in ran.err
    assert "--resume" in ran.err
    assert "Nothing was written" not in ran.err
    assert "Traceback" not in ran.err

    again = run(*command)
    assert again.code == 2
    assert "--resume" in again.err
    assert "--overwrite" in again.err
    other = run(*command[:-1], 6, "--resume")
    assert other.code == 2
    assert "--seed: 5 in the checkpoint, 6 now" in other.err

    done = run(*command, "--resume")
    assert done.code == 1, "a random model learns no name"
    assert "Going on after step 7 of" in done.out
    assert [path.name for path in Path.cwd().iterdir()] == ["out"]
    assert sorted(p.name for p in Path("out").iterdir()) == [
        "adapter",
        "events.jsonl",
        "report.html",
        "report.json",
    ]


@pytest.mark.usefixtures("short")
def test_probes_are_told_on_the_way(run, model: Path):
    ran = run("rename", model, "--name", "A", *TINY, "--out", "out")
    for step in (0, 5, 10):
        assert f"after step {step}: new name 0%" in ran.out


def test_resume_without_anything_to_go_on_with_is_refused(run):
    refused(run("rename", "--name", "A", "--resume"), "Leave out --resume")
