"""A whole model that was trained, as a folder for transformers: its weights, its base's other files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch

from whoamai.convert.checkpoints import LLM
from whoamai.convert.pth_to_hf import converted
from whoamai.convert.shards import Entry, write_shards
from whoamai.convert.weights import Weight
from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.model.stored import StoredModel, other_files, read_json_object

_EMBEDDINGS = ("tok_embeddings.weight", "embed_tokens.weight", "wte.weight")
_HEADS = ("lm_head.weight", "output.weight")
# Records of ours about the base are not true of what is made from it.
_RECORDS = "whoamai_*"


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What will be written. `notes` are for people."""

    base: Path
    config: Mapping[str, Any]
    weights: Mapping[str, Weight]
    dtype: torch.dtype
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(prod(w.shape) * self.dtype.itemsize for w in self.weights.values())


def plan_model(trained: Mapping[str, Weight], base: Path, dtype: torch.dtype) -> ModelPlan:
    """What a model folder of these weights (by XTuner's names) holds. `base`: the model's own folder.

    Raises ModelError where weights are missing or of other shapes than the base has.
    """
    config = read_json_object(base / "config.json")
    weights = {name.removeprefix(LLM): weight for name, weight in trained.items()}
    if config.get("tie_word_embeddings"):  # the head is the embeddings, and is not written twice
        weights = {name: weight for name, weight in weights.items() if name not in _HEADS}
    notes = []
    rows = next((w.shape[0] for n, w in weights.items() if n.endswith(_EMBEDDINGS)), None)
    if rows and rows != config.get("vocab_size", rows):
        text = tr("The vocabulary was enlarged in training, from {before} to {after} tokens.")
        notes.append(text.format(before=config["vocab_size"], after=rows))
        config["vocab_size"] = rows
    _check_against(base, weights)
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
    config |= {key: str(dtype).removeprefix("torch.") for key in keys}
    return ModelPlan(base, config, weights, dtype, tuple(notes))


def _check_against(base: Path, weights: Mapping[str, Weight]) -> None:
    """Compare names and shapes with the base's, where its weights are there."""
    if not any(base.glob("*.safetensors")) and not any(base.glob("pytorch_model*.bin")):
        return
    there = StoredModel(base).tensors
    tied = set(_HEADS) - weights.keys()
    missing = sorted(there.keys() - weights.keys() - tied)
    if missing:
        text = tr(
            "The checkpoint lacks {n} of the weights that its base {base} has ({name}, …), so no whole "
            "model can be made of it."
        )
        raise ModelError(text.format(n=len(missing), base=base, name=missing[0]))
    for name in there.keys() & weights.keys():
        mine, other = weights[name].shape, tuple(there[name].shape)
        if mine != other and (mine[1:] != other[1:] or not name.endswith((*_EMBEDDINGS, *_HEADS))):
            text = tr(
                "{name} is {shape} in the checkpoint and {other} in its base {base}: it was trained "
                "from another model."
            )
            raise ModelError(text.format(name=name, shape=list(mine), other=list(other), base=base))


def write_model(
    plan: ModelPlan,
    folder: Path,
    *,
    max_shard_bytes: int,
    safe_serialization: bool,
    written: Callable[[int], None] = lambda _: None,
) -> int:
    """Write it into `folder`; the number of files with weights. `written` is told bytes as they go.

    Memory: one tensor as safetensors, one file of them as .bin. Raises ModelError as `converted` does.
    """
    entries = [
        Entry(name, weight.shape, plan.dtype, partial(_pieces, weight, plan.dtype, name))
        for name, weight in plan.weights.items()
    ]
    if safe_serialization:
        n_files = len(write_shards(folder, entries, max_bytes=max_shard_bytes, written=written))
    else:
        n_files = _write_bin(folder, entries, max_shard_bytes, written)
    for file in other_files(plan.base):
        if file.name != "config.json" and not file.match(_RECORDS):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(plan.base / file, folder / file)
    text = json.dumps(plan.config, ensure_ascii=False, indent=2) + "\n"
    (folder / "config.json").write_text(text, "utf-8")
    return n_files


def _pieces(weight: Weight, dtype: torch.dtype, name: str) -> Iterable[torch.Tensor]:
    yield converted(weight, dtype, name)


def _write_bin(
    folder: Path, entries: Sequence[Entry], max_bytes: int, written: Callable[[int], None]
) -> int:
    """pytorch_model.bin, or numbered parts of it with an index, as transformers names them."""
    parts: list[list[Entry]] = [[]]
    for entry in entries:
        if parts[-1] and sum(e.nbytes for e in parts[-1]) + entry.nbytes > max_bytes:
            parts.append([])
        parts[-1].append(entry)
    count, places = len(parts), {}
    for number, part in enumerate(parts, 1):
        name = (
            f"pytorch_model-{number:05d}-of-{count:05d}.bin" if count > 1 else "pytorch_model.bin"
        )
        torch.save({entry.name: next(iter(entry.pieces())) for entry in part}, folder / name)
        places |= {entry.name: name for entry in part}
        written(sum(entry.nbytes for entry in part))
    if count > 1:
        total = sum(entry.nbytes for entry in entries)
        index = {"metadata": {"total_size": total}, "weight_map": places}
        text = json.dumps(index, indent=2) + "\n"
        (folder / "pytorch_model.bin.index.json").write_text(text, "utf-8")
    return count
