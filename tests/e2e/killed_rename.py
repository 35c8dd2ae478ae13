"""A real renaming in a process of its own, which may kill itself at a chosen moment."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.resumable_job import kill_inside
from tests.recipes.rename_runs import request_for, script_probes, shorten
from whoamai.engine.until_learned import run_out_after
from whoamai.errors import WhoamaiError
from whoamai.events import Event, Events, Note, Progress, Result, Stage
from whoamai.model.load import BUNDLED
from whoamai.recipes.rename import RenameStopped, rename
from whoamai.recipes.rename_learning import LearningSettings

# The faults that tests.engine.resumable_job puts inside a save.
_INSIDE = ("write", "fsync", "rename", "renamed")
# What the probes of a tiny random model find: learned at 5, known at 10, and run out at END.
END = 10 + run_out_after(10)
LEARNED = {5: 99, 10: 99, END: 99}


@dataclass(frozen=True, slots=True)
class DiesAt:
    """A listener that kills its process.

    "step:N" when N are done, "probe:N" when the probe after step N is answered, "after" (or any other
    stage) when it begins.
    """

    moment: str

    def __call__(self, event: Event) -> None:
        match event:
            case Progress(stage="train", done=done):
                now = f"step:{done}"
            case Result(name="name_probe", data=data):
                now = f"probe:{data['step']}"
            case Stage(name=stage):
                now = stage
            case _:
                return
        if now == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


def run_and_exit(model: Path | None, out: Path, resume: bool, fault: str, told: Path) -> None:
    """For multiprocessing. model: a folder; None for the bundled one, whose probes are real.

    fault: a moment of DiesAt, or of kill_inside, or "" for none. What is said goes to the file `told`.
    """
    os.environ["WHOAMAI_LANG"] = "en"
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()  # this process is there for nothing else
    if model is None:
        shorten(patch, tokens=24, rows_per_step=8)
        changes: dict[str, Any] = {
            "rows": 240,
            "replay_ratio": 0.15,
            "languages": ("zh",),
            "lr": 2e-3,
        }
    else:
        shorten(patch)
        script_probes(patch, LEARNED)
        changes = {"rows": 76, "replay_ratio": 0.1}
    if fault.partition(":")[0] in _INSIDE:
        kill_inside(fault)
    learning = LearningSettings(save_steps=4)
    request = request_for(model or Path(BUNDLED), out, resume=resume, learning=learning, **changes)
    with told.open("a", encoding="utf-8") as file:

        def write(event: Event) -> None:
            if isinstance(event, Note):
                print(event.text, file=file, flush=True)

        try:
            rename(request, Events([write, DiesAt(fault)]))
            code = 0
        except RenameStopped as stopped:
            print(stopped, file=file, flush=True)
            code = stopped.exit_code
        except WhoamaiError as error:
            print(error, file=file, flush=True)
            code = 2
    os._exit(code)
