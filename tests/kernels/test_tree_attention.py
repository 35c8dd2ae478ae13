from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from tests.trees import as_tensors, random_forest, random_qkv
from whoamai.kernels import tree_attention as kernels
from whoamai.kernels.tree_attention import (
    BLOCK,
    Tree,
    block_bounds,
    block_mask,
    reference_attention,
    tree_attention,
    tree_mask_TT,
    written_out,
)

CPU = torch.device("cpu")


def forest_of(backs: list[int]):
    """Each number: how much less deep than it could be the next node is."""
    depths = [0]
    for back in backs:
        depths.append(max(0, depths[-1] + 1 - back))
    return as_tensors(depths)


some_forest = st.lists(st.one_of(st.just(0), st.integers(0, 40)), max_size=40).map(forest_of)
a_window = st.one_of(st.none(), st.integers(1, 20))
# Lengths around the size of a block, and forests from one long chain to nearly all roots.
large_forest = st.builds(
    lambda n, seed, fork: random_forest(n, seed, fork=fork),
    st.sampled_from([1, 50, 127, 128, 129, 256, 300, 500]),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.003, 0.02, 0.3]),
)
a_large_window = st.one_of(st.none(), st.integers(1, 300))


# ---- the rule ------------------------------------------------------------------------------------


def test_the_example_of_the_design():
    end = torch.tensor([10, 10, 10, 8, 6, 6, 8, 8, 10, 10])
    depth = torch.tensor([0, 1, 2, 3, 4, 5, 4, 5, 3, 4])
    mask = tree_mask_TT(end, depth, None)
    assert mask[7].nonzero().flatten().tolist() == [0, 1, 2, 3, 6, 7]
    assert mask[9].nonzero().flatten().tolist() == [0, 1, 2, 8, 9]
    windowed = tree_mask_TT(end, depth, 3)
    assert windowed[7].nonzero().flatten().tolist() == [3, 6, 7]
    assert windowed[9].nonzero().flatten().tolist() == [2, 8, 9]  # by depth, not by distance


@given(some_forest, a_window)
def test_each_token_sees_the_path_above_it_up_to_the_window(forest, window):
    mask = tree_mask_TT(*forest, window)
    path: list[int] = []
    for q, depth in enumerate(forest[1].tolist()):
        path = [*path[:depth], q]
        seen = path if window is None else path[-window:]
        assert mask[q].nonzero().flatten().tolist() == seen


# ---- SDPA and the written-out way against the reference ------------------------------------------


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("window", [None, 1, 7, 1000])
def test_sdpa_with_the_mask_is_the_reference(heads, groups, window):
    end, depth = random_forest(90, seed=heads)
    q, k, v = random_qkv(90, heads=heads, groups=groups, size=16, seed=1)
    got = tree_attention(q, k, v, Tree(end, depth), scaling=0.3, window=window)
    want = reference_attention(q, k, v, end, depth, scaling=0.3, window=window)
    assert (got - want).abs().max() < 1e-5


@given(some_forest, a_window)
def test_gradients_are_those_of_the_reference(forest, window):
    n = len(forest[0])
    tensors = [t.requires_grad_() for t in random_qkv(n, heads=4, groups=2, size=8, seed=n)]
    weights = random_qkv(n, heads=4, groups=4, size=8, seed=n + 1)[0]
    got = tree_attention(*tensors, Tree(*forest), scaling=0.4, window=window)
    want = reference_attention(*tensors, *forest, scaling=0.4, window=window)
    for a, b in zip(
        torch.autograd.grad((got * weights).sum(), tensors),
        torch.autograd.grad((want * weights).sum(), tensors),
        strict=True,
    ):
        assert (a - b).abs().max() < 1e-5


def test_values_may_be_of_another_size_than_keys():
    end, depth = random_forest(40, seed=0)
    q, k, _ = random_qkv(40, heads=4, groups=2, size=16, seed=1)
    v = random_qkv(40, heads=4, groups=2, size=8, seed=2)[2]
    got = tree_attention(q, k, v, Tree(end, depth), scaling=0.25)
    assert got.shape == (1, 4, 40, 8)
    assert (got - reference_attention(q, k, v, end, depth, scaling=0.25)).abs().max() < 1e-5


