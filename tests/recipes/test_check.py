"""`check` on tiny random models: who is asked, what it is compared with, and what is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.reports import make_report
from tests.models import save_chat_model
from tests.recipes.rename_runs import EASY, request_for, run, shorten
from whoamai.data.identity import Identity, IdentityQuestion
from whoamai.data.retain import RetainFile
from whoamai.errors import DataError, ModelError, OutputError, SettingError
from whoamai.evaluate.report import Report
from whoamai.evaluate.report_file import read_report, report_json
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Note, Progress, Result, Stage
from whoamai.recipes.check import CheckRequest, check
from whoamai.samples import Conversation, Message

NAME = Identity("黄大力", "力量工作室")


@pytest.fixture(scope="module", autouse=True)
def _short():
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chu")


@pytest.fixture(scope="module")
def renamed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A renaming's folder, trained hard enough for the adapter to change what is said."""
    out = tmp_path_factory.mktemp("renamed") / "out"
    run(request_for(model, out, merge=True, lr=0.05, old_names=("小初",)))
    return out


def request(model: Path | str, **changes: Any) -> CheckRequest:
    return CheckRequest(str(model), **{"goals": EASY, "device": "cpu", **changes})


def checked(model: Path | str, **changes: Any) -> tuple[Report, list]:
    told: list = []
    return check(request(model, **changes), Events([told.append])), told


def notes(told: list) -> list[str]:
    return [e.text for e in told if isinstance(e, Note)]


# ---- a model alone -------------------------------------------------------------------------------


def test_a_model_alone_is_only_asked_who_it_is(model: Path):
    report, told = checked(model, identity=NAME)
    assert report.kind == "check"
    assert report.model == "chu"
    assert report.after.recall["all", "all"].n > 10
    compared = (report.before, report.retention, report.retention_long, report.spread)
    assert (*compared, report.obedience, report.divergence) == (None,) * 6
    assert {score.name for score in report.scores} <= {
        "recall", "recall_role", "leak", "author", "contradiction"
    }  # fmt: skip
    assert any("--base" in text for text in notes(told))
    assert [e.name for e in told if isinstance(e, Stage)] == ["load", "after"]
    assert set(report.hashes) == {"model"}


def test_a_name_that_it_does_not_give_was_not_learned(model: Path):
    from whoamai.evaluate.report import Goals

    report, _ = checked(model, identity=NAME, goals=Goals())
    assert "recall" in report.missed


def test_nobody_says_who_it_shall_be(model: Path):
    with pytest.raises(SettingError, match="Say --name NAME"):
        checked(model)


def test_what_was_asked_for_is_in_the_report(model: Path):
    changes = {"languages": ("en",), "seed": 3, "command": "whoamai check", "samples": 2}
    report, _ = checked(model, identity=NAME, **changes)
    details = report.details
    assert (details["languages"], details["seed"], details["command"]) == (
        ["en"],
        3,
        "whoamai check",
    )
    assert report.languages == ["en"]
    assert report.sampled
    asked = [answer for answer in report.answers if answer.context == "none"]
    assert report.sampled.recall["all", "all"].n == 2 * len(asked)


def test_the_users_own_questions_are_asked_and_counted(model: Path):
    own = IdentityQuestion("zh", "own", "none", Conversation((Message("user", "你是哪位？"),)))
    report, _ = checked(model, identity=NAME, own_questions=(own,))
    assert report.after.recall["group:own", "zh"].n == 1
    assert report.answers[-1].question == "你是哪位？"


# ---- adapters and renamings ----------------------------------------------------------------------


@pytest.mark.parametrize("part", ["", "adapter"])
def test_a_renaming_says_itself_who_it_shall_be(part: str, renamed: Path):
    report, told = checked(renamed / part)
    assert report.identity == NAME
    assert "小初" in report.old_names
    assert report.before
    assert report.retention
    assert report.obedience
    assert report.divergence
    assert report.divergence.kl["all"] > 0
    assert notes(told) == []
    assert [e.name for e in told if isinstance(e, Stage)] == ["load", "before", "after"]
    assert all(e.done <= e.total for e in told if isinstance(e, Progress))


