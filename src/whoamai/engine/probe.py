"""One step tried out before a run: what the largest pass takes, measured instead of guessed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from whoamai.engine.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Probe:
    """The heaviest step of the first epoch, forward and backward: seconds, tokens, peak bytes.

    `peak_bytes` is what the tensors took on the GPU, and what AdamW's two moments will take from the
    first step on; None on the CPU. tokens_per_pass is what fits, where the plan had asked for more.
    """

    seconds: float
    computed_tokens: int
    logical_tokens: int
    peak_bytes: int | None
    tokens_per_pass: int


def probe(trainer: Trainer) -> Probe:
    """Run the heaviest step twice without taking it: weights and random numbers stay as they are.

    Raises ModelError where not even one row fits the memory.
    """
    device = trainer.device
    states = _random_states(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    heaviest = trainer.heaviest_step()
    trainer.try_step(heaviest)  # the first compiles, allocates and is slow
    _finish(device)
    start = time.monotonic()
    computed, logical = trainer.try_step(heaviest)
    _finish(device)
    seconds = time.monotonic() - start
    peak = trainer.peak_bytes()
    if peak is not None:
        peak += trainer.moment_bytes()
    _restore(states)
    return Probe(seconds, computed, logical, peak, trainer.tokens_per_pass)


def _finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _random_states(device: torch.device) -> tuple[torch.Tensor, list[torch.Tensor]]:
    on_cards = torch.cuda.get_rng_state_all() if device.type == "cuda" else []
    return torch.get_rng_state(), on_cards


def _restore(states: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(states[0])
    if states[1]:
        torch.cuda.set_rng_state_all(states[1])
