"""`whoamai train`, as a person types it."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from tests.models import save_chat_model
from tests.recipes.train_runs import STEPS, journal, steps_in, write_rows, write_settings
from whoamai.cli import main
from whoamai.cli_train import _with_value
from whoamai.events import Progress
from whoamai.terminal_train import LineListener

Ran = namedtuple("Ran", "code out err")
SETTING = "train.lr=4e-3"


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run `whoamai train` with arguments, from an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["whoamai", "train", *map(str, arguments)])
        code: str | int | None = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        return Ran(code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    model, rows = save_chat_model(folder / "model"), write_rows(folder / "rows.jsonl")
    return write_settings(folder, model, rows)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch):
    """Let Ctrl-C be pressed after a step."""
    call = LineListener.__call__

    def after(step: int, *, times: int = 1) -> None:
        def listener(self: LineListener, event) -> None:
            call(self, event)
            if isinstance(event, Progress) and event.done == step:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(LineListener, "__call__", listener)

    return after


def refused(ran: Ran, *parts: object) -> None:
    """Exit code 2, one message that holds `parts`, no traceback, nothing written."""
    assert ran.code == 2, ran.err
    assert "Traceback" not in ran.err + ran.out
    for part in parts:
        assert str(part) in ran.err
    assert list(Path.cwd().iterdir()) == []


# ---- help, and what is typed wrong ---------------------------------------------------------------


@pytest.mark.parametrize("part", ["CONFIG", "--work-dir", "--resume", "--allow", "--quiet",
                                  "[CHECKPOINT]", "list-cfg", "SECTION.KEY=VALUE"])  # fmt: skip
def test_the_help_says_what_can_be_typed(train, part: str):
    ran = train("--help")
    assert ran.code == 0
    assert part in ran.out


def test_an_unknown_config_is_told_with_the_nearest(train):
    refused(train("tiny_chat_lora_identiy"), "tiny_chat_lora_identity", "list-cfg")


def test_a_missing_config_is_told(train):
    refused(train(), "Missing argument")
    refused(train("--resume"), "Missing argument")


def test_wrong_settings_are_told_all_together(train, config: Path):
    ran = train(config, "train.lrr=1", "data.max_length=many", "nonsense")
    refused(ran, "train.lrr", "train.lr", "data.max_length", "nonsense")


def test_what_would_waste_the_run_is_told_with_its_cure(train, config: Path):
    ran = train(config, "train.batch_size=24")
    refused(ran, "Error: Not started, because of few-steps.", "--allow few-steps")


def test_a_kind_nobody_knows_is_told(train, config: Path):
    refused(train(config, "--allow", "few-stepz"), "few-stepz", "few-steps")


def test_a_folder_that_is_no_checkpoint_is_told(train, config: Path, tmp_path: Path):
    ran = train(config, "--resume", tmp_path)
    assert ran.code == 2
    assert "is not a complete checkpoint" in ran.err


# ---- a run ---------------------------------------------------------------------------------------


def test_a_run_into_a_file_is_told_in_lines(train, config: Path):
    ran = train(config)
    assert (ran.code, ran.err) == (0, "")
    assert "\x1b" not in ran.out
    assert f"{STEPS}/{STEPS}  loss: " in ran.out
    assert "adapter: work_dirs/mine/adapter" in ran.out
    assert f"Trained: {STEPS} of {STEPS} optimizer steps." in ran.out.splitlines()[-1]
    assert (Path.cwd() / "work_dirs" / "mine" / "adapter" / "adapter_config.json").exists()


@pytest.mark.parametrize("quiet", [True, False])
def test_a_terminal_shows_bars_but_not_with_quiet(
    quiet: bool, train, config: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    ran = train(config, *(["--quiet"] if quiet else []))
    assert ran.code == 0
    assert ("━" in ran.out) == (not quiet)
    assert (f"{STEPS}/{STEPS}  loss: " in ran.out) == quiet


def test_a_terminal_that_knows_few_signs_shows_question_marks(
    train, config: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WHOAMAI_LANG", "zh")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    ran = train(config)
    assert (ran.code, ran.err) == (0, "")
    sys.stdout.flush()
    assert b"???" in raw.getvalue()
    assert f"{STEPS}/{STEPS}  loss: ".encode() in raw.getvalue()


def test_settings_folder_and_allowed_kinds_are_taken(train, config: Path):
    ran = train(
        config, SETTING, "train.batch_size=24", "--work-dir", "w", "--allow", "few-steps",
        "log.interval=2",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = steps_in(Path("w"))
    assert len(found) == 4
    assert found[0]["values"]["lr"] == 4e-3
    assert "2/4  loss" in ran.out
    written = Path("w/config.yaml").read_text("utf-8")
    assert "few-steps" in written
    assert not Path("work_dirs").exists()


def test_a_run_that_is_there_is_not_overwritten(train, config: Path):
    train(config)
    ran = train(config)
    assert ran.code == 2
    assert "holds the finished run of mine" in ran.err
    assert "--work-dir" in ran.err


# ---- stopped and gone on with --------------------------------------------------------------------


def test_a_stopped_run_says_how_to_go_on_and_that_goes_on(train, config: Path, interrupted):
    interrupted(7)
    ran = train(config)
    assert ran.code == 130
    assert f"Stopped after step 7 of {STEPS}" in ran.out
    command = ran.out.partition("Go on with:\n  whoamai train ")[2].strip()
    assert command == "work_dirs/mine/config.yaml --resume"
    assert "adapter:" not in ran.out

    interrupted(0)
    ran = train(*command.split())
    assert ran.code == 0, ran.err
    assert f"Going on after step 7 of {STEPS}." in ran.out
    plan = next(e for e in journal(Path("work_dirs/mine"))[::-1] if e.get("name") == "plan")
    assert plan["data"]["name"] == "mine"

    ran = train(*command.split())
    assert ran.code == 0
    assert f"all {STEPS} steps are done" in ran.out
    assert "adapter: work_dirs/mine/adapter" in ran.out


def test_a_run_goes_on_from_the_checkpoint_that_is_named(train, config: Path, interrupted):
    interrupted(12)
    train(config)
    interrupted(0)
    ran = train(config, "--resume", "work_dirs/mine/checkpoints/step_000010", SETTING)
    assert ran.code == 2
    assert "train.lr: 0.005 in the checkpoint, 0.004 now" in ran.err
    ran = train(config, "--resume", "work_dirs/mine/checkpoints/step_000010")
    assert ran.code == 0, ran.err
    assert f"Going on after step 10 of {STEPS}." in ran.out


def test_a_second_ctrl_c_stops_at_once(train, config: Path, interrupted):
    interrupted(7, times=2)
    ran = train(config)
    assert ran.code == 130
    assert "Stopped at once. With --resume it goes on" in ran.err
    assert "Traceback" not in ran.err + ran.out


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["c.yaml", "--resume"], ["c.yaml", "--resume=last"]),
        (["c.yaml", "--resume", "w/step_000010"], ["c.yaml", "--resume", "w/step_000010"]),
        (["c.yaml", "--resume", "--quiet"], ["c.yaml", "--resume=last", "--quiet"]),
        (["c.yaml", "--resume", SETTING], ["c.yaml", "--resume=last", SETTING]),
        (["--resume", "c.yaml"], ["--resume=last", "c.yaml"]),
        (["--resume", "a/c.yml", SETTING], ["--resume=last", "a/c.yml", SETTING]),
        (["--resume", "tiny_chat_lora_identity"], ["--resume=last", "tiny_chat_lora_identity"]),
        (["--resume", "w/lr=2", "c.yaml"], ["--resume", "w/lr=2", "c.yaml"]),
        (["--resume=w/a", "c.yaml"], ["--resume=w/a", "c.yaml"]),
        (["c.yaml", "--resume", ""], ["c.yaml", "--resume=last", ""]),
    ],
)
def test_resume_stands_alone_or_with_a_folder(
    typed: list[str], read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w" / "lr=2").mkdir(parents=True)
    assert list(_with_value(typed)) == read