def test_written_out_is_what_sdpa_computes():
    end, depth = random_forest(60, seed=3)
    q, k, v = random_qkv(60, heads=4, groups=2, size=16, seed=1)
    tree = Tree(end, depth)
    got = written_out(q, k, v, tree.mask_TT(9, CPU), scaling=0.3)
    assert (got - tree_attention(q, k, v, tree, scaling=0.3, window=9)).abs().max() < 1e-5


def test_capped_logits_are_bent():
    end, depth = as_tensors([0, 1])
    q, k, v = (torch.tensor(x).view(1, 1, 2, 1) for x in ([0.0, 1.0], [3.0, -1.0], [1.0, 0.0]))
    got = tree_attention(q, k, v, Tree(end, depth), scaling=1.0, softcap=2.0)
    high, low = math.exp(2 * math.tanh(1.5)), math.exp(2 * math.tanh(-0.5))
    assert got[0, 0, 1, 0].item() == pytest.approx(high / (high + low))


def test_a_sink_takes_its_share_and_gives_nothing():
    end, depth = as_tensors([0, 1])
    q, k, v = (torch.tensor(x).view(1, 1, 2, 1) for x in ([0.0, 1.0], [3.0, -1.0], [1.0, 1.0]))
    sinks = torch.tensor([2.0])
    got = tree_attention(q, k, v, Tree(end, depth), scaling=1.0, sinks_H=sinks)
    total = math.exp(3) + math.exp(-1)
    assert got[0, 0, 1, 0].item() == pytest.approx(total / (total + math.exp(2)))


def test_dropout_drops():
    end, depth = random_forest(50, seed=3)
    q, k, v = random_qkv(50, heads=2, groups=2, size=16, seed=1)
    plain, dropped = (
        tree_attention(q, k, v, Tree(end, depth), scaling=0.3, dropout=p) for p in (0.0, 0.5)
    )
    assert not torch.allclose(plain, dropped)


