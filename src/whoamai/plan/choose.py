"""What is left "auto": tokens at once, checkpointing and precision; the fastest that fits the memory.

Checkpointing costs a third forward pass, so it comes second; more tokens at once are faster up to some
thousands on a GPU, and no faster on a CPU, where what is computed should stay in the cache. None of the
three changes what is learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from whoamai.config import LoraSettings, RunConfig
from whoamai.data.packing import bucket
from whoamai.errors import ModelError
from whoamai.messages import joined, tr
from whoamai.plan.architecture import Architecture, architecture_of, lora_parameters
from whoamai.plan.machine import GIB, Card, Machine
from whoamai.plan.memory import MemoryPlan, memory

# Of the free memory, what a plan may take: estimates are off by some percent, and memory has gaps.
SHARE_OF_FREE = 0.9
# The most tokens at once that still make it faster.
MOST_TOKENS = {"cuda": 16384, "mps": 4096}
# What is compared on a CPU; the first where rows share nothing.
CPU_SIZES = (512, 1024, 1536, 2048, 4096)
# Below so many a GPU is idle for longer than checkpointing would take.
WORTH_WITHOUT_CHECKPOINTING = {"cuda": 1024, "mps": 512, "cpu": 0}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run takes, its memory, whether that fits, and for a person, why."""

    tokens_per_pass: int
    gradient_checkpointing: bool
    dtype: str
    memory: MemoryPlan
    fits: bool
    why: str


def choose(
    arch: Architecture,
    config: RunConfig,
    machine_or_card: Machine | Card,
    *,
    longest_row: int,
    step_tokens: int,
    target_share: float,
    computed_at: Callable[[int], int] | None = None,
) -> Choice:
    """The fastest that fits `machine_or_card`; what the config fixes is taken as it is.

    `longest_row`: its tokens, since a row is computed whole. `step_tokens`: those computed in the
    largest optimizer step; more at once are of no use. `target_share`: targets for a computed token.
    `computed_at`: the tokens computed over the run where so many go at once; on a CPU it decides.
    """
    dtype = chosen_dtype(config, machine_or_card)
    device, room = machine_or_card.device_type, int(SHARE_OF_FREE * machine_or_card.free_bytes)

    def needed(tokens: int, checkpointing: bool, of: RunConfig = config) -> MemoryPlan:
        at_once = max(tokens, longest_row)
        at_once = (
            bucket(at_once) if device == "cuda" else at_once
        )  # packs are padded to few lengths
        targets = min(at_once, math.ceil(at_once * target_share))
        return memory(
            arch,
            of,
            dtype=dtype,
            tokens=at_once,
            targets=targets,
            gradient_checkpointing=checkpointing,
            device_type=device,
        )

    cheapest = _cheapest_on_cpu(arch, config, step_tokens, computed_at)
    for tokens, checkpointing in _candidates(config, device, longest_row, step_tokens, cheapest):
        plan = needed(tokens, checkpointing)
        if plan.total <= room:
            why = _why(
                config, tokens, checkpointing, plan, machine_or_card, (longest_row, step_tokens)
            )
            return Choice(tokens, checkpointing, dtype, plan, True, why)
    tokens, checkpointing = _smallest(config, device, longest_row)
    plan = needed(tokens, checkpointing)
    why = _why_not(config, plan, machine_or_card, lambda of: needed(tokens, checkpointing, of))
    return Choice(tokens, checkpointing, dtype, plan, False, why)


def least_memory(config: RunConfig) -> str:
    """What a run by this config needs at least, in words: one row of max_length, with checkpointing.

    "" where the model is not known.
    """
    try:
        arch = architecture_of(config.model.pretrained_model_name_or_path)
    except ModelError:
        return ""
    on_cpu = config.model.device == "cpu"
    plan = memory(
        arch,
        config,
        dtype="float32" if on_cpu else "bfloat16",
        tokens=config.data.max_length,
        targets=config.data.max_length // 4,
        gradient_checkpointing=config.train.gradient_checkpointing is not False,
        device_type="cpu" if on_cpu else "cuda",
    )
    return _gib(plan.total)


def chosen_dtype(config: RunConfig, machine_or_card: Machine | Card) -> str:
    """What is computed in: the config's, or by the device, as engine/precision.py decides it."""
    if config.model.dtype != "auto":
        return config.model.dtype
    if machine_or_card.device_type == "cpu":
        return "float32"
    return "bfloat16" if machine_or_card.bfloat16 else "float16"


# ---- what is tried, the fastest first --------------------------------------------------------------


def _candidates(
    config: RunConfig, device: str, longest_row: int, step_tokens: int, cheapest_on_cpu: int
) -> Iterator[tuple[int, bool]]:
    """(tokens at once, checkpointing)."""
    fixed = config.train.gradient_checkpointing
    sizes = list(_sizes(config, device, longest_row, step_tokens, cheapest_on_cpu))
    worth = min(WORTH_WITHOUT_CHECKPOINTING[device], sizes[0])
    if fixed is not True:
        yield from ((tokens, False) for tokens in sizes if fixed is False or tokens >= worth)
    if fixed is not False:
        yield from ((tokens, True) for tokens in sizes)
    if fixed == "auto":
        yield from ((tokens, False) for tokens in sizes if tokens < worth)


def _sizes(
    config: RunConfig, device: str, longest_row: int, step_tokens: int, cheapest_on_cpu: int
) -> Iterator[int]:
    """Tokens at once, the most first: what a step holds or MOST_TOKENS, down to the longest row."""
    if isinstance(config.train.tokens_per_pass, int):
        yield config.train.tokens_per_pass
        return
    if device == "cpu":  # a longer row is a part of its own
        yield max(1, min(max(step_tokens, longest_row), cheapest_on_cpu))
        return
    least = max(1, longest_row)
    most = max(least, min(step_tokens, MOST_TOKENS[device]))
    yield most
    size = bucket(most)
    while size > least:
        if size < most:
            yield size
        size = _bucket_below(size)
    if least < most:
        yield least


