"""Before a run starts: what would waste it, found from the plan, and refused unless allowed by name.

Each check is one small function from Facts to findings. One that needs something that is not known is
left out, and not_checked() names it: `explain` knows less than `train`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whoamai.config import RunConfig
from whoamai.errors import SettingError
from whoamai.messages import tr
from whoamai.plan import preflight_data as of_data
from whoamai.plan import preflight_run as of_run
from whoamai.plan.preflight_facts import Facts, PreflightFinding
from whoamai.plan.preflight_folder import work_dir_used
from whoamai.plan.preflight_kinds import allowed_names, kind, may_be_allowed
from whoamai.plan.preflight_stop import never_early, never_learned

if TYPE_CHECKING:
    from whoamai.data.encode import Encoded
    from whoamai.data.lint import CheckReport
    from whoamai.data.templates import ChatTemplate
    from whoamai.engine.schedule import Schedule
    from whoamai.plan.architecture import Architecture
    from whoamai.plan.choose import Choice
    from whoamai.plan.machine import Machine
    from whoamai.samples import Conversation

__all__ = [
    "Facts",
    "PreflightFinding",
    "check_allowed",
    "findings_of",
    "not_checked",
    "preflight",
    "refuse",
]

_ORDER = {"blocks": 0, "warns": 1, "notes": 2}


@dataclass(frozen=True, slots=True)
class _Check:
    """`needs`: names of Facts that must be known. `kinds`: what it looks for, for not_checked()."""

    kinds: tuple[str, ...]
    needs: tuple[str, ...]
    run: Callable[[Facts], Iterable[PreflightFinding]]


_CHECKS = (
    _Check(("work-dir-used",), (), work_dir_used),
    _Check(("memory",), ("choice", "machine"), of_run.memory),
    _Check(("disk",), ("architecture", "machine", "schedule"), of_run.disk),
    _Check(("no-bfloat16",), ("machine",), of_run.no_bfloat16),
    _Check(("fp16-overflow",), ("architecture",), of_run.float16_overflow),
    _Check(("vocabulary",), ("architecture", "tokenizer"), of_run.vocabulary),
    _Check(("context",), ("architecture",), of_run.context),
    _Check(("no-targets",), ("encoded",), of_data.no_targets),
    _Check(("rows-left-out",), ("encoded",), of_data.rows_left_out),
    _Check(("rows-cut",), ("encoded",), of_data.rows_cut),
    _Check(("few-steps",), ("schedule", "encoded"), of_run.few_steps),
    _Check(("lr-high", "lr-low"), ("architecture",), of_run.learning_rate),
    _Check(("two-names", "same-question"), ("data_report",), of_data.data_findings),
    _Check(("placeholder", "special-token"), ("conversations",), of_data.texts_of_rows),
    _Check(("unfilled-name", "braces"), (), of_data.texts_of_config),
    _Check(("old-name-left",), (), of_data.old_names_in_config),
    _Check(("old-name-left",), ("conversations",), of_data.old_names_in_rows),
    _Check(("template-identity",), ("template",), of_data.template_identity),
    _Check(("question-in-training",), ("conversations",), of_data.questions_in_training),
    _Check(("no-eval",), (), of_data.no_evaluation),
    _Check(("never-learned",), ("conversations",), never_learned),
    _Check(("never-early",), ("schedule",), never_early),
)


def preflight(
    config: RunConfig,
    *,
    work_dir: Path,
    resume: bool = False,
    encoded: Encoded | None = None,
    schedule: Schedule | None = None,
    conversations: Sequence[Conversation] | None = None,
    template: ChatTemplate | None = None,
    tokenizer: Any | None = None,
    architecture: Architecture | None = None,
    machine: Machine | None = None,
    choice: Choice | None = None,
    data_report: CheckReport | None = None,
) -> list[PreflightFinding]:
    """All findings, the grave ones first. What is None is not known and not checked."""
    return findings_of(
        Facts(
            config,
            work_dir,
            resume=resume,
            encoded=encoded,
            schedule=schedule,
            conversations=conversations,
            template=template,
            tokenizer=tokenizer,
            architecture=architecture,
            machine=machine,
            choice=choice,
            data_report=data_report,
        )
    )


def findings_of(facts: Facts) -> list[PreflightFinding]:
    """The same for facts that are together already."""
    found = [f for check in _CHECKS if not _missing(check, facts) for f in check.run(facts)]
    return sorted(found, key=lambda f: _ORDER[f.severity])


def not_checked(facts: Facts) -> tuple[str, ...]:
    """The kinds that were not looked for, because something they need is not known.

    Without the data check's report only its kinds that need all rows together are missing: what a text
    alone shows is looked for anyway.
    """
    return tuple(name for check in _CHECKS if _missing(check, facts) for name in check.kinds)


def refuse(findings: Sequence[PreflightFinding], allow: Sequence[str]) -> None:
    """Raise SettingError naming all findings that block and are not allowed, each with its cure."""
    check_allowed(allow)
    allowed = [name for name in allow if may_be_allowed(name)]
    blocking = [f for f in findings if f.severity == "blocks" and f.kind not in allowed]
    if blocking:
        head = tr("Not started, because of {kinds}.")
        kinds = ", ".join(dict.fromkeys(f.kind for f in blocking))
        raise SettingError("\n".join([head.format(kinds=kinds), *_lines(blocking)]))


def check_allowed(allow: Sequence[str]) -> None:
    """Raise SettingError for a kind in `allow` that neither preflight nor the data check knows."""
    unknown = [name for name in allow if name not in allowed_names()]
    if unknown:
        raise SettingError(
            tr("--allow {given}: there is no such finding. Known are {known}.").format(
                given=", ".join(unknown), known=", ".join(allowed_names())
            )
        )


def _lines(findings: Sequence[PreflightFinding]) -> Iterator[str]:
    for found in findings:
        yield f"{found.kind} ({kind(found.kind).title}): {found.text}"
        yield f"  → {found.cure}"
        if may_be_allowed(found.kind):
            text = tr("Or start all the same: {option}")
            yield "  → " + text.format(option=f"--allow {found.kind}")


def _missing(check: _Check, facts: Facts) -> bool:
    return any(getattr(facts, name) is None for name in check.needs)
