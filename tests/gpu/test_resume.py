"""A run on a GPU goes on from its checkpoint with the same parameters, moments and dropout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.checkpoint_runs import (
    Run,
    assert_same,
    everything,
    load,
    lora,
    save,
    train,
)
from whoamai.engine.rng import load_rng, save_rng

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("fused", [False, True])
def test_on_a_gpu_parameters_moments_and_dropout_go_on_as_they_were(fused: bool, tmp_path: Path):
    def make() -> Run:
        model = lora().cuda()
        trained = [p for p in model.parameters() if p.requires_grad]
        return Run(model, torch.optim.AdamW(trained, lr=1e-2, fused=fused))

    first = make()
    train(first, range(5))
    path = save(first, tmp_path)
    expected, drawn = everything(first), torch.rand(3, device="cuda")
    second = make()
    load(path, second)
    assert_same(everything(second), expected)
    assert torch.equal(torch.rand(3, device="cuda"), drawn)
    train(second, range(5, 7))


def test_the_generator_of_a_gpu_goes_on_where_it_was_saved(tmp_path: Path):
    torch.rand(3, device="cuda")
    save_rng(tmp_path / "rng.safetensors")
    expected = torch.rand(3, device="cuda")
    load_rng(tmp_path / "rng.safetensors")
    assert torch.equal(torch.rand(3, device="cuda"), expected)
