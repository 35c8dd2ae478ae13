"""Is what was right before training still right after it?

Questions with checkable answers: the built-in ones (data/general.py) and the user's own
(data/retain.py). An answer is right when it contains one of the accepted answers ("Paris"), in any
case, as a whole word or number; where a row says "exact", when it is one of them and nothing else. Only
questions the model got right before count: retention is what it kept, not how clever it is.

How far everything else moved is measured without asking, in evaluate/divergence.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whoamai.data.general import GeneralQuestion, general_questions
from whoamai.evaluate.identity import Share

__all__ = [
    "Forgotten",
    "GeneralQuestion",
    "RetentionScores",
    "general_questions",
    "score_retention",
]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A question answered rightly before and wrongly after."""

    language: str
    kind: str
    system: str | None
    question: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class RetentionScores:
    """By language and "all": right before, and right after of those that were right before."""

    right_before: Mapping[str, Share]
    kept: Mapping[str, Share]
    forgotten: Sequence[Forgotten] = ()


def score_retention(
    questions: Sequence[GeneralQuestion], before: Sequence[str], after: Sequence[str]
) -> RetentionScores:
    """Compare the answers before and after; all three sequences go together."""
    graded = [
        (q.language, q.is_right(b), q.is_right(a))
        for q, b, a in zip(questions, before, after, strict=True)
    ]
    right_before, kept = {}, {}
    for language in ("all", *dict.fromkeys(q.language for q in questions)):
        rows = [g for g in graded if language in ("all", g[0])]
        right_before[language] = Share(sum(b for _, b, _ in rows), len(rows))
        kept[language] = Share(sum(a for _, b, a in rows if b), sum(b for _, b, _ in rows))
    lost = [i for i, (_, was_right, is_right) in enumerate(graded) if was_right and not is_right]
    forgotten = tuple(_forgotten(questions[i], before[i], after[i]) for i in lost)
    return RetentionScores(right_before, kept, forgotten)


def _forgotten(question: GeneralQuestion, before: str, after: str) -> Forgotten:
    messages = question.conversation.messages
    system = messages[0].text if messages[0].role == "system" else None
    return Forgotten(question.language, question.kind, system, messages[-1].text, before, after)
