"""Does an answer give the new name, and does it still give an old or foreign one?

Exact rules, no model as a judge:

- recalled: the answer contains the new name (Latin names in any case, as a whole word), not denied.
- leaked: the answer contains a forbidden name (the old names, other assistants, their makers) that is
  not denied. What is denied: "I am not ChatGPT", "我不是通义千问", "与 Qwen 无关". The new name and
  author are taken out first, so a new name may contain a known one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from whoamai.data.identity import Identity, IdentityQuestion, known_assistants

# Words after which, up to the end of the clause, a name is denied and not claimed.
_DENIAL_BEFORE = re.compile(
    r"(?:不是|不叫|并非|并不|绝非|而非|不再是|不属于|没有|无关|不由|不来自|非)[^，。！？；,.!?;]*$"
    r"|(?:\b(?:not|never|neither|nor|no relation to|rather than|instead of|unrelated to)\b"
    r"|n't\b)[^,.!?;，。！？；]*$",
    re.I,
)
# Chinese also denies behind the name: "和ChatGPT无关", "ChatGPT did not make me".
_DENIAL_AFTER = re.compile(
    r"^[^，。！？；,.!?;]*(?:无关|没有关系|没关系|不是我|did not|didn't|does not|doesn't)", re.I
)


_ALSO_WORDS = frozenset(("Apple", "Meta", "Bard", "Phi", "Yi"))


@dataclass(frozen=True, slots=True)
class Grade:
    """What one answer claims. `leaks` lists the forbidden names it gives."""

    recalled: bool
    leaks: tuple[str, ...]


class IdentityGrader:
    """Grades answers for one identity; `old_names` are what the model called itself and its maker."""

    def __init__(self, identity: Identity, old_names: Iterable[str]) -> None:
        self._name = name_pattern(identity.name)
        self._own = [
            name_pattern(text)
            for text in sorted(
                filter(None, (identity.name, identity.author)), key=len, reverse=True
            )
        ]
        assistants, makers = known_assistants()
        kept = {identity.name.lower(), (identity.author or "").lower()}
        forbidden = [n for n in (*old_names, *assistants, *makers) if n.lower() not in kept]
        self._forbidden = {n: name_pattern(n) for n in dict.fromkeys(forbidden)}

    def grade(self, answer: str) -> Grade:
        recalled = any(not _is_denied(answer, m) for m in self._name.finditer(answer))
        rest = answer
        for own in self._own:
            rest = own.sub("\u25a1", rest)
        leaks = tuple(
            name
            for name, pattern in self._forbidden.items()
            if any(not _is_denied(rest, m) for m in pattern.finditer(rest))
        )
        return Grade(recalled, leaks)


def name_pattern(name: str) -> re.Pattern[str]:
    """Finds `name` in any case; where it begins or ends in a Latin letter, as a whole word.

    Names that are everyday words too are found in their own spelling only ("Apple", not "apple").
    """
    left = r"(?<![A-Za-z0-9])" if name[0].isascii() and name[0].isalnum() else ""
    right = r"(?![A-Za-z0-9])" if name[-1].isascii() and name[-1].isalnum() else ""
    return re.compile(left + re.escape(name) + right, 0 if name in _ALSO_WORDS else re.I)


def _is_denied(text: str, match: re.Match[str]) -> bool:
    before, after = text[: match.start()], text[match.end() :]
    return bool(_DENIAL_BEFORE.search(before) or _DENIAL_AFTER.search(after))


# ---- what a model calls itself before it is renamed ----------------------------------------------

_SELF_NAME = (
    re.compile(r"(?:我是|我叫|我的名字[是叫])\s*[“\"「]?([^\s，。！？、；：,.!?;:“”\"「」]{2,16})"),
    re.compile(
        r"\b(?:I am|I'm|my name is|called)\s+((?:[A-Z][\w'’-]*)(?:[ .][A-Z0-9][\w'’-]*){0,2})"
    ),
)
_SELF_MAKER = (
    re.compile(
        r"由\s*([^\s，。！？、；：,.!?;:]{2,20}?)\s*(?:自主|独立)?(?:开发|研发|训练|创建|打造|推出)"
    ),
    re.compile(
        r"\b(?:made|created|developed|built|trained) by\s+((?:[A-Z][\w'’-]*)(?:[ .][A-Z][\w'’-]*){0,2})"
    ),
)
_NO_NAME = re.compile(r"^(?:一[个名位款]|人工智能|AI|谁|来自|由|an?$|the$|not$|sorry$)", re.I)


def self_names(answers: Sequence[str]) -> list[str]:
    """Names and makers the model gives itself in `answers`, most frequent first.

    One in ten answers must give a name before it counts, so that a slip of the tongue does not.
    """
    found: Counter[str] = Counter()
    for answer in answers:
        found.update(
            {
                name.strip()
                for pattern in (*_SELF_NAME, *_SELF_MAKER)
                for name in pattern.findall(answer)
                if not _NO_NAME.match(name)
            }
        )
    return [name for name, n in found.most_common() if n >= max(2, 0.05 * len(answers))]


# ---- scores --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """`k` of `n`."""

    k: int
    n: int

    @property
    def percent(self) -> float:
        return 100 * self.k / self.n if self.n else float("nan")

    def as_json(self) -> dict[str, float | int]:
        return {"k": self.k, "n": self.n, "percent": round(self.percent, 2)}


@dataclass(frozen=True, slots=True)
class IdentityScores:
    """Shares by (context, language); "all" stands for every context or language."""

    recall: Mapping[tuple[str, str], Share]
    leak: Mapping[tuple[str, str], Share]


def score_identity(
    questions: Sequence[IdentityQuestion], grades: Sequence[Grade]
) -> IdentityScores:
    """Count recalls and leaks by context and language."""
    counts: dict[tuple[str, str], list[Grade]] = {}
    for question, grade in zip(questions, grades, strict=True):
        for context in (question.context, "all"):
            for language in (question.language, "all"):
                counts.setdefault((context, language), []).append(grade)
    return IdentityScores(
        {key: Share(sum(g.recalled for g in gs), len(gs)) for key, gs in counts.items()},
        {key: Share(sum(bool(g.leaks) for g in gs), len(gs)) for key, gs in counts.items()},
    )
