"""Time a run will take."""

from __future__ import annotations

from dataclasses import dataclass

from whoamai.config import RunConfig
from whoamai.plan.architecture import Architecture
from whoamai.plan.machine import Card, Machine


@dataclass(frozen=True, slots=True)
class TimePlan:
    seconds: float
    tokens_per_second: float
    basis: str


def expected_time(
    arch: Architecture,
    config: RunConfig,
    machine_or_card: Machine | Card,
    *,
    computed_tokens: int,
    targets: int,
    steps: int,
    gradient_checkpointing: bool,
) -> TimePlan:
    raise NotImplementedError
