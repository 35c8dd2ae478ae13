"""The state of every random generator a run draws from, to a file and back."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file


def save_rng(path: Path) -> None:
    """Write the states: torch's as tensors, those of `random` and numpy as JSON in the metadata.

    A CUDA device counts once CUDA has been used; asking earlier would start it.
    """
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            tensors[f"cuda:{device}"] = torch.cuda.get_rng_state(device)
    name, keys, *rest = np.random.get_state(legacy=True)
    metadata = {
        "python": json.dumps(random.getstate()),
        "numpy": json.dumps([name, [int(k) for k in keys], *rest]),
    }
    save_file(tensors, path, metadata=metadata)


def load_rng(path: Path) -> None:
    """Set every generator to its saved state; devices that are not here are left out."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        states = {device: file.get_tensor(device).clone() for device in file.keys()}  # noqa: SIM118
    torch.set_rng_state(states.pop("cpu"))
    for device, state in states.items():
        number = int(device.removeprefix("cuda:"))
        if number < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, number)
    version, internal, gauss = json.loads(metadata["python"])
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = json.loads(metadata["numpy"])
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
