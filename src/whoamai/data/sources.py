"""Files to raw rows: what a person may name as data, opened, unpacked and read row by row.

    FILE                 .jsonl, .json (lines or one array), .csv, .tsv, .parquet; any of them also .gz
    dir/*.jsonl          every file that fits, in order of their names
    FILE#500             500 of its rows, drawn by the seed; repeated where it has fewer
    FILE#0.5x            half of its rows; #2x: each twice

Nothing is held but the row at hand (in an array, the element at hand), so a file may be larger than
memory. What is wrong with a row is told with the row (`RawRow.flaw`) and does not stop the reading:
no good row is lost to a bad one. A row's number is its line in JSON lines, its place from 1 in an
array, and its place from 1 below the heading in a table.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import json
import os
import random
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from whoamai.errors import DataError
from whoamai.messages import tr

FlawKind = Literal["not_json", "broken_utf8", "ends_early", "wrong_columns"]
Form = Literal["lines", "array", "table"]
OnBytes = Callable[[int], None]

_PACKED = b"\x1f\x8b"  # what gzip begins with
_CHUNK = 1 << 16
_LARGEST_ELEMENT = 64 << 20
_LONGEST_TOKEN = 64  # characters of a JSON token that is no string, with room to spare
# Levels of lists and objects inside one another; Python's own limits lie not far beyond.
_DEEPEST = 100
_TAKE = re.compile(r"#(?:(?P<count>\d+)|(?P<factor>\d+(?:\.\d+)?)x)$")
_FIELDS_OF_TURNS = ("conversation", "messages", "conversations", "history")
_TEXT_ENDINGS = (".jsonl", ".json", ".ndjson", ".txt")
_TABLE_ENDINGS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Source:
    """One file, and how many of its rows are wanted: all, a `count`, or `factor` times what it has."""

    path: Path
    count: int | None = None
    factor: float | None = None

    @property
    def label(self) -> str:
        """As a person writes it: "file.jsonl#0.5x"."""
        if self.count is None and self.factor is None:
            return str(self.path)
        return f"{self.path}#{self.count}" if self.count else f"{self.path}#{self.factor}x"

    def chosen(self, n_rows: int, seed: int) -> list[int]:
        """The places of the wanted rows, in order; whole rounds first, the rest drawn by `seed`.

        >>> Source(Path("f"), count=5).chosen(2, seed=0)[:4]
        [0, 1, 0, 1]
        """
        if self.count is None and self.factor is None:
            return list(range(n_rows))
        wanted = round(n_rows * self.factor) if self.factor is not None else self.count or 0
        rounds, rest = divmod(wanted, n_rows) if n_rows else (0, 0)
        drawn = sorted(random.Random(f"take-{seed}-{self.path.name}").sample(range(n_rows), rest))
        return [*range(n_rows)] * rounds + drawn


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a row could not be read as it stands; `text` is the reader's own words."""

    kind: FlawKind
    text: str


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the file has it: `value` is any JSON value, None where `flaw` says why there is none.

    A row with broken UTF-8 still has a value; each broken byte is half a character (U+DC80 to U+DCFF).
    """

    number: int
    value: Any
    flaw: Flaw | None = None


def find_sources(given: Sequence[str | Path] | str | Path) -> list[Source]:
    """The files that `given` names. Raises DataError for all that cannot be used, together."""
    wanted = [given] if isinstance(given, str | Path) else list(given)
    found: list[Source] = []
    problems: list[str] = []
    for one in wanted:
        try:
            found += _expanded(str(one))
        except DataError as error:
            problems.append(str(error))
    if not wanted:
        problems.append(tr("No data file was given."))
    if problems:
        raise DataError("\n".join(problems))
    return found


def read_rows(path: Path, on_bytes: OnBytes | None = None) -> Iterator[RawRow]:
    """Every row of `path`, in order; `on_bytes(n)` is told how far into the file the reading is.

    Raises DataError where the file as a whole cannot be read.
    """
    with _reading_errors(path), path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        packed = head[:2] == _PACKED
        if head == b"PAR1":
            yield from _parquet_rows(file, path, on_bytes)
            return
        _refuse_other_kinds(path, head)
        unpacked = _Unpacked(file, packed=packed, on_bytes=on_bytes)
        if packed and _ending(path) == ".parquet":
            with unpacked.copy() as plain:
                yield from _parquet_rows(plain, path, None)
            return
        separator = _TABLE_ENDINGS.get(_ending(path))
        rows = _table_rows(unpacked, separator) if separator else _json_rows(unpacked)
        yield from rows


def form_of(path: Path) -> Form:
    """How read_rows() takes the file: JSON lines, one JSON array, or a table (CSV, TSV, Parquet).

    Raises DataError where the file as a whole cannot be read.
    """
    with _reading_errors(path), path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head == b"PAR1":
            return "table"
        _refuse_other_kinds(path, head)
        if _ending(path) in (*_TABLE_ENDINGS, ".parquet"):
            return "table"
        unpacked = _Unpacked(file, packed=head[:2] == _PACKED, on_bytes=None)
        return "array" if _is_array(unpacked.peek()) else "lines"


def progress_over(
    paths: Sequence[Path], on_bytes: Callable[[int, int], None] | None
) -> Iterator[tuple[Path, OnBytes | None]]:
    """Each path with what read_rows() is to tell, so that `on_bytes` hears (done, all) of all files."""
    sizes = [path.stat().st_size for path in paths]
    for at, path in enumerate(paths):
        before = sum(sizes[:at])
        yield path, (lambda n, b=before: on_bytes(b + n, sum(sizes))) if on_bytes else None


def begins_with_mark(path: Path) -> bool:
    """Does the file begin with a byte order mark (BOM)? It is passed over in reading."""
    with _reading_errors(path), path.open("rb") as file:
        return file.read(3) == codecs.BOM_UTF8


def _expanded(given: str) -> list[Source]:
    """A name as sources: a file of just that name first, then with its #…, then as a pattern."""
    path, count, factor = _path(given), None, None
    if not os.path.exists(path) and (take := _TAKE.search(given)):
        path = _path(given[: take.start()])
        count = int(take["count"]) if take["count"] else None
        factor = float(take["factor"]) if take["factor"] else None
        if not (count or factor):
            raise DataError(tr("{given} takes no row at all.").format(given=given))
    if os.path.isdir(path):
        raise DataError(
            tr("{path} is a folder. Give its files, for example {path}/*.jsonl").format(path=path)
        )
    there = os.path.exists(path)  # unlike Path.exists(): False for a name too long for the disk
    paths = [path] if there else sorted(map(Path, glob.glob(str(path), recursive=True)))
    files = [p for p in paths if not p.is_dir()]
    if not files:
        known = tr("There is no file {path}.") if not glob.has_magic(str(path)) else ""
        text = known or tr("No file fits the pattern {path}.")
        raise DataError(text.format(path=path))
    return [Source(p, count, factor) for p in files]


