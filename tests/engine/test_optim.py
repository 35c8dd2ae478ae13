from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.engine.optim import warmup_cosine


def test_the_worked_example_holds():
    shares = [round(warmup_cosine(s, steps=6, warmup=2), 2) for s in range(6)]
    assert shares == [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]


def test_it_would_reach_zero_one_step_after_the_last():
    assert warmup_cosine(100, steps=100, warmup=10) == pytest.approx(0)


@given(st.integers(1, 300), st.data())
def test_every_step_learns_something_and_none_more_than_the_peak(steps: int, data):
    warmup = data.draw(st.integers(1, steps))
    shares = [warmup_cosine(s, steps=steps, warmup=warmup) for s in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    assert max(shares) == 1


@given(st.integers(2, 300), st.data())
def test_it_rises_through_the_warmup_and_falls_from_there(steps: int, data):
    warmup = data.draw(st.integers(1, steps - 1))
    shares = [warmup_cosine(s, steps=steps, warmup=warmup) for s in range(steps)]
    assert shares[:warmup] == sorted(shares[:warmup])
    assert shares[warmup:] == sorted(shares[warmup:], reverse=True)
