from __future__ import annotations

import random

import pytest

from whoamai.evaluate.trend import fall, first, known, last


def test_skipped_steps_do_not_count():
    assert known([1.0, None, float("nan"), float("inf"), 2.0]) == [1.0, 2.0]


def test_the_beginning_is_a_tenth_and_the_end_a_quarter():
    losses = [5.0] * 10 + [3.0] * 65 + [1.0] * 25
    assert (first(losses), last(losses)) == (5.0, 1.0)


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, None, 2.0, 3.0]])
def test_of_a_few_losses_nothing_is_said(losses):
    assert first(losses) is None
    assert last(losses) is None
    assert fall(losses) == 0


def test_a_loss_that_still_falls_falls_by_so_much_of_its_mean():
    losses = [2.0 - i / 100 for i in range(100)]  # from 1.25 to 1.01 in the last quarter
    assert fall(losses) == pytest.approx(0.24 / 1.13)


def test_a_flat_a_noisy_and_a_rising_loss_do_not_fall():
    rng = random.Random(1)
    assert fall([1.0] * 100) == 0
    assert fall([1 + rng.gauss(0, 0.3) for _ in range(100)]) == 0
    assert fall([1 + i / 100 for i in range(100)]) == 0
    assert fall([0.0] * 100) == 0
