"""PiSSA: an adapter that starts from the largest parts of each weight (Meng et al. 2024, 2404.02948).

Where LoRA starts at B = 0, PiSSA splits W by its singular values, W = U S V^T, takes the r largest,

    A0 = sqrt(S_r / s) V_r^T,    B0 = U_r sqrt(S_r / s),    s = alpha / r

and trains A and B from there on what is left, W - s B0 A0. Written out, the layer is

    y = (W - s B0 A0) x + s B A x  =  W x + s [B, -B0] [A; A0] x

which is a plain LoRA of rank 2r on the untouched W, half of which is held still. This is how it is held
here: the adapter that is saved belongs to the model as everybody has it, the model without adapter is
the model, W may be quantized, and nothing is rounded a second time. It costs twice the adapter's memory.
"""

from __future__ import annotations

from typing import Any

import torch

from whoamai.model.targets import is_transposed

# Up to this size all singular values are computed; above, the r largest by 16 rounds of subspace
# iteration, as the paper's authors do: minutes instead of hours for a model of billions.
_EXACT_UP_TO = 1024
_ROUNDS = 16
_SPARE = 16  # more directions than are kept: the last ones kept are then exact, too


@torch.no_grad()
def start_from_largest_parts(peft_model: Any, adapter: str = "default") -> None:
    """Set every adapter of rank 2r (of scale s) to its start, and hold its second half still."""
    for module in peft_model.modules():
        if adapter in getattr(module, "lora_A", {}):
            a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
            rank = a.shape[0] // 2
            a0, b0 = _largest_parts(_weight(module.get_base_layer()), rank)
            root = module.scaling[adapter] ** 0.5
            a.copy_(torch.cat([a0, a0]) / root)
            b.copy_(torch.cat([b0, -b0], dim=1) / root)
            _hold_still(a, slice(rank, None))
            _hold_still(b, (slice(None), slice(rank, None)))


def is_half_still(parameter: torch.Tensor) -> bool:
    """Is half of this parameter held still? Weight decay must leave such a one alone."""
    return getattr(parameter, "half_is_still", False)


def _largest_parts(weight: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(r × in, out × r) whose product is the best approximation of `weight` (out × in) of rank r."""
    if min(weight.shape) <= _EXACT_UP_TO:
        u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    else:
        u, s, v = torch.svd_lowrank(weight, q=rank + _SPARE, niter=_ROUNDS)
        vt = v.T
    root = s[:rank].sqrt()
    return root[:, None] * vt[:rank], u[:, :rank] * root


def _weight(layer: Any) -> torch.Tensor:
    """The layer's weight as float32, out × in."""
    if getattr(layer.weight, "quant_state", None) is not None:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    return layer.weight.float().T if is_transposed(layer) else layer.weight.float()


def _hold_still(parameter: torch.Tensor, where: Any) -> None:
    """Zero the gradient there as soon as it is made: AdamW then leaves these numbers as they are.

    This belongs to the parameter in the model; a deep copy of it is free again.
    """

    def zero(of: torch.Tensor) -> None:
        if of.grad is not None:
            of.grad[where] = 0

    parameter.register_post_accumulate_grad_hook(zero)
    parameter.half_is_still = True  # type: ignore[attr-defined]
