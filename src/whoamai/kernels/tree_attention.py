"""Attention in a prefix forest: each token sees its own path and nothing else.

    query q sees key k   when   k <= q  and  q < subtree_end[k]
    and under a window   when   position[q] - position[k] < window

`position` is depth, so a window counts the tokens of a row and never what lies between them in the pack.

Four ways to compute it, by what is there:

    CUDA, bfloat16 or float16   FlexAttention, which skips blocks of 128 x 128 that nobody sees
    CPU                         SDPA for stretches of 128 queries, each with the keys it sees
    elsewhere                   SDPA (scaled_dot_product_attention) with the rule as a mask of T · T
    logits capped, or sinks     written out with a boolean mask; SDPA knows neither

and a fifth, `reference_attention`, which follows each path with a loop, to check the others by.

Shapes: B is 1 (a pack is one sequence), H heads of the query, G of the keys and values (H a multiple of
it), T tokens, D numbers a head, E numbers a head of the values (mostly D).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

BLOCK = 128  # tokens on each side of a block of FlexAttention's mask
_FLEX_FROM = 128  # queries
QUERIES = 128  # of a stretch on the CPU


def tree_mask_TT(
    subtree_end_T: torch.Tensor, position_T: torch.Tensor, window: int | None
) -> torch.Tensor:
    """The rule as a boolean tensor: may the query of this row see the key of this column?"""
    index_T = torch.arange(len(subtree_end_T), device=subtree_end_T.device)
    query_T1, key_1T = index_T[:, None], index_T[None, :]
    mask_TT = (key_1T <= query_T1) & (query_T1 < subtree_end_T[None, :])
    if window is not None:
        mask_TT &= position_T[:, None] - position_T[None, :] < window
    return mask_TT


@dataclass(frozen=True, slots=True)
class Stretch:
    """Q queries from `start` to `stop`, the K keys that any of them sees, 0 or -inf for each pair."""

    start: int
    stop: int
    first_key: int
    keys_K: torch.Tensor
    bias_QK: torch.Tensor

    def of(self, keys_BHTD: torch.Tensor) -> torch.Tensor:
        """Keys or values that are seen. Where they lie in one piece they are a view and no copy."""
        first, n = self.first_key, len(self.keys_K)
        if first + n == self.stop:  # all up to the stretch's end
            return keys_BHTD[:, :, first : self.stop]
        return keys_BHTD.index_select(2, self.keys_K)


class Tree:
    """The shape of one pack, and the masks made from it so far: one for each window and device.

    Made from tensors on the CPU, so that nothing has to wait for a GPU. With `dense` FlexAttention is
    not used wherever the model lies.
    """

    def __init__(
        self, subtree_end_T: torch.Tensor, position_T: torch.Tensor, *, dense: bool = False
    ) -> None:
        self._subtree_end_T = subtree_end_T.cpu()
        self._position_T = position_T.cpu()
        self._depth = int(position_T.max()) + 1 if len(position_T) else 0
        self._made: dict[tuple[Any, int | None, torch.device], Any] = {}
        self.dense = dense

    def __len__(self) -> int:
        return len(self._subtree_end_T)

    def mask_TT(self, window: int | None, device: torch.device) -> torch.Tensor:
        """`tree_mask_TT` on `device`."""
        window = self._felt(window)
        key = ("mask", window, device)
        if key not in self._made:
            self._made[key] = tree_mask_TT(
                self._subtree_end_T.to(device), self._position_T.to(device), window
            )
        return self._made[key]

    def bias_TT(self, window: int | None, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """The rule as numbers to add to the logits: 0 where the key is seen, else -inf.

        SDPA makes these of a boolean mask, anew in every layer, and keeps each for the backward pass.
        """
        window = self._felt(window)
        key = (dtype, window, device)
        if key not in self._made:
            mask_TT = self.mask_TT(window, device)
            bias_TT = torch.zeros_like(mask_TT, dtype=dtype)
            self._made[key] = bias_TT.masked_fill_(~mask_TT, float("-inf"))
        return self._made[key]

    def stretches(
        self, window: int | None, device: torch.device, dtype: torch.dtype
    ) -> list[Stretch]:
        """The queries QUERIES at a time, each time with the keys that any of them sees.

        Depth first, these are the path above the stretch and the stretch itself. With stretches of 5,
        rows A, B, C of docs/design.md give S S S Q1 a, and then S S S Q1 (a b b Q2 c): the first leaf a
        has ended before. So the work of a token grows with its depth, not with the pack's length.
        """
        window = self._felt(window)
        key = (("stretches", dtype), window, device)
        if key not in self._made:
            self._made[key] = [
                self._stretch(start, min(start + QUERIES, len(self)), window, device, dtype)
                for start in range(0, len(self), QUERIES)
            ]
        return self._made[key]

    def _stretch(
        self, start: int, stop: int, window: int | None, device: torch.device, dtype: torch.dtype
    ) -> Stretch:
        end_T, position_T = self._subtree_end_T, self._position_T
        keys_K = (end_T[:stop] > start).nonzero().flatten()
        query_Q1 = torch.arange(start, stop)[:, None]
        seen_QK = (keys_K <= query_Q1) & (query_Q1 < end_T[keys_K])
        if window is not None:
            seen_QK &= position_T[query_Q1] - position_T[keys_K] < window
        bias_QK = torch.zeros(seen_QK.shape, dtype=dtype).masked_fill_(~seen_QK, float("-inf"))
        return Stretch(start, stop, int(keys_K[0]), keys_K.to(device), bias_QK.to(device))

    def block_mask(self, window: int | None, device: torch.device) -> Any:
        """The rule as FlexAttention's BlockMask on `device`."""
        window = self._felt(window)
        key = ("blocks", window, device)
        if key not in self._made:
            self._made[key] = block_mask(self._subtree_end_T, self._position_T, window, device)
        return self._made[key]

    def _felt(self, window: int | None) -> int | None:
        """None for a window that no path is longer than: then it is as if there were none."""
        return None if window is None or window >= self._depth else window


