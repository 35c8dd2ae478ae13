"""Which rows make which optimizer step: decided before anything is packed, padded or computed.

Rows are shuffled once an epoch and cut into steps, of so many rows, or of whole rows up to so many
tokens. Tokens are counted as if nothing were shared, so sharing beginnings, the memory at hand and the
number of devices change the speed of a run and never what it learns.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepSize:
    """An optimizer step holds at most so many `rows`, or whole rows of at most so many `tokens`.

    Exactly one of the two is given. A single row of more tokens is a step of its own.
    """

    rows: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        assert (self.rows is None) != (self.tokens is None), "one of rows and tokens"


def plan_steps(
    lengths: Sequence[int], size: StepSize, *, epochs: int, seed: int
) -> list[list[list[int]]]:
    """Row numbers of every optimizer step of every epoch, in order; `lengths` in tokens.

    >>> [len(step) for step in plan_steps([5] * 10, StepSize(rows=4), epochs=1, seed=0)[0]]
    [4, 3, 3]
    >>> [len(step) for step in plan_steps([5] * 10, StepSize(tokens=20), epochs=1, seed=0)[0]]
    [4, 4, 2]
    """
    return [
        _steps_of_rows(order, size.rows)
        if size.rows is not None
        else _steps_of_tokens(order, lengths, size.tokens or 0)
        for order in (_shuffled(len(lengths), seed, epoch) for epoch in range(epochs))
    ]


def _shuffled(n: int, seed: int, epoch: int) -> list[int]:
    order = list(range(n))
    random.Random(f"order-{seed}-{epoch}").shuffle(order)
    return order


def _steps_of_rows(order: Sequence[int], rows: int) -> list[list[int]]:
    """Steps of at most `rows` rows, which differ by at most one."""
    n_steps = -(-len(order) // rows)
    return [list(order[i::n_steps]) for i in range(n_steps)]


def _steps_of_tokens(order: Sequence[int], lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Whole rows in their order, a new step wherever the next row would not fit."""
    steps: list[list[int]] = []
    filled = 0
    for row in order:
        if not steps or filled + lengths[row] > tokens:
            steps.append([])
            filled = 0
        steps[-1].append(row)
        filled += lengths[row]
    return steps
