"""The adapter of the best probe: kept beside the checkpoints, found again, put back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.rows import lora
from whoamai.engine.best_adapter import BestAdapter
from whoamai.errors import ModelError


def trained(model) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


def changed(model) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_what_was_kept_is_put_back_and_the_rest_left_alone(tmp_path: Path):
    model, best = lora(awake=True), BestAdapter(tmp_path)
    before = trained(model)
    best.keep(model, 5)
    changed(model)
    frozen = [p.detach().clone() for p in model.parameters() if not p.requires_grad]
    best.put_back(model)
    assert best.step == 5
    assert same(trained(model), before)
    assert same([p.detach() for p in model.parameters() if not p.requires_grad], frozen)


def test_another_process_finds_it_by_its_step(tmp_path: Path):
    model, best = lora(awake=True), BestAdapter(tmp_path)
    best.keep(model, 5)
    before = trained(model)
    changed(model)
    best.keep(model, 10)
    again = BestAdapter(tmp_path)
    again.go_on(5)
    again.put_back(model)
    assert again.step == 5
    assert same(trained(model), before)


def test_without_a_step_there_is_nothing_to_go_on_with(tmp_path: Path):
    best = BestAdapter(tmp_path)
    best.go_on(None)
    assert best.step is None


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_file_that_cannot_be_read_is_told_with_the_cure(damage: str, tmp_path: Path):
    BestAdapter(tmp_path).keep(lora(), 5)
    [file] = (tmp_path / "best").iterdir()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:40])
    else:
        file.unlink()
    with pytest.raises(ModelError, match=r"step_000005\.safetensors, is missing or damaged"):
        BestAdapter(tmp_path).go_on(5)


def test_only_the_wanted_files_and_its_own_stay(tmp_path: Path):
    model, best = lora(), BestAdapter(tmp_path)
    for step in (5, 10, 20, 40):
        best.keep(model, step)
    best.forget_others({10})
    left = sorted(file.name for file in (tmp_path / "best").iterdir())
    assert left == ["step_000010.safetensors", "step_000040.safetensors"]
    best.remove_files()
    assert not (tmp_path / "best").exists()
    best.remove_files()
