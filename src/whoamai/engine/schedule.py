"""What a run does when: its optimizer steps, their learning rates, when it saves and asks questions.

The one place where this is decided: the trainer follows a Schedule, and `explain` shows the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from whoamai.data.steps import StepSize, plan_steps
from whoamai.engine.optim import warmup_cosine


@dataclass(frozen=True, slots=True)
class Schedule:
    """Step numbers count finished steps: after step 1 of 30 one is done; 0 is before the first.

    steps: the row numbers of every optimizer step, over all epochs, in order.
    epoch_ends: the number of the last step of each epoch.
    planned: how many steps the run is to have. cut_at: of one that was cut short (see cut_short), the
    step after which it runs out; `steps` are then fewer than planned.
    """

    steps: tuple[tuple[int, ...], ...]
    epoch_ends: tuple[int, ...]
    warmup: int
    peak: float
    save_steps: int | None
    evaluation_freq: int | None
    planned: int
    cut_at: int | None = None

    @property
    def total(self) -> int:
        return len(self.steps)

    def lr(self, index: int) -> float:
        """The learning rate of the step with this index (from 0).

        Of a run that was cut short after step `cut_at`: from there in a straight line to 0. Cut at 40
        of 100 with 4 steps to run out, steps 41 to 44 have 4/5, 3/5, 2/5 and 1/5 of step 40's rate.
        """
        if self.cut_at is None or index < self.cut_at:
            return self.peak * warmup_cosine(index, steps=self.planned, warmup=self.warmup)
        before = self.peak * warmup_cosine(self.cut_at - 1, steps=self.planned, warmup=self.warmup)
        return before * (self.total - index) / (self.total - self.cut_at + 1)

    def cut_short(self, done: int, run_out: int) -> Schedule:
        """This schedule, to be at its end `run_out` steps after step `done`, or where it ends anyway."""
        assert self.cut_at is None, "a schedule is cut short once"
        assert 0 < done <= self.total
        steps = self.steps[: done + run_out]
        ends = tuple(end for end in self.epoch_ends if end < len(steps))
        return replace(self, steps=steps, epoch_ends=(*ends, len(steps)), cut_at=done)

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
    return Schedule(steps, tuple(ends), warmup, lr, save_steps, evaluation_freq, planned=len(steps))