def _path(given: str) -> Path:
    """`given` as a path; "~" is the home folder, where there is one of that name."""
    try:
        return Path(given).expanduser()
    except RuntimeError:  # "~nobody"
        return Path(given)


def _ending(path: Path) -> str:
    """The ending that says what is inside: that of "a.csv.gz" is ".csv"."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError(tr("{path} is UTF-16 text. Save it as UTF-8.").format(path=path))
    known = (*_TEXT_ENDINGS, *_TABLE_ENDINGS, ".parquet")
    starts_like_json = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")
    if head[:2] == _PACKED or not head:
        return
    if _ending(path) == ".parquet":
        raise _no_parquet(path, tr("it does not begin with PAR1"))
    if _ending(path) not in known and not starts_like_json:
        raise DataError(
            tr("{path} is of no known kind. Known are {known}, each also with .gz.").format(
                path=path, known=", ".join(known)
            )
        )


def _no_parquet(path: Path, error: object) -> DataError:
    first_line = str(error).partition("\n")[0]
    text = tr("{path} is not a Parquet file that can be read: {error}")
    return DataError(text.format(path=path, error=first_line))


@contextmanager
def _reading_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(tr("There is no file {path}.").format(path=path)) from None
    except OSError as error:
        raise DataError(
            tr("{path} cannot be read: {error}").format(path=path, error=error.strerror or error)
        ) from None


class _Unpacked:
    """Bytes of a plain or packed file, in pieces; remembers whether the packed data broke off."""

    def __init__(self, raw: IO[bytes], *, packed: bool, on_bytes: OnBytes | None) -> None:
        self._raw, self._on_bytes = raw, on_bytes
        # read1: what is unpacked already is given before an early end is told.
        self._read = gzip.GzipFile(fileobj=raw, mode="rb").read1 if packed else raw.read
        self._ahead = b""
        self.broke_off: str | None = None

    def read(self, size: int = _CHUNK) -> bytes:
        """At least one byte, or none at the end (also where the packed data ends too early)."""
        if self._ahead:
            piece, self._ahead = self._ahead, b""
            return piece
        if self.broke_off:
            return b""
        try:
            piece = self._read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.broke_off = str(error)
            piece = b""
        if self._on_bytes:
            self._on_bytes(self._raw.tell())
        return piece

    def peek(self, size: int = _CHUNK) -> bytes:
        """The next `size` bytes or more, fewer at the end; they are still to be read."""
        pieces = []
        while sum(map(len, pieces)) < size and (piece := self.read()):
            pieces.append(piece)
        self._ahead = b"".join(pieces)
        return self._ahead

    def lines(self) -> Iterator[bytes]:
        """The lines, split at line feeds only (JSON text may hold other line separators)."""
        begun: list[bytes] = []  # a line that goes on: joined once, however long it is
        while piece := self.read(_CHUNK * 16):
            first, *others = piece.split(b"\n")
            begun.append(first)
            if others:
                yield b"".join(begun)
                yield from others[:-1]
                begun = others[-1:]
        if rest := b"".join(begun):
            yield rest

    @contextmanager
    def copy(self) -> Iterator[IO[bytes]]:
        """All of it in a file without a name, for what has to be read from its end."""
        with tempfile.TemporaryFile() as plain:
            while piece := self.read(_CHUNK * 16):
                plain.write(piece)
            plain.seek(0)
            yield plain


# ---- JSON ----------------------------------------------------------------------------------------


def _json_rows(unpacked: _Unpacked) -> Iterator[RawRow]:
    yield from _array_rows(unpacked) if _is_array(unpacked.peek()) else _line_rows(unpacked)


def _is_array(begin: bytes) -> bool:
    """Does the text that begins so hold one array? Not where a first line is a list by itself.

    "[1]\\n{…}" is two rows on two lines, "[{…},\\n{…}]" one array; a list of rows is always one.
    """
    lines = (line for line in begin.removeprefix(codecs.BOM_UTF8).split(b"\n") if line.strip())
    first, second = next(lines, b"").strip(), next(lines, b"").lstrip()
    is_line = first.endswith(b"]") and second.startswith((b"{", b"["))
    return first.startswith(b"[") and (not is_line or _LIST_OF_ROWS.match(first) is not None)


def _line_rows(unpacked: _Unpacked) -> Iterator[RawRow]:
    number = 0
    for number, line in _numbered(unpacked):
        if not line or line.isspace():
            continue
        row = _line_row(number, line)
        if row.flaw and unpacked.broke_off:  # the half of a line before the cut
            yield RawRow(number, None, Flaw("ends_early", unpacked.broke_off))
            return
        yield row
    if unpacked.broke_off:
        yield RawRow(number + 1, None, Flaw("ends_early", unpacked.broke_off))


def _numbered(unpacked: _Unpacked) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers from 1, without the mark (BOM) a file may begin with."""
    for number, line in enumerate(unpacked.lines(), 1):
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _line_row(number: int, line: bytes) -> RawRow:
    flaw = None
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        flaw = Flaw("broken_utf8", tr("byte {at} of the line").format(at=error.start + 1))
        text = line.decode("utf-8", "surrogateescape")
    try:
        value = json.loads(text)
        _refuse_depths(value, text)
        return RawRow(number, value, flaw)
    except (ValueError, RecursionError) as error:  # ValueError: also numbers without end
        # GBK text is no JSON either; what is wrong with it is its encoding.
        return RawRow(number, None, flaw or Flaw("not_json", str(error)))


