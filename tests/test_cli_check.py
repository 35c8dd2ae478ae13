"""`whoamai check`, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli_runs import Run, refused, runner
from tests.evaluate.reports import make_report
from tests.models import save_chat_model
from tests.recipes.rename_runs import request_for, shorten
from tests.recipes.rename_runs import run as rename
from whoamai.evaluate.identity import Share
from whoamai.evaluate.report_file import read_report
from whoamai.recipes import check as recipe


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chu")


@pytest.fixture(scope="module")
def short():
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, tokens=2)
        yield


@pytest.fixture(scope="module")
def renamed(short, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("renamed") / "out"
    rename(request_for(model, out))
    return out


@pytest.mark.parametrize("option", ["--name", "--author", "--old", "--adapter", "--base", "--lang",
                                    "--questions", "--retain", "--samples", "--template", "--seed",
                                    "--goal-recall", "--goal-leak", "--quantization", "--device",
                                    "--out", "--overwrite"])  # fmt: skip
def test_the_help_lists_its_options(run, option: str):
    assert option in run("check", "--help").out


# ---- how it ends ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
def test_a_model_that_does_not_give_the_name_ends_with_1(run, model: Path):
    ran = run("check", model, "--name", "黄大力", "--out", "report", "--lang", "en")
    assert ran.code == 1, ran.err
    assert "NOT learned" in ran.out
    assert "report: report/report.html" in ran.out
    report = read_report(Path("report/report.json"))
    assert (report.kind, report.identity.name, report.languages) == ("check", "黄大力", ["en"])
    assert report.details["command"].startswith("whoamai check ")
    assert Path("report/report.html").is_file()


@pytest.mark.usefixtures("short")
def test_a_renaming_is_checked_by_its_folder_alone(run, renamed: Path):
    ran = run("check", renamed)
    assert ran.code == 1, "a random model learns no name"
    assert "NOT learned" in ran.out
    assert "Asking what it was before" in ran.out
    assert list(Path.cwd().iterdir()) == [], "no report was asked for"


def ends_with(monkeypatch: pytest.MonkeyPatch, **changes) -> list:
    seen: list = []
    monkeypatch.setattr(
        recipe, "check", lambda request, events: seen.append(request) or make_report(**changes)
    )
    return seen


def test_a_name_that_is_given_ends_with_0(run, monkeypatch):
    ends_with(monkeypatch, kind="check")
    ran = run("check", "m", "--name", "黄大力")
    assert (ran.code, ran.err) == (0, "")
    assert "黄大力" in ran.out
    assert "report:" not in ran.out


def test_a_missed_goal_ends_with_1(run, monkeypatch):
    ends_with(monkeypatch, kind="check", recall=Share(50, 100))
    assert run("check", "m", "--name", "黄大力").code == 1


def test_options_reach_the_job_as_they_were_given(run, monkeypatch, tmp_path: Path):
    seen = ends_with(monkeypatch)
    (tmp_path / "q.txt").write_text("Who?")
    (tmp_path / "r.jsonl").write_text('{"question": "2+2?", "answer": "4"}')
    run("check", "m", "--name", "A", "--author", "B", "--old", "x", "--old", "y", "--adapter", "a",
        "--base", "b", "--lang", "en", "--questions", tmp_path / "q.txt",
        "--retain", tmp_path / "r.jsonl", "--samples", 4, "--template", "zephyr", "--seed", 3,
        "--goal-recall", 90, "--goal-leak", 5, "--quantization", "nf4", "--device", "cpu",
        "--out", "o", "--overwrite")  # fmt: skip
    (request,) = seen
    assert (request.model, request.identity.name, request.identity.author) == ("m", "A", "B")
    assert (request.old_names, request.languages) == (("x", "y"), ("en",))
    assert (request.adapter, request.base) == (Path("a"), "b")
    assert [q.language for q in request.own_questions] == ["en"]
    assert len(request.retain.questions) == 1
    assert (request.samples, request.template, request.seed) == (4, "zephyr", 3)
    assert (request.goals.recall, request.goals.leak) == (90, 5)
    assert (request.quantization, request.device) == ("nf4", "cpu")
    assert (request.out, request.overwrite) == (Path("o"), True)


def test_what_is_not_said_is_left_to_the_report_beside_the_model(run, monkeypatch):
    (request,) = [ends_with(monkeypatch), run("check", "m")][0]
    assert (request.identity, request.languages, request.old_names) == (None, None, ())
    assert (request.out, request.adapter, request.base) == (None, None, None)


# ---- what is refused -----------------------------------------------------------------------------


def test_a_model_that_does_not_exist_is_refused(run, tmp_path: Path):
    refused(run("check", tmp_path / "no", "--name", "A"), "no model folder", tmp_path / "no")


def test_a_model_nobody_gave_a_name_is_refused(run, model: Path):
    refused(run("check", model), "Say --name NAME")


@pytest.mark.parametrize("name", ["", " ", "a\tb"])
def test_a_name_that_cannot_be_used_is_refused(run, model: Path, name: str):
    refused(run("check", model, "--name", name), "--name")


@pytest.mark.parametrize("given", ["fr", "", ","])
def test_a_language_we_do_not_have_is_refused(run, model: Path, given: str):
    refused(run("check", model, "--name", "A", "--lang", given), "--lang", "zh, en")


@pytest.mark.parametrize(
    "wrong",
    [("--samples", "-1"), ("--samples", "101"), ("--seed", "-1"), ("--goal-recall", "101"),
     ("--quantization", "nf8"), ("--author", "B")],
    ids=" ".join,
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(run, tmp_path: Path, wrong: tuple[str, str]):
    ran = run(
        "check", tmp_path / "no", *(() if wrong[0] == "--author" else ("--name", "A")), *wrong
    )
    assert ran.code == 2
    assert wrong[0] in ran.err
    assert "no model folder" not in ran.err


def test_an_empty_old_name_is_refused(run, model: Path):
    refused(run("check", model, "--name", "A", "--old", ""), "--old")


def test_a_template_we_do_not_have_is_refused(run, model: Path):
    refused(run("check", model, "--name", "A", "--template", "no-such"), "no-such")


def test_a_folder_that_is_no_adapter_is_refused(run, model: Path, tmp_path: Path):
    refused(run("check", model, "--name", "A", "--adapter", tmp_path), "is no adapter", tmp_path)


@pytest.mark.usefixtures("short")
def test_a_base_beside_an_adapter_is_refused(run, renamed: Path, model: Path):
    refused(run("check", renamed, "--base", model), "--base")


@pytest.mark.usefixtures("short")
def test_the_report_never_takes_the_place_of_what_is_checked(run, renamed: Path):
    refused(run("check", renamed, "--out", renamed, "--overwrite"), "Choose another --out")
    assert (renamed / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.usefixtures("short")
def test_a_report_of_an_older_version_is_told_with_the_cure(run, renamed: Path, tmp_path: Path):
    import shutil

    out = shutil.copytree(renamed, tmp_path / "out")
    (out / "report.json").write_text(json.dumps({"format": 1}))
    refused(run("check", out), "format 1", "--name NAME")
    ran = run("check", out, "--name", "黄大力", "--lang", "en")
    assert ran.code == 1
    assert "format 1" in ran.out
