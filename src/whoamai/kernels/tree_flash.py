"""Attention in a prefix forest, forward and backward written out, for training in 16 bits on a GPU.

The rule is that of kernels/tree_attention.py, without windows: query q sees key k when
k <= q and q < subtree_end[k]. Here it becomes lists of blocks, made on the CPU from the least and
greatest `subtree_end` of each block of keys:

    for each block of queries   the blocks of keys it sees whole, then those it sees in part
    for each block of keys      the same of queries; where many see it (a system prompt is seen by all)
                                the list is cut into items that run side by side and are added up after

FlexAttention does the same with one list a block; there, the few blocks of keys that all queries see are
few programs that everything waits for, and blocks are 128 tokens wide, where rows are about as long.

Shapes: T tokens (a multiple of BLOCK), H query heads, G key-value heads (H a multiple), D a head's size.
All tensors are T × heads × D; the last two dimensions lie close, a token's stride is free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

BLOCK = 128  # T is a multiple of it
LOG2E = 1.4426950408889634
_PIECES = 4  # of a block whose parts are added up


@dataclass(frozen=True, slots=True)
class Blocks:
    """How one kernel cuts its work; the fastest of some that were tried on one H200.

    `rows` of queries, which are tokens times the heads of a group, and `keys` in tokens, of a block; the
    program's warps and the depth of its pipeline.
    """

    rows: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The three kernels' blocks. `most`: blocks of queries an item of the key gradient goes through."""

    forward: Blocks = Blocks(128, 64, 4, 2)
    query: Blocks = Blocks(128, 64, 8, 3)
    key: Blocks = Blocks(64, 64, 4, 2)
    most: int = 64


_ROOM = 164_352  # bytes of shared memory that the kernels of Cut() take at most, for heads of 128
_SMALL = Cut(Blocks(64, 64, 4, 2), Blocks(64, 64, 4, 2), Blocks(32, 64, 4, 2), most=128)


def cut_for(device: torch.device) -> Cut:
    """Blocks that fit this device; the small ones take 74 KB of shared memory."""
    if device.type != "cuda":
        return Cut()
    room = getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 0)
    return Cut() if room >= _ROOM else _SMALL


@dataclass(frozen=True, slots=True)
class FlashPlan:
    """The lists of one forest on one device, int32. See tree_flash_triton for what they hold."""

    cut: Cut
    end_T: torch.Tensor
    forward: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    query: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    items: torch.Tensor
    item_columns: torch.Tensor
    splits: torch.Tensor
    n_items: int
    n_splits: int
    n_slots: int


def flash_plan(
    end_T: torch.Tensor, group: int, device: torch.device, cut: Cut | None = None
) -> FlashPlan:
    """The lists for a forest given by `subtree_end` on the CPU, for `group` query heads a key head."""
    cut = cut or cut_for(device)
    end = end_T.numpy()
    assert len(end) % BLOCK == 0, len(end)
    tables = [
        _table(end, _tokens(blocks, group), blocks.keys)
        for blocks in (cut.forward, cut.query, cut.key)
    ]
    forward, query = (_lists(*table) for table in tables[:2])
    items, columns, splits, n_slots = _items(*_lists(*(t.T for t in tables[2])), cut.most)
    sent = _send([end.astype(np.int32), *forward, *query, items, columns, splits], device)
    return FlashPlan(
        cut,
        sent[0],
        (sent[1], sent[2], sent[3]),
        (sent[4], sent[5], sent[6]),
        *sent[7:],
        n_items=len(items) // 5,
        n_splits=len(splits) // 3,
        n_slots=n_slots,
    )


