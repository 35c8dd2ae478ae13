"""The learning rate over a run: linear warmup, then half a cosine down to zero."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at `step` (from 0) of `steps`.

    Step s of a warmup of w gets (s + 1) / w, so that the first step already learns and step w - 1 has
    the peak; afterwards (1 + cos(pi · t)) / 2 with t from 0 to 1, which it would reach at `steps`.

    >>> [round(warmup_cosine(s, steps=6, warmup=2), 2) for s in range(6)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    """
    if step < warmup:
        return (step + 1) / warmup
    t = (step - warmup) / max(1, steps - warmup)
    return (1 + math.cos(math.pi * t)) / 2
