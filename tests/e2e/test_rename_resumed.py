"""`rename` killed at any moment and gone on with leaves what one leaves that was left alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.killed_rename import END, run_and_exit
from tests.models import save_chat_model
from tests.recipes.rename_runs import adapter_of
from whoamai.engine.checkpoint import find_checkpoints, last_checkpoint, read_state
from whoamai.recipes.output import partial_of
from whoamai.recipes.rename_job import unfinished

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows knows neither fork nor SIGKILL"),
]

# Processes are forked from a server that has imported torch and peft once.
_PROCESSES: Any = multiprocessing.get_context("forkserver") if sys.platform != "win32" else None
_PATIENCE_SECONDS = 240


class Renamings:
    """Renamings of one model; `whole` is what one leaves that nothing happened to."""

    def __init__(self, model: Path | None, folder: Path) -> None:
        self.model = model
        begin = time.monotonic()
        assert self.finish(folder / "whole") == 0
        self.seconds = time.monotonic() - begin
        self.whole = left(folder / "whole")

    def start(self, out: Path, *, resume: bool = False, fault: str = "") -> Any:
        told = out.with_suffix(".txt")
        process = _PROCESSES.Process(
            target=run_and_exit, args=(self.model, out, resume, fault, told), daemon=True
        )
        process.start()
        return process

    def finish(self, out: Path, *, resume: bool = False, fault: str = "") -> int:
        return ended(self.start(out, resume=resume, fault=fault))

    def goes_on(self, out: Path) -> None:
        """From where it was killed, or from the beginning where it had not come to a checkpoint."""
        assert find_checkpoints(partial_of(out)).notes == (), "half written, with its final name"
        assert not out.exists()
        assert self.finish(out, resume=unfinished(out)) == 0, out.with_suffix(".txt").read_text()
        assert left(out) == self.whole
        assert sorted(p.name for p in out.parent.iterdir()) == [out.name, f"{out.name}.txt"]


def ended(process: Any) -> int:
    """The exit code; minus the signal's number where one ended it."""
    process.join(_PATIENCE_SECONDS)
    assert process.exitcode is not None, "the renaming hangs"
    return process.exitcode


def left(out: Path) -> tuple[bytes, dict[str, Any], list[str]]:
    """The adapter, the report without seconds (scores, answers, probes, losses), and all files."""
    report = json.loads((out / "report.json").read_text("utf-8"))
    del report["details"]["seconds"], report["details"]["training"]["seconds"]
    for record in (report["stop"], *report["probes"]):
        record.pop("seconds_saved", None)
        del record["seconds"]
    files = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    return adapter_of(out), report, files


def saved(out: Path) -> int:
    """After how many steps the last checkpoint was written; 0 without one."""
    last = last_checkpoint(partial_of(out))
    return read_state(last).step if last else 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Renamings:
    imports = ["tests.e2e.killed_rename", "peft", "transformers.models.qwen3.modeling_qwen3"]
    _PROCESSES.set_forkserver_preload(imports)
    folder = tmp_path_factory.mktemp("tiny")
    return Renamings(save_chat_model(folder / "model"), folder)


# A checkpoint after every 4 steps and at the end; before the first are written job.json (2 calls of
# fsync, a rename) and the best adapter after 5 steps, then after 10 and at the end.
@pytest.mark.parametrize(
    ("fault", "step"),
    [
        ("before", 0),
        ("train", 0),
        ("probe:0", 0),
        ("step:5", 4),
        ("probe:5", 4),
        ("probe:10", 8),
        ("step:13", 12),
        (f"probe:{END}", 12),
        ("after", END),
        ("save", END),
        ("write:1", 0),
        ("write:4", 4),
        ("fsync:1", 0),
        ("rename:2", 0),
        ("renamed:2", 4),
        ("renamed:4", 8),
    ],
)
def test_a_renaming_killed_at_this_moment_ends_as_if_it_had_not_been(
    fault: str, step: int, tmp_path: Path, tiny: Renamings
):
    out = tmp_path / "out"
    assert tiny.finish(out, fault=fault) == -signal.SIGKILL
    assert saved(out) == step
    tiny.goes_on(out)


def test_a_renaming_killed_again_and_again_gets_to_its_end(tmp_path: Path, tiny: Renamings):
    out = tmp_path / "out"
    for fault in ("step:6", "step:7", "probe:10", "step:13", "after"):
        assert tiny.finish(out, resume=unfinished(out), fault=fault) == -signal.SIGKILL
    tiny.goes_on(out)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_renaming_told_to_stop_from_outside_saves_and_is_gone_on_with(
    number: signal.Signals, code: int, tmp_path: Path, tiny: Renamings
):
    for attempt in range(8):
        out = tmp_path / str(attempt) / "out"
        out.parent.mkdir()
        process = tiny.start(out)
        until = time.monotonic() + _PATIENCE_SECONDS
        while not saved(out) and time.monotonic() < until:
            time.sleep(0.002)
        os.kill(process.pid, number)
        if (found := ended(process)) != 0:
            break  # else it was in its last step
    assert found == code
    told = out.with_suffix(".txt").read_text("utf-8")
    assert "Stopped" in told
    assert "--resume" in told
    tiny.goes_on(out)


# ---- the bundled model, which learns its name ----------------------------------------------------


@pytest.fixture(scope="module")
def bundled(tiny: Renamings, tmp_path_factory: pytest.TempPathFactory) -> Renamings:
    return Renamings(None, tmp_path_factory.mktemp("bundled"))


def test_the_bundled_model_killed_twice_learns_the_same_to_the_bit(
    tmp_path: Path, bundled: Renamings
):
    report = bundled.whole[1]
    assert report["scores"]["recall"]["percent"] > 50, "it learns something that could be lost"
    assert report["probes"][0]["recall"]["k"] < report["probes"][-1]["recall"]["k"]
    out = tmp_path / "out"
    assert bundled.finish(out, fault="step:14") == -signal.SIGKILL
    assert saved(out) == 12
    assert bundled.finish(out, resume=True, fault="probe:20") == -signal.SIGKILL
    assert saved(out) == 16
    bundled.goes_on(out)
