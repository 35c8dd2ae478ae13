from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.steps import StepSize, plan_steps

LENGTHS = st.lists(st.integers(1, 60), max_size=60)
SIZES = st.builds(StepSize, rows=st.integers(1, 20)) | st.builds(
    StepSize, tokens=st.integers(1, 200)
)


@given(lengths=LENGTHS, size=SIZES, epochs=st.integers(1, 3), seed=st.integers(0, 99))
def test_the_steps_of_every_epoch_hold_every_row_once(lengths, size, epochs, seed):
    by_epoch = plan_steps(lengths, size, epochs=epochs, seed=seed)
    assert len(by_epoch) == epochs
    for steps in by_epoch:
        assert sorted(row for step in steps for row in step) == list(range(len(lengths)))
        assert all(steps)


@given(n_rows=st.integers(1, 60), rows=st.integers(1, 20))
def test_steps_of_rows_differ_by_at_most_one_and_are_no_more_than_needed(n_rows, rows):
    (steps,) = plan_steps([1] * n_rows, StepSize(rows=rows), epochs=1, seed=0)
    sizes = [len(step) for step in steps]
    assert max(sizes) - min(sizes) <= 1
    assert len(steps) == -(-n_rows // rows)


@given(lengths=LENGTHS, tokens=st.integers(1, 200), seed=st.integers(0, 9))
def test_a_step_of_tokens_is_full_and_exceeds_its_size_only_for_a_single_row(lengths, tokens, seed):
    (steps,) = plan_steps(lengths, StepSize(tokens=tokens), epochs=1, seed=seed)
    filled = [sum(lengths[row] for row in step) for step in steps]
    assert all(n <= tokens or len(step) == 1 for n, step in zip(filled, steps, strict=True))
    following = [lengths[step[0]] for step in steps[1:]]
    assert all(n + row > tokens for n, row in zip(filled, following, strict=False))


@pytest.mark.parametrize("size", [StepSize(rows=4), StepSize(tokens=20)])
def test_the_same_seed_gives_the_same_order_and_another_another(size):
    lengths = [3, 7, 5, 2] * 10
    first = plan_steps(lengths, size, epochs=2, seed=1)
    assert first == plan_steps(lengths, size, epochs=2, seed=1)
    assert first != plan_steps(lengths, size, epochs=2, seed=2)
    assert first[0] != first[1]


def test_more_epochs_change_nothing_about_the_first_ones():
    lengths = [3, 7, 5, 2] * 10
    size = StepSize(tokens=20)
    assert plan_steps(lengths, size, epochs=5, seed=1)[:2] == plan_steps(
        lengths, size, epochs=2, seed=1
    )


def test_a_step_is_measured_in_rows_or_in_tokens_and_not_in_both():
    for both in (StepSize, lambda: StepSize(rows=1, tokens=1)):
        with pytest.raises(AssertionError):
            both()
