"""The tables at the end of a job, what is said of it, and that names are shown as they are."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.evaluate.reports import large_report, make_report
from whoamai.evaluate.identity import Share
from whoamai.evaluate.probing import StopRecord
from whoamai.evaluate.report import Report
from whoamai.messages import use_language
from whoamai.terminal_report import print_report

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
        print_report(out, make_report(merged=Share(99, 100)))
    assert max(cell_len(line) for line in shown(out).splitlines()) <= width


@pytest.mark.parametrize("width", [60, 120])
def test_the_numbers_are_whole_at_every_width(width: int):
    text = report_text(make_report(recall=Share(995, 1000), leak=Share(0, 400)), width)
    assert "99.5" in text
    assert "≥ 98" in text
    assert "≤ 0.5" in text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_word_is_cut_in_a_narrow_terminal(language: str):
    with use_language(language):
        assert "…" not in report_text(make_report(merged=Share(99, 100)), 60)


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
    assert "merged" in report_text(make_report(merged=Share(99, 100)))


def test_a_report_is_shown_in_chinese():
    with use_language("zh"):
        text = report_text(make_report())
    assert "Before" not in text
    assert "before" not in text
    assert "Scores" not in text


def test_a_score_has_its_number_interval_goal_and_mark():
    text = report_text(make_report(recall=Share(99, 100), role=Share(10, 100)))
    line = next(line for line in text.splitlines() if "new name given" in line)
    for part in ("300", "0.0", "99.0", "97.1–99.7", "≥ 98 ✓"):
        assert part in line
    assert "≥ 85 ✗" in text


def test_a_wide_terminal_shows_every_language_and_a_narrow_one_what_matters():
    wide, narrow = report_text(large_report(), 120), report_text(large_report(), 60)
    assert re.search(r"zh ┃ +en ┃", wide)
    assert not re.search(r"zh ┃", narrow)
    assert "≥ 98 ✓" in narrow


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_tables_of_a_large_report_are_straight(width: int, language: str):
    with use_language(language):
        lines = report_text(large_report(skill=0.7, leaking=0.1), width).splitlines()
    table = [line for line in lines if line[:1] in "┏┃┡│├└"]
    assert {len(line) for line in table} != set()
    widths = {cell_len(line) for line in table}
    assert len(widths) <= 2  # two tables
    assert max(map(cell_len, lines)) <= width


def test_without_answers_before_no_column_stands_empty():
    report = make_report(before=None, retention=None)
    report = replace(report, answers=[replace(a, before=None) for a in report.answers])
    text = report_text(report)
    assert "before" not in text
    assert "我是黄大力。" in text


def test_the_verdict_is_said():
    assert "Learned: it is 黄大力 now." in report_text(make_report())
    assert "It is 黄大力: every goal was reached." in report_text(make_report(kind="check"))
    assert "NOT learned well enough" in report_text(make_report(recall=Share(1, 100)))


def test_what_to_try_is_said_with_its_reason_where_goals_were_missed():
    text = report_text(make_report(spread=Share(9, 100)))
    assert "1. Mix in more" in text
    assert "--replay 1.6" in text
    assert "9 of 100" in text
    assert "What to try" not in report_text(make_report())


def test_when_it_stopped_is_said():
    stop = StopRecord(40, 60, 100, 30.0, 20.0, 60)
    text = report_text(make_report(stop=stop))
    assert "Learned at step 40; training ended at step 60." in text
    assert "Of 100 planned steps 40 were not needed: about 20 s saved." in text
    never = report_text(make_report(stop=StopRecord(None, 100, 100, 30.0, 0.0, 80)))
    assert "all 100 steps were taken" in never
    assert "step 80 was the best" in never
