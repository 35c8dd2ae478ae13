"""Write tensors as safetensors files of a limited size, one after the other, never whole in memory.

A file of the format is eight bytes with the length of a JSON header, the header with each tensor's
format, shape and place, and the numbers. All of that but the numbers is known beforehand, so the numbers
can be written as they are made. (The safetensors library takes all tensors of a file at once.)
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from whoamai.errors import SettingError
from whoamai.messages import tr

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor to be written. `pieces` makes its rows, some at a time, in their order."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: Callable[[], Iterable[torch.Tensor]]

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def parse_size(text: str) -> int:
    """Bytes of "2GB" (10⁹ each, as transformers counts), "500MiB" (2²⁰ each), … SettingError if none.

    >>> parse_size("2GB"), parse_size("1.5 KiB")
    (2000000000, 1536)
    """
    match = _SIZE.fullmatch(text)
    size = int(float(match[1]) * _UNITS.get(match[2].upper(), 0)) if match else 0
    if size <= 0:
        text_ = tr('--max-shard-size "{size}" is no size. Write it as 2GB or 500MB.')
        raise SettingError(text_.format(size=text))
    return size


def write_shards(
    folder: Path,
    entries: Sequence[Entry],
    *,
    max_bytes: int,
    written: Callable[[int], None] = lambda _: None,
) -> list[Path]:
    """Write all entries into `folder`, with an index where they make more than one file.

    A tensor larger than `max_bytes` has a file of its own. `written` is told the bytes of each tensor
    once it is written.
    """
    shards = _cut(entries, max_bytes)
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        count = len(shards)
        names = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write(folder / name, shard, written)
    if len(shards) > 1:
        places = {e.name: name for name, shard in zip(names, shards, strict=True) for e in shard}
        index = {
            "metadata": {"total_size": sum(entry.nbytes for entry in entries)},
            "weight_map": dict(sorted(places.items())),
        }
        text = json.dumps(index, indent=2) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, "utf-8")
    return [folder / name for name in names]


def _cut(entries: Sequence[Entry], max_bytes: int) -> list[list[Entry]]:
    shards: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if shards[-1] and size + entry.nbytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.nbytes
    return shards


def _write(path: Path, entries: Sequence[Entry], written: Callable[[int], None]) -> None:
    # Wide formats first: readers want each tensor to begin at a multiple of its numbers' size.
    ordered = sorted(entries, key=lambda entry: -entry.dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for entry in ordered:
        header[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [place, place + entry.nbytes],
        }
        place += entry.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for entry in ordered:
            start = file.tell()
            for piece in entry.pieces():
                assert piece.dtype == entry.dtype, f"{entry.name}: {piece.dtype}"
                numbers = piece.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                file.write(numbers.numpy().data)
            assert file.tell() - start == entry.nbytes, f"{entry.name}: not as long as was said"
            written(entry.nbytes)
