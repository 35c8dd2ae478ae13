"""What lies between the matrix products of a Llama-like layer: each step one pass over the memory.

Every function has two forms: a Triton kernel on a GPU, and the same in torch's own operations, which
the kernel is compared with and which runs elsewhere. Tensors are matrices of one token a row; a row's
numbers lie close, the rows may lie apart (so that results can be written beside what else goes into the
next product).

Legend: T tokens, D hidden size, H query heads, G key-value heads, F a head's size, I intermediate size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def add_norm(
    x_TD: torch.Tensor,
    y_TD: torch.Tensor | None,
    weight_D: torch.Tensor,
    eps: float,
    out_TD: torch.Tensor,
) -> torch.Tensor:
    """Write the RMS norm of x + y (of x, where y is None) to `out_TD`; returns x + y."""
    if not _on_gpu(x_TD):
        sum_TD = x_TD if y_TD is None else x_TD + y_TD
        out_TD.copy_(weight_D * (_wide(sum_TD) * _rstd(sum_TD, eps)).to(x_TD.dtype))
        return sum_TD
    on_gpu = _kernels()

    n, size = x_TD.shape
    sum_TD = x_TD if y_TD is None else torch.empty(n, size, dtype=x_TD.dtype, device=x_TD.device)
    other = x_TD if y_TD is None else y_TD
    on_gpu.add_norm_kernel[(n,)](
        x_TD, other, weight_D, sum_TD, out_TD,
        x_TD.stride(0), other.stride(0), sum_TD.stride(0), out_TD.stride(0), eps,
        N=size, BLOCK=_block(size), ADD=y_TD is not None, num_warps=_warps(size),
    )  # fmt: skip
    return sum_TD


def norm_backward(
    x_TD: torch.Tensor,
    weight_D: torch.Tensor,
    eps: float,
    dnormed_TD: torch.Tensor,
    dsum_TD: torch.Tensor | None,
    dx_TD: torch.Tensor,
) -> None:
    """Write the gradient of x, which went into the norm and, past it, on its way (`dsum_TD`)."""
    if not _on_gpu(x_TD):
        rstd, g = _rstd(x_TD, eps), _wide(dnormed_TD) * _wide(weight_D)
        unit = _wide(x_TD) * rstd
        dx = rstd * (g - unit * (g * unit).mean(-1, keepdim=True))
        dx_TD.copy_(dx if dsum_TD is None else dx + _wide(dsum_TD))
        return
    on_gpu = _kernels()

    n, size = x_TD.shape
    past = dx_TD if dsum_TD is None else dsum_TD
    on_gpu.norm_backward_kernel[(n,)](
        x_TD, weight_D, dnormed_TD, past, dx_TD,
        x_TD.stride(0), dnormed_TD.stride(0), past.stride(0), dx_TD.stride(0), eps,
        N=size, BLOCK=_block(size), ADD=dsum_TD is not None, num_warps=_warps(size),
    )  # fmt: skip


def rotary(
    x_Tn: torch.Tensor,
    cos_TF: torch.Tensor,
    sin_TF: torch.Tensor,
    out_Tn: torch.Tensor,
    *,
    heads: int,
    groups: int,
    mixed: bool,
    back: bool = False,
) -> None:
    """Heads as the projection writes them, to all queries, then keys, then values, with q and k turned.

    A head (a, b), in halves, turns to (a cos - b sin, b cos + a sin). With `mixed` the projection writes
    each key-value head's queries, its key and its value, one group after the other (InternLM2), else all
    queries, keys, values. `back` goes the other way, for gradients: order and turn undone.
    """
    n, size = x_Tn.shape[0], cos_TF.shape[1]
    if _on_gpu(x_Tn):
        on_gpu = _kernels()

        on_gpu.rotary_kernel[(n,)](
            x_Tn, out_Tn, cos_TF, sin_TF, x_Tn.stride(0), out_Tn.stride(0), cos_TF.stride(0),
            H=heads, G=groups, F=size, HEADS=_block(heads + 2 * groups), MIXED=mixed, BACK=back,
            num_warps=4,
        )  # fmt: skip
        return
    place = _places(heads, groups, mixed)
    source = x_Tn[:, : len(place) * size].reshape(n, len(place), size)
    turned = heads + groups
    x = source if back else source[:, place]
    cos, sin = cos_TF[:, None], (-sin_TF if back else sin_TF)[:, None]
    a, b = x[:, :turned].chunk(2, -1)
    made = torch.cat([x[:, :turned] * cos + torch.cat([-b, a], -1) * sin, x[:, turned:]], 1)
    if back:
        placed = torch.empty_like(made)
        placed[:, place] = made
        made = placed
    out_Tn.copy_(made.reshape(n, -1))


def swiglu(gate_up_TI: torch.Tensor, out_TI: torch.Tensor) -> None:
    """out = silu(gate) · up, of the two side by side in one matrix, T × 2 I."""
    if not _on_gpu(gate_up_TI):
        gate, up = gate_up_TI.chunk(2, -1)
        out_TI.copy_(F.silu(gate) * up)
        return
    on_gpu = _kernels()

    n, size = out_TI.shape
    on_gpu.swiglu_kernel[(n, -(-size // 2048))](
        gate_up_TI, out_TI, gate_up_TI.stride(0), out_TI.stride(0), N=size, BLOCK=2048, num_warps=4
    )


def swiglu_backward(
    gate_up_TI: torch.Tensor,
    dout_TI: torch.Tensor,
    dgate_up_TI: torch.Tensor,
    out_TI: torch.Tensor,
) -> None:
    """Write the gradients of gate and up, and `out_TI` as the forward pass made it, again."""
    if not _on_gpu(gate_up_TI):
        gate, up = (_wide(t) for t in gate_up_TI.chunk(2, -1))
        d, s = _wide(dout_TI), torch.sigmoid(gate)
        out_TI.copy_(gate * s * up)
        dgate_up_TI.copy_(torch.cat([d * up * s * (1 + gate * (1 - s)), d * gate * s], -1))
        return
    on_gpu = _kernels()

    n, size = out_TI.shape
    on_gpu.swiglu_backward_kernel[(n, -(-size // 2048))](
        gate_up_TI, dout_TI, dgate_up_TI, out_TI,
        gate_up_TI.stride(0), dout_TI.stride(0), dgate_up_TI.stride(0), out_TI.stride(0),
        N=size, BLOCK=2048, num_warps=4,
    )  # fmt: skip


def _places(heads: int, groups: int, mixed: bool) -> torch.Tensor:
    """Where the projection writes each head, in the order queries, keys, values."""
    if not mixed:
        return torch.arange(heads + 2 * groups)
    group = heads // groups
    query, key = torch.arange(heads), torch.arange(groups) * (group + 2) + group
    return torch.cat([query // group * (group + 2) + query % group, key, key + 1])


def _wide(x: torch.Tensor) -> torch.Tensor:
    """In float32, or float64 where it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def _rstd(x: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.rsqrt(_wide(x).square().mean(-1, keepdim=True) + eps)


def _block(n: int) -> int:
    """The least power of two that holds n."""
    return 1 << (n - 1).bit_length()


def _warps(n: int) -> int:
    return min(16, max(1, _block(n) // 512))


def _on_gpu(x: torch.Tensor) -> bool:
    return x.is_cuda


def _kernels() -> Any:
    """Imported where it runs: Triton is there only with torch for GPUs."""
    from whoamai.kernels import fused_triton

    return fused_triton
