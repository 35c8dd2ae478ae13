"""InternLM2 models of all forms, and what their logits are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.model.internlm2_reference import logits as reference_logits
from tests.models import make_internlm2

LINEAR = {"type": "linear", "factor": 3.0}
DYNAMIC = {"type": "dynamic", "factor": 2.0}
LIMIT = 24
FORMS = {
    "grouped heads": {},
    "one key-value head": {"num_key_value_heads": 1},
    "as many key-value heads as heads": {"num_key_value_heads": None},
    "bias": {"bias": True},
    "tied": {"tie_word_embeddings": True},
    "another base": {"rope_theta": 1000000},
    "linear": {"rope_scaling": LINEAR},
    "dynamic within its limit": {"rope_scaling": DYNAMIC, "max_position_embeddings": 64},
    "dynamic beyond its limit": {"rope_scaling": DYNAMIC, "max_position_embeddings": LIMIT},
    "dynamic, uneven factor": {
        "rope_scaling": {"type": "dynamic", "factor": 2.7},
        "max_position_embeddings": LIMIT,
    },
}


def model_of(**changes) -> Any:
    """With weights large enough that every part of it matters."""
    model = make_internlm2(initializer_range=0.3, **changes).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.linspace(-0.5, 0.5, len(parameter)))
    return model


def ids_of(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 300, (length,), generator=generator) for length in lengths]


def reference(model: Any, ids: torch.Tensor, **where) -> np.ndarray:
    weights = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
    return reference_logits(weights, model.config.to_dict(), ids.tolist(), **where)


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor, **options) -> np.ndarray:
    return model(input_ids=ids[None] if ids.dim() == 1 else ids, **options).logits.numpy()


def close(found: np.ndarray, expected: np.ndarray, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(found, expected, atol=atol, rtol=0)
