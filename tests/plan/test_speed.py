from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whoamai.config import DataSettings, LoraSettings, ModelSettings, RunConfig
from whoamai.plan import speed
from whoamai.plan.architecture import architecture_of
from whoamai.plan.machine import CARDS, GIB, Machine
from whoamai.plan.speed import TimePlan, expected_time, operations

SEVEN_B = architecture_of("internlm/internlm2_5-7b-chat")
TINY = architecture_of("tiny-chat")
H200 = CARDS[-1]


def machine(device_type: str = "cuda", name: str = "NVIDIA H200") -> Machine:
    return Machine(device_type, name, 100 * GIB, 90 * GIB, True, 8, 1000 * GIB)


def time_of(config: RunConfig | None = None, device: Any = H200, **changes: Any) -> TimePlan:
    values: dict[str, Any] = {
        "computed_tokens": 1_000_000,
        "targets": 250_000,
        "steps": 100,
        "gradient_checkpointing": False,
    }
    return expected_time(SEVEN_B, config or RunConfig(), device, **{**values, **changes})


def test_a_frozen_model_takes_four_operations_a_weight_and_its_adapter_six():
    lora = LoraSettings(r=64)
    config = RunConfig(lora=lora, data=DataSettings(max_length=8))
    n = 64 * sum((lin.n_in + lin.n_out) * lin.count for lin in SEVEN_B.linears)
    attention = 12 * 32 * 4096 * 4
    expected = 4 * SEVEN_B.linear_parameters + 6 * n + attention
    assert operations(
        SEVEN_B, config, computed_tokens=1, targets=0, gradient_checkpointing=False
    ) == pytest.approx(expected)


def test_full_fine_tuning_takes_six_and_checkpointing_two_more():
    config = RunConfig(lora=None, data=DataSettings(max_length=8))
    attention = 32 * 4096 * 4
    for checkpointing, each, seen in ((False, 6, 12), (True, 8, 16)):
        found = operations(
            SEVEN_B, config, computed_tokens=1, targets=0, gradient_checkpointing=checkpointing
        )
        assert found == pytest.approx(each * SEVEN_B.linear_parameters + seen * attention)


def test_the_head_is_computed_only_where_a_target_is():
    args: dict[str, Any] = {"computed_tokens": 0, "gradient_checkpointing": False}
    frozen = operations(SEVEN_B, RunConfig(), targets=10, **args)
    adapted = operations(SEVEN_B, RunConfig(lora=LoraSettings(adapt_head=True)), targets=10, **args)
    assert frozen == 10 * 4 * 92544 * 4096
    assert adapted == 2 * frozen


def test_time_is_never_less_than_what_the_peak_allows():
    work = operations(
        SEVEN_B,
        RunConfig(),
        computed_tokens=1_000_000,
        targets=250_000,
        gradient_checkpointing=False,
    )
    assert time_of().seconds > work / (H200.tflops * 1e12)


def test_tokens_a_second_are_the_computed_tokens_over_the_time():
    found = time_of()
    assert found.tokens_per_second == pytest.approx(1_000_000 / found.seconds)


@settings(max_examples=50, deadline=None)
@given(tokens=st.integers(1, 10**9), more=st.integers(0, 10**9), steps=st.integers(1, 10_000))
def test_more_tokens_never_take_less_time(tokens: int, more: int, steps: int):
    few = time_of(computed_tokens=tokens, targets=tokens // 4, steps=steps)
    many = time_of(computed_tokens=tokens + more, targets=(tokens + more) // 4, steps=steps)
    assert few.seconds <= many.seconds


@pytest.mark.parametrize(
    "slower",
    [
        {"gradient_checkpointing": True},
        {"config": RunConfig(lora=None)},
        {"config": RunConfig(model=ModelSettings(quantization="nf4"))},
        {"config": RunConfig(model=ModelSettings(dtype="float32"))},
        {"device": CARDS[0]},
    ],
    ids=["checkpointing", "full", "nf4", "float32", "a smaller card"],
)
def test_what_is_slower_is_said_to_take_longer(slower: dict[str, Any]):
    assert time_of(**slower).seconds > time_of().seconds


def test_a_card_is_known_by_its_name_and_an_unknown_one_is_said_to_be_assumed():
    assert time_of(device=machine()).seconds == pytest.approx(time_of().seconds)
    unknown = time_of(device=machine(name="Some GPU 9000"))
    assert "assumed" in unknown.basis
    assert "assumed" not in time_of(device=machine(name="NVIDIA A100-SXM4-40GB")).basis


def test_the_basis_says_that_the_share_is_a_cautious_one():
    assert "cautious" in time_of().basis
    assert "{" not in time_of().basis


def test_on_the_cpu_the_rate_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speed, "product_rate", lambda: 1e11)
    found = expected_time(
        TINY, RunConfig(), machine("cpu", "A Processor"), computed_tokens=10_000, targets=2_500,
        steps=10, gradient_checkpointing=False,
    )  # fmt: skip
    work = operations(
        TINY, RunConfig(), computed_tokens=10_000, targets=2_500, gradient_checkpointing=False
    )
    assert found.seconds > work / 1e11
    assert "measured" in found.basis
    assert "100 GFLOP/s" in found.basis


def test_the_measured_rate_of_this_cpu_is_a_plausible_one():
    assert 1e8 < speed.product_rate(0.02) < 1e14
