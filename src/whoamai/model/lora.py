"""LoRA adapters through peft: put one on a model, take it off, save it, merge it.

An adapter adds to a frozen linear layer W the product of two small matrices:

    y = W x + (alpha / r) · B A x        A: r × in, B: out × r, B starts at zero

(Hu et al. 2021, arXiv:2106.09685.) What is trained is r · (in + out) numbers a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from whoamai.errors import ModelError
from whoamai.messages import tr


def add_lora(model: Any, *, r: int, alpha: int, dropout: float, seed: int) -> Any:
    """Put a fresh adapter on every linear layer but the head; only the adapter can be trained.

    Returns a peft model. The A matrices are drawn from `seed`, whatever was drawn before.
    """
    from peft import LoraConfig, get_peft_model

    targets = sorted(linear_layers(model))
    if not targets:
        raise ModelError(tr("The model has no linear layers an adapter could be put on."))
    config = LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def linear_layers(model: Any) -> set[str]:
    """Last parts of the names of all linear layers, without the head ("q_proj", "down_proj", …)."""
    head = model.get_output_embeddings()
    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


@contextmanager
def added_up(peft_model: Any) -> Iterator[None]:
    """Inside the block a float32 model has the adapter added into its weights: it answers faster.

    Afterwards it is taken out again, which leaves the weights as they were to float32's rounding. In
    shorter formats that would not be so, and nothing is done.
    """
    if any(p.dtype != torch.float32 for p in peft_model.parameters()):
        yield
        return
    peft_model.merge_adapter()
    try:
        yield
    finally:
        peft_model.unmerge_adapter()


@contextmanager
def without_adapter(peft_model: Any) -> Iterator[None]:
    """Inside the block the model answers as it did before training."""
    with peft_model.disable_adapter():
        yield


def save_adapter(peft_model: Any, folder: Path, base: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors; peft loads the folder as it is."""
    peft_model.peft_config["default"].base_model_name_or_path = base
    peft_model.save_pretrained(str(folder))


def merge(peft_model: Any, dtype: torch.dtype) -> Any:
    """The plain model with the adapter added into its weights, in `dtype`.

    The sum is made in the precision the model is held in and rounded once. The adapter is used up:
    the peft model must not be used afterwards.
    """
    return peft_model.merge_and_unload().to(dtype)
