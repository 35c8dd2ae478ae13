from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whoamai.config import LoraSettings, ModelSettings, RunConfig, TrainSettings
from whoamai.data.packing import bucket
from whoamai.plan.architecture import architecture_of
from whoamai.plan.choose import (
    MOST_TOKENS,
    SHARE_OF_FREE,
    WORTH_WITHOUT_CHECKPOINTING,
    Choice,
    choose,
)
from whoamai.plan.machine import CARDS, GIB, Machine
from whoamai.plan.memory import memory

SEVEN_B = architecture_of("internlm/internlm2_5-7b-chat")
TINY = architecture_of("tiny-chat")


def machine(gib: float, device_type: str = "cuda", *, bfloat16: bool = True) -> Machine:
    free = int(gib * GIB)
    return Machine(device_type, "A Device", free, free, bfloat16, 8, 1000 * GIB)


def chosen(device: Any, config: RunConfig | None = None, **changes: Any) -> Choice:
    values: dict[str, Any] = {"longest_row": 700, "step_tokens": 30_000, "target_share": 0.25}
    arch = changes.pop("arch", SEVEN_B)
    return choose(arch, config or RunConfig(), device, **{**values, **changes})


def config(**train: Any) -> RunConfig:
    return RunConfig(train=TrainSettings(**train))


# ---- what is left auto ---------------------------------------------------------------------------


def test_with_room_enough_the_most_useful_tokens_are_taken_without_checkpointing():
    found = chosen(machine(400))
    assert (found.tokens_per_pass, found.gradient_checkpointing) == (16384, False)
    assert found.fits


def test_no_more_tokens_are_taken_than_a_step_holds():
    assert chosen(machine(400), step_tokens=3_000).tokens_per_pass == 3_000


def test_on_the_cpu_few_tokens_are_enough():
    found = chosen(machine(64, "cpu"), arch=TINY)
    assert found.tokens_per_pass == MOST_TOKENS["cpu"] == 4096


def test_the_longest_row_is_computed_whole_even_where_it_is_longer_than_useful():
    assert chosen(machine(64, "cpu"), arch=TINY, longest_row=5_000).tokens_per_pass == 5_000


def test_with_less_room_fewer_tokens_are_taken_and_then_checkpointing():
    found = [chosen(machine(gib)) for gib in (140, 80, 40, 24)]
    sizes = [(choice.gradient_checkpointing, choice.tokens_per_pass) for choice in found]
    assert [checkpointing for checkpointing, _ in sizes] == [False, False, False, True]
    assert sizes[0][1] > sizes[1][1] > sizes[2][1]


def test_below_a_thousand_tokens_checkpointing_goes_first():
    needed = memory(
        SEVEN_B,
        RunConfig(),
        dtype="bfloat16",
        tokens=900,
        targets=225,
        gradient_checkpointing=False,
    ).total
    found = chosen(machine((needed / SHARE_OF_FREE) / GIB + 0.5), longest_row=100)
    assert found.gradient_checkpointing
    assert found.tokens_per_pass > WORTH_WITHOUT_CHECKPOINTING["cuda"]


def test_what_is_taken_fits_and_the_next_larger_would_not():
    found = chosen(machine(60))
    larger = memory(
        SEVEN_B, RunConfig(), dtype="bfloat16", tokens=bucket(found.tokens_per_pass + 1),
        targets=bucket(found.tokens_per_pass + 1) // 4, gradient_checkpointing=False,
    )  # fmt: skip
    assert found.memory.total <= SHARE_OF_FREE * 60 * GIB < larger.total


def test_on_a_gpu_the_memory_is_that_of_the_padded_pack():
    found = chosen(machine(400), longest_row=700, step_tokens=700)
    assert found.tokens_per_pass == 700
    assert found.memory.tokens == bucket(700) == 768


def test_one_byte_decides():
    found = chosen(machine(60))
    exactly = next(
        free
        for free in range(int(found.memory.total / SHARE_OF_FREE) - 2, int(60 * GIB))
        if int(SHARE_OF_FREE * free) >= found.memory.total
    )
    fits = replace(machine(60), free_bytes=exactly)
    assert chosen(fits).tokens_per_pass == found.tokens_per_pass
    assert chosen(replace(fits, free_bytes=exactly - 2)).tokens_per_pass < found.tokens_per_pass


