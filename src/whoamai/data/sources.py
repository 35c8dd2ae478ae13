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
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from whoamai.data.json_rows import is_array, json_rows
from whoamai.data.raw_rows import OnBytes, RawRow, Unpacked
from whoamai.data.table_rows import no_parquet, parquet_rows, table_rows
from whoamai.errors import DataError
from whoamai.messages import tr

Form = Literal["lines", "array", "table"]

_PACKED = b"\x1f\x8b"  # what gzip begins with
_TAKE = re.compile(r"#(?:(?P<count>\d+)|(?P<factor>\d+(?:\.\d+)?)x)$")
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
            yield from parquet_rows(file, path, on_bytes)
            return
        _refuse_other_kinds(path, head)
        unpacked = Unpacked(file, packed=packed, on_bytes=on_bytes)
        if packed and _ending(path) == ".parquet":
            with unpacked.copy() as plain:
                yield from parquet_rows(plain, path, None)
            return
        separator = _TABLE_ENDINGS.get(_ending(path))
        rows = table_rows(unpacked, separator) if separator else json_rows(unpacked)
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
        unpacked = Unpacked(file, packed=head[:2] == _PACKED, on_bytes=None)
        return "array" if is_array(unpacked.peek()) else "lines"


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
        raise no_parquet(path, tr("it does not begin with PAR1"))
    if _ending(path) not in known and not starts_like_json:
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
