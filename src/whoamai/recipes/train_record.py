"""What is written down of a training: its data, every step, and what a checkpoint needs to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from whoamai.data.encode import Encoded
from whoamai.engine.checkpoint import TrainState
from whoamai.engine.trainer import StepReport, Trainer
from whoamai.events import Events, Note, Progress, Result
from whoamai.messages import tr
from whoamai.samples import Sample


class Record:
    """Loss (None: skipped) and learning rate of every step of a run, also before it was resumed."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.losses: list[float | None] = []
        self.learning_rates: list[float] = []
        self._facts = facts
        self._tokens = 0
        self._computed = 0
        self._seconds = 0.0
        self._seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Those of all steps, also before the run was resumed."""
        return self._seconds_before + self._seconds

    def go_on(self, state: TrainState, trainer: Trainer, events: Events) -> None:
        """Take up where a checkpoint left off."""
        trainer.done = state.step
        trainer.skipped = int(state.counters.get("skipped", 0))
        trainer.scaler.load_state_dict(state.scaler or {})
        self._seconds_before = float(state.counters.get("seconds", 0.0))
        self.losses = list(state.losses)
        self.learning_rates = [trainer.schedule.lr(i) for i in range(state.step)]
        text = tr("Going on after step {done} of {total}.")
        events.emit(Note(text.format(done=state.step, total=trainer.schedule.total)))

    def add(self, report: StepReport, events: Events) -> None:
        """Keep the step, and tell it. Speed is that of the steps alone, since the run began."""
        self.losses.append(report.loss if report.applied else None)
        self.learning_rates.append(report.lr)
        self._tokens += report.logical_tokens
        self._computed += report.computed_tokens
        self._seconds += max(report.seconds, 1e-9)  # of a coarse clock a step may take none
        values = {
            "loss": report.loss,
            "grad_norm": report.grad_norm,
            "lr": report.lr,
            "epoch": float(report.epoch),
            "tokens_per_s": self._tokens / self._seconds,
            "computed_per_s": self._computed / self._seconds,
            "step_tokens": float(report.logical_tokens),
            "computed_tokens": float(report.computed_tokens),
            "targets": float(report.targets),
            "step_seconds": round(report.seconds, 4),
            "data_seconds": round(report.data_seconds, 4),
        }
        if report.peak_bytes is not None:
            values["memory_gib"] = round(report.peak_bytes / 2**30, 2)
        events.emit(Progress("train", report.done, report.total, values))
        if not report.applied:
            text = tr(
                "Step {done}: the loss or its gradient was not a number; the step was left out."
            )
            events.emit(Note(text.format(done=report.done), "warning"))

    def state(self, trainer: Trainer) -> TrainState:
        return TrainState(
            step=trainer.done,
            epoch=1 + sum(end < trainer.done for end in trainer.schedule.epoch_ends),
            facts=self._facts,
            scaler=trainer.scaler.state_dict(),
            counters={"skipped": trainer.skipped, "seconds": round(self.seconds, 3)},
            losses=self.losses,
        )


def was_asked(journal: Path, done: int) -> bool:
    """Do the events written down so far hold the answers after `done` steps?

    A run may be killed between a checkpoint and the questions that follow it.
    """
    for line in journal.read_bytes().splitlines():
        if b'"answers"' in line:
            with suppress(ValueError, KeyError, TypeError):  # a line that was cut off
                row = json.loads(line)
                if row["name"] == "answers" and row["data"]["step"] == done:
                    return True
    return False


def tell_about_data(encoded: Encoded, tokenizer: Any, events: Events) -> None:
    """Rows, tokens and targets, and the first row cut where training begins and ends."""
    parts = trained_parts(encoded.samples[0], tokenizer)
    found = {
        "rows": len(encoded.samples),
        "tokens": sum(encoded.lengths),
        "targets": encoded.n_targets,
        "longest": max(encoded.lengths),
        "cut": len(encoded.cut),
        "left_out": len(encoded.left_out),
        "sample": {
            "source": encoded.sources[0],
            "parts": [{"text": text, "trained": trained} for text, trained in parts],
        },
    }
    events.emit(Result("dataset", found))


def trained_parts(sample: Sample, tokenizer: Any) -> list[tuple[str, bool]]:
    """The row's text in stretches that are trained on or not.

    A character whose tokens lie on both sides of such a border is shown as "\\ufffd".
    """
    marked = zip(sample.input_ids, sample.is_target, strict=True)
    return [
        (tokenizer.decode([i for i, _ in stretch], skip_special_tokens=False), trained)
        for trained, stretch in groupby(marked, key=lambda pair: pair[1])
    ]
