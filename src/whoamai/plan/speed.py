"""How long a run will take: the operations it must do, over what a device does in a second.

Floating point operations for each computed token, P being a model's linear weights and n an adapter's:

    frozen linear layers   4 P    forward and the gradient of the input
    trained ones           6 P    and that of the weight
    adapters               6 n
    attention             12 · layers · Q · c    c the tokens a token sees, Q numbers of all query heads
    checkpointing          a third forward more: 2 P + 2 n, 4 · layers · Q · c
    the head               4 V H for a frozen one, 8 V H for a trained one; only where a target is
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

from whoamai.config import RunConfig
from whoamai.messages import tr
from whoamai.plan.architecture import Architecture, lora_parameters
from whoamai.plan.machine import CARDS, Card, Machine

# Peak TFLOP/s of a GPU whose name contains this (data sheets, 16 bits, dense, sums in float32); the
# first that is found counts.
_PEAKS: tuple[tuple[str, float], ...] = (
    ("H200", 989),
    ("H100", 989),
    ("A100", 312),
    ("L40S", 362),
    ("RTX 4090", 165),
    ("RTX 4080", 97),
    ("RTX 4060", 30),
    ("RTX 3090", 71),
    ("V100", 125),
    ("T4", 65),
)
_UNKNOWN_GPU = 50.0
_APPLE = 3.0
# The share of the peak that is reached, from a hidden size on. Before this project was written a
# prototype measured transformers and peft on one H200 at the shape of a 7B model (LoRA, bfloat16): 0.22
# as they come, with checkpointing; 0.51 at their best. Ours is not measured yet, so a cautious value
# lies between. Smaller models keep a GPU less busy; how much less is assumed.
_SHARE_OF_PEAK = ((4096, 0.35), (2048, 0.25), (1024, 0.15), (0, 0.05))
_NF4_SHARE = 0.93  # nf4 beside bfloat16, measured likewise
# On the CPU, of what a large float32 product reaches.
_SHARE_OF_PRODUCT = 0.3
_SECONDS_A_STEP = 0.01  # what each optimizer step costs besides


@dataclass(frozen=True, slots=True)
class TimePlan:
    """Seconds of the training itself, without loading, questions and saving; `basis` says how known.

    Tokens are computed ones.
    """

    seconds: float
    tokens_per_second: float
    basis: str


def expected_time(
    arch: Architecture,
    config: RunConfig,
    machine_or_card: Machine | Card,
    *,
    computed_tokens: int,
    targets: int,
    steps: int,
    gradient_checkpointing: bool,
) -> TimePlan:
    """The time of a run of `steps` steps that computes `computed_tokens` and predicts `targets`."""
    work = operations(
        arch,
        config,
        computed_tokens=computed_tokens,
        targets=targets,
        gradient_checkpointing=gradient_checkpointing,
    )
    rate, basis = _rate(arch, config, machine_or_card)
    seconds = work / rate + _SECONDS_A_STEP * steps
    basis = tr("{work} floating point operations; {basis}").format(
        work=_in_words(work), basis=basis
    )
    return TimePlan(seconds, computed_tokens / seconds if seconds else 0.0, basis)


def operations(
    arch: Architecture,
    config: RunConfig,
    *,
    computed_tokens: int,
    targets: int,
    gradient_checkpointing: bool,
) -> float:
    """Floating point operations of a run, by the formulas at the head of this file."""
    again = 2 if gradient_checkpointing else 0
    lora = config.lora
    if lora is None:
        token = (6 + again) * arch.linear_parameters
    else:
        adapter = sum(
            n for linear, n in lora_parameters(arch, lora) if linear.name != arch.head_name
        )
        token = (4 + again) * arch.linear_parameters + (6 + again) * adapter
    # At most half of the longest row is seen on average.
    seen = config.data.max_length / 2
    token += (12 + 2 * again) * arch.layers * arch.heads * arch.head_dim * seen
    trained_head = lora is None or lora.adapt_head
    head = (8 if trained_head else 4) * arch.vocab * arch.hidden
    return float(computed_tokens) * token + float(targets) * head


def _rate(arch: Architecture, config: RunConfig, device: Machine | Card) -> tuple[float, str]:
    """(operations in a second, on what that rests)."""
    if device.device_type == "cpu":
        measured = product_rate()
        text = tr(
            "{share:.0%} of the {gflops:,.0f} GFLOP/s that a large product reaches here, measured now"
        )
        basis = text.format(share=_SHARE_OF_PRODUCT, gflops=measured / 1e9)
        return _SHARE_OF_PRODUCT * measured, basis
    tflops, known = _peak(device)
    share = next(share for hidden, share in _SHARE_OF_PEAK if arch.hidden >= hidden)
    if config.model.quantization == "nf4":
        share *= _NF4_SHARE
    if config.model.dtype == "float32":
        share /= 8
    text = tr(
        "{share:.0%} of {tflops:,.0f} TFLOP/s ({known}), a cautious share: on an H200 transformers and "
        "peft reach 22 to 51 % with a 7B model"
    )
    return share * tflops * 1e12, text.format(share=share, tflops=tflops, known=known)


def _peak(device: Machine | Card) -> tuple[float, str]:
    """(TFLOP/s in 16 bits, where that is known from)."""
    if isinstance(device, Card):
        return device.tflops, tr("data sheet")
    if device.device_type == "mps":
        return _APPLE, tr("assumed for an Apple GPU")
    for name, tflops in (*_PEAKS, *((card.name, card.tflops) for card in CARDS)):
        if name.lower() in device.name.lower():
            return tflops, tr("data sheet")
    return _UNKNOWN_GPU, tr("assumed: this GPU is in no table of ours")


@cache
def product_rate(seconds: float = 0.2) -> float:
    """Operations in a second of float32 matrix products on this CPU, measured for so long."""
    import numpy as np

    size = 1024
    a = np.ones((size, size), dtype=np.float32)
    np.matmul(a, a)  # the first one starts threads
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        np.matmul(a, a)
        done += 1
    return 2 * size**3 * done / (time.perf_counter() - start)


def _in_words(work: float) -> str:
    """8.4e16: as a person writes it, without the sign of the exponent."""
    digits, _, exponent = f"{work:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"
