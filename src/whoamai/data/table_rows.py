"""Tables, row by row: CSV and TSV with a heading, Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from whoamai.data.raw_rows import (
    HALF,
    LARGEST_FIELD,
    Flaw,
    OnBytes,
    RawRow,
    Unpacked,
    numbered,
    refuse_depths,
)
from whoamai.errors import DataError
from whoamai.messages import tr

_FIELDS_OF_TURNS = ("conversation", "messages", "conversations", "history")


def parquet_rows(file: IO[bytes], path: Path, on_bytes: OnBytes | None) -> Iterator[RawRow]:
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
        raise no_parquet(path, error) from None


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


def table_rows(unpacked: Unpacked, separator: str) -> Iterator[RawRow]:
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

    def __init__(self, unpacked: Unpacked) -> None:
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
    def _whole(unpacked: Unpacked) -> Iterator[str]:
        for _, line in numbered(unpacked):
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
        limit = csv.field_size_limit(LARGEST_FIELD)  # of the whole process: given back at once
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
        if not text.isascii() and HALF.search(text):
            return Flaw("broken_utf8", tr("in the field {key}").format(key=key))
    return None


def _cell(key: str, text: str) -> Any:
    """A field's text; in fields of turns, its value where it is a JSON list of objects or lists."""
    if not (text.startswith(("[{", "[[")) and text.endswith("]")):
        return text
    try:
        value = json.loads(text)
        refuse_depths(value, text)
    except (ValueError, RecursionError):
        return text
    said = all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in value)
    return value if key in _FIELDS_OF_TURNS or said else text


def no_parquet(path: Path, error: object) -> DataError:
    first_line = str(error).partition("\n")[0]
    text = tr("{path} is not a Parquet file that can be read: {error}")
    return DataError(text.format(path=path, error=first_line))
