"""`train` with evaluation.stop_when_learned: who asks, and what is told at the end."""

from __future__ import annotations

from pathlib import Path

from whoamai.engine.trainer import Trainer
from whoamai.engine.until_learned import UntilLearned
from whoamai.evaluate.grading import IdentityGrader
from whoamai.evaluate.probing import Prober
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Note
from whoamai.messages import joined, tr
from whoamai.plan.name_probe import NameProbe
from whoamai.recipes.exam import probe_general


def until_learned(
    asked: NameProbe, talk: Talk, trainer: Trainer, folder: Path, events: Events
) -> UntilLearned:
    """Asks `talk`, whose model must still be as it was before training; `folder` is the run's.

    Of the general questions those are asked that the model answers rightly so far.
    """
    trainer.model.eval()
    prober = Prober(
        talk,
        IdentityGrader(asked.identity, asked.old_names),
        asked.questions(talk.template.default_system),
        probe_general(asked.languages),
    )
    return UntilLearned(
        trainer,
        prober.right_now(),
        asked.rule,
        stop=True,
        every=asked.every,
        folder=folder,
        events=events,
    )


def tell_end(learning: UntilLearned, seconds: float, events: Events) -> None:
    """When the name was learned and what that saved, in one line; `seconds` are those of all steps."""
    stop, best = learning.stop_record(seconds), learning.best
    if stop.learned_at is None:
        text = tr("Not learned within {planned} steps: the goals were never met twice in a row.")
    elif stop.stopped_at < stop.planned:
        text = tr(
            "Learned after {learned} steps; stopped at {stopped} of {planned}, {seconds} s saved."
        )
    else:
        text = tr("Learned after {learned} steps; all {planned} were made.")
    line = text.format(
        learned=stop.learned_at,
        stopped=stop.stopped_at,
        planned=stop.planned,
        seconds=round(stop.seconds_saved),
    )
    if best is not None:
        text = tr(
            "The adapter kept is that of step {step}: {recall:.0f}% of the answers give the name, "
            "{leak:.0f}% an old or foreign one."
        )
        kept = text.format(step=best.step, recall=best.recall.percent, leak=best.leak.percent)
        line = joined(line, kept)
    events.emit(Note(line, "info" if stop.learned_at is not None else "warning"))