def _refuse_depths(value: Any, text: str) -> None:
    """Raise ValueError where `value`, written as `text`, is nested too deeply to be worked with."""
    if text.count("[") + text.count("{") <= _DEEPEST:
        return
    level = [value]
    for _ in range(_DEEPEST):
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, _NESTS)]
        level = [item for items in inner for item in items]
        if not level:
            return
    if any(isinstance(item, _NESTS) for item in level):
        raise ValueError(tr("more than {n} levels of nesting").format(n=_DEEPEST))


def _array_rows(unpacked: _Unpacked) -> Iterator[RawRow]:
    """The elements of one JSON array, one at a time.

    Where an element is no JSON, reading goes on at the next place that looks like the beginning of
    one (`_ArrayText.go_on`): no good element is lost to a bad one.
    """
    text = _ArrayText(iter(unpacked.read, b""))
    text.begin()
    number = 0
    while True:
        number += 1
        if text.at_end():
            flaw = _flaw_at_end(text, unpacked)
            if flaw:
                yield RawRow(number, None, flaw)
            if not flaw or not text.go_on():
                return
            continue
        value, error = text.element()
        if error is None or value is not None:
            yield RawRow(number, value, _flaw_of_element(value, error, text))
            continue
        goes_on = text.go_on()
        if unpacked.broke_off and not goes_on:  # the half of an element before the cut
            error, kind = unpacked.broke_off, "ends_early"
        else:
            kind = "not_json"
        yield RawRow(number, None, Flaw(kind, error))
        if not goes_on:
            return


