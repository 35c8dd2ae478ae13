"""The losses of one forward pass: sums over its targets, in nats, float32.

    cross entropy   of every target
    divergence      KL(untuned ‖ tuned) of the whole distribution, at the targets of rows to keep

The head of the model runs only where a target is predicted. A Pack goes through the model as a prefix
forest, a Batch as padded rows; either way every target of every row is counted once for each row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from whoamai.data.loader import pad
from whoamai.engine.untuned import untuned, untuned_head
from whoamai.kernels.linear_cross_entropy import linear_cross_entropy
from whoamai.kernels.linear_kl import kl_of_logits, linear_kl
from whoamai.model.tree import base_model, forward_arguments, hidden_states
from whoamai.samples import Batch, Pack, Sample


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars with gradients. `divergence` is None where the part tells nothing to be kept."""

    cross_entropy: torch.Tensor
    divergence: torch.Tensor | None


def part_losses(model: Any, part: Pack | Batch, *, whole: bool) -> Losses:
    """The losses of a part; a pack's inside `tree_attention_on(model)`, `whole` as in batch_loss.

    Where rows are to be kept, these alone go through the model once more, with its adapter off. That is
    done first, while nothing is held for the backward pass: its worst moment is one layer's activations.
    What stays of it is a hidden state a place to keep (U · D numbers), or, with `whole`, its logits
    (U · V). Time: one forward pass over these rows, and three products more with the head there.
    """
    before = None
    if part.kept is not None:
        with untuned(model):
            before = _at_targets(model, part.kept.alone, whole=whole)
    now = _at_targets(model, part, whole=whole)
    cross_entropy = _cross_entropy(model, part, now, whole=whole)
    if before is None:
        return Losses(cross_entropy, None)
    return Losses(cross_entropy, _divergence(model, part, now, before, whole=whole))


def pack_loss(model: Any, pack: Pack, *, whole: bool) -> torch.Tensor:
    """The cross entropy of a pack, inside `tree_attention_on(model)`; `whole` as in batch_loss."""
    return _cross_entropy(model, pack, _at_targets(model, pack, whole=whole), whole=whole)


def batch_loss(model: Any, batch: Batch, *, whole: bool) -> torch.Tensor:
    """The cross entropy of padded rows.

    The head makes N rows of the vocabulary instead of R · T. With `whole`, for a class that changes its
    logits (see changes_logits), all are computed and the N rows taken from them.
    """
    return _cross_entropy(model, batch, _at_targets(model, batch, whole=whole), whole=whole)


@dataclass(frozen=True, slots=True)
class _AtTargets:
    """Hidden states, or logits, at U different places; target n is predicted at place index_N[n].

    Several targets may hang at one place, where rows fork inside a reply; it goes through the head once:

        place_N  4 4 7      places_U  4 7      index_N  0 0 1
    """

    states_UX: torch.Tensor
    index_N: torch.Tensor


def _at_targets(model: Any, part: Pack | Batch, *, whole: bool) -> _AtTargets:
    base = base_model(model)
    if isinstance(part, Pack):
        places_U, index_N = part.place_N.unique_consecutive(return_inverse=True)
        places_U, index_N = _sent(places_U, base.device), _sent(index_N, base.device)
        if whole:
            arguments = forward_arguments(model, part)
            return _AtTargets(base(**arguments, logits_to_keep=places_U).logits[0], index_N)
        return _AtTargets(hidden_states(model, part, places_U), index_N)
    row_N, position_N = part.row_N.to(base.device), part.position_N.to(base.device)
    inputs = _inputs(base, part)
    states_RTX = base(**inputs).logits if whole else base.get_decoder()(**inputs).last_hidden_state
    index_N = torch.arange(len(row_N), device=base.device)
    return _AtTargets(states_RTX[row_N, position_N], index_N)


def _cross_entropy(model: Any, part: Pack | Batch, now: _AtTargets, *, whole: bool) -> torch.Tensor:
    device = now.states_UX.device
    token_N, weight_N = _sent(part.token_N, device), _sent(_weights(part), device)
    if whole:
        logits_NV = now.states_UX.float()
        if len(logits_NV) < len(token_N):  # or each place has one target, in order
            logits_NV = logits_NV[now.index_N]
        return (weight_N * F.cross_entropy(logits_NV, token_N, reduction="none")).sum()
    head = base_model(model).get_output_embeddings()
    return linear_cross_entropy(now.states_UX, head, now.index_N, token_N, weight_N)


def _divergence(
    model: Any, part: Pack | Batch, now: _AtTargets, before: _AtTargets, *, whole: bool
) -> torch.Tensor:
    """Each place to keep counts once for every target of a row to keep that is predicted there."""
    assert part.kept is not None
    device = now.states_UX.device
    target_M, weight_M = part.kept.target_M.to(device), _weights(part.kept.alone).to(device)
    places = len(before.states_UX)
    at_K = now.index_N.new_empty(places)
    at_K[before.index_N] = now.index_N[target_M]  # the targets of one place agree where it is
    weight_K = weight_M.new_zeros(places).index_add_(0, before.index_N, weight_M)
    states_KX = now.states_UX[at_K]
    if whole:
        return kl_of_logits(states_KX, before.states_UX, weight_K)
    head = base_model(model).get_output_embeddings()
    return linear_kl(states_KX, before.states_UX, head, weight_K, head_untuned=untuned_head(head))


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copied to the device; from pinned memory, without waiting for what it computes."""
    if device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _weights(part: Pack | Batch) -> torch.Tensor:
    """How many rows want each target."""
    return part.weight_N if isinstance(part, Pack) else torch.ones_like(part.token_N)


@torch.no_grad()
def changes_logits(model: Any, sample: Sample) -> bool:
    """Are the logits anything else than what the head makes of the decoder's last hidden state?

    Some classes scale or cap them (Gemma 2, Cohere, Granite, Falcon-H1), before the head or behind it.
    Found by watching the head while the model runs over `sample`: exact for any class, and for logits
    so small that capping them would hardly show. Without dropout (in eval mode), or two runs differ.
    """
    base = base_model(model)
    inputs = _inputs(base, pad([sample]))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    head = base.get_output_embeddings()
    watch = head.register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    try:
        logits = base(**inputs).logits
    finally:
        watch.remove()
    hidden = getattr(base.get_decoder()(**inputs), "last_hidden_state", None)
    if len(seen) != 1 or hidden is None:
        return True
    given, made = seen[0]
    return not (_same(given, hidden) and torch.equal(made.float(), logits.float()))


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal but for rounding: two runs need not add up in the same order on every device."""
    tolerance = 8 * torch.finfo(a.dtype).eps
    return a.shape == b.shape and bool((a - b).norm() <= tolerance * b.norm())


def _inputs(base: Any, batch: Batch) -> dict[str, Any]:
    return {
        "input_ids": batch.input_ids_RT.to(base.device),
        "attention_mask": batch.attention_mask_RT.to(base.device),
        "use_cache": False,
    }