def test_under_autocast_everything_is_of_one_type():
    end, depth = random_forest(50, seed=3)
    q, k, v = random_qkv(50, heads=2, groups=2, size=16, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        got = tree_attention(q, k, v.bfloat16(), Tree(end, depth), scaling=0.3)
        capped = tree_attention(q, k, v.bfloat16(), Tree(end, depth), scaling=0.3, softcap=50.0)
    assert got.dtype == capped.dtype == torch.bfloat16


def test_a_tree_of_another_pack_is_refused():
    q, k, v = random_qkv(50, heads=2, groups=2, size=16, seed=1)
    with pytest.raises(AssertionError):
        tree_attention(q, k, v, Tree(*random_forest(49, seed=3)), scaling=0.3)


# ---- masks are made once -------------------------------------------------------------------------


def test_a_mask_is_made_once_for_each_window_that_is_felt():
    tree = Tree(*as_tensors([0, 1, 2, 3, 2]))
    assert tree.mask_TT(2, CPU) is tree.mask_TT(2, CPU)
    assert tree.mask_TT(4, CPU) is tree.mask_TT(None, CPU)  # no path has more than 4
    assert tree.mask_TT(3, CPU) is not tree.mask_TT(None, CPU)
    assert tree.bias_TT(4, CPU, torch.float32) is tree.bias_TT(None, CPU, torch.float32)
    assert tree.bias_TT(None, CPU, torch.bfloat16).dtype == torch.bfloat16
    assert tree.block_mask(4096, CPU) is tree.block_mask(None, CPU)


# ---- FlexAttention's block mask ------------------------------------------------------------------


def mask_mod_of(forest, window):
    end, depth = forest

    def mask_mod(b, h, q, k):
        seen = (k <= q) & (q < end[k])
        return seen if window is None else seen & (depth[q] - depth[k] < window)

    return mask_mod


def tables(blocks, of_queries: bool = False):
    """(partial, full) block tables of a BlockMask, read from its lists of blocks."""
    n = blocks.kv_indices.shape[-1]
    side = "q" if of_queries else "kv"
    found = []
    for prefix in ("", "full_"):
        count = getattr(blocks, f"{prefix}{side}_num_blocks")[0, 0].tolist()
        index = getattr(blocks, f"{prefix}{side}_indices")[0, 0].tolist()
        table = torch.zeros(n, n, dtype=torch.bool)
        for row, (c, columns) in enumerate(zip(count, index, strict=True)):
            assert sorted(columns) == list(range(n))
            assert columns[:c] == sorted(columns[:c])
            table[row, columns[:c]] = True
        found.append(table)
    return found


@given(large_forest)
def test_without_a_window_the_block_mask_is_what_looking_at_all_pairs_gives(forest):
    n = len(forest[0])
    want = create_block_mask(mask_mod_of(forest, None), None, None, n, n, device="cpu")
    got = block_mask(*forest, None, "cpu")
    for of_queries in (False, True):
        for a, b in zip(tables(got, of_queries), tables(want, of_queries), strict=True):
            assert torch.equal(a, b)
    assert got.seq_lengths == want.seq_lengths
    assert got.BLOCK_SIZE == want.BLOCK_SIZE == (BLOCK, BLOCK)


@given(large_forest, a_large_window)
def test_with_a_window_nothing_seen_is_left_out_and_nothing_unseen_is_called_full(forest, window):
    n = len(forest[0])
    some, every = block_bounds(forest[0].numpy(), forest[1].numpy(), window)
    padded = torch.zeros(len(some) * BLOCK, len(some) * BLOCK, dtype=torch.bool)
    padded[:n, :n] = tree_mask_TT(*forest, window)
    pairs = padded.view(len(some), BLOCK, len(some), BLOCK).sum((1, 3)).numpy()
    assert not (pairs > 0)[~some].any()
    assert (pairs == BLOCK * BLOCK)[every].all()
    assert some[every].all()


def test_with_a_window_most_of_a_long_chain_is_skipped():
    some, every = block_bounds(*(t.numpy() for t in as_tensors(list(range(1280)))), 200)
    assert some.sum() == 10 + 9 + 8  # of 55 without: each block itself and the two before
    assert every.sum() == 0
    some, every = block_bounds(*(t.numpy() for t in as_tensors(list(range(1280)))), 400)
    assert (some.sum(), every.sum()) == (10 + 9 + 8 + 7 + 6, 9 + 8)


@given(large_forest, a_large_window)
def test_partial_and_full_blocks_are_apart_and_turned_for_the_backward_pass(forest, window):
    blocks = block_mask(*forest, window, "cpu")
    partial, full = tables(blocks)
    assert not (partial & full).any()
    turned_partial, turned_full = tables(blocks, of_queries=True)
    assert torch.equal(turned_partial, partial.T)
    assert torch.equal(turned_full, full.T)


@pytest.mark.parametrize("n", [100, 256, 300])
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_flex_attention_with_the_block_mask_is_the_boolean_mask(n, window, softcap, monkeypatch):
    monkeypatch.setattr(kernels, "_compiled", lambda: flex_attention)  # without a GPU: not compiled
    forest = random_forest(n, seed=n, fork=0.02)
    q, k, v = random_qkv(n, heads=4, groups=2, size=16, seed=1)
    tree = Tree(*forest)
    want = tree_attention(q, k, v, tree, scaling=0.3, window=window, softcap=softcap)
    monkeypatch.setattr(kernels, "_flex_runs", lambda *_: True)
    got = tree_attention(q, k, v, tree, scaling=0.3, window=window, softcap=softcap)
    assert (got - want).abs().max() < 1e-5


@pytest.mark.parametrize("how", ["dense", "dropout", "sinks"])
def test_flex_attention_is_left_aside_where_it_cannot_do_it(how, monkeypatch):
    monkeypatch.setattr(kernels, "_flex_runs", lambda *_: True)
    monkeypatch.setattr(kernels, "_compiled", lambda: pytest.fail("was used"))
    q, k, v = random_qkv(20, heads=2, groups=2, size=16, seed=1)
    more = {"dense": {}, "dropout": {"dropout": 0.1}, "sinks": {"sinks_H": torch.zeros(2)}}[how]
    tree = Tree(*random_forest(20, seed=1), dense=how == "dense")
    assert tree_attention(q, k, v, tree, scaling=0.3, **more).shape == q.shape


def test_flex_attention_is_not_for_the_cpu():
    assert not kernels._flex_runs(*random_qkv(4, heads=1, groups=1, size=16, seed=0))