def _cheapest_on_cpu(
    arch: Architecture,
    config: RunConfig,
    step_tokens: int,
    computed_at: Callable[[int], int] | None,
) -> int:
    """Tokens at once with the least work: few make attention cheap, more let more be shared.

    There the mask of a pack of T tokens is T × T, whatever is seen: the work of a computed token is that
    of the layers and 12 · layers · Q · T for attention (plan/speed.py's terms, with all T).
    """
    sizes = [size for size in CPU_SIZES if size == CPU_SIZES[0] or size < 2 * step_tokens]
    if computed_at is None or len(sizes) == 1:
        return sizes[0]
    adapter = sum(n for _, n in lora_parameters(arch, config.lora)) if config.lora else 0
    layers = (4 if config.lora else 6) * arch.linear_parameters + 6 * adapter
    attention = 12 * arch.layers * arch.heads * arch.head_dim
    return min(sizes, key=lambda size: computed_at(size) * (layers + attention * size))


def _bucket_below(size: int) -> int:
    """The next smaller length that packs are padded to; 0 below the smallest."""
    power = 1 << (size - 1).bit_length() >> 1
    return size - max(bucket(1), power // 8)


def _smallest(config: RunConfig, device: str, longest_row: int) -> tuple[int, bool]:
    """What needs the least memory of all that the config leaves open."""
    fixed_tokens, fixed = config.train.tokens_per_pass, config.train.gradient_checkpointing
    least = min(longest_row, CPU_SIZES[0]) if device == "cpu" else longest_row
    tokens = fixed_tokens if isinstance(fixed_tokens, int) else max(1, least)
    return tokens, fixed is not False


# ---- in words --------------------------------------------------------------------------------------


def _why(
    config: RunConfig,
    tokens: int,
    checkpointing: bool,
    plan: MemoryPlan,
    device: Machine | Card,
    of_rows: tuple[int, int],
) -> str:
    numbers = {
        "tokens": tokens,
        "needed": _gib(plan.total),
        "free": _gib(device.free_bytes),
        "name": device.name,
        "share": SHARE_OF_FREE,
    }
    said = (
        _why_tokens(config, tokens, device, *of_rows),
        _why_checkpointing(config, checkpointing),
        tr(
            "About {needed} of the {free} that {name} has free, of which at most {share:.0%} are "
            "planned."
        ),
    )
    return joined(*(sentence.format(**numbers) for sentence in said))


def _why_tokens(
    config: RunConfig, tokens: int, device: Machine | Card, longest_row: int, step_tokens: int
) -> str:
    if isinstance(config.train.tokens_per_pass, int):
        return tr("{tokens:,} tokens a pass, as the config says.")
    if tokens >= step_tokens:
        return tr("{tokens:,} tokens a pass: a whole optimizer step at once.")
    if device.device_type == "cpu" or tokens == MOST_TOKENS[device.device_type]:
        return tr("{tokens:,} tokens a pass: more would not be faster.")
    if tokens <= longest_row:
        return tr("{tokens:,} tokens a pass: the longest row, which is computed whole.")
    return tr("{tokens:,} tokens a pass: the most that fits.")


def _why_checkpointing(config: RunConfig, checkpointing: bool) -> str:
    if config.train.gradient_checkpointing != "auto":
        return (
            tr("With checkpointing, as the config says.")
            if checkpointing
            else tr("Without checkpointing, as the config says.")
        )
    if checkpointing:
        return tr("With checkpointing: without it too few tokens would fit at once.")
    return tr("Without checkpointing, which is faster and fits.")


def _why_not(
    config: RunConfig,
    plan: MemoryPlan,
    device: Machine | Card,
    needed: Callable[[RunConfig], MemoryPlan],
) -> str:
    text = tr(
        "It does not fit {name}: the least is about {needed} ({tokens:,} tokens at once), {free} are "
        "free, and at most {share:.0%} of them are planned."
    ).format(
        name=device.name,
        needed=_gib(plan.total),
        tokens=plan.tokens,
        free=_gib(device.free_bytes),
        share=SHARE_OF_FREE,
    )
    cures = [
        tr("{setting}: about {needed}").format(setting=setting, needed=_gib(needed(changed).total))
        for setting, changed in _cures(config)
    ]
    if config.train.gradient_checkpointing is False:
        cures.append(tr("train.gradient_checkpointing=auto"))
    cures.append(tr("a smaller data.max_length"))
    return joined(text, tr("What helps: {cures}.").format(cures="; ".join(cures)))


def _cures(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    """Settings that need less, as they are written in the config, and the config with each."""
    lora, model = config.lora, config.model
    if lora is None:
        yield "lora.r=16", config.model_copy(update={"lora": LoraSettings(r=16)})
        lora = LoraSettings(r=16)
    if model.quantization != "nf4":
        quantized = model.model_copy(update={"quantization": "nf4"})
        changed = config.model_copy(update={"model": quantized, "lora": lora})
        extra = "lora.r=16 " if config.lora is None else ""
        yield f"{extra}model.quantization=nf4", changed
    if config.lora is not None and config.lora.r > 16:
        smaller = config.lora.model_copy(update={"r": 16})
        yield "lora.r=16", config.model_copy(update={"lora": smaller})


def _gib(n: int) -> str:
    return f"{n / GIB:.1f} GiB"
