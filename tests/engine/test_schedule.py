from __future__ import annotations

from itertools import pairwise

import pytest

from whoamai.data.steps import StepSize
from whoamai.engine.schedule import make_schedule


def schedule(n_rows: int = 40, **changes):
    given = {"epochs": 2, "seed": 0, "lr": 1e-3, "warmup_ratio": 0.1}
    return make_schedule([10] * n_rows, StepSize(rows=4), **{**given, **changes})


def test_epochs_end_where_their_last_step_does():
    assert schedule().total == 20
    assert schedule().epoch_ends == (10, 20)


def test_the_rate_rises_to_its_peak_over_the_warmup_and_then_falls():
    rates = [schedule().lr(i) for i in range(20)]
    assert rates[:2] == [0.5e-3, 1e-3]
    assert all(a >= b for a, b in pairwise(rates[1:]))
    assert 0 < rates[-1] < 1e-4


@pytest.mark.parametrize("warmup_ratio", [0.0, 0.001, 0.03])
def test_a_warmup_of_one_step_begins_at_the_peak_and_not_near_nothing(warmup_ratio):
    """XTuner's stays at 1e-5 of the learning rate for the whole run in this case."""
    short = schedule(warmup_ratio=warmup_ratio)
    assert short.warmup == 1
    assert short.lr(0) == 1e-3
    assert short.lr(10) == pytest.approx(0.5e-3, rel=0.2)


def test_a_run_of_one_step_takes_it_at_the_full_rate():
    single = schedule(n_rows=3, epochs=1)
    assert single.total == 1
    assert single.lr(0) == 1e-3


def test_it_saves_every_so_many_steps_and_at_the_end():
    assert schedule(save_steps=8).saves == [8, 16, 20]
    assert schedule(save_steps=500).saves == [20]
    assert schedule(save_steps=5).saves == [5, 10, 15, 20]


def test_it_asks_before_every_so_many_steps_and_at_the_end():
    assert schedule(evaluation_freq=8).evaluations == [0, 8, 16, 20]
    assert schedule(evaluation_freq=500).evaluations == [0, 20]
    assert schedule().evaluations == []


def test_a_run_that_is_cut_short_runs_out_in_a_straight_line_from_the_rate_it_had():
    whole = schedule()
    short = whole.cut_short(8, run_out=4)
    assert (short.total, short.planned, short.cut_at) == (12, 20, 8)
    assert short.steps == whole.steps[:12]
    assert [short.lr(i) for i in range(8)] == [whole.lr(i) for i in range(8)]
    shares = [short.lr(i) / whole.lr(7) for i in range(8, 12)]
    assert shares == pytest.approx([4 / 5, 3 / 5, 2 / 5, 1 / 5])


def test_a_run_cut_short_near_its_end_is_no_longer_than_it_was_and_knows_its_epochs():
    whole = schedule()
    assert whole.cut_short(18, run_out=10).total == 20
    assert whole.cut_short(18, run_out=10).epoch_ends == (10, 20)
    assert whole.cut_short(9, run_out=0).epoch_ends == (9,)
    assert whole.cut_short(10, run_out=1).epoch_ends == (10, 11)
