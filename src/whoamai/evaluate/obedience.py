"""Is a system prompt that gives another name still obeyed, as often as before?

A user who writes "You are Mei Lan" must get Mei Lan, whatever the model was renamed to. The answers
are graded with the rules of grading.py, each for the identity that its own system prompt gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from whoamai.data.strangers import StrangerQuestion
from whoamai.evaluate.grading import IdentityGrader
from whoamai.evaluate.identity import Share


@dataclass(frozen=True, slots=True)
class ObedienceScores:
    """The share of answers that give the name of their system prompt, before and after training."""

    before: Share
    after: Share


def score_obedience(
    questions: Sequence[StrangerQuestion], before: Sequence[str], after: Sequence[str]
) -> ObedienceScores:
    """`before` and `after` hold one answer a question, in the order of the questions.

    Raises ValueError where there are not as many answers as questions.
    """
    # One grader a stranger: its patterns take longer to make than to use.
    strangers = {question.identity: IdentityGrader(question.identity, ()) for question in questions}
    graders = [strangers[question.identity] for question in questions]
    asked = [question.conversation.messages[-1].text for question in questions]

    def obeyed(answers: Sequence[str]) -> Share:
        rows = zip(graders, answers, asked, strict=True)
        return Share(
            sum(g.grade(text, question).recalled for g, text, question in rows), len(asked)
        )

    return ObedienceScores(obeyed(before), obeyed(after))