def _flaw_at_end(text: _ArrayText, unpacked: _Unpacked) -> Flaw | None:
    problem = text.problem_at_end()
    if unpacked.broke_off:
        return Flaw("ends_early", unpacked.broke_off)
    return Flaw("not_json", problem) if problem else None


def _flaw_of_element(value: Any, error: str | None, text: _ArrayText) -> Flaw | None:
    if error:
        return Flaw("not_json", error)
    if text.broken and _HALF.search(json.dumps(value, ensure_ascii=False)):
        return Flaw("broken_utf8", tr("in the element"))
    return None


def _may_go_on(error: Exception, text: str) -> bool:
    """Could more text mend `error`? Not where it lies well before the end of what is there."""
    if not isinstance(error, json.JSONDecodeError) or error.msg.startswith("Unterminated"):
        return not isinstance(error, RecursionError)
    return error.pos > len(text) - _LONGEST_TOKEN


_NESTS = (dict, list)
_HALF = re.compile("[\udc80-\udcff]")
_BLANK = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
# What an element may begin with, whatever the others began with; and how far such a beginning reaches.
_FIRST_KEYS = ("conversation", "messages", "conversations", "instruction")
_LIST_OF_ROWS = re.compile(rb'\[\s*\{\s*"(?:%s)"' % "|".join(_FIRST_KEYS).encode())
_LONGEST_BEGINNING = 1000
_OPENINGS = re.compile(r'(?:\s|[\[{]|"[^"\\]{0,100}"\s*:)*')


