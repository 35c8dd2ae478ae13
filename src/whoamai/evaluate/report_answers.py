"""The answers on the report page: a chosen dozen, all of them behind filters, and what was lost."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from whoamai.data.claims import name_pattern
from whoamai.evaluate.report import AnswerPair, Report, chosen_answers
from whoamai.evaluate.report_words import context_name, group_name, language_name, verdict_name
from whoamai.messages import language, tr

_SHORT = 140  # characters of a system prompt that are shown without a click

Marker = Callable[[str], str]


def answers_section(report: Report) -> str:
    """A few answers, then all of them with filters; "" where none are there."""
    if not report.answers:
        return ""
    few = chosen_answers(report.answers, first_language=language()[:2])
    marked = partial(_marked, names=_names(report))
    parts = [_list(few, marked)]
    if len(few) < len(report.answers):
        summary = tr("All {n:,} answers").format(n=len(report.answers))
        parts.append(
            f'<details class="more"><summary>{_e(summary)}</summary>{_filters(report.answers)}'
            f'<div id="every">{_list(report.answers, marked)}</div></details>'
        )
    return "\n".join(parts)


def forgotten_list(report: Report) -> str:
    """What was answered rightly before and wrongly after."""
    scores = (report.retention, report.retention_long)
    lost = [lost for part in scores if part for lost in part.forgotten]
    if not lost:
        return ""
    items = (
        _item(
            _question((language_name(f.language), f.kind), f.question, f.system, (), f.language),
            _answer(tr("before"), _e(f.before), f.language, "was"),
            _answer(tr("after"), _e(f.after), f.language),
        )
        for f in lost
    )
    summary = tr("{n:,} questions answered rightly before and wrongly after").format(n=len(lost))
    return _folded(summary, items)


def spread_list(report: Report) -> str:
    """General questions whose answers mention the name."""
    if not report.spread or not report.spread.examples:
        return ""
    names = _names(report)
    items = (
        _item(
            _question((language_name(x.language),), x.question, None, (), x.language),
            _answer(tr("after"), _marked(x.answer, (), names), x.language),
        )
        for x in report.spread.examples
    )
    return _folded(tr("Answers that give the name though nobody asked"), items)


def _e(text: object) -> str:
    return html.escape(str(text))


# ---- one answer ----------------------------------------------------------------------------------


def _list(pairs: Iterable[AnswerPair], marked: Callable[..., str]) -> str:
    return f'<ul class="answers">{chr(10).join(_pair(pair, marked) for pair in pairs)}</ul>'


def _pair(pair: AnswerPair, marked: Callable[..., str]) -> str:
    where = [language_name(pair.language), group_name(pair.group) if pair.group else ""]
    if pair.context != "none":
        where.append(context_name(pair.context))
    question = _question(where, pair.question, pair.system, pair.history, pair.language)
    pill = f'<span class="pill {pair.verdict}">{_e(verdict_name(pair.verdict))}</span>'
    after = _answer(tr("after"), marked(pair.after, pair.leaks), pair.language, pill=pill)
    data = {
        "language": pair.language,
        "group": pair.group,
        "context": pair.context,
        "verdict": pair.verdict,
    }
    if pair.before is None:
        return _item(question, after, data=data)
    return _item(question, _answer(tr("before"), _e(pair.before), pair.language, "was"), after,
                 data=data)  # fmt: skip


def _item(*parts: str, data: dict[str, str] | None = None) -> str:
    attributes = "".join(f' data-{key}="{_e(value)}"' for key, value in (data or {}).items())
    css = "qa two" if len(parts) == 2 else "qa"
    return f'<li class="{css}"{attributes}>{"".join(parts)}</li>'


def _question(
    where: Iterable[str],
    question: str,
    system: str | None,
    history: Sequence[tuple[str, str]],
    code: str,
) -> str:
    place = _e(" · ".join(filter(None, where)))
    said = [] if system is None else [_said(tr("system prompt"), system)]
    roles = {"user": tr("user"), "assistant": tr("answer")}
    said += [_said(roles.get(role, role), text) for role, text in history]
    before = f'<div class="said">{"".join(said)}</div>' if said else ""
    return (
        f'<div><div class="where">{place}</div>'
        f'<p class="ask" lang="{_e(code)}">{_e(question)}</p>{before}</div>'
    )


def _said(who: str, text: str) -> str:
    line = f"<b>{_e(who)}</b> {_e(text)}"
    if len(text) <= _SHORT:
        return f"<p>{line}</p>"
    head = f"<b>{_e(who)}</b> {_e(text[:_SHORT])}…"
    return f"<details><summary>{head}</summary><p>{_e(text)}</p></details>"


def _answer(label: str, answer: str, code: str, css: str = "", pill: str = "") -> str:
    """`answer` is HTML already."""
    return (
        f'<div class="{css}"><div class="label"><span>{_e(label)}</span>{pill}</div>'
        f'<p lang="{_e(code)}">{answer or "–"}</p></div>'
    )


def _folded(summary: str, items: Iterable[str]) -> str:
    rows = "\n".join(items)
    return (
        f'<details class="more"><summary>{_e(summary)}</summary>'
        f'<ul class="answers">{rows}</ul></details>'
    )


# ---- names in answers ----------------------------------------------------------------------------


def _names(report: Report) -> tuple[str, ...]:
    return tuple(filter(None, (report.identity.name, report.identity.author)))


def _marked(text: str, leaks: Sequence[str], names: Sequence[str]) -> str:
    """The text as HTML, with its new names marked and the leaked ones marked otherwise."""
    css = {**dict.fromkeys(leaks, ' class="old"'), **dict.fromkeys(names, "")}
    found: list[tuple[int, int, str]] = []
    for name in sorted(css, key=len, reverse=True):
        found += [(m.start(), m.end(), css[name]) for m in name_pattern(name).finditer(text)]
    parts, at = [], 0
    for start, end, kind in sorted(found, key=lambda f: (f[0], -f[1])):
        if start >= at and end > start:
            parts += [_e(text[at:start]), f"<mark{kind}>{_e(text[start:end])}</mark>"]
            at = end
    return "".join([*parts, _e(text[at:])])


# ---- filters -------------------------------------------------------------------------------------


def _filters(pairs: Sequence[AnswerPair]) -> str:
    """Hidden until the script that they need runs."""
    selects = "".join(
        _select(name, label, dict.fromkeys(getattr(p, name) for p in pairs), words)
        for name, label, words in (
            ("language", tr("language"), language_name),
            ("group", tr("kind of question"), group_name),
            ("context", tr("what stood before"), context_name),
            ("verdict", tr("name given"), verdict_name),
        )
    )
    search = _e(tr("Search"))
    form = _e(tr("{n} of {all}"))
    return (
        f'<div class="filters" hidden>{selects}<input type="search" placeholder="{search}" '
        f'aria-label="{search}"><output data-form="{form}"></output></div>'
    )


def _select(name: str, label: str, values: Iterable[str], words: Callable[[str], str]) -> str:
    options = "".join(f'<option value="{_e(v)}">{_e(words(v))}</option>' for v in values if v)
    every = _e(tr("{label}: all").format(label=label))
    return (
        f'<select name="{name}" aria-label="{_e(label)}">'
        f'<option value="">{every}</option>{options}</select>'
    )
