"""What `whoamai doctor` prints, and what moves while it looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from whoamai.messages import tr
from whoamai.plan.doctor import Diagnosis, Group, status_name

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@contextmanager
def looking(console: Console | None = None) -> Iterator[Callable[[str], None]]:
    """A spinner on the error stream, where that is a screen; yields what changes its text."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(Text(tr("Looking at this machine"))) as status:
        yield lambda text: status.update(Text(text))


def print_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """The same lines as Diagnosis.as_text(), in colours."""
    head, *_ = diagnosis.as_text().splitlines()
    _line(console, Text(head, style="bold"))
    for group in diagnosis.groups:
        _line(console, Text())
        _print_group(console, group)
    _line(console, Text())
    _line(console, Text(diagnosis.verdict, style="bold green" if diagnosis.ok else "bold red"))


def _print_group(console: Console, group: Group) -> None:
    _line(console, Text(group.title, style="bold"))
    widest = max((cell_len(check.name) for check in group.checks), default=0)
    widest_sign = max(cell_len(status_name(status)) for status in ("ok", "warn", "fail"))
    for check in group.checks:
        line = Text("  ").append(status_name(check.status), style=_STYLES[check.status])
        line.append(" " * (widest_sign - cell_len(status_name(check.status)) + 2))
        line.append(check.name + " " * (widest - cell_len(check.name) + 2), style="dim")
        _line(console, line.append(check.value))
        if check.cure:
            _line(console, Text(" " * (widest_sign + 4) + f"→ {check.cure}", style="cyan"))


def _line(console: Console, text: Text) -> None:
    """Nothing cut: what is copied from the screen is what as_text() gives."""
    console.print(text, soft_wrap=True)
