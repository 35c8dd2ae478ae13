"""A run that is killed and resumed ends with the very weights of one that was left alone."""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine import resumable_job
from whoamai.engine.checkpoint import find_checkpoints, last_checkpoint, read_state
from whoamai.engine.workdir import find_run

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows knows neither fork nor SIGKILL"),
]

# Processes are forked from a server that has imported torch and peft once.
_PROCESSES = multiprocessing.get_context("forkserver") if sys.platform != "win32" else None
_PATIENCE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Undisturbed:
    adapter: bytes
    seconds: float


def start(work_dir: Path, *, resume: bool = False, fault: str = ""):
    process = _PROCESSES.Process(
        target=resumable_job.run_and_exit, args=(work_dir, resume, fault), daemon=True
    )
    process.start()
    return process


def finish(process) -> int:
    """The exit code; minus the signal's number where one ended it."""
    process.join(_PATIENCE_SECONDS)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def adapter(work_dir: Path) -> bytes:
    return (work_dir / "adapter" / "adapter_model.safetensors").read_bytes()


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    imports = ["tests.engine.resumable_job", "peft", "transformers.models.llama.modeling_llama"]
    _PROCESSES.set_forkserver_preload(imports)
    warm_up, work_dir = tmp_path_factory.mktemp("warm"), tmp_path_factory.mktemp("undisturbed")
    assert finish(start(warm_up)) == 0  # the first one waits for the server's imports
    begin = time.monotonic()
    assert finish(start(work_dir)) == 0
    seconds = time.monotonic() - begin
    assert adapter(warm_up) == adapter(work_dir), "not even two undisturbed runs are the same"
    return Undisturbed(adapter(work_dir), seconds)


@pytest.mark.parametrize("number", range(10))
def test_a_run_killed_at_a_random_moment_ends_as_if_it_had_not_been(
    number: int, tmp_path: Path, undisturbed: Undisturbed
):
    share = random.Random(number).uniform(0.1, 0.95)
    for attempt in range(8):
        work_dir = tmp_path / str(attempt)
        process = start(work_dir)
        time.sleep(share * undisturbed.seconds)
        process.kill()
        if finish(process) == -signal.SIGKILL:
            break
        share *= 0.8  # it was quicker this time, and had ended
    else:
        pytest.fail("the run always ended before it could be killed")
    assert finish(start(work_dir, resume=True)) == 0
    assert adapter(work_dir) == undisturbed.adapter


def test_a_run_killed_again_and_again_gets_to_its_end(tmp_path: Path, undisturbed: Undisturbed):
    def last() -> Path | None:
        return last_checkpoint(tmp_path)

    for n in range(resumable_job.STEPS // resumable_job.SAVE_STEPS - 1):
        before = last()
        process = start(tmp_path, resume=n > 0)
        wait_until(lambda b=before, p=process: last() != b or not p.is_alive())
        process.kill()
        finish(process)
    assert finish(start(tmp_path, resume=True)) == 0
    assert adapter(tmp_path) == undisturbed.adapter


# Behind the status (2 calls of fsync, a rename), each save writes 3 files of tensors, calls fsync for
# its 6 files, 2 folders, the manifest and the folder above, and renames once.
@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ("write:1", None),
        ("write:4", "step_000004"),
        ("write:5", "step_000004"),
        ("fsync:4", None),
        ("fsync:18", "step_000004"),
        ("rename:2", None),
        ("rename:3", "step_000004"),
        ("renamed:3", "step_000008"),
    ],
)
def test_a_run_killed_inside_a_save_ends_as_if_it_had_not_been(
    fault: str, left: str | None, tmp_path: Path, undisturbed: Undisturbed
):
    assert finish(start(tmp_path, fault=fault)) == -signal.SIGKILL
    last = last_checkpoint(tmp_path)
    assert (last.name if last else None) == left
    assert find_checkpoints(tmp_path).notes == (), "something half written has its final name"
    assert list((tmp_path / "checkpoints").glob(".*.partial")) or fault.startswith("renamed")

    assert finish(start(tmp_path, resume=True)) == 0
    assert adapter(tmp_path) == undisturbed.adapter
    assert list((tmp_path / "checkpoints").glob(".*")) == []
    assert len(find_checkpoints(tmp_path).paths) == 2


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_run_told_to_stop_saves_its_step_and_is_resumed(
    name: str, code: int, tmp_path: Path, undisturbed: Undisturbed
):
    assert finish(start(tmp_path, fault=f"{name}:6")) == code
    status, last = find_run(tmp_path), last_checkpoint(tmp_path)
    assert status
    assert last
    assert (status.state, status.step, status.total) == ("stopped", 7, resumable_job.STEPS)
    assert read_state(last).step == 7

    assert finish(start(tmp_path, resume=True)) == 0
    assert adapter(tmp_path) == undisturbed.adapter
    status = find_run(tmp_path)
    assert status
    assert status.state == "finished"
