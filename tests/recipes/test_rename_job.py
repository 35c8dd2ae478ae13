"""A renaming that is stopped, killed or fails on the way: what is left, and how it goes on."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.models import save_chat_model
from tests.recipes.rename_runs import adapter_of, request_for, run, script_probes, shorten
from tests.recipes.test_rename_rows import write
from whoamai.data.identity import Identity, IdentityQuestion
from whoamai.engine.until_learned import run_out_after
from whoamai.errors import ModelError, OutputError, SettingError
from whoamai.evaluate.identity import SelfDescription
from whoamai.evaluate.talk import Talk
from whoamai.events import Event, Note, Progress, Stage
from whoamai.recipes import rename_request
from whoamai.recipes.exam import Answers
from whoamai.recipes.rename import RenameRequest, RenameStopped
from whoamai.recipes.rename_job import (
    Known,
    job_facts,
    job_folder,
    read_known,
    unfinished,
    write_known,
)
from whoamai.recipes.rename_learning import LearningSettings
from whoamai.samples import Conversation, Message

# Learned at 5, known at 10, and run out after STEPS of those PLANNED.
STEPS, PLANNED = 10 + run_out_after(10), 21
LEARNED = {5: 99, 10: 99, STEPS: 99}
KEPT_EVERY = LearningSettings(save_steps=4)


@pytest.fixture(scope="module", autouse=True)
def _short():
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        script_probes(patch, LEARNED)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chu")


def job(model: Path, out: Path, **changes: Any) -> RenameRequest:
    given = {"rows": 76, "replay_ratio": 0.1, "learning": KEPT_EVERY, **changes}
    return request_for(model, out, **given)


def at(step: int, do: Callable[[], Any]) -> Callable[[Event], None]:
    def listener(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "train" and event.done == step:
            do()

    return listener


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def stopped(request: RenameRequest, step: int) -> RenameStopped:
    """Ctrl-C after `step`."""
    with pytest.raises(RenameStopped) as ended:
        run(request, at(step, ctrl_c))
    return ended.value


def partial(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def result(out: Path) -> dict[str, Any]:
    """The report without what differs from sitting to sitting."""
    report = json.loads((out / "report.json").read_text("utf-8"))
    del report["details"]["seconds"], report["details"]["training"]["seconds"]
    for key in ("seconds", "seconds_saved"):
        del report["stop"][key]
    return report


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A renaming that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "out"
    renamed, _ = run(job(model, out))
    assert renamed.report.stop
    assert (renamed.report.stop.stopped_at, renamed.report.stop.planned) == (STEPS, PLANNED)
    return out


# ---- stopped and gone on with --------------------------------------------------------------------


# 10 is where it is cut short, from there on the rate runs out.
@pytest.mark.parametrize("step", [1, 6, 10, 12])
def test_a_stopped_renaming_comes_to_the_same_end(
    step: int, model: Path, whole: Path, tmp_path: Path
):
    out = tmp_path / "out"
    told = stopped(job(model, out), step)
    assert told.exit_code == 130
    total = PLANNED if step < 10 else STEPS
    assert f"Stopped after step {step} of {total}, and saved." in str(told)
    assert "--resume" in str(told)
    assert not out.exists()
    assert unfinished(out)

    _, heard = run(job(model, out, resume=True))
    assert adapter_of(out) == adapter_of(whole)
    assert result(out) == result(whole)
    assert any("Going on after step" in e.text for e in heard if isinstance(e, Note))
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_model_is_not_asked_again_what_it_said_before(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str | None] = []
    answers = Talk.answers

    def counted(self: Talk, conversations: Any, stage: str | None, **how: Any) -> list[str]:
        asked.append(stage)
        return answers(self, conversations, stage, **how)

    monkeypatch.setattr(Talk, "answers", counted)
    stopped(job(model, tmp_path / "out"), 6)
    assert asked.count("before") == 2  # who it is, and the exam
    assert asked.count("replay") == 1
    asked.clear()
    _, heard = run(job(model, tmp_path / "out", resume=True))
    assert "before" not in asked
    assert "replay" not in asked
    stages = [e.name for e in heard if isinstance(e, Stage)]
    assert stages == ["load", "train", "after", "save"]


def test_stopped_at_once_while_it_is_asked_again_nothing_trained_is_lost(
    model: Path, whole: Path, tmp_path: Path
):
    """There is no step to be finished: the first Ctrl-C is enough."""

    def listener(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "after":
            ctrl_c()

    out = tmp_path / "out"
    with pytest.raises(RenameStopped, match="--resume") as ended:
        run(job(model, out), listener)
    assert ended.value.exit_code == 130
    _, heard = run(job(model, out, resume=True))
    assert not [e for e in heard if isinstance(e, Progress) and e.stage == "train"]
    assert adapter_of(out) == adapter_of(whole)
    assert result(out) == result(whole)


def test_ctrl_c_twice_does_not_wait_for_the_checkpoint(model: Path, tmp_path: Path):
    def twice() -> None:
        ctrl_c()
        ctrl_c()

    out = tmp_path / "out"
    with pytest.raises(RenameStopped, match="saved before"):
        run(job(model, out), at(6, twice))
    assert unfinished(out), "the one after step 4"
    with pytest.raises(KeyboardInterrupt):
        run(job(model, out, overwrite=True), at(2, twice))
    assert list(tmp_path.iterdir()) == [], "there was none yet"


def test_earlier_results_stay_until_the_one_that_was_stopped_is_done(model: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text("old")
    stopped(job(model, out, overwrite=True), 6)
    assert (out / "report.json").read_text() == "old"
    run(job(model, out, overwrite=True, resume=True))
    assert json.loads((out / "report.json").read_text("utf-8"))["format"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


# ---- something else is asked for -----------------------------------------------------------------


@pytest.fixture(scope="module")
def left(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a stopped renaming left."""
    out = tmp_path_factory.mktemp("left") / "out"
    stopped(job(model, out), 6)
    return out


