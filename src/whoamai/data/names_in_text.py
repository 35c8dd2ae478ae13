"""Old names in one text: where they stand, what goes in their place, and what is worth a remark.

All names are looked for in one pass, the longer ones first, and what was put in is not searched again.
Of an occurrence that is not replaced, or should be looked at, this is told:

    inside_words    "Chu" in "Chuck": part of a longer word; with whole_word it stays
    other_case      "CHU" where case is "exact": stays
    joined          a new name and the text beside it made an old one again:
                    old 尖米, new 尖, in "尖米米" gives "尖米"; not where it lies inside the new name
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from whoamai.errors import SettingError
from whoamai.messages import tr

Case = Literal["exact", "ignore", "keep"]
CASES: tuple[Case, ...] = ("exact", "ignore", "keep")
Counts = Mapping[str, int]  # old name -> times

_AROUND = 24  # characters shown on either side of a change
# Texts whose replacement is kept, for system prompts and questions come again and again.
_REMEMBERED, _REMEMBERED_LENGTH = 2048, 4096
_ALNUM = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_NONE: Counts = {}


class Outcome(NamedTuple):
    """A searched text with its names replaced, how often each, and what there is to remark."""

    text: str
    counts: Counts
    inside_words: Counts = _NONE
    other_case: Counts = _NONE
    joined: Counts = _NONE


class _Found(NamedTuple):
    """The old name `old` in a text: `put` goes in the place of text[start:stop]."""

    start: int
    stop: int
    old: str
    put: str


class Names:
    """The pairs (old, new), and how the old ones are looked for.

    whole_word: a name that begins or ends in an ASCII letter or digit must begin or end a word there.
    case: "exact"; "ignore" finds any spelling; "keep" also writes the new name in capitals, small
        letters or with a capital where the old one was found so. The spelling given is always
        replaced by the new name as given.

    Raises SettingError for pairs that make no sense.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], *, whole_word: bool, case: Case) -> None:
        _check_pairs(pairs, case)
        self.old = tuple(old for old, _ in pairs)
        self._new = dict(pairs)
        self._case = case
        # Of several that fit at one place, a pattern takes the first.
        self._in_order = sorted(self.old, key=len, reverse=True)
        flags = re.NOFLAG if case == "exact" else re.IGNORECASE
        borders = _bordered if whole_word else re.escape
        self._pattern = _one_of(map(borders, self._in_order), flags)
        # What is nearly a name, for remarks: any spelling, also inside words.
        cased = any(old.lower() != old.upper() for old in self.old)
        self._anywhere = _one_of(map(re.escape, self._in_order), re.IGNORECASE if cased else flags)
        self._remarks = cased or any(_inner_sides(old) != (False, False) for old in self.old)
        self._escaped = any(c in '"\\' or c < " " for old in self.old for c in old)
        self._known: dict[str, Outcome | None] = {}

    def may_stand_in(self, line: str) -> bool:
        """False only where no text of this JSON can hold a name, or nearly one.

        The JSON is written with ensure_ascii=False. Quotes, backslashes and control characters are
        written otherwise than they are: of a name with one of these nothing can be said.
        """
        return self._escaped or self._anywhere.search(line) is not None

    def search(self, text: str) -> Outcome | None:
        """None where the text holds nothing to replace and nothing to remark."""
        if text in self._known:
            return self._known[text]
        outcome = self._search(text)
        if len(text) <= _REMEMBERED_LENGTH:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[text] = outcome
        return outcome

    def excerpts(self, text: str) -> tuple[str, str]:
        """The text around its first change, before and after; never cut inside a name.

        The text holds a name to replace.
        """
        found = tuple(self._find(text))
        start, stop = max(0, found[0].start - _AROUND), found[0].stop + _AROUND
        shown = [f for f in found if f.start < stop]
        stop = min(max(stop, shown[-1].stop), len(text))
        at, after = start, ""
        for f in shown:
            after += text[at : f.start] + f.put
            at = f.stop
        head, tail = "…" if start else "", "…" if stop < len(text) else ""
        return head + text[start:stop] + tail, head + after + text[at:stop] + tail

    def _find(self, text: str) -> Iterator[_Found]:
        """The names to replace in a text, from left to right."""
        for match in self._pattern.finditer(text):
            old = self._old_of(match)
            put = self._new[old]
            if self._case == "keep" and match[0] != old:
                put = _spelled_like(match[0], put)
            yield _Found(match.start(), match.end(), old, put)

    def _old_of(self, match: re.Match[str]) -> str:
        return self._in_order[(match.lastindex or 1) - 1]

    def _search(self, text: str) -> Outcome | None:
        if len(self.old) == 1 and not self._remarks:
            ((old, new),) = self._new.items()
            n = text.count(old)
            if not n:
                return None
            renamed = text.replace(old, new)
            if old not in renamed:
                return Outcome(renamed, {old: n})
        elif not self._anywhere.search(text):
            return None
        found = tuple(self._find(text))
        remarks = self._remarked(text, found) if self._remarks else (_NONE, _NONE)
        renamed, joined = self._renamed(text, found)
        return Outcome(renamed, Counter(f.old for f in found), *remarks, joined)

    def _renamed(self, text: str, found: tuple[_Found, ...]) -> tuple[str, Counts]:
        """The new text; the old names in it that are not wholly of what was put in.

        Old "aab", new "a", text "aabab": the new text is "aab", of which only the first a was put
        in: one is left.
        """
        pieces: list[str] = []
        put_in: set[int] = set()  # places of the new text
        at = length = 0
        for f in found:
            pieces += (text[at : f.start], f.put)
            length += f.start - at
            put_in.update(range(length, length + len(f.put)))
            length += len(f.put)
            at = f.stop
        renamed = "".join((*pieces, text[at:]))
        matches = self._pattern.finditer(renamed) if found else ()
        left = Counter(
            self._old_of(match) for match in matches if not put_in.issuperset(range(*match.span()))
        )
        return renamed, left

    def _remarked(self, text: str, found: tuple[_Found, ...]) -> tuple[Counts, Counts]:
        """(inside longer words, left in another spelling)."""
        inside: Counter[str] = Counter()
        other: Counter[str] = Counter()
        replaced = {i for f in found for i in range(f.start, f.stop)}
        for match in self._anywhere.finditer(text):
            old = self._old_of(match)
            if _is_inside_word(text, *match.span()):
                inside[old] += self._case != "exact" or match[0] == old
            elif match.start() not in replaced:
                other[old] += 1
        return inside, other