def tree_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tree: Tree,
    *,
    scaling: float,
    dropout: float = 0.0,
    window: int | None = None,
    softcap: float | None = None,
    sinks_H: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of query (1 H T D) to key (1 G T D) and value (1 G T E) in `tree`: 1 H T E.

    `softcap` bends the logits to softcap * tanh(logit / softcap); `sinks_H` is a logit a head that takes
    part in the softmax and stands for no value (gpt-oss).
    """
    assert query.shape[0] == 1, "a pack is one sequence"
    assert query.shape[2] == key.shape[2] == len(tree), "the tree is of another pack"
    query, key, value = _of_one_type(query, key, value)
    if not tree.dense and dropout == 0 and sinks_H is None and _flex_runs(query, key, value):
        return _flex(query, key, value, tree.block_mask(window, query.device), scaling, softcap)
    if softcap is not None or sinks_H is not None:
        mask_TT = tree.mask_TT(window, query.device)
        more = {"dropout": dropout, "softcap": softcap, "sinks_H": sinks_H}
        return written_out(query, key, value, mask_TT, scaling=scaling, **more)
    key, value = _for_each_head(key, query.shape[1]), _for_each_head(value, query.shape[1])
    if query.device.type == "cpu" and len(tree) > QUERIES:
        return _in_stretches(query, key, value, tree, window, scaling, dropout)
    bias_TT = tree.bias_TT(window, query.device, query.dtype)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias_TT, dropout_p=dropout, scale=scaling
    )


def _in_stretches(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    tree: Tree,
    window: int | None,
    scaling: float,
    dropout: float,
) -> torch.Tensor:
    """Each stretch of queries with the keys it sees, and no others: 1 H T E."""
    parts = [
        F.scaled_dot_product_attention(
            query[:, :, part.start : part.stop],
            part.of(key),
            part.of(value),
            attn_mask=part.bias_QK,
            dropout_p=dropout,
            scale=scaling,
        )
        for part in tree.stretches(window, query.device, query.dtype)
    ]
    return torch.cat(parts, dim=2)


def written_out(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    *,
    scaling: float,
    dropout: float = 0.0,
    softcap: float | None = None,
    sinks_H: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention step by step with all T · T logits in memory; the softmax in float32.

    `mask` is boolean and spreads over B H T T; with more keys than queries it has as many columns.
    """
    heads = query.shape[1]
    key, value = _for_each_head(key, heads), _for_each_head(value, heads)
    logits_BHTT = query @ key.transpose(-1, -2) * scaling
    if softcap is not None:
        logits_BHTT = softcap * torch.tanh(logits_BHTT / softcap)
    # The least number, as its exp is 0 beside any other; -inf makes NaN where padding sees nothing.
    logits_BHTT = logits_BHTT.float().masked_fill(~mask, torch.finfo(torch.float32).min)
    if sinks_H is not None:
        sinks = sinks_H.float().view(1, heads, 1, 1).expand(*logits_BHTT.shape[:-1], 1)
        logits_BHTT = torch.cat([logits_BHTT, sinks], dim=-1)
    weights_BHTT = logits_BHTT.softmax(-1)[..., : key.shape[2]].to(query.dtype)
    return F.dropout(weights_BHTT, dropout) @ value


