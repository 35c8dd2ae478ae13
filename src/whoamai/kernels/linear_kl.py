"""How far the head's distributions have moved at chosen places, without ever holding all logits.

For hidden states h_u of the model as it is (q) and as it was untuned (p), and weights w_u:

    loss = Σ_u w_u · KL(p_u ‖ q_u),    p_u = softmax(W h_u untuned),  q_u = softmax(W h_u)       in nats

p is what shall stay, so it is a constant, and the gradient of one place's logits is

    ∂loss/∂logits_u = w_u · (q_u − p_u)

which is made in the forward pass, chunk by chunk, and multiplied by W at once, as in
linear_cross_entropy.

A divergence is small beside the logarithms it is the difference of: each term p log(p / q) would bring
in the rounding of a normalizer, times 1. So q − p, which adds up to 0, is added to it: the terms are
then p / 2 · log²(p / q) at first, and so is what rounding does to them.

Legend: U places, C places of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

# Places. There are two distributions a place, so half of linear_cross_entropy's: the worst moment holds
# three chunks of float32 logits, which is less than its two of twice the size.
CHUNK = 512

Head = Callable[[torch.Tensor], torch.Tensor]


def linear_kl(
    hidden_UD: torch.Tensor,
    hidden_untuned_UD: torch.Tensor,
    head: Any,
    weight_U: torch.Tensor,
    *,
    head_untuned: Any = None,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """The weighted sum of the places' KL divergences, a scalar, float32 (float64 for such states).

    `head_untuned` is the head as it was, where it is trained as well (an adapted head's base layer). A
    head that is a frozen linear layer makes the gradient along with the loss; any other (trained,
    adapted, quantized) is a function that autograd goes through, a chunk at a time.
    """
    was_another = head_untuned is not None and head_untuned is not head
    if was_another or not _is_frozen_linear(head):
        return plain_linear_kl(
            hidden_UD, hidden_untuned_UD, head, weight_U, head_untuned=head_untuned, chunk=chunk
        )
    weight_VD, bias_V = head.weight, head.bias
    device = hidden_UD.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden_UD, weight_VD = hidden_UD.to(dtype), weight_VD.to(dtype)
        bias_V = None if bias_V is None else bias_V.to(dtype)
    hidden_untuned_UD = hidden_untuned_UD.to(hidden_UD.dtype)
    return _FrozenHead.apply(hidden_UD, hidden_untuned_UD, weight_VD, bias_V, weight_U, chunk)


class _FrozenHead(torch.autograd.Function):
    """Forward makes the gradient of the hidden states along with the loss."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_UD: torch.Tensor,
        hidden_untuned_UD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        weight_U: torch.Tensor,
        chunk: int,
    ) -> torch.Tensor:
        dtype = _summed_in(hidden_UD)
        loss = hidden_UD.new_zeros((), dtype=dtype)
        grad_UD = torch.empty_like(hidden_UD)
        with torch.autocast(hidden_UD.device.type, enabled=False):
            for of in _chunks(len(hidden_UD), chunk):
                weight_C = weight_U[of].to(dtype)
                logits_CV = F.linear(hidden_untuned_UD[of], weight_VD, bias_V)
                log_p_CV = logits_CV.log_softmax(-1, dtype=dtype)
                logits_CV = F.linear(hidden_UD[of], weight_VD, bias_V)
                log_q_CV = logits_CV.log_softmax(-1, dtype=dtype)
                ratio_CV = log_p_CV - log_q_CV
                p_CV = log_p_CV.exp_()
                moved_CV = log_q_CV.exp_().sub_(p_CV)
                loss += (weight_C * ratio_CV.mul_(p_CV).add_(moved_CV).sum(-1)).sum()
                grad_CV = moved_CV.mul_(weight_C[:, None])
                grad_UD[of] = grad_CV.to(weight_VD.dtype) @ weight_VD
                # Or they would be there while the next chunk's are made.
                del logits_CV, log_p_CV, log_q_CV, ratio_CV, p_CV, moved_CV, grad_CV
        ctx.save_for_backward(grad_UD)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_UD,) = ctx.saved_tensors
        # A scalar times a half-precision matrix stays in half precision; scaled losses (fp16) included.
        return grad_UD * grads[0].to(grad_UD.dtype), None, None, None, None, None


def plain_linear_kl(
    hidden_UD: torch.Tensor,
    hidden_untuned_UD: torch.Tensor,
    head: Head,
    weight_U: torch.Tensor,
    *,
    head_untuned: Head | None = None,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """The same through autograd: the reference, and the way for heads that are themselves trained.

    Each chunk's logits are forgotten and computed again on the way back.
    """
    loss = hidden_UD.new_zeros((), dtype=_summed_in(hidden_UD))
    for of in _chunks(len(hidden_UD), chunk):
        loss = loss + checkpoint(
            _chunk_kl,
            head,
            head_untuned or head,
            hidden_UD[of],
            hidden_untuned_UD[of],
            weight_U[of],
            use_reentrant=False,
        )
    return loss


def kl_of_logits(
    logits_UV: torch.Tensor, logits_untuned_UV: torch.Tensor, weight_U: torch.Tensor
) -> torch.Tensor:
    """The same of logits that are there already."""
    dtype = _summed_in(logits_UV)
    log_q_UV = logits_UV.log_softmax(-1, dtype=dtype)
    log_p_UV = logits_untuned_UV.detach().log_softmax(-1, dtype=dtype)
    p_UV = log_p_UV.exp()
    term_UV = p_UV * (log_p_UV - log_q_UV) + (log_q_UV.exp() - p_UV)
    return (weight_U.to(dtype) * term_UV.sum(-1)).sum()


def _chunk_kl(
    head: Head,
    head_untuned: Head,
    hidden_CD: torch.Tensor,
    hidden_untuned_CD: torch.Tensor,
    weight_C: torch.Tensor,
) -> torch.Tensor:
    # Not under no_grad: autocast would remember a trained weight rounded there, and the next use of it
    # would give no gradient. kl_of_logits lets no gradient through.
    return kl_of_logits(head(hidden_CD), head_untuned(hidden_untuned_CD), weight_C)


def _is_frozen_linear(head: Any) -> bool:
    """A linear layer of plain numbers that is not trained. Packed 4-bit weights are none."""
    return (
        isinstance(head, torch.nn.Linear)
        and head.weight.is_floating_point()
        and not any(p.requires_grad for p in head.parameters())
    )


def _summed_in(states: torch.Tensor) -> torch.dtype:
    return torch.promote_types(states.dtype, torch.float32)


def _chunks(places: int, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, places, chunk)]
