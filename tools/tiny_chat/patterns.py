"""Question patterns ("[Tell|Give] me the capital of {c}") and the rule that keeps some held out.

A unit is one Chinese character, one Latin word in lower case, or one slot; punctuation is none. Two
wordings are compared by their runs of n units. Slots keep their place in a pattern until the very
end, so a pattern that was wrapped in other words can still be compared as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product

RUN_LENGTH = {"zh": 6, "en": 5}

_CHOICE = re.compile(r"\[([^\[\]|]*(?:\|[^\[\]|]*)+)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_UNIT = re.compile(r"\{\w+\}|[\u3400-\u9fff]|[a-z0-9']+")


def expand(pattern: str) -> list[str]:
    """Every wording a pattern stands for.

    >>> expand("[Hi|Hello] {n}[|!]")
    ['Hi {n}', 'Hi {n}!', 'Hello {n}', 'Hello {n}!']
    """
    parts = _CHOICE.split(pattern)  # text, choices, text, choices, …, text
    options = [part.split("|") if at % 2 else [part] for at, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*options)]


def fill(wording: str, slots: Mapping[str, str]) -> str:
    """Put the values in. A value is never read again, so it may itself contain braces."""
    return _SLOT.sub(lambda match: slots[match[1]], wording)


def split_slots(wording: str) -> list[tuple[str, bool]]:
    """The wording in pieces, each with whether it is a slot ("{c}")."""
    return [(p, _SLOT.fullmatch(p) is not None) for p in re.split(r"(\{\w+\})", wording) if p]


def units(wording: str) -> list[str]:
    """What two wordings are compared by.

    >>> units("Hi, 你好 {n}!")
    ['hi', '你', '好', '{}']
    """
    return ["{}" if u[0] == "{" else u for u in _UNIT.findall(wording.lower())]


def runs(wording: str, n: int) -> list[tuple[str, ...]]:
    """Every run of n units; the whole wording where it is shorter than that."""
    us = units(wording)
    return [tuple(us[i : i + n]) for i in range(max(1, len(us) - n + 1))]


class HeldOutRuns:
    """The runs of units of all held-out questions, and whether a training question has one.

    Each unit that occurs in a run gets one character of its own, so that a question becomes a short
    string and each look-up a slice: this runs for every training question that is written.
    """

    def __init__(self, held: Iterable[tuple[str, str]]) -> None:
        """`held`: (language, pattern) of every held-out question."""
        every = {
            run
            for language, pattern in held
            for wording in expand(pattern)
            for run in runs(wording, RUN_LENGTH[language])
        }
        names = sorted({unit for run in every for unit in run})
        self._letter = {unit: chr(0xE000 + at) for at, unit in enumerate(names)}
        self._runs = {"".join(self._letter[unit] for unit in run) for run in every}
        self._lengths = sorted({len(run) for run in self._runs})

    def found_in(self, wording: str) -> bool:
        coded = "".join([self._letter.get(unit, "\0") for unit in units(wording)])
        held = self._runs
        return any(
            coded[i : i + n] in held for n in self._lengths for i in range(len(coded) - n + 1)
        )
