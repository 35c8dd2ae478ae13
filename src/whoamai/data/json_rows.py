"""JSON lines and JSON arrays, row by row; no good row is lost to a bad one."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from whoamai.data.raw_rows import (
    CHUNK,
    HALF,
    LARGEST_FIELD,
    Flaw,
    RawRow,
    Unpacked,
    numbered,
    refuse_depths,
)
from whoamai.messages import tr

_LONGEST_TOKEN = 64  # characters of a JSON token that is no string, with room to spare


def json_rows(unpacked: Unpacked) -> Iterator[RawRow]:
    yield from _array_rows(unpacked) if is_array(unpacked.peek()) else _line_rows(unpacked)


def is_array(begin: bytes) -> bool:
    """Does the text that begins so hold one array? Not where a first line is a list by itself.

    "[1]\\n{…}" is two rows on two lines, "[{…},\\n{…}]" one array; a list of rows is always one.
    """
    lines = (line for line in begin.removeprefix(codecs.BOM_UTF8).split(b"\n") if line.strip())
    first, second = next(lines, b"").strip(), next(lines, b"").lstrip()
    is_line = first.endswith(b"]") and second.startswith((b"{", b"["))
    return first.startswith(b"[") and (not is_line or _LIST_OF_ROWS.match(first) is not None)


def _line_rows(unpacked: Unpacked) -> Iterator[RawRow]:
    number = 0
    for number, line in numbered(unpacked):
        if not line or line.isspace():
            continue
        row = _line_row(number, line)
        if row.flaw and unpacked.broke_off:  # the half of a line before the cut
            yield RawRow(number, None, Flaw("ends_early", unpacked.broke_off))
            return
        yield row
    if unpacked.broke_off:
        yield RawRow(number + 1, None, Flaw("ends_early", unpacked.broke_off))


def _line_row(number: int, line: bytes) -> RawRow:
    flaw = None
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        flaw = Flaw("broken_utf8", tr("byte {at} of the line").format(at=error.start + 1))
        text = line.decode("utf-8", "surrogateescape")
    try:
        value = json.loads(text)
        refuse_depths(value, text)
        return RawRow(number, value, flaw)
    except (ValueError, RecursionError) as error:  # ValueError: also numbers without end
        # GBK text is no JSON either; what is wrong with it is its encoding.
        return RawRow(number, None, flaw or Flaw("not_json", str(error)))


def _array_rows(unpacked: Unpacked) -> Iterator[RawRow]:
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


def _flaw_at_end(text: _ArrayText, unpacked: Unpacked) -> Flaw | None:
    problem = text.problem_at_end()
    if unpacked.broke_off:
        return Flaw("ends_early", unpacked.broke_off)
    return Flaw("not_json", problem) if problem else None


def _flaw_of_element(value: Any, error: str | None, text: _ArrayText) -> Flaw | None:
    if error:
        return Flaw("not_json", error)
    if text.broken and HALF.search(json.dumps(value, ensure_ascii=False)):
        return Flaw("broken_utf8", tr("in the element"))
    return None


def _may_go_on(error: Exception, text: str) -> bool:
    """Could more text mend `error`? Not where it lies well before the end of what is there."""
    if not isinstance(error, json.JSONDecodeError) or error.msg.startswith("Unterminated"):
        return not isinstance(error, RecursionError)
    return error.pos > len(text) - _LONGEST_TOKEN


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
        self._fill(CHUNK)
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
        self.broken = not self._text.isascii() and HALF.search(self._text) is not None
        return len(self._text) > before

    def skip(self, mark: str) -> bool:
        """Go over white space and `mark`; was the mark there?"""
        while True:
            at = _blank_end(self._text, self._at)
            if at < len(self._text) or self._full:
                break
            self._at = at
            self._fill(CHUNK)
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
                if not _may_go_on(error, self._text) or ahead > LARGEST_FIELD or self._full:
                    self._pass_over_beginning(isinstance(error, RecursionError))
                    return None, str(error)
            self._fill(max(4 * ahead, CHUNK))

    def _pass_over_beginning(self, deep: bool) -> None:
        """Go behind the "{" of an element that is no JSON; of a `deep` one, behind all that it opens."""
        self._at += 1
        while deep:
            found = _OPENINGS.match(self._text, self._at)
            self._at = found.end() if found else self._at
            deep = len(self._text) - self._at < _LONGEST_BEGINNING and self._fill(CHUNK * 4)

    def _taken(self, value: Any, end: int) -> tuple[Any, str | None]:
        """The element that reaches to `end`. It is followed by a comma, which is gone over, or "]"."""
        text, self._at = self._text[self._at : end], end
        try:
            refuse_depths(value, text)
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
            if not self._fill(CHUNK * 4):
                self._at, self._lost = len(self._text), True
                return False


def _blank_end(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at
