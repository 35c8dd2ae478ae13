"""Rename inside a data file: old names out, new ones in, everything else as it was.

Every text of a row is searched (data/names_in_text.py), however deep it lies; keys stay. A line of the
result is `json.dumps(row, ensure_ascii=False)` and a newline, so it is what a loop over json.loads,
str.replace and json.dumps would write, byte for byte. An array stays an array, one row a line.

What is left of an old name decides between an error and a remark:

    in a field that was not asked for            error (unless allow_left)
    where a new name and old text meet           error: old 尖米, new 尖, in "尖米米" gives "尖米" again
    inside a new name                            nothing; 小初 may become 小初二号
    inside a longer word, with whole_word        remark, for Chuck is not Chu
    in another spelling (CHU), case "exact"      remark
    in a key                                     remark
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whoamai.data.names_in_text import Case, Counts, Names
from whoamai.data.readers import flaw_text
from whoamai.data.sources import RawRow, form_of, read_rows
from whoamai.data.writers import checked_out, complete_file
from whoamai.errors import DataError, SettingError
from whoamai.messages import tr

_SHOWN_PROBLEMS = 3
_MOST_KEYS = 2048  # remembered as without a name
_dumps = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps makes a new encoder each time


@dataclass(frozen=True, slots=True)
class Change:
    """One changed text, around its first change. `place` is "file:row", `field` "turns.output"."""

    place: str
    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ReplaceResult:
    """What replace_rows() did, or would do (`written` is None).

    The last five mappings count by old name; `by_field` counts by key path, list indices left out.
    `inside_words`: occurrences that are part of a longer word ("Chu" in "Chuck"), replaced like all
    others without whole_word, left with it. `other_case`: spellings such as "CHU" left by case
    "exact". `in_keys`: keys that hold the name, counted once a row. `left`: what allow_left let pass.
    """

    rows: int
    rows_changed: int
    by_field: Mapping[str, int]
    changes: tuple[Change, ...]
    written: Path | None
    occurrences: Counts
    inside_words: Counts
    other_case: Counts
    in_keys: Counts
    left: Counts

    @property
    def never_found(self) -> tuple[str, ...]:
        """Old names that occur nowhere; probably misspelled."""
        return tuple(old for old, n in self.occurrences.items() if not n)


def replace_rows(
    file: Path,
    out: Path | None,
    pairs: Sequence[tuple[str, str]],
    *,
    fields: Sequence[str] = (),
    whole_word: bool = False,
    case: Case = "exact",
    allow_left: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    show: int = 5,
) -> ReplaceResult:
    """Write `file` to `out` with every old name of `pairs` replaced by its new one, in one pass.

    Longer old names are looked for first, and what was put in is not searched again.

    fields: only texts under these keys, at any depth; "conversation.output" asks for two keys in
        this order.
    whole_word, case: which occurrences count, and how the new name is spelled; see Names.
    show: how many changed texts the result describes.

    The file may be gzipped; `out` is where its name ends in .gz. It is written complete or not at all.
    Raises SettingError for pairs that make no sense, DataError for a bad file (naming its rows) and
    for old names that are left, OutputError where `out` is in the way or cannot be written.
    """
    names = Names(pairs, whole_word=whole_word, case=case)
    job = _Job(file, names, _Fields(fields), show)
    if dry_run:
        job.run(lambda _: None, allow_left=allow_left)
        return job.result(None)
    if out is None:
        raise TypeError("out is needed unless dry_run")
    out = checked_out(out, [file], overwrite=overwrite)
    with complete_file(out) as sink:
        job.run(sink.write, allow_left=allow_left)
    return job.result(out)


_Path = tuple[str, ...]  # keys from the outermost in, list indices left out


class _Fields:
    """Which texts of a row are asked for, by their keys."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self.wanted = tuple(wanted)
        self.seen: dict[_Path, bool] = {}

    def asks_for(self, path: _Path) -> bool:
        """Is the text at `path` to be changed? "a.b" asks for keys a and b one after the other."""
        if not self.wanted:
            return True
        if path not in self.seen:
            dotted = f".{'.'.join(path)}."
            self.seen[path] = any(f".{name}." in dotted for name in self.wanted)
        return self.seen[path]

    def unknown(self) -> list[str]:
        """Fields asked for that no text was under."""
        dotted = [f".{'.'.join(path)}." for path in self.seen]
        return [name for name in self.wanted if not any(f".{name}." in d for d in dotted)]


