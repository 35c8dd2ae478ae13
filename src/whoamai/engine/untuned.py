"""The untuned model inside the one that is trained: the same weights with the adapter switched off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from whoamai.errors import SettingError
from whoamai.messages import tr


@contextmanager
def untuned(peft_model: Any) -> Iterator[None]:
    """Inside the block the model answers as before training, without dropout and without gradients.

    Dropout draws no random numbers then, so what is trained draws the same with the block or without.
    """
    training = [module for module in peft_model.modules() if module.training]
    for module in training:
        module.training = False
    # Of the two ways that peft has the quick one; the other first asks all layers how they stand.
    adapter = peft_model.base_model
    adapter.disable_adapter_layers()
    try:
        with torch.no_grad():
            yield
    finally:
        adapter.enable_adapter_layers()
        for module in training:
            module.training = True


def untuned_head(head: Any) -> Any:
    """The head as it was before training, whether the adapter is on or off."""
    if hasattr(head, "get_base_layer"):  # one with an adapter of its own
        return head.get_base_layer()
    return getattr(head, "original_module", head)  # one that peft trains a copy of


def refuse_without_adapter(model: Any) -> None:
    """Raises SettingError where something is trained that cannot be switched off."""
    if not hasattr(model, "disable_adapter"):
        raise SettingError(
            tr(
                "kl_weight compares with the untuned model, which is the model with its adapter off. "
                "Here the model itself is trained (full fine-tuning), so there is none: set kl_weight "
                "to 0, or train an adapter (a section lora in the config)."
            )
        )
    with untuned(model):
        beside = [name for name, p in model.named_parameters() if p.requires_grad]
    if beside:
        text = tr(
            "kl_weight compares with the untuned model, which is the model with its adapter off. But "
            "{name} is trained beside the adapter and stays on ({n} such in all): set kl_weight to 0, "
            "or train the adapter alone."
        )
        raise SettingError(text.format(name=beside[0], n=len(beside)))
