"""The tensors of a model folder by name, read one at a time: a model need not fit the memory.

Weights are read as safetensors, or from .bin files by torch's restricted unpickler, which runs nothing.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from whoamai.errors import ModelError
from whoamai.messages import tr

_SAFE, _SAFE_INDEX = "model*.safetensors", "model.safetensors.index.json"
_BIN, _BIN_INDEX = "pytorch_model*.bin", "pytorch_model.bin.index.json"
# Weights of any program: what a folder holds beside these are a model's other files.
_WEIGHTS = ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.gguf", "*.h5", "*.msgpack", "*.onnx")
_WEIGHTS += ("*.ckpt", "*.ckpt.*", "*.safetensors.index.json", "*.bin.index.json", "*.ot")
_FORMATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# What torch's unpickler says of a name it does not admit.
_FOREIGN_NAME = re.compile(r"GLOBAL ([\w.]+)|instantiate ([\w.]+)|class ([\w.]+)")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file, not read yet."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class StoredModel:
    """A model folder: its config as it is written, and its tensors by name.

    Raises ModelError, naming the file, for what is missing, cut off, of another kind, or a pickle that
    asks for code to be run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pickled: tuple[Path, dict[str, torch.Tensor]] | None = None
        self.config: dict[str, Any] = read_json_object(folder / "config.json")
        self.tensors: dict[str, StoredTensor] = {}
        for file in _weight_files(folder):
            for tensor in _tensors_in(file):
                self.tensors.setdefault(tensor.name, tensor)
        if not self.tensors:
            raise ModelError(
                tr(
                    "The folder {path} has no weights (model*.safetensors or pytorch_model*.bin). "
                    "Was the download finished?"
                ).format(path=folder)
            )

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """The tensor, or a view of its place in the file: sliced by rows, it reads only these.

        What was read of safetensors is given back to the machine once neither the block nor a slice
        holds it; of a .bin file, once another file is read.
        """
        tensor = self.tensors[name]
        with damaged_file(tensor.file):
            if tensor.file.suffix == ".safetensors":
                with safe_open(str(tensor.file), framework="pt") as file:
                    yield file.get_slice(name) if tensor.shape else file.get_tensor(name)
            else:
                yield self._from_pickle(tensor.file)[name]

    def _from_pickle(self, file: Path) -> dict[str, torch.Tensor]:
        """The last file stays open: unpickling it for each of its tensors would take long."""
        if self._pickled is None or self._pickled[0] != file:
            self._pickled = None  # before the next is read: one at a time
            self._pickled = (file, read_pickled(file))
        return self._pickled[1]

    def other_files(self) -> list[Path]:
        """Everything in the folder but weights, relative to it; hidden files are left out."""
        return other_files(self.folder)


