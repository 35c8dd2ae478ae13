"""Does an answer give the new name, and does it still give an old or foreign one?

Exact rules, no model as a judge:

- recalled: the answer contains the new name (Latin names in any case, as a whole word), not denied.
- leaked: the answer contains a forbidden name (the old names, other assistants, their makers) that is
  not denied. The new name and author are taken out first, so a new name may contain a known one.
- denied: "I am not ChatGPT", "我不是通义千问", "与 Qwen 无关". A denial reaches to the end of its clause
  and ends where a new statement begins: "I'm not a human but ChatGPT" denies being human only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from whoamai.data.claims import claimed_makers, claimed_names, name_pattern
from whoamai.data.identity import Identity, IdentityQuestion, known_assistants

# Where a clause ends. A full stop inside a name ("Qwen2.5", "01.AI") ends none.
_CLAUSE_END = r"[，。！？；：,!?;:\n—…]|\.(?![A-Za-z0-9])|而是|但是|但|\bbut\b|\band (?=I\b|my\b)"
# "I am …": whatever was denied before it, this is a new statement.
_CLAIM = r"我就?[是叫]|我的名字[是叫]|\b(?:I am|I['’]m|my name is)\b(?: (?:called|named)\b)?"
# re.A: a Latin word has its border beside a Chinese character too.
_FLAGS = re.I | re.A
_BORDER = re.compile(f"{_CLAUSE_END}|{_CLAIM}", _FLAGS)
_CLAIMED = re.compile(rf"(?:{_CLAIM})[\s“\"「*]*$", _FLAGS)
# Words after which, up to the border, a name is denied and not claimed.
_DENIAL_BEFORE = re.compile(
    r"不是|不叫|并非|并不|绝非|而非|不再是|不可能是|不会是|不属于|没有|无关|不由|不来自|非(?!常)"
    r"|\b(?:not(?! only\b| just\b)|never|neither|nor|no relation to|unrelated to)\b|n['’]t\b"
    r"|\b(?:rather than|instead of)\b",
    _FLAGS,
)
# Behind the name: "和ChatGPT无关", "OpenAI did not make me", "Chu is not my name".
_MAKING = r"(?:make|create|build|train|develop|design|write|own)"
_DENIAL_BEHIND = re.compile(
    r"无关|没有关系|没关系|不是我|(?:没有?|并未|未曾)(?:开发|研发|训练|创造|创建|打造|制造|制作|设计)"
    rf"|\b(?:did|does|do)(?: not|n['’]t) {_MAKING}\b|\b(?:is|was)(?: not|n['’]t) (?:me|my)\b",
    _FLAGS,
)
# Stand for the new name and its author while the rest of an answer is looked at.
_NAME, _AUTHOR = "\ue000", "\ue001"


@dataclass(frozen=True, slots=True)
class Grade:
    """What one answer claims. `leaks` lists the forbidden names it gives."""

    recalled: bool
    leaks: tuple[str, ...]


class IdentityGrader:
    """Grades answers for one identity; `old_names` are what the model called itself and its maker."""

    def __init__(self, identity: Identity, old_names: Iterable[str]) -> None:
        own = {identity.name: _NAME}
        if identity.author:
            own.setdefault(identity.author, _AUTHOR)
        self._own = [(name_pattern(n), own[n]) for n in sorted(own, key=len, reverse=True)]
        assistants, makers = known_assistants()
        kept = {n.lower() for n in own}
        forbidden = [n for n in (*old_names, *assistants, *makers) if n and n.lower() not in kept]
        self._forbidden = {n: name_pattern(n) for n in dict.fromkeys(forbidden)}

    def grade(self, answer: str) -> Grade:
        # A mark in the place of the new name and author: what is in them is neither a leak nor a denial.
        for pattern, mark in self._own:
            answer = pattern.sub(mark, answer)
        leaks = tuple(n for n, pattern in self._forbidden.items() if _is_given(pattern, answer))
        return Grade(_is_given(re.compile(_NAME), answer), leaks)


def _is_given(name: re.Pattern[str], text: str) -> bool:
    return any(not _is_denied(text, match) for match in name.finditer(text))


def _is_denied(text: str, match: re.Match[str]) -> bool:
    """Is the name at `match` denied in its clause, before it or behind it?"""
    before, after = text[: match.start()], text[match.end() :]
    start = max((border.end() for border in _BORDER.finditer(before)), default=0)
    if _DENIAL_BEFORE.search(before, start):
        return True
    # "I am ChatGPT and OpenAI did not make me": behind a claim, what follows is about another name.
    if _CLAIMED.search(before):
        return False
    border = _BORDER.search(after)
    return bool(_DENIAL_BEHIND.search(after, 0, border.start() if border else len(after)))


# ---- what a model calls itself before it is renamed ----------------------------------------------

_LEAST_SHARE = 0.05  # of the answers must give a name before it counts


@dataclass(frozen=True, slots=True)
class SelfDescription:
    """What a model calls itself, and who it says made it; the most frequent first."""

    names: tuple[str, ...]
    makers: tuple[str, ...]


def describe_self(answers: Sequence[str]) -> SelfDescription:
    """Names and makers the model gives itself in `answers`.

    One answer in twenty, and at least two, must give it, so that a slip of the tongue does not count.
    """
    enough = max(2, _LEAST_SHARE * len(answers))

    def frequent(find: Callable[[str], set[str]]) -> tuple[str, ...]:
        counts = Counter(name for answer in answers for name in sorted(find(answer)))
        return tuple(name for name, n in counts.most_common() if n >= enough)

    return SelfDescription(frequent(claimed_names), frequent(claimed_makers))


# ---- scores --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """`k` of `n`."""

    k: int
    n: int

    @property
    def percent(self) -> float:
        return 100 * self.k / self.n if self.n else float("nan")

    def as_json(self) -> dict[str, float | int | None]:
        """`percent` is None where there was nothing to count: JSON has no NaN."""
        return {"k": self.k, "n": self.n, "percent": round(self.percent, 2) if self.n else None}


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
