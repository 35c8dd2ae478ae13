"""Read the pickles in torch's files without running what they ask for.

A pickle is a small program: it may name any function and call it. Here a fixed list of names is admitted
(the tables below); anything else is refused by its name, before it is looked up.
What is admitted is never the real thing where the real thing could do anything: tensors become
PickledTensor, and objects of mmengine, DeepSpeed and numpy become Inert, which only keep their values.
Nothing of those packages is imported.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from whoamai.errors import ModelError
from whoamai.messages import tr

if TYPE_CHECKING:
    import torch

# What a storage of torch's holds, by its class there; the values are names of torch's dtypes.
_STORAGES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
_DTYPES = frozenset(_STORAGES.values())

# Objects whose values may be kept, and that do nothing.
_INERT = frozenset(
    {
        "argparse.Namespace",
        "builtins.getattr",  # mmengine names its statistics so: getattr(HistoryBuffer, "mean")
        "collections.Counter",
        "collections.defaultdict",
        "collections.deque",
        "datetime.datetime",
        "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.zero.config.DeepSpeedZeroConfig",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
        "mmengine.logging.history_buffer.HistoryBuffer",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib.WindowsPath",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Parameter",
    }
)
# Old names of the same modules.
_RENAMED = {"__builtin__": "builtins"}


class Storages(Protocol):
    """Where the bytes of a file's tensors are."""

    def tensor(self, key: str, dtype: str, n: int) -> torch.Tensor:
        """The storage `key` as n values in a row."""
        ...


@dataclass(frozen=True, slots=True)
class _Storage:
    """A storage as a pickle refers to it; its bytes are elsewhere in the file."""

    key: str
    dtype: str
    n: int


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor of a file, read when it is asked for. dtype: a name of torch's, such as "float32"."""

    shape: tuple[int, ...]
    dtype: str
    _storage: _Storage
    _offset: int
    _stride: tuple[int, ...]
    _storages: Storages

    def load(self) -> torch.Tensor:
        """The values. They are the file's own memory where that is possible: do not change them.

        Raises ModelError where the file is damaged there.
        """
        storage = self._storage
        whole = self._storages.tensor(storage.key, storage.dtype, storage.n)
        if storage.dtype != self.dtype:
            import torch

            whole = whole.view(getattr(torch, self.dtype))
        return whole.as_strided(self.shape, self._stride, self._offset)

    @property
    def place(self) -> tuple[str, int, tuple[int, ...], tuple[int, ...]]:
        """Equal for two tensors of one file that are the same memory."""
        return self._storage.key, self._offset, self.shape, self._stride