# ---- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        (machine(80), "bfloat16"),
        (machine(80, bfloat16=False), "float16"),
        (machine(80, "cpu"), "float32"),
        (machine(80, "cpu", bfloat16=False), "float32"),
        (CARDS[1], "float16"),
        (CARDS[2], "bfloat16"),
    ],
)
def test_auto_is_the_precision_that_the_device_has(device: Any, dtype: str):
    assert chosen(device, arch=TINY).dtype == dtype


def test_a_precision_that_the_config_fixes_is_taken():
    fixed = RunConfig(model=ModelSettings(dtype="float32"))
    assert chosen(machine(80), fixed, arch=TINY).dtype == "float32"


# ---- what the config fixes -----------------------------------------------------------------------


def test_fixed_tokens_are_taken_as_they_are():
    found = chosen(machine(400), config(tokens_per_pass=1234))
    assert found.tokens_per_pass == 1234
    assert "config" in found.why


def test_fixed_tokens_below_the_longest_row_are_planned_with_that_row():
    found = chosen(machine(400), config(tokens_per_pass=100), longest_row=2_000)
    assert found.tokens_per_pass == 100
    assert found.memory.tokens == bucket(2_000)


@pytest.mark.parametrize("fixed", [True, False])
def test_fixed_checkpointing_is_taken_as_it_is(fixed: bool):
    for gib in (400, 60, 24):
        found = chosen(machine(gib), config(gradient_checkpointing=fixed))
        assert found.gradient_checkpointing is fixed


def test_checkpointing_that_is_forbidden_leaves_fewer_tokens():
    found = chosen(machine(24), config(gradient_checkpointing=False), longest_row=200)
    assert not found.gradient_checkpointing
    assert found.tokens_per_pass < chosen(machine(24), longest_row=200).tokens_per_pass


# ---- where nothing fits --------------------------------------------------------------------------


def test_what_does_not_fit_is_told_with_the_least_need_and_what_helps():
    found = chosen(CARDS[0])
    assert not found.fits
    assert found.gradient_checkpointing
    assert found.tokens_per_pass == 700
    assert f"{found.memory.total / GIB:.1f} GiB" in found.why
    for cure in ("nf4", "max_length", "lora.r=16"):
        assert cure in found.why
    assert "{" not in found.why


def test_no_cure_is_named_that_is_taken_already():
    small = RunConfig(model=ModelSettings(quantization="nf4"), lora=LoraSettings(r=8))
    found = chosen(machine(4), small)
    assert not found.fits
    assert "nf4" not in found.why
    assert "lora.r" not in found.why


def test_full_fine_tuning_that_does_not_fit_is_pointed_to_an_adapter():
    found = chosen(machine(80), RunConfig(lora=None))
    assert not found.fits
    assert "lora" in found.why


def test_forbidden_checkpointing_that_does_not_fit_is_named():
    found = chosen(machine(16), config(gradient_checkpointing=False))
    assert not found.fits
    assert "gradient_checkpointing" in found.why


# ---- properties ----------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    gib=st.floats(1, 300),
    more=st.floats(0, 300),
    longest=st.integers(1, 8192),
    step=st.integers(1, 200_000),
    share=st.floats(0.01, 3),
    device=st.sampled_from(["cpu", "cuda", "mps"]),
)
def test_more_memory_never_makes_it_slower(
    gib: float, more: float, longest: int, step: int, share: float, device: str
):
    rows: dict[str, Any] = {"longest_row": longest, "step_tokens": step, "target_share": share}
    small, large = (chosen(machine(g, device), **rows) for g in (gib, gib + more))
    assert small.fits <= large.fits
    if small.fits and small.gradient_checkpointing == large.gradient_checkpointing:
        assert small.tokens_per_pass <= large.tokens_per_pass
    for found in (small, large):
        assert found.tokens_per_pass >= longest
        assert found.tokens_per_pass <= max(longest, step)
        assert not found.fits or found.memory.total <= SHARE_OF_FREE * (gib + more) * GIB


@settings(max_examples=40, deadline=None)
@given(longest=st.integers(1, 4000), step=st.integers(1, 50_000), share=st.floats(0.01, 1))
def test_whatever_is_chosen_says_why_in_whole_sentences(longest: int, step: int, share: float):
    for card in CARDS:
        found = chosen(card, longest_row=longest, step_tokens=step, target_share=share)
        assert found.why.endswith(".")
        assert "{" not in found.why
