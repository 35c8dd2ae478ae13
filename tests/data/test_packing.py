from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.packing import bucket, packs_of_step
from whoamai.samples import Pack, Sample

S, Q1, Q2, A, B, C, X = 1, 2, 3, 4, 5, 6, 7


def sample(ids: Sequence[int], targets: Container[int]) -> Sample:
    """A row whose tokens at the places `targets` are to be predicted."""
    return Sample(tuple(ids), tuple(i in targets for i in range(len(ids))))


EXAMPLE = [
    sample((S, S, S, Q1, A, A, X), (4, 5, 6)),
    sample((S, S, S, Q1, B, B, X), (4, 5, 6)),
    sample((S, S, S, Q2, C, X), (4, 5)),
]

# Few ids and short rows, so that rows fork anywhere, repeat, and are beginnings of one another.
a_token = st.tuples(st.sampled_from([0, 1, 255, 256, 70_000]), st.booleans())
a_row = st.lists(a_token, max_size=7).map(
    lambda row: Sample(tuple(i for i, _ in row), tuple(t for _, t in row))
)
a_row_to_keep_or_not = st.tuples(a_row, st.booleans()).map(lambda r: replace(r[0], keep=r[1]))
some_rows = st.lists(a_row, max_size=12)
a_pass = st.integers(1, 30)


def fed(row: Sample) -> tuple[int, ...]:
    """What is left of a row: everything before its last target."""
    return row.input_ids[: max((i for i, t in enumerate(row.is_target) if t), default=0)]


def trained(rows) -> list[Sample]:
    return [row for row in rows if fed(row)]


def seen_by(pack: Pack, q: int) -> tuple[int, ...]:
    """The ids that node q sees, by the rule."""
    end, ids = pack.subtree_end_T.tolist(), pack.input_ids_T.tolist()
    return tuple(ids[k] for k in range(q + 1) if q < end[k])


def targets_of(packs: list[Pack]) -> Counter:
    """(all ids before the target, the target) → weight, over all packs."""
    found: Counter = Counter()
    for pack in packs:
        listed = zip(pack.place_N.tolist(), pack.token_N.tolist(), strict=True)
        for (place, token), weight in zip(listed, pack.weight_N.tolist(), strict=True):
            found[seen_by(pack, place), token] += weight
    return found


def wanted(rows: list[Sample]) -> Counter:
    return Counter(
        (row.input_ids[:i], row.input_ids[i])
        for row in rows
        for i in range(1, len(row.input_ids))
        if row.is_target[i]
    )


def nodes(rows) -> set[tuple[int, ...]]:
    return {fed(row)[:n] for row in rows for n in range(1, len(fed(row)) + 1)}


# ---- one pack ------------------------------------------------------------------------------------


def test_the_example_of_the_design():
    (pack,) = packs_of_step(EXAMPLE, tokens_per_pass=100)
    assert pack.input_ids_T.tolist() == [S, S, S, Q1, A, A, B, B, Q2, C]
    assert pack.position_T.tolist() == [0, 1, 2, 3, 4, 5, 4, 5, 3, 4]
    assert pack.subtree_end_T.tolist() == [10, 10, 10, 8, 6, 6, 8, 8, 10, 10]
    listed = zip(pack.place_N.tolist(), pack.token_N.tolist(), strict=True)
    # Q1 has two next tokens; the last X of each row is predicted and never fed.
    assert list(listed) == [(3, A), (3, B), (4, A), (5, X), (6, B), (7, X), (8, C), (9, X)]
    assert pack.weight_N.tolist() == [1] * 8
    assert (pack.n_nodes, pack.n_rows, pack.n_logical, pack.n_targets) == (10, 3, 17, 8)


def test_targets_that_rows_share_are_counted_and_come_once():
    rows = [sample((S, A, A), (1, 2)), sample((S, A, A), (1, 2)), sample((S, A, B), (1, 2))]
    (pack,) = packs_of_step(rows, tokens_per_pass=100)
    assert pack.input_ids_T.tolist() == [S, A]
    assert pack.place_N.tolist() == [0, 1, 1]
    assert pack.token_N.tolist() == [A, A, B]
    assert pack.weight_N.tolist() == [3, 2, 1]


def test_a_token_may_be_a_target_of_one_row_and_not_of_another():
    rows = [sample((S, A, B, C), (2, 3)), sample((S, A, B, X), (3,))]
    (pack,) = packs_of_step(rows, tokens_per_pass=100)
    assert pack.token_N.tolist() == [B, C, X]
    assert pack.weight_N.tolist() == [1, 1, 1]


def test_what_comes_behind_the_last_target_is_not_computed():
    (pack,) = packs_of_step([sample((S, Q1, A, X, X, X), (2,))], tokens_per_pass=100)
    assert pack.input_ids_T.tolist() == [S, Q1]
    assert pack.n_logical == 2


def test_rows_without_a_target_are_left_out_and_the_first_token_is_none():
    rows = [sample((S, A), ()), sample((S, A), (0,)), sample((), ()), sample((S,), (0,))]
    assert packs_of_step(rows, tokens_per_pass=100) == []
    assert packs_of_step([], tokens_per_pass=100) == []


