"""What `whoamai data …` prints: findings, repairs, replacements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from whoamai.messages import tr

if TYPE_CHECKING:
    from whoamai.data.lint import CheckReport, Example, Finding
    from whoamai.data.repair import RepairReport
    from whoamai.data.replace_rows import ReplaceResult

_STYLES = {"blocks": "bold red", "warns": "yellow", "notes": "dim"}


@contextmanager
def bytes_bar(label: str, *, hidden: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar over the bytes of the files, where the error stream is a screen; gone when all is done."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=hidden or not console.is_terminal,  # elsewhere an empty line would be left
    )
    with bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# ---- check ---------------------------------------------------------------------------------------


def print_check(console: Console, report: CheckReport) -> None:
    """The findings, the grave ones first, and in one line at the end what they mean."""
    _line(console, _head(report), "bold")
    for finding in report.findings:
        _print_finding(console, finding)
    blocking = report.blocking()
    if blocking:
        kinds = ", ".join(f.kind for f in blocking)
        text = tr("Training on this is refused because of: {kinds}.").format(kinds=kinds)
        _line(console, text, "bold red")
    elif report.findings:
        _line(console, tr("Nothing here blocks training."), "bold green")
    else:
        _line(console, tr("Nothing to complain about."), "bold green")


def _head(report: CheckReport) -> str:
    forms = ", ".join(f"{form} × {n:,}" for form, n in report.forms.items()) or "–"
    tokens = tr("{n:,} tokens") if report.tokens_are_exact else tr("about {n:,} tokens")
    return tr(
        "{files}: {rows:,} rows, {usable:,} can be trained on; form: {forms}; {tokens}"
    ).format(
        files=", ".join(report.files),
        rows=report.rows,
        usable=report.usable,
        forms=forms,
        tokens=tokens.format(n=report.tokens),
    )


def _print_finding(console: Console, finding: Finding) -> None:
    names = {"blocks": tr("blocks"), "warns": tr("warning"), "notes": tr("note")}
    head = Text(f"{names[finding.severity]}  ", style=_STYLES[finding.severity])
    head.append(f"{finding.count:,} × {finding.title}", style="bold not dim")
    head.append(f"  [{finding.kind}]", style="dim")
    if finding.detail:
        head.append(f"  {finding.detail}", style="not bold")
    head.overflow = "fold"
    console.print(head)
    for where, field, shown in _merged(finding.examples):
        place = " ".join(part for part in (where, field) if part)
        text = Text(place, style="dim").append(f"  {shown}", style="not dim")
        text.truncate(max(40, console.width - 2), overflow="ellipsis")
        console.print(Padding(text, (0, 0, 0, 2)))
    console.print(Padding(Text(f"→ {finding.cure}", style="cyan", overflow="fold"), (0, 0, 0, 2)))


def _merged(examples: Sequence[Example]) -> Iterator[tuple[str, str, str]]:
    """Examples that say the same in one: ("data.jsonl:1, 2, 3", field, text)."""
    places: dict[tuple[str, str], list[str]] = {}
    for example in examples:
        places.setdefault((example.field, example.text), []).append(example.where)
    for (field, text), wheres in places.items():
        file = wheres[0].rpartition(":")[0]
        short = [wheres[0], *(where.removeprefix(f"{file}:") for where in wheres[1:])]
        yield ", ".join(short), field, text


# ---- repair --------------------------------------------------------------------------------------


def print_repair(console: Console, report: RepairReport, out: Path | None) -> None:
    """What was changed and left out, by kind, with the first of each before and after."""
    from whoamai.data.lint_kinds import kind
    from whoamai.data.repair import kind_title

    for change in report.shown:
        _line(console, f"{change.where} {change.field}", "dim")
        _line(console, f"- {change.before}", "red")
        if change.after is None:
            _line(console, "  " + tr("(row left out)"), "yellow")
        else:
            _line(console, f"+ {change.after}", "green")
    _counts(console, tr("Changed:"), {kind_title(k): n for k, n in report.changes.items()})
    _counts(console, tr("Left out:"), {kind(k).title: n for k, n in report.left_out.items()})
    if report.questions:
        text = tr("{n} different questions were given. They are guesses: read some of them.")
        _line(console, text.format(n=len(report.questions)), "yellow")
    text = tr("{rows:,} rows read, {changed:,} changed, {left_out:,} left out, {written:,} kept.")
    text = text.format(
        rows=report.rows,
        changed=report.changed,
        left_out=report.rows - report.written,
        written=report.written,
    )
    _line(console, text, "bold")
    _where(console, out)


# ---- replace -------------------------------------------------------------------------------------


def print_replaced(console: Console, result: ReplaceResult) -> None:
    """The first changes, counts by name and field, and what a person should look at."""
    from whoamai.data.preview import visible

    for change in result.changes:
        _line(console, f"{change.place} {change.field}", "dim")
        _line(console, f"- {visible(change.before, on_lines=False)}", "red")
        _line(console, f"+ {visible(change.after, on_lines=False)}", "green")
    _counts(console, tr("Replaced:"), result.occurrences)
    _counts(console, tr("In the fields:"), result.by_field)
    for text, counts in (
        (tr("Inside longer words (Chu in Chuck):"), result.inside_words),
        (tr("In another spelling, left as they are (--case ignore):"), result.other_case),
        (tr("In keys, left as they are:"), result.in_keys),
        (tr("Left, as --allow-left lets it:"), result.left),
    ):
        _counts(console, text, {name: n for name, n in counts.items() if n}, style="yellow")
    for name in result.never_found:
        _line(console, tr("{name} occurs nowhere. Is it spelled so?").format(name=name), "yellow")
    text = tr("{changed:,} of {rows:,} rows changed.")
    _line(console, text.format(changed=result.rows_changed, rows=result.rows), "bold")
    _where(console, result.written)


def _counts(console: Console, label: str, counts: Mapping[str, int], style: str = "") -> None:
    if counts:
        shown = ", ".join(f"{name} × {n:,}" for name, n in counts.items())
        _line(console, f"{label} {shown}", style)


def _where(console: Console, out: Path | None) -> None:
    if out is None:
        _line(console, tr("Nothing was written (--dry-run)."), "bold")
    else:
        _line(console, tr("Written to {path}").format(path=out), "bold")


def _line(console: Console, text: str, style: str) -> None:
    """A line of plain text: no markup, nothing cut."""
    console.print(Text(text, style=style), soft_wrap=True)
