"""What a person sees in a terminal: a listener that draws progress, and the tables at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from whoamai import events as ev
from whoamai.evaluate.identity import Share
from whoamai.evaluate.report import PLAIN_CONTEXTS, AnswerPair, Report
from whoamai.messages import tr

_WIDE = 120  # columns

# Categories shown in the before/after table, in this order, with the contexts they are taken from.
_SHOWN = (
    ("intro", "none"),
    ("who", "turns"),
    ("name", "neutral"),
    ("maker", "none"),
    ("other", "none"),
    ("override", "none"),
    ("who", "role"),
    ("who", "named"),
)


class _Values(ProgressColumn):
    """What is worth watching; in a narrow terminal it is this column that is cut, not the times."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["values"], no_wrap=True, overflow="ellipsis")


class TerminalListener:
    """Draws stages as bars and notes as lines. Use as a context manager around the job."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16 if console.width >= _WIDE else 8),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            _Values(),
            console=console,
        )
        self._task: TaskID | None = None

    def __call__(self, event: ev.Event) -> None:
        match event:
            case ev.Stage(text=text):
                self._finish()
                self._bars.start()  # not before: an empty display leaves a blank line behind
                self._task = self._bars.add_task(text, total=None, values="")
            case ev.Progress(done=done, total=total, values=values) if self._task is not None:
                shown = "  ".join(f"{label} {number(values[k])}" for k, label in _watched(values))
                self._bars.update(self._task, completed=done, total=total, values=shown)
            case ev.Note(text=text, level=level):
                style = "yellow" if level == "warning" else ""
                self.console.print(Text(text, style=style))
            case ev.Result(name="stage"):
                self._finish()

    def _finish(self) -> None:
        if self._task is not None:
            task = self._bars.tasks[self._bars.task_ids.index(self._task)]
            if task.total is None:  # of others it is known how far they came
                self._bars.update(self._task, total=1, completed=1)
            self._bars.stop_task(self._task)
        self._task = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()
        if self._bars.live.is_started:
            self._bars.stop()


def _watched(values: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """What of `values` is worth a place on the line, and its label; the rest is in events.jsonl."""
    labels = {
        "loss": tr("loss"),
        "grad_norm": tr("grad"),
        "lr": tr("lr"),
        "tokens_per_s": tr("tokens/s"),
        "memory_gib": tr("GiB"),
    }
    return ((key, label) for key, label in labels.items() if key in values)


def number(value: float) -> str:
    """A value in a few characters: 12,345; 0.123; 2.0e-05."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1e}" if 0 < value < 0.001 else f"{value:.3g}"


# ---- the end of a job ----------------------------------------------------------------------------


def print_report(console: Console, report: Report) -> None:
    """The before/after table and the scores."""
    console.print(_answers_table(_chosen(report.answers), report))
    console.print(_scores_table(report))


def _chosen(answers: Iterable[AnswerPair]) -> list[AnswerPair]:
    """One answer a language for each line of _SHOWN that was asked."""
    first: dict[tuple[str, str, str], AnswerPair] = {}
    for pair in answers:
        first.setdefault((pair.language, pair.category, pair.context), pair)
    languages = dict.fromkeys(language for language, _, _ in first)
    wanted = [(language, *shown) for language in languages for shown in _SHOWN]
    return [first[key] for key in wanted if key in first]


def _answers_table(pairs: Iterable[AnswerPair], report: Report) -> Table:
    table = Table(title=tr("Before and after"), show_lines=True, title_justify="left")
    table.add_column(tr("question"), ratio=3, overflow="fold")
    table.add_column(tr("before"), ratio=4, overflow="fold")
    table.add_column(tr("after"), ratio=4, overflow="fold")
    for pair in pairs:
        question = Text(pair.question)
        if pair.context != "none":
            question.append(f"\n({_context(pair.context)})", style="dim")
        after = Text(pair.after)
        after.highlight_words([report.identity.name], style="bold green")
        if pair.leaks:
            after.highlight_words(pair.leaks, style="bold red")
        table.add_row(question, Text(pair.before, style="dim"), after)
    return table


def _scores_table(report: Report) -> Table:
    languages = list(dict.fromkeys(a.language for a in report.answers))
    table = Table(title=tr("Scores on held-out questions, in %"), title_justify="left")
    table.add_column("", overflow="fold")
    table.add_column(tr("asked"), justify="right")
    table.add_column(tr("before"), justify="right", style="dim")
    table.add_column(tr("after"), justify="right")
    for language in languages:
        table.add_column(language, justify="right")
    table.add_column(tr("goal"), justify="right", style="dim")
    for label, before, by_language, goal in _score_rows(report):
        after = by_language["all"]
        style = _style(after, goal)
        table.add_row(
            label,
            str(after.n),
            _percent(before),
            Text(_percent(after), style=style),
            *(_percent(by_language.get(language)) for language in languages),
            goal,
        )
    return table


_ScoreRow = tuple[str, Share | None, Mapping[str, Share], str]


def _score_rows(report: Report) -> Iterator[_ScoreRow]:
    """(label, before, after by language and "all", goal) of each line of the table."""
    goals, recall = report.goals, f"≥ {report.goals.recall:g}"

    def by_language(shares: Mapping[tuple[str, str], Share], context: str) -> dict[str, Share]:
        return {language: s for (c, language), s in shares.items() if c == context}

    for context in (*PLAIN_CONTEXTS, "role"):
        if after := by_language(report.after.recall, context):
            label = tr("new name: {context}").format(context=_context(context))
            goal = f"≥ {goals.recall_role:g}" if context == "role" else recall
            yield label, report.before.recall[context, "all"], after, goal
    yield (
        tr("an old or foreign name"),
        report.before.leak["all", "all"],
        by_language(report.after.leak, "all"),
        f"≤ {goals.leak:g}",
    )
    yield (
        tr("still right of what was right"),
        None,
        report.retention.kept,
        f"≥ {goals.retention:g}",
    )
    if report.merged_recall:
        label = tr("new name: merged model, loaded again")
        yield label, None, {"all": report.merged_recall}, recall


def goal_name(goal: str) -> str:
    """The goals of Report.missed in words."""
    return {
        "recall": tr("the new name is given"),
        "recall_role": tr("the new name is given under role prompts"),
        "leak": tr("no old or foreign name is given"),
        "retention": tr("what was right stays right"),
        "merged": tr("the merged model gives the new name"),
    }[goal]


def _style(share: Share, goal: str) -> str:
    """Green where the goal is reached, red where it is not, plain where nothing was counted."""
    if not share.n:
        return ""
    sign, _, bound = goal.partition(" ")
    reached = share.percent >= float(bound) if sign == "≥" else share.percent <= float(bound)
    return "bold green" if reached else "bold red"


def _percent(share: Share | None) -> str:
    return f"{share.percent:.1f}" if share and share.n else "–"


def _context(context: str) -> str:
    return {
        "none": tr("no system prompt"),
        "neutral": tr("neutral system prompt"),
        "turns": tr("after other turns"),
        "role": tr("system prompt gives a role"),
        "named": tr("the data's system prompt"),
    }[context]
