"""The switch of the fast layers in a Trainer: where there is no GPU, and put on by hand."""

from __future__ import annotations

import pytest
import torch

from tests.engine.rows import samples
from tests.model.test_fast_path import fast, make
from whoamai.data.packing import SMALLEST_STEP, whole_blocks
from whoamai.data.steps import StepSize
from whoamai.engine.precision import Precision, precision_for
from whoamai.engine.schedule import make_schedule
from whoamai.engine.trainer import Trainer, TrainSettings
from whoamai.errors import ModelError
from whoamai.events import Event, Events, Note
from whoamai.model import fast_path
from whoamai.model.tree import base_model


def trainer_of(model, told: list[Event], **settings) -> Trainer:
    rows = samples(24)
    schedule = make_schedule(
        [len(r.input_ids) for r in rows],
        StepSize(rows=8),
        epochs=2,
        seed=0,
        lr=1e-2,
        warmup_ratio=0.1,
    )
    return Trainer(
        model,
        rows,
        schedule,
        TrainSettings(tokens_per_pass=10_000, **settings),
        precision=precision_for("float32", "cpu"),
        events=Events([told.append]),
    )


@pytest.mark.parametrize("wanted", ["auto", False])
def test_on_a_cpu_they_stay_off_without_a_word(wanted):
    told: list[Event] = []
    trainer = trainer_of(make(), told, fast_layers=wanted)
    assert trainer.fast is None
    assert not [e for e in told if isinstance(e, Note)]


def test_where_they_were_asked_for_and_cannot_be_it_is_an_error():
    with pytest.raises(ModelError, match="GPU"):
        trainer_of(make(), [], fast_layers=True)


def test_a_run_through_them_has_the_losses_of_a_run_without():
    without = [r.loss for r in trainer_of(make(), []).steps()]
    model = make()
    trainer = trainer_of(model, [])
    trainer.fast = base_model(model).fast_decoder = fast(model)
    assert [r.loss for r in trainer.steps()] == pytest.approx(without, rel=1e-4)


def test_questions_between_steps_are_answered_by_the_models_own_layers():
    model = make()
    trainer = trainer_of(model, [])
    trainer.fast = base_model(model).fast_decoder = fast(model)
    steps = trainer.steps()
    next(steps)
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    assert torch.isfinite(before).all()
    next(steps)
    assert not torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.parametrize(("n", "length"), [(1, 1), (128, 1), (129, 2), (16005, 126)])
def test_packs_for_them_are_whole_blocks(n: int, length: int):
    assert whole_blocks(n) == length * SMALLEST_STEP


def test_on_a_gpu_a_model_they_are_not_for_is_said_in_one_line(monkeypatch):
    told: list[Event] = []
    trainer = trainer_of(make("Qwen3"), told)
    trainer.precision = Precision(torch.bfloat16, "cuda")
    monkeypatch.setattr(fast_path, "device_runs_it", lambda device, dtype: None)
    assert trainer._fast_layers() is None
    (note,) = (e for e in told if isinstance(e, Note))
    assert "slower" in note.text
    assert "built in another way" in note.text
