"""What a model is asked before and after: who it is, what it knows, whom it obeys.

`rename` and `check` ask the same and count the same. Nothing of it is ever trained on; what decides when
training may stop (recipes/rename_learning.py) is asked apart and never counted here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from whoamai.data.general import GeneralQuestion, general_questions, under_long_systems
from whoamai.data.identity import Identity, IdentityQuestion, questions
from whoamai.data.strangers import StrangerQuestion, stranger_questions
from whoamai.evaluate.grading import Grade, IdentityGrader
from whoamai.evaluate.identity import IdentityScores, score_identity
from whoamai.evaluate.obedience import ObedienceScores, score_obedience
from whoamai.evaluate.report import AnswerPair, Report, answer_pairs
from whoamai.evaluate.retention import RetentionScores, score_retention
from whoamai.evaluate.spread import SpreadScores, score_spread
from whoamai.evaluate.talk import Talk
from whoamai.samples import Conversation

# General questions of each language that are kept for the probes while it learns.
PROBE_GENERAL = 12
# General questions of each language asked once more, under system prompts of 500 to 1,000 tokens.
_LONG = 6
_SAMPLE_TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True)
class Exam:
    """All questions, in the order in which they are asked."""

    identity: tuple[IdentityQuestion, ...]
    general: tuple[GeneralQuestion, ...]
    long: tuple[GeneralQuestion, ...]
    strangers: tuple[StrangerQuestion, ...]

    @property
    def conversations(self) -> list[Conversation]:
        return [
            q.conversation for q in (*self.identity, *self.general, *self.long, *self.strangers)
        ]


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to an exam, each kind in the order of its questions."""

    identity: tuple[str, ...]
    general: tuple[str, ...]
    long: tuple[str, ...]
    strangers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExamScores:
    """What the answers come to. All but `after` need answers from before."""

    after: IdentityScores
    before: IdentityScores | None = None
    retention: RetentionScores | None = None
    retention_long: RetentionScores | None = None
    spread: SpreadScores | None = None
    obedience: ObedienceScores | None = None
    answers: Sequence[AnswerPair] = field(default_factory=tuple)


def make_exam(
    identity: Identity,
    *,
    languages: Sequence[str],
    seed: int,
    old_names: Sequence[str],
    default_system: str | None = None,
    data_systems: Sequence[str] = (),
    own: Sequence[IdentityQuestion] = (),
    own_general: Sequence[GeneralQuestion] = (),
) -> Exam:
    """The built-in questions, and the user's own behind them."""
    asked = questions(
        identity,
        "test",
        languages=languages,
        seed=seed,
        old_names=old_names,
        default_system=default_system,
        extra_systems=data_systems,
    )
    general = [q for code in languages for q in general_questions([code])[:-PROBE_GENERAL]]
    return Exam(
        identity=(*asked, *own),
        general=(*general, *own_general),
        long=tuple(under_long_systems(general, languages, _LONG)),
        strangers=tuple(stranger_questions(languages, seed)),
    )


def probe_general(languages: Sequence[str]) -> list[GeneralQuestion]:
    """The general questions of the probes: the last of each language, which no exam holds."""
    return [q for code in languages for q in general_questions([code])[-PROBE_GENERAL:]]


def take(talk: Talk, exam: Exam, stage: str) -> Answers:
    """Ask everything, greedily, as one piece of work."""
    return _apart(exam, talk.answers(exam.conversations, stage))


def _apart(exam: Exam, answers: Sequence[str]) -> Answers:
    rest, parts = iter(answers), []
    for asked in (exam.identity, exam.general, exam.long, exam.strangers):
        parts.append(tuple(next(rest) for _ in asked))
    return Answers(*parts)


def score(
    exam: Exam,
    before: Answers | None,
    after: Answers,
    identity: Identity,
    old_names: Sequence[str],
) -> ExamScores:
    """Grade and count; without `before` only who it says it is now."""
    grader = IdentityGrader(identity, old_names)
    grades = grade_answers(grader, exam.identity, after.identity)
    now = score_identity(exam.identity, grades)
    earlier = before.identity if before else None
    answers = answer_pairs(exam.identity, earlier, after.identity, grades)
    if before is None:
        return ExamScores(now, answers=answers)
    return ExamScores(
        after=now,
        before=score_identity(exam.identity, grade_answers(grader, exam.identity, before.identity)),
        retention=score_retention(exam.general, before.general, after.general),
        retention_long=score_retention(exam.long, before.long, after.long),
        spread=score_spread(exam.general, before.general, after.general, identity),
        obedience=score_obedience(exam.strangers, before.strangers, after.strangers),
        answers=answers,
    )


def sample(
    talk: Talk, exam: Exam, grader: IdentityGrader, samples: int, *, seed: int
) -> IdentityScores | None:
    """The identity questions with nothing before them, each answered `samples` times by chance, as chat
    programs do; None for 0 samples."""
    if not samples:
        return None
    asked = [q for q in exam.identity if q.context == "none"]
    answers = talk.answers(
        [q.conversation for q in asked],
        None,
        temperature=_SAMPLE_TEMPERATURE,
        seed=seed,
        samples=samples,
    )
    repeated = [q for q in asked for _ in range(samples)]
    return score_identity(repeated, grade_answers(grader, repeated, answers))


def grade_answers(
    grader: IdentityGrader, questions: Sequence[IdentityQuestion], answers: Sequence[str]
) -> list[Grade]:
    """Each answer read with its question; one answer a question, or ValueError."""
    return [
        grader.grade(answer, question.conversation.messages[-1].text)
        for question, answer in zip(questions, answers, strict=True)
    ]


def report_of(scores: ExamScores, **others: Any) -> Report:
    """The report of what was counted; `others` are the fields that come from elsewhere."""
    return Report(
        before=scores.before,
        after=scores.after,
        retention=scores.retention,
        retention_long=scores.retention_long,
        spread=scores.spread,
        obedience=scores.obedience,
        answers=scores.answers,
        **others,
    )


# ---- kept between two sittings -------------------------------------------------------------------


def answers_as_json(answers: Answers) -> dict[str, list[str]]:
    kinds = ("identity", "general", "long", "strangers")
    return {kind: list(getattr(answers, kind)) for kind in kinds}


def answers_from_json(found: Mapping[str, Any]) -> Answers:
    return Answers(**{kind: tuple(answers) for kind, answers in found.items()})
