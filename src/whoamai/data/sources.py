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
import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from whoamai.errors import DataError
from whoamai.messages import tr

FlawKind = Literal["not_json", "broken_utf8", "ends_early", "wrong_columns"]
OnBytes = Callable[[int], None]

_CHUNK = 1 << 16
_LARGEST_ELEMENT = 64 << 20
_LONGEST_TOKEN = 64  # characters of a JSON token that is no string, with room to spare
_TAKE = re.compile(r"#(?:(?P<count>\d+)|(?P<factor>\d+(?:\.\d+)?)x)$")
_TEXT_ENDINGS = (".jsonl", ".json", ".ndjson", ".txt")
_TABLE_ENDINGS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Source:
    """One file, and how many of its rows are wanted: all, a `count`, or `factor` times what it has."""

    path: Path
    count: int | None = None
    factor: float | None = None

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
        if head == b"PAR1":
            yield from _parquet_rows(file, on_bytes)
            return
        _refuse_other_kinds(path, head)
        unpacked = _Unpacked(file, packed=head[:2] == b"\x1f\x8b", on_bytes=on_bytes)
        separator = _TABLE_ENDINGS.get(_ending(path))
        rows = _table_rows(unpacked, separator) if separator else _json_rows(unpacked)
        yield from rows


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
    with path.open("rb") as file:
        return file.read(3) == codecs.BOM_UTF8


def _expanded(given: str) -> list[Source]:
    """A name as sources: a file of just that name first, then with its #…, then as a pattern."""
    path, count, factor = Path(given).expanduser(), None, None
    if not path.exists() and (take := _TAKE.search(given)):
        path = Path(given[: take.start()]).expanduser()
        count = int(take["count"]) if take["count"] else None
        factor = float(take["factor"]) if take["factor"] else None
        if not (count or factor):
            raise DataError(tr("{given} takes no row at all.").format(given=given))
    if path.is_dir():
        raise DataError(
            tr("{path} is a folder. Give its files, for example {path}/*.jsonl").format(path=path)
        )
    paths = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    files = [p for p in paths if not p.is_dir()]
    if not files:
        known = tr("There is no file {path}.") if not glob.has_magic(str(path)) else ""
        text = known or tr("No file fits the pattern {path}.")
        raise DataError(text.format(path=path))
    return [Source(p, count, factor) for p in files]


def _ending(path: Path) -> str:
    """The ending that says what is inside: that of "a.csv.gz" is ".csv"."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise DataError(tr("{path} is UTF-16 text. Save it as UTF-8.").format(path=path))
    known = (*_TEXT_ENDINGS, *_TABLE_ENDINGS, ".parquet")
    starts_like_json = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")
    if head and _ending(path) not in known and not starts_like_json and head[:2] != b"\x1f\x8b":
        raise DataError(
            tr("{path} is of no known kind. Known are {known}, each also with .gz.").format(
                path=path, known=", ".join(known)
            )
        )


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
        self.broke_off: str | None = None

    def read(self, size: int = _CHUNK) -> bytes:
        """At least one byte, or none at the end (also where the packed data ends too early)."""
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

    def lines(self) -> Iterator[bytes]:
        """The lines, split at line feeds only (JSON text may hold other line separators)."""
        rest = b""
        while piece := self.read(_CHUNK * 16):
            whole = (rest + piece).split(b"\n")
            rest = whole.pop()
            yield from whole
        if rest:
            yield rest


# ---- JSON ----------------------------------------------------------------------------------------


def _json_rows(unpacked: _Unpacked) -> Iterator[RawRow]:
    lines = ((n, line) for n, line in _numbered(unpacked) if line and not line.isspace())
    number, first = next(lines, (0, b""))
    if first.lstrip().startswith(b"["):
        more = (text + b"\n" for _, text in lines)
        yield from _array_rows(first + b"\n", more, unpacked)
        return
    if first:
        yield _line_row(number, first)
    for number, line in lines:
        yield _line_row(number, line)
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
        return RawRow(number, json.loads(text), flaw)
    except (ValueError, RecursionError) as error:  # ValueError: also numbers without end
        # GBK text is no JSON either; what is wrong with it is its encoding.
        return RawRow(number, None, flaw or Flaw("not_json", str(error)))


def _array_rows(first: bytes, more: Iterator[bytes], unpacked: _Unpacked) -> Iterator[RawRow]:
    """The elements of one JSON array, one at a time.

    Where an element is no JSON, reading goes on at the next line that begins as the first element's
    line did (same indentation, "{"), which is how arrays are written by people and by programs.
    """
    text = _ArrayText(first, more)
    text.skip("[")
    indent = text.indentation()
    number = 0
    while not text.at_end():
        number += 1
        value, error = text.element()
        if value is None and error and unpacked.broke_off:
            break
        broken = text.broken and _HALF.search(json.dumps(value, ensure_ascii=False))
        if broken:
            yield RawRow(number, value, Flaw("broken_utf8", tr("in the element")))
        else:
            yield RawRow(number, value, Flaw("not_json", error) if error else None)
        if value is None and error and not text.go_on(indent):
            return
    if unpacked.broke_off:
        yield RawRow(number or 1, None, Flaw("ends_early", unpacked.broke_off))
    elif error := text.problem_at_end():
        yield RawRow(number + 1, None, Flaw("not_json", error))


def _may_go_on(error: Exception, text: str) -> bool:
    """Could more text mend `error`? Not where it lies well before the end of what is there."""
    if not isinstance(error, json.JSONDecodeError) or error.msg.startswith("Unterminated"):
        return not isinstance(error, RecursionError)
    return error.pos > len(text) - _LONGEST_TOKEN


_HALF = re.compile("[\udc80-\udcff]")
_BLANK = re.compile(r"\s*")
_DECODER = json.JSONDecoder()


class _ArrayText:
    """The text of an array, filled from behind as it is read from the front."""

    def __init__(self, first: bytes, more: Iterator[bytes]) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._more = more
        self._text = self._decode(first)
        self._at = 0
        self._full = self._comma = False

    @property
    def broken(self) -> bool:
        """May the text at hand hold bytes that are no UTF-8?"""
        return not self._text.isascii() and _HALF.search(self._text) is not None

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

    def indentation(self) -> str:
        """The white space before the first element, from its line's beginning."""
        self._fill(_CHUNK)
        end = _blank_end(self._text, self._at)
        return self._text[self._at : end].rpartition("\n")[2]

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
                    self._at = end
                    return value, self._problem_behind()
            except (ValueError, RecursionError) as error:
                if not _may_go_on(error, self._text) or ahead > _LARGEST_ELEMENT or self._full:
                    return None, str(error)
            self._fill(max(4 * ahead, _CHUNK))

    def _problem_behind(self) -> str | None:
        """An element is followed by a comma or the end of the array; the comma is gone over."""
        self._comma = self.skip(",")
        if self._comma or self._at >= len(self._text) or self._text[self._at] == "]":
            return None
        return tr("a comma is missing behind the element")

    def problem_at_end(self) -> str | None:
        """What is wrong with the end of the array, if anything."""
        if not self.skip("]"):
            return tr("the array does not end")
        if self._comma:
            return tr("there is a comma behind the last element")
        self.skip("")
        return (
            tr("there is text behind the end of the array") if self._at < len(self._text) else None
        )

    def go_on(self, indent: str) -> bool:
        """Go to the next place that looks like the beginning of an element; was there one?"""
        start = re.compile(r",\s*\n" + re.escape(indent) + r"(?=\{)")
        while True:
            if found := start.search(self._text, self._at):
                self._at = found.end()
                return True
            self._at = max(self._at, len(self._text) - _CHUNK)
            if not self._fill(_CHUNK * 4):
                return False


