from __future__ import annotations

import io

import pytest
from rich.console import Console

from whoamai.events import Events, Note, Progress
from whoamai.terminal import TerminalListener

NAMES = ["[red]x[/red]", "[/]", "[/b]", "{name}", "[bold]", ":smile:", "a\\[b]", "{0}", "😀"]


def console(width: int = 120, **settings) -> Console:
    return Console(file=io.StringIO(), width=width, **settings)


def shown(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def listened(*actions) -> str:
    out = console(100)
    with TerminalListener(out) as listener:
        events = Events([listener])
        for action in actions:
            action(events)
    return shown(out)


def work(events: Events, text: str = "Loading", n: int = 3) -> None:
    with events.stage("load", text):
        for done in range(1, n + 1):
            events.emit(Progress("load", done, n, {"loss": 1.2345, "lr": 2e-4}))


def test_a_stage_is_shown_with_its_progress_and_values():
    text = listened(work)
    assert "Loading" in text
    assert "3/3" in text
    assert "loss 1.23" in text
    assert "lr 2.0e-04" in text


def test_a_stage_without_progress_is_shown_as_done():
    text = listened(lambda e: work(e, n=0))
    assert "1/1" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_stages_text_is_never_read_as_markup(name: str):
    """It may hold the path of a model: /models/[v2]/x."""
    assert f"Loading {name}" in listened(lambda e: work(e, f"Loading {name}"))


@pytest.mark.parametrize("name", NAMES)
def test_a_note_is_never_read_as_markup(name: str):
    assert f"data {name}" in listened(lambda e: e.emit(Note(f"data {name}", "warning")))


def test_progress_outside_of_a_stage_is_no_matter():
    assert "Traceback" not in listened(lambda e: e.emit(Progress("x", 1, 2)))


def test_the_terminal_is_given_back_when_the_job_fails():
    out = Console(file=io.StringIO(), width=100, force_terminal=True, _environ={})

    def job() -> None:
        with TerminalListener(out) as listener, Events([listener]).stage("load", "Loading"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job()
    assert shown(out).rstrip().endswith("\x1b[?25h")  # the cursor is back
