"""Is what was right before training still right after it?

General questions with checkable answers, in data/questions/general.jsonl. An answer is right when it
contains one of the accepted answers ("Paris"), in any case, as a whole word or number; where a row
says "exact", when it is one of them and nothing else. Only questions the model got right before count:
retention is what it kept, not how clever it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from whoamai.data.identity import check_languages
from whoamai.data.replay import read_questions
from whoamai.evaluate.identity import Share
from whoamai.samples import Conversation, Message


@dataclass(frozen=True, slots=True)
class GeneralQuestion:
    """A question whose answer can be checked: any of `accept`, alone where `exact`."""

    language: str
    kind: str
    conversation: Conversation
    accept: tuple[str, ...]
    exact: bool = False

    def is_right(self, answer: str) -> bool:
        if self.exact:
            return answer.strip() in self.accept
        return any(_contains(answer, accepted) for accepted in self.accept)


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


def general_questions(languages: Sequence[str], count: int | None = None) -> list[GeneralQuestion]:
    """The built-in questions of `languages`; the first `count` of each language, all if None.

    The file is mixed, so its beginning holds every kind.
    """
    check_languages(languages)
    result = []
    for code in languages:
        rows = [r for r in read_questions("general.jsonl") if r["language"] == code]
        result += [
            GeneralQuestion(
                code,
                row["kind"],
                Conversation(tuple(Message(m["role"], m["content"]) for m in row["messages"])),
                tuple(row["accept"]),
                row.get("exact", False),
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
    lost = [i for i, (_, was_right, is_right) in enumerate(graded) if was_right and not is_right]
    forgotten = tuple(_forgotten(questions[i], before[i], after[i]) for i in lost)
    return RetentionScores(right_before, kept, forgotten)


def _forgotten(question: GeneralQuestion, before: str, after: str) -> Forgotten:
    messages = question.conversation.messages
    system = messages[0].text if messages[0].role == "system" else None
    return Forgotten(question.language, question.kind, system, messages[-1].text, before, after)


def _contains(answer: str, accepted: str) -> bool:
    """`accepted` in `answer`, not as part of a longer Latin word or of another number."""
    answer, accepted = answer.replace("−", "-"), accepted.replace("−", "-")
    pattern = _left_border(accepted) + re.escape(accepted) + _right_border(accepted)
    return re.search(pattern, answer, re.I) is not None


def _left_border(accepted: str) -> str:
    """7 is not in "17", "3.7" or "-7", but in "5-7"; -7 is not in "5-7"."""
    no_word, no_sign = r"(?<![A-Za-z0-9])", r"(?<!(?<![A-Za-z0-9)])-)"
    if re.match(r"-\d", accepted):
        return r"(?<![A-Za-z0-9)])"
    if re.match(r"[0-9]", accepted):
        return no_word + r"(?<!\d\.)" + no_sign
    return no_word if re.match(r"[A-Za-z]", accepted) else ""


def _right_border(accepted: str) -> str:
    """7 is not in "70" or "7.5", but in "It is 7."."""
    no_word = r"(?![A-Za-z0-9])"
    if re.search(r"[0-9]$", accepted):
        return no_word + r"(?!\.\d)"
    return no_word if re.search(r"[A-Za-z]$", accepted) else ""
