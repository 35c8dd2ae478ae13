from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from whoamai.engine.rng import load_rng, save_rng


def draw() -> list[float]:
    """Of each generator, in ways that make it keep half a pair of normal numbers."""
    return [
        torch.rand(()).item(),
        torch.randn(()).item(),
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
    ]


def test_every_generator_goes_on_where_it_was_saved(tmp_path: Path):
    draw()
    save_rng(tmp_path / "rng.safetensors")
    expected = [draw() for _ in range(3)]
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    assert draw() != expected[0]
    load_rng(tmp_path / "rng.safetensors")
    assert [draw() for _ in range(3)] == expected


def test_states_of_devices_that_are_not_here_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda n: torch.full((16,), n).byte())
    set_states = {}
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda s, n: set_states.update({n: s[0]}))
    path = tmp_path / "rng.safetensors"
    save_rng(path)
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"cpu", "cuda:0", "cuda:1"}
    load_rng(path)
    assert set_states == {0: 0, 1: 1}
    set_states.clear()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    load_rng(path)
    assert set_states == {0: 0}
