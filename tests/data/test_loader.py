from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.loader import batches_of_step, pad
from whoamai.samples import Sample


def sample(*ids: int, targets: int = 1) -> Sample:
    """A row whose last `targets` tokens are to be predicted."""
    return Sample(ids, (False,) * (len(ids) - targets) + (True,) * targets)


def test_rows_are_padded_on_the_right_and_padding_is_seen_by_nothing():
    batch = pad([sample(5, 6, 7), sample(8, 9)])
    assert batch.input_ids_RT.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.attention_mask_RT.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_a_target_is_predicted_from_the_place_before_it():
    """Rows "a b C D" and "e F": C and D come from places 1 and 2, F from place 0."""
    batch = pad([sample(1, 2, 3, 4, targets=2), sample(5, 6)])
    assert batch.row_N.tolist() == [0, 0, 1]
    assert batch.position_N.tolist() == [1, 2, 0]
    assert batch.token_N.tolist() == [3, 4, 6]


def test_targets_in_the_middle_of_a_row_are_found():
    row = Sample((1, 2, 3, 4, 5), (False, True, False, False, True))
    batch = pad([row])
    assert batch.position_N.tolist() == [0, 3]
    assert batch.token_N.tolist() == [2, 5]


def test_tokens_and_targets_are_counted_without_padding():
    batch = pad([sample(1, 2, 3, 4, targets=2), sample(5, 6)])
    assert (batch.n_tokens, batch.n_targets) == (6, 3)


def test_indices_of_a_batch_are_whole_numbers_even_where_nothing_is_a_target():
    batch = pad([sample(1, 2, targets=0)])
    assert batch.n_targets == 0
    assert {batch.row_N.dtype, batch.position_N.dtype, batch.token_N.dtype} == {torch.long}


LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 200))
def test_no_batch_is_larger_than_its_budget_but_for_a_single_row(lengths, budget):
    rows = [sample(*range(1, n + 1)) for n in lengths]
    for batch in batches_of_step(rows, tokens_per_batch=budget):
        n_rows, longest = batch.input_ids_RT.shape
        assert n_rows * longest <= budget or n_rows == 1


@given(LENGTHS, st.integers(1, 200))
def test_batches_hold_every_row_of_the_step_once(lengths, budget):
    rows = [sample(*([number] * n)) for number, n in enumerate(lengths, 1)]
    batches = batches_of_step(rows, tokens_per_batch=budget)
    found = [
        tuple(ids[mask.bool()].tolist())
        for b in batches
        for ids, mask in zip(b.input_ids_RT, b.attention_mask_RT, strict=True)
    ]
    assert sorted(found) == sorted(r.input_ids for r in rows)


def test_rows_to_keep_are_a_batch_of_their_own_that_knows_its_targets():
    rows = [sample(1, 2, 3, 4, 5), sample(6, 7, 8, targets=2), sample(9, 5, 4, targets=2)]
    rows[1:] = [replace(row, keep=True) for row in rows[1:]]
    batch = pad(rows, keep=True)
    assert batch.kept is not None
    assert batch.kept.alone.input_ids_RT.tolist() == [[6, 7, 8], [9, 5, 4]]
    assert batch.kept.alone.token_N.tolist() == [7, 8, 5, 4]
    assert batch.kept.target_M.tolist() == [1, 2, 3, 4]


def test_nothing_is_told_apart_unless_asked_for_and_there():
    row, none = sample(1, 2, 3), sample(1, 2, targets=0)
    assert pad([replace(row, keep=True)]).kept is None
    assert pad([row, replace(none, keep=True)], keep=True).kept is None


def test_batches_of_a_step_tell_apart_what_is_to_be_kept():
    rows = [sample(*range(1, n)) for n in (4, 5, 6)]
    rows[2] = replace(rows[2], keep=True)
    batches = batches_of_step(rows, tokens_per_batch=8, keep=True)
    assert [batch.kept is not None for batch in batches] == [False, True]


def test_no_rows_make_no_batches():
    assert batches_of_step([], tokens_per_batch=10) == []
