"""The training step, and the loop around it.

`Trainer.steps()` yields once after every optimizer step; whoever drives it saves, asks questions, draws
and stops between steps, and the loop itself knows nothing of all that.

The loss of a step is the sum over its targets divided by their number, counted over all its parts before
the first forward pass. So what is computed at once (tokens_per_pass, packs or padded rows, shared or
not) changes the speed of a step and not what it learns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch

from whoamai.data.loader import batches_of_step
from whoamai.data.packing import bucket, packs_of_step
from whoamai.engine.loss import batch_loss, changes_logits, pack_loss
from whoamai.engine.precision import Precision, clip_gradients, make_optimizer
from whoamai.engine.schedule import Schedule
from whoamai.errors import ModelError
from whoamai.events import Events, Note
from whoamai.messages import tr
from whoamai.model.tree import base_model, can_fork, tree_attention_on
from whoamai.samples import Batch, Pack, Sample

# A single bad step is skipped; so many in a row are no accident.
_BAD_STEPS_IN_A_ROW = 8


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How a step is made. Names are XTuner's where it has one."""

    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    max_norm: float = 1.0
    tokens_per_pass: int = 1024
    share_prefixes: bool = True


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step. Tokens are those fed in: logical as if nothing were shared, and computed.

    `loss` is the mean of the step's targets before the step; `applied` is False where it was skipped.
    `peak_bytes`: the most that tensors took on the GPU so far; None on the CPU.
    """

    done: int
    total: int
    epoch: int
    loss: float
    grad_norm: float
    lr: float
    targets: int
    logical_tokens: int
    computed_tokens: int
    seconds: float
    data_seconds: float
    applied: bool
    peak_bytes: int | None


class Trainer:
    """What a run needs between two steps: model, optimizer, loss scale, and where it is.

    Raises ModelError when steps go wrong several times in a row, with the likely cause.
    """

    def __init__(
        self,
        model: Any,
        samples: Sequence[Sample],
        schedule: Schedule,
        settings: TrainSettings,
        *,
        precision: Precision,
        events: Events,
    ) -> None:
        self.model = model
        self.schedule = schedule
        self.settings = settings
        self.precision = precision
        self.events = events
        self.optimizer = make_optimizer(
            model, lr=schedule.peak, betas=settings.betas, weight_decay=settings.weight_decay
        )
        self.scaler = precision.make_scaler()
        self.done = 0
        self.skipped = 0
        self._samples = samples
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._tokens_per_pass = settings.tokens_per_pass
        self._bad_in_a_row = 0
        self._look_at_the_model()

    def _look_at_the_model(self) -> None:
        """Can it fork, and are its logits what its head makes? Found by trying, not by its name."""
        self.model.eval()
        shortest = min(self._samples, key=lambda s: len(s.input_ids))
        with self.precision.autocast():
            self.whole = changes_logits(self.model, shortest)
            longest = max(len(s.input_ids) for s in self._samples)
            self.alone_because = can_fork(self.model, longest=longest)
        if self.alone_because:
            text = tr("Beginnings are not shared, and every row is computed on its own: {reason}")
            self.events.emit(Note(text.format(reason=self.alone_because), "warning"))

    # ---- the loop --------------------------------------------------------------------------------

    def steps(self) -> Iterator[StepReport]:
        """Train from where the run is to its end; one report after every optimizer step.

        Between steps the model may be put to other use; at the end it is left ready to answer.
        """
        try:
            while self.done < self.schedule.total:
                self.model.train()
                yield self._step()
        finally:
            self.model.eval()

    def heaviest_step(self) -> int:
        """The index of a step of the first epoch whose rows hold the most tokens."""
        first_epoch = self.schedule.steps[: self.schedule.epoch_ends[0]]
        lengths = [sum(len(self._samples[i].input_ids) for i in step) for step in first_epoch]
        return max(range(len(lengths)), key=lengths.__getitem__)

    def try_step(self, index: int) -> tuple[int, int]:
        """Forward and backward of the step with this index, not taken: (tokens computed, logical)."""
        self.model.train()
        parts, _ = self._gradients([self._samples[i] for i in self.schedule.steps[index]])
        self.optimizer.zero_grad(set_to_none=True)
        self.model.eval()
        return sum(map(_computed, parts.parts)), sum(map(_logical, parts.parts))

    def moment_bytes(self) -> int:
        """What AdamW's two moments will take, where it has not made them yet."""
        if self.optimizer.state:
            return 0
        return sum(2 * p.numel() * p.element_size() for p in self._parameters)

    @property
    def device(self) -> torch.device:
        """Where what is trained is held."""
        return self._parameters[0].device

    def peak_bytes(self) -> int | None:
        """The most that tensors took on the GPU so far; None on the CPU."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device)

    @property
    def tokens_per_pass(self) -> int:
        """Tokens computed at once; less than was set where the memory did not suffice."""
        return self._tokens_per_pass

    def _step(self) -> StepReport:
        start = time.monotonic()
        index = self.done
        rows = [self._samples[i] for i in self.schedule.steps[index]]
        lr = self.schedule.lr(index)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        parts, loss = self._gradients(rows)
        data_seconds, n_parts = parts.data_seconds, parts.parts
        applied, grad_norm = self._apply(loss)
        self.done = index + 1
        return StepReport(
            done=self.done,
            total=self.schedule.total,
            epoch=1 + sum(end <= index for end in self.schedule.epoch_ends),
            loss=loss,
            grad_norm=grad_norm,
            lr=lr,
            targets=sum(part.n_targets for part in n_parts),
            logical_tokens=sum(_logical(part) for part in n_parts),
            computed_tokens=sum(_computed(part) for part in n_parts),
            seconds=time.monotonic() - start,
            data_seconds=data_seconds,
            applied=applied,
            peak_bytes=self.peak_bytes(),
        )

    # ---- one step --------------------------------------------------------------------------------

    def _gradients(self, rows: Sequence[Sample]) -> tuple[_Parts, float]:
        """The gradients of the step's mean loss, added up over its parts.

        Where the memory does not suffice the step is begun again in parts half as large, and all later
        ones are made so too.
        """
        while True:
            parts = self._parts(rows)
            with suppress(torch.OutOfMemoryError):
                return parts, self._add_gradients(parts.parts)
            # Not while the error is handled: it holds on to what was computed.
            self.optimizer.zero_grad(set_to_none=True)
            self._smaller(parts.parts)

    def _parts(self, rows: Sequence[Sample]) -> _Parts:
        start = time.monotonic()
        if self.alone_because:
            parts = batches_of_step(rows, tokens_per_batch=self._tokens_per_pass)
        else:
            parts = packs_of_step(
                rows,
                tokens_per_pass=self._tokens_per_pass,
                share=self.settings.share_prefixes,
                sizes=bucket if self.precision.device_type == "cuda" else None,
            )
        return _Parts(tuple(parts), time.monotonic() - start)

    def _add_gradients(self, parts: Sequence[Pack | Batch]) -> float:
        n_targets = sum(part.n_targets for part in parts)
        losses = []
        forking = nullcontext() if self.alone_because else tree_attention_on(self.model)
        with forking, self.precision.lean(self.model):
            for part in parts:
                with self.precision.autocast():
                    loss = self._loss(part) / n_targets
                self.scaler.scale(loss).backward()
                losses.append(loss.detach())
        return torch.stack(losses).sum().item()

    def _loss(self, part: Pack | Batch) -> torch.Tensor:
        if isinstance(part, Pack):
            return pack_loss(self.model, part, whole=self.whole)
        return batch_loss(self.model, part, whole=self.whole)

    def _apply(self, loss: float) -> tuple[bool, float]:
        """(was the optimizer's step taken?, norm of the gradient before clipping)."""
        self.scaler.unscale(self.optimizer)
        grad_norm = clip_gradients(self._parameters, self.settings.max_norm)
        good = math.isfinite(loss) and math.isfinite(grad_norm)
        if good:
            self.optimizer.step()
            self._bad_in_a_row = 0
        else:
            self.skipped += 1
            # A gradient that overflowed may be the scale's fault, a loss never is.
            self._bad_in_a_row += not (math.isfinite(loss) and self.scaler.is_settling)
        self.scaler.update(good)
        self.optimizer.zero_grad(set_to_none=True)
        if self._bad_in_a_row >= _BAD_STEPS_IN_A_ROW:
            raise ModelError(self._why_no_number())
        return good, grad_norm

    def _why_no_number(self) -> str:
        text = tr(
            "The loss or its gradient was not a number at {n} steps in a row, the last one step {step} "
            "(learning rate {lr:.1e})."
        ).format(n=self._bad_in_a_row, step=self.done + 1, lr=self.schedule.lr(self.done))
        if self.precision.dtype == torch.float16:
            cure = tr("float16 overflows: take bfloat16 or float32, or a lower learning rate.")
        else:
            cure = tr("Try a learning rate a third as high: {lr:.0e}")
            cure = cure.format(lr=self.schedule.peak / 3)
        return f"{text} {cure}"

    def _smaller(self, parts: Sequence[Pack | Batch]) -> None:
        """Halve what is computed at once, and say so the first time."""
        torch.cuda.empty_cache()
        largest = max(_computed(part) for part in parts)
        if all(part.n_rows == 1 for part in parts):
            text = tr(
                "The GPU's memory does not suffice for a row of {n} tokens. Set "
                "train.gradient_checkpointing=true, model.quantization=nf4, or a smaller "
                "data.max_length."
            )
            raise ModelError(text.format(n=largest))
        if self._tokens_per_pass == self.settings.tokens_per_pass:
            text = tr(
                "Out of memory with {n} tokens at once: the step is made again in smaller parts, and "
                "later ones too. What is learned stays the same."
            )
            self.events.emit(Note(text.format(n=largest), "warning"))
        self._tokens_per_pass = min(self._tokens_per_pass, largest) // 2


@dataclass(frozen=True, slots=True)
class _Parts:
    """What of a step goes through the model at once, part by part."""

    parts: tuple[Pack | Batch, ...]
    data_seconds: float


def _logical(part: Pack | Batch) -> int:
    return part.n_logical if isinstance(part, Pack) else part.n_tokens


def _computed(part: Pack | Batch) -> int:
    """Without padding."""
    return part.n_nodes if isinstance(part, Pack) else part.n_tokens


def rows_beyond_context(model: Any, samples: Sequence[Sample]) -> list[int]:
    """Which samples are longer than what the model was made for (max_position_embeddings).

    They would be trained at positions the model does not know; none where the config gives no limit.
    """
    limit = getattr(base_model(model).config.get_text_config(), "max_position_embeddings", None)
    return [i for i, s in enumerate(samples) if limit and len(s.input_ids) > limit]