@dataclass
class _Job:
    """One run over a file: what was done and found so far."""

    file: Path
    names: Names
    fields: _Fields
    show: int
    rows: int = 0
    rows_changed: int = 0
    n_problems: int = 0
    problems: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    by_field: Counter[_Path] = field(default_factory=Counter)
    occurrences: Counter[str] = field(default_factory=Counter)
    inside_words: Counter[str] = field(default_factory=Counter)
    other_case: Counter[str] = field(default_factory=Counter)
    in_keys: Counter[str] = field(default_factory=Counter)
    left: Counter[tuple[str, _Path]] = field(default_factory=Counter)  # (old name, where) -> times
    first_left: dict[tuple[str, _Path], str] = field(default_factory=dict)
    _number: int = 0  # of the row at hand, which is
    _changed: bool = False
    _expected: bool = True  # a name, or nearly one, in the next row
    _clean_keys: set[str] = field(default_factory=set)

    def run(self, write: Callable[[bytes], object], *, allow_left: bool) -> None:
        """Rename all rows. Raises DataError where rows are bad or, after all of them, names are left."""
        form = form_of(self.file)
        if form == "table":
            raise DataError(_told_table(self.file))
        begin, between, end = ("[\n", ",\n", "\n]\n") if form == "array" else ("", "\n", "\n")
        for raw in read_rows(self.file):
            text = self._renamed_row(raw, between if self.rows else begin)
            if text is not None and not self.n_problems:
                write(text)
        self._check_rows(form)
        self._check_fields()
        if self.left and not allow_left:
            raise DataError(self._told_left())
        write(end.encode())

    def _renamed_row(self, raw: RawRow, before: str) -> bytes | None:
        """`before` and the row of the result; None, with the problem noted, where it cannot be used."""
        self._number, self._changed = raw.number, False
        if raw.flaw:
            self._problem(flaw_text(raw))
            return None
        row, text = self._renamed_json(raw.value)
        try:
            written = (before + text).encode("utf-8")
        except UnicodeEncodeError:
            self._problem(_half_character(row))
            return None
        self.rows += 1
        self.rows_changed += self._changed
        return written

    def _renamed_json(self, row: Any) -> tuple[Any, str]:
        """The renamed row, and as JSON."""
        # Rows are like their neighbours: where no name is expected, looking at the JSON as a whole is
        # quicker than at each text. With `fields` each is looked at, to know whether they exist.
        if not self._expected:
            text = _dumps(row)
            if not self.names.may_stand_in(text):
                return row, text
        self._expected = bool(self.fields.wanted)
        row = self._renamed(row, ())
        return row, _dumps(row)

    def _place(self) -> str:
        return f"{self.file.name}:{self._number}"

    def _problem(self, problem: str) -> None:
        self.n_problems += 1
        if len(self.problems) < _SHOWN_PROBLEMS:
            self.problems.append(f"  {self._place()}: {problem}")

    def _renamed(self, value: Any, path: _Path) -> Any:
        """`value` with its texts renamed; lists and objects are changed in place."""
        kind = type(value)  # JSON values are of no subclasses
        if kind is str:
            return self._renamed_text(value, path)
        if kind is list:
            for i, item in enumerate(value):
                value[i] = self._renamed(item, path)
        elif kind is dict:
            for key, item in value.items():
                if key not in self._clean_keys:
                    self._note_key(key)
                value[key] = self._renamed(item, (*path, key))
        return value

    def _note_key(self, key: str) -> None:
        if outcome := self.names.search(key):
            self._expected = True
            self.in_keys.update(outcome.counts.keys())
        elif len(self._clean_keys) < _MOST_KEYS:
            self._clean_keys.add(key)

    def _renamed_text(self, text: str, path: _Path) -> str:
        asked_for = self.fields.asks_for(path)
        outcome = self.names.search(text)
        if outcome is None:
            return text
        self._expected = True
        left = outcome.joined if asked_for else outcome.counts
        if left:
            self._note_left(left, path)
        if not asked_for:
            return text
        if outcome.inside_words or outcome.other_case:
            self.inside_words.update(outcome.inside_words)
            self.other_case.update(outcome.other_case)
        if outcome.counts:
            self._changed = True
            for old, n in outcome.counts.items():
                self.occurrences[old] += n
                self.by_field[path] += n
            if len(self.changes) < self.show:
                excerpts = self.names.excerpts(text)
                self.changes.append(Change(self._place(), _path_name(path), *excerpts))
        return outcome.text

    def _note_left(self, left: Counts, path: _Path) -> None:
        for old, n in left.items():
            self.left[old, path] += n
            self.first_left.setdefault((old, path), self._place())

    def _check_rows(self, form: str) -> None:
        if self.n_problems:
            raise DataError(
                tr("{path}: {n} rows cannot be used. The first:\n{shown}").format(
                    path=self.file, n=self.n_problems, shown="\n".join(self.problems)
                )
                + "\n"
                + tr('"whoamai data check" tells all of it and what to do.')
            )
        if not self.rows:
            empty = tr("{path} is empty. Give a file with data.")
            text = tr("{path} holds no rows. Give a file with data.") if form == "array" else empty
            raise DataError(text.format(path=self.file))

    def _check_fields(self) -> None:
        if unknown := self.fields.unknown():
            known = dict.fromkeys(_path_name(path) for path in self.fields.seen)
            raise SettingError(
                tr("{path}: no text stands under the field {unknown}. Its fields: {known}.").format(
                    path=self.file, unknown=", ".join(unknown), known=", ".join(known) or "-"
                )
            )

    def _told_left(self) -> str:
        lines = [
            tr("  {name} in {field}: {n} times, first in {place}").format(
                name=old, field=_path_name(path), n=n, place=self.first_left[old, path]
            )
            for (old, path), n in self.left.most_common(2 * _SHOWN_PROBLEMS)
        ]
        cure = (
            tr("Name these fields too, or leave --field out.")
            if any(not self.fields.asks_for(path) for _, path in self.left)
            else tr("The new name and the text beside it make the old name again; choose another.")
        )
        return tr(
            "{path}: an old name would be left, so nothing was written:\n{shown}\n{cure}"
        ).format(path=self.file, shown="\n".join(lines), cure=cure)

    def result(self, out: Path | None) -> ReplaceResult:
        left: Counter[str] = Counter()
        for (old, _), n in self.left.items():
            left[old] += n
        by_field: Counter[str] = Counter()
        for path, n in self.by_field.items():
            by_field[_path_name(path)] += n
        return ReplaceResult(
            rows=self.rows,
            rows_changed=self.rows_changed,
            by_field=dict(by_field.most_common()),
            changes=tuple(self.changes),
            written=out,
            occurrences={old: self.occurrences[old] for old in self.names.old},
            inside_words=self._found(self.inside_words),
            other_case=self._found(self.other_case),
            in_keys=self._found(self.in_keys),
            left=self._found(left),
        )

    def _found(self, counts: Counter[str]) -> dict[str, int]:
        """Counts that are not 0, in the order in which the names were given."""
        return {old: counts[old] for old in self.names.old if counts[old]}


def _told_table(file: Path) -> str:
    return tr(
        "{path} is a table. Names are replaced in JSON lines and in one JSON array, each also with "
        ".gz: save it as one of these."
    ).format(path=file)


def _path_name(path: _Path) -> str:
    return ".".join(path) or tr("(the row itself)")


def _half_character(row: Any) -> str:
    """Which field holds a lone surrogate, in words."""
    where = next((_path_name(path) for path, text in _texts(row, ()) if _is_half(text)), "-")
    return tr("{key} holds half of a character (a lone surrogate)").format(key=where)


def _is_half(text: str) -> bool:
    return re.search("[\ud800-\udfff]", text) is not None


def _texts(value: Any, path: _Path) -> Iterator[tuple[_Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield (*path, repr(key)), key
            yield from _texts(item, (*path, key))
