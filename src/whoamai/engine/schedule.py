"""What a run does when: its optimizer steps, their learning rates, when it saves and asks questions.

The one place where this is decided: the trainer follows a Schedule, and `explain` shows the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from whoamai.data.steps import StepSize, plan_steps
from whoamai.engine.optim import warmup_cosine


@dataclass(frozen=True, slots=True)
class Schedule:
    """Step numbers count finished steps: after step 1 of 30 one is done; 0 is before the first.

    steps: the row numbers of every optimizer step, over all epochs, in order.
    epoch_ends: the number of the last step of each epoch.
    """

    steps: tuple[tuple[int, ...], ...]
    epoch_ends: tuple[int, ...]
    warmup: int
    peak: float
    save_steps: int | None
    evaluation_freq: int | None

    @property
    def total(self) -> int:
        return len(self.steps)

    def lr(self, index: int) -> float:
        """The learning rate of the step with this index (from 0)."""
        return self.peak * warmup_cosine(index, steps=self.total, warmup=self.warmup)

    def saves_after(self, done: int) -> bool:
        """Is a checkpoint written when `done` steps are finished? Always after the last."""
        return done > 0 and (
            done == self.total or (self.save_steps is not None and done % self.save_steps == 0)
        )

    def asks_after(self, done: int) -> bool:
        """Are the questions asked after `done` steps? Also before the first and at the end."""
        if self.evaluation_freq is None:
            return False
        return done in (0, self.total) or done % self.evaluation_freq == 0

    @property
    def saves(self) -> list[int]:
        return [done for done in range(1, self.total + 1) if self.saves_after(done)]

    @property
    def evaluations(self) -> list[int]:
        return [done for done in range(self.total + 1) if self.asks_after(done)]


def make_schedule(
    lengths: Sequence[int],
    size: StepSize,
    *,
    epochs: int,
    seed: int,
    lr: float,
    warmup_ratio: float,
    save_steps: int | None = None,
    evaluation_freq: int | None = None,
) -> Schedule:
    """The schedule for rows of these lengths (tokens). The warmup has at least one step."""
    by_epoch = plan_steps(lengths, size, epochs=epochs, seed=seed)
    steps = tuple(tuple(step) for epoch in by_epoch for step in epoch)
    ends, done = [], 0
    for epoch in by_epoch:
        done += len(epoch)
        ends.append(done)
    warmup = max(1, round(warmup_ratio * len(steps)))
    return Schedule(steps, tuple(ends), warmup, lr, save_steps, evaluation_freq)
