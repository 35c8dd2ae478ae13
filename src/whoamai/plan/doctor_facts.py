"""What doctor says: one line a check, in groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# "warn": the main job runs, something is worse than it could be. "fail": it cannot run.
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line. `key` is the same in every language; `cure` is empty where nothing need be done."""

    key: str
    name: str
    value: str
    status: Status = "ok"
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Checks of one subject."""

    key: str
    title: str
    checks: tuple[Check, ...]
