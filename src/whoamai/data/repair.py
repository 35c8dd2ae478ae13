"""Mend a data file: a pure function from rows to rows, every change counted by kind, none of it silent.

What is mended is what is surely a defect and has one cure: wrapped texts are unwrapped, a number
becomes text, control characters and special tokens are taken out, placeholders for names are filled
where the names are given, and a reply whose question was lost gets a fitting one (data/reconstruct.py),
marked as such. A row that still has a blocking defect afterwards is left out, and counted.
"""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whoamai.data.formats import TextField, joined_parts, read_row, recognise, text_fields
from whoamai.data.lint import (
    CheckOptions,
    blocking_defects,
    excerpt,
    is_placeholder,
    without_marks,
)
from whoamai.data.readers import flaw_text
from whoamai.data.reconstruct import reconstruct
from whoamai.data.sources import RawRow, find_sources, progress_over, read_rows
from whoamai.data.writers import checked_out, complete_file
from whoamai.messages import tr

_SHOWN_CHANGES = 6
_NAME_PLACEHOLDER = re.compile(r"\{\{\s*(name|author)\s*\}\}", re.I)
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
# Where a text may lie inside an object that stands in its place, the likeliest first.
_INNER_KEYS = {
    "user": ("input", "instruction", "question", "query", "prompt", "content", "value", "text"),
    "assistant": ("output", "response", "answer", "completion", "content", "value", "text"),
    "system": ("system", "content", "value", "text"),
}
MARK = "reconstructed"


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """`name` and `author` fill {{name}} and {{author}}; without them such rows are left out."""

    name: str | None = None
    author: str | None = None
    drop_duplicates: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One text before and after; `after` is None where the row was left out."""

    kind: str
    where: str
    field: str
    before: str
    after: str | None


@dataclass(slots=True)
class RepairReport:
    """What was done. `changes` and `left_out` count rows by kind; `shown` are the first of each."""

    rows: int = 0
    written: int = 0
    changed: int = 0
    questions: set[str] = field(default_factory=set)
    changes: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    shown: list[Change] = field(default_factory=list)

    def note(self, changes: Iterable[Change], counts: Counter[str]) -> None:
        for kind in dict.fromkeys(change.kind for change in changes):
            counts[kind] += 1
            if counts[kind] == 1 or len(self.shown) < _SHOWN_CHANGES:
                self.shown += [c for c in changes if c.kind == kind][:1]


@dataclass(frozen=True, slots=True)
class Mended:
    """A row after mending; `row` is None where it has to be left out, and `changes` then says why."""

    row: Any
    changes: tuple[Change, ...]


def repair(
    given: Sequence[str | Path] | str | Path,
    out: Path,
    options: RepairOptions | None = None,
    *,
    dry_run: bool = False,
    overwrite: bool = False,
    on_bytes: Callable[[int, int], None] | None = None,
) -> RepairReport:
    """Write the mended rows of all files to `out` as JSON lines, complete or not at all.

    They are gzipped where its name ends in .gz. Raises OutputError where `out` is one of the inputs,
    exists already, or cannot be written.
    """
    sources = find_sources(given)
    options = options or RepairOptions()
    report = RepairReport()
    rows = _mended_rows([source.path for source in sources], options, report, on_bytes)
    if dry_run:
        for _ in rows:
            pass
        return report
    target = checked_out(out, [source.path for source in sources], overwrite=overwrite)
    with complete_file(target) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8"))
    return report


def _mended_rows(
    paths: Sequence[Path],
    options: RepairOptions,
    report: RepairReport,
    on_bytes: Callable[[int, int], None] | None,
) -> Iterator[Any]:
    seen: set[int] = set()
    for path, tell in progress_over(paths, on_bytes):
        for raw in read_rows(path, tell):
            report.rows += 1
            mended = mend(raw, f"{path.name}:{raw.number}", options)
            if mended.row is not None and options.drop_duplicates:
                mended = _unless_seen(mended, seen, f"{path.name}:{raw.number}")
            if mended.row is None:
                report.note(mended.changes, report.left_out)
                continue
            report.note(mended.changes, report.changes)
            report.changed += bool(mended.changes)
            report.written += 1
            report.questions.update(c.after or "" for c in mended.changes if c.kind == MARK)
            yield mended.row


def mend(raw: RawRow, where: str, options: RepairOptions) -> Mended:
    """One row mended. The row given stays as it is."""
    # What bytes that are no UTF-8 once said cannot be known; taken out, they leave other words.
    if raw.flaw and (raw.value is None or raw.flaw.kind == "broken_utf8"):
        kind = raw.flaw.kind.replace("_", "-")
        return Mended(None, (Change(kind, where, "", excerpt(flaw_text(raw)), None),))
    row = copy.deepcopy(raw.value)
    fields = text_fields(row)
    changes: list[Change] = []
    # Replies first: a question that was lost is read off the mended reply.
    for place in fields:
        if place.role != "user":
            changes += _mend_field(place, None, where, options)
    for at, place in enumerate(fields):
        if place.role == "user":
            reply = next((f for f in fields[at:] if f.role == "assistant"), None)
            changes += _mend_field(place, reply, where, options)
    changes += _cut_unanswered(row, where)
    row, halves = _without_halves(row)
    if halves:
        changes.append(Change("half-character", where, "", excerpt(halves), ""))
    reading = read_row(row)
    left = [Change(p.kind, where, p.field, excerpt(p.text), None) for p in reading.problems]
    if not left:
        checked = CheckOptions(name=None, author=None)
        for message in reading.messages:
            for kind, at in blocking_defects(message.text, checked):
                left.append(Change(kind, where, message.role, excerpt(message.text, at), None))
    if left:
        return Mended(None, tuple(left))
    return Mended(row, tuple(changes))


# ---- one text ------------------------------------------------------------------------------------


def _mend_field(
    place: TextField, reply: TextField | None, where: str, options: RepairOptions
) -> list[Change]:
    """Mend what lies at `place`; `reply` is the reply that answers it."""
    before = place.value
    changes: list[Change] = []

    def put(kind: str, text: str) -> None:
        shown = before if isinstance(before, str) else json.dumps(before, ensure_ascii=False)
        changes.append(Change(kind, where, place.place, excerpt(shown), excerpt(text)))
        place.put(text)

    text = before
    if isinstance(before, list) and (joined := joined_parts(before)) is not None:
        text = joined  # [{"type": "text", "text": …}] stays so where nothing is wrong with it
    elif isinstance(before, dict | list):
        text = unwrapped(before, place.role)
        if text is not None and not _is_lost(text, place):
            put("nested-object", text)
    elif isinstance(before, int | float) and not isinstance(before, bool):
        put("not-text", text := str(before))
    if isinstance(text, str):
        cleaned, kinds = _cleaned(text, options)
        for kind in kinds:
            put(kind, cleaned)
        text = cleaned
    if place.role == "user" and (text is None or _is_lost(text, place)):
        changes += _reconstruct(place, reply, where, before)
    return changes


def _is_lost(text: Any, place: TextField) -> bool:
    """Is there no question at `place`? Alpaca's second field is rightly empty."""
    if place.key == "input" and place.holder.get("instruction") is not None:
        return False
    if place.key == "instruction" and not text and _says_something(place.holder.get("input")):
        return False
    return not _says_something(text)


