"""A Llama-like decoder layer for training its adapters: forward and backward written out.

A layer is two halves of one shape, each a function of what goes along (x) and what the half before made
to be added to it (y):

    s = x + y                          s = x + y
    q, k, v = rotary(norm(s) · Wqkv)   g, u = norm(s) · Wgu
    f = attention(q, k, v) · Wo        f = silu(g) u · Wd
    gives s, f                         gives s, f

W stands for frozen weights with their adapters (fast_weights). Between the products each step is one
pass over the memory (kernels/fused.py). What is kept for the way back is chosen by what it costs to make
again: norms and silu(g) u are a pass each and are made again, products and attention are kept. For each
token these are s twice, q, k, v, the attention's output, g and u: in InternLM2.5-7B's shape 92 KiB of 16
bits a layer, where autograd keeps 190.

Legend: T tokens, D hidden size, H query heads, G key-value heads, F a head's size, I intermediate size,
r the rank of a group's adapters together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from whoamai.kernels import fused
from whoamai.kernels.tree_flash import FlashPlan, flash_backward, flash_forward
from whoamai.model.fast_weights import Group


@dataclass(frozen=True, slots=True)
class Norm:
    """An RMS norm with a frozen scale."""

    weight_D: torch.Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class AttentionHalf:
    """`mixed`: the projection writes each key-value head's queries, its key and its value together."""

    norm: Norm
    into: Group
    out: Group
    heads: int
    groups: int
    scale: float
    mixed: bool


@dataclass(frozen=True, slots=True)
class MlpHalf:
    norm: Norm
    into: Group
    out: Group


@dataclass(frozen=True, slots=True)
class Around:
    """What is the same for all layers of one pass: the turns of its positions, the forest."""

    cos_TF: torch.Tensor
    sin_TF: torch.Tensor
    plan: FlashPlan


def attention_half(
    half: AttentionHalf, x_TD: torch.Tensor, y_TD: torch.Tensor | None, around: Around
) -> tuple[torch.Tensor, torch.Tensor]:
    """(s, f) of the drawing."""
    trained = (*half.into.parameters, *half.out.parameters)
    return _Attention.apply(x_TD, y_TD, half, around, *trained)


