"""An adapter merged into a model, tensor by tensor: neither is ever in memory as a whole model.

Each sum is made in float32 and rounded once, to the format of the base's tensor or to the one asked
for. `plan_merge` looks at names, shapes and formats only and refuses what does not go together;
`write_merged` then reads, adds and writes. Memory: the adapter, and one tensor of the base.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from whoamai.convert.adapter import Adapter, Change, LowRank, few, shape_text
from whoamai.convert.clip import only_vision
from whoamai.convert.llama import (
    as_llama,
    internlm2_config,
    is_internlm2,
    is_kept,
    llama_config,
    write_llama_tokenizer,
)
from whoamai.convert.names import Head, head_of, in_files
from whoamai.convert.shards import Entry, write_shards
from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.model.stored import StoredModel, StoredTensor

# Numbers worked on at a time: 64 MiB in float32.
_AT_A_TIME = 1 << 24
_DTYPES = ("dtype", "torch_dtype")


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor to be written: rows of one of the base's (None: all), changed, in `dtype`."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    source: StoredTensor
    change: Change | None = None
    rows: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class MergePlan:
    """All that will be written. `config` is the merged model's; `notes` are for people to read."""

    base: StoredModel
    outputs: tuple[Output, ...]
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    is_llama: bool = False
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Of everything together."""
        files = sum((self.base.folder / file).stat().st_size for file in self.files)
        return files + sum(output.nbytes for output in self.outputs)

    @property
    def dtype(self) -> torch.dtype:
        """The format of most numbers."""
        sizes: dict[torch.dtype, int] = {}
        for output in self.outputs:
            sizes[output.dtype] = sizes.get(output.dtype, 0) + output.nbytes
        return max(sizes, key=lambda dtype: sizes[dtype])


def plan_merge(
    base: StoredModel,
    adapter: Adapter | None,
    *,
    dtype: torch.dtype | None = None,
    to_llama: bool = False,
    is_clip: bool = False,
) -> MergePlan:
    """What merging writes; without an adapter, the base itself.

    `dtype` is for all tensors of floating point; None keeps each one's own. `to_llama` is for InternLM2
    only; `is_clip` keeps the vision tower of a CLIP model and nothing else.

    Raises ModelError, all problems together: the base is quantized, or the adapter does not belong to
    it by names or shapes.
    """
    refuse_quantized(base)
    config = deepcopy(base.config)
    tensors = dict(base.tensors)
    if is_clip:
        tensors, config = only_vision(base)
    head = None if is_clip else head_of(base.folder, config)
    changes = in_files(adapter.changes, tensors, head) if adapter else {}
    notes: list[str] = []
    extra = _untied(tensors, changes, head, config, notes)
    if adapter:
        _check(adapter, tensors, changes, extra)
    outputs = [
        Output(t.name, t.shape, _format(t, dtype), t, changes.get(t.name)) for t in tensors.values()
    ]
    outputs += [replace(o, dtype=_format(o.source, dtype)) for o in extra]
    files = [file for file in base.other_files() if file.as_posix() != "config.json"]
    if to_llama:
        outputs, config, files = _llama(base, outputs, config, files)
    _say_dtype(config, dtype)
    # In the order of the files they come from, so that each is read once.
    outputs.sort(key=lambda o: o.source.file.name)
    return MergePlan(base, tuple(outputs), config, tuple(files), to_llama, tuple(notes))


def write_merged(
    plan: MergePlan,
    folder: Path,
    *,
    max_shard_bytes: int,
    device: str = "cpu",
    written: Callable[[int], None] = lambda _: None,
) -> list[Path]:
    """Write the merged model into `folder`, with every other file of the base beside it.

    `written` is told the bytes of each tensor. Returns the files with weights. Raises ModelError where a
    sum does not fit its format.
    """
    entries = [
        Entry(o.name, o.shape, o.dtype, partial(_pieces, plan.base, o, device))
        for o in plan.outputs
    ]
    shards = write_shards(folder, entries, max_bytes=max_shard_bytes, written=written)
    for file in plan.files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plan.base.folder / file, folder / file)
    if plan.is_llama:
        write_llama_tokenizer(plan.base.folder, folder)
    text = json.dumps(plan.config, ensure_ascii=False, indent=2) + "\n"
    (folder / "config.json").write_text(text, "utf-8")
    return shards


# ---- the plan ------------------------------------------------------------------------------------


def refuse_quantized(base: StoredModel) -> None:
    """Raise ModelError where the base's weights are quantized."""
    stored = base.config.get("quantization_config")
    narrow = [
        t.name for t in base.tensors.values() if t.dtype.itemsize == 1 and t.name.endswith("weight")
    ]
    if stored or narrow:
        method = (stored or {}).get("quant_method", "8 bits")
        raise ModelError(
            tr(
                "The weights in {path} are quantized ({method}). A sum would be rounded to so few bits "
                "again, and most of what was learned be lost. Give the model they were made from, in "
                "16 bits; the merged one can be quantized afterwards."
            ).format(path=base.folder, method=method)
        )


def _check(
    adapter: Adapter,
    tensors: Mapping[str, StoredTensor],
    changes: Mapping[str, Change],
    extra: list[Output],
) -> None:
    """Raise ModelError where a change has no tensor, or one of another shape."""
    there = dict(tensors) | {output.name: output.source for output in extra}
    problems = []
    if missing := sorted(set(changes) - set(there)):
        text = tr("the model has no {names}")
        problems.append(text.format(names=few(missing)))
    unlike = [
        tr("{name} is {found} in the model and {wanted} in the adapter").format(
            name=name, found=shape_text(there[name].shape), wanted=shape_text(change.shape)
        )
        for name, change in sorted(changes.items())
        if name in there and there[name].shape != change.shape
    ]
    if unlike:
        problems.append(few(unlike, shown=2))
    if problems:
        said = adapter.config.get("base_model_name_or_path")
        raise ModelError(
            tr(
                "The adapter {adapter} does not belong to this model: {problems}. It says it was "
                "trained on: {said}."
            ).format(adapter=adapter.folder, problems="; ".join(problems), said=said)
        )