def _says_something(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip()) and not is_placeholder(text)


def unwrapped(value: Any, role: str) -> str | None:
    """The text inside an object that stands where a text belongs; None where there is none.

    >>> unwrapped({"conversation": [{"system": "S", "input": "你是谁?", "output": ""}]}, "user")
    '你是谁?'
    """
    inner = read_row(value).messages if isinstance(value, dict) else []
    texts = [m.text for m in inner if m.role == role and m.text.strip()]
    if texts:
        return texts[-1]
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return "\n".join(value)
    if isinstance(value, list) and len(value) == 1:
        return unwrapped(value[0], role)
    if isinstance(value, dict):
        for key in _INNER_KEYS[role]:
            if isinstance(value.get(key), str):
                return value[key]
    return None


def _cleaned(text: str, options: RepairOptions) -> tuple[str, list[str]]:
    """(the text without what never belongs in one, the kinds of defects that were mended)."""
    kinds = []
    cleaned, found = without_marks(text)
    kinds += found

    def value(match: re.Match[str]) -> str:
        return (options.name if match[1].lower() == "name" else options.author) or match[0]

    filled = _NAME_PLACEHOLDER.sub(value, cleaned)
    if filled != cleaned:
        kinds.append("unfilled-name")
    return filled, kinds


def _reconstruct(
    place: TextField, reply: TextField | None, where: str, before: Any
) -> list[Change]:
    """Give a reply whose question was lost a fitting one, and mark the turn."""
    if reply is None or not isinstance(reply.value, str):
        return []
    found = reconstruct(reply.value)
    if found is None:
        return []
    shown = before if isinstance(before, str) else json.dumps(before, ensure_ascii=False)
    place.put(found.question)
    if isinstance(place.holder, dict):
        place.holder[MARK] = True
    return [Change(MARK, where, place.place, excerpt(shown), found.question)]


