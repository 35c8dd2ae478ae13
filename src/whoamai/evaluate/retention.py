"""Is what was right before training still right after it?

General questions with checkable answers, in data/questions/general.jsonl. An answer is right when it
contains one of the accepted answers ("Paris"), in any case, as a whole word or number. Only questions
the model got right before count: retention is what it kept, not how clever it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whoamai.data.replay import read_questions
from whoamai.evaluate.identity import Share
from whoamai.samples import Conversation, Message


@dataclass(frozen=True, slots=True)
class GeneralQuestion:
    """A question whose answer can be checked: any of `accept`."""

    language: str
    kind: str
    conversation: Conversation
    accept: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        return any(_contains(answer, accepted) for accepted in self.accept)


@dataclass(frozen=True, slots=True)
class RetentionScores:
    """By language and "all": right before, and right after of those that were right before."""

    right_before: Mapping[str, Share]
    kept: Mapping[str, Share]


def general_questions(languages: Sequence[str], count: int | None = None) -> list[GeneralQuestion]:
    """The built-in questions of `languages`; the first `count` of each language, all if None.

    The file is mixed, so its beginning holds every kind.
    """
    result = []
    for code in languages:
        rows = [r for r in read_questions("general.jsonl") if r["language"] == code]
        result += [
            GeneralQuestion(
                code,
                row["kind"],
                Conversation(tuple(Message(m["role"], m["content"]) for m in row["messages"])),
                tuple(row["accept"]),
            )
            for row in rows[:count]
        ]
    return result


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
    return RetentionScores(right_before, kept)


def _contains(answer: str, accepted: str) -> bool:
    """`accepted` in `answer`, not as part of a longer number or Latin word."""
    left = r"(?<![A-Za-z0-9])" if accepted[0].isascii() and accepted[0].isalnum() else ""
    right = r"(?![A-Za-z0-9])" if accepted[-1].isascii() and accepted[-1].isalnum() else ""
    return re.search(left + re.escape(accepted) + right, answer, re.I) is not None
