"""The training step and the loop around it.

The loss of a step is the sum over its targets divided by their number, counted over all its batches
before the first forward pass; so how a step is batched does not change what it learns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from whoamai.data.loader import batches_of_step, plan_steps
from whoamai.engine.optim import warmup_cosine
from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.samples import Batch, Sample

# Settings by which some model classes change the logits after the head.
_LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train. Names are XTuner's where it has one."""

    lr: float
    rows_per_step: int = 32
    max_epochs: int = 1
    warmup_ratio: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    max_norm: float = 1.0
    tokens_per_batch: int = 4096
    seed: int = 0


@dataclass(slots=True)
class TrainLog:
    """What happened: one entry a step in `losses` and `learning_rates`; tokens without padding."""

    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    tokens: int = 0
    targets: int = 0
    seconds: float = 0.0


OnStep = Callable[[int, int, dict[str, float]], None]


def train(
    model: Any, samples: Sequence[Sample], settings: TrainSettings, on_step: OnStep
) -> TrainLog:
    """Train the parameters of `model` that can be trained; `on_step(done, total, values)` each step.

    Raises ModelError when the loss is not a number, which no later step could mend.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )
    steps = plan_steps(
        len(samples),
        rows_per_step=settings.rows_per_step,
        epochs=settings.max_epochs,
        seed=settings.seed,
    )
    warmup = max(1, round(settings.warmup_ratio * len(steps)))
    model.train()
    log, start = TrainLog(), time.monotonic()
    for number, rows in enumerate(steps):
        lr = settings.lr * warmup_cosine(number, steps=len(steps), warmup=warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr
        batches = batches_of_step(
            [samples[i] for i in rows], tokens_per_batch=settings.tokens_per_batch
        )
        loss, grad_norm = train_step(model, optimizer, parameters, batches, settings.max_norm)
        if not math.isfinite(loss):
            raise ModelError(
                tr(
                    "The loss is not a number at step {step} (learning rate {lr:.1e}). "
                    "Try a lower learning rate: --lr {lower:.0e}"
                ).format(step=number + 1, lr=lr, lower=settings.lr / 3)
            )
        log.losses.append(loss)
        log.learning_rates.append(lr)
        log.tokens += sum(b.n_tokens for b in batches)
        log.targets += sum(b.n_targets for b in batches)
        log.seconds = time.monotonic() - start
        on_step(
            number + 1,
            len(steps),
            {
                "loss": loss,
                "lr": lr,
                "grad_norm": grad_norm,
                "tokens_per_s": log.tokens / log.seconds,
            },
        )
    model.eval()
    return log


def train_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.nn.Parameter],
    batches: Sequence[Batch],
    max_norm: float,
) -> tuple[float, float]:
    """One optimizer step over `batches`; returns (mean loss of a target, gradient norm)."""
    n_targets = sum(b.n_targets for b in batches)
    total = 0.0
    for batch in batches:
        loss = target_loss(model, batch) / n_targets
        loss.backward()
        total += loss.item()
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, grad_norm.item()


def target_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Sum of the cross entropies of the batch's targets, in nats (float32).

    The head runs only where a target is predicted: N rows of the vocabulary instead of R · T. A class
    that changes its logits after the head is run whole, and the N rows are taken from its output.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = base.device
    row_N, position_N = batch.row_N.to(device), batch.position_N.to(device)
    inputs = {
        "input_ids": batch.input_ids_RT.to(device),
        "attention_mask": batch.attention_mask_RT.to(device),
        "use_cache": False,
    }
    if changes_logits(base):
        logits_NV = base(**inputs).logits[row_N, position_N]
    else:
        hidden_ND = base.get_decoder()(**inputs).last_hidden_state[row_N, position_N]
        logits_NV = base.get_output_embeddings()(hidden_ND)
    return F.cross_entropy(logits_NV.float(), batch.token_N.to(device), reduction="sum")


def changes_logits(model: Any) -> bool:
    """Does the class do something to the logits after its head (Gemma 2, Cohere, Granite do)?"""
    return any(getattr(model.config, name, None) not in (None, 1, 1.0) for name in _LOGIT_CHANGES)
