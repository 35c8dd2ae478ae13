from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from whoamai.data.steps import StepSize
from whoamai.engine.facts import refuse_another_run, run_facts
from whoamai.engine.schedule import Schedule, make_schedule
from whoamai.errors import SettingError
from whoamai.samples import Sample

PATH = Path("work_dirs/tiny/checkpoints/step_000004")
SAMPLES = [Sample((1, 2, 3), (False, False, True)) for _ in range(6)]
SETTINGS = {"optim.lr": 2e-4, "optim.betas": (0.9, 0.999), "lora.r": 8}


def schedule(n: int = 6, *, seed: int = 0, save_steps: int = 2) -> Schedule:
    return make_schedule(
        [3] * n,
        StepSize(rows=2),
        epochs=2,
        seed=seed,
        lr=1e-2,
        warmup_ratio=0.1,
        save_steps=save_steps,
    )


def facts(**changes: Any) -> dict[str, Any]:
    given = {"schedule": schedule(), "samples": SAMPLES, "settings": SETTINGS, **changes}
    return run_facts(**given)


def refusal(**changes: Any) -> str:
    with pytest.raises(SettingError) as error:
        refuse_another_run(facts(), facts(**changes), PATH)
    assert str(PATH) in str(error.value)
    return str(error.value)


def test_the_same_run_goes_on_also_when_its_facts_come_from_a_file():
    refuse_another_run(json.loads(json.dumps(facts())), facts(), PATH)


def test_what_does_not_change_what_is_learned_may_differ():
    refuse_another_run(facts(), facts(schedule=schedule(save_steps=5)), PATH)


def test_settings_that_differ_are_named_with_both_values():
    text = refusal(
        settings={**SETTINGS, "lora.r": 16, "optim.betas": (0.9, 0.99), "model.nf4": True}
    )
    assert "lora.r: 8 in the checkpoint, 16 now" in text
    assert "optim.betas: [0.9, 0.999] in the checkpoint, [0.9, 0.99] now" in text
    assert "model.nf4: null in the checkpoint, true now" in text
    assert "optim.lr" not in text


def test_other_numbers_of_rows_and_steps_are_named():
    text = refusal(samples=SAMPLES[:4], schedule=schedule(4))
    assert "rows: 6 in the checkpoint, 4 now" in text
    assert "optimizer steps: 6 in the checkpoint, 4 now" in text
    assert "not the same" not in text


@pytest.mark.parametrize(
    "sample",
    [
        Sample((1, 2, 4), (False, False, True)),
        Sample((1, 2, 3), (False, True, True)),
        Sample((1, 2), (False, True)),
    ],
)
def test_a_row_with_another_text_targets_or_length_is_noticed(sample: Sample):
    text = refusal(samples=[*SAMPLES[:5], sample])
    assert "the rows' tokens and targets: not the same" in text
    assert "order" not in text


def test_another_order_of_the_rows_is_noticed():
    assert "the order of the rows: not the same" in refusal(schedule=schedule(seed=1))
    first, *others = schedule().steps
    cut = replace(schedule(), steps=((first[0],), (*first[1:], *others[0]), *others[1:]))
    assert "the order of the rows: not the same" in refusal(schedule=cut)
