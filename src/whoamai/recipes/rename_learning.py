"""Training until the name is learned: steps, probes between them, the best adapter, checkpoints.

    steps ─ probe ─ steps ─ probe ─ … learned ─ a few steps in which the rate falls to nothing ─ probe

Once two probes in a row met the goals the schedule is cut short (engine/schedule.py): the learning rate
runs out to 0 over a quarter as many steps as were made, for weights taken at a high rate are noisy.

What the probes found, where it was cut short and the best adapter so far are kept for a run that is
stopped and goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from whoamai.engine.checkpoint import TrainState, last_checkpoint, load_checkpoint, save_checkpoint
from whoamai.engine.signals import StopSignals
from whoamai.engine.trainer import StepReport, Trainer
from whoamai.evaluate.probing import Prober, ProbeRecord, StopRecord, StopRule, probes_after
from whoamai.events import Events, Progress, Result

_PROBES = "probes.json"
_BEST = "best"
# Steps in which the rate runs out, of those made until the name was learned; at least so many.
_RUN_OUT, _LEAST_RUN_OUT = 0.25, 4


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
        self._prober = prober
        self._settings = settings
        self._folder = folder
        self._facts = facts
        self._events = events
        self._losses: list[float | None] = []
        self._rates: list[float] = []
        self._probes: list[ProbeRecord] = []
        self._learned_at: int | None = None
        self._best = _Best(folder / _BEST)
        self._totals = _Totals()

    def run(self, stop: StopSignals) -> Learned:
        """Train to the end. Raises StoppedLearning between two steps, once `stop` is requested."""
        self._go_on()
        self._probe()
        for report in self._trainer.steps():
            self._note(report)
            self._probe()
            self._cut_short()
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

    def _probe(self) -> None:
        """Ask, if it is time to and this was not asked before the run was stopped."""
        trainer, settings = self._trainer, self._settings
        done, schedule = trainer.done, trainer.schedule
        running_out = schedule.cut_at is not None and done < schedule.total
        due = probes_after(done, total=schedule.total, every=settings.probe_every)
        if not due or running_out or any(record.step == done for record in self._probes):
            return
        trainer.model.eval()
        record = self._prober.ask(done)
        self._probes.append(record)
        self._events.emit(Result("name_probe", record.as_json()))
        rank = settings.rule.rank
        if done and (self._best.of is None or rank(record) >= rank(self._best.of)):
            self._best.keep(trainer.model, record)
        if self._learned_at is None:
            self._learned_at = settings.rule.learned_at(self._probes)

    def _cut_short(self) -> None:
        """Once the name is learned, let the rate run out."""
        schedule, done = self._trainer.schedule, self._trainer.done
        learned = self._settings.stop and self._learned_at is not None
        if learned and schedule.cut_at is None and done < schedule.total:
            run_out = max(_LEAST_RUN_OUT, round(_RUN_OUT * done))
            self._trainer.schedule = schedule.cut_short(done, run_out)

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
        schedule = trainer.schedule
        found = {
            "probes": [record.as_json() for record in self._probes],
            "best_step": self._best.of and self._best.of.step,
            "learned_at": self._learned_at,
            "cut_short": None
            if schedule.cut_at is None
            else [schedule.cut_at, schedule.total - schedule.cut_at],
        }
        save_checkpoint(
            self._folder,
            model=trainer.model,
            optimizer=trainer.optimizer,
            state=state,
            extra_files={_PROBES: json.dumps(found)},
            keep=1,
        )
        self._best.forget_others()

    def _go_on(self) -> None:
        """From the last checkpoint in the folder, if there is one; its facts were compared before."""
        path = last_checkpoint(self._folder)
        if path is None:
            return
        trainer = self._trainer
        state = load_checkpoint(path, model=trainer.model, optimizer=trainer.optimizer)
        trainer.done, trainer.skipped = state.step, int(state.counters.get("skipped", 0))
        trainer.scaler.load_state_dict(state.scaler or {})
        found = json.loads((path / _PROBES).read_bytes())
        self._losses = list(state.losses)
        self._totals = _Totals.from_json(state.counters)
        self._probes = [ProbeRecord.from_json(record) for record in found["probes"]]
        self._learned_at = found["learned_at"]
        if found["cut_short"]:
            trainer.schedule = trainer.schedule.cut_short(*found["cut_short"])
        self._rates = [trainer.schedule.lr(i) for i in range(state.step)]
        of = [record for record in self._probes if record.step == found["best_step"]]
        self._best.go_on(of[0] if of else None)

    # ---- the end ---------------------------------------------------------------------------------

    def _result(self) -> Learned:
        trainer, schedule = self._trainer, self._trainer.schedule
        seconds = self._totals.seconds
        of = self._best.of
        if of is not None and of.step != trainer.done:
            self._best.put_back(trainer.model)
        saved = (schedule.planned - trainer.done) * seconds / max(1, trainer.done)
        stop = StopRecord(
            learned_at=self._learned_at,
            stopped_at=trainer.done,
            planned=schedule.planned,
            seconds=round(seconds, 1),
            seconds_saved=round(saved, 1),
            best_step=trainer.done if of is None else of.step,
        )
        return Learned(
            losses=tuple(self._losses),
            learning_rates=tuple(self._rates),
            probes=tuple(self._probes),
            stop=stop,
            tokens=self._totals.tokens,
            computed_tokens=self._totals.computed_tokens,
            targets=self._totals.targets,
            seconds=seconds,
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


class _Best:
    """The adapter of the best probe so far: in memory, and beside the checkpoints.

    A file's name says its step; which of them counts stands in the checkpoint. So a run killed between
    the two goes on with the best one that its checkpoint knows.
    """

    def __init__(self, folder: Path) -> None:
        self.of: ProbeRecord | None = None
        self._folder = folder
        self._tensors: dict[str, torch.Tensor] = {}

    def keep(self, model: Any, record: ProbeRecord) -> None:
        self.of = record
        self._tensors = {name: p.detach().cpu().clone() for name, p in _trained(model)}
        self._folder.mkdir(exist_ok=True)
        save_file(self._tensors, self._file(record.step))

    def forget_others(self) -> None:
        for file in self._folder.glob("step_*.safetensors"):
            if self.of is None or file != self._file(self.of.step):
                with suppress(OSError):
                    file.unlink()

    def go_on(self, record: ProbeRecord | None) -> None:
        if record is None:
            return
        self.of, self._tensors = record, load_file(self._file(record.step))

    def put_back(self, model: Any) -> None:
        with torch.no_grad():
            for name, parameter in _trained(model):
                parameter.copy_(self._tensors[name])

    def _file(self, step: int) -> Path:
        return self._folder / f"step_{step:06d}.safetensors"


def _trained(model: Any) -> Iterable[tuple[str, torch.nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)
