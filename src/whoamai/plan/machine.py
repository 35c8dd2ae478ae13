"""This machine, and common cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Machine:
    device_type: str
    name: str
    memory_bytes: int
    free_bytes: int
    bfloat16: bool
    cores: int
    disk_free: int


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    gib: int
    tflops: float
    bandwidth: float
    bfloat16: bool = True

    device_type = "cuda"

    @property
    def memory_bytes(self) -> int:
        return self.gib * GIB

    @property
    def free_bytes(self) -> int:
        return self.memory_bytes


CARDS: tuple[Card, ...] = ()


def this_machine(device: str = "auto", folder: Path = Path(".")) -> Machine:
    raise NotImplementedError