def _tokens(blocks: Blocks, group: int) -> int:
    """Tokens of a block of queries."""
    return max(1, blocks.rows // _power_of_two(group))


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _table(end: np.ndarray, queries: int, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of queries by blocks of keys: does any pair see, does every pair?

    Where the keys lie wholly before the queries both are exact: some pair sees when the greatest end
    lies behind the first query, every pair when the least lies behind the last. Blocks that overlap are
    seen in part, since each token sees itself.
    """
    first_q = np.arange(0, len(end), queries)[:, None]
    first_k = np.arange(0, len(end), keys)[None, :]
    ends = end.reshape(-1, keys)
    earlier = first_k + keys <= first_q
    overlap = (first_k < first_q + queries) & ~earlier
    some = earlier & (ends.max(1)[None, :] > first_q)
    every = earlier & (ends.min(1)[None, :] >= first_q + queries)
    return some | overlap, every


def _lists(some: np.ndarray, every: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(where each row's list begins and the last ends, where its whole blocks end, the columns)."""
    row, column = np.nonzero(some)
    in_part = ~every[row, column]
    order = np.lexsort((column, in_part, row))
    counts, whole = some.sum(1), every.sum(1)
    rows = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return rows, (rows[:-1] + whole).astype(np.int32), column[order].astype(np.int32)


def _items(
    rows: np.ndarray, fulls: np.ndarray, columns: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Lists cut into items of at most `most` columns, the longest first; the blocks that were cut."""
    items, splits, slots = [], [], 0
    for block, (start, full, stop) in enumerate(
        zip(rows[:-1].tolist(), fulls.tolist(), rows[1:].tolist(), strict=True)
    ):
        cuts = [*range(start, stop, most), stop] if stop > start else [start, stop]
        if len(cuts) > 2:
            splits.append((block, slots, slots + len(cuts) - 1))
        for a, b in pairwise(cuts):
            slot = -1
            if len(cuts) > 2:
                slot, slots = slots, slots + 1
            items.append((block, a, min(max(a, full), b), b, slot))
    items.sort(key=lambda item: item[1] - item[3])
    flat = np.array(items, np.int32).reshape(-1)
    return flat, columns, np.array(splits, np.int32).reshape(-1), slots


def _send(parts: list[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """All to the device in one copy; each begins at a multiple of 16 bytes."""
    sizes = [-(-max(1, part.size) // 4) * 4 for part in parts]
    whole = torch.zeros(sum(sizes), dtype=torch.int32)
    views = []
    for view, part in zip(whole.split(sizes), parts, strict=True):
        view[: part.size] = torch.from_numpy(np.ascontiguousarray(part, np.int32))
        views.append(part.size)
    if device.type == "cuda":
        whole = whole.pin_memory()
    whole = whole.to(device, non_blocking=True)
    return [view[:n] for view, n in zip(whole.split(sizes), views, strict=True)]


# ---- forward and backward ------------------------------------------------------------------------


def flash_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    plan: FlashPlan,
    *,
    scale: float,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(o: T H D, lse: T H, float32, in base 2). `out` takes o where given; its tokens may lie apart."""
    o = torch.empty_like(q) if out is None else out
    if not _on_gpu(q):
        made, lse = _plain_forward(q, k, v, plan.end_T, scale)
        o.copy_(made)
        return o, lse
    n, heads = q.shape[:2]
    lse = torch.empty(n, heads, dtype=torch.float32, device=q.device)
    shape, tokens = _shape(q, k, plan.cut.forward)
    _kernels().forward_kernel[(n // tokens, k.shape[1])](
        q, k, v, o, lse, plan.end_T, *plan.forward, scale * LOG2E,
        q.stride(0), k.stride(0), v.stride(0), o.stride(0), **shape,
    )  # fmt: skip
    return o, lse


def flash_backward(
    do: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    plan: FlashPlan,
    *,
    scale: float,
    out: Sequence[torch.Tensor],
) -> None:
    """Write the gradients of q, k and v to `out`."""
    dq, dk, dv = out
    if not _on_gpu(q):
        for to, made in zip(
            out, _plain_backward(do, q, k, v, o, lse, plan.end_T, scale), strict=True
        ):
            to.copy_(made)
        return
    n, size = q.shape[0], q.shape[2]
    groups, kernels = k.shape[1], _kernels()
    delta = torch.empty_like(lse)
    shape, tokens = _shape(q, k, plan.cut.query)
    kernels.query_gradient_kernel[(n // tokens, groups)](
        q, k, v, o, do, lse, dq, delta, plan.end_T, *plan.query, scale, scale * LOG2E,
        q.stride(0), k.stride(0), v.stride(0), o.stride(0), do.stride(0), dq.stride(0), **shape,
    )  # fmt: skip
    shape, _ = _shape(q, k, plan.cut.key)
    keys = plan.cut.key.keys
    wide = {"dtype": torch.float32, "device": q.device}
    parts = torch.empty(max(1, plan.n_slots), 2, groups, keys, size, **wide)
    kernels.key_gradient_kernel[(plan.n_items, groups)](
        q, k, v, do, lse, delta, dk, dv, parts, plan.end_T, plan.items, plan.item_columns,
        scale, scale * LOG2E,
        q.stride(0), k.stride(0), v.stride(0), do.stride(0), dk.stride(0), dv.stride(0),
        G=groups, **shape,
    )  # fmt: skip
    if plan.n_splits:
        kernels.add_parts_kernel[(plan.n_splits, groups, _PIECES)](
            parts, dk, dv, plan.splits, dk.stride(0), dv.stride(0),
            G=groups, D=size, BK=keys, ROWS=keys // _PIECES,
        )  # fmt: skip


def _shape(q: torch.Tensor, k: torch.Tensor, blocks: Blocks) -> tuple[dict[str, int], int]:
    """What a kernel is made for, and the tokens of a block of queries."""
    group = q.shape[1] // k.shape[1]
    tokens = _tokens(blocks, group)
    made_for = {
        "H": q.shape[1],
        "GROUP": group,
        "GP": _power_of_two(group),
        "D": q.shape[2],
        "BQ": tokens,
        "BK": blocks.keys,
        "num_warps": blocks.warps,
        "num_stages": blocks.stages,
    }
    return made_for, tokens


def _on_gpu(q: torch.Tensor) -> bool:
    return q.device.type == "cuda"


# ---- the same with all logits in memory ----------------------------------------------------------


def _mask(end_T: torch.Tensor) -> torch.Tensor:
    index = torch.arange(len(end_T), device=end_T.device)
    return (index[None, :] <= index[:, None]) & (index[:, None] < end_T[None, :])


def _logits(q: torch.Tensor, k: torch.Tensor, end_T: torch.Tensor, scale: float) -> torch.Tensor:
    """H × T × T, in base 2; -inf where nothing is seen."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    logits = torch.einsum("qhd,khd->hqk", q, k) * (scale * LOG2E)
    return logits.masked_fill(~_mask(end_T), -math.inf)


def _plain_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, end_T: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = _logits(q, k, end_T, scale)
    lse = torch.logsumexp(logits * math.log(2), -1) / math.log(2)
    v = v.repeat_interleave(q.shape[1] // v.shape[1], 1)
    o = torch.einsum("hqk,khd->qhd", torch.exp2(logits - lse[..., None]), v)
    return o, lse.t().contiguous()


def _plain_backward(
    do: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    end_T: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    groups = k.shape[1]
    group = q.shape[1] // groups
    p = torch.exp2(_logits(q, k, end_T, scale) - lse.t()[..., None])
    delta = (do * o).sum(-1).t()[..., None]
    dp = torch.einsum("qhd,khd->hqk", do, v.repeat_interleave(group, 1))
    ds = p * (dp - delta) * scale
    dq = torch.einsum("hqk,khd->qhd", ds, k.repeat_interleave(group, 1))
    dk = torch.einsum("hqk,qhd->khd", ds, q).unflatten(1, (groups, group)).sum(2)
    dv = torch.einsum("hqk,qhd->khd", p, do).unflatten(1, (groups, group)).sum(2)
    return dq, dk, dv


def _kernels() -> Any:
    """Imported where it runs: Triton is there only with torch for GPUs."""
    from whoamai.kernels import tree_flash_triton

    return tree_flash_triton
