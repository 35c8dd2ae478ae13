"""torch's own files (.pth, .pt, .bin), opened without torch.load: what they hold, tensors on demand.

Two formats: since torch 1.6 a zip archive with one pickle and a file a storage, never compressed; before
that pickles one after the other and then the storages. The file is mapped into memory, so that a tensor
costs nothing until it is used.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whoamai.convert.restricted_pickle import load_pickle, size_of
from whoamai.errors import ModelError
from whoamai.messages import tr

if TYPE_CHECKING:
    import torch

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
# What torch's old format begins with, behind the pickle's own first bytes.
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER = 30  # bytes before the name in a zip's entry


@dataclass(frozen=True, slots=True)
class TorchFile:
    """A file and what its pickle says; every tensor in it is a PickledTensor."""

    path: Path
    content: Any


def read_torch_file(path: Path) -> TorchFile:
    """Open `path`. Its tensors are read when they are asked for. Runs nothing.

    Raises ModelError where there is no such file, it is damaged, cut off or of another kind, and where
    its pickle names something that is not admitted.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_ZIP))
            if not beginning:
                raise ModelError(tr("{path} is empty. Was it copied completely?").format(path=path))
            # A private copy: torch wants memory that may be written to; the file stays as it is.
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        text = tr("{path} cannot be read: {reason}")
        raise ModelError(text.format(path=path, reason=error.strerror or error)) from error
    if beginning == _ZIP:
        return _from_zip(path, memory)
    if beginning.startswith(_PICKLE):
        return _from_pickles(path, memory)
    raise ModelError(_what_else(path, memory[:512]))


@dataclass(slots=True)
class _Bytes:
    """The storages of one file: where each begins, how long it is, its CRC where it has one."""

    path: Path
    memory: mmap.mmap
    places: dict[str, tuple[int, int, int | None]] = field(default_factory=dict)
    checked: set[str] = field(default_factory=set)

    def tensor(self, key: str, dtype: str, n: int) -> torch.Tensor:
        import torch

        start, size, crc = self.places.get(key, (0, -1, None))
        kind = getattr(torch, dtype)
        if size != n * kind.itemsize:
            raise _damaged(self.path, tr("tensor {key} is not of the length it should be"), key=key)
        if n == 0:
            return torch.empty(0, dtype=kind)
        if key not in self.checked:
            if crc is not None and zlib.crc32(memoryview(self.memory)[start : start + size]) != crc:
                raise _damaged(self.path, tr("tensor {key} is not as it was written"), key=key)
            self.checked.add(key)
        if start % kind.itemsize:  # in torch's old format storages stand anywhere
            aligned = bytearray(self.memory[start : start + size])
            return torch.frombuffer(aligned, dtype=kind)
        return torch.frombuffer(self.memory, dtype=kind, count=n, offset=start)


def _from_zip(path: Path, memory: mmap.mmap) -> TorchFile:
    storages = _Bytes(path, memory)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickles = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
            is_program = any("/code/" in name for name in entries)  # TorchScript
            if len(pickles) != 1 or is_program:
                text = tr("{path} is a zip archive, but none that torch.save writes.")
                raise ModelError(text.format(path=path))
            top = pickles[0].partition("/")[0]
            if f"{top}/byteorder" in entries and archive.read(f"{top}/byteorder") != b"little":
                raise _damaged(path, tr("its numbers are written in another byte order"))
            for name, entry in entries.items():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise _damaged(path, tr("its tensors are compressed"))
                if name.startswith(f"{top}/data/"):
                    start = _start(memory, entry.header_offset)
                    if start + entry.file_size > len(memory):
                        raise _damaged(path, tr("it is cut off"))
                    key = name.removeprefix(f"{top}/data/")
                    storages.places[key] = (start, entry.file_size, entry.CRC)
            pickled = archive.read(pickles[0])
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError) as error:
        # A zip's list of contents is at its end: of one that was cut off nothing can be read.
        raise _damaged(path, tr("it is cut off")) from error
    return TorchFile(path, load_pickle(io.BytesIO(pickled), path, storages))


def _start(memory: mmap.mmap, header: int) -> int:
    """Where an entry's bytes begin: behind its own header, whose length the zip's list does not say."""
    name, extra = struct.unpack_from("<HH", memory, header + 26)
    return header + _LOCAL_HEADER + name + extra


def _from_pickles(path: Path, memory: mmap.mmap) -> TorchFile:
    """magic, version, facts of the machine, the content, the storages' keys: five pickles; the bytes."""
    storages = _Bytes(path, memory)
    with path.open("rb") as file:
        if load_pickle(file, path, storages) != _OLD_MAGIC:
            text = tr("{path} is a pickle, but none that torch.save writes.")
            raise ModelError(text.format(path=path))
        load_pickle(file, path, storages)
        load_pickle(file, path, storages)
        dtypes: dict[str, str] = {}
        content = load_pickle(file, path, storages, dtypes)
        keys = load_pickle(file, path, storages)
        position = file.tell()
    if not isinstance(keys, list) or not dtypes.keys() >= set(map(str, keys)):
        raise _damaged(path, tr("its tensors are not listed"))
    for key in map(str, keys):
        if position + 8 > len(memory):
            raise _damaged(path, tr("it is cut off"))
        (n,) = struct.unpack_from("<q", memory, position)
        size = n * size_of(dtypes[key])
        position += 8
        if n < 0 or position + size > len(memory):
            raise _damaged(path, tr("it is cut off"))
        storages.places[key] = (position, size, None)
        position += size
    return TorchFile(path, content)


def _damaged(path: Path, what: str, **values: Any) -> ModelError:
    text = tr("{path} is damaged: {what}. Copy it once more, or take another checkpoint.")
    return ModelError(text.format(path=path, what=what.format(**values)))


def _what_else(path: Path, beginning: bytes) -> str:
    """What a file is that is none of torch's."""
    length = int.from_bytes(beginning[:8], "little")
    if beginning[8:9] == b"{" and length < path.stat().st_size:
        text = tr(
            "{path} is a safetensors file, where a file that torch.save wrote (iter_N.pth) is expected. "
            "Weights in safetensors need no conversion."
        )
    elif beginning.isascii() and beginning.decode("ascii").isprintable():
        text = tr(
            "{path} is a text file, where a file that torch.save wrote (iter_N.pth) is expected. It "
            'begins with "{beginning}".'
        )
        return text.format(path=path, beginning=beginning.decode("ascii")[:60])
    else:
        text = tr(
            "{path} is neither a file that torch.save wrote (iter_N.pth) nor a folder that DeepSpeed "
            "wrote. Was it copied completely?"
        )
    return text.format(path=path)
