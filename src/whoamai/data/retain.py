"""The user's own file of what must not be forgotten (`--retain FILE`).

Files of every kind that data may have (data/sources.py); a row is one of two things:

    {"question": "法国的首都是？", "answers": ["巴黎", "Paris"]}      a question that can be checked
    {"question": …, "answer": "巴黎"}                              too, where the answer is short
    {"messages": [{"role": "user", …}], "accept": ["巴黎"]}        too: any form, with what is accepted
    {"messages": [{"role": "user", …}, {"role": "assistant", …}]}  a text, in any form data may have

Checkable questions are asked before and after; at the replies of texts the model before and after
are compared token by token. An answer is short where it is one line of at most 40 characters: a
longer one is hardly ever given word for word, so it is a text. "accept" means the same as "answers";
in a table several are parted by "|". "language", "kind", "exact" (the answer and nothing else),
"system" and "history" may stand beside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from whoamai.data.formats import read_row, recognise
from whoamai.data.general import GeneralQuestion, GeneralText
from whoamai.data.readers import flaw_text, without_repeated_systems
from whoamai.data.sources import RawRow, Source, find_sources, form_of, read_rows
from whoamai.errors import DataError
from whoamai.messages import tr
from whoamai.samples import Conversation

_ACCEPTED = ("accept", "answers")
_LONGEST_CHECKABLE = 40
_SHOWN_PROBLEMS = 20
_CHINESE = re.compile("[\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class RetainFile:
    """What a user's files hold: questions whose answers can be checked, and texts."""

    questions: tuple[GeneralQuestion, ...]
    texts: tuple[GeneralText, ...]


@dataclass(slots=True)
class _Reading:
    """What has been read so far, and what was wrong, each with its file and row."""

    rows: list[GeneralQuestion | GeneralText] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_retain(given: Sequence[str | Path] | str | Path) -> RetainFile:
    """The rows of all files that `given` names, as data files are named ("FILE#100" takes 100 rows).

    A row's language is its "language", else zh where its question holds a Chinese character, else en.
    Raises DataError: a file cannot be read or holds nothing; or all rows that cannot be used.
    """
    problems: list[str] = []
    rows: list[GeneralQuestion | GeneralText] = []
    for source in find_sources(given):
        reading = _read_source(source)
        problems += reading.problems
        rows += [reading.rows[i] for i in source.chosen(len(reading.rows), seed=0)]
    if problems:
        raise DataError(_told(problems))
    if not rows:
        named = str(given) if isinstance(given, str | Path) else ", ".join(map(str, given))
        text = tr(
            '{path} holds no rows. Give rows with "question" and "answers", or conversations.'
        )
        raise DataError(text.format(path=named))
    return RetainFile(
        tuple(row for row in rows if isinstance(row, GeneralQuestion)),
        tuple(row for row in rows if isinstance(row, GeneralText)),
    )


def _read_source(source: Source) -> _Reading:
    reading = _Reading()
    in_table = form_of(source.path) == "table"
    for raw in read_rows(source.path):
        where = f"{source.path.name}:{raw.number}"
        found, problems = _read(raw, where, in_table)
        reading.problems += [f"{where}: {problem}" for problem in problems]
        if found and not problems:
            reading.rows.append(found)
    return reading


def _read(
    raw: RawRow, where: str, in_table: bool
) -> tuple[GeneralQuestion | GeneralText | None, list[str]]:
    """(the row, what is wrong with it)."""
    if raw.flaw is not None:
        return None, [flaw_text(raw)]
    row = raw.value
    if not isinstance(row, dict):
        return None, [p.text for p in read_row(row).problems]
    if in_table:
        row = {key: value for key, value in row.items() if value not in (None, "")}
    accept, problems = _accepted(row, in_table)
    reading = read_row(_with_reply(row, accept) if accept else row)
    problems += [p.text for p in reading.problems] if accept or not problems else []
    problems += _wrong_beside(row)
    if problems:
        return None, problems
    messages = without_repeated_systems(reading.messages)
    text = "".join(m.text for m in messages if m.role == "user")
    language = row.get("language") or ("zh" if _CHINESE.search(text) else "en")
    kind = row.get("kind") or "retain"
    if accept:
        asked = tuple(replace(m, trained=False) for m in messages[:-1])
        is_exact = _is_exact(row)
        return GeneralQuestion(language, kind, Conversation(asked, where), accept, is_exact), []
    return GeneralText(language, kind, Conversation(messages, where)), []


def _accepted(row: dict[str, Any], in_table: bool) -> tuple[tuple[str, ...], list[str]]:
    """(the accepted answers, none for a text; what is wrong with them)."""
    key = next((key for key in _ACCEPTED if key in row), None)
    if key is None:
        answer = row.get("answer")
        if not isinstance(answer, str) or not isinstance(row.get("question"), str):
            return (), []
        answer = answer.strip()
        is_short = 0 < len(answer) <= _LONGEST_CHECKABLE and "\n" not in answer
        return ((answer,) if is_short else ()), []
    value = row[key]
    if isinstance(value, str):
        value = value.split("|") if in_table else [value]
    if not isinstance(value, list) or not all(isinstance(a, str) and a.strip() for a in value):
        return (), [tr('"{field}" is neither a text nor a list of texts').format(field=key)]
    if not value:
        return (), [tr('"{field}" is empty: say which answers are right').format(field=key)]
    return tuple(a.strip() for a in value), []


def _with_reply(row: dict[str, Any], accept: tuple[str, ...]) -> dict[str, Any]:
    """The row with an accepted answer where its reply belongs, so that the usual forms read it."""
    if "question" in row:
        return {**row, "answer": accept[0]}
    messages = row.get("messages")
    if recognise(row) != "openai" or not isinstance(messages, list) or not messages:
        return row
    last = messages[-1]
    if isinstance(last, dict) and last.get("role") == "assistant":
        return row
    return {**row, "messages": [*messages, {"role": "assistant", "content": accept[0]}]}


def _wrong_beside(row: dict[str, Any]) -> list[str]:
    problems = [
        tr('"{field}" is not a text').format(field=key)
        for key in ("language", "kind")
        if not isinstance(row.get(key, ""), str)
    ]
    if str(row.get("exact", False)).lower() not in ("true", "false"):
        problems.append(tr('"exact" is neither true nor false'))
    return problems


def _is_exact(row: dict[str, Any]) -> bool:
    return str(row.get("exact", False)).lower() == "true"


def _told(problems: Sequence[str]) -> str:
    text = tr(
        "{n} things keep these rows from being used. A row has a question and its answers, or is a "
        "conversation:"
    )
    lines = [
        text.format(n=len(problems)),
        *(f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS]),
    ]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append("  " + tr("and {n} more").format(n=len(problems) - _SHOWN_PROBLEMS))
    return "\n".join(lines)