@pytest.fixture
def out(left: Path, tmp_path: Path) -> Path:
    """A copy of it, to be gone on with."""
    shutil.copytree(partial(left), partial(tmp_path / "out"))
    return tmp_path / "out"


OWN = IdentityQuestion("zh", "own", "none", Conversation((Message("user", "谁？"),)))
# What is asked for otherwise, and how the difference is told.
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "--name": ({"identity": Identity("Aurora", "力量工作室")}, '"黄大力" in the checkpoint, "Aurora"'),
    "--author": ({"identity": Identity("黄大力")}, '"力量工作室" in the checkpoint, null now'),
    "--lr": ({"lr": 1e-4}, "null in the checkpoint, 0.0001 now"),
    "--seed": ({"seed": 3}, "0 in the checkpoint, 3 now"),
    "--rows": ({"rows": 77}, "76 in the checkpoint, 77 now"),
    "--replay": ({"replay_ratio": 0.2}, "0.1 in the checkpoint, 0.2 now"),
    "--lang": ({"languages": ("zh",)}, '["zh", "en"] in the checkpoint, ["zh"] now'),
    "--old": ({"old_names": ("小布",)}, '[] in the checkpoint, ["小布"] now'),
    "--stop": ({"learning": replace(KEPT_EVERY, stop=False)}, "true in the checkpoint, false now"),
    "--questions": ({"own_questions": (OWN,)}, '"0" in the checkpoint, "1 ('),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_another_renaming_does_not_go_on_with_it(what: str, model: Path, out: Path):
    changes, difference = OTHERS[what]
    request = replace(job(model, out, resume=True), **changes)
    with pytest.raises(SettingError) as error:
        run(request)
    assert f"{what}: {difference}" in str(error.value)
    assert str(error.value).count("in the checkpoint,") == 1, "only what differs is named"
    assert "--overwrite" in str(error.value)
    assert unfinished(out), "the right one can still go on"


def test_another_model_does_not_go_on_with_it(out: Path, tmp_path: Path):
    other = save_chat_model(tmp_path / "other", seed=1)
    with pytest.raises(SettingError, match="model: "):
        run(job(other, out, resume=True))
    assert unfinished(out)


def test_data_that_changed_meanwhile_is_not_gone_on_with(model: Path, tmp_path: Path):
    file, out = tmp_path / "d.jsonl", tmp_path / "out"
    write(file, "我是小初。", "我叫小初。")
    stopped(job(model, out, data=(file,)), 6)
    write(file, "我是小初。", "我叫小初呀。")
    with pytest.raises(SettingError, match="tokens and targets: not the same"):
        run(job(model, out, data=(file,), resume=True))


def test_without_resume_both_cures_are_told(model: Path, out: Path):
    with pytest.raises(SettingError) as error:
        run(job(model, out))
    assert "--resume" in str(error.value)
    assert "--overwrite" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert unfinished(out)


def test_with_overwrite_it_begins_anew(model: Path, whole: Path, out: Path):
    _, heard = run(job(model, out, overwrite=True))
    assert "before" in [e.name for e in heard if isinstance(e, Stage)]
    steps = [e.done for e in heard if isinstance(e, Progress) and e.stage == "train"]
    assert steps == list(range(1, STEPS + 1))
    assert adapter_of(out) == adapter_of(whole)
    rows = [json.loads(line) for line in (out / "events.jsonl").read_text("utf-8").splitlines()]
    told = [row for row in rows if row["event"] == "stage" and row["name"] == "load"]
    assert len(told) == 1, "nothing of the one before is left in it"


