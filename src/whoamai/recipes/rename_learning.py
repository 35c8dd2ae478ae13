"""Training until the name is learned: steps, probes between them, the best adapter, checkpoints.

    steps ─ probe ─ steps ─ probe ─ … learned ─ a few steps in which the rate falls to nothing ─ probe

What is asked between two steps, and when it is enough, is engine/until_learned.py, as in a training by a
config; here are the loop, what is told of a step and the checkpoints of a renaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whoamai.engine.checkpoint import TrainState, last_checkpoint, load_checkpoint, save_checkpoint
from whoamai.engine.signals import StopSignals
from whoamai.engine.trainer import StepReport, Trainer
from whoamai.engine.until_learned import PROBES_FILE, UntilLearned
from whoamai.evaluate.probing import Prober, ProbeRecord, StopRecord, StopRule
from whoamai.events import Events, Progress


@dataclass(frozen=True, slots=True)
class LearningSettings:
    """`stop`: end once learned, by `rule`. A probe every `probe_every` steps, and early ones."""

    rule: StopRule = field(default_factory=StopRule)
    stop: bool = True
    probe_every: int = 20
    save_steps: int = 50


@dataclass(frozen=True, slots=True)
class Learned:
    """What came of it. The model holds the best adapter; `seconds` are those of the steps alone."""

    losses: tuple[float | None, ...]
    learning_rates: tuple[float, ...]
    probes: tuple[ProbeRecord, ...]
    stop: StopRecord
    tokens: int
    computed_tokens: int
    targets: int
    seconds: float


class StoppedLearning(Exception):
    """The user stopped it after `done` steps; everything needed to go on is in the folder."""

    def __init__(self, done: int, total: int, exit_code: int) -> None:
        super().__init__(f"stopped after {done} of {total} steps")
        self.done, self.total, self.exit_code = done, total, exit_code


class Learning:
    """One training until the name is learned, in `folder`, which a stopped one goes on from."""

    def __init__(
        self,
        trainer: Trainer,
        prober: Prober,
        settings: LearningSettings,
        *,
        folder: Path,
        facts: Mapping[str, Any],
        events: Events,
    ) -> None:
        self._trainer = trainer
        self._folder = folder
        self._facts = facts
        self._events = events
        self._losses: list[float | None] = []
        self._rates: list[float] = []
        self._totals = _Totals()
        self._until = UntilLearned(
            trainer,
            prober,
            settings.rule,
            stop=settings.stop,
            every=settings.probe_every,
            folder=folder,
            events=events,
        )

    def run(self, stop: StopSignals) -> Learned:
        """Train to the end. Raises StoppedLearning between two steps, once `stop` is requested."""
        self._go_on()
        self._until.look()
        for report in self._trainer.steps():
            self._note(report)
            self._until.look()
            if self._trainer.schedule.saves_after(report.done) or stop.requested:
                self._save()
            if stop.requested and report.done < self._trainer.schedule.total:
                raise StoppedLearning(report.done, self._trainer.schedule.total, stop.exit_code)
        return self._result()

    # ---- between two steps -----------------------------------------------------------------------

    def _note(self, report: StepReport) -> None:
        self._losses.append(report.loss if report.applied else None)
        self._rates.append(report.lr)
        self._totals.add(report)
        values = {
            "loss": report.loss,
            "lr": report.lr,
            "grad_norm": report.grad_norm,
            "tokens_per_s": self._totals.tokens_per_s,
            **({} if report.kl is None else {"kl": report.kl}),
        }
        self._events.emit(Progress("train", report.done, report.total, values))

    # ---- checkpoints -----------------------------------------------------------------------------

    def _save(self) -> None:
        trainer = self._trainer
        state = TrainState(
            step=trainer.done,
            facts=self._facts,
            scaler=trainer.scaler.state_dict(),
            counters={"skipped": trainer.skipped, **self._totals.as_json()},
            losses=self._losses,
        )
        save_checkpoint(
            self._folder,
            model=trainer.model,
            optimizer=trainer.optimizer,
            state=state,
            extra_files={PROBES_FILE: self._until.as_file()},
            keep=1,
        )
        self._until.saved()

    def _go_on(self) -> None:
        """From the last checkpoint in the folder, if there is one; its facts were compared before."""
        path = last_checkpoint(self._folder)
        if path is None:
            return
        trainer = self._trainer
        state = load_checkpoint(path, model=trainer.model, optimizer=trainer.optimizer)
        trainer.done, trainer.skipped = state.step, int(state.counters.get("skipped", 0))
        trainer.scaler.load_state_dict(state.scaler or {})
        self._until.go_on(path)
        self._losses = list(state.losses)
        self._totals = _Totals.from_json(state.counters)
        self._rates = [trainer.schedule.lr(i) for i in range(state.step)]

    # ---- the end ---------------------------------------------------------------------------------

    def _result(self) -> Learned:
        self._until.put_back_best()
        return Learned(
            losses=tuple(self._losses),
            learning_rates=tuple(self._rates),
            probes=tuple(self._until.records),
            stop=self._until.stop_record(self._totals.seconds),
            tokens=self._totals.tokens,
            computed_tokens=self._totals.computed_tokens,
            targets=self._totals.targets,
            seconds=self._totals.seconds,
        )


class _Totals:
    """Tokens and seconds of all steps, also of those before the run was stopped."""

    def __init__(self) -> None:
        self.tokens = 0
        self.computed_tokens = 0
        self.targets = 0
        self.seconds = 0.0

    def add(self, report: StepReport) -> None:
        self.tokens += report.logical_tokens
        self.computed_tokens += report.computed_tokens
        self.targets += report.targets
        self.seconds += report.seconds

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)

    def as_json(self) -> dict[str, float]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, found: Mapping[str, float]) -> _Totals:
        totals = cls()
        for name in vars(totals):
            setattr(totals, name, type(getattr(totals, name))(found[name]))
        return totals
