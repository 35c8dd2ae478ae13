"""Tensors by name, read on demand: from what reads checkpoints to what writes folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Weight(Protocol):
    """A tensor that costs no memory until it is loaded."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def load(self) -> torch.Tensor:
        """Its values. Raises ModelError where the file is damaged there."""
        ...


@dataclass(frozen=True, slots=True)
class TrainedWeights:
    """What a checkpoint of XTuner's holds.

    weights: by the names they have there ("llm.base_model.model.…"). config: the text of the config it
    was trained with, None where it is not recorded. what: what the checkpoint is, in words.
    """

    weights: Mapping[str, Weight]
    config: str | None
    what: str
    sharded: bool = False
