"""Rows and small models with an adapter, for the tests of loss and training."""

from __future__ import annotations

import random
from dataclasses import replace

import torch
import torch.nn.functional as F

from tests.models import make_model
from whoamai.model.lora import add_lora
from whoamai.samples import Sample

CHANGES = {
    "Gemma2": {"final_logit_softcapping": 5.0, "head_dim": 8},
    "Granite": {"logits_scaling": 4.0},
    "Cohere": {"logit_scale": 0.25},
}


def samples(n: int, *, seed: int = 0) -> list[Sample]:
    """Rows of 4 to 24 tokens with targets in two places; about half begin like another."""
    rng = random.Random(seed)
    rows: list[Sample] = []
    for _ in range(n):
        length = rng.randrange(4, 25)
        ids = [rng.randrange(3, 319) for _ in range(length)]
        if rows and rng.random() < 0.5:
            before = rng.choice(rows).input_ids
            shared = rng.randrange(1, min(len(before), length))
            ids[:shared] = before[:shared]
        rows.append(Sample(tuple(ids), tuple(i in (2, length - 1) or i > 8 for i in range(length))))
    return rows


def lora(family: str = "Qwen3", *, dropout: float = 0.0, awake: bool = False, **changes):
    """A model with a fresh adapter; `awake`: one whose B matrices are not zero."""
    model = make_model(family, **{**CHANGES.get(family, {}), **changes})
    model = add_lora(model, r=4, alpha=8, dropout=dropout, seed=0)
    if awake:
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_B" in name:
                    p.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    return model


def reference_loss(model, rows: list[Sample]) -> torch.Tensor:
    """Each row alone, whole logits, labels shifted by hand."""
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1]
        labels = torch.tensor(
            [i if t else -100 for i, t in zip(row.input_ids, row.is_target, strict=True)][1:]
        )
        total = total + F.cross_entropy(logits.double(), labels, reduction="sum")
    return total


def kept(rows: list[Sample]) -> list[Sample]:
    """Every second of them to be kept, and one of the others once more, to be kept as well."""
    rows = [replace(row, keep=i % 2 == 1) for i, row in enumerate(rows)]
    return [*rows, replace(rows[0], keep=True)]


def reference_divergence(model, rows: list[Sample]) -> torch.Tensor:
    """KL(untuned, tuned) at the targets of rows to keep, each row alone, of whole logits."""
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        if row.keep:
            ids = torch.tensor([row.input_ids])
            log_q = model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
            with torch.no_grad(), model.disable_adapter():
                log_p = model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
            at = [i - 1 for i in range(1, len(row.input_ids)) if row.is_target[i]]
            total = total + (log_p.exp() * (log_p - log_q)).sum(-1)[at].sum()
    return total


def gradients(model, loss: torch.Tensor) -> torch.Tensor:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)]).double()
