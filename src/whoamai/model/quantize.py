"""Weights held in 4 bits (nf4, Dettmers et al. 2023, arXiv:2305.14314), through bitsandbytes.

Blocks of 64 weights share a scale; each weight is one of 16 levels that divide a normal distribution
evenly. With double quantization the scales are quantized too, 256 of them together. The linear layers
become bitsandbytes' Linear4bit, which multiplies in the precision the rest of the model is held in; the
head, embeddings, norms and experts held in one tensor a layer stay as they are.

bitsandbytes is imported here and nowhere else, only when it is asked for, and quietly.
"""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from typing import Any

import torch

from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.model.quiet import swallowed

_BLOCK = 64


def require_nf4(device: torch.device | str) -> None:
    """Raise ModelError, with the cure, where weights cannot be held in nf4 on `device`."""
    if problem := problem_with_nf4(device):
        raise ModelError(problem)


def problem_with_nf4(device: torch.device | str) -> str | None:
    """Why weights cannot be held in nf4 on `device` and what to do, or None. Found by trying it."""
    if find_spec("bitsandbytes") is None:
        return tr(
            "model.quantization: nf4 needs bitsandbytes, which is not installed. Install it: pip "
            "install bitsandbytes. Or hold the weights unquantized: model.quantization: none"
        )
    if reason := _broken_import():
        return tr(
            "model.quantization: nf4 needs bitsandbytes, which is installed but cannot be imported: "
            "{reason} Install it again: pip install --force-reinstall --no-deps bitsandbytes. Or hold "
            "the weights unquantized: model.quantization: none"
        ).format(reason=reason)
    from transformers.utils.import_utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        return tr(
            "model.quantization: nf4 needs a newer bitsandbytes. Install it: pip install --upgrade "
            "bitsandbytes. Or hold the weights unquantized: model.quantization: none"
        )
    if reason := _unusable(device):
        return tr(
            "bitsandbytes cannot hold weights in nf4 on {device}: {reason} Install the version for "
            "this machine: pip install --upgrade bitsandbytes. Or hold the weights unquantized: "
            "model.quantization: none"
        ).format(device=device, reason=reason)
    return None


def require_peft() -> None:
    """Raise ModelError where peft cannot be imported because of a broken bitsandbytes.

    peft imports bitsandbytes wherever it is installed, also for adapters on unquantized weights.
    """
    if find_spec("bitsandbytes") is not None and (reason := _broken_import()):
        raise ModelError(
            tr(
                "peft, which makes the adapters, imports bitsandbytes where it is installed, and that "
                "fails: {reason} Take it away: pip uninstall bitsandbytes. Or install it again: "
                "pip install --force-reinstall --no-deps bitsandbytes"
            ).format(reason=reason)
        )


def nf4_config(dtype: torch.dtype, *, double_quantization: bool) -> Any:
    """What transformers' from_pretrained takes as quantization_config."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=double_quantization,
    )


def keep_layout(model: Any) -> None:
    """Forbid bitsandbytes to rearrange the weights of `model` when it answers questions.

    On CPUs with AVX512-BF16 a layer in eval mode rearranges its weights for a faster product, rounds
    their scales to bfloat16, and leaves them so. That product has no gradient: training afterwards
    would go on with wrong gradients (bitsandbytes 0.50), and only a warning be seen.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def is_quantized(model: Any) -> bool:
    """Does the model hold any weight in fewer bits than it computes in?"""
    return any(_is_4_bit(p) or not p.dtype.is_floating_point for p in model.parameters())


def n_weights(parameter: Any) -> int:
    """How many weights a parameter stands for: nf4 keeps two in each of its numbers."""
    shape = parameter.quant_state.shape if _is_4_bit(parameter) else parameter.shape
    return torch.Size(shape).numel()


def weights_by_format(model: Any) -> dict[str, int]:
    """How many weights are held in which format ("nf4", "bfloat16", …), the largest share first.

    Tied weights count once.
    """
    found: Counter[str] = Counter()
    for p in model.parameters():
        name = p.quant_type if _is_4_bit(p) else str(p.dtype).removeprefix("torch.")
        found[name] += n_weights(p)
    return dict(found.most_common())


def describe_precision(model: Any) -> str:
    """In what the weights are held, as one sentence for people."""
    formats = weights_by_format(model)
    total = sum(formats.values())
    shares = ", ".join(f"{name} {n / total:.1%}" for name, n in formats.items())
    if len(formats) == 1:
        shares = next(iter(formats))
    return tr("The weights are held in {formats}.").format(formats=shares)


def _is_4_bit(parameter: Any) -> bool:
    return getattr(parameter, "quant_state", None) is not None


def _broken_import() -> str:
    """Why `import bitsandbytes` fails, in a line; empty if it does not."""
    try:
        with swallowed("bitsandbytes"):
            import bitsandbytes  # noqa: F401
    except Exception as error:  # whatever its set-up raises on this machine
        return _first_line(error)
    return ""


def _unusable(device: torch.device | str) -> str:
    """Why one block cannot be quantized and read again on `device`, in a line; empty if it can.

    bitsandbytes can be imported without the library for this GPU, and says so at its first use only.
    """
    from bitsandbytes import functional

    try:
        with swallowed("bitsandbytes"):
            block, state = functional.quantize_4bit(
                torch.ones(_BLOCK, 1, device=device), quant_type="nf4"
            )
            functional.dequantize_4bit(block, state)
    except Exception as error:  # as above
        return _first_line(error)
    return ""


def _first_line(error: Exception) -> str:
    """The first line that says something, as a sentence."""
    lines = [line.strip(" 🚨") for line in str(error).splitlines()]
    said = next((line for line in lines if line), type(error).__name__)
    return said if said.endswith((".", "!", "?")) else f"{said}."
