"""Tokens a pass, checkpointing and precision: the fastest that fits."""

from __future__ import annotations

from dataclasses import dataclass

from whoamai.config import RunConfig
from whoamai.plan.architecture import Architecture
from whoamai.plan.machine import Card, Machine
from whoamai.plan.memory import MemoryPlan


@dataclass(frozen=True, slots=True)
class Choice:
    tokens_per_pass: int
    gradient_checkpointing: bool
    dtype: str
    memory: MemoryPlan
    fits: bool
    why: str


def choose(
    arch: Architecture,
    config: RunConfig,
    machine_or_card: Machine | Card,
    *,
    longest_row: int,
    step_tokens: int,
    target_share: float,
) -> Choice:
    raise NotImplementedError
