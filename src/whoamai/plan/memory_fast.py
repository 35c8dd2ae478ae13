"""The activations of model/fast_layers.py, where a run will be computed by them.

Whether it will is decided when the model is loaded, by its layers and a trial (model/fast_path.py); here
by what is known before: the shape's name, the method, the device.
"""

from __future__ import annotations

from whoamai.config import RunConfig
from whoamai.plan.architecture import Architecture, adapted_linears

_SHAPES = frozenset({"llama", "mistral", "qwen2", "internlm2"})
_HEADS = (64, 128)
# Bytes of a logit while the loss is made by kernels: it is overwritten by its gradient.
LOGIT_BYTES = 2
# Numbers a token that one layer's way back needs besides what was kept, in units of (H, I): gradients of
# the sum and of the norm, the activation again, its gradient and those of gate and up.
GOING_BACK = (4.0, 4.0)


def runs_fast(arch: Architecture, config: RunConfig, dtype: str, device_type: str) -> bool:
    """Will the layers most likely be computed by model/fast_layers.py?"""
    lora = config.lora
    return (
        lora is not None
        and bool(config.train.fast_layers)
        and device_type == "cuda"
        and dtype != "float32"
        and config.model.quantization == "none"
        and lora.lora_dropout == 0
        and lora.variant != "dora"
        and arch.model_type in _SHAPES
        and arch.head_dim in _HEADS
    )


def numbers_kept(arch: Architecture, config: RunConfig, rank: int) -> int:
    """Numbers of 16 bits a token that one layer keeps; see fast_layers."""
    queries, keys = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    assert config.lora is not None
    adapted = [
        linear for linear in adapted_linears(arch, config.lora) if linear.name != arch.head_name
    ]
    ranks = sum(rank * linear.count for linear in adapted) // arch.layers
    sums, heads, mixed, gate_up = (
        2 * arch.hidden,
        queries + 2 * keys,
        queries,
        2 * arch.intermediate,
    )
    logsumexp = 2 * arch.heads  # float32
    return sums + heads + mixed + gate_up + ranks + logsumexp
