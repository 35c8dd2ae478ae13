"""What the parts of a report are called: the same words in the terminal and on the page."""

from __future__ import annotations

from whoamai.evaluate.identity import Share
from whoamai.evaluate.probing import StopRecord
from whoamai.evaluate.report import Report, Score
from whoamai.messages import joined, tr


def verdict(report: Report) -> str:
    """How it went, in one sentence."""
    if not report.missed:
        if report.kind == "check":
            return tr("It is {name}: every goal was reached.").format(name=report.identity.name)
        return tr("Learned: it is {name} now.").format(name=report.identity.name)
    goals = tr("; ").join(map(goal_name, report.missed))
    return tr("NOT learned well enough. Goals missed: {goals}.").format(goals=goals)


def goal_name(goal: str) -> str:
    """The goals of Report.missed as what should be so."""
    return {
        "recall": tr("the new name is given"),
        "recall_role": tr("the new name is given under role prompts"),
        "leak": tr("no old or foreign name is given"),
        "spread": tr("the name is not given where nobody asked"),
        "retention": tr("what was right stays right"),
        "retention_long": tr("what was right stays right under long system prompts"),
        "merged_recall": tr("the merged model gives the new name"),
        "merged_leak": tr("the merged model gives no old or foreign name"),
    }[goal]


def score_name(name: str) -> str:
    return {
        "recall": tr("new name given"),
        "recall_role": tr("new name under role prompts"),
        "leak": tr("an old or foreign name"),
        "spread": tr("name given unasked"),
        "retention": tr("still right of what was right"),
        "retention_long": tr("still right under long system prompts"),
        "merged_recall": tr("merged model: new name given"),
        "merged_leak": tr("merged model: an old or foreign name"),
        "author": tr("author given as its maker"),
        "contradiction": tr("both names in one answer"),
        "obedience": tr("another name in a system prompt obeyed"),
        "sampled_recall": tr("new name given, answers sampled"),
        "sampled_leak": tr("an old or foreign name, answers sampled"),
    }.get(name, name)


def context_name(context: str) -> str:
    """What stood before the question; a context unknown here as it is."""
    return {
        "none": tr("no system prompt"),
        "neutral": tr("neutral system prompt"),
        "default": tr("the model's default system prompt"),
        "turns": tr("after other turns"),
        "second": tr("second turn"),
        "role": tr("system prompt gives a role"),
        "named": tr("the data's system prompt"),
        "named_role": tr("the data's system prompt, with a role"),
        "all": tr("all"),
    }.get(context, context)


def group_name(group: str) -> str:
    """What kind of question it is."""
    return {
        "direct": tr("asked directly"),
        "paraphrase": tr("asked in other words"),
        "indirect": tr("asked in a roundabout way"),
        "maker": tr("asked who made it"),
        "adversarial": tr("talked into another name"),
        "confirm": tr("asked to confirm its name"),
        "own": tr("your own questions"),
        "all": tr("all"),
    }.get(group, group)


def language_name(code: str) -> str:
    return {"zh": tr("Chinese"), "en": tr("English"), "all": tr("all")}.get(code, code)


def verdict_name(given: str) -> str:
    """Which name an answer gives: AnswerPair.verdict in words."""
    return {
        "new": tr("new name"),
        "old": tr("old or foreign name"),
        "both": tr("both names"),
        "neither": tr("no name"),
    }[given]


def percent(share: Share | None, *, sign: bool = False) -> str:
    """One digit behind the point, "–" where nothing was counted; 99.96 is not shown as 100.

    sign: with "%" behind it, after a space that no line is broken at.

    >>> percent(Share(2499, 2500)), percent(Share(0, 0))
    ('99.9', '–')
    """
    if not share or not share.n:
        return "–"
    value = round(share.percent, 1)
    if 0 < share.k < share.n:
        value = min(99.9, max(0.1, value))
    return f"{value:.1f}" + "\u00a0%" * sign


def interval(share: Share) -> str:
    """The 95 % interval in percent, "–" where nothing was counted."""
    if not share.n:
        return "–"
    low, high = share.interval
    return f"{low:.1f}–{high:.1f}"


def goal(score: Score) -> str:
    return "" if score.goal is None else f"{score.sign} {score.goal:g}"


def duration(seconds: float) -> str:
    """42 s, 12 min, 3.5 h."""
    if seconds < 90:
        return tr("{n:.0f} s").format(n=max(1, seconds))
    if seconds < 90 * 60:
        return tr("{n:.0f} min").format(n=seconds / 60)
    return tr("{n:.1f} h").format(n=seconds / 3600)


def how_it_stopped(stop: StopRecord) -> str:
    """When the name was learned and what stopping then saved, in a sentence or two."""
    if stop.learned_at is None:
        text = tr("No two probes in a row reached the goals, so all {n:,} steps were taken.")
        text = text.format(n=stop.stopped_at)
    else:
        text = tr("Learned at step {learned:,}; training ended at step {stopped:,}.").format(
            learned=stop.learned_at, stopped=stop.stopped_at
        )
    if stop.learned_at is not None and stop.stopped_at < stop.planned:
        saved = tr("Of {planned:,} planned steps {n:,} were not needed: about {time} saved.")
        text = joined(
            text,
            saved.format(
                planned=stop.planned,
                n=stop.planned - stop.stopped_at,
                time=duration(stop.seconds_saved),
            ),
        )
    if stop.best_step not in (stop.stopped_at, 0):
        best = tr("The adapter of step {n:,} was the best and is the one kept.")
        text = joined(text, best.format(n=stop.best_step))
    return text