def mlp_half(
    half: MlpHalf, x_TD: torch.Tensor, y_TD: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(s, f) of the drawing."""
    return _Mlp.apply(x_TD, y_TD, half, *half.into.parameters, *half.out.parameters)


def last_norm(norm: Norm, x_TD: torch.Tensor, y_TD: torch.Tensor) -> torch.Tensor:
    """norm(x + y)."""
    return _LastNorm.apply(x_TD, y_TD, norm)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TD: torch.Tensor,
        y_TD: torch.Tensor | None,
        half: AttentionHalf,
        around: Around,
        *trained: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        half.into.refresh()
        half.out.refresh()
        n, (into, out) = len(x_TD), (half.into, half.out)
        normed = into.input(n)
        s_TD = fused.add_norm(x_TD, y_TD, half.norm.weight_D, half.norm.eps, normed[:, : into.n_in])
        heads = _turned(half, into.forward(normed), around)
        through_in = into.through_a(normed)
        mixed = out.input(n)
        o = mixed[:, : out.n_in].unflatten(1, (half.heads, -1))
        q, k, v = _split(half, heads)
        _, lse = flash_forward(q, k, v, around.plan, scale=half.scale, out=o)
        f_TD = out.forward(mixed)
        ctx.save_for_backward(s_TD, heads, mixed, lse, through_in)
        ctx.half, ctx.around, ctx.has_y = half, around, y_TD is not None
        return s_TD, f_TD

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ds_TD, df_TD = grads
        s_TD, heads, mixed, lse, through_in = ctx.saved_tensors
        half, around = ctx.half, ctx.around
        n, (into, out) = len(s_TD), (half.into, half.out)
        df = _with_room(df_TD, out)
        out.through_b(df)
        do = out.backward(df)
        found_out = out.gradients(mixed[:, : out.n_in], mixed[:, out.n_in :], df)
        o = mixed[:, : out.n_in].unflatten(1, (half.heads, -1))
        dheads = torch.empty_like(heads)
        q, k, v = _split(half, heads)
        out_of = _split(half, dheads)
        do = do.unflatten(1, (half.heads, -1))
        flash_backward(do, q, k, v, o, lse, around.plan, scale=half.scale, out=out_of)
        del df, do, o
        dqkv = into.output_gradient(n)
        _turn(half, dheads, around, dqkv[:, : into.n_out], back=True)
        into.through_b(dqkv)
        normed = torch.empty_like(s_TD)
        fused.add_norm(s_TD, None, half.norm.weight_D, half.norm.eps, normed)
        found_in = into.gradients(normed, through_in, dqkv)
        dx = None
        if ctx.needs_input_grad[0]:  # not of the first layer's
            dx = _into_norm(half.norm, s_TD, into.backward(dqkv), ds_TD, into)
        return dx, dx if ctx.has_y else None, None, None, *found_in, *found_out


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TD: torch.Tensor, y_TD: torch.Tensor, half: MlpHalf, *trained: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        half.into.refresh()
        half.out.refresh()
        n, (into, out) = len(x_TD), (half.into, half.out)
        normed = into.input(n)
        s_TD = fused.add_norm(x_TD, y_TD, half.norm.weight_D, half.norm.eps, normed[:, : into.n_in])
        gate_up = into.forward(normed)
        through_in = into.through_a(normed)
        del normed
        acted = out.input(n)
        fused.swiglu(gate_up, acted[:, : out.n_in])
        f_TD = out.forward(acted)
        ctx.save_for_backward(s_TD, gate_up, through_in, out.through_a(acted))
        ctx.half = half
        return s_TD, f_TD

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        ds_TD, df_TD = grads
        s_TD, gate_up, through_in, through_out = ctx.saved_tensors
        half = ctx.half
        n, (into, out) = len(s_TD), (half.into, half.out)
        df = _with_room(df_TD, out)
        out.through_b(df)
        dacted = out.backward(df)
        dgate_up = into.output_gradient(n)
        acted = torch.empty_like(dacted)
        fused.swiglu_backward(gate_up, dacted, dgate_up[:, : into.n_out], acted)
        del dacted
        found_out = out.gradients(acted, through_out, df)
        del acted, df
        into.through_b(dgate_up)
        dnormed = into.backward(dgate_up)
        normed = torch.empty_like(s_TD)
        fused.add_norm(s_TD, None, half.norm.weight_D, half.norm.eps, normed)
        found_in = into.gradients(normed, through_in, dgate_up)
        del dgate_up
        dx = _into_norm(half.norm, s_TD, dnormed, ds_TD, into)
        return dx, dx, None, *found_in, *found_out


class _LastNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: torch.Tensor, y_TD: torch.Tensor, norm: Norm) -> torch.Tensor:
        normed = torch.empty_like(x_TD)
        s_TD = fused.add_norm(x_TD, y_TD, norm.weight_D, norm.eps, normed)
        ctx.save_for_backward(s_TD)
        ctx.norm = norm
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (s_TD,) = ctx.saved_tensors
        dx = torch.empty_like(s_TD)
        fused.norm_backward(s_TD, ctx.norm.weight_D, ctx.norm.eps, grads[0], None, dx)
        return dx, dx, None


def _turned(half: AttentionHalf, qkv: torch.Tensor, around: Around) -> torch.Tensor:
    """Queries, keys, values, q and k turned: T × (H + 2 G) F."""
    made = torch.empty_like(qkv)
    _turn(half, qkv, around, made, back=False)
    return made


def _turn(
    half: AttentionHalf, source: torch.Tensor, around: Around, out: torch.Tensor, *, back: bool
) -> None:
    fused.rotary(
        source,
        around.cos_TF,
        around.sin_TF,
        out,
        heads=half.heads,
        groups=half.groups,
        mixed=half.mixed,
        back=back,
    )


def _split(half: AttentionHalf, heads: torch.Tensor) -> Sequence[torch.Tensor]:
    """(q: T H F, k: T G F, v: T G F), views."""
    each = heads.unflatten(1, (half.heads + 2 * half.groups, -1))
    return each.split([half.heads, half.groups, half.groups], 1)


def _into_norm(
    norm: Norm, s_TD: torch.Tensor, dnormed: torch.Tensor, ds_TD: torch.Tensor, group: Group
) -> torch.Tensor:
    """dx. It is made with room beside it for the half before, whose output's gradient it is."""
    room = torch.empty(len(s_TD), s_TD.shape[1] + group.rank, dtype=s_TD.dtype, device=s_TD.device)
    dx = room[:, : s_TD.shape[1]]
    fused.norm_backward(s_TD, norm.weight_D, norm.eps, dnormed, ds_TD, dx)
    return dx


def _with_room(gradient_TD: torch.Tensor, group: Group) -> torch.Tensor:
    """An `output_gradient` of `group` that begins with this gradient.

    The same memory where `_into_norm` left room for it, which nobody else reads or writes; else a copy.
    """
    n, width = len(gradient_TD), group.n_out + group.rank
    row, column = gradient_TD.stride()
    begin = gradient_TD.storage_offset()
    held = gradient_TD.untyped_storage().nbytes() // gradient_TD.element_size()
    if column == 1 and row >= width and begin % row == 0 and begin + (n - 1) * row + width <= held:
        return gradient_TD.as_strided((n, width), (row, 1))
    made = group.output_gradient(n)
    made[:, : group.n_out] = gradient_TD
    return made