class _ArrayText:
    """The text of an array, filled from behind as it is read from the front.

    `broken`: may the text at hand hold bytes that are no UTF-8? Such a byte is half a character in it.
    """

    def __init__(self, more: Iterator[bytes]) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._more = more
        self._text = ""
        self._at = 0
        self._full = self._comma = self._lost = self.broken = False
        self._indent = ""
        self._first_keys = set(_FIRST_KEYS)

    def begin(self) -> None:
        """Go over what stands before the first element; see how far it is indented."""
        self.skip("\ufeff")
        self.skip("[")
        self._fill(_CHUNK)
        end = _blank_end(self._text, self._at)
        self._indent = self._text[self._at : end].rpartition("\n")[2]

    def _fill(self, size: int) -> bool:
        """Add text until `size` characters lie ahead, or all there are; was any added?"""
        self._text, self._at = self._text[self._at :], 0
        pieces, length = [self._text], len(self._text)
        while length < size and not self._full:
            piece = next(self._more, None)
            if piece is None:
                self._full = True
                pieces.append(self._decode(b"", True))
                break
            pieces.append(self._decode(piece))
            length += len(pieces[-1])
        before = len(self._text)
        self._text = "".join(pieces)
        self.broken = not self._text.isascii() and _HALF.search(self._text) is not None
        return len(self._text) > before

    def skip(self, mark: str) -> bool:
        """Go over white space and `mark`; was the mark there?"""
        while True:
            at = _blank_end(self._text, self._at)
            if at < len(self._text) or self._full:
                break
            self._at = at
            self._fill(_CHUNK)
        self._at = at
        if self._text.startswith(mark, at):
            self._at += len(mark)
            return True
        return False

    def at_end(self) -> bool:
        self.skip("")
        return self._at >= len(self._text) or self._text[self._at] == "]"

    def element(self) -> tuple[Any, str | None]:
        """(the next element, what is wrong with it or None); both where only a comma is missing."""
        while True:
            ahead = len(self._text) - self._at
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or self._full:
                    return self._taken(value, end)
            except (ValueError, RecursionError) as error:
                if not _may_go_on(error, self._text) or ahead > _LARGEST_ELEMENT or self._full:
                    self._pass_over_beginning(isinstance(error, RecursionError))
                    return None, str(error)
            self._fill(max(4 * ahead, _CHUNK))

    def _pass_over_beginning(self, deep: bool) -> None:
        """Go behind the "{" of an element that is no JSON; of a `deep` one, behind all that it opens."""
        self._at += 1
        while deep:
            found = _OPENINGS.match(self._text, self._at)
            self._at = found.end() if found else self._at
            deep = len(self._text) - self._at < _LONGEST_BEGINNING and self._fill(_CHUNK * 4)

    def _taken(self, value: Any, end: int) -> tuple[Any, str | None]:
        """The element that reaches to `end`. It is followed by a comma, which is gone over, or "]"."""
        text, self._at = self._text[self._at : end], end
        try:
            _refuse_depths(value, text)
        except ValueError as error:
            return None, str(error)
        if isinstance(value, dict) and value:
            self._first_keys.add(next(iter(value)))
        self._comma = self.skip(",")
        if self._comma or self._at >= len(self._text) or self._text[self._at] == "]":
            return value, None
        error = tr("a comma is missing behind the element")
        if not isinstance(value, dict):  # a part of an element: "a" in [{"a": 1}, "a": 2}]
            return None, error
        if self._text[self._at] != "{":
            self.go_on()
        return value, error

    def problem_at_end(self) -> str | None:
        """What is wrong with the end of the array, if anything."""
        if self._lost:  # with the last element, which was told
            return None
        if not self.skip("]"):
            return tr("the array does not end")
        if self._comma:
            return tr("there is a comma behind the last element")
        self.skip("")
        return (
            tr("there is text behind the end of the array") if self._at < len(self._text) else None
        )

    def go_on(self) -> bool:
        """Go to the next place that looks like the beginning of an element; was there one?

        That is "{" with the first element's indentation on a line behind a comma, or "{" and a key
        that elements begin with.
        """
        keys = "|".join(re.escape(json.dumps(key, ensure_ascii=False)) for key in self._first_keys)
        beginning = re.compile(rf",\s*\n{self._indent}(?=\{{)|(?=\{{\s*(?:{keys}))")
        while True:
            if found := beginning.search(self._text, self._at):
                self._at = found.end()
                return True
            self._at = max(self._at, len(self._text) - _LONGEST_BEGINNING)  # it may reach over
            if not self._fill(_CHUNK * 4):
                self._at, self._lost = len(self._text), True
                return False


