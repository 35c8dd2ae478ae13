"""Sentences set for a terminal: lines break between Chinese characters, as well as at spaces.

Rich breaks lines at spaces only, which leaves Chinese with ragged lines and with full stops alone on a
line of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

# What stands at no beginning of a line, and what at no end of one.
_CLOSING = "，。；：、！？）】》”’…—,.;:!?)]}%"
_OPENING = "（【《“‘([{"
_WIDE = "\u2e80-\u9fff\uff01-\uff60"
# A word with the marks about it; a wide character with those about it; spaces.
_UNIT = re.compile(
    rf"[{re.escape(_OPENING)}]*(?:[{_WIDE}]|[^\s{_WIDE}{re.escape(_OPENING)}]+|.)"
    rf"[{re.escape(_CLOSING)}]*|\s+"
)
_LEAST_WIDTH = 16


@dataclass(frozen=True, slots=True)
class Prose:
    """A paragraph; lines after its first are indented by `hanging` columns."""

    text: str
    style: str = ""
    hanging: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in wrapped(self.text, options.max_width, self.hanging):
            yield Text(line, style=self.style, no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest = max(map(cell_len, self.text.split("\n")), default=0)
        return Measurement(min(longest, _LEAST_WIDTH), longest).clamp(0, options.max_width)


def wrapped(text: str, width: int, hanging: int = 0) -> list[str]:
    """The text in lines of at most `width` columns; its own line ends are kept.

    >>> wrapped("一个优化步取若干整行，总长不超过 2,048 个 token。", 24)
    ['一个优化步取若干整行，总', '长不超过 2,048 个 token。']
    """
    return [line for part in text.split("\n") for line in _lines(part, width, hanging)]


def _lines(text: str, width: int, hanging: int) -> Iterator[str]:
    hanging = min(hanging, max(0, width - _LEAST_WIDTH))
    line = ""
    for unit in _units(text, max(1, width - hanging)):
        if cell_len(line + unit.rstrip()) > width:
            if line.strip():
                yield line.rstrip()
            line = " " * hanging + unit.lstrip()
        else:
            line += unit
    yield line.rstrip()


def _units(text: str, width: int) -> Iterator[str]:
    """What no line break goes through; a word longer than a line is cut into lines."""
    for unit in _UNIT.findall(text):
        rest = unit
        while cell_len(rest) > width:
            head = set_cell_size(rest, width).rstrip() or rest[0]
            yield head
            rest = rest[len(head) :]
        yield rest
