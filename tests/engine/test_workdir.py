from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from whoamai.engine import lock
from whoamai.engine.durable import as_json, durable_folder
from whoamai.engine.lock import used_by
from whoamai.engine.workdir import RunStatus, claim, find_run, problems_with_work_dir
from whoamai.errors import OutputError

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")


def checkpoint(work_dir: Path, step: int = 4) -> Path:
    folder = work_dir / "checkpoints" / f"step_{step:06d}"
    with durable_folder(folder) as partial:
        (partial / "state.json").write_bytes(as_json({}))
    return folder


def run(work_dir: Path, *, finish: bool, label: str = "tiny") -> None:
    """A run of which a checkpoint is left."""
    with claim(work_dir, label=label, resume=False) as place:
        place.running(4, 10)
        checkpoint(work_dir)
        if finish:
            place.finished_now(10)


def refusal(work_dir: Path, *, resume: bool = False) -> str:
    with pytest.raises(OutputError) as error, claim(work_dir, label="other", resume=resume):
        pass
    assert problems_with_work_dir(work_dir, resume=resume) == [str(error.value)]
    return str(error.value)


def status_in(work_dir: Path) -> RunStatus:
    status = find_run(work_dir)
    assert status is not None
    return status


# ---- one at a time -----------------------------------------------------------------------------------


@needs_fork
def test_a_second_run_is_refused_naming_the_first(tmp_path: Path):
    with held_by_another_process(tmp_path) as pid:
        for resume in (False, True):
            text = refusal(tmp_path, resume=resume)
            holder = used_by(tmp_path)
            assert holder is not None
            assert holder.pid == pid
            assert holder.command
            for part in ("held", str(pid), holder.host, holder.started, str(tmp_path)):
                assert part in text


