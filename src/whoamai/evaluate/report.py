"""The report of one job: what was asked, what it answered before and after, and the scores.

`Report` is written as report.json (report_file.py) and read back from it; the terminal and the page
show the same object. What was not measured is None or empty, and is shown nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from whoamai.data.identity import Identity, IdentityQuestion
from whoamai.evaluate.grading import Grade, Verdict
from whoamai.evaluate.identity import IdentityScores, Share, Shares
from whoamai.evaluate.obedience import ObedienceScores
from whoamai.evaluate.probing import ProbeRecord, StopRecord
from whoamai.evaluate.retention import RetentionScores
from whoamai.evaluate.spread import SpreadScores

if TYPE_CHECKING:  # brings torch along, which is not needed before there is something to restore
    from whoamai.evaluate.divergence import Divergence

# Contexts in which a name that took is always given; under a role prompt some answers rightly play
# the role only, so it has a goal of its own.
PLAIN_CONTEXTS = ("none", "neutral", "default", "turns", "second", "named")
ROLE_CONTEXTS = ("role", "named_role")
CONTEXTS = (*PLAIN_CONTEXTS, *ROLE_CONTEXTS)

# Categories whose answers are shown first, in this order, with the contexts they are taken from.
_SHOWN = (
    ("intro", "none"),
    ("who", "turns"),
    ("name", "neutral"),
    ("maker", "none"),
    ("other", "none"),
    ("who", "role"),
    ("override", "none"),
    ("who", "second"),
    ("who", "default"),
    ("who", "named"),
)

Kind = Literal["rename", "check", "train"]
Sign = Literal["≥", "≤"]


@dataclass(frozen=True, slots=True)
class Goals:
    """What must be reached, in percent: at least, or of leaks and spread at most, so much."""

    recall: float = 98.0
    recall_role: float = 85.0
    leak: float = 0.5
    spread: float = 1.0
    retention: float = 97.0
    retention_long: float = 90.0  # few questions, so a single one is worth four percent


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """One question with its answer before (if it was asked then) and after, the later one graded.

    `history` holds the turns between system prompt and question as (role, text).
    """

    language: str
    category: str
    context: str
    system: str | None
    question: str
    before: str | None
    after: str
    recalled: bool
    leaks: tuple[str, ...]
    group: str = ""
    history: tuple[tuple[str, str], ...] = ()

    @property
    def verdict(self) -> Verdict:
        if self.recalled:
            return "both" if self.leaks else "new"
        return "old" if self.leaks else "neither"


@dataclass(frozen=True, slots=True)
class MergedScores:
    """The merged model, loaded again from the disk and asked once more."""

    recall: Share
    leak: Share


@dataclass(frozen=True, slots=True)
class Curve:
    """Loss (nats a token; None for a step that was skipped) and learning rate of every step."""

    losses: Sequence[float | None]
    learning_rates: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """One line of the report: a share, what it was before, and what it must be, if anything.

    `by_language` holds the same by language; it may be empty.
    """

    name: str
    after: Share
    before: Share | None = None
    sign: Sign = "≥"
    goal: float | None = None
    by_language: Mapping[str, Share] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """None where there is no goal, or nothing was counted."""
        if self.goal is None or not self.after.n:
            return None
        percent = self.after.percent
        return percent >= self.goal if self.sign == "≥" else percent <= self.goal


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a finished job can prove.

    Of `details` the advice and the page know these keys, all of which may be missing, and show others
    as they are: rows {"identity", "replay", "data"}; training {"lr", "steps", …}; data {"files",
    "with_old_name": rows that still hold an old name, …}; languages (those trained); command; seconds;
    seed; versions {…}.
    """

    model: str
    identity: Identity
    after: IdentityScores
    kind: Kind = "rename"
    old_names: Sequence[str] = ()
    goals: Goals = field(default_factory=Goals)
    before: IdentityScores | None = None
    sampled: IdentityScores | None = None
    retention: RetentionScores | None = None
    retention_long: RetentionScores | None = None  # under system prompts of 500 to 1,000 tokens
    divergence: Divergence | None = None
    spread: SpreadScores | None = None
    obedience: ObedienceScores | None = None
    merged: MergedScores | None = None
    probes: Sequence[ProbeRecord] = ()
    curve: Curve | None = None
    stop: StopRecord | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    answers: Sequence[AnswerPair] = ()

    @property
    def recall(self) -> Share:
        """Recall after training over the plain contexts."""
        return _sum(self.after.recall, PLAIN_CONTEXTS)

    @property
    def recall_role(self) -> Share:
        return _sum(self.after.recall, ROLE_CONTEXTS)

    @property
    def leak(self) -> Share:
        return self.after.leak.get(("all", "all"), Share(0, 0))

    @property
    def kept(self) -> Share:
        return self.retention.kept["all"] if self.retention else Share(0, 0)

    @property
    def languages(self) -> list[str]:
        """Those that questions were asked in."""
        return list(dict.fromkeys(code for _, code in self.after.recall if code != "all"))

    @property
    def scores(self) -> list[Score]:
        """Every score that was measured, those with goals first."""
        goals = self.goals
        found = [
            self._identity_score("recall", "recall", PLAIN_CONTEXTS, "≥", goals.recall),
            self._identity_score("recall_role", "recall", ROLE_CONTEXTS, "≥", goals.recall_role),
            self._identity_score("leak", "leak", ("all",), "≤", goals.leak),
        ]
        if self.spread:
            before, after = self.spread.before, self.spread.after
            found.append(_by_language("spread", after, before.get("all"), "≤", goals.spread))
        if self.retention:
            found.append(_by_language("retention", self.retention.kept, None, "≥", goals.retention))
        if self.retention_long:
            kept = self.retention_long.kept
            found.append(_by_language("retention_long", kept, None, "≥", goals.retention_long))
        if self.merged:
            recall, leak = self.merged.recall, self.merged.leak
            found.append(Score("merged_recall", recall, None, "≥", goals.recall))
            found.append(Score("merged_leak", leak, None, "≤", goals.leak))
        found.append(self._identity_score("author", "author", ("all",), "≥"))
        found.append(self._identity_score("contradiction", "contradiction", ("all",), "≤"))
        if self.obedience:
            found.append(Score("obedience", self.obedience.after, self.obedience.before, "≥"))
        if self.sampled:
            recall = _sum(self.sampled.recall, PLAIN_CONTEXTS)
            found.append(Score("sampled_recall", recall, None, "≥"))
            leak = _sum(self.sampled.leak, ("all",))
            found.append(Score("sampled_leak", leak, None, "≤"))
        return [score for score in found if score.after.n or score.name == "recall"]

    @property
    def missed(self) -> list[str]:
        """Goals that were not reached, by name. A name that nobody asked for was not given."""
        return [
            score.name
            for score in self.scores
            if score.reached is False or (score.name == "recall" and not score.after.n)
        ]

    def as_json(self) -> dict[str, Any]:
        from whoamai.evaluate.report_file import report_json

        return report_json(self)

    def write(self, path: Path) -> None:
        """Write report.json, complete or not at all. Raises OutputError."""
        from whoamai.evaluate.report_file import write_report

        write_report(self, path)

    def _identity_score(
        self,
        name: str,
        measure: Literal["recall", "leak", "author", "contradiction"],
        contexts: Sequence[str],
        sign: Sign,
        goal: float | None = None,
    ) -> Score:
        after: Shares = getattr(self.after, measure)
        before = _sum(getattr(self.before, measure), contexts) if self.before else None
        languages = {code: _sum(after, contexts, code) for code in self.languages}
        return Score(name, _sum(after, contexts), before, sign, goal, languages)


