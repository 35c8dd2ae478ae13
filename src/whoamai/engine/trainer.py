"""The training step, and the loop around it.

`Trainer.steps()` yields once after every optimizer step; whoever drives it saves, asks questions, draws
and stops between steps, and the loop itself knows nothing of all that.

The loss of a step is the sum over its targets divided by their number, counted over all its parts before
the first forward pass. kl_weight times the divergence from the untuned model is added, summed over the
targets of rows to keep and divided by the same number. So what is computed at once (tokens_per_pass,
packs or padded rows, shared or not) changes the speed of a step and not what it learns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch

from whoamai.data.loader import batches_of_step
from whoamai.data.packing import bucket, packs_of_step, whole_blocks
from whoamai.engine.ahead import Ahead
from whoamai.engine.loss import Losses, changes_logits, part_losses
from whoamai.engine.precision import (
    Precision,
    clip_and_step,
    clip_gradients,
    make_optimizer,
)
from whoamai.engine.schedule import Schedule
from whoamai.engine.untuned import refuse_without_adapter
from whoamai.errors import ModelError
from whoamai.events import Events, Note
from whoamai.messages import tr
from whoamai.model.fast_path import FastDecoder, switch_on, why_not_fast
from whoamai.model.tree import base_model, can_fork, tree_attention_on
from whoamai.samples import Batch, Pack, Sample

# A single bad step is skipped; so many in a row are no accident.
_BAD_STEPS_IN_A_ROW = 8


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How a step is made. Names are XTuner's where it has one.

    kl_weight: how much the untuned model's distribution counts beside the tokens, at the targets of
    rows to keep (Sample.keep); 0 computes none of it. fast_layers: model/fast_path.py where it can be
    (auto), never, or else an error.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    max_norm: float = 1.0
    tokens_per_pass: int = 1024
    share_prefixes: bool = True
    kl_weight: float = 0.0
    fast_layers: bool | Literal["auto"] = "auto"


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step. Tokens are those fed in: logical as if nothing were shared, and computed.

    `loss` is the mean of the step's targets before the step, with what kl_weight adds; `kl` the mean
    divergence from the untuned model at the targets to keep, None where none was asked for; `applied` is
    False where the step was skipped. The untuned model's pass is not among the tokens.
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
    kl: float | None = None


class Trainer:
    """What a run needs between two steps: model, optimizer, loss scale, and where it is.

    Raises SettingError for a kl_weight where there is no adapter to switch off, and ModelError when
    steps go wrong several times in a row, with the likely cause.
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
        if settings.kl_weight:
            refuse_without_adapter(model)
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
        self._ahead = Ahead(self._made_parts)
        self._look_at_the_model()

    def _look_at_the_model(self) -> None:
        """Can it fork, and are its logits what its head makes? Found by trying, not by its name."""
        self.model.eval()
        shortest = min(self._samples, key=lambda s: len(s.input_ids))
        with self.precision.autocast():
            self.whole = changes_logits(self.model, shortest)
            longest = max(len(s.input_ids) for s in self._samples)
            may_be_fast = self.settings.fast_layers and why_not_fast(self.model) is None
            self.alone_because = can_fork(self.model, longest=longest, dense=bool(may_be_fast))
            self.fast = self._fast_layers()
        if self.alone_because:
            text = tr("Beginnings are not shared, and every row is computed on its own: {reason}")
            self.events.emit(Note(text.format(reason=self.alone_because), "warning"))

    def _fast_layers(self) -> FastDecoder | None:
        """The layers written out for training, where the settings, the device and the model allow."""
        wanted = self.settings.fast_layers
        if not wanted:
            return None
        if self.alone_because:
            found: FastDecoder | str = tr("its rows cannot be packed")
        else:
            found = switch_on(self.model)
        if isinstance(found, FastDecoder):
            return found
        text = tr(
            "The layers are computed one operation after the other, which is slower: {reason}."
        )
        if wanted != "auto":
            raise ModelError(
                tr("train.fast_layers is true, but {reason}. Set it to auto or false.").format(
                    reason=found
                )
            )
        if self.precision.device_type == "cuda":
            self.events.emit(Note(text.format(reason=found)))
        return None

    # ---- the loop --------------------------------------------------------------------------------

    def steps(self) -> Iterator[StepReport]:
        """Train from where the run is to its end; one report after every optimizer step.

        Between steps the model may be put to other use; at the end it is left ready to answer.
        """
        try:
            while self.done < self.schedule.total:
                if not self.model.training:
                    self.model.train()
                yield self._step()
        finally:
            self._ahead.close()
            self.model.eval()

    def heaviest_step(self) -> int:
        """The index of a step of the first epoch whose rows hold the most tokens."""
        first_epoch = self.schedule.steps[: self.schedule.epoch_ends[0]]
        lengths = [sum(len(self._samples[i].input_ids) for i in step) for step in first_epoch]
        return max(range(len(lengths)), key=lengths.__getitem__)

    def try_step(self, index: int) -> tuple[int, int]:
        """Forward and backward of the step with this index, not taken: (tokens computed, logical)."""
        self.model.train()
        parts, _ = self._gradients(index)
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
        lr = self.schedule.lr(index)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        parts, gradients = self._gradients(index)
        self._begin_next(index)
        data_seconds, n_parts = parts.data_seconds, parts.parts
        applied, loss, grad_norm = self._apply(gradients.loss)
        kl = None if gradients.kl is None else gradients.kl.item()
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
            kl=kl,
        )

    # ---- one step --------------------------------------------------------------------------------

    def _gradients(self, index: int) -> tuple[_Parts, _Gradients]:
        """The gradients of the step's mean loss, added up over its parts; that loss, and the mean KL.

        Where the memory does not suffice the step is begun again in parts half as large, and all later
        ones are made so too.
        """
        while True:
            parts = self._parts(index)
            with suppress(torch.OutOfMemoryError):
                return parts, self._add_gradients(parts.parts)
            # Not while the error is handled: it holds on to what was computed.
            self.optimizer.zero_grad(set_to_none=True)
            self._smaller(parts.parts)

    def _parts(self, index: int) -> _Parts:
        """Those of the step with this index, and how long they were waited for."""
        start = time.monotonic()
        parts = self._ahead.take((index, self._tokens_per_pass))
        return _Parts(parts, time.monotonic() - start)

    def _begin_next(self, index: int) -> None:
        """Begin the parts of the step behind `index`, once all of this one is queued on the GPU.

        Then this thread waits and leaves Python to the other; before, the two would hinder one another.
        """
        if self.precision.device_type == "cuda" and index + 1 < self.schedule.total:
            self._ahead.begin((index + 1, self._tokens_per_pass))

    def _made_parts(self, key: tuple[int, int]) -> tuple[Pack | Batch, ...]:
        """The parts of a step, by its index and tokens at once."""
        index, at_once = key
        rows = [self._samples[i] for i in self.schedule.steps[index]]
        keep = bool(self.settings.kl_weight)
        if self.alone_because:
            return tuple(batches_of_step(rows, tokens_per_batch=at_once, keep=keep))
        sizes = bucket if self.precision.device_type == "cuda" else None
        packs = packs_of_step(
            rows,
            tokens_per_pass=at_once,
            share=self.settings.share_prefixes,
            sizes=whole_blocks if self.fast else sizes,
            keep=keep,
        )
        if self.fast:
            self.fast.prepare(packs)
        return tuple(packs)

    def _add_gradients(self, parts: Sequence[Pack | Batch]) -> _Gradients:
        n_targets = sum(part.n_targets for part in parts)
        losses, kls = [], []
        with self._around(parts):
            for part in parts:
                with self.precision.autocast():
                    of = self._loss(part)
                    loss = of.cross_entropy
                    if of.divergence is not None:
                        loss = loss + self.settings.kl_weight * of.divergence
                        kls.append(of.divergence.detach())
                    loss = loss / n_targets
                self.scaler.scale(loss).backward()
                losses.append(loss.detach())
        kept = sum(part.kept.alone.n_targets for part in parts if part.kept)
        kl = torch.stack(kls).sum() / kept if kls else None
        return _Gradients(torch.stack(losses).sum(), kl)

    @contextmanager
    def _around(self, parts: Sequence[Pack | Batch]) -> Iterator[None]:
        """What the model's own layers need around forward and backward passes.

        Entering goes through all of the model's modules while the GPU waits; the fast layers need none.
        """
        if self.fast and all(
            isinstance(part, Pack) and part.kept is None and self.fast.takes(part) for part in parts
        ):
            yield
            return
        forking = nullcontext() if self.alone_because else tree_attention_on(self.model)
        with forking, self.precision.lean(self.model):
            yield

    def _loss(self, part: Pack | Batch) -> Losses:
        return part_losses(self.model, part, whole=self.whole)

    def _apply(self, loss: torch.Tensor) -> tuple[bool, float, float]:
        """(was the optimizer's step taken?, the loss, norm of the gradient before clipping)."""
        if self.optimizer.defaults["fused"] and self.precision.dtype != torch.float16:
            good, loss_, grad_norm = clip_and_step(
                self.optimizer, self._parameters, self.settings.max_norm, loss
            )
        else:
            loss_ = loss.item()
            self.scaler.unscale(self.optimizer)
            grad_norm = clip_gradients(self._parameters, self.settings.max_norm)
            good = math.isfinite(loss_) and math.isfinite(grad_norm)
            if good:
                self.optimizer.step()
        if good:
            self._bad_in_a_row = 0
        else:
            self.skipped += 1
            # A gradient that overflowed may be the scale's fault, a loss never is.
            self._bad_in_a_row += not (math.isfinite(loss_) and self.scaler.is_settling)
        self.scaler.update(good)
        self.optimizer.zero_grad(set_to_none=True)
        if self._bad_in_a_row >= _BAD_STEPS_IN_A_ROW:
            raise ModelError(self._why_no_number())
        return good, loss_, grad_norm

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


@dataclass(frozen=True, slots=True)
class _Gradients:
    """What came with a step's gradients: its mean loss, and the mean KL where there is one; scalars."""

    loss: torch.Tensor
    kl: torch.Tensor | None


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