def test_a_process_does_not_claim_its_own_folder_twice_but_may_ask(tmp_path: Path):
    with claim(tmp_path, label="tiny", resume=False):
        with (
            pytest.raises(OutputError, match=f"in use by the run of tiny, process {os.getpid()}"),
            claim(tmp_path, label="tiny", resume=False),
        ):
            pass
        assert problems_with_work_dir(tmp_path, resume=False) == []
        assert problems_with_work_dir(tmp_path, resume=True) == []
    assert used_by(tmp_path) is None


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[int]:
    """The process's id; it is killed behind the block."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(folder, ready), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        assert ready.wait(30)
        yield process.pid
    finally:
        process.kill()
        process.join(30)


def _hold(folder: Path, ready: Any) -> None:
    with claim(folder, label="held", resume=False):
        ready.set()
        time.sleep(60)


@needs_fork
def test_a_run_that_is_refused_leaves_the_first_ones_status(tmp_path: Path):
    with held_by_another_process(tmp_path):
        before = (tmp_path / "run.json").read_bytes()
        refusal(tmp_path, resume=True)
        assert (tmp_path / "run.json").read_bytes() == before


@needs_fork
def test_of_many_that_start_at_the_same_moment_one_gets_the_folder(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    go, done, queue = context.Event(), context.Event(), context.Queue()
    runs = [
        context.Process(target=_try_to_claim, args=(tmp_path, n, go, done, queue), daemon=True)
        for n in range(6)
    ]
    for process in runs:
        process.start()
    go.set()
    answers = [queue.get(timeout=30) for _ in runs]
    done.set()
    for process in runs:
        process.join(30)
    winners = [pid for pid, text in answers if text == "mine"]
    assert len(winners) == 1
    others = [text for _, text in answers if text != "mine"]
    assert all(f"process {winners[0]} " in text for text in others), others


def _try_to_claim(folder: Path, n: int, go: Any, done: Any, queue: Any) -> None:
    go.wait(30)
    try:
        with claim(folder, label=f"run{n}", resume=False):
            queue.put((os.getpid(), "mine"))
            done.wait(30)
    except OutputError as error:
        queue.put((os.getpid(), str(error)))


@needs_fork
def test_a_killed_run_is_in_nobodys_way(tmp_path: Path):
    with held_by_another_process(tmp_path):
        assert used_by(tmp_path) is not None
    assert used_by(tmp_path) is None
    assert (tmp_path / ".lock").read_bytes(), "it could not clear up"
    with claim(tmp_path, label="next", resume=True) as place:
        assert place.previous is not None
        assert (place.previous.state, place.previous.config) == ("running", "held")


def test_a_disk_without_locks_is_used_and_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_locks(handle: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock, "_lock", no_locks)
    with claim(tmp_path, label="tiny", resume=False) as place:
        assert "one run at a time" in (place.note or "")
    assert find_run(tmp_path) is not None


def test_with_locks_there_is_nothing_to_say(tmp_path: Path):
    with claim(tmp_path, label="tiny", resume=False) as place:
        assert place.note is None
        assert place.previous is None


# ---- whose folder it is ------------------------------------------------------------------------------


def test_a_finished_run_is_not_written_over(tmp_path: Path):
    run(tmp_path, finish=True, label="tiny_chat")
    text = refusal(tmp_path)
    assert "finished" in text
    assert "tiny_chat" in text
    assert "--work-dir" in text


def test_a_finished_run_that_is_resumed_says_so_and_stays_as_it_is(tmp_path: Path):
    run(tmp_path, finish=True)
    before = (tmp_path / "run.json").read_bytes()
    with claim(tmp_path, label="tiny", resume=True) as place:
        finished = place.finished()
        assert finished is not None
        assert (finished.step, finished.total) == (10, 10)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_run_that_can_be_resumed_is_not_begun_anew(tmp_path: Path):
    run(tmp_path, finish=False)
    text = refusal(tmp_path)
    assert "--resume" in text
    assert "step_000004" in text
    with claim(tmp_path, label="tiny", resume=True) as place:
        assert place.finished() is None
        assert place.status.step == 4


def test_a_run_that_failed_before_its_first_checkpoint_is_begun_anew(tmp_path: Path):
    with pytest.raises(RuntimeError), claim(tmp_path, label="tiny", resume=False):
        raise RuntimeError
    with claim(tmp_path, label="tiny", resume=False) as place:
        assert place.previous is not None
        assert place.previous.state == "failed"


def test_a_checkpoint_that_lacked_only_its_name_counts(tmp_path: Path):
    with claim(tmp_path, label="tiny", resume=False):
        folder = checkpoint(tmp_path)
        folder.rename(folder.with_name(f".{folder.name}.partial"))  # killed right before the rename
    with pytest.raises(OutputError, match="--resume"), claim(tmp_path, label="t", resume=False):
        pass
    assert folder.is_dir()


def test_what_a_killed_save_left_is_cleared_away(tmp_path: Path):
    run(tmp_path, finish=False)
    for name in (".step_000008.partial", ".step_000001.removed"):
        (tmp_path / "checkpoints" / name).mkdir()
    with claim(tmp_path, label="tiny", resume=True):
        assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000004"]


@pytest.mark.parametrize("resume", [False, True])
def test_somebody_elses_folder_is_left_alone(tmp_path: Path, resume: bool):
    (tmp_path / "thesis.tex").write_text("…", "utf-8")
    text = refusal(tmp_path, resume=resume)
    assert "thesis.tex" in text
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_its_place_is_told(tmp_path: Path):
    (tmp_path / "file").touch()
    assert "is a file" in refusal(tmp_path / "file")
    assert "cannot be used" in refusal_of_the_disk(tmp_path / "file" / "inside")


def refusal_of_the_disk(work_dir: Path) -> str:
    with pytest.raises(OutputError) as error, claim(work_dir, label="tiny", resume=False):
        pass
    return str(error.value)


def test_a_status_that_cannot_be_read_is_told(tmp_path: Path):
    run(tmp_path, finish=False)
    (tmp_path / "run.json").write_text('{"state": ', "utf-8")
    assert "run.json cannot be read" in refusal(tmp_path, resume=True)
    assert find_run(tmp_path) is None


def test_a_folder_that_is_not_there_yet_is_made_but_not_by_asking(tmp_path: Path):
    work_dir = tmp_path / "work_dirs" / "tiny"
    assert problems_with_work_dir(work_dir, resume=False) == []
    assert problems_with_work_dir(work_dir, resume=True) == []
    assert used_by(work_dir) is None
    assert not work_dir.parent.exists()
    with claim(work_dir, label="tiny", resume=True) as place:
        assert place.previous is None
    assert find_run(work_dir) is not None


# ---- how far the run is ------------------------------------------------------------------------------


def test_the_status_says_how_far_the_run_is(tmp_path: Path):
    with claim(tmp_path, label="tiny_chat", resume=False) as place:
        begun = status_in(tmp_path)
        assert begun == place.status
        assert (begun.state, begun.config, begun.step) == ("running", "tiny_chat", 0)
        place._written = time.monotonic() - 60  # a minute ago
        place.running(3, 10)
        assert find_run(tmp_path) == place.status
        place.running(4, 10)
        assert status_in(tmp_path).step == 3, "not written every step"
        place.finished_now(10)
        assert status_in(tmp_path).state == "finished"
    assert status_in(tmp_path).state == "finished"


@pytest.mark.parametrize(
    ("error", "state"),
    [(RuntimeError, "failed"), (KeyboardInterrupt, "stopped"), (None, "stopped")],
)
def test_the_status_says_how_the_run_ended(
    error: type[BaseException] | None, state: str, tmp_path: Path
):
    try:
        with claim(tmp_path, label="tiny", resume=False) as place:
            place.running(7, 10)
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    status = status_in(tmp_path)
    assert (status.state, status.step, status.total) == (state, 7, 10)
    assert used_by(tmp_path) is None


def test_a_status_that_cannot_be_written_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with claim(tmp_path, label="tiny", resume=False) as place:
        before = json.loads((tmp_path / "run.json").read_bytes())
        monkeypatch.setattr(os, "fsync", full)
        place.finished_now(10)
    assert json.loads((tmp_path / "run.json").read_bytes()) == before


def test_a_full_disk_at_the_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refusal_of_the_disk(tmp_path)
