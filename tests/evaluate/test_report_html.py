from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.evaluate.reports import large_report, make_report
from whoamai.errors import DataError
from whoamai.evaluate.identity import Share
from whoamai.evaluate.report import AnswerPair, Report
from whoamai.evaluate.report_html import html_of, html_page, write_html
from whoamai.messages import use_language

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</p></div>", "&lt;b&gt;"]
_VOID = {"meta", "input", "img", "br", "link"}


class Page(HTMLParser):
    """Tags, text and attributes of a page; tags that are not closed in order are an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data

    def count(self, tag: str, css: str) -> int:
        return sum(t == tag and css in (a.get("class") or "").split() for t, a in self.tags)


def page_of(report: Report) -> Page:
    with use_language("en"):
        return Page(html_page(report))


def test_a_page_is_well_formed_and_begins_with_the_verdict():
    page = page_of(large_report())
    assert "Learned: it is 黄大力 now." in page.text
    assert page.text.index("Learned:") < page.text.index("Before and after")


def test_a_missed_goal_is_in_the_verdict_and_its_tile_is_marked():
    page = page_of(make_report(recall=Share(1, 100)))
    assert "NOT learned well enough. Goals missed: the new name is given." in page.text
    assert page.count("div", "no") == 1
    assert "✗ missed" in page.text
    assert "What to try" in page.text


def test_where_all_went_well_there_is_nothing_to_try():
    assert "What to try" not in page_of(make_report()).text


def test_nothing_is_fetched():
    with use_language("en"):
        page = html_page(large_report())
    assert "http" not in page.replace("http-equiv", "")
    assert not re.search(r"\b(?:src|href)=\"(?!#)", page)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_only_the_pages_own_script_may_run():
    tags = page_of(large_report()).tags
    assert sum(tag == "script" for tag, _ in tags) == 1
    policy = next(a["content"] for t, a in tags if a.get("http-equiv"))
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'$", policy or "")
    assert not any(name.startswith("on") for _, a in tags for name in a)


@pytest.mark.parametrize("text", HOSTILE)
def test_everything_from_models_and_users_is_escaped(text: str):
    report = large_report()
    pair = replace(
        report.answers[0], question=text, before=text, after=text, system=text, group=text,
        context=text, category=text, language=text, history=((text, text),), leaks=(text,),
    )  # fmt: skip
    assert report.retention
    lost = replace(report.retention.forgotten[0], question=text, before=text, after=text, kind=text)
    hostile = replace(
        report, model=text, old_names=(text,), answers=[pair],
        retention=replace(report.retention, forgotten=(lost,)),
        hashes={text: text}, details={text: text, "versions": {text: text}, "command": text},
    )  # fmt: skip
    usual, page = page_of(replace(report, answers=[pair])), page_of(hostile)
    for tag in ("script", "img", "b"):
        assert sum(t == tag for t, _ in page.tags) <= max(1, sum(t == tag for t, _ in usual.tags))
    assert page.text.count(text) >= 8


def test_a_long_system_prompt_is_folded_and_whole():
    long = "Be kind. " * 400
    pair = replace(make_report().answers[0], system=long)
    page = page_of(make_report(answers=[pair]))
    assert long in page.text
    assert sum(tag == "details" for tag, _ in page.tags) == 1


def test_a_few_answers_come_first_then_all_with_filters():
    report = large_report()
    page = page_of(report)
    assert page.count("li", "qa") == 12 + len(report.answers) + 4 + 1  # … forgotten, spread
    selects = [a["name"] for tag, a in page.tags if tag == "select"]
    assert selects == ["language", "group", "context", "verdict"]
    filters = next(a for _, a in page.tags if a.get("class") == "filters")
    assert "hidden" in filters  # until the script runs


def test_the_new_name_is_marked_and_the_leaked_one_otherwise():
    pair = AnswerPair("en", "who", "none", None, "Who?", None, "Qwen2 or Ann, not Anna", True,
                      ("Qwen2",))  # fmt: skip
    with use_language("en"):
        page = html_page(make_report(name="Ann", answers=[pair]))
    assert '<mark class="old">Qwen2</mark> or <mark>Ann</mark>, not Anna' in page


def test_names_that_overlap_are_marked_once():
    pair = AnswerPair("zh", "who", "none", None, "谁？", None, "我是大力士。", True, ("大力士",))
    with use_language("en"):
        page = html_page(make_report(name="大力", answers=[pair]))
    assert '我是<mark class="old">大力士</mark>。' in page


def test_without_answers_before_there_is_one_column_of_answers():
    pairs = [replace(pair, before=None) for pair in make_report().answers]
    page = page_of(make_report(kind="check", before=None, answers=pairs))
    assert page.count("li", "two") == 3


def test_scores_stand_by_context_and_language_with_n_and_interval():
    page = page_of(make_report(recall=Share(99, 100)))
    for part in ("no system prompt", "system prompt gives a role", "Chinese", "English", "99.0",
                 "100 · 94.6–99.8"):  # fmt: skip
        assert part in page.text


def test_what_it_cost_stands_by_language_with_the_forgotten_questions():
    page = page_of(large_report())
    for part in ("0.0214", "9.02 → 9.21", "+2.1 %", "413 of 417",
                 "4 questions answered rightly before", "What is 17 + 0?", "greeting"):  # fmt: skip
        assert part in page.text


def test_the_curve_is_drawn_for_wide_and_narrow_windows():
    page = page_of(large_report())
    assert page.count("svg", "wide") == page.count("svg", "narrow") == 1
    assert "Learned at step 80; training ended at step 120." in page.text
    assert "Of 340 planned steps 220 were not needed: about 86 s saved." in page.text


def test_parts_that_were_not_measured_are_left_out():
    page = page_of(make_report(before=None, retention=None, answers=(), details={}))
    for part in ("Before and after", "What it cost", "How it learned", "Hashes", "The command"):
        assert part not in page.text
    assert not re.search(r"\bnan\b", page.text)


def test_settings_hashes_versions_and_the_command_are_there():
    page = page_of(large_report())
    for part in ("learning rate", "0.002", "20,187", "3fa9c1d0", "transformers", "5.10.0",
                 "faq <2024>.jsonl", "whoamai rename --name 黄大力"):  # fmt: skip
        assert part in page.text


def test_a_page_of_a_score_of_nothing_has_no_nan():
    page = page_of(make_report(kept=Share(0, 0), role=Share(0, 0), recall=Share(0, 0)))
    assert not re.search(r"\bnan", page.text)
    assert "It was not asked for its name." in page.text


def test_a_page_is_in_the_language_asked_for(tmp_path: Path):
    write_html(make_report(), tmp_path / "zh.html", "zh")
    write_html(make_report(), tmp_path / "en.html", "en")
    chinese, english = ((tmp_path / f"{code}.html").read_text("utf-8") for code in ("zh", "en"))
    assert '<html lang="zh-CN">' in chinese
    assert '<html lang="en">' in english
    assert "Learned" not in Page(chinese).text
    assert "Learned" in Page(english).text


def test_the_json_alone_makes_the_same_page():
    report = large_report()
    with use_language("en"):
        assert html_of(json.loads(json.dumps(report.as_json()))) == html_page(report)


def test_json_that_is_no_report_is_refused():
    with pytest.raises(DataError):
        html_of({"format": 2})
