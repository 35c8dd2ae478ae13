"""What reading a file gives: raw rows with their numbers and flaws, out of plain or packed bytes."""

from __future__ import annotations

import codecs
import gzip
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Literal

from whoamai.messages import tr

FlawKind = Literal["not_json", "broken_utf8", "ends_early", "wrong_columns"]
OnBytes = Callable[[int], None]

CHUNK = 1 << 16
LARGEST_FIELD = 64 << 20  # bytes of one text of a table, or of one element of an array
HALF = re.compile("[\udc80-\udcff]")  # a byte that was no UTF-8, as read_rows() gives it
# Levels of lists and objects inside one another; Python's own limits lie not far beyond.
_DEEPEST = 100
_NESTS = (dict, list)


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


class Unpacked:
    """Bytes of a plain or packed file, in pieces; remembers whether the packed data broke off."""

    def __init__(self, raw: IO[bytes], *, packed: bool, on_bytes: OnBytes | None) -> None:
        self._raw, self._on_bytes = raw, on_bytes
        # read1: what is unpacked already is given before an early end is told.
        self._read = gzip.GzipFile(fileobj=raw, mode="rb").read1 if packed else raw.read
        self._ahead = b""
        self.broke_off: str | None = None

    def read(self, size: int = CHUNK) -> bytes:
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

    def peek(self, size: int = CHUNK) -> bytes:
        """The next `size` bytes or more, fewer at the end; they are still to be read."""
        pieces = []
        while sum(map(len, pieces)) < size and (piece := self.read()):
            pieces.append(piece)
        self._ahead = b"".join(pieces)
        return self._ahead

    def lines(self) -> Iterator[bytes]:
        """The lines, split at line feeds only (JSON text may hold other line separators)."""
        begun: list[bytes] = []  # a line that goes on: joined once, however long it is
        while piece := self.read(CHUNK * 16):
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
            while piece := self.read(CHUNK * 16):
                plain.write(piece)
            plain.seek(0)
            yield plain


def numbered(unpacked: Unpacked) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers from 1, without the mark (BOM) a file may begin with."""
    for number, line in enumerate(unpacked.lines(), 1):
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def refuse_depths(value: Any, text: str) -> None:
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
