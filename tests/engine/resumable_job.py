"""A tiny training that can be killed anywhere and resumed, for tests; also with a fault inside a save.

It works as the real one does: claims its folder, takes up the last checkpoint, saves every few steps,
stops at a signal, and leaves its adapter in `adapter/` at the end. Meant to be run in a process of its
own that already has torch and peft (multiprocessing's forkserver), as importing them takes seconds.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from tests.models import make_model
from whoamai.data.steps import StepSize
from whoamai.engine.checkpoint import (
    TrainState,
    last_checkpoint,
    load_checkpoint,
    read_state,
    save_checkpoint,
)
from whoamai.engine.facts import refuse_another_run, run_facts
from whoamai.engine.schedule import Schedule, make_schedule
from whoamai.engine.signals import StopSignals
from whoamai.engine.workdir import claim
from whoamai.model.lora import add_lora, save_adapter
from whoamai.samples import Sample

STEPS = 24
SAVE_STEPS = 4


@dataclass(slots=True)
class Job:
    """What is trained. Dropout makes the random generators matter."""

    model: Any
    optimizer: torch.optim.Optimizer
    samples: list[Sample]
    schedule: Schedule


def make_job(*, dropout: float = 0.1, r: int = 4) -> Job:
    model = add_lora(make_model("Llama"), r=r, alpha=8, dropout=dropout, seed=0)
    model.train()
    rows = torch.randint(3, 300, (48, 12), generator=torch.Generator().manual_seed(0)).tolist()
    samples = [Sample(tuple(ids), tuple(i > 3 for i in range(12))) for ids in rows]
    schedule = make_schedule(
        [12] * 48,
        StepSize(rows=4),
        epochs=2,
        seed=0,
        lr=1e-2,
        warmup_ratio=0.1,
        save_steps=SAVE_STEPS,
    )
    assert schedule.total == STEPS
    trained = [p for p in model.parameters() if p.requires_grad]
    return Job(model, torch.optim.AdamW(trained, lr=1e-2), samples, schedule)


def train_step(job: Job, index: int) -> float:
    ids = torch.tensor([job.samples[i].input_ids for i in job.schedule.steps[index]])
    for group in job.optimizer.param_groups:
        group["lr"] = job.schedule.lr(index)
    loss = job.model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    job.optimizer.step()
    job.optimizer.zero_grad(set_to_none=True)
    return loss.item()


def run(work_dir: Path, *, resume: bool = False, fault: str = "") -> int:
    """Train to the end and return the exit code.

    fault: "SIGINT:N" or "SIGTERM:N" for the signal before step N, else as `kill_inside` has it.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kill_inside(fault)
    with claim(work_dir, label="tiny", resume=resume) as place, StopSignals() as stop:
        if place.finished():
            return 0
        job = make_job()
        facts = run_facts(job.schedule, job.samples, {"lr": 1e-2})
        done, losses = 0, []
        if resume and (last := last_checkpoint(work_dir)):
            refuse_another_run(read_state(last).facts, facts, last)
            state = load_checkpoint(last, model=job.model, optimizer=job.optimizer)
            done, losses = state.step, list(state.losses)
        while done < job.schedule.total:
            if fault in (f"SIGINT:{done}", f"SIGTERM:{done}"):
                os.kill(os.getpid(), signal.Signals[fault.partition(":")[0]])
            losses.append(train_step(job, done))
            done += 1
            place.running(done, job.schedule.total)
            if job.schedule.saves_after(done) or stop.requested:
                save_checkpoint(
                    work_dir,
                    model=job.model,
                    optimizer=job.optimizer,
                    state=TrainState(done, facts=facts, losses=losses),
                    extra_files={"config.yaml": "name: tiny\n"},
                    keep=2,
                )
            if stop.requested:
                return stop.exit_code
        save_adapter(job.model, work_dir / "adapter", "tiny")
        place.finished_now(done)
    return 0


def run_and_exit(work_dir: Path, resume: bool, fault: str) -> None:
    """For multiprocessing, whose processes end with what they are told."""
    os._exit(run(work_dir, resume=resume, fault=fault))


# ---- faults ----------------------------------------------------------------------------------------


def kill_inside(fault: str) -> None:
    """Let this process kill itself inside a save: in the Nth write, fsync or rename from now on.

    "write:N"   half of the Nth file of tensors is written
    "fsync:N"   before the Nth fsync, whose data may be in memory only
    "rename:N"  before the Nth rename, "renamed:N" right behind it

    Changes functions of this process, which is there for nothing else.
    """
    kind, _, number = fault.partition(":")
    countdown = _Countdown(int(number or 0))
    if kind == "write":
        safetensors.torch.save_file = _half_written(safetensors.torch.save_file, countdown)
    elif kind == "fsync":
        os.fsync = _killed(os.fsync, countdown, after=False)
    elif kind in ("rename", "renamed"):
        os.replace = _killed(os.replace, countdown, after=kind == "renamed")


class _Countdown:
    def __init__(self, n: int) -> None:
        self.n = n

    def is_over(self) -> bool:
        self.n -= 1
        return self.n == 0


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed(function: Callable[..., Any], countdown: _Countdown, *, after: bool):
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        over = countdown.is_over()
        if over and not after:
            _die()
        result = function(*args, **kwargs)
        if over:
            _die()
        return result

    return wrapped


def _half_written(function: Callable[..., Any], countdown: _Countdown):
    def wrapped(tensors: dict[str, torch.Tensor], path: str | Path, *args: Any, **kwargs: Any):
        function(tensors, path, *args, **kwargs)
        if countdown.is_over():
            os.truncate(path, os.path.getsize(path) // 2)
            _die()

    return wrapped
