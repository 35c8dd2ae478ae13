"""This machine, and common cards to compare it with.

torch takes two seconds to import and is not needed to see that there is no GPU: it is asked only where
an NVIDIA driver is visible, or Apple's GPU was asked for.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from whoamai.errors import SettingError
from whoamai.messages import tr

GIB = 2**30
# Of the memory printed on the box, what a process finds free: ECC, driver and display take the rest.
_USABLE = 0.95
_BFLOAT16_SINCE = (8, 0)  # compute capability of Ampere
# Memory limits of a container: version 2 of Linux' control groups, then version 1.
_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """The device a run would use here. On the CPU `memory_bytes` and `free_bytes` are main memory.

    `bfloat16`: has the device instructions for it? `cores` are those this process may use; `disk_free`
    is in the folder the run is written to.
    """

    device_type: str
    name: str
    memory_bytes: int
    free_bytes: int
    bfloat16: bool
    cores: int
    disk_free: int


@dataclass(frozen=True, slots=True)
class Card:
    """A common GPU: memory as printed on the box, peak TFLOP/s (16 bits, dense), GB/s of its memory."""

    name: str
    gib: int
    tflops: float
    bandwidth: float
    bfloat16: bool = True

    device_type: ClassVar[str] = "cuda"

    @property
    def memory_bytes(self) -> int:
        return self.gib * GIB

    @property
    def free_bytes(self) -> int:
        return int(_USABLE * self.memory_bytes)


# From NVIDIA's data sheets: tensor cores, 16 bits with sums in float32, without sparsity.
CARDS: tuple[Card, ...] = (
    Card("RTX 4060", 8, 30, 272),
    Card("T4", 16, 65, 320, bfloat16=False),
    Card("RTX 4090", 24, 165, 1008),
    Card("A100 40G", 40, 312, 1555),
    Card("H100 80G", 80, 989, 3350),
    Card("H200", 141, 989, 4800),
)


def this_machine(device: str = "auto", folder: Path = Path(".")) -> Machine:
    """The machine, with the device that `device` names ("auto", "cpu", "cuda", "cuda:1", "mps").

    `folder` is where the run will be written; it need not exist. Raises SettingError where the device
    that is asked for is not there.
    """
    disk_free = _disk_free(folder)
    kind, _, index = device.partition(":")
    if kind == "mps":
        return _apple(disk_free)
    if kind == "cuda" or (kind == "auto" and _has_nvidia_driver()):
        machine = _nvidia(int(index or 0), disk_free)
        if machine is not None:
            return machine
        if kind == "cuda":
            raise SettingError(_why_no_gpu(device))
    memory, free = _main_memory()
    return Machine(
        device_type="cpu",
        name=_processor(),
        memory_bytes=memory,
        free_bytes=free,
        bfloat16=_processor_has_bfloat16(),
        cores=_cores(),
        disk_free=disk_free,
    )


# ---- GPUs ----------------------------------------------------------------------------------------


def _has_nvidia_driver() -> bool:
    """Cheap signs of a driver; a sign without a GPU costs an import of torch, no more."""
    places = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")  # the last: WSL
    return any(Path(place).exists() for place in places) or shutil.which("nvidia-smi") is not None


def _nvidia(index: int, disk_free: int) -> Machine | None:
    """None where there is no such GPU."""
    import torch

    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        return None
    about = torch.cuda.get_device_properties(index)
    free, memory = torch.cuda.mem_get_info(index)
    return Machine(
        device_type="cuda",
        name=about.name,
        memory_bytes=memory,
        free_bytes=free,
        bfloat16=(about.major, about.minor) >= _BFLOAT16_SINCE,
        cores=_cores(),
        disk_free=disk_free,
    )


def _why_no_gpu(device: str) -> str:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        text = tr(
            "model.device is {device}, but this machine has {count} GPUs, counted from cuda:0."
        )
        return text.format(device=device, count=count)
    if torch.version.cuda is None:
        text = tr(
            "model.device is {device}, but the installed torch was built without CUDA. Install torch "
            "with CUDA, or set model.device to auto or cpu."
        )
    else:
        text = tr(
            "model.device is {device}, but torch sees no GPU. Is the NVIDIA driver installed "
            "(nvidia-smi)? Or set model.device to auto or cpu."
        )
    return text.format(device=device)


def _apple(disk_free: int) -> Machine:
    import torch

    if not torch.backends.mps.is_available():
        raise SettingError(
            tr("model.device is mps, but torch sees no Apple GPU here. Set it to auto or cpu.")
        )
    memory, free = _main_memory()  # CPU and GPU have it in common
    return Machine("mps", _processor(), memory, free, True, _cores(), disk_free)


# ---- processor, memory, disk ---------------------------------------------------------------------


def _main_memory() -> tuple[int, int]:
    """(all, free) bytes this process may have: the machine's, or less where a container limits it."""
    import psutil

    seen = psutil.virtual_memory()
    memory, free = seen.total, seen.available
    for limit_file, used_file, stat_file in _LIMITS:
        limit, used = _number(limit_file), _number(used_file)
        if limit is not None and used is not None and limit < memory:
            # Pages of files that were read count as used, and are given up when memory is asked for.
            memory, free = limit, min(free, limit - used + _inactive_files(stat_file))
            break
    return memory, max(0, free)


def _number(file: str) -> int | None:
    try:
        return int(Path(file).read_text("ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _inactive_files(stat_file: str) -> int:
    try:
        lines = Path(stat_file).read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    for line in _processor_facts():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "CPU"


def _processor_has_bfloat16() -> bool:
    flags = {
        flag
        for line in _processor_facts()
        if line.startswith(("flags", "Features"))
        for flag in line.split()
    }
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _processor_facts() -> list[str]:
    if sys.platform != "linux":
        return []
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _disk_free(folder: Path) -> int:
    """Free bytes where `folder` is, or would be made."""
    folder = folder.expanduser().absolute()
    existing = next((place for place in (folder, *folder.parents) if place.exists()), Path("."))
    return shutil.disk_usage(existing).free
