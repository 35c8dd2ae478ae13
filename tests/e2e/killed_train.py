"""A real training in a process of its own, which may kill itself at a chosen moment."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.engine.resumable_job import kill_inside
from whoamai.config.reading import read_config
from whoamai.events import Event, Events, Note, Progress, Result, Stage
from whoamai.recipes.train import TrainRequest, train

# The faults that tests.engine.resumable_job puts inside a save.
_INSIDE = ("write", "fsync", "rename", "renamed")


@dataclass(frozen=True, slots=True)
class DiesAt:
    """A listener that kills its process.

    "step:N" when N are done, "answers:N" when the questions after step N are answered, "load" (or any
    other stage) when it begins.
    """

    moment: str

    def __call__(self, event: Event) -> None:
        name, _, number = self.moment.partition(":")
        match event:
            case Progress(stage="train", done=done):
                over = (name, number) == ("step", str(done))
            case Stage(name=stage):
                over = name == stage
            case Result(name="answers", data=data):
                over = (name, number) == ("answers", str(data["step"]))
            case _:
                over = False
        if over:
            os.kill(os.getpid(), signal.SIGKILL)


def run_and_exit(config: Path, work_dir: Path, resume: bool, fault: str, told: Path) -> None:
    """For multiprocessing. fault: a moment of DiesAt, or of kill_inside, or "" for none."""
    os.environ["WHOAMAI_LANG"] = "en"
    torch.set_num_threads(1)
    if fault.partition(":")[0] in _INSIDE:
        kill_inside(fault)
    with told.open("a", encoding="utf-8") as file:

        def write(event: Event) -> None:
            if isinstance(event, Note):
                print(event.text, file=file, flush=True)

        loaded = read_config(config, [f"work_dir={work_dir}"])
        request = TrainRequest(loaded, "last" if resume else None)
        code = train(request, Events([write, DiesAt(fault)])).exit_code
    os._exit(code)
