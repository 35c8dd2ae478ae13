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

from whoamai.data.loader import batches_of_step, pad, plan_steps
from whoamai.engine.optim import warmup_cosine
from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.samples import Batch, Sample


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train. Names are XTuner's where it has one."""

    lr: float
    rows_per_step: int = 16
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

    Raises ModelError when the loss or a gradient is not a number, before it gets into the weights.
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
    whole = changes_logits(model.eval(), min(samples, key=lambda s: len(s.input_ids)))
    model.train()
    log, start = TrainLog(), time.monotonic()
    for number, rows in enumerate(steps):
        lr = settings.lr * warmup_cosine(number, steps=len(steps), warmup=warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr
        batches = batches_of_step(
            [samples[i] for i in rows], tokens_per_batch=settings.tokens_per_batch
        )
        loss, grad_norm = add_gradients(model, parameters, batches, settings.max_norm, whole=whole)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise ModelError(
                tr(
                    "The loss or its gradient is not a number at step {step} (learning rate "
                    "{lr:.1e}). Try a lower learning rate: --lr {lower:.0e}"
                ).format(step=number + 1, lr=lr, lower=settings.lr / 3)
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
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


def add_gradients(
    model: Any,
    parameters: Sequence[torch.nn.Parameter],
    batches: Sequence[Batch],
    max_norm: float,
    *,
    whole: bool,
) -> tuple[float, float]:
    """The gradients of one step over `batches`, clipped; (mean loss of a target, norm before)."""
    n_targets = sum(b.n_targets for b in batches)
    total = 0.0
    for batch in batches:
        loss = target_loss(model, batch, whole=whole) / n_targets
        loss.backward()
        total += loss.item()
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return total, grad_norm.item()


def target_loss(model: Any, batch: Batch, *, whole: bool) -> torch.Tensor:
    """Sum of the cross entropies of the batch's targets, in nats (float32).

    The head runs only where a target is predicted: N rows of the vocabulary instead of R · T. With
    `whole`, for a class that changes its logits, all are computed and the N rows taken from them.
    """
    base = _base(model)
    row_N, position_N = batch.row_N.to(base.device), batch.position_N.to(base.device)
    inputs = _inputs(base, batch)
    if whole:
        logits_NV = base(**inputs).logits[row_N, position_N]
    else:
        hidden_ND = base.get_decoder()(**inputs).last_hidden_state[row_N, position_N]
        logits_NV = base.get_output_embeddings()(hidden_ND)
    return F.cross_entropy(logits_NV.float(), batch.token_N.to(base.device), reduction="sum")


@torch.no_grad()
def changes_logits(model: Any, sample: Sample) -> bool:
    """Are the logits anything else than what the head makes of the decoder's last hidden state?

    Some classes scale or cap them (Gemma 2, Cohere, Granite, Falcon-H1), before the head or behind it.
    Found by watching the head while the model runs over `sample`: exact for any class, and for logits
    so small that capping them would hardly show. Without dropout (in eval mode), or two runs differ.
    """
    base = _base(model)
    inputs = _inputs(base, pad([sample]))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    head = base.get_output_embeddings()
    watch = head.register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    try:
        logits = base(**inputs).logits
    finally:
        watch.remove()
    hidden = getattr(base.get_decoder()(**inputs), "last_hidden_state", None)
    if len(seen) != 1 or hidden is None:
        return True
    given, made = seen[0]
    return not (_same(given, hidden) and torch.equal(made.float(), logits.float()))


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal but for rounding: two runs need not add up in the same order on every device."""
    tolerance = 8 * torch.finfo(a.dtype).eps
    return a.shape == b.shape and bool((a - b).norm() <= tolerance * b.norm())


def rows_beyond_context(model: Any, samples: Sequence[Sample]) -> list[int]:
    """Which samples are longer than what the model was made for (max_position_embeddings).

    They would be trained at positions the model does not know; none where the config gives no limit.
    """
    limit = getattr(_base(model).config.get_text_config(), "max_position_embeddings", None)
    return [i for i, s in enumerate(samples) if limit and len(s.input_ids) > limit]


def _base(model: Any) -> Any:
    """The transformers model inside a peft model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _inputs(base: Any, batch: Batch) -> dict[str, Any]:
    return {
        "input_ids": batch.input_ids_RT.to(base.device),
        "attention_mask": batch.attention_mask_RT.to(base.device),
        "use_cache": False,
    }
