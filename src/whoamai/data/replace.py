"""Rename inside data: find the name a data set gives the model, put the new one in its place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from whoamai.samples import Conversation

# What a reply says of itself. The name ends at a mark, or where a description begins.
_CLAIMS = (
    re.compile(r"(?:我是|我叫|我的名字[是叫])[“\"「]?([^\s，。！？、；：,.!?;:“”\"「」]{1,24})"),
    re.compile(r"\b(?:I am|I'm|my name is)\s+((?:[A-Z][\w'’.-]*)(?:\s+[A-Z][\w'’.-]*){0,3})"),
)
# "尖米的智能助手": the part before 的 is the name, the rest says what it is.
_DESCRIPTION = re.compile(
    r"(?:的|这个|这款)?(?:专属|智能|人工智能|AI|小)*(?:助手|助理|机器人|模型|assistant)$", re.I
)
_PLACEHOLDER = r"\{\{\s*(name|author|NAME|AUTHOR)\s*\}\}"
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
    claimed: Counter[str] = Counter()
    for reply in replies:
        found = {_DESCRIPTION.sub("", name) for claim in _CLAIMS for name in claim.findall(reply)}
        claimed.update(n for n in found if len(n) > 1 and n not in ("AI", other_than))
    enough = max(2, _LEAST_SHARE * len(replies))
    return [name for name, n in claimed.most_common() if n >= enough and _is_name(name, replies)]


def _is_name(name: str, replies: Sequence[str]) -> bool:
    """Words that only describe ("一个", "一名", "您") are no names."""
    return not re.match(r"(?:一[个名位款只台]|您|你|谁|来|专|an?\b|the\b|not\b|sure\b)", name, re.I)


def replace_names(
    conversations: Sequence[Conversation], old_to_new: dict[str, str], placeholders: dict[str, str]
) -> Replaced:
    """Every occurrence of each old name, and {{name}} / {{author}} placeholders, in one pass.

    Longer names are looked for first; what was put in is not searched again, so a new name may contain
    the old one. Latin names are replaced as whole words.
    """
    names = sorted(old_to_new, key=len, reverse=True)
    pattern = re.compile("|".join([*map(_whole, names), _PLACEHOLDER]))
    counts: Counter[str] = Counter()

    def new(match: re.Match[str]) -> str:
        found = match[0]
        if found in old_to_new:
            counts[found] += 1
            return old_to_new[found]
        value = placeholders.get(match[1].lower())
        if value is None:
            return found
        counts["{{" + match[1].lower() + "}}"] += 1
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
