"""The report of one job: what was asked, what it answered before and after, and the scores.

`Report` is written as report.json; the terminal prints from the same object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from whoamai.data.identity import Identity
from whoamai.evaluate.identity import IdentityScores, Share
from whoamai.evaluate.retention import RetentionScores

# Contexts in which a name that took is always given; under a role prompt some answers rightly play
# the role only, so it has a goal of its own.
PLAIN_CONTEXTS = ("none", "neutral", "turns", "named")


@dataclass(frozen=True, slots=True)
class Goals:
    """What must be reached, in percent."""

    recall: float = 98.0
    recall_role: float = 85.0
    leak: float = 0.0
    retention: float = 97.0


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """One question with its answer before and after, and how the later one was graded."""

    language: str
    category: str
    context: str
    system: str | None
    question: str
    before: str
    after: str
    recalled: bool
    leaks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a finished job can prove."""

    model: str
    identity: Identity
    old_names: Sequence[str]
    goals: Goals
    before: IdentityScores
    after: IdentityScores
    retention: RetentionScores
    answers: Sequence[AnswerPair]
    merged_recall: Share | None
    details: Mapping[str, Any]

    @property
    def recall(self) -> Share:
        """Recall after training over the plain contexts."""
        return _sum(self.after.recall, PLAIN_CONTEXTS)

    @property
    def recall_role(self) -> Share:
        return _sum(self.after.recall, ("role",))

    @property
    def leak(self) -> Share:
        return self.after.leak["all", "all"]

    @property
    def kept(self) -> Share:
        return self.retention.kept["all"]

    @property
    def missed(self) -> list[str]:
        """Goals that were not reached, by name."""
        checks = {
            "recall": self.recall.percent >= self.goals.recall,
            "recall_role": not self.recall_role.n
            or self.recall_role.percent >= self.goals.recall_role,
            "leak": self.leak.percent <= self.goals.leak,
            "retention": not self.kept.n or self.kept.percent >= self.goals.retention,
            "merged": self.merged_recall is None or self.merged_recall.percent >= self.goals.recall,
        }
        return [name for name, reached in checks.items() if not reached]

    def as_json(self) -> dict[str, Any]:
        return {
            "format": 1,
            "model": self.model,
            "identity": asdict(self.identity),
            "old_names": list(self.old_names),
            "reached": not self.missed,
            "missed": self.missed,
            "goals": asdict(self.goals),
            "scores": {
                "recall": self.recall.as_json(),
                "recall_role": self.recall_role.as_json(),
                "leak": self.leak.as_json(),
                "retention": self.kept.as_json(),
                "merged_recall": self.merged_recall and self.merged_recall.as_json(),
            },
            "identity_before": _identity_json(self.before),
            "identity_after": _identity_json(self.after),
            "right_before": {k: v.as_json() for k, v in self.retention.right_before.items()},
            "retention": {k: v.as_json() for k, v in self.retention.kept.items()},
            "forgotten": [asdict(f) for f in self.retention.forgotten],
            "details": dict(self.details),
            "answers": [asdict(a) for a in self.answers],
        }

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")


def _sum(shares: Mapping[tuple[str, str], Share], contexts: Sequence[str]) -> Share:
    chosen = [shares[c, "all"] for c in contexts if (c, "all") in shares]
    return Share(sum(s.k for s in chosen), sum(s.n for s in chosen))


def _identity_json(scores: IdentityScores) -> dict[str, Any]:
    return {
        name: {f"{context}/{language}": s.as_json() for (context, language), s in shares.items()}
        for name, shares in (("recall", scores.recall), ("leak", scores.leak))
    }