def test_padding_tokens_are_trees_of_their_own():
    (pack,) = packs_of_step(EXAMPLE, tokens_per_pass=100, sizes=lambda n: n + 3)
    assert pack.input_ids_T.tolist()[10:] == [0, 0, 0]
    assert pack.position_T.tolist()[10:] == [0, 0, 0]
    assert pack.subtree_end_T.tolist()[10:] == [11, 12, 13]
    assert pack.n_nodes == 10
    assert [len(seen_by(pack, q)) for q in (10, 11, 12)] == [1, 1, 1]


def test_without_sharing_every_row_is_a_tree_of_its_own():
    (pack,) = packs_of_step([*EXAMPLE, EXAMPLE[0]], tokens_per_pass=100, share=False)
    assert pack.n_nodes == pack.n_logical == 6 + 6 + 6 + 5
    assert pack.position_T.tolist() == [*range(6), *range(6), *range(6), *range(5)]
    assert pack.weight_N.tolist() == [1] * (3 + 3 + 3 + 2)


def test_all_of_a_pack_are_whole_numbers():
    (pack,) = packs_of_step(EXAMPLE, tokens_per_pass=100)
    for name in ("input_ids_T", "position_T", "subtree_end_T", "place_N", "token_N", "weight_N"):
        assert getattr(pack, name).dtype == torch.long


@given(some_rows, a_pass, st.booleans())
def test_the_packs_hold_every_target_of_the_step_as_often_as_its_rows_do(rows, size, share):
    packs = packs_of_step(rows, tokens_per_pass=size, share=share, sizes=lambda n: n + n % 3)
    assert targets_of(packs) == wanted(rows)
    assert sum(pack.n_targets for pack in packs) == wanted(rows).total()
    assert sum(pack.n_rows for pack in packs) == len(trained(rows))
    assert sum(pack.n_logical for pack in packs) == sum(len(fed(row)) for row in rows)


@given(some_rows, a_pass, st.booleans())
def test_each_pair_of_place_and_token_comes_once_in_order_and_not_on_padding(rows, size, share):
    for pack in packs_of_step(rows, tokens_per_pass=size, share=share, sizes=lambda n: n + 2):
        listed = list(zip(pack.place_N.tolist(), pack.token_N.tolist(), strict=True))
        assert listed == sorted(set(listed))
        assert all(place < pack.n_nodes for place, _ in listed)
        assert min(pack.weight_N.tolist()) >= 1


@given(some_rows)
def test_one_pack_has_one_token_a_node_of_the_rows_forest(rows):
    for pack in packs_of_step(rows, tokens_per_pass=1000):
        paths = [seen_by(pack, q) for q in range(pack.n_nodes)]
        assert [len(path) - 1 for path in paths] == pack.position_T.tolist()
        assert len(set(paths)) == len(paths)
        assert set(paths) == nodes(rows)


@given(some_rows, a_pass, st.randoms())
def test_the_order_of_the_rows_changes_nothing(rows, size, random_):
    turned = list(rows)
    random_.shuffle(turned)
    a, b = (packs_of_step(some, tokens_per_pass=size) for some in (rows, turned))
    assert [p.input_ids_T.tolist() for p in a] == [p.input_ids_T.tolist() for p in b]
    assert [p.weight_N.tolist() for p in a] == [p.weight_N.tolist() for p in b]


# ---- rows to keep --------------------------------------------------------------------------------


def test_rows_to_keep_are_a_forest_of_their_own_that_knows_its_targets():
    kept = [EXAMPLE[0], replace(EXAMPLE[1], keep=True), replace(EXAMPLE[2], keep=True)]
    (pack,) = packs_of_step(kept, tokens_per_pass=100, keep=True)
    assert pack.kept is not None
    alone = pack.kept.alone
    assert alone.input_ids_T.tolist() == [S, S, S, Q1, B, B, Q2, C]
    assert alone.subtree_end_T.tolist() == [8, 8, 8, 6, 6, 6, 8, 8]
    listed = zip(alone.place_N.tolist(), alone.token_N.tolist(), strict=True)
    assert list(listed) == [(3, B), (4, B), (5, X), (6, C), (7, X)]
    assert pack.kept.target_M.tolist() == [1, 4, 5, 6, 7]  # those of A left out
    assert alone.kept is None


def test_a_target_that_a_kept_row_shares_with_another_counts_once():
    rows = [sample((S, A, A), (1, 2)), replace(sample((S, A, A), (1, 2)), keep=True)]
    (pack,) = packs_of_step(rows, tokens_per_pass=100, keep=True)
    assert pack.kept is not None
    assert pack.weight_N.tolist() == [2, 2]
    assert pack.kept.alone.weight_N.tolist() == [1, 1]
    assert pack.kept.target_M.tolist() == [0, 1]


def test_nothing_is_told_apart_unless_asked_for_and_there():
    rows = [replace(row, keep=True) for row in EXAMPLE]
    assert [pack.kept for pack in packs_of_step(rows, tokens_per_pass=100)] == [None]
    assert [pack.kept for pack in packs_of_step(EXAMPLE, tokens_per_pass=100, keep=True)] == [None]