def _blank_end(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


# ---- tables --------------------------------------------------------------------------------------


def _parquet_rows(file: IO[bytes], path: Path, on_bytes: OnBytes | None) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        table = pq.ParquetFile(file)
        total = table.metadata.num_rows
        size = file.seek(0, 2)
        for batch in table.iter_batches(batch_size=256):
            for value in _batch_rows(batch):
                number += 1
                yield RawRow(number, value, _flaw_of_cells(value))
            if on_bytes:
                on_bytes(size * number // max(1, total))
    # ValueError: among others what no Python value can hold, as a date in the year 300,000
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _no_parquet(path, error) from None


def _batch_rows(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow batch as JSON values."""
    import pyarrow as pa

    columns = []
    for column in batch.columns:
        try:
            columns.append(column.to_pylist())
        except UnicodeDecodeError:
            columns.append(column.cast(pa.binary()).to_pylist())
    for cells in zip(*columns, strict=True):
        yield _as_json(dict(zip(batch.schema.names, cells, strict=True)))


def _as_json(value: Any) -> Any:
    """What a table holds, as JSON would. A table gives every row every field; null is not there."""
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _table_rows(unpacked: _Unpacked, separator: str) -> Iterator[RawRow]:
    """CSV or TSV with a heading; fields that hold JSON lists ("messages") are read as such."""
    heading: list[str] | None = None
    number = 0
    for cells, error in _cells(_Lines(unpacked), separator):
        if heading is None and cells:
            heading = [cell.strip() for cell in cells]
            continue
        number += 1
        yield _table_row(number, heading or [], cells, error)
    if unpacked.broke_off:
        yield RawRow(number + 1, None, Flaw("ends_early", unpacked.broke_off))


# In the place of a "\r" inside a line, which csv takes for a line end: a code point no text has.
_RETURN = "\udbff"


class _Lines:
    """The lines of a table, which can be given back: those `taken` since they were last forgotten."""

    def __init__(self, unpacked: _Unpacked) -> None:
        self._lines = self._whole(unpacked)
        self._again: list[str] = []
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._lines)
        self.taken.append(line)
        return line

    def go_back_behind_first(self) -> None:
        self._again += reversed(self.taken[1:])

    @staticmethod
    def _whole(unpacked: _Unpacked) -> Iterator[str]:
        for _, line in _numbered(unpacked):
            if unpacked.broke_off:  # this is the half of a line before the cut
                return
            text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
            yield text.replace("\r", _RETURN) + "\n"


def _cells(lines: _Lines, separator: str) -> Iterator[tuple[list[str], str]]:
    """(the fields of each row that is not blank, of any length; what is wrong or "").

    A quote that is never closed takes in the lines below. Then the row's first line alone is told as
    wrong, and its other lines are read again: [q,"a  q2,"b"  q3,c] has one bad row and two good ones.
    """
    import csv

    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        lines.taken.clear()
        limit = csv.field_size_limit(_LARGEST_ELEMENT)  # of the whole process: given back at once
        try:
            cells, error = next(reader, None), ""
        except csv.Error as problem:
            lines.go_back_behind_first()
            cells, error = [], str(problem)
        finally:
            csv.field_size_limit(limit)
        if cells is None:
            return
        if error or len(cells) > 1 or "".join(cells).strip():
            yield [cell.replace(_RETURN, "\r") for cell in cells], error


def _table_row(number: int, heading: list[str], cells: list[str], error: str) -> RawRow:
    if not error and len(cells) != len(heading):
        error = tr("{n} fields where the heading has {m}")
        error = error.format(n=len(cells), m=len(heading))
    if error:
        return RawRow(number, None, Flaw("wrong_columns", error))
    value = {key: _cell(key, cell) for key, cell in zip(heading, cells, strict=True)}
    return RawRow(number, value, _flaw_of_cells(value))


def _flaw_of_cells(value: dict[str, Any]) -> Flaw | None:
    for key, cell in value.items():
        text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
        if not text.isascii() and _HALF.search(text):
            return Flaw("broken_utf8", tr("in the field {key}").format(key=key))
    return None


def _cell(key: str, text: str) -> Any:
    """A field's text; in fields of turns, its value where it is a JSON list of objects or lists."""
    if not (text.startswith(("[{", "[[")) and text.endswith("]")):
        return text
    try:
        value = json.loads(text)
        _refuse_depths(value, text)
    except (ValueError, RecursionError):
        return text
    said = all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in value)
    return value if key in _FIELDS_OF_TURNS or said else text