def _check_pairs(pairs: Sequence[tuple[str, str]], case: Case) -> None:
    if case not in CASES:
        raise SettingError(
            tr('the case rule "{case}" is not known; one of {known} is needed.').format(
                case=case, known=", ".join(CASES)
            )
        )
    if not pairs:
        raise SettingError(tr("No name to replace is given. Use --old NAME --new NAME."))
    seen: set[str] = set()
    for old, new in pairs:
        if not old or not new:
            raise SettingError(
                tr("--old and --new must not be empty. Write a name after each of them.")
            )
        if old == new:
            raise SettingError(
                tr('--old and --new are both "{name}". Give two different names.').format(name=old)
            )
        if re.search("[\ud800-\udfff]", old + new):
            raise SettingError(
                tr(
                    "--old or --new holds half of a character; no file can hold that. Type it again."
                )
            )
        key = old if case == "exact" else old.lower()
        if key in seen:
            raise SettingError(
                tr('--old "{name}" is given twice. Give one new name for it.').format(name=old)
            )
        seen.add(key)


def _one_of(patterns: Iterator[str], flags: re.RegexFlag) -> re.Pattern[str]:
    """One group a pattern, so that match.lastindex says which it was."""
    return re.compile("|".join(f"({pattern})" for pattern in patterns), flags)


def _inner_sides(name: str) -> tuple[bool, bool]:
    """Whether a word could go on (before, behind) the name: it begins, ends in ASCII letters."""
    return name[0] in _ALNUM, name[-1] in _ALNUM


def _bordered(name: str) -> str:
    """The name as a whole word, as data/replace.py has it: borders only at ASCII letters, digits."""
    before, behind = _inner_sides(name)
    left = "(?<![A-Za-z0-9])" if before else ""
    right = "(?![A-Za-z0-9])" if behind else ""
    return left + re.escape(name) + right


def _is_inside_word(text: str, start: int, stop: int) -> bool:
    before, behind = _inner_sides(text[start:stop])
    return (before and start > 0 and text[start - 1] in _ALNUM) or (
        behind and stop < len(text) and text[stop] in _ALNUM
    )


def _spelled_like(found: str, new: str) -> str:
    """`new` in the spelling of `found`.

    >>> _spelled_like("CHU", "DaLi"), _spelled_like("Chu", "dali"), _spelled_like("cHU", "DaLi")
    ('DALI', 'Dali', 'DaLi')
    """
    if found.islower():
        return new.lower()
    if found[:1].isupper() and not any(c.isupper() for c in found[1:]):
        return new[:1].upper() + new[1:]
    return new.upper() if found.isupper() else new