def other_files(folder: Path) -> list[Path]:
    """Everything in a model folder but weights, relative to it; hidden files are left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in inner.parts)
        if path.is_file() and not is_hidden and not any(map(path.match, _WEIGHTS)):
            found.append(inner)
    return found


def model_folder(source: str | Path, *, download: bool = True) -> Path:
    """The folder of `source`: a folder, "tiny-chat", or a name on the hub, which is downloaded.

    With `download` False only what was downloaded before is looked at. Raises ModelError where there is
    no such model.
    """
    from whoamai.model.load import BUNDLED, bundled_model

    if str(source) == BUNDLED:
        return bundled_model()
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                tr("The folder {path} has no config.json, so it is not a model folder.").format(
                    path=folder
                )
            )
        return folder
    if folder.is_file():
        raise ModelError(
            tr("{path} is a file. Give the folder that holds config.json.").format(path=folder)
        )
    return _from_hub(str(source), download=download)


def _from_hub(name: str, *, download: bool) -> Path:
    from huggingface_hub import snapshot_download

    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelError(tr("There is no model folder {path}.").format(path=name))
    unused = ["*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.ot", "*.pth", "original/*"]
    try:
        # Many have their weights twice; .bin files are fetched only where there are no others.
        for left_out in ([*unused, "*.bin"], unused):
            found = snapshot_download(name, ignore_patterns=left_out, local_files_only=not download)
            if _weight_files(Path(found)):
                break
        return Path(found)
    except Exception as error:  # of the network, the hub, a mirror: they have no common base
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise ModelError(
            tr(
                "{name} is no local folder, and could not be had from the hub: {reason}. "
                "Download it first and give the folder, or set HF_ENDPOINT to a mirror."
            ).format(name=name, reason=reason.rstrip("."))
        ) from error


# ---- files ---------------------------------------------------------------------------------------


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelError where there is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        text = tr("{path} cannot be read: {reason}")
        raise ModelError(text.format(path=path, reason=error.strerror or error)) from error
    except ValueError as error:
        text = tr("{path} is no JSON: {reason}")
        raise ModelError(text.format(path=path, reason=error)) from error
    if not isinstance(found, dict):
        raise ModelError(tr("{path} is no JSON object.").format(path=path))
    return found


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a .safetensors or .bin file. Raises ModelError as StoredModel does."""
    if file.suffix != ".safetensors":
        return read_pickled(file)
    with damaged_file(file), safe_open(str(file), framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping


def read_pickled(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .bin file, in place where its form allows: little of it is read by this.

    Nothing in the file is run. Raises ModelError for a file that asks for it, naming what it asks for.
    """
    try:
        try:
            found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # of the form torch wrote before 1.6, which cannot be read in place
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(_refused(file, error)) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(_damaged(file, error)) from error
    tensors = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        text = tr("{path} holds {kind} instead of tensors by name, so it is no file of weights.")
        raise ModelError(text.format(path=file, kind=type(found).__name__))
    return tensors


def _refused(file: Path, error: Exception) -> str:
    match = _FOREIGN_NAME.search(str(error))
    if match is None:
        return _damaged(file, error)
    name = next(group for group in match.groups() if group)
    text = tr(
        "{path} is refused: reading it would call {name}, which is no part of weights. Nothing was run. "
        "Take the model as safetensors, from somebody you trust."
    )
    return text.format(path=file, name=name)


def _damaged(file: Path, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).split("\n")[0]
    text = tr("{path} cannot be read; it may be cut off or of another kind: {reason}")
    return text.format(path=file, reason=reason)


@contextmanager
def damaged_file(file: Path) -> Iterator[None]:
    """Errors of reading `file` as safetensors, as ModelError."""
    try:
        yield
    except SafetensorError as error:
        raise ModelError(_damaged(file, error)) from error
    except FileNotFoundError as error:
        text = tr("{path} is missing. Was the download finished?")
        raise ModelError(text.format(path=file)) from error


def _weight_files(folder: Path) -> Sequence[Path]:
    """The files with the model's weights, safetensors where there are both; all that an index names."""
    for pattern, index in ((_SAFE, _SAFE_INDEX), (_BIN, _BIN_INDEX)):
        if (folder / index).is_file():
            return _indexed(folder, folder / index)
        if found := sorted(folder.glob(pattern)):
            return found
    return ()


def _indexed(folder: Path, index: Path) -> list[Path]:
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        raise ModelError(
            tr("{path} does not say which file holds which tensor.").format(path=index)
        )
    files = [folder / name for name in sorted(set(places.values()))]
    if missing := [file.name for file in files if not file.is_file()]:
        text = tr("{path} names files that are not there: {files}. Was the download finished?")
        raise ModelError(text.format(path=index, files=", ".join(missing)))
    return files


def _tensors_in(file: Path) -> Iterator[StoredTensor]:
    if file.suffix != ".safetensors":
        for name, tensor in read_pickled(file).items():
            yield StoredTensor(name, tuple(tensor.shape), tensor.dtype, file)
        return
    with damaged_file(file), safe_open(str(file), framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118  # no mapping
            place = opened.get_slice(name)
            dtype = _FORMATS.get(place.get_dtype())
            if dtype is None:
                text = tr("{path}: the tensor {name} is of the format {dtype}, which is not known.")
                raise ModelError(text.format(path=file, name=name, dtype=place.get_dtype()))
            yield StoredTensor(name, tuple(place.get_shape()), dtype, file)
