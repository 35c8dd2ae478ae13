"""What this machine has, what will therefore be used, and whether the main job can run at all.

The last is tried and not guessed: the bundled model is loaded and takes one optimizer step. All that
imports libraries runs in a process of its own (doctor_child.py), so doctor itself works where nothing
else does, and what libraries print disturbs nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len

from whoamai import __version__
from whoamai.messages import tr
from whoamai.plan import doctor_checks as checks
from whoamai.plan.doctor_facts import Check, Group, Status
from whoamai.plan.doctor_probes import Later, Probes

__all__ = ["Check", "Diagnosis", "Group", "Probes", "Status", "examine", "status_name"]

# A network that gives no answer in this time has none; the time to find the host's address included.
_NETWORK_SECONDS = 2.5


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything doctor found. It holds no name of a user and no path of a home folder."""

    groups: tuple[Group, ...]

    @property
    def ok(self) -> bool:
        """Can the main job run here?"""
        return all(check.status != "fail" for group in self.groups for check in group.checks)

    @property
    def verdict(self) -> str:
        failed = [c.name for group in self.groups for c in group.checks if c.status == "fail"]
        if not failed:
            return tr("The main job can run here: a model can be given a new name.")
        return tr("The main job CANNOT run here: {names}.").format(names=", ".join(failed))

    def as_text(self) -> str:
        """A plain block to be pasted into a question or a bug report."""
        lines = [f"whoamai doctor {__version__}"]
        for group in self.groups:
            lines += ["", group.title]
            widest = max((cell_len(check.name) for check in group.checks), default=0)
            for check in group.checks:
                name = check.name + " " * (widest - cell_len(check.name))
                sign = status_name(check.status)
                sign += " " * (_widest_sign() - cell_len(sign))
                lines.append(f"  {sign}  {name}  {check.value}")
                if check.cure:
                    lines.append(f"  {' ' * _widest_sign()}  → {check.cure}")
        return "\n".join([*lines, "", self.verdict])

    def as_json(self) -> dict[str, Any]:
        return {
            "format": 1,
            "whoamai": __version__,
            "ok": self.ok,
            "groups": [
                {
                    "key": group.key,
                    "title": group.title,
                    "checks": [
                        {
                            "key": check.key,
                            "name": check.name,
                            "value": check.value,
                            "status": check.status,
                            "cure": check.cure,
                        }
                        for check in group.checks
                    ],
                }
                for group in self.groups
            ],
        }


def status_name(status: Status) -> str:
    return {"ok": tr("ok"), "warn": tr("warning"), "fail": tr("FAILS")}[status]


def examine(
    probes: Probes | None = None,
    *,
    network: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> Diagnosis:
    """Look at everything; `tell` is told what is being looked at. Raises nothing.

    Without `network` the hub is not asked.
    """
    probes = probes or Probes()
    tried = Later(probes.attempt)
    driver = Later(probes.driver)
    hub = Later(lambda: probes.answers(checks.endpoint(probes))) if network else None
    tell(tr("Loading the libraries and trying one optimizer step"))
    parts: list[tuple[str, str, Callable[[], Iterable[Check]]]] = [
        ("python", tr("Python"), lambda: checks.python(probes)),
        ("torch", tr("torch and the device"), lambda: checks.torch(probes, tried, driver)),
        ("libraries", tr("Libraries"), lambda: checks.libraries(probes)),
        ("paths", tr("What will be used"), lambda: checks.fast_paths(probes, tried)),
        ("disk", tr("Disk"), lambda: checks.disk(probes)),
        ("hub", tr("Hub"), lambda: checks.hub(probes, hub, _NETWORK_SECONDS)),
        ("job", tr("The main job"), lambda: checks.main_job(tried)),
    ]
    groups = [Group(key, title, _safely(key, title, look)) for key, title, look in parts]
    return Diagnosis(tuple(_anonymous(group, probes) for group in groups))


def _safely(key: str, title: str, look: Callable[[], Iterable[Check]]) -> tuple[Check, ...]:
    """The checks of one group; one that breaks becomes a line of its own, and those before it stay.

    A main job that could not be tried is not known to run.
    """
    found: list[Check] = []
    try:
        for check in look():
            found.append(check)
    except Exception as error:
        text = tr("could not be examined: {reason}")
        reason = f"{type(error).__name__}: {error}"
        status = "fail" if key == "job" else "warn"
        found.append(Check(key, title, text.format(reason=reason), status))
    return tuple(found)


def _widest_sign() -> int:
    return max(cell_len(status_name(status)) for status in ("ok", "warn", "fail"))


# ---- what nobody else is to know -----------------------------------------------------------------


def _anonymous(group: Group, probes: Probes) -> Group:
    """The group on single lines, without the home folder, the user's name and passwords in URLs."""
    try:
        user = probes.user()
    except Exception:  # a user without a name, in a container
        user = ""
    home = str(probes.home)

    def clean(text: str) -> str:
        text = " ".join(text.split())
        if len(home) > 1:
            text = text.replace(home, "~")
        if user:
            text = re.sub(rf"(?<=[/\\]){re.escape(user)}(?=[/\\]|\W|$)", "…", text)
        return re.sub(r"(?<=://)[^/@\s]+@", "", text)

    return replace(
        group,
        checks=tuple(
            replace(check, value=clean(check.value), cure=clean(check.cure))
            for check in group.checks
        ),
    )
