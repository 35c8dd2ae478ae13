"""Preflight's checks of a run that is to end once its name is learned: can that ever be seen?"""

from __future__ import annotations

from collections.abc import Iterator

from whoamai.data.claims import name_pattern
from whoamai.engine.until_learned import soonest_end
from whoamai.errors import SettingError
from whoamai.evaluate.probing import StopRule
from whoamai.messages import joined, tr
from whoamai.plan.name_probe import NameProbe, name_probe
from whoamai.plan.preflight_facts import Facts, PreflightFinding, finding


def never_learned(facts: Facts) -> Iterator[PreflightFinding]:
    """A name that no reply gives; questions in languages that the data is not in; a name that is none.

    Only the last of them blocks: without it nothing could be asked.
    """
    assert facts.conversations is not None
    try:
        asked = name_probe(facts.config, facts.conversations)
    except SettingError as error:
        cure = tr("Mend the name in the config.")
        yield finding("never-learned", str(error), cure=cure)
        return
    if asked is None:
        return
    problems = (_not_in_replies(facts, asked), _in_no_language(facts, asked))
    if text := joined(*filter(None, problems)):
        yield finding("never-learned", text, severity="warns")


def _not_in_replies(facts: Facts, asked: NameProbe) -> str | None:
    name, conversations = asked.identity.name, facts.conversations or ()
    pattern = name_pattern(name)
    for conversation in conversations:
        if any(m.trained and pattern.search(m.text) for m in conversation.messages):
            return None
    text = tr(
        "In none of the {n:,} rows does a reply that is trained on give {name} (data.name), so "
        "evaluation.stop_when_learned waits for what is not taught."
    )
    return text.format(n=len(conversations), name=name)


def _in_no_language(facts: Facts, asked: NameProbe) -> str | None:
    if asked.rows:
        return None
    text = tr(
        "The questions of evaluation.stop_when_learned are Chinese and English, and hardly one of the "
        "{n:,} rows is."
    )
    return text.format(n=len(facts.conversations or ()))


def never_early(facts: Facts) -> Iterator[PreflightFinding]:
    assert facts.schedule
    evaluation, total = facts.config.evaluation, facts.schedule.total
    if not evaluation.stop_when_learned:
        return
    if soonest_end(total, evaluation.evaluation_freq, StopRule()) is None:
        text = tr(
            "The run has {total:,} steps; two probes in a row and the steps in which the learning rate "
            "runs out take as many."
        )
        yield finding("never-early", text.format(total=total))
