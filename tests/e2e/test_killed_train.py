"""`train` killed at any moment and gone on with leaves what a run leaves that was left alone."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.killed_train import run_and_exit
from tests.models import save_chat_model
from tests.recipes.train_runs import STEPS, answers_in, steps_in, write_rows, write_settings
from whoamai.engine.checkpoint import find_checkpoints, last_checkpoint, read_state
from whoamai.engine.workdir import find_run

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows knows neither fork nor SIGKILL"),
]

# Processes are forked from a server that has imported torch and peft once.
_PROCESSES = multiprocessing.get_context("forkserver") if sys.platform != "win32" else None
_PATIENCE_SECONDS = 60
ASKED = {"evaluation_inputs": ["Who?"], "max_new_tokens": 2, "evaluation_freq": 10}


class Runs:
    """Trainings of one config; `whole` is what one leaves that nothing happened to."""

    def __init__(self, folder: Path) -> None:
        model, rows = save_chat_model(folder / "model"), write_rows(folder / "rows.jsonl")
        self.config = write_settings(folder, model, rows, evaluation=ASKED)
        assert self.finish(folder / "warm") == 0  # the first one waits for the server's imports
        begin = time.monotonic()
        assert self.finish(folder / "whole") == 0
        self.seconds = time.monotonic() - begin
        self.whole = self.left(folder / "whole")

    def start(self, work_dir: Path, *, resume: bool = False, fault: str = ""):
        told = work_dir.with_suffix(".txt")
        process = _PROCESSES.Process(
            target=run_and_exit, args=(self.config, work_dir, resume, fault, told), daemon=True
        )
        process.start()
        return process

    def finish(self, work_dir: Path, *, resume: bool = False, fault: str = "") -> int:
        return ended(self.start(work_dir, resume=resume, fault=fault))

    def left(self, work_dir: Path) -> tuple[bytes, list[float], list[str]]:
        """The adapter, the losses, and the answers, each of the last time."""
        losses = {step["done"]: step["values"]["loss"] for step in steps_in(work_dir)}
        answers = {found["step"]: found["answers"][0]["answer"] for found in answers_in(work_dir)}
        weights = (work_dir / "adapter" / "adapter_model.safetensors").read_bytes()
        assert list(losses) == sorted(losses)
        return weights, list(losses.values()), [answers[n] for n in (0, 10, 20, STEPS)]


def ended(process) -> int:
    """The exit code; minus the signal's number where one ended it."""
    process.join(_PATIENCE_SECONDS)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def saved(work_dir: Path) -> int:
    """After how many steps the last checkpoint was written; 0 without one."""
    last = last_checkpoint(work_dir)
    return read_state(last).step if last else 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    imports = ["tests.e2e.killed_train", "peft", "transformers.models.qwen3.modeling_qwen3"]
    _PROCESSES.set_forkserver_preload(imports)
    return Runs(tmp_path_factory.mktemp("runs"))


# A checkpoint every 5 steps, questions every 10. Before the first save the status (2 calls of fsync, a
# rename) and the config (a rename) are written; a save calls fsync 11 times and renames once.
@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ("load", 0),
        ("probe", 0),
        ("answers:0", 0),
        ("step:1", 0),
        ("step:5", 0),
        ("step:6", 5),
        ("answers:10", 10),
        ("step:24", 20),
        ("answers:24", 24),
        ("save", 24),
        ("write:1", 0),
        ("write:5", 5),
        ("fsync:4", 0),
        ("fsync:19", 5),
        ("rename:4", 5),
        ("renamed:4", 10),
    ],
)
def test_a_run_killed_at_this_moment_ends_as_if_it_had_not_been(
    fault: str, left: int, tmp_path: Path, runs: Runs
):
    work_dir = tmp_path / "run"
    assert runs.finish(work_dir, fault=fault) == -signal.SIGKILL
    assert saved(work_dir) == left
    assert find_checkpoints(work_dir).notes == (), "something half written has its final name"

    assert runs.finish(work_dir, resume=True) == 0
    assert runs.left(work_dir) == runs.whole
    status = find_run(work_dir)
    assert status
    assert (status.state, status.step) == ("finished", STEPS)
    assert [saved(work_dir), len(find_checkpoints(work_dir).paths)] == [STEPS, 2]
    assert not [path for path in work_dir.rglob("*") if "partial" in path.name]


@pytest.mark.parametrize("number", range(5))
def test_a_run_killed_at_a_random_moment_ends_as_if_it_had_not_been(
    number: int, tmp_path: Path, runs: Runs
):
    share = random.Random(number).uniform(0.1, 0.95)
    for attempt in range(8):
        work_dir = tmp_path / str(attempt)
        process = runs.start(work_dir)
        time.sleep(share * runs.seconds)
        process.kill()
        if ended(process) == -signal.SIGKILL:
            break
        share *= 0.8  # it was quicker this time, and had ended
    else:
        pytest.fail("the run always ended before it could be killed")
    assert runs.finish(work_dir, resume=True) == 0
    assert runs.left(work_dir) == runs.whole


def test_a_run_killed_again_and_again_gets_to_its_end(tmp_path: Path, runs: Runs):
    work_dir = tmp_path / "run"
    for n, fault in enumerate(("step:7", "step:9", "step:11", "answers:20", "save")):
        assert runs.finish(work_dir, resume=n > 0, fault=fault) == -signal.SIGKILL
    assert runs.finish(work_dir, resume=True) == 0
    assert runs.left(work_dir) == runs.whole


def test_a_run_killed_before_its_first_checkpoint_may_simply_be_started_again(
    tmp_path: Path, runs: Runs
):
    work_dir = tmp_path / "run"
    assert runs.finish(work_dir, fault="step:3") == -signal.SIGKILL
    assert runs.finish(work_dir) == 0
    assert runs.left(work_dir) == runs.whole
    assert [step["done"] for step in steps_in(work_dir)] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_told_to_stop_from_outside_saves_and_is_gone_on_with(
    number: signal.Signals, code: int, tmp_path: Path, runs: Runs
):
    for attempt in range(8):
        work_dir = tmp_path / str(attempt)
        process = runs.start(work_dir)
        until = time.monotonic() + _PATIENCE_SECONDS
        while not saved(work_dir) and time.monotonic() < until:
            time.sleep(0.002)
        os.kill(process.pid, number)
        if (found := ended(process)) != 0:
            break  # else it was in its last step
    assert found == code
    step = saved(work_dir)
    assert 5 <= step < STEPS
    told = work_dir.with_suffix(".txt").read_text("utf-8")
    assert f"Stopped after step {step} of {STEPS}" in told
    assert runs.finish(work_dir, resume=True) == 0
    assert runs.left(work_dir) == runs.whole
