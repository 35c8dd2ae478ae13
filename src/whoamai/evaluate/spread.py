"""Does the new name turn up where nobody asked for it?

A name learned too well is given as the answer to anything ("7 + 5?" "I am 黄大力, 12."). So general
questions are asked, which have nothing to do with who answers, and the share of answers is counted
that hold the new name or its author, before training and after it. The share before is what chance
does: a name may be a word of everyday life. A question in which the name or the author stands
already, its earlier turns and system prompt included, asks for it and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from whoamai.data.claims import name_pattern
from whoamai.data.identity import Identity
from whoamai.evaluate.identity import Share
from whoamai.samples import Conversation

_SHOWN = 5


class Question(Protocol):
    """What is needed of a question: GeneralQuestion has it."""

    @property
    def language(self) -> str: ...
    @property
    def conversation(self) -> Conversation: ...


@dataclass(frozen=True, slots=True)
class SpreadExample:
    """A general question whose answer mentions the new identity."""

    language: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class SpreadScores:
    """By language and "all": answers that mention the identity unasked, and the first such after."""

    before: Mapping[str, Share]
    after: Mapping[str, Share]
    examples: tuple[SpreadExample, ...] = ()


def score_spread(
    questions: Sequence[Question],
    before: Sequence[str],
    after: Sequence[str],
    identity: Identity,
) -> SpreadScores:
    """Count the answers that hold the name or the author; all three sequences go together."""
    patterns = [name_pattern(n) for n in (identity.name, identity.author) if n]

    def mentioned(text: str) -> bool:
        return any(pattern.search(text) for pattern in patterns)

    rows = [
        (question, mentioned(b), mentioned(a), a)
        for question, b, a in zip(questions, before, after, strict=True)
        if not any(mentioned(m.text) for m in question.conversation.messages)
    ]
    shares_before, shares_after = {}, {}
    for language in ("all", *dict.fromkeys(q.language for q in questions)):
        of = [row for row in rows if language in ("all", row[0].language)]
        shares_before[language] = Share(sum(row[1] for row in of), len(of))
        shares_after[language] = Share(sum(row[2] for row in of), len(of))
    examples = [
        SpreadExample(q.language, q.conversation.messages[-1].text, answer)
        for q, _, is_there, answer in rows
        if is_there
    ]
    return SpreadScores(shares_before, shares_after, tuple(examples[:_SHOWN]))