def _blank_end(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


# ---- tables --------------------------------------------------------------------------------------


def _parquet_rows(file: IO[bytes], on_bytes: OnBytes | None) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        number, total = 0, table.metadata.num_rows
        size = file.seek(0, 2)
        for batch in table.iter_batches(batch_size=256):
            for value in batch.to_pylist():
                number += 1
                yield RawRow(number, _without_nulls(value))
            if on_bytes:
                on_bytes(size * number // max(1, total))
    except pa.ArrowException as error:
        raise DataError(
            tr("{path} is not a Parquet file that can be read: {error}").format(
                path=file.name, error=str(error).partition("\n")[0]
            )
        ) from None


def _without_nulls(value: Any) -> Any:
    """A table gives every row every field; those that are null are as good as not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _table_rows(unpacked: _Unpacked, separator: str) -> Iterator[RawRow]:
    """CSV or TSV with a heading; fields that hold JSON lists ("messages") are read as such."""
    heading: list[str] | None = None
    number = 0
    for cells in _cells(_table_lines(unpacked), separator):
        if heading is None:
            heading = [cell.strip() for cell in cells]
            continue
        number += 1
        yield _table_row(number, heading, cells)
    if unpacked.broke_off:
        yield RawRow(number + 1, None, Flaw("ends_early", unpacked.broke_off))


def _cells(lines: Iterator[str], separator: str) -> Iterator[list[str]]:
    """The fields of each row that is not blank, of any length."""
    import csv

    reader = csv.reader(lines, delimiter=separator)
    while True:
        limit = csv.field_size_limit(
            _LARGEST_ELEMENT
        )  # of the whole process, so given back at once
        try:
            cells = next(reader, None)
        finally:
            csv.field_size_limit(limit)
        if cells is None:
            return
        if cells:
            yield cells


def _table_lines(unpacked: _Unpacked) -> Iterator[str]:
    for _, line in _numbered(unpacked):
        yield (line + b"\n").decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def _table_row(number: int, heading: list[str], cells: list[str]) -> RawRow:
    if len(cells) != len(heading):
        text = tr("{n} fields where the heading has {m}").format(n=len(cells), m=len(heading))
        return RawRow(number, None, Flaw("wrong_columns", text))
    value = {key: _cell(cell) for key, cell in zip(heading, cells, strict=True)}
    broken = any(_HALF.search(cell) for cell in cells if not cell.isascii())
    return RawRow(number, value, Flaw("broken_utf8", "") if broken else None)


def _cell(text: str) -> Any:
    """A field's text; its value where it is a JSON list of objects or lists."""
    if text.startswith(("[{", "[[")) and text.endswith("]"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    return text