def test_resume_with_nothing_to_go_on_with_is_told_before_any_work(tmp_path: Path):
    with pytest.raises(SettingError, match=r"no unfinished renaming for .*Leave out --resume"):
        run(job(tmp_path / "no-model", tmp_path / "out", resume=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", '{"format": 0}', '{"format": 1}', "{oops"])
def test_what_was_found_out_before_and_cannot_be_read_is_told(content: str, model: Path, out: Path):
    (partial(out) / "job.json").write_text(content)
    with pytest.raises(ModelError, match=r"job\.json was not written by this version"):
        run(job(model, out, resume=True))


# ---- failures ------------------------------------------------------------------------------------


class _Defect(Exception):
    pass


def fail() -> None:
    raise _Defect


def test_a_failure_before_the_first_checkpoint_leaves_nothing(model: Path, tmp_path: Path):
    with pytest.raises(_Defect):
        run(job(model, tmp_path / "work" / "out"), at(3, fail))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_behind_a_checkpoint_can_be_gone_on_from(
    model: Path, whole: Path, tmp_path: Path
):
    out = tmp_path / "out"
    with pytest.raises(_Defect):
        run(job(model, out), at(7, fail))
    _, heard = run(job(model, out, resume=True))
    steps = [e.done for e in heard if isinstance(e, Progress) and e.stage == "train"]
    assert steps == list(range(5, STEPS + 1))
    assert adapter_of(out) == adapter_of(whole)
    assert result(out) == result(whole)


def test_half_written_results_of_the_sitting_before_are_not_taken_over(
    model: Path, whole: Path, out: Path
):
    """Stopped while it was merged, gone on with without merging."""
    for name in ("adapter", "merged"):
        (partial(out) / name).mkdir()
        (partial(out) / name / "half").touch()
    (partial(out) / "report.json").write_text("half")
    run(job(model, out, resume=True))
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())
    assert not (out / "adapter" / "half").exists()
    assert adapter_of(out) == adapter_of(whole)


# ---- two at once ---------------------------------------------------------------------------------


def test_a_second_renaming_into_the_same_folder_is_refused(
    model: Path, whole: Path, tmp_path: Path
):
    out, refusals = tmp_path / "out", []

    def another() -> None:
        for changes in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(SettingError) as error:
                run(job(model, out, **changes))
            refusals.append(str(error.value))

    run(job(model, out), at(2, another))
    assert len(refusals) == 3
    for text in refusals:
        assert "Another renaming is writing to" in text
        assert str(out) in text
        assert len(text.splitlines()) == 1
    assert adapter_of(out) == adapter_of(whole)


@pytest.mark.parametrize("resume", [False, True])
def test_one_that_began_in_the_very_same_moment_is_refused_by_the_lock(
    resume: bool, model: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither knew of the other when it looked; the first one's folder stays as it is."""
    monkeypatch.setattr(rename_request, "problems_with_unfinished", lambda *_, **__: [])
    out = tmp_path / "out"

    def another() -> None:
        files = sorted(partial(out).rglob("*"))
        with pytest.raises(OutputError, match="Another renaming is writing to"):
            run(job(model, out, resume=resume))
        assert sorted(partial(out).rglob("*")) == files

    run(job(model, out), at(2, another))
    assert adapter_of(out) == adapter_of(whole)
    assert result(out) == result(whole)
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_what_a_killed_one_left_is_in_nobodys_way(model: Path, whole: Path, tmp_path: Path):
    out = tmp_path / "out"
    partial(out).mkdir()
    for name in (".lock", "events.jsonl", "job.json", ".job.json.partial"):
        (partial(out) / name).write_text("half")
    run(job(model, out))
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())


# ---- the files -----------------------------------------------------------------------------------


def known() -> Known:
    turns = (Message("system", "“{x}”\n"), Message("user", "?"), Message("assistant", "é", True))
    return Known(
        SelfDescription(("小初", "Chu"), ("初心实验室",)),
        Answers(("a", ""), ("b",), (), ("c",)),
        (Conversation(turns), Conversation(turns[1:])),
    )


def test_what_was_found_out_is_written_and_read_again(tmp_path: Path):
    facts = job_facts(Identity("黄大力"), {"--lr": 0.1, "--data": []})
    write_known(tmp_path, known(), facts)
    assert read_known(tmp_path, facts) == known()
    assert [p.name for p in tmp_path.iterdir()] == ["job.json"]


def test_where_nothing_was_found_out_there_is_nothing(tmp_path: Path):
    assert read_known(tmp_path, {}) is None


def test_the_folder_of_a_finished_job_holds_nothing_to_go_on_with(tmp_path: Path):
    with job_folder(tmp_path / "out", resume=False) as folder:
        for name in ("checkpoints", "best"):
            (folder / name).mkdir()
            (folder / name / "x").touch()
        (folder / "job.json").touch()
        (folder / "adapter").mkdir()
        assert (folder / ".lock").exists()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["adapter"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
