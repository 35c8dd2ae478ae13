"""The loss of the head at chosen places, without ever holding all logits.

For hidden states h_u (one row a place) and targets (u, token, weight):

    loss = Σ_n weight_n · (logsumexp(W h_u(n)) − (W h_u(n))[token_n])           in nats, float32

The gradient of one place's logits needs nothing but the logits themselves,

    ∂loss/∂logits_u = (Σ_{n at u} weight_n) · softmax(logits_u) − Σ_{n at u} weight_n · onehot(token_n)

so it is made in the forward pass, chunk by chunk, and multiplied by W at once (as in Liger-Kernel,
arXiv:2410.10989). With a vocabulary V of 92,544 and 14,000 places, logits
alone would be 5.2 GB in float32; a chunk of 1,024 places is 0.4 GB.

Legend: N targets, U distinct places, C places of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

CHUNK = (
    1024  # places; large enough for full speed of a matrix product, small beside everything else
)


def linear_cross_entropy(
    hidden_UD: torch.Tensor,
    head: Any,
    place_N: torch.Tensor,
    token_N: torch.Tensor,
    weight_N: torch.Tensor,
    *,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """The weighted sum of the targets' cross entropies, a float32 scalar.

    `place_N` are rows of `hidden_UD`, ascending. A head that is a frozen linear layer is computed once;
    any other (trained, adapted, quantized) is a function that autograd goes through, a chunk at a time.
    """
    if isinstance(head, torch.nn.Linear) and not any(p.requires_grad for p in head.parameters()):
        weight_VD, bias_V = head.weight, head.bias
        if torch.is_autocast_enabled(hidden_UD.device.type):
            dtype = torch.get_autocast_dtype(hidden_UD.device.type)
            hidden_UD, weight_VD = hidden_UD.to(dtype), weight_VD.to(dtype)
        return _FrozenHead.apply(hidden_UD, weight_VD, bias_V, place_N, token_N, weight_N, chunk)
    return plain_linear_cross_entropy(hidden_UD, head, place_N, token_N, weight_N, chunk=chunk)


class _FrozenHead(torch.autograd.Function):
    """Forward makes the gradient of the hidden states along with the loss."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_UD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        place_N: torch.Tensor,
        token_N: torch.Tensor,
        weight_N: torch.Tensor,
        chunk: int,
    ) -> torch.Tensor:
        loss = hidden_UD.new_zeros((), dtype=torch.float32)
        grad_UD = torch.empty_like(hidden_UD)
        with torch.autocast(hidden_UD.device.type, enabled=False):
            if _triton_runs(hidden_UD):
                targets = place_N, token_N, weight_N
                loss = _in_kernels(hidden_UD, weight_VD, bias_V, targets, chunk, grad_UD)
                ctx.save_for_backward(grad_UD)
                return loss
            for start, stop, of in _chunks(place_N, len(hidden_UD), chunk):
                logits_CV = F.linear(hidden_UD[start:stop], weight_VD, bias_V).float()
                at_n = place_N[of] - start
                token_n, weight_n = token_N[of], weight_N[of].float()
                lse_C = logits_CV.logsumexp(-1)
                loss += (weight_n * (lse_C[at_n] - logits_CV[at_n, token_n])).sum()
                rows_C = torch.zeros_like(lse_C).index_add_(0, at_n, weight_n)
                grad_CV = (logits_CV - lse_C[:, None]).exp_().mul_(rows_C[:, None])
                grad_CV.index_put_((at_n, token_n), -weight_n, accumulate=True)
                grad_UD[start:stop] = grad_CV.to(weight_VD.dtype) @ weight_VD
                del logits_CV, grad_CV  # or they would be there while the next chunk's are made
        ctx.save_for_backward(grad_UD)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_UD,) = ctx.saved_tensors
        # A scalar times a half-precision matrix stays in half precision; scaled losses (fp16) included.
        return grad_UD * grads[0].to(grad_UD.dtype), None, None, None, None, None, None


