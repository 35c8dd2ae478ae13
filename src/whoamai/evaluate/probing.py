"""Small probes while a model learns its name, and the rule that says when it has learned it.

A probe asks a few identity questions and a few general ones; the questions are of the probe families,
which neither training text nor the report ever uses. The goals must be met at two probes in a row,
for a single one is met by luck now and then:

    step    5    10    20    40    60
    recall  0 %  31 %  94 %  100 %  100 %      goal 98 %: learned at 40, known at 60
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whoamai.evaluate.identity import Share

# The first probes, where a name is often learned already; then every `evaluation_freq` steps.
EARLY_STEPS = (5, 10, 20)


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """What one probe found after `step` optimizer steps; `kept` of the general answers."""

    step: int
    recall: Share
    leak: Share
    kept: Share
    seconds: float

    def as_json(self) -> dict[str, Any]:
        shares = {"recall": self.recall, "leak": self.leak, "kept": self.kept}
        counted = {name: [share.k, share.n] for name, share in shares.items()}
        return {"step": self.step, **counted, "seconds": self.seconds}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> ProbeRecord:
        shares = {name: Share(*found[name]) for name in ("recall", "leak", "kept")}
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
