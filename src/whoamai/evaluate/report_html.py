"""report.html: a report as one page that needs nothing else, in the language of the messages.

Everything from models and users is escaped. The page's own script filters the list of answers and is
the only one that may run; the page is whole without it.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

from whoamai.data.writers import complete_file
from whoamai.evaluate.advice import advice
from whoamai.evaluate.report import Report, Score
from whoamai.evaluate.report_answers import answers_section, forgotten_list, spread_list
from whoamai.evaluate.report_facts import settings_cards
from whoamai.evaluate.report_file import report_from
from whoamai.evaluate.report_svg import SERIES, curve_svg
from whoamai.evaluate.report_tables import cost_tables, scores_tables
from whoamai.evaluate.report_words import (
    goal,
    how_it_stopped,
    interval,
    percent,
    score_name,
    verdict,
)
from whoamai.messages import language, tr, use_language


def write_html(report: Report, path: Path, lang: str | None = None) -> None:
    """Write the page in `lang` ("zh", "en"; else the language of messages), complete or not at all.

    Raises OutputError.
    """
    with use_language(lang) if lang else nullcontext():
        page = html_page(report)
    with complete_file(path) as file:
        file.write(page.encode("utf-8"))


def html_of(report_json: Mapping[str, Any]) -> str:
    """The page of what a report.json holds. Raises DataError where that is no report."""
    return html_page(report_from(report_json))


def html_page(report: Report) -> str:
    """The page as text."""
    script = _part("report.js")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections = [s for s in _sections(report) if s[2]]
    body = [
        _head(report, [(name, title) for name, title, _ in sections]),
        *(f'<h2 id="{name}">{_e(title)}</h2>\n{content}' for name, title, content in sections),
        f"<footer>{_e(_made_by(report))}</footer>",
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="{language().replace("_", "-")}">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            f"style-src 'unsafe-inline'; script-src 'sha256-{allowed}'\">",
            f"<title>{_e(report.identity.name)} · {_e(_kind(report))} · whoamai</title>",
            f"<style>\n{_part('report.css')}</style></head>",
            f"<body><main>\n{chr(10).join(body)}\n</main>",
            f"<script>{script}</script></body>",
            "</html>\n",
        ]
    )


def _sections(report: Report) -> Iterator[tuple[str, str, str]]:
    """(anchor, title, content); an empty content is left out."""
    yield "answers", tr("Before and after"), answers_section(report)
    yield "scores", tr("Scores in detail"), scores_tables(report)
    yield "cost", tr("What it cost"), _cost(report)
    yield "curve", tr("How it learned"), _curve_section(report)
    yield "settings", tr("Data and settings"), settings_cards(report)


def _cost(report: Report) -> str:
    parts = (cost_tables(report), forgotten_list(report), spread_list(report))
    return "\n".join(filter(None, parts))


def _part(name: str) -> str:
    return resources.files("whoamai.evaluate").joinpath(name).read_text("utf-8")


def _e(text: object) -> str:
    return html.escape(str(text))


# ---- the verdict and its tiles -------------------------------------------------------------------


def _head(report: Report, anchors: Iterable[tuple[str, str]]) -> str:
    links = "".join(f'<a href="#{name}">{_e(title)}</a>' for name, title in anchors)
    reached = "" if report.missed else " ok"
    kicker = " · ".join((_e(_kind(report)), f"<b>{_e(report.model)}</b>"))
    with_goal = [_tile(score) for score in report.scores if score.goal is not None]
    others = [_tile(score) for score in report.scores if score.goal is None]
    return "\n".join(
        [
            f'<header><div class="head{reached}">',
            f'<p class="kicker">{kicker}</p>',
            f"<h1>{_e(verdict(report))}</h1>",
            f'<p class="lead">{_e(_in_short(report))}</p></div>',
            f"<nav>{links}</nav></header>",
            f'<div class="tiles">\n{chr(10).join(with_goal)}\n</div>',
            _advice_card(report),
            f'<div class="tiles lesser">\n{chr(10).join(others)}\n</div>' if others else "",
        ]
    )


def _kind(report: Report) -> str:
    return {
        "rename": tr("Report of a renaming"),
        "check": tr("Report of a check"),
        "train": tr("Report of a training"),
    }[report.kind]


def _in_short(report: Report) -> str:
    recall, name = report.recall, report.identity.name
    if not recall.n:
        return tr("It was not asked for its name.")
    text = tr("Asked {n:,} held-out questions about itself, it gives the name {name} in {percent}.")
    before = next((s.before for s in report.scores if s.name == "recall"), None)
    if before and before.n:
        text = tr(
            "Asked {n:,} held-out questions about itself, it gives the name {name} in {percent}; "
            "before it was {before}."
        )
    return text.format(
        n=recall.n, name=name, percent=percent(recall, sign=True), before=percent(before, sign=True)
    )


def _tile(score: Score) -> str:
    share = score.after
    css = {True: " ok", False: " no", None: ""}[score.reached]
    facts = [tr("{k:,} of {n:,}").format(k=share.k, n=share.n)]
    facts.append(tr("95 %: {interval}").format(interval=interval(share)))
    if score.before and score.before.n:
        facts.append(tr("before {percent}").format(percent=percent(score.before, sign=True)))
    lines = [
        f'<div class="tile{css}"><div class="name">{_e(score_name(score.name))}</div>',
        f'<div class="value">{_e(percent(share))}<small>%</small></div>',
        _bar(score),
        f'<div class="facts">{"".join(f"<span>{_e(fact)}</span>" for fact in facts)}</div>',
    ]
    if score.goal is not None:
        reached = {True: tr("✓ reached"), False: tr("✗ missed"), None: ""}[score.reached]
        text = tr("goal {goal}").format(goal=goal(score))
        lines.append(f'<div class="goal"><span>{_e(text)}</span><span>{_e(reached)}</span></div>')
    return "".join(lines) + "</div>"


def _bar(score: Score) -> str:
    """0 to 100 %: the share, its interval, and the goal as a tick."""
    if not score.after.n:
        return '<div class="bar"></div>'
    low, high = score.after.interval
    tick = "" if score.goal is None else f'<i class="tick" style="left:{score.goal:.1f}%"></i>'
    return (
        f'<div class="bar"><i class="fill" style="width:{score.after.percent:.1f}%"></i>'
        f'<i class="range" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>{tick}</div>'
    )


def _advice_card(report: Report) -> str:
    items = [
        f"<li><p>{_e(a.text)}</p>"
        + (f"<code>{_e(a.option)}</code>" if a.option else "")
        + f'<p class="small">{_e(a.why)}</p></li>'
        for a in advice(report)
    ]
    if not items:
        return ""
    title = _e(tr("What to try"))
    return f'<section class="card advice"><h3>{title}</h3><ol>{"".join(items)}</ol></section>'


# ---- how it learned ------------------------------------------------------------------------------


def _curve_section(report: Report) -> str:
    sizes = (("wide", 1000, 360), ("narrow", 360, 320))
    drawn = [
        curve_svg(report.curve, report.probes, report.stop, width=width, height=height).replace(
            "<svg ", f'<svg class="{css}" ', 1
        )
        for css, width, height in sizes
    ]
    stopped = f"<p>{_e(how_it_stopped(report.stop))}</p>" if report.stop else ""
    if not all(drawn):
        return stopped and f'<div class="card">{stopped}</div>'
    legend = "".join(
        f'<li><svg viewBox="0 0 30 10" aria-hidden="true">'
        f'<line class="{css}" x1="1" x2="29" y1="5" y2="5"/></svg>{_e(text)}</li>'
        for css, text in _legend(report)
    )
    return (
        f'<figure class="card">{"".join(drawn)}<ul class="legend">{legend}</ul>'
        f"<figcaption>{stopped}</figcaption></figure>"
    )


def _legend(report: Report) -> Iterator[tuple[str, str]]:
    if report.curve:
        yield "loss-raw", tr("loss of a step")
        yield "loss", tr("loss, smoothed")
    names = {
        "recall": tr("probe: new name given"),
        "leak": tr("probe: an old or foreign name"),
        "kept": tr("probe: still right of what was right"),
    }
    for css, name in SERIES:
        if any(getattr(probe, name).n for probe in report.probes):
            yield css, names[name]


def _made_by(report: Report) -> str:
    version = report.details.get("versions", {}).get("whoamai", "")
    return " ".join(filter(None, ("whoamai", str(version))))
