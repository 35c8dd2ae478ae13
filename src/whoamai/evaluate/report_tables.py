"""The tables of the report page: scores by context, kind of question and language, and what it cost."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator

from whoamai.evaluate.identity import Share, Shares
from whoamai.evaluate.report import CONTEXTS, ROLE_CONTEXTS, Report
from whoamai.evaluate.report_words import (
    context_name,
    group_name,
    interval,
    language_name,
    percent,
)
from whoamai.messages import joined, tr

# ---- scores by context, group and language -------------------------------------------------------


def scores_tables(report: Report) -> str:
    codes = report.languages
    columns = [*codes, "all"] if len(codes) != 1 else ["all"]
    names = "".join(
        f"<th{' class=divide' * (i % len(columns) == 0)}>{_e(language_name(code))}</th>"
        for i, code in enumerate(columns * 2)
    )
    groups = list(dict.fromkeys(c for c, _ in report.after.recall if c.startswith("group:") and c))
    asked = dict.fromkeys(c for c, _ in report.after.recall)
    contexts = [c for c in CONTEXTS if c in asked]
    contexts += [c for c in asked if c not in contexts and c not in groups and c != "all"]
    rows = [_part_row(tr("by what stood before the question"), len(columns))] if contexts else []
    rows += [_score_row(report, c, context_name(c), columns) for c in contexts]
    rows += [_part_row(tr("by kind of question"), len(columns))] if groups else []
    rows += [_score_row(report, g, group_name(g.partition(":")[2]), columns) for g in groups]
    rows.append(_score_row(report, "all", tr("all questions"), columns, "sum"))
    lead = tr(
        "Held-out questions that were never trained on. Below each percentage: how many were asked, "
        "and the interval that holds the true share with 95 % confidence."
    )
    heads = (tr("new name given"), tr("an old or foreign name"))
    titles = "".join(f'<th colspan="{len(columns)}" class="divide">{_e(h)}</th>' for h in heads)
    return (
        f'<p class="lead">{_e(lead)}</p><div class="scroll"><table><thead>'
        f"<tr><th></th>{titles}</tr><tr><th></th>{names}</tr></thead>\n"
        f"<tbody>{chr(10).join(rows)}</tbody></table></div>"
    )


def _part_row(title: str, columns: int) -> str:
    cells = f'<td class="divide" colspan="{columns}"></td>' * 2
    return f'<tr class="part"><th>{_e(title)}</th>{cells}</tr>'


def _score_row(report: Report, context: str, label: str, columns: list[str], css: str = "") -> str:
    goals = report.goals
    least = goals.recall_role if context in ROLE_CONTEXTS else goals.recall
    if context == "all" or context.startswith("group:"):
        least = min(goals.recall, goals.recall_role)  # these hold answers of both sorts
    cells = [*_cells(report.after.recall, context, columns, lambda p: p >= least)]
    cells += _cells(report.after.leak, context, columns, lambda p: p <= goals.leak)
    return f'<tr class="{css}"><th>{_e(label)}</th>{"".join(cells)}</tr>'


def _cells(
    shares: Shares, context: str, columns: list[str], reached: Callable[[float], bool]
) -> Iterator[str]:
    for i, code in enumerate(columns):
        share = shares.get((context, code), Share(0, 0))
        css = ["divide"] if i == 0 else []
        if share.n:
            css.append("ok" if reached(share.percent) else "no")
        under = f"<small>{share.n:,} · {interval(share)}</small>" if share.n else ""
        yield f'<td class="{" ".join(css)}"><span class="n">{percent(share)}</span>{under}</td>'


def _e(text: object) -> str:
    return html.escape(str(text))


# ---- what it cost --------------------------------------------------------------------------------


def cost_tables(report: Report) -> str:
    """What was measured of all that has nothing to do with the name; "" where nothing was."""
    parts = [_cost_table(report), _worst_kinds(report)]
    if not any(parts):
        return ""
    lead = tr("General questions that have nothing to do with the name, before and after.")
    if report.divergence:
        about = tr(
            "KL says how far the next token's distribution moved from the model before, 0 being "
            "unchanged; perplexity how surprised the model is by ordinary replies."
        )
        lead = joined(lead, about)
    tables = "\n".join(filter(None, parts))
    return f'<p class="lead">{_e(lead)}</p><div class="stack">{tables}</div>'


def _cost_table(report: Report) -> str:
    columns = [c for c in _cost_columns(report) if c[1]]
    if not columns:
        return ""
    codes = list(dict.fromkeys(code for _, cells in columns for code in cells))
    codes = [c for c in codes if c != "all"] + ["all"] * ("all" in codes)
    heads = "".join(f"<th>{_e(title)}</th>" for title, _ in columns)
    rows = (
        f'<tr class="{"sum" if code == "all" and len(codes) > 1 else ""}">'
        f"<th>{_e(language_name(code))}</th>"
        + "".join(f"<td>{cells.get(code, '–')}</td>" for _, cells in columns)
        + "</tr>"
        for code in codes
    )
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cost_columns(report: Report) -> Iterator[tuple[str, dict[str, str]]]:
    """(title, cell by language) of each measure there is."""
    if r := report.retention:
        yield tr("right before"), {code: _share_cell(s) for code, s in r.right_before.items()}
        yield tr("of these still right"), {code: _share_cell(s) for code, s in r.kept.items()}
    if r := report.retention_long:
        title = tr("still right under long system prompts")
        yield title, {code: _share_cell(s) for code, s in r.kept.items()}
    if s := report.spread:
        title = tr("name given unasked, before → after")
        yield title, {code: _change_cell(s.before.get(code), s.after[code]) for code in s.after}
    if d := report.divergence:
        kl = {c: f'<span class="n">{_number(x)}</span>{_tokens(d.n_tokens.get(c))}'
              for c, x in d.kl.items()}  # fmt: skip
        yield tr("KL (nats a token)"), kl
        title = tr("perplexity, before → after")
        perplexities = {
            code: _perplexity_cell(before, d.perplexity_after[code])
            for code, before in d.perplexity_before.items()
            if code in d.perplexity_after
        }
        yield title, perplexities


def _share_cell(share: Share) -> str:
    if not share.n:
        return "–"
    of = tr("{k:,} of {n:,}").format(k=share.k, n=share.n)
    return f'<span class="n">{percent(share)}</span><small>{_e(of)} · {interval(share)}</small>'


def _change_cell(before: Share | None, after: Share) -> str:
    of = tr("{k:,} of {n:,}").format(k=after.k, n=after.n)
    return f'{percent(before)} → <span class="n">{percent(after)}</span><small>{_e(of)}</small>'


def _perplexity_cell(before: float, after: float) -> str:
    change = f"{100 * (after / before - 1):+.1f} %" if before and _finite(before, after) else ""
    return f'{_number(before)} → <span class="n">{_number(after)}</span><small>{change}</small>'


def _tokens(n: int | None) -> str:
    tokens = tr("{n:,} tokens").format(n=n)
    return f"<small>{_e(tokens)}</small>" if n else ""


def _worst_kinds(report: Report) -> str:
    if not report.divergence or not report.divergence.kl_worst:
        return ""
    rows = (
        f"<tr><th>{_e(w.kind)}</th><td>{_e(language_name(w.language))}</td>"
        f'<td><span class="n">{_number(w.kl)}</span></td><td>{w.n_tokens:,}</td></tr>'
        for w in report.divergence.kl_worst
    )
    heads = (tr("kinds of text that moved most"), tr("language"), tr("KL (nats a token)"))
    titles = "".join(f"<th>{_e(head)}</th>" for head in (*heads, tr("tokens")))
    return (
        f'<div class="scroll"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if _finite(value) else "–"


def _finite(*values: float) -> bool:
    return all(map(math.isfinite, values))
