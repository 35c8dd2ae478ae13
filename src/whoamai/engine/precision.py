"""In which precision is computed, and how what is trained stays exact in it.

What is trained is always held in float32: an adapter's matrices, or, in full fine-tuning, every weight.
A step is often a thousandth of a weight or less, and bfloat16 has 8 bits: added there it would be lost.
What is frozen is held in what is computed in, or in 4 bits. torch.autocast rounds the trained weights
to 16 bits for each product and leaves to float32 what needs it (norms, softmax, the loss).

    computed in   model held in        autocast   loss scaled
    float32       float32 (or nf4)     no         no
    bfloat16      bfloat16 (or nf4)*   yes        no
    float16       float16 (or nf4)*    yes        yes              * float32 in full fine-tuning
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from whoamai.messages import tr
from whoamai.model.load import compute_dtype
from whoamai.model.pissa import is_half_still

# XTuner's (mmengine's, torch's) start of the loss scale and the steps without overflow before it grows.
_FIRST_SCALE = 2.0**16
_GROWS_AFTER = 2000
_BACKOFF = 0.5


@dataclass(frozen=True, slots=True)
class Precision:
    """What matrices are multiplied in, and on what kind of device ("cpu", "cuda")."""

    dtype: torch.dtype
    device_type: str

    @property
    def is_mixed(self) -> bool:
        """Is computed in 16 bits while what is trained is held in 32?"""
        return self.dtype != torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """Around every forward pass, the loss included; the backward pass needs none."""
        if not self.is_mixed:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    def lean(self, model: Any) -> AbstractContextManager[Any]:
        """Around the forward and backward passes of a step: peft leaves its layers' inputs alone.

        By itself it copies each input to the float32 of its matrices, and autocast copies it back to
        16 bits for the product: one copy for each layer, kept until the backward pass, where q, k and v
        could share the input they have. The results are the same to the last bit. Only under autocast,
        so not around generating; around the backward pass because checkpointing computes again there.
        """
        if not (self.is_mixed and hasattr(model, "peft_config")):
            return nullcontext()
        from peft.helpers import disable_input_dtype_casting

        return disable_input_dtype_casting(model)

    def make_scaler(self) -> LossScaler:
        return LossScaler(self.device_type, enabled=self.dtype == torch.float16)

    def describe(self) -> str:
        """In what is computed, as one sentence for people."""
        name = str(self.dtype).removeprefix("torch.")
        if not self.is_mixed:
            return tr("Everything is computed in {dtype}.").format(dtype=name)
        text = tr("Computed in {dtype}; what is trained is held in float32.").format(dtype=name)
        if self.dtype == torch.float16:
            text += " " + tr("The loss is scaled, so that small gradients are not lost.")
        return text


def precision_for(dtype: str, device: torch.device | str) -> Precision:
    """`dtype` as the config names it ("auto", "bfloat16", "float16", "float32"), for a device."""
    device = torch.device(device)
    return Precision(compute_dtype(dtype, str(device)), device.type)


class LossScaler:
    """Dynamic loss scaling for float16 (Micikevicius et al. 2018, arXiv:1710.03740).

    float16 has nothing between 0 and 6e-8: the loss is multiplied by a scale before the backward pass,
    the gradients divided by it after. An overflow halves the scale, and that step is skipped; 2,000
    steps in a row without one double it. Not `enabled`, every method does nothing.
    """

    def __init__(self, device_type: str, *, enabled: bool) -> None:
        self._scaler = torch.amp.GradScaler(
            device_type,
            init_scale=_FIRST_SCALE,
            backoff_factor=_BACKOFF,
            growth_interval=_GROWS_AFTER,
            enabled=enabled,
        )

    @property
    def value(self) -> float:
        """The scale now; 1 where nothing is scaled."""
        return self._scaler.get_scale()

    @property
    def is_settling(self) -> bool:
        """May an overflow still be the scale's fault? Then it is halved and nothing is wrong.

        At a scale of 1 or less it is the numbers themselves that are too large.
        """
        return self.value > 1

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale. Once a step, before they are clipped."""
        self._scaler.unscale_(optimizer)

    def update(self, applied: bool) -> None:
        """Once a step, after `unscale`: the scale of the next, by whether this one was applied."""
        if not self._scaler.is_enabled():
            return
        before = self.value
        self._scaler.update()
        if not applied and self.value >= before:
            # Skipped for a reason the gradients do not show: a loss that is not a number.
            self._scaler.update(before * _BACKOFF)

    def state_dict(self) -> dict[str, float]:
        """What another run needs to go on with the same scale; can be written as JSON."""
        return dict(self._scaler.state_dict())

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from `state`; where one run scales and the other does not, from the beginning."""
        if state and self._scaler.is_enabled():
            self._scaler.load_state_dict(dict(state))


def clip_gradients(parameters: Iterable[torch.nn.Parameter], max_norm: float) -> float:
    """Shorten the gradient to `max_norm` if it is longer; returns its length before.

    The length is that of all gradients together, taken as one vector (float32, already unscaled). If
    it is not finite, nothing is changed.
    """
    with_gradient = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in with_gradient if p.grad is not None])
    length = norm.item()
    if length > max_norm and torch.isfinite(norm):
        torch.nn.utils.clip_grads_with_norm_(with_gradient, max_norm, norm)
    return length


def clip_and_step(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.nn.Parameter],
    max_norm: float,
    loss: torch.Tensor,
) -> tuple[bool, float, float]:
    """clip_gradients and the optimizer's step on a GPU: (taken?, loss, norm), asked for only at the end.

    Whether loss and norm are numbers and how much is clipped is decided on the GPU, in the optimizer's
    own kernel, through the two attributes that torch's GradScaler sets. So nothing has to wait between
    the backward pass and the step. For fused optimizers.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    good = torch.isfinite(loss) & torch.isfinite(norm)
    told: Any = optimizer
    told.grad_scale = ((norm + 1e-6) / max_norm).clamp(min=1.0)
    told.found_inf = (~good).float()
    try:
        optimizer.step()
    finally:
        del told.grad_scale, told.found_inf
    taken, loss_, norm_ = torch.stack([good.float(), loss.float(), norm]).tolist()
    return bool(taken), loss_, norm_


def make_optimizer(
    model: torch.nn.Module,
    *,
    lr: float,
    betas: Sequence[float],
    weight_decay: float,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) over everything in `model` that is trained.

    Parameters come with their names, in the model's order. Matrices decay, vectors do not: biases and
    the scales of norms would be pulled away from where they belong (XTuner's AdamW pulls them as well;
    with its weight decay of 0 there is no difference). Nor do the matrices of which half is held still.
    One kernel for all parameters on a GPU; elsewhere all of a kind at once.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    short = [name for name, p in trained if p.dtype != torch.float32]
    assert not short, f"trained, but not held in float32: {short[:3]}"
    on_gpu = all(p.is_cuda for _, p in trained)
    decays = [(name, p) for name, p in trained if p.dim() > 1 and not is_half_still(p)]
    rest = [(name, p) for name, p in trained if p.dim() <= 1 or is_half_still(p)]
    groups = [
        {"params": decays, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=lr,
        betas=(betas[0], betas[1]),
        fused=on_gpu,
        foreach=not on_gpu,
    )
