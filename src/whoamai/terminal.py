"""What a person sees in a terminal while a job runs: a listener that draws its progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from rich.table import Column
from rich.text import Text

from whoamai import events as ev
from whoamai.messages import tr

_WIDE = 120  # columns


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
