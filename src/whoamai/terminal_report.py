"""The end of a job in a terminal: answers before and after, the scores, how it went, what to try."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from whoamai.data.claims import name_pattern
from whoamai.evaluate.advice import advice
from whoamai.evaluate.report import (
    CONTEXTS,
    ROLE_CONTEXTS,
    AnswerPair,
    Report,
    Score,
    chosen_answers,
)
from whoamai.evaluate.report_words import (
    context_name,
    goal,
    how_it_stopped,
    interval,
    percent,
    score_name,
    verdict,
)
from whoamai.messages import language, tr
from whoamai.terminal_prose import Prose

# Columns that a terminal needs for the scores before training, and for those by language.
_WITH_BEFORE, _WITH_LANGUAGES = 72, 96


def print_report(console: Console, report: Report) -> None:
    """Two tables, how training ended, the verdict, and where goals were missed what to try."""
    few = chosen_answers(report.answers, first_language=language()[:2])
    if few:
        console.print(_answers_table(few, report))
    console.print(_scores_table(report, console.width))
    if report.stop:
        console.print(Prose(how_it_stopped(report.stop)))
    console.print(Prose(verdict(report), "bold red" if report.missed else "bold green"))
    for line in _advice_lines(report):
        console.print(line)


# ---- answers -------------------------------------------------------------------------------------


def _answers_table(pairs: Iterable[AnswerPair], report: Report) -> Table:
    pairs = list(pairs)
    has_before = any(pair.before is not None for pair in pairs)
    title = tr("Before and after") if has_before else tr("Answers")
    table = Table(title=title, show_lines=True, title_justify="left")
    table.add_column(tr("question"), ratio=3, overflow="fold")
    if has_before:
        table.add_column(tr("before"), ratio=4, overflow="fold")
    table.add_column(tr("after") if has_before else tr("answer"), ratio=4, overflow="fold")
    for pair in pairs:
        question = Text(pair.question)
        if pair.context != "none":
            question.append(f"\n({context_name(pair.context)})", style="dim")
        before = [Text(pair.before or "–", style="dim")] if has_before else []
        table.add_row(question, *before, _marked(pair, report))
    return table


def _marked(pair: AnswerPair, report: Report) -> Text:
    """The answer, the new name green and leaked ones red; names are found as they are graded."""
    text = Text(pair.after)
    styles = {report.identity.name: "bold green", **dict.fromkeys(pair.leaks, "bold red")}
    for name, style in styles.items():
        for match in name_pattern(name).finditer(pair.after):
            text.stylize(style, *match.span())
    return text


# ---- scores --------------------------------------------------------------------------------------


def _scores_table(report: Report, width: int) -> Table:
    languages = report.languages if width >= _WITH_LANGUAGES and len(report.languages) > 1 else []
    has_before = report.before is not None and width >= _WITH_BEFORE
    table = Table(title=tr("Scores on held-out questions, in %"), title_justify="left")
    table.add_column("", overflow="fold")
    table.add_column(tr("asked"), justify="right", no_wrap=True)
    if has_before:
        table.add_column(tr("before"), justify="right", style="dim", no_wrap=True)
    table.add_column(tr("after"), justify="right", no_wrap=True)
    table.add_column(tr("95 % within"), justify="right", no_wrap=True)
    for code in languages:
        table.add_column(code, justify="right", no_wrap=True)
    table.add_column(tr("goal"), justify="left", no_wrap=True)
    for score, is_part in _lines(report):
        label = ("  " if is_part else "") + (
            context_name(score.name) if is_part else score_name(score.name)
        )
        style = {True: "bold green", False: "bold red", None: ""}[score.reached]
        table.add_row(
            Prose(label, "dim" if is_part else "", hanging=4 if is_part else 1),
            f"{score.after.n:,}",
            *([percent(score.before)] if has_before else []),
            Text(percent(score.after), style=style),
            Text(interval(score.after), style="dim"),
            *(percent(score.by_language.get(code)) for code in languages),
            _goal(score),
        )
    return table


def _lines(report: Report) -> Iterator[tuple[Score, bool]]:
    """Every score; below the first, as parts of it, the same by what stood before the question."""
    for score in report.scores:
        yield score, False
        if score.name == "recall":
            yield from ((part, True) for part in _by_context(report))


def _by_context(report: Report) -> Iterator[Score]:
    shares = report.after.recall
    found = [c for c in CONTEXTS if c not in ROLE_CONTEXTS and (c, "all") in shares]
    if len(found) < 2:
        return
    for context in found:
        yield Score(
            context,
            shares[context, "all"],
            report.before.recall.get((context, "all")) if report.before else None,
            "≥",
            report.goals.recall,
            {code: share for (c, code), share in shares.items() if c == context and code != "all"},
        )


def _goal(score: Score) -> Text:
    mark, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("", "dim")}[score.reached]
    return Text(f"{goal(score)} {mark}".strip(), style=style)


# ---- what to try ---------------------------------------------------------------------------------


def _advice_lines(report: Report) -> Iterator[Prose]:
    tips = advice(report)
    if tips:
        yield Prose(tr("What to try:"))
    for number, tip in enumerate(tips, 1):
        yield Prose(f"{number}. {tip.text}", hanging=3)
        if tip.option:
            yield Prose(f"   {tip.option}", "bold", hanging=5)
        yield Prose(f"   {tip.why}", "dim", hanging=3)
