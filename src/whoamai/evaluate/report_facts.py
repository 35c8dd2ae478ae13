"""What a report was made from, on the report page: data, settings, versions, hashes, the command."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from whoamai.evaluate.report import Report
from whoamai.messages import tr

_LONGEST_LIST = 12


def settings_cards(report: Report) -> str:
    details = dict(report.details)
    command = details.pop("command", None)
    groups = {key: details.pop(key) for key in list(details) if isinstance(details[key], Mapping)}
    identity = {
        tr("model"): report.model,
        tr("name"): report.identity.name,
        tr("author"): report.identity.author,
        tr("persona"): report.identity.persona,
        tr("old names"): tr(", ").join(report.old_names),
        **{_fact(key): value for key, value in details.items()},
    }
    cards = [_facts(tr("The job"), identity)]
    cards += [
        _facts(_fact(key), {_fact(k): v for k, v in group.items()}) for key, group in groups.items()
    ]
    hashes = {_fact(key): value for key, value in report.hashes.items()}
    cards.append(_facts(tr("Hashes"), hashes, css=" wide", mono=True))
    if command:
        title = _e(tr("The command"))
        cards.append(f'<div class="card wide"><h3>{title}</h3><pre>{_e(command)}</pre></div>')
    return f'<div class="facts-grid">{chr(10).join(filter(None, cards))}</div>'


def _facts(title: str, facts: Mapping[str, Any], css: str = "", *, mono: bool = False) -> str:
    shown = {key: text for key, value in facts.items() if (text := _value(value))}
    if not shown:
        return ""
    cell = '<dd class="mono">' if mono else "<dd>"
    rows = "".join(f"<dt>{_e(key)}</dt>{cell}{_e(text)}</dd>" for key, text in shown.items())
    return f'<div class="card{css}"><h3>{_e(title)}</h3><dl>{rows}</dl></div>'


def _value(value: Any) -> str:
    """A setting as one writes it; "" for what has no place on a line (a long list) or is not there."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return tr("yes") if value else tr("no")
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return tr(", ").join(f"{key} {_value(v)}" for key, v in value.items())
    if isinstance(value, list | tuple):
        return tr(", ").join(map(_value, value)) if len(value) <= _LONGEST_LIST else ""
    return str(value)


def _fact(key: str) -> str:
    """Keys of Report.details and .hashes in words; others as they are."""
    return {
        "rows": tr("Rows trained on"),
        "training": tr("Training"),
        "data": tr("Data"),
        "versions": tr("Versions"),
        "identity": tr("with the name"),
        "replay": tr("its own answers (replay)"),
        "files": tr("files"),
        "with_old_name": tr("rows with an old name"),
        "languages": tr("languages trained"),
        "seed": tr("seed"),
        "seconds": tr("seconds in all"),
        "lr": tr("learning rate"),
        "rows_per_step": tr("rows a step"),
        "warmup": tr("steps to warm up"),
        "steps": tr("steps"),
        "tokens": tr("tokens"),
        "computed_tokens": tr("tokens computed"),
        "targets": tr("tokens trained on"),
        "lora_r": tr("LoRA rank"),
        "lora_alpha": tr("LoRA alpha"),
        "kl_weight": tr("weight of the KL term"),
        "device": tr("computed on"),
        "dtype": tr("precision"),
        "template": tr("chat template"),
        "base": tr("base model"),
        "adapter": tr("adapter"),
        "merged": tr("merged model"),
    }.get(key, key)


def _e(text: object) -> str:
    return html.escape(str(text))