def answer_pairs(
    questions: Sequence[IdentityQuestion],
    before: Sequence[str] | None,
    after: Sequence[str],
    grades: Sequence[Grade],
) -> list[AnswerPair]:
    """Questions with their answers and the grades of the later ones; all go together, one to one."""
    pairs = []
    earlier = [None] * len(questions) if before is None else before
    for q, old, new, grade in zip(questions, earlier, after, grades, strict=True):
        *turns, last = q.conversation.messages
        system = turns[0].text if turns and turns[0].role == "system" else None
        pairs.append(
            AnswerPair(
                language=q.language,
                category=q.category,
                group=q.group,
                context=q.context,
                system=system,
                history=tuple((m.role, m.text) for m in turns if m.role != "system"),
                question=last.text,
                before=old,
                after=new,
                recalled=grade.recalled,
                leaks=tuple(grade.leaks),
            )
        )
    return pairs


def chosen_answers(
    answers: Iterable[AnswerPair], *, first_language: str, most: int = 12
) -> list[AnswerPair]:
    """At most `most` answers that show how it went, as many of each language.

    The first that was given to each line of _SHOWN, then the first of other categories and contexts.
    """
    found: dict[str, dict[tuple[str, str], AnswerPair]] = {}
    for pair in answers:
        found.setdefault(pair.language, {}).setdefault((pair.category, pair.context), pair)
    each = most // len(found) if found else 0
    result = []
    for code in sorted(found, key=lambda code: code != first_language):
        pairs = found[code]
        shown = [pairs[key] for key in _SHOWN if key in pairs]
        rest = [pair for pair in pairs.values() if pair not in shown]
        result += [*shown, *rest][: max(1, each)]
    return result


def _by_language(
    name: str, after: Mapping[str, Share], before: Share | None, sign: Sign, goal: float
) -> Score:
    rest = {code: share for code, share in after.items() if code != "all"}
    return Score(name, after.get("all", Share(0, 0)), before, sign, goal, rest)


def _sum(shares: Shares, contexts: Sequence[str], language: str = "all") -> Share:
    chosen = [shares[c, language] for c in contexts if (c, language) in shares]
    return Share(sum(s.k for s in chosen), sum(s.n for s in chosen))
