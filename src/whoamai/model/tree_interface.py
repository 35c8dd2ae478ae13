"""Our attention as transformers calls it: functions registered by name with AttentionInterface.

The forest comes in the keyword `tree`, which classes hand down from the model's forward to every
attention layer, and once more when a checkpointed layer is computed again. Without it the functions do
what transformers' own do, padding and windows included, so a model may also generate while they are on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from whoamai.errors import ModelError
from whoamai.kernels.tree_attention import Tree, tree_attention, written_out
from whoamai.messages import tr

# As transformers' SDPA leaves out capped logits and sinks, so does the first; the second is complete.
NAME, NAME_COMPLETE = "whoamai_tree", "whoamai_tree_complete"


@cache
def register() -> None:
    """Make both names known to transformers; models that do not ask for them do not notice."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionInterface.register(NAME_COMPLETE, _complete_attention)
    AttentionMaskInterface.register(NAME, _mask)
    AttentionMaskInterface.register(NAME_COMPLETE, _mask)


def _mask(*args: Any, **kwargs: Any) -> Any:
    """SDPA's boolean mask, always made: only calls without a tree ask for it, and they need it."""
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree: Tree | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Registered as NAME. query 1 H T D; the answer is 1 T H E."""
    if tree is not None:
        kwargs |= {"softcap": None, "s_aux": None}
        return _through_tree(query, key, value, attention_mask, tree, **kwargs), None
    _refuse_lost_tree(query, attention_mask)
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _complete_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree: Tree | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Registered as NAME_COMPLETE."""
    if tree is not None:
        return _through_tree(query, key, value, attention_mask, tree, **kwargs), None
    _refuse_lost_tree(query, attention_mask)
    _refuse_bias(kwargs.get("position_bias"))
    if attention_mask is None:  # an encoder's: everything is seen
        attention_mask = torch.ones((), dtype=torch.bool, device=query.device)
    made = written_out(
        query,
        key,
        value,
        attention_mask,
        scaling=_scaling(query, kwargs.get("scaling")),
        dropout=kwargs.get("dropout", 0.0),
        softcap=kwargs.get("softcap"),
        sinks_H=kwargs.get("s_aux"),
    )
    return made.transpose(1, 2).contiguous(), None


def _through_tree(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    tree: Tree,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> torch.Tensor:
    if attention_mask is None or attention_mask.numel() != 1:  # not the one we gave
        raise ModelError(tr("its class makes an attention mask of its own"))
    _refuse_bias(position_bias)
    made = tree_attention(
        query,
        key,
        value,
        tree,
        scaling=_scaling(query, scaling),
        dropout=dropout,
        window=sliding_window,
        softcap=softcap,
        sinks_H=s_aux,
    )
    return made.transpose(1, 2).contiguous()


def _refuse_lost_tree(query: torch.Tensor, attention_mask: torch.Tensor | None) -> None:
    """A mask of one element for many tokens is that of `forward_arguments`: there was a tree."""
    if attention_mask is not None and attention_mask.numel() == 1 and query.shape[2] > 1:
        raise ModelError(tr("its class does not hand on to its attention what it is called with"))


def _refuse_bias(position_bias: torch.Tensor | None) -> None:
    if position_bias is not None:
        raise ModelError(tr("its class adds something of its own to its attention"))


def _scaling(query: torch.Tensor, given: float | None) -> float:
    return query.shape[-1] ** -0.5 if given is None else given
