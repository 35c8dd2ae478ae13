"""Rename inside data: find the name a data set gives the model, put the new one in its place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from whoamai.data.claims import claimed_names
from whoamai.samples import Conversation

_PLACEHOLDER = re.compile(r"\{\{\s*(name|author)\s*\}\}", re.I)
_LEAST_SHARE = 0.05  # of the replies must claim a name before it is taken for the data's own


@dataclass(frozen=True, slots=True)
class Replaced:
    """The renamed conversations; how often each old name was replaced."""

    conversations: list[Conversation]
    counts: dict[str, int]


def find_names(conversations: Sequence[Conversation], other_than: str) -> list[str]:
    """Names the replies give the model, most frequent first; empty if the data names nobody.

    A name must be claimed in at least one reply in twenty, so that a story told in the first person
    is not taken for the model's name.
    """
    replies = [m.text for c in conversations for m in c.messages if m.role == "assistant"]
    claimed = Counter(name for reply in replies for name in claimed_names(reply))
    enough = max(2, _LEAST_SHARE * len(replies))
    return [name for name, n in claimed.most_common() if n >= enough and name != other_than]


def placeholders_in(texts: Iterable[str]) -> set[str]:
    """Which of "{{name}}" and "{{author}}" occur in the texts, however they are spelled there."""
    return {_spelled(found) for text in texts for found in _PLACEHOLDER.findall(text)}


def _spelled(found: str) -> str:
    return "{{" + found.lower() + "}}"


def replace_names(
    conversations: Sequence[Conversation], old_to_new: dict[str, str], placeholders: dict[str, str]
) -> Replaced:
    """Every occurrence of each old name, and {{name}} / {{author}} placeholders, in one pass.

    Longer names are looked for first; what was put in is not searched again, so a new name may contain
    the old one. Latin names are replaced as whole words.
    """
    names = sorted(old_to_new, key=len, reverse=True)
    # Names in their own spelling, placeholders in any.
    pattern = re.compile("|".join([*map(_whole, names), f"(?i:{_PLACEHOLDER.pattern})"]))
    counts: Counter[str] = Counter()

    def new(match: re.Match[str]) -> str:
        found = match[0]
        if found in old_to_new:
            counts[found] += 1
            return old_to_new[found]
        value = placeholders.get(match[1].lower())
        if value is None:
            return found
        counts[_spelled(match[1])] += 1
        return value

    renamed = [
        replace(c, messages=tuple(replace(m, text=pattern.sub(new, m.text)) for m in c.messages))
        for c in conversations
    ]
    return Replaced(renamed, dict(counts))


def _whole(name: str) -> str:
    """The name, with word borders where it begins or ends in an ASCII letter or digit."""
    left = r"(?<![A-Za-z0-9])" if name[0].isascii() and name[0].isalnum() else ""
    right = r"(?![A-Za-z0-9])" if name[-1].isascii() and name[-1].isalnum() else ""
    return left + re.escape(name) + right
