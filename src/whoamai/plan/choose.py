"""What is left "auto": tokens at once, checkpointing and precision; the fastest that fits the memory.

Checkpointing costs a third forward pass, so it comes second. More tokens at once are faster up to some
thousands: a GPU is kept busy, and more of what rows share is computed once. None of the three changes
what is learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from whoamai.config import LoraSettings, RunConfig
from whoamai.data.packing import bucket
from whoamai.errors import ModelError
from whoamai.messages import joined, tr
from whoamai.plan.architecture import Architecture, architecture_of
from whoamai.plan.machine import GIB, Card, Machine
from whoamai.plan.memory import MemoryPlan, memory

# Of the free memory, what a plan may take: estimates are off by some percent, and memory has gaps.
SHARE_OF_FREE = 0.9
# The most tokens at once that still make it faster.
MOST_TOKENS = {"cuda": 16384, "mps": 4096, "cpu": 4096}
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
) -> Choice:
    """The fastest that fits `machine_or_card`; what the config fixes is taken as it is.

    `longest_row`: its tokens, since a row is computed whole. `step_tokens`: those computed in the
    largest optimizer step; more at once are of no use. `target_share`: targets for a computed token.
    """
    dtype = chosen_dtype(config, machine_or_card)
    device, room = machine_or_card.device_type, int(SHARE_OF_FREE * machine_or_card.free_bytes)

    def needed(tokens: int, checkpointing: bool, of: RunConfig = config) -> MemoryPlan:
        at_once = max(min(tokens, step_tokens), longest_row)  # a pack holds no more than its step
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

    for tokens, checkpointing in _candidates(config, device, longest_row, step_tokens):
        plan = needed(tokens, checkpointing)
        if plan.total <= room:
            why = _why(
                config, tokens, checkpointing, plan, machine_or_card, (longest_row, step_tokens)
            )
            return Choice(tokens, checkpointing, dtype, plan, True, why)
    tokens, checkpointing = _smallest(config, longest_row)
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
    config: RunConfig, device: str, longest_row: int, step_tokens: int
) -> Iterator[tuple[int, bool]]:
    """(tokens at once, checkpointing)."""
    fixed = config.train.gradient_checkpointing
    sizes = list(_sizes(config, device, longest_row, step_tokens))
    worth = min(WORTH_WITHOUT_CHECKPOINTING[device], sizes[0])
    if fixed is not True:
        yield from ((tokens, False) for tokens in sizes if fixed is False or tokens >= worth)
    if fixed is not False:
        yield from ((tokens, True) for tokens in sizes)
    if fixed == "auto":
        yield from ((tokens, False) for tokens in sizes if tokens < worth)


def _sizes(config: RunConfig, device: str, longest_row: int, step_tokens: int) -> Iterator[int]:
    """Tokens at once, the most first: what a step holds or MOST_TOKENS, down to the longest row."""
    if isinstance(config.train.tokens_per_pass, int):
        yield config.train.tokens_per_pass
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


def _bucket_below(size: int) -> int:
    """The next smaller length that packs are padded to; 0 below the smallest."""
    power = 1 << (size - 1).bit_length() >> 1
    return size - max(bucket(1), power // 8)


def _smallest(config: RunConfig, longest_row: int) -> tuple[int, bool]:
    """What needs the least memory of all that the config leaves open."""
    fixed_tokens, fixed = config.train.tokens_per_pass, config.train.gradient_checkpointing
    tokens = fixed_tokens if isinstance(fixed_tokens, int) else max(1, longest_row)
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
    if tokens == MOST_TOKENS[device.device_type]:
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
