"""One step tried out before a run."""

from __future__ import annotations

import pytest
import torch

from tests.engine.rows import lora, samples
from tests.engine.test_trainer import SETTINGS, trainer_of
from tests.models import make_model
from whoamai.engine.probe import probe
from whoamai.errors import ModelError


def test_a_probe_changes_nothing_of_what_is_learned():
    """Dropout is on: numbers drawn by the probe would change the first step."""
    trained = []
    for tried in (False, True):
        torch.manual_seed(5)
        trainer = trainer_of(lora(dropout=0.3), samples(12), epochs=2)
        if tried:
            probe(trainer)
        reports = list(trainer.steps())
        weights = [p.detach() for p in trainer.model.parameters() if p.requires_grad]
        trained.append(([r.loss for r in reports], weights))
    assert trained[0][0] == trained[1][0]
    assert all(map(torch.equal, trained[0][1], trained[1][1]))


def test_the_heaviest_step_of_the_first_epoch_is_tried():
    rows = samples(10)
    trainer = trainer_of(lora(), rows, rows_per_step=3, epochs=3)
    first_epoch = trainer.schedule.steps[: trainer.schedule.epoch_ends[0]]
    tokens = [sum(len(rows[i].input_ids) - 1 for i in step) for step in first_epoch]
    found = probe(trainer)
    assert found.logical_tokens == max(tokens)
    assert found.computed_tokens <= found.logical_tokens
    assert found.seconds > 0
    assert found.peak_bytes is None


def test_the_model_is_left_ready_to_answer_and_without_gradients():
    trainer = trainer_of(make_model("Llama"), samples(4))
    probe(trainer)
    assert not trainer.model.training
    assert all(p.grad is None for p in trainer.model.parameters())
    assert not trainer.optimizer.state


def test_what_does_not_fit_is_halved_and_the_run_keeps_to_it(monkeypatch: pytest.MonkeyPatch):
    trainer = trainer_of(lora(), samples(12))
    whole = trainer._loss

    def small_memory(part):
        if part.n_nodes > 40:
            raise torch.OutOfMemoryError("out of memory")
        return whole(part)

    monkeypatch.setattr(trainer, "_loss", small_memory)
    found = probe(trainer)
    assert found.tokens_per_pass == trainer.tokens_per_pass < SETTINGS.tokens_per_pass
    assert all(report.applied for report in trainer.steps())
    assert trainer.tokens_per_pass == found.tokens_per_pass


def test_a_row_that_does_not_fit_alone_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch):
    trainer = trainer_of(lora(), samples(4))

    def no_memory(part):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(trainer, "_loss", no_memory)
    with pytest.raises(ModelError, match="does not suffice for a row"):
        probe(trainer)


def test_the_optimizers_moments_are_foreseen():
    """8 bytes a trained number, in float32; nothing more once they are there."""
    trainer = trainer_of(lora(), samples(4))
    n = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert trainer.moment_bytes() == 8 * n
    list(trainer.steps())
    assert trainer.moment_bytes() == 0
