"""What preflight knows of a run, and what it says of it: the hand-over types of its checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whoamai.config import RunConfig
from whoamai.data.lint_kinds import Severity
from whoamai.plan.preflight_kinds import kind

if TYPE_CHECKING:
    from whoamai.data.encode import Encoded
    from whoamai.data.lint import CheckReport
    from whoamai.data.templates import ChatTemplate
    from whoamai.engine.schedule import Schedule
    from whoamai.plan.architecture import Architecture
    from whoamai.plan.choose import Choice
    from whoamai.plan.machine import Machine
    from whoamai.samples import Conversation

_SHOWN_PLACES = 3


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """One thing that is wrong: in `text` what and where with its numbers, in `cure` what to do."""

    kind: str
    severity: Severity
    text: str
    cure: str


@dataclass(frozen=True, slots=True)
class Facts:
    """A run before it starts. None: not known; what would need it is not checked.

    `resume`: the run in `work_dir` is to be gone on with.
    """

    config: RunConfig
    work_dir: Path
    resume: bool = False
    encoded: Encoded | None = None
    schedule: Schedule | None = None
    conversations: Sequence[Conversation] | None = None
    template: ChatTemplate | None = None
    tokenizer: Any | None = None
    architecture: Architecture | None = None
    machine: Machine | None = None
    choice: Choice | None = None
    data_report: CheckReport | None = None


def finding(
    name: str, text: str, *, severity: Severity | None = None, cure: str | None = None
) -> PreflightFinding:
    """A finding of this kind; severity and cure are the kind's unless given."""
    known = kind(name)
    return PreflightFinding(name, severity or known.severity, text, cure or known.cure)


def places(sources: Sequence[str]) -> str:
    """The first places, each once: "a.jsonl:1, a.jsonl:7, a.jsonl:9, …"."""
    different = list(dict.fromkeys(sources))
    shown = ", ".join(different[:_SHOWN_PLACES])
    return shown + (", …" if len(different) > _SHOWN_PLACES else "")


def size(n_bytes: float) -> str:
    """Bytes for people: "3.2 GiB", "12 MiB"."""
    if n_bytes >= 2**30:
        return f"{n_bytes / 2**30:.1f} GiB"
    return f"{n_bytes / 2**20:.0f} MiB" if n_bytes >= 2**20 else f"{n_bytes / 2**10:.0f} KiB"
