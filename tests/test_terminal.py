from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.evaluate.reports import make_report
from whoamai.evaluate.identity import Share
from whoamai.evaluate.report import Report
from whoamai.events import Events, Note, Progress
from whoamai.messages import use_language
from whoamai.terminal import TerminalListener, print_report

NAMES = ["[red]x[/red]", "[/]", "[/b]", "{name}", "[bold]", ":smile:", "a\\[b]", "{0}", "😀"]


def console(width: int = 120, **settings) -> Console:
    return Console(file=io.StringIO(), width=width, **settings)


def shown(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def report_text(report: Report, width: int = 120) -> str:
    out = console(width)
    print_report(out, report)
    return shown(out)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_report_fits_the_terminal(width: int, language: str):
    with use_language(language):
        out = console(width)
        print_report(out, make_report(merged_recall=Share(99, 100)))
    assert max(cell_len(line) for line in shown(out).splitlines()) <= width


@pytest.mark.parametrize("width", [60, 120])
def test_the_numbers_are_whole_at_every_width(width: int):
    text = report_text(make_report(recall=Share(995, 1000), leak=Share(0, 400)), width)
    assert "99.5" in text
    assert "≥ 98" in text
    assert "≤ 0" in text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_word_is_cut_in_a_narrow_terminal(language: str):
    with use_language(language):
        assert "…" not in report_text(make_report(merged_recall=Share(99, 100)), 60)


def test_questions_and_answers_before_and_after_are_shown():
    text = report_text(make_report())
    for part in ("介绍一下你自己", "你是谁", "我是小初。", "我是黄大力。", "Who are you?"):
        assert part in text


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is_and_never_read_as_markup(name: str):
    assert f"我是{name}。" in report_text(make_report(name=name))


@pytest.mark.parametrize("text", NAMES)
def test_questions_and_answers_are_never_read_as_markup(text: str):
    report = make_report()
    pair = replace(report.answers[0], question=f"Q{text}", before=f"B{text}", after=f"A{text}")
    found = report_text(replace(report, answers=[pair]))
    assert all(part + text in found for part in "QBA")


def in_colour(report: Report) -> str:
    out = console(force_terminal=True, no_color=False, color_system="standard", _environ={})
    print_report(out, report)
    return shown(out)


GREEN, RED = r"\x1b\[1;32m *", r"\x1b\[1;31m *"


def test_a_score_that_reached_its_goal_is_green_and_one_that_missed_red():
    text = in_colour(make_report(recall=Share(99, 100), role=Share(10, 100)))
    assert re.search(GREEN + "99.0", text)
    assert re.search(RED + "10.0", text)
    assert not re.search(RED + "99.0", text)


def test_the_new_name_in_an_answer_is_green_and_a_foreign_one_red():
    text = in_colour(make_report())
    assert re.search(GREEN + "黄大力", text)
    assert re.search(RED + "ChatGPT", text)


def test_a_score_nobody_was_asked_for_is_a_dash_and_not_nan():
    text = report_text(make_report(kept=Share(0, 0)))
    assert "nan" not in text
    assert "–" in text


def test_a_score_of_nothing_is_not_shown_as_missed():
    """Report.missed does not count it either."""
    assert not re.search(RED + "–", in_colour(make_report(kept=Share(0, 0))))


def test_the_merged_models_score_is_shown_where_there_is_one():
    assert "merged" not in report_text(make_report())
    assert "merged" in report_text(make_report(merged_recall=Share(99, 100)))


def test_a_report_is_shown_in_chinese():
    with use_language("zh"):
        text = report_text(make_report())
    assert "Before" not in text
    assert "before" not in text
    assert "Scores" not in text


# ---- progress ------------------------------------------------------------------------------------


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
