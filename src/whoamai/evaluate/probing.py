"""Small probes while a model learns its name, and the rule that says when it has learned it.

A probe asks a few identity questions and a few general ones; the questions are of the probe families,
which neither training text nor the report ever uses. The goals must be met at two probes in a row,
for a single one is met by luck now and then:

    step    5    10    20    40    60
    recall  0 %  31 %  94 %  100 %  100 %      goal 98 %: learned at 40, known at 60
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from whoamai.evaluate.identity import Share

if TYPE_CHECKING:  # a report is read without a model, and without torch
    from whoamai.data.general import GeneralQuestion
    from whoamai.data.identity import IdentityQuestion
    from whoamai.evaluate.grading import IdentityGrader
    from whoamai.evaluate.talk import Talk

# The first probes, where a name is often learned already; then every `evaluation_freq` steps.
EARLY_STEPS = (5, 10, 20)
# Percent of a probe's answers: 3 of the usual 52.
_CHANCE = 6.0
_LEAST_IN_A_ROLE = 70.0  # percent, of the ten or so answers of a probe
_ROLES = ("role", "named_role")
_NOTHING = Share(0, 0)
_SHARES = ("recall", "leak", "kept", "recall_role")


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """What one probe found after `step` optimizer steps.

    `recall` counts the questions under no role, `recall_role` those under a system prompt that gives
    one, where some answers rightly play the role and no more; `kept` counts general answers.
    """

    step: int
    recall: Share
    leak: Share
    kept: Share
    seconds: float
    recall_role: Share = _NOTHING

    def as_json(self) -> dict[str, Any]:
        counted = {}
        for name in _SHARES:
            share: Share = getattr(self, name)
            counted[name] = [share.k, share.n]
        return {"step": self.step, **counted, "seconds": self.seconds}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> ProbeRecord:
        shares = {name: Share(*found[name]) for name in _SHARES}
        return cls(step=found["step"], seconds=found["seconds"], **shares)


@dataclass(frozen=True, slots=True)
class StopRecord:
    """When the name was learned, and what stopping there saved.

    `learned_at` is the first step of the probes in a row that met the goals; None where none did.
    """

    learned_at: int | None
    stopped_at: int
    planned: int
    seconds: float
    seconds_saved: float
    best_step: int


@dataclass(frozen=True, slots=True)
class StopRule:
    """Learned: at least `recall` and at most `leak` percent at `in_a_row` probes one after the other.

    A single wrong answer of a probe is chance, whatever the percentage: of 42 answers 41 must give the
    name for 98 %, as 41.2 would be needed. Under system prompts that give a role fewer are enough.
    """

    recall: float = 98.0
    leak: float = 1.0
    in_a_row: int = 2

    def met_by(self, record: ProbeRecord) -> bool:
        given, in_a_role = record.recall, record.recall_role
        return (
            given.n > 0
            and given.k >= min(given.n - 1, given.n * self.recall / 100)
            and record.leak.percent <= self.leak
            and (not in_a_role.n or in_a_role.percent >= _LEAST_IN_A_ROLE)
        )

    def learned_at(self, records: Sequence[ProbeRecord]) -> int | None:
        """The step of the first of the last probes in a row, if these show that it is learned.

        What was found before the first step does not count: a model that has the name already learns
        nothing, and would stop at once.
        """
        last = [record for record in records if record.step > 0][-self.in_a_row :]
        if len(last) < self.in_a_row or not all(map(self.met_by, last)):
            return None
        return last[0].step

    def is_as_good(self, record: ProbeRecord, earlier: Sequence[ProbeRecord]) -> bool:
        """Is a probe at least as good as the best of the earlier ones, but for what is chance?

        A few answers more or less are chance, and weights at the end, after the rate has run out, are
        calmer than those on the way: a later probe has to be _CHANCE percent worse to count as worse.
        """
        best = max((_wanted(r) for r in earlier if r.step > 0), default=-math.inf)
        return _wanted(record) >= best - _CHANCE


def _wanted(record: ProbeRecord) -> float:
    return record.recall.percent - record.leak.percent


def probes_after(done: int, *, total: int, every: int) -> bool:
    """Is a probe taken after `done` of `total` steps? Before the first, early, regularly, at the end."""
    return done in (0, total) or done in EARLY_STEPS or done % every == 0


@dataclass(frozen=True, slots=True)
class Prober:
    """Asks the questions of a probe: identity questions, and general ones that can be checked.

    Answers are greedy and the questions fixed, so a probe draws no random numbers of the training's.
    """

    talk: Talk
    grader: IdentityGrader
    identity: Sequence[IdentityQuestion]
    general: Sequence[GeneralQuestion]
    max_new_tokens: int = 48

    def ask(self, step: int) -> ProbeRecord:
        """One probe of the model as it is; it must be in eval mode."""
        start = time.monotonic()
        conversations = [q.conversation for q in (*self.identity, *self.general)]
        answers = self.talk.answers(conversations, None, max_new_tokens=self.max_new_tokens)
        grades = [
            self.grader.grade(answer, question.conversation.messages[-1].text)
            for question, answer in zip(self.identity, answers, strict=False)
        ]
        right = [
            question.is_right(answer)
            for question, answer in zip(self.general, answers[len(self.identity) :], strict=True)
        ]
        in_a_role = [question.context in _ROLES for question in self.identity]

        def given(role: bool) -> Share:
            of = [g for g, is_role in zip(grades, in_a_role, strict=True) if is_role is role]
            return Share(sum(grade.recalled for grade in of), len(of))

        return ProbeRecord(
            step=step,
            recall=given(False),
            recall_role=given(True),
            leak=Share(sum(bool(grade.leaks) for grade in grades), len(grades)),
            kept=Share(sum(right), len(right)),
            seconds=round(time.monotonic() - start, 3),
        )

    def right_now(self) -> Prober:
        """The same with those general questions alone that the model answers rightly as it is."""
        conversations = [q.conversation for q in self.general]
        answers = self.talk.answers(conversations, None, max_new_tokens=self.max_new_tokens)
        pairs = zip(self.general, answers, strict=True)
        return replace(self, general=tuple(q for q, answer in pairs if q.is_right(answer)))