def test_it_finds_what_the_renaming_found(renamed: Path):
    """The same questions, the same answers, the same counts: greedy answers draw no lots."""
    from_rename, (report, _) = read_report(renamed / "report.json"), checked(renamed)
    found, before = report_json(report), report_json(from_rename)
    for part in ("before", "after", "retention", "retention_long", "spread", "obedience"):
        assert found[part] == before[part], part
    assert [a["after"] for a in found["answers"]] == [a["after"] for a in before["answers"]]
    assert found["hashes"] == {k: v for k, v in before["hashes"].items() if k != "merged"}
    assert found["old_names"] == before["old_names"]


def test_another_name_can_be_asked_for(renamed: Path):
    report, _ = checked(renamed, identity=Identity("Aurora"))
    assert report.identity == Identity("Aurora")


def test_the_same_name_alone_keeps_the_old_names_of_the_report(renamed: Path):
    report, _ = checked(renamed / "merged", identity=Identity("黄大力"))
    assert report.identity == Identity("黄大力"), "no author was named"
    assert list(report.old_names) == ["小初"]


def test_an_adapter_is_put_on_the_model_that_is_named(renamed: Path, model: Path):
    on_model, _ = checked(model, adapter=renamed / "adapter")
    assert on_model.identity == NAME
    assert on_model.after == checked(renamed)[0].after
    assert str(renamed / "adapter") in on_model.model


def test_an_adapter_of_another_model_is_refused(renamed: Path, tmp_path: Path):
    other = save_chat_model(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="trained on another model than other"):
        checked(other, adapter=renamed / "adapter", identity=NAME)


def test_an_adapter_has_its_own_base(renamed: Path, model: Path):
    with pytest.raises(SettingError, match="leave out --base"):
        checked(renamed, base=str(model))


# ---- merged models -------------------------------------------------------------------------------


def test_a_merged_model_knows_its_name_and_is_compared_with_its_base(renamed: Path, model: Path):
    alone, told = checked(renamed / "merged")
    assert alone.identity == NAME
    assert alone.before is None
    assert any("--base" in text for text in notes(told))
    compared, _ = checked(renamed / "merged", base=str(model))
    assert compared.before
    assert compared.retention
    assert compared.divergence
    assert compared.divergence.kl["all"] > 0
    assert compared.after == alone.after


def test_a_model_compared_with_itself_lost_nothing(model: Path):
    report, _ = checked(model, base=str(model), identity=NAME)
    assert report.divergence
    assert report.divergence.kl["all"] == 0
    assert report.before == report.after
    assert report.spread
    assert report.spread.before == report.spread.after


def test_models_of_other_tokens_cannot_be_compared(model: Path, tmp_path: Path):
    other = save_chat_model(tmp_path / "other", vocab_size=400)
    with pytest.raises(ModelError, match="cannot be compared"):
        checked(model, base=str(other), identity=NAME)


# ---- reports that cannot be read -----------------------------------------------------------------


@pytest.fixture
def damaged(renamed: Path, tmp_path: Path) -> Callable[[str], Path]:
    def damage(content: str) -> Path:
        out = shutil.copytree(renamed, tmp_path / "out")
        (out / "report.json").write_text(content, "utf-8")
        return out

    return damage