class Inert:
    """An object of another package: what it was made of, and nothing it could do."""

    def __init__(self, *args: Any, **_: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass


class _Settings(dict[Any, Any]):
    """mmengine's ConfigDict, as a plain dict."""

    def __setstate__(self, state: Any) -> None:
        pass


def load_pickle(
    file: IO[bytes], path: Path, storages: Storages, dtypes: dict[str, str] | None = None
) -> Any:
    """What the pickle at the file's position says, its tensors as PickledTensor. Runs nothing.

    dtypes: what each storage that is named holds is put there, by its key.

    Raises ModelError for a name that is not admitted, and where it is damaged or no pickle.
    """
    try:
        return _Reader(file, path, storages, {} if dtypes is None else dtypes).load()
    except ModelError:
        raise
    except Exception as error:  # damaged pickles end in almost any of the built-in ones
        text = tr(
            "{path} is damaged or no file of torch's: what it holds cannot be read ({reason}). Was it "
            "copied completely?"
        )
        reason = str(error) or type(error).__name__
        raise ModelError(text.format(path=path, reason=reason)) from error


class _Reader(pickle.Unpickler):
    """pickle's own reader with every name looked up in a table of this file's own.

    The table is new for each file, so that a pickle which sets attributes of what it is given changes
    nothing beyond itself.
    """

    def __init__(
        self, file: IO[bytes], path: Path, storages: Storages, dtypes: dict[str, str]
    ) -> None:
        super().__init__(file, encoding="utf-8")
        self._path = path
        self._storages = storages
        self._dtypes = dtypes
        self._admitted = _admitted(self._rebuilt)

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        full = f"{_RENAMED.get(module_name, module_name)}.{global_name}"
        if full not in self._admitted:
            raise ModelError(
                tr(
                    "{path} names {name}, which is not among the harmless names that are admitted. It "
                    "was refused and nothing was run. A checkpoint has no need of it: do not open this "
                    "file with other programs unless you trust where it comes from."
                ).format(path=self._path, name=f"{module_name}.{global_name}")
            )
        return self._admitted[full]

    def persistent_load(self, pid: Any, /) -> _Storage:
        """("storage", class, key, device, how many values); torch's old format adds a view."""
        kind, dtype, key, _, n, *view = pid
        if kind != "storage" or dtype not in _DTYPES or any(view):
            raise pickle.UnpicklingError(f"persistent id {pid!r:.100}")
        self._dtypes[str(key)] = dtype
        return _Storage(str(key), dtype, int(n))

    def _rebuilt(
        self, storage: _Storage, offset: int, shape: Any, stride: Any, dtype: str
    ) -> PickledTensor:
        if dtype not in _DTYPES:
            raise pickle.UnpicklingError(f"a tensor of {dtype!r:.20}")
        shape, stride = tuple(map(int, shape)), tuple(map(int, stride))
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        bytes_here, bytes_there = size_of(dtype), size_of(storage.dtype)
        if offset < 0 or min(shape + stride, default=0) < 0:
            raise pickle.UnpicklingError("a tensor begins before its storage")
        if 0 not in shape and (last + 1) * bytes_here > storage.n * bytes_there:
            raise pickle.UnpicklingError("a tensor ends behind its storage")
        return PickledTensor(shape, dtype, storage, offset, stride, self._storages)


def size_of(dtype: str) -> int:
    """Bytes a value."""
    return {"bool": 1, "bfloat16": 2}.get(dtype) or int("".join(filter(str.isdigit, dtype))) // 8


def _admitted(rebuilt: Callable[..., PickledTensor]) -> Mapping[str, Any]:
    """The names, and what stands for each."""

    def tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> PickledTensor:
        return rebuilt(storage, offset, shape, stride, storage.dtype)

    def typed(
        storage: Any,
        offset: Any,
        shape: Any,
        stride: Any,
        _grad: Any,
        _hooks: Any,
        dtype: Any,
        *_: Any,
    ) -> PickledTensor:
        return rebuilt(storage, offset, shape, stride, dtype)

    def parameter(data: PickledTensor, *_: Any) -> PickledTensor:
        return data

    def of_a_kind(make: Callable[..., Any], _kind: Any, args: Any, _state: Any) -> Any:
        return make(*args)  # which is one of these functions too

    def latin1(text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes written as {encoding!r:.20}")
        return text.encode("latin1")

    def no_bytes() -> bytes:
        return b""

    inert = {name: type(name.rpartition(".")[2], (Inert,), {}) for name in _INERT}
    storages = {f"torch.{name}": dtype for name, dtype in _STORAGES.items()}
    return {
        **inert,
        **storages,
        **{f"torch.storage.{name}": dtype for name, dtype in _STORAGES.items()},
        **{f"torch.{dtype}": dtype for dtype in _DTYPES},
        "torch.Size": tuple,
        "torch._tensor._rebuild_from_type_v2": of_a_kind,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": typed,
        "torch._utils._rebuild_parameter": parameter,
        "torch._utils._rebuild_parameter_with_state": parameter,
        "collections.OrderedDict": OrderedDict,
        "builtins.set": set,
        "builtins.frozenset": frozenset,
        "builtins.dict": dict,
        "builtins.list": list,
        "builtins.tuple": tuple,
        "_codecs.encode": latin1,
        "builtins.bytes": no_bytes,
        "mmengine.config.config.ConfigDict": type("ConfigDict", (_Settings,), {}),
    }