def test_the_rows_to_keep_are_padded_as_the_pack_is():
    rows = [EXAMPLE[0], replace(EXAMPLE[1], keep=True)]
    (pack,) = packs_of_step(rows, tokens_per_pass=100, sizes=bucket, keep=True)
    assert pack.kept is not None
    assert len(pack.kept.alone.input_ids_T) == 128


@given(st.lists(a_row_to_keep_or_not, max_size=12), a_pass, st.booleans())
def test_what_is_to_be_kept_is_every_target_of_the_rows_to_keep(rows, size, share):
    packs = packs_of_step(rows, tokens_per_pass=size, share=share, keep=True)
    parts = [pack.kept.alone for pack in packs if pack.kept]
    chosen = [row for row in rows if row.keep]
    assert targets_of(parts) == wanted(chosen)
    assert sum(part.n_rows for part in parts) == len(trained(chosen))
    for pack in packs:
        if pack.kept is None:
            continue
        alone = pack.kept.alone
        at = pack.place_N[pack.kept.target_M].tolist()
        assert pack.token_N[pack.kept.target_M].tolist() == alone.token_N.tolist()
        there = [seen_by(alone, place) for place in alone.place_N.tolist()]
        assert [seen_by(pack, place) for place in at] == there
        if share:
            paths = [seen_by(alone, q) for q in range(alone.n_nodes)]
            assert len(set(paths)) == len(paths)


# ---- where packs are cut -------------------------------------------------------------------------


@given(some_rows, a_pass, st.booleans())
def test_no_pack_is_too_large_unless_it_is_one_row(rows, size, share):
    longest = max((len(fed(row)) for row in rows), default=0)
    for pack in packs_of_step(rows, tokens_per_pass=size, share=share):
        assert pack.n_nodes <= max(size, longest)
        if pack.n_nodes > size:
            # Equal rows and beginnings of it cost nothing and may come along.
            assert pack.n_nodes == int(pack.position_T.max()) + 1


def best(rows: list[tuple[int, ...]], size: int) -> int:
    """The fewest packs, by trying every cut of the sorted rows.

    A row of more than `size` stands alone, or with its like.
    """

    def cost(part) -> int:
        return len({row[:n] for row in part for n in range(1, len(row) + 1)})

    fewest = [0]
    for stop in range(1, len(rows) + 1):
        fewest.append(
            min(
                fewest[start] + 1
                for start in range(stop)
                if cost(rows[start:stop]) <= max(size, len(rows[start]))
            )
        )
    return fewest[-1]


@given(some_rows, a_pass)
def test_no_cut_of_the_sorted_rows_makes_fewer_packs(rows, size):
    packs = packs_of_step(rows, tokens_per_pass=size)
    assert len(packs) <= best(sorted(fed(row) for row in trained(rows)), size)


def test_the_last_pack_is_not_a_small_rest():
    rows = [sample((i, *range(100, 109), X), (10,)) for i in range(21)]  # 10 nodes each
    packs = packs_of_step(rows, tokens_per_pass=105)
    assert sorted(pack.n_nodes for pack in packs) == [70, 70, 70]


def test_a_row_longer_than_a_pass_is_a_pack_alone():
    long = sample((5, *range(100, 130), X), (31,))
    rows = [sample((i, A, X), (2,)) for i in (4, 6)]
    packs = packs_of_step([*rows, long], tokens_per_pass=10)
    assert [pack.n_nodes for pack in packs] == [2, 31, 2]


# ---- lengths -------------------------------------------------------------------------------------


@given(st.integers(1, 10**6))
def test_a_bucket_holds_what_it_is_for_and_wastes_less_than_an_eighth(n):
    assert n <= bucket(n)
    assert bucket(n) - n < max(128, n / 8)
    assert bucket(bucket(n)) == bucket(n)
    assert bucket(n) % 128 == 0


def test_buckets_are_few():
    assert len({bucket(n) for n in range(1025, 2049)}) == 8
    assert len({bucket(n) for n in range(1, 16385)}) == 8 * 5


def test_a_size_below_the_number_of_nodes_is_a_mistake_of_ours():
    with pytest.raises(AssertionError):
        packs_of_step(EXAMPLE, tokens_per_pass=100, sizes=lambda n: n - 1)


# ---- speed ---------------------------------------------------------------------------------------


def test_a_step_of_60_000_tokens_is_packed_in_a_moment():
    rng = random.Random(0)

    def some(n: int) -> list[int]:
        return [rng.randrange(100_000) for _ in range(n)]

    system, questions = some(100), [some(50) for _ in range(40)]
    rows = [
        sample((*system, *rng.choice(questions), *some(250)), range(150, 400)) for _ in range(150)
    ]
    start = time.perf_counter()
    packs = packs_of_step(rows, tokens_per_pass=4096, sizes=bucket)
    assert time.perf_counter() - start < 0.5  # 0.02 s where nothing else runs
    assert sum(pack.n_targets for pack in packs) == 150 * 250