BAD = {
    "an older format": (json.dumps({"format": 1, "scores": {}}), "it is of format 1"),
    "no format": ("{}", '"format" is missing'),
    "no JSON": ("{oops", "is no report"),
    "somebody else's": ("[1, 2]", "is no report"),
    "empty": ("", "is no report"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_report_that_cannot_be_read_is_told_and_a_name_is_the_cure(
    what: str, damaged: Callable[[str], Path]
):
    content, reason = BAD[what]
    out = damaged(content)
    with pytest.raises(SettingError) as error:
        checked(out)
    assert reason in str(error.value)
    assert "--name NAME" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    report, told = checked(out, identity=NAME)
    assert report.identity == NAME
    assert [text for text in notes(told) if reason in text]


def test_languages_we_do_not_have_are_left_out_of_what_a_report_says(
    damaged: Callable[[str], Path], renamed: Path
):
    found = json.loads((renamed / "report.json").read_text("utf-8"))
    found["details"]["languages"] = ["fr", "en"]
    report, _ = checked(damaged(json.dumps(found)))
    assert report.details["languages"] == ["en"]


# ---- what is written -----------------------------------------------------------------------------


def test_the_report_is_written_where_it_is_said(model: Path, tmp_path: Path):
    report, told = checked(model, identity=NAME, out=tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]
    assert report_json(read_report(tmp_path / "out" / "report.json")) == report_json(report)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "黄大力" in page
    (scores,) = [e.data for e in told if isinstance(e, Result) and e.name == "scores"]
    assert scores == report_json(report)["scores"]


def test_without_a_place_nothing_is_written(model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked(model, identity=NAME)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_report_is_replaced_only_when_told_to(model: Path, tmp_path: Path):
    make_report().write(tmp_path / "report.json")
    with pytest.raises(SettingError, match="--overwrite"):
        checked(model, identity=NAME, out=tmp_path)
    checked(model, identity=NAME, out=tmp_path, overwrite=True)
    assert read_report(tmp_path / "report.json").kind == "check"


@pytest.mark.parametrize("into", ["itself", "above it", "another renaming", "its adapter"])
def test_no_report_takes_the_place_of_a_model(
    into: str, renamed: Path, model: Path, tmp_path: Path
):
    """With --overwrite a folder is replaced as a whole: the adapter in it would be gone."""
    out = shutil.copytree(renamed, tmp_path / "work" / "out")
    shutil.copy(out / "report.json", tmp_path / "work")
    shutil.copy(out / "report.json", out / "adapter")
    asked, place = {
        "itself": (out, out),
        "above it": (out, tmp_path / "work"),
        "another renaming": (model, out),
        "its adapter": (out, out / "adapter"),
    }[into]
    with pytest.raises(SettingError, match="holds a model or an adapter"):
        checked(asked, identity=NAME, out=place, overwrite=True)
    assert (out / "adapter" / "adapter_model.safetensors").is_file()


def test_a_check_that_fails_leaves_nothing(model: Path, tmp_path: Path, monkeypatch):
    def broken(self: Talk, conversations: Sequence[Conversation], stage: Any, **_: Any) -> list:
        raise KeyboardInterrupt

    monkeypatch.setattr(Talk, "answers", broken)
    with pytest.raises(KeyboardInterrupt):
        checked(model, identity=NAME, out=tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_in_one_sentence(model: Path, tmp_path: Path, monkeypatch):
    def full(report: Report, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("whoamai.recipes.check.write_html", full)
    with pytest.raises(OutputError, match="No space left") as error:
        checked(model, identity=NAME, out=tmp_path / "out")
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# ---- what is refused, and how it is loaded -------------------------------------------------------


def test_what_is_wrong_is_told_together_before_a_model_is_loaded(tmp_path: Path):
    (tmp_path / "file").touch()
    wrong = {"languages": ("fr",), "old_names": ("",), "out": tmp_path / "file"}
    with pytest.raises(SettingError) as error:
        checked(tmp_path / "no-model", identity=NAME, **wrong)
    told = str(error.value).splitlines()
    assert len(told) == 3
    for part in ("--lang fr", "--old is empty", "is a file"):
        assert part in str(error.value)


def test_a_model_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(ModelError, match="no model folder"):
        checked(tmp_path / "no-model", identity=NAME)


def test_a_template_can_be_named(model: Path):
    report, _ = checked(model, identity=NAME, template="zephyr")
    own, _ = checked(model, identity=NAME)
    assert [a.after for a in report.answers] != [a.after for a in own.answers]
    with pytest.raises((SettingError, DataError), match="no-such"):
        checked(model, identity=NAME, template="no-such")


def test_what_is_checked_is_left_as_it_was(renamed: Path):
    files = {p: p.read_bytes() for p in renamed.rglob("*") if p.is_file()}
    checked(renamed, samples=1)
    assert {p: p.read_bytes() for p in renamed.rglob("*") if p.is_file()} == files


def test_files_of_what_must_be_kept_are_asked_too(renamed: Path):
    from whoamai.data.general import general_questions, general_texts

    retain = RetainFile(tuple(general_questions(("zh",), 3)), tuple(general_texts(("zh",), 2)))
    plain, more = checked(renamed)[0], checked(renamed, retain=retain)[0]
    assert plain.retention
    assert more.retention
    n = plain.retention.right_before["all"].n
    assert more.retention.right_before["all"].n == n + 3
    assert plain.divergence
    assert more.divergence
    assert more.divergence.n_tokens["zh"] > plain.divergence.n_tokens["zh"]
