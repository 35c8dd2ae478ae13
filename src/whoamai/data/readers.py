"""Data files to Conversations: files become rows in data/sources.py, rows messages in data/formats.py.

Reading refuses what it cannot use, all of it together; `whoamai data check` explains more, and
`whoamai data repair` mends.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from whoamai.data.formats import read_row
from whoamai.data.sources import RawRow, Source, find_sources, read_rows
from whoamai.data.store import Chosen, StoredConversations
from whoamai.errors import DataError
from whoamai.messages import tr
from whoamai.samples import Conversation, Message

_SHOWN_PROBLEMS = 3
# Files beyond this size are kept on the disk: as Python objects, text takes several times its size.
LARGEST_IN_MEMORY = 100 << 20


@dataclass(slots=True)
class LeftOut:
    """Rows that could not be used: how many of each kind, and the first ones in words."""

    by_kind: dict[str, int] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)

    def add(self, kind: str, text: str) -> None:
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        if len(self.shown) < _SHOWN_PROBLEMS:
            self.shown.append(text)


def read_conversations(
    given: Sequence[str | Path] | str | Path,
    *,
    seed: int = 0,
    allow: Collection[str] = (),
    largest_in_memory: int = LARGEST_IN_MEMORY,
) -> Sequence[Conversation]:
    """The rows of all files that `given` names (data/sources.py says how), in order.

    A row that cannot be used is left out where its kind is in `allow`. Raises DataError for all other
    such rows: how many, the first ones and why. Large files are read into a table on the disk.
    """
    refused = LeftOut()
    parts = []
    for source in find_sources(given):
        rows = conversations_of(source.path, refused, allow)
        large = source.path.stat().st_size > largest_in_memory
        read = StoredConversations(rows) if large else list(rows)
        if not read and not refused.by_kind:
            raise DataError(_nothing_in(source))
        parts.append(_taken(source, read, seed))
    if refused.by_kind:
        raise DataError(
            tr("{path}: {n} rows cannot be used. The first:\n{shown}").format(
                path=_named(given),
                n=sum(refused.by_kind.values()),
                shown="\n".join(f"  {line}" for line in refused.shown),
            )
            + "\n"
            + tr('"whoamai data check" tells all of it and what to do.')
        )
    return parts[0] if len(parts) == 1 else _joined(parts)


def conversations_of(
    path: Path, refused: LeftOut, allow: Collection[str] = ()
) -> Iterator[Conversation]:
    """The usable rows of one file; the others are added to `refused` unless their kind is allowed.

    A row with an allowed flaw that lies beside its texts (a comma that is missing behind it) is used.
    """
    for raw in read_rows(path):
        where = f"{path.name}:{raw.number}"
        problems = _problems(raw)
        if raw.value is not None or raw.flaw is None:
            reading = read_row(raw.value)
            if not reading.problems and all(kind in allow for kind, _ in problems):
                yield Conversation(without_repeated_systems(reading.messages), where)
                continue
            problems += [(p.kind, p.text) for p in reading.problems]
        for kind, text in problems:
            if kind not in allow:
                refused.add(kind, f"{where}: {text}")
                break


def without_repeated_systems(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages without system prompts that only say again what holds already."""
    kept: list[Message] = []
    current = None
    for message in messages:
        if message.role == "system":
            if message.text == current:
                continue
            current = message.text
        kept.append(message)
    return tuple(kept)


def flaw_text(raw: RawRow) -> str:
    """What is wrong with the row as the file has it, in words."""
    assert raw.flaw is not None
    forms = {
        "not_json": tr("is not JSON: {text}"),
        "broken_utf8": tr("is not UTF-8 text ({text}). Save the file as UTF-8."),
        "ends_early": tr("the packed file is cut off: {text}"),
        "wrong_columns": tr("does not fit the heading: {text}"),
    }
    return forms[raw.flaw.kind].format(text=raw.flaw.text)


def _problems(raw: RawRow) -> list[tuple[str, str]]:
    return [(raw.flaw.kind.replace("_", "-"), flaw_text(raw))] if raw.flaw else []


def _taken(source: Source, rows: Sequence[Conversation], seed: int) -> Sequence[Conversation]:
    if source.count is None and source.factor is None:
        return rows
    places = source.chosen(len(rows), seed)
    if rows and not places:
        raise DataError(tr("{given} takes no row at all.").format(given=source.label))
    return [rows[i] for i in places] if isinstance(rows, list) else Chosen([rows], places)


def _joined(parts: Sequence[Sequence[Conversation]]) -> Sequence[Conversation]:
    if all(isinstance(part, list) for part in parts):
        return [row for part in parts for row in part]
    return Chosen(parts, range(sum(map(len, parts))))


def _nothing_in(source: Source) -> str:
    if not _has_text(source.path):
        return tr("{path} is empty. Give a file with data.").format(path=source.path)
    if any(raw.value is not None for raw in read_rows(source.path)):
        text = tr("{path}: every row has something wrong that keeps it from being used.")
        return text.format(path=source.path) + " " + tr("whoamai data check says what.")
    return tr("{path} holds no rows. Give a file with data.").format(path=source.path)


def _has_text(path: Path) -> bool:
    with path.open("rb") as file:
        return bool(file.read(1 << 16).removeprefix(codecs.BOM_UTF8).strip())


def _named(given: Sequence[str | Path] | str | Path) -> str:
    return str(given) if isinstance(given, str | Path) else ", ".join(map(str, given))
