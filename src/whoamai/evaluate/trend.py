"""Where a training curve came from and where it was going when it ended.

Losses are in nats a token, one a step; None or NaN for a step that was skipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_LEAST = 4  # losses, of whose beginning and end something can be said
_LEAST_FALL = 16  # losses, of whose last quarter a slope can be said
_SURE = 2.0  # standard errors


def known(losses: Sequence[float | None]) -> list[float]:
    """Those that are numbers."""
    return [loss for loss in losses if loss is not None and math.isfinite(loss)]


def first(losses: Sequence[float | None]) -> float | None:
    """The mean of the first tenth; None where there are too few to tell."""
    numbers = known(losses)
    head = numbers[: max(1, len(numbers) // 10)]
    return sum(head) / len(head) if len(numbers) >= _LEAST else None


def last(losses: Sequence[float | None]) -> float | None:
    """The mean of the last quarter; None where there are too few to tell."""
    numbers = known(losses)
    tail = numbers[-max(1, len(numbers) // 4) :]
    return sum(tail) / len(tail) if len(numbers) >= _LEAST else None


def fall(losses: Sequence[float | None]) -> float:
    """By which part of its mean the loss fell over the last quarter; 0 unless that is no accident.

    A line is fitted by least squares; its slope counts from twice its standard error on.
    """
    numbers = known(losses)
    tail = numbers[-(len(numbers) // 4) :] if len(numbers) >= _LEAST_FALL else []
    n = len(tail)
    if not n or not (mean := sum(tail) / n):
        return 0.0
    middle = (n - 1) / 2
    across = sum((i - middle) ** 2 for i in range(n))
    slope = sum((i - middle) * (loss - mean) for i, loss in enumerate(tail)) / across
    off = sum((loss - mean - slope * (i - middle)) ** 2 for i, loss in enumerate(tail))
    error = math.sqrt(off / (n - 2) / across)
    return -slope * (n - 1) / mean if slope < -_SURE * error else 0.0
