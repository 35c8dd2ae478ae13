"""The loss of one forward pass: the sum of its targets' cross entropies, in nats, float32.

The head of the model runs only where a target is predicted. A Pack goes through the model as a prefix
forest, a Batch as padded rows; either way every target of every row is counted once for each row.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from whoamai.data.loader import pad
from whoamai.kernels.linear_cross_entropy import linear_cross_entropy
from whoamai.model.tree import base_model, forward_arguments, hidden_states
from whoamai.samples import Batch, Pack, Sample


def pack_loss(model: Any, pack: Pack, *, whole: bool) -> torch.Tensor:
    """The loss of a pack, inside `tree_attention_on(model)`; `whole` as in batch_loss.

    Several targets may hang at one place, where rows fork inside a reply; its hidden state goes through
    the head once:

        place_N  4 4 7      places_U  4 7      index_N  0 0 1
    """
    base = base_model(model)
    token_N, weight_N = pack.token_N.to(base.device), pack.weight_N.to(base.device)
    places_U, index_N = pack.place_N.unique_consecutive(return_inverse=True)
    places_U, index_N = places_U.to(base.device), index_N.to(base.device)
    if whole:
        arguments = forward_arguments(model, pack)
        logits_UV = base(**arguments, logits_to_keep=places_U).logits[0].float()
        loss_N = F.cross_entropy(logits_UV[index_N], token_N, reduction="none")
        return (weight_N * loss_N).sum()
    hidden_UD = hidden_states(model, pack)[places_U]
    return linear_cross_entropy(hidden_UD, base.get_output_embeddings(), index_N, token_N, weight_N)


def batch_loss(model: Any, batch: Batch, *, whole: bool) -> torch.Tensor:
    """The loss of padded rows.

    The head makes N rows of the vocabulary instead of R · T. With `whole`, for a class that changes its
    logits (see changes_logits), all are computed and the N rows taken from them.
    """
    base = base_model(model)
    row_N, position_N = batch.row_N.to(base.device), batch.position_N.to(base.device)
    token_N, inputs = batch.token_N.to(base.device), _inputs(base, batch)
    if whole:
        logits_NV = base(**inputs).logits[row_N, position_N]
        return F.cross_entropy(logits_NV.float(), token_N, reduction="sum")
    hidden_ND = base.get_decoder()(**inputs).last_hidden_state[row_N, position_N]
    index_N = torch.arange(len(token_N), device=base.device)
    head = base.get_output_embeddings()
    return linear_cross_entropy(hidden_ND, head, index_N, token_N, torch.ones_like(token_N))


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
