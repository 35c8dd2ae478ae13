"""Training until a name is learned: a probe between two steps now and then, and the end once it shows.

    steps ─ probe ─ steps ─ probe ─ … learned ─ a few steps in which the rate falls to nothing ─ probe

Once the probes met the goals the schedule is cut short (engine/schedule.py): the learning rate runs out
to 0 over about a third as many steps as were made, for weights taken at a high rate are noisy.

What the probes found, where it was cut short and which adapter is the best go into every checkpoint
(probes.json), for a run that is stopped and goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from whoamai.engine.best_adapter import BestAdapter
from whoamai.engine.checkpoint import find_checkpoints
from whoamai.errors import ModelError
from whoamai.evaluate.probing import (
    ProbeRecord,
    StopRecord,
    StopRule,
    probes_after,
)
from whoamai.events import Events, Result
from whoamai.messages import tr

if TYPE_CHECKING:  # a plan asks for steps without torch
    from whoamai.engine.trainer import Trainer
    from whoamai.evaluate.probing import Prober

PROBES_FILE = "probes.json"
# Steps in which the rate runs out, of those made until the name was learned; at least so many.
_RUN_OUT, _LEAST_RUN_OUT = 0.35, 4


def run_out_after(done: int) -> int:
    """Over how many steps the rate runs out once the name is learned after `done` steps."""
    return max(_LEAST_RUN_OUT, round(_RUN_OUT * done))


def probe_steps(total: int, every: int) -> tuple[int, ...]:
    """After how many of `total` steps a run that is not cut short is probed."""
    return tuple(n for n in range(total + 1) if probes_after(n, total=total, every=every))


def soonest_end(total: int, every: int, rule: StopRule) -> int | None:
    """The step at which a run ends whose first probes meet the goals; None if not before the last."""
    met = [n for n in probe_steps(total, every) if n > 0][: rule.in_a_row]
    end = met[-1] + run_out_after(met[-1]) if len(met) == rule.in_a_row else total
    return end if end < total else None


class UntilLearned:
    """Looks between two steps of `trainer` how far the name is learned, and ends it in good time.

    `stop`: cut the run short once it is learned by `rule`; without, only the best adapter is kept.
    A probe is taken every `every` steps, and early ones. `folder` is the run's, with its checkpoints.
    """

    def __init__(
        self,
        trainer: Trainer,
        prober: Prober,
        rule: StopRule,
        *,
        stop: bool,
        every: int,
        folder: Path,
        events: Events,
    ) -> None:
        self.records: list[ProbeRecord] = []
        self.learned_at: int | None = None
        self._trainer = trainer
        self._prober = prober
        self._rule = rule
        self._stop = stop
        self._every = every
        self._folder = folder
        self._events = events
        self._best = BestAdapter(folder)

    def look(self) -> None:
        """Before the first step and after each: a probe, if it is time to; the end, if it is learned."""
        self._probe()
        self._cut_short()

    def _probe(self) -> None:
        """Ask, unless this was asked before the run was stopped, or the rate is running out."""
        trainer, schedule = self._trainer, self._trainer.schedule
        done = trainer.done
        running_out = schedule.cut_at is not None and done < schedule.total
        due = probes_after(done, total=schedule.total, every=self._every)
        if not due or running_out or any(record.step == done for record in self.records):
            return
        trainer.model.eval()
        from whoamai.model.lora import added_up

        with added_up(trainer.model, exactly=True):
            record = self._prober.ask(done)
        as_good = self._rule.is_as_good(record, self.records)
        self.records.append(record)
        self._events.emit(Result("name_probe", record.as_json()))
        if done and as_good:
            self._best.keep(trainer.model, done)
        if self.learned_at is None:
            self.learned_at = self._rule.learned_at(self.records)

    def _cut_short(self) -> None:
        schedule, done = self._trainer.schedule, self._trainer.done
        learned = self._stop and self.learned_at is not None
        if learned and schedule.cut_at is None and done < schedule.total:
            self._trainer.schedule = schedule.cut_short(done, run_out_after(done))

    @property
    def best(self) -> ProbeRecord | None:
        """The probe whose adapter is kept."""
        return next((r for r in self.records if r.step == self._best.step), None)

    # ---- checkpoints -----------------------------------------------------------------------------

    def as_file(self) -> str:
        """What a checkpoint holds of it, in PROBES_FILE."""
        schedule = self._trainer.schedule
        cut_at = schedule.cut_at
        found = {
            "probes": [record.as_json() for record in self.records],
            "best_step": self._best.step,
            "learned_at": self.learned_at,
            "cut_short": None if cut_at is None else [cut_at, schedule.total - cut_at],
        }
        return json.dumps(found)

    def saved(self) -> None:
        """A checkpoint was written: adapters that none of those left calls the best can go."""
        self._best.forget_others(set(_best_steps(self._folder)))

    def go_on(self, checkpoint: Path) -> None:
        """From a checkpoint of this run. Raises ModelError where a part of it is missing."""
        trainer = self._trainer
        try:
            found = json.loads((checkpoint / PROBES_FILE).read_bytes())
        except (OSError, ValueError) as error:
            text = tr(
                "The checkpoint {path} does not hold what the probes found ({file}). Start without "
                "--resume in another work folder."
            )
            raise ModelError(text.format(path=checkpoint, file=PROBES_FILE)) from error
        self.records = [ProbeRecord.from_json(record) for record in found["probes"]]
        self.learned_at = found["learned_at"]
        if found["cut_short"]:
            trainer.schedule = trainer.schedule.cut_short(*found["cut_short"])
        self._best.go_on(found["best_step"], checkpoint.parent.parent)

    # ---- the end ---------------------------------------------------------------------------------

    def put_back_best(self) -> None:
        """The model gets the best adapter again, if that is not the last one."""
        if self._best.step not in (None, self._trainer.done):
            self._best.put_back(self._trainer.model)

    def remove_files(self) -> None:
        """What is needed to go on alone: the run is finished."""
        self._best.remove_files()

    def stop_record(self, seconds: float) -> StopRecord:
        """How it ended; `seconds` are those of all its steps."""
        done, planned = self._trainer.done, self._trainer.schedule.planned
        saved = (planned - done) * seconds / max(1, done)
        return StopRecord(
            learned_at=self.learned_at,
            stopped_at=done,
            planned=planned,
            seconds=round(seconds, 1),
            seconds_saved=round(saved, 1),
            best_step=done if self._best.step is None else self._best.step,
        )


def _best_steps(folder: Path) -> Iterator[int]:
    """The best steps that the checkpoints in `folder` know."""
    for path in find_checkpoints(folder).paths:
        step = json.loads((path / PROBES_FILE).read_bytes())["best_step"]
        if step is not None:
            yield step
