"""LoRA adapters through peft: put one on a model, take it off, save it, merge it.

An adapter adds to a frozen linear layer W the product of two small matrices:

    y = W x + (alpha / r) · B A x        A: r × in, B: out × r, B starts at zero

(Hu et al. 2021, arXiv:2106.09685.) What is trained is r · (in + out) numbers a layer, held in float32
whatever the model is held in.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from whoamai.errors import ModelError, SettingError
from whoamai.messages import tr
from whoamai.model.pissa import start_from_largest_parts
from whoamai.model.quantize import is_quantized, require_peft
from whoamai.model.targets import (
    adapted_modules,
    chosen_layers,
    head_name,
    is_transposed,
    smaller_side,
)

Variant = Literal["lora", "rslora", "dora", "pissa"]


def add_lora(
    model: Any,
    *,
    r: int,
    alpha: float,
    dropout: float,
    seed: int,
    variant: Variant = "lora",
    adapt_head: bool = False,
    target_modules: Literal["all-linear"] | Sequence[str] = "all-linear",
) -> Any:
    """Put a fresh adapter on the model's layers; only the adapter can be trained.

    "all-linear" is every linear layer but the head and the routers of experts; names may be the last
    part of a layer's name or more of it. `adapt_head` adds the head. The variants:

        rslora  divides by the root of r instead of r (Kalajdzievski 2023, arXiv:2312.03732)
        dora    trains the lengths of W's rows apart (Liu et al. 2024, arXiv:2402.09353)
        pissa   starts from the largest parts of W (model/pissa.py); its rank is 2r, half held still

    Returns a peft model. The A matrices are drawn from `seed`, whatever was drawn before. Raises
    SettingError for names that do not exist and what does not go together; ModelError where the model
    has no linear layers or peft cannot be imported.
    """
    require_peft()
    from peft import LoraConfig, get_peft_model

    names = chosen_layers(model, target_modules, adapt_head=adapt_head)
    layers, head = adapted_modules(model, names), head_name(model)
    ranks = 2 if variant == "pissa" else 1
    if variant == "pissa":
        _check_rank(r, layers.values())
    config = LoraConfig(
        r=ranks * r,
        lora_alpha=ranks * alpha,  # type: ignore[arg-type]  # a float does as well
        lora_dropout=dropout,
        target_modules=names,
        # Where the head's name ends as another layer's does.
        exclude_modules=None if adapt_head or head not in layers else [head],
        fan_in_fan_out=any(is_transposed(layer) for layer in layers.values()),
        use_rslora=variant == "rslora",
        use_dora=variant == "dora",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Conv1D is not Linear, which was seen to
        torch.manual_seed(seed)
        tuned = get_peft_model(model, config)
        if variant == "pissa":
            start_from_largest_parts(tuned)
    return tuned


def trainable_parameters(model: Any) -> list[tuple[str, int]]:
    """(name, how many numbers) of everything that is trained, in the model's order."""
    return [(name, p.numel()) for name, p in model.named_parameters() if p.requires_grad]


@contextmanager
def added_up(peft_model: Any, *, exactly: bool = False) -> Iterator[None]:
    """Inside the block a float32 model has the adapter added into its weights: it answers faster.

    Afterwards it is taken out again, which leaves the weights as they were to float32's rounding, or
    with `exactly` to the bit, at the price of a copy of them meanwhile. In shorter formats nothing is
    done.
    """
    if any(p.dtype != torch.float32 for p in peft_model.parameters()):
        yield
        return
    weights = [layer.weight for layer in _adapted(peft_model)] if exactly else []
    copies = [weight.detach().clone() for weight in weights]
    peft_model.merge_adapter()
    try:
        yield
    finally:
        peft_model.unmerge_adapter()
        with torch.no_grad():
            for weight, copy in zip(weights, copies, strict=True):
                weight.copy_(copy)


def _adapted(peft_model: Any) -> Iterator[Any]:
    """The frozen layers beside which adapters lie."""
    return (
        module.get_base_layer()
        for module in peft_model.modules()
        if hasattr(module, "get_base_layer")
    )


@contextmanager
def without_adapter(peft_model: Any) -> Iterator[None]:
    """Inside the block the model answers as it did before training."""
    with peft_model.disable_adapter():
        yield


def save_adapter(peft_model: Any, folder: Path, base: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors; peft loads the folder as it is.

    Of an adapted head only the adapter is written, not the head itself.
    """
    peft_model.peft_config["default"].base_model_name_or_path = base
    peft_model.save_pretrained(str(folder), save_embedding_layers=False)


def merge(peft_model: Any, dtype: torch.dtype) -> Any:
    """The plain model with the adapter added into its weights, in `dtype`.

    The sum is made in the precision the model is held in and rounded once. The adapter is used up:
    the peft model must not be used afterwards. Raises ModelError where the weights are quantized: the
    sum would be rounded to 4 bits again, and most of what was learned be lost.
    """
    if is_quantized(peft_model):
        raise ModelError(
            tr(
                "An adapter cannot be merged into weights that are held in 4 bits. Load the model with "
                "model.quantization: none, put the saved adapter on it, and merge that."
            )
        )
    merged = peft_model.merge_and_unload()
    for p in merged.parameters():  # fast layers made them views of larger matrices
        p.data = p.data.contiguous()
    return merged.to(dtype)


def _check_rank(r: int, layers: Iterable[Any]) -> None:
    smallest = min(smaller_side(layer) for layer in layers)
    if r > smallest:
        text = tr(
            "lora.r: {r} is too large for lora.variant: pissa. The model's smallest layer has only "
            "{smallest} parts to start from; set lora.r to that or less."
        )
        raise SettingError(text.format(r=r, smallest=smallest))
