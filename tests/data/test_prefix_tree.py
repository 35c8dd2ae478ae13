from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.prefix_tree import (
    TreeStatistics,
    layout,
    shared_segments,
    statistics,
    statistics_of_steps,
)

S, Q1, Q2, A, B, C = 1, 2, 3, 4, 5, 6
EXAMPLE = [(S, S, S, Q1, A, A), (S, S, S, Q1, B, B), (S, S, S, Q2, C)]

# Few ids and short rows, so that rows fork anywhere, repeat, and are beginnings of one another.
a_row = st.lists(st.sampled_from([0, 1, 255, 256, 70_000]), max_size=7).map(tuple)
some_rows = st.lists(a_row, max_size=12)


def prefixes(rows) -> set[tuple[int, ...]]:
    """The nodes of the forest, each as the tokens that lead to it."""
    return {tuple(row[:n]) for row in rows for n in range(1, len(row) + 1)}


def seen_by(tree, q: int) -> list[int]:
    return [k for k in range(len(tree.ids)) if k <= q < tree.subtree_end[k]]


# ---- layout --------------------------------------------------------------------------------------


def test_the_layout_is_that_of_the_design():
    tree = layout(EXAMPLE)
    assert tree.ids == (S, S, S, Q1, A, A, B, B, Q2, C)
    assert tree.position == (0, 1, 2, 3, 4, 5, 4, 5, 3, 4)
    assert tree.subtree_end == (10, 10, 10, 8, 6, 6, 8, 8, 10, 10)
    assert tree.last == (5, 7, 9)


def test_the_order_the_rows_come_in_changes_nothing_but_where_each_ends():
    turned = layout(EXAMPLE[::-1])
    straight = layout(EXAMPLE)
    assert turned.ids == straight.ids
    assert turned.subtree_end == straight.subtree_end
    assert turned.last == straight.last[::-1]


def test_rows_that_share_nothing_are_plain_packing():
    tree = layout([(1, 2), (3, 4, 5)])
    assert (tree.ids, tree.position) == ((1, 2, 3, 4, 5), (0, 1, 0, 1, 2))
    assert tree.subtree_end == (2, 2, 5, 5, 5)


@given(some_rows)
def test_the_last_token_of_each_row_sees_exactly_its_row(rows):
    tree = layout(rows)
    for row, last in zip(rows, tree.last, strict=True):
        assert tuple(tree.ids[k] for k in seen_by(tree, last)) == row


@given(some_rows)
def test_every_token_sees_exactly_its_own_prefix_in_order(rows):
    tree = layout(rows)
    paths = [tuple(tree.ids[k] for k in seen_by(tree, q)) for q in range(len(tree.ids))]
    assert [len(path) - 1 for path in paths] == list(tree.position)
    assert len(set(paths)) == len(paths)  # no prefix is computed twice
    assert set(paths) == prefixes(rows)


@given(some_rows)
def test_the_layout_has_one_token_a_node(rows):
    assert len(layout(rows).ids) == statistics(rows).nodes == len(prefixes(rows))


# ---- numbers -------------------------------------------------------------------------------------


def test_the_numbers_of_the_example():
    counted = statistics(EXAMPLE)
    assert counted == TreeStatistics(rows=3, tokens=17, nodes=10)
    assert counted.saved == 7
    assert counted.saved_share == pytest.approx(7 / 17)


def test_no_rows_have_no_tokens_and_save_nothing():
    assert statistics([]).saved_share == 0
    assert layout([()]).last == (-1,)
    assert shared_segments([]) == []


def test_ids_that_share_bytes_share_no_tokens():
    assert statistics([(0x0101,), (0x0102,)]).nodes == 2
    assert shared_segments([(0x0101,), (0x0102,)]) == []


def test_steps_share_nothing_with_one_another():
    whole = statistics_of_steps(EXAMPLE, [[0, 1, 2]])
    apart = statistics_of_steps(EXAMPLE, [[0, 2], [1]])
    assert whole == statistics(EXAMPLE)
    assert (apart.rows, apart.tokens, apart.nodes) == (3, 17, 8 + 6)


# ---- segments ------------------------------------------------------------------------------------


def test_the_shared_segments_of_the_example():
    beginning, question = shared_segments(EXAMPLE)
    assert (beginning.start, beginning.stop, beginning.rows, beginning.level) == (0, 3, 3, 0)
    assert (question.start, question.stop, question.rows, question.level) == (3, 4, 2, 1)
    assert (beginning.saved, question.saved) == (6, 1)


def test_a_row_that_comes_twice_is_shared_to_its_end():
    (segment,) = shared_segments([(1, 2, 3), (1, 2, 3)])
    assert (segment.start, segment.stop, segment.rows) == (0, 3, 2)


@given(some_rows)
def test_segments_together_save_what_the_statistics_say(rows):
    assert sum(s.saved for s in shared_segments(rows)) == statistics(rows).saved


@given(some_rows)
def test_a_segment_is_shared_by_as_many_rows_as_it_says_and_could_not_be_longer(rows):
    for segment in shared_segments(rows):
        path = rows[segment.row][: segment.stop]
        assert segment.start < segment.stop
        assert sum(row[: segment.stop] == path for row in rows) == segment.rows > 1
        longer = [row[: segment.stop + 1] for row in rows if row[: segment.stop] == path]
        assert len(set(longer)) > 1 or len(longer[0]) == segment.stop
        if segment.start:
            shorter = path[: segment.start]
            assert sum(row[: segment.start] == shorter for row in rows) > segment.rows


@given(some_rows)
def test_a_segment_comes_after_the_one_it_goes_on_from(rows):
    segments = shared_segments(rows)
    for i, segment in enumerate(segments):
        if segment.level:
            above = next(s for s in segments[:i][::-1] if s.level == segment.level - 1)
            assert above.stop == segment.start
            assert rows[above.row][: above.stop] == rows[segment.row][: above.stop]
        else:
            assert segment.start == 0


# ---- speed ---------------------------------------------------------------------------------------


def test_a_data_set_of_600_000_tokens_takes_a_moment():
    rng = random.Random(0)
    system = [rng.randrange(100_000) for _ in range(300)]
    questions = [[rng.randrange(100_000) for _ in range(20)] for _ in range(147)]
    rows = [
        (*system, *rng.choice(questions), *(rng.randrange(100_000) for _ in range(80)))
        for _ in range(1500)
    ]
    start = time.perf_counter()
    counted = statistics(rows)
    tree, segments = layout(rows), shared_segments(rows)
    assert time.perf_counter() - start < 3  # 0.15 s where nothing else runs
    assert counted.nodes == len(tree.ids)
    assert segments[0].n_tokens == 300
    assert segments[0].rows == 1500