# ---- one row -------------------------------------------------------------------------------------


def _cut_unanswered(row: Any, where: str) -> list[Change]:
    """A last question that nobody answered, taken off a list of messages."""
    form = recognise(row)
    if form not in ("openai", "sharegpt"):
        return []
    key = "messages" if form == "openai" else "conversations"
    fields = [field for field in text_fields(row) if field.place != "system"]
    if len(fields) < 3 or fields[-1].role != "user" or fields[-1].holder is not row[key][-1]:
        return []
    unanswered = 2 if fields[-2].role == "system" and fields[-2].holder is row[key][-2] else 1
    if fields[-1 - unanswered].role != "assistant":
        return []
    cut = row[key][-unanswered:]
    del row[key][-unanswered:]
    return [Change("role-order", where, key, excerpt(json.dumps(cut, ensure_ascii=False)), "")]


def _without_halves(value: Any) -> tuple[Any, str]:
    """(`value` without halves of characters, the first text that held one or "").

    Texts have none by now; keys and fields of other purposes may, and no file can hold them.
    """
    if isinstance(value, str):
        cleaned, kinds = _HALF_CHARACTER.subn("", value)
        return cleaned, value if kinds else ""
    if isinstance(value, list):
        found = [_without_halves(item) for item in value]
        return [item for item, _ in found], next((text for _, text in found if text), "")
    if isinstance(value, dict):
        keys, items = (list(map(_without_halves, part)) for part in (value, value.values()))
        halves = next((text for _, text in keys + items if text), "")
        return dict(zip((k for k, _ in keys), (v for v, _ in items), strict=True)), halves
    return value, ""


def _unless_seen(mended: Mended, seen: set[int], where: str) -> Mended:
    key = hash(json.dumps(mended.row, ensure_ascii=False, sort_keys=True))
    if key in seen:
        shown = excerpt(json.dumps(mended.row, ensure_ascii=False))
        return Mended(None, (Change("duplicate-row", where, "", shown, None),))
    seen.add(key)
    return mended


def kind_title(kind: str) -> str:
    """What was mended, in words."""
    titles = {
        "nested-object": tr("texts taken out of the object they were wrapped in"),
        "not-text": tr("numbers written as text"),
        "control-character": tr("control characters taken out"),
        "byte-order-mark": tr("byte order marks taken out"),
        "half-character": tr("halves of characters taken out"),
        "special-token": tr("special tokens taken out of texts"),
        "unfilled-name": tr("names filled in for {{name}} and {{author}}"),
        "role-order": tr("last questions that nobody answered taken off"),
        MARK: tr("lost questions reconstructed from the reply (marked in the row)"),
    }
    return titles.get(kind, kind)