def _in_kernels(
    hidden_UD: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    targets: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    chunk: int,
    grad_UD: torch.Tensor,
) -> torch.Tensor:
    """The loss; writes the gradient. Logits stay in 16 bits: read once, then read and overwritten.

    Asks nothing of the device, which would have to finish first.
    """
    on_gpu = _kernels()

    place_N, token_N, weight_N = targets
    n_places, vocabulary = len(hidden_UD), len(weight_VD)
    edges = torch.arange(n_places + 1, device=hidden_UD.device)
    first_U = torch.searchsorted(place_N.contiguous(), edges, out_int32=True)
    lse_U, loss_U = hidden_UD.new_empty(2, n_places, dtype=torch.float32)
    for start in range(0, n_places, chunk):
        part = slice(start, min(start + chunk, n_places))
        logits_CV = F.linear(hidden_UD[part], weight_VD, bias_V)
        at = (first_U[start:], token_N, weight_N)
        on_gpu.loss_kernel[(len(logits_CV),)](
            logits_CV, *at, lse_U[part], loss_U[part], logits_CV.stride(0), vocabulary,
            BLOCK=4096, num_warps=8,
        )  # fmt: skip
        on_gpu.gradient_kernel[(len(logits_CV), -(-vocabulary // 4096))](
            logits_CV, lse_U[part], *at, logits_CV.stride(0), vocabulary, BLOCK=4096, num_warps=8
        )
        torch.mm(logits_CV, weight_VD, out=grad_UD[part])
        del logits_CV  # or it would be there while the next chunk's is made
    return loss_U.sum()


def _triton_runs(hidden: torch.Tensor) -> bool:
    return (
        hidden.device.type == "cuda"
        and hidden.dtype in (torch.bfloat16, torch.float16)
        and find_spec("triton") is not None
        and torch.cuda.get_device_capability(hidden.device) >= (8, 0)
    )


def plain_linear_cross_entropy(
    hidden_UD: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    place_N: torch.Tensor,
    token_N: torch.Tensor,
    weight_N: torch.Tensor,
    *,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """The same through autograd: the reference, and the way for heads that are themselves trained.

    Each chunk's logits are forgotten and computed again on the way back.
    """
    loss = hidden_UD.new_zeros((), dtype=torch.float32)
    for start, stop, of in _chunks(place_N, len(hidden_UD), chunk):
        part = checkpoint(
            _chunk_loss,
            head,
            hidden_UD[start:stop],
            place_N[of] - start,
            token_N[of],
            weight_N[of],
            use_reentrant=False,
        )
        loss = loss + part
    return loss


def _chunk_loss(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden_CD: torch.Tensor,
    at_n: torch.Tensor,
    token_n: torch.Tensor,
    weight_n: torch.Tensor,
) -> torch.Tensor:
    logits_CV = head(hidden_CD).float()
    lse_C = logits_CV.logsumexp(-1)
    return (weight_n.float() * (lse_C[at_n] - logits_CV[at_n, token_n])).sum()


def _chunks(place_N: torch.Tensor, places: int, chunk: int) -> list[tuple[int, int, slice]]:
    """(first place, one past the last, the targets at them) of every chunk.

    place_N = [0, 0, 1, 3], 4 places, chunks of 2:  (0, 2, targets 0:3), (2, 4, targets 3:4)
    """
    if places <= chunk:  # asks nothing of the device
        return [(0, places, slice(0, len(place_N)))]
    edges = list(range(0, places, chunk))
    bounds = torch.tensor([*edges, places], device=place_N.device)
    cuts = torch.searchsorted(place_N.contiguous(), bounds).tolist()
    return [
        (start, min(start + chunk, places), slice(cuts[i], cuts[i + 1]))
        for i, start in enumerate(edges)
    ]


def _kernels() -> Any:
    """Imported where it runs: Triton is there only with torch for GPUs."""
    from whoamai.kernels import linear_cross_entropy_triton

    return linear_cross_entropy_triton