def _untied(
    tensors: dict[str, StoredTensor],
    changes: Mapping[str, Change],
    head: Head | None,
    config: dict[str, Any],
    notes: list[str],
) -> list[Output]:
    """Where head and embeddings are one tensor and an adapter changes one of them: the other, apart.

    Two of what was one: transformers would tie them again and lose a change, so the config says that
    they are not tied.
    """
    if head is None or not head.tied or not {head.head, head.embeddings} & set(changes):
        return []
    embeddings = tensors.get(head.embeddings) or tensors.get(head.head)
    if embeddings is None:
        return []
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and (part is config or "tie_word_embeddings" in part):
            part["tie_word_embeddings"] = False
    notes.append(
        tr(
            "Head and embeddings are the same weights in this model, and the adapter changes one of "
            "them: they are written apart, and the model grows by {mib} MiB."
        ).format(mib=embeddings.nbytes >> 20)
    )
    return [
        Output(name, embeddings.shape, embeddings.dtype, embeddings, changes.get(name))
        for name in (head.head, head.embeddings)
        if name not in tensors
    ]


def _llama(
    base: StoredModel, outputs: list[Output], config: dict[str, Any], files: list[Path]
) -> tuple[list[Output], dict[str, Any], list[Path]]:
    if not is_internlm2(config):
        kind = config.get("model_type")
        text = tr("{path} is of the kind {kind}; only InternLM2 is written as Llama.")
        raise ModelError(text.format(path=base.folder, kind=kind))
    read = internlm2_config(config)
    renamed = []
    for output in outputs:
        for name, rows in as_llama(output.name, read):
            shape = output.shape if rows is None else (len(rows), *output.shape[1:])
            renamed.append(replace(output, name=name, rows=rows, shape=shape))
    return renamed, llama_config(config), [file for file in files if is_kept(file)]


def _format(tensor: StoredTensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype and tensor.dtype.is_floating_point else tensor.dtype


def _say_dtype(config: Any, dtype: torch.dtype | None) -> None:
    """Write `dtype` into a config, under the name it uses, and into the configs inside it."""
    if dtype is None:
        return
    name = str(dtype).removeprefix("torch.")
    for key in [key for key in _DTYPES if key in config] or ["torch_dtype"]:
        config[key] = name
    for inner in config.values():
        if isinstance(inner, dict) and any(inner.get(key) for key in _DTYPES):
            _say_dtype(inner, dtype)


# ---- the sums ------------------------------------------------------------------------------------


def _pieces(base: StoredModel, output: Output, device: str) -> Iterator[torch.Tensor]:
    """The rows of `output`, some at a time, in its format and on the CPU."""
    with base.opened(output.source.name) as place:
        if not output.shape:
            yield _rounded(_changed(place, output.change, slice(None), device), output)
            return
        rows = place[:] if output.rows is not None else None  # picked rows: the whole is needed
        step = _rows_at_a_time(output)
        for start in range(0, output.shape[0], step):
            end = min(start + step, output.shape[0])
            if rows is None or output.rows is None:
                chosen: Any = slice(start, end)
                values = place[start:end]
            else:
                chosen = output.rows[start:end]
                values = rows[chosen]
            yield _rounded(_changed(values, output.change, chosen, device), output)


def _rows_at_a_time(output: Output) -> int:
    low_rank = output.change and output.change.low_rank
    if low_rank and low_rank.magnitude is not None and low_rank.by_columns:
        return output.shape[0]  # a column's length needs all its rows
    a_row = torch.Size(output.shape[1:]).numel()
    return max(1, _AT_A_TIME // max(1, a_row))


def _changed(values: torch.Tensor, change: Change | None, rows: Any, device: str) -> torch.Tensor:
    """Some rows of a tensor with the change made; untouched ones as they are."""
    if change is None:
        return values
    if change.replaced is not None:
        values = change.replaced[rows]
    if change.low_rank is not None:
        return _sum(values.to(device, torch.float32), change.low_rank, rows)
    if change.added is not None:
        return values.to(device, torch.float32) + change.added[rows].to(device, torch.float32)
    return values


def _sum(weight: torch.Tensor, low_rank: LowRank, rows: Any) -> torch.Tensor:
    """W + s · left @ right for the given rows, and with dora's lengths where there are any."""
    left = low_rank.left[rows].to(weight.device, torch.float32)
    right = low_rank.right.to(weight.device, torch.float32)
    total = torch.addmm(weight, left, right, alpha=low_rank.scale)
    if low_rank.magnitude is None:
        return total
    magnitude = low_rank.magnitude.to(weight.device, torch.float32)
    if low_rank.by_columns:
        return total * (magnitude / total.norm(dim=0))
    return total * (magnitude[rows] / total.norm(dim=1))[:, None]


def _rounded(values: torch.Tensor, output: Output) -> torch.Tensor:
    if output.change is None and values.dtype == output.dtype:
        return values
    rounded = values.to(output.dtype)
    if output.dtype.is_floating_point and not torch.isfinite(rounded).all():
        dtype = str(output.dtype).removeprefix("torch.")
        text = tr(
            "{name} would hold numbers that {dtype} has not. Take a wider format: --dtype bfloat16 or "
            "--dtype float32"
        )
        raise ModelError(text.format(name=output.name, dtype=dtype))
    return rounded.cpu()