def reference_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    subtree_end_T: torch.Tensor,
    position_T: torch.Tensor,
    *,
    scaling: float,
    window: int | None = None,
) -> torch.Tensor:
    """The same in float64, query by query: the path above each is walked, and its end attended to."""
    end, position = subtree_end_T.tolist(), position_T.tolist()
    group = query.shape[1] // key.shape[1]
    outputs: list[torch.Tensor] = []
    path: list[int] = []
    for q in range(len(end)):
        while path and end[path[-1]] <= q:
            path.pop()
        path.append(q)
        assert len(path) == position[q] + 1, "position is the depth"
        seen = path if window is None else path[-window:]
        keys = key[0, :, seen].double().repeat_interleave(group, 0)
        values = value[0, :, seen].double().repeat_interleave(group, 0)
        logits = torch.einsum("hd,hkd->hk", query[0, :, q].double(), keys) * scaling
        outputs.append(torch.einsum("hk,hke->he", logits.softmax(-1), values))
    return torch.stack(outputs, dim=1)[None]


def _of_one_type(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Under autocast, which knows SDPA but not FlexAttention, in autocast's type.

    Rotary embeddings leave queries and keys in float32 there and values in bfloat16.
    """
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return list(tensors)
    return [t.to(torch.get_autocast_dtype(kind)) for t in tensors]


def _for_each_head(keys_BGTD: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values repeated so that every head of the query has its own: B H T D.

    SDPA could share them (enable_gqa), but with a mask it then leaves its fast kernels.
    """
    batch, groups, length, size = keys_BGTD.shape
    if groups == heads:
        return keys_BGTD
    spread = keys_BGTD[:, :, None].expand(batch, groups, heads // groups, length, size)
    return spread.reshape(batch, heads, length, size)


# ---- FlexAttention -------------------------------------------------------------------------------


def block_mask(
    subtree_end_T: torch.Tensor,
    position_T: torch.Tensor,
    window: int | None,
    device: torch.device | str,
) -> Any:
    """FlexAttention's BlockMask of a forest, from the least and greatest values of each block.

    The T · T pairs are not looked at. Built on the CPU, where the tensors given lie; the result lies on
    `device`.
    """
    from torch.nn.attention.flex_attention import BlockMask

    some, every = block_bounds(subtree_end_T.numpy(), position_T.numpy(), window)
    blocks = BlockMask.from_kv_blocks(
        *_ordered(some & ~every),
        *_ordered(every),
        BLOCK_SIZE=BLOCK,
        mask_mod=_mask_mod(
            subtree_end_T.to(device, torch.int32), position_T.to(device, torch.int32), window
        ),
        seq_lengths=(len(subtree_end_T), len(subtree_end_T)),
    )
    return blocks.to(device)


def block_bounds(
    subtree_end_T: np.ndarray, position_T: np.ndarray, window: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Two boolean tables, block of queries by block of keys: may any pair see, and does every pair?

    Without a window both are exact. Take an earlier block of keys, so that k <= q for all pairs: some
    pair sees when the greatest end lies behind the first query, and every pair when the least lies
    behind the last. A block meets itself in part: each token sees itself, none what comes later. With a
    window, depths of both blocks give bounds: what is left out is never seen and what is called full is
    seen all over, but a block in part may turn out empty or full when the rule is asked token by token.
    """
    n = -(-len(subtree_end_T) // BLOCK)
    first = np.arange(n) * BLOCK  # query of each block
    earlier = first[:, None] > first[None, :]
    # Behind the end of the sequence nothing is seen, so a last block that is not whole is never full.
    end = _blocks(subtree_end_T, n, fill=0)
    some = earlier & (end.max(1)[None, :] > first[:, None])
    every = earlier & (end.min(1)[None, :] >= first[:, None] + BLOCK)
    if window is not None:
        last = position_T[-1] if len(position_T) else 0
        depth = _blocks(position_T, n, fill=last)
        some &= depth.min(1)[:, None] - depth.max(1)[None, :] < window
        every &= depth.max(1)[:, None] - depth.min(1)[None, :] < window
    return some | np.eye(n, dtype=bool), every


def _blocks(values_T: np.ndarray, n: int, *, fill: int) -> np.ndarray:
    """n rows of BLOCK values each."""
    padded = np.pad(values_T, (0, n * BLOCK - len(values_T)), constant_values=fill)
    return padded.reshape(n, BLOCK)


def _ordered(table: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """How many blocks of each row are set, and their columns first; B = H = 1."""
    count = table.sum(1, dtype=np.int32)
    columns = np.argsort(~table, axis=1, kind="stable").astype(np.int32)
    return torch.from_numpy(count)[None, None], torch.from_numpy(columns)[None, None]


def _mask_mod(subtree_end_T: torch.Tensor, position_T: torch.Tensor, window: int | None) -> Any:
    """The rule for single pairs, asked inside blocks that are seen in part."""

    def in_tree(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k <= q) & (q < subtree_end_T[k])

    if window is None:
        return in_tree
    # A tensor: a number would be compiled in, once for each window.
    window_tensor = torch.tensor(window, dtype=torch.int32, device=position_T.device)

    def in_window(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (k <= q) & (q < subtree_end_T[k]) & (position_T[q] - position_T[k] < window_tensor)

    return in_window


def _flex(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    blocks: Any,
    scaling: float,
    softcap: float | None,
) -> torch.Tensor:
    return _compiled()(
        query,
        key,
        value,
        score_mod=None if softcap is None else _capped(softcap),
        block_mask=blocks,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


@cache
def _compiled() -> Any:
    """FlexAttention is fast only when compiled; once, for all layers and models."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


@cache
def _capped(softcap: float) -> Any:
    def score_mod(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        return softcap * torch.tanh(score / softcap)

    return score_mod


def _flex_runs(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Is this a case that FlexAttention's compiled kernels are for?

    In float32 they may round to TF32; the boolean mask is exact there. Few queries would go through
    its kernel for decoding, which has none for every length; a mask of theirs is small.
    """
    return (
        query.device.type == "cuda"
        and query.shape[-2] >= _FLEX_FROM
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.dtype == key.dtype == value.dtype
        and all(16 <= t.shape[-1] <= 256 for t in (query, value))
        and _gpu_runs_flex(query.device)
    )


@cache
def _gpu_runs_flex(device: torch.device) -> bool:
    return find_spec("triton") is not None and torch.cuda.get_device_capability(device)[0] >= 8
