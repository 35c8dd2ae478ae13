"""When a run is probed and ends; the whole way is tested with the recipes that take it."""

from __future__ import annotations

import pytest

from whoamai.engine.until_learned import probe_steps, run_out_after, soonest_end
from whoamai.evaluate.probing import StopRule


@pytest.mark.parametrize(("done", "steps"), [(5, 4), (10, 4), (20, 7), (60, 21), (1000, 350)])
def test_the_rate_runs_out_over_a_third_of_the_steps_and_at_least_four(done: int, steps: int):
    assert run_out_after(done) == steps


def test_probes_come_early_regularly_and_at_the_end():
    assert probe_steps(114, 50) == (0, 5, 10, 20, 50, 100, 114)
    assert probe_steps(8, 500) == (0, 5, 8)


@pytest.mark.parametrize(
    ("total", "every", "in_a_row", "end"),
    [
        (114, 50, 2, 14),
        (15, 50, 2, 14),
        (14, 50, 2, None),
        (4, 50, 2, None),
        (114, 2, 2, 8),  # 2 and 4, and four more
        (114, 50, 4, 68),
        (114, 50, 1, 9),
    ],
)
def test_the_soonest_end_is_that_of_the_first_probes(
    total: int, every: int, in_a_row: int, end: int | None
):
    assert soonest_end(total, every, StopRule(in_a_row=in_a_row)) == end
