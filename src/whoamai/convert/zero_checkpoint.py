"""DeepSpeed's checkpoint folders, stages 1 to 3 of ZeRO: one file of weights a rank, put together again.

Stages 1 and 2: the parameters of a group, one behind the other in the order of `param_shapes`, are
one long vector, cut in equal shards, one a rank. Where a shard ends has nothing to do with where a
parameter ends, and the vector is filled up so that it can be cut.

    parameters   [ a a a a a | b b | c c c c c c c ] . .
    ranks        [    0    |    1    |    2    |    3   ]

Stage 3: every parameter is cut by itself, its last shard filled up, and a rank's shards stand one
behind the other.

What is read are the float32 weights the optimizer works on, not their 16-bit copies. In stages 1
and 2 the file of the model holds those copies: each weight is compared with its own, so that shards
that do not belong to it, or in another order, are found. Ranks are numbers: 2 comes before 10.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from whoamai.convert.restricted_pickle import Inert, PickledTensor
from whoamai.convert.torch_file import read_torch_file
from whoamai.convert.weights import TrainedWeights, Weight
from whoamai.errors import ModelError
from whoamai.messages import tr

if TYPE_CHECKING:
    import torch

_OPTIM = re.compile(r"(?:[a-z]+\d+_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
_MODEL = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt")
# How far a weight may be from its copy in 16 bits: bfloat16 keeps 8 bits of it.
_RELATIVE, _ABSOLUTE = 2.0**-6, 1e-6


def is_zero_folder(folder: Path) -> bool:
    """Whether there are files in it that DeepSpeed names so."""
    return any(_OPTIM.fullmatch(p.name) or _MODEL.fullmatch(p.name) for p in folder.iterdir())


def read_zero_checkpoint(folder: Path) -> TrainedWeights:
    """The weights of a folder that DeepSpeed wrote, in float32, put together as they are loaded.

    Raises ModelError where files are missing, damaged or of different checkpoints, or hold more than
    harmless names.
    """
    models = _ranked(folder, _MODEL, tr("the model"))
    optimizers = _ranked(folder, _OPTIM, tr("the optimizer"))
    if not models:
        text = tr(
            "{path} has files of DeepSpeed's optimizer, but none of the model (*model_states.pt)."
        )
        raise ModelError(text.format(path=folder))
    first = _model_states(models[min(models)])
    if not optimizers:
        return _unpartitioned(folder, first)
    ranks = _read_ranks(folder, optimizers)
    stage = ranks[0].stage
    if stage == 3:
        states = [_model_states(models[r]) for r in _expected(folder, models, len(ranks))]
        weights = _stage_3(folder, states, ranks)
    else:
        weights = _stage_1_2(folder, first, ranks)
    shared = first.get("shared_params") or {}
    weights |= {name: weights[source] for name, source in shared.items() if source in weights}
    what = tr("a DeepSpeed checkpoint (ZeRO stage {stage}, {n} ranks)")
    what = what.format(stage=stage, n=len(ranks))
    return TrainedWeights(weights, recorded_config(first), what, sharded=True)


def recorded_config(content: Mapping[str, Any]) -> str | None:
    """The text of the config that XTuner puts into every checkpoint."""
    meta = content.get("meta")
    text = meta.get("cfg") if isinstance(meta, dict) else None
    return text if isinstance(text, str) else None


# ---- the files -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rank:
    """What one rank's optimizer file says. groups: its shards, one a group of parameters."""

    path: Path
    stage: int
    world: int
    groups: tuple[PickledTensor, ...]
    paddings: tuple[int, ...]


def _ranked(folder: Path, pattern: re.Pattern[str], what: str) -> dict[int, Path]:
    """The files of one sort by rank. Files of two runs in one folder are told."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if not (match := pattern.fullmatch(path.name)):
            continue
        rank, model_parallel = int(match[1] or 0), int(match[2])
        if model_parallel:
            text = tr(
                "{path} was trained with tensor parallelism (mp_rank_{n}), which XTuner does not do; "
                "such checkpoints are not read."
            )
            raise ModelError(text.format(path=folder, n=match[2]))
        if rank in found:
            text = tr(
                "{path} holds two files of {what} for rank {rank}: {one} and {other}. They are of two "
                "checkpoints: keep those of one."
            )
            raise ModelError(
                text.format(
                    path=folder, what=what, rank=rank, one=found[rank].name, other=path.name
                )
            )
        found[rank] = path
    return found


def _expected(folder: Path, files: Mapping[int, Path], world: int) -> range:
    """The ranks from 0 to world - 1, all of them there. Raises ModelError naming the missing ones."""
    missing = [rank for rank in range(world) if rank not in files]
    extra = sorted(rank for rank in files if rank >= world)
    if missing:
        text = tr("{path} is of {world} ranks, and the files of these are missing: {ranks}.")
        more = tr("Copy them here too; each was perhaps written on a machine of its own.")
        text = f"{text} {more}"
    elif extra:
        text = tr("{path} is of {world} ranks, and there are files of other ranks too: {ranks}.")
        more = tr("They are of another checkpoint: take them away.")
        text = f"{text} {more}"
    else:
        return range(world)
    ranks = ", ".join(map(str, (missing or extra)[:20]))
    raise ModelError(text.format(path=folder, world=world, ranks=ranks))


def _model_states(path: Path) -> Mapping[str, Any]:
    content = read_torch_file(path).content
    if not isinstance(content, dict) or not {"module", "param_shapes"} <= content.keys():
        _strange(path, tr("the model"))
    return content


def _read_ranks(folder: Path, files: Mapping[int, Path]) -> list[_Rank]:
    first = _read_rank(files[min(files)])
    ranks = [_read_rank(files[rank]) for rank in _expected(folder, files, first.world)]
    for rank in ranks:
        if (rank.stage, rank.world, len(rank.groups)) != (
            first.stage,
            first.world,
            len(first.groups),
        ):
            text = tr("{path} and {other} are of different checkpoints: keep the files of one.")
            raise ModelError(text.format(path=rank.path, other=first.path.name))
    return ranks


def _read_rank(path: Path) -> _Rank:
    content = read_torch_file(path).content
    state = content.get("optimizer_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        _strange(path, tr("the optimizer"))
    # DeepSpeed's optimizer for bfloat16 without ZeRO 2 writes no stage; it shards as stage 1 does.
    stage, world = _number(state.get("zero_stage", 1)), _number(state.get("partition_count"))
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    groups: Any = state.get(key) or []
    if isinstance(groups, PickledTensor):
        groups = [groups]
    if stage not in (1, 2, 3) or not world or not groups:
        _strange(path, tr("the optimizer"))
    if not all(isinstance(group, PickledTensor) and len(group.shape) == 1 for group in groups):
        _strange(path, tr("the optimizer"))
    paddings: Any = state.get("group_paddings")
    if not isinstance(paddings, list) or not all(isinstance(p, int) for p in paddings):
        paddings = ()
    return _Rank(path, stage, world, tuple(groups), tuple(paddings))


def _number(value: Any) -> int:
    """A whole number: as such, in an enum of DeepSpeed's, or the largest of a list; 0 for others."""
    if isinstance(value, Inert) and len(value.args) == 1:
        value = value.args[0]
    if isinstance(value, list):
        return max(map(_number, value), default=0)
    return value if isinstance(value, int) else 0


def _strange(path: Path, what: str) -> NoReturn:
    text = tr(
        "{path} is named like a file of {what} that DeepSpeed writes, but holds something else."
    )
    raise ModelError(text.format(path=path, what=what))


def _unpartitioned(folder: Path, model: Mapping[str, Any]) -> TrainedWeights:
    """No optimizer files: right only where DeepSpeed ran without ZeRO."""
    settings = model.get("ds_config")
    zero = settings.get("zero_optimization") if isinstance(settings, dict) else None
    if not isinstance(zero, dict) or zero.get("stage", 0) != 0:
        text = tr(
            "{path} has DeepSpeed's file of the model, but none of the optimizer's (*_optim_states.pt), "
            "which hold the weights in full precision. Copy them here too."
        )
        raise ModelError(text.format(path=folder))
    weights = {n: t for n, t in model["module"].items() if isinstance(t, PickledTensor)}
    return TrainedWeights(
        weights, recorded_config(model), tr("a DeepSpeed checkpoint without ZeRO")
    )


# ---- putting together ----------------------------------------------------------------------------


class _Vector:
    """Stored pieces, one behind the other, as one long vector."""

    def __init__(self, pieces: Sequence[PickledTensor]) -> None:
        self._pieces = pieces
        self._ends = list(accumulate(math.prod(piece.shape) for piece in pieces))
        self.length = self._ends[-1]

    def part(self, start: int, stop: int) -> list[torch.Tensor]:
        """[start, stop) in as many tensors as it takes, in their order."""
        found = []
        number = bisect_right(self._ends, start)
        while start < stop:
            begin = self._ends[number - 1] if number else 0
            end = min(stop, self._ends[number])
            found.append(self._pieces[number].load()[start - begin : end - begin])
            start, number = end, number + 1
        return found


@dataclass(frozen=True, slots=True)
class _Joined:
    """A parameter: `length` values from `start` of each vector. `copy`: what they must agree with."""

    name: str
    shape: tuple[int, ...]
    vectors: tuple[_Vector, ...]
    start: int
    length: int
    path: Path
    copy: PickledTensor | None = None

    def load(self) -> torch.Tensor:
        import torch

        parts = [p for v in self.vectors for p in v.part(self.start, self.start + self.length)]
        n = math.prod(self.shape)
        values = (torch.cat(parts) if parts else torch.empty(0))[:n].view(self.shape)
        if self.copy is not None and not _agree(values, self.copy.load()):
            text = tr(
                "{path}: the shards of {name} are not those of the weights beside them "
                "(mp_rank_00_model_states.pt). The files are of different checkpoints, or damaged."
            )
            raise ModelError(text.format(path=self.path, name=self.name))
        return values


def _agree(values: torch.Tensor, copy: torch.Tensor) -> bool:
    import torch

    if values.shape != copy.shape:
        return False
    near = copy.to(values.dtype)
    # What is beyond float16 is infinite in the copy.
    beyond = near.isinf() & (values.abs() > 65_000)
    close = torch.isclose(values, near, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
    return bool((close | beyond).all())


def _stage_1_2(folder: Path, model: Mapping[str, Any], ranks: Sequence[_Rank]) -> dict[str, Weight]:
    weights: dict[str, Weight] = _kept_whole(model)
    shapes = model["param_shapes"]
    if not isinstance(shapes, list) or len(shapes) != len(ranks[0].groups):
        _strange(folder / "mp_rank_00_model_states.pt", tr("the model"))
    for number, group in enumerate(shapes):
        vector = _Vector([rank.groups[number] for rank in ranks])
        start = 0
        for name, shape in group.items():
            size = math.prod(shape)
            copy = model["module"].get(name)
            copy = copy if isinstance(copy, PickledTensor) else None
            weights[name] = _Joined(name, tuple(shape), (vector,), start, size, folder, copy)
            start += size
        padding = sum(rank.paddings[number] for rank in ranks if number < len(rank.paddings))
        _check_length(folder, start, vector.length, len(ranks), padding)
    return weights


def _check_length(folder: Path, wanted: int, there: int, world: int, padding: int) -> None:
    """Shards are filled up to a multiple of twice the ranks; some versions leave the filling out."""
    step = 2 * world
    rounded = -(-wanted // step) * step
    if there < wanted or (there != wanted + padding and -(-there // step) * step != rounded):
        text = tr(
            "{path}: its shards hold {there} numbers, and the model's parameters are {wanted}. Files of "
            "different checkpoints are mixed here, or one is cut off."
        )
        raise ModelError(text.format(path=folder, there=there, wanted=wanted))


def _stage_3(
    folder: Path, models: Sequence[Mapping[str, Any]], ranks: Sequence[_Rank]
) -> dict[str, Weight]:
    """Trained parameters from the optimizer's files, frozen ones from the model's: a shard of each."""
    weights: dict[str, Weight] = {
        name: tensor for name, tensor in _buffers(models[0]) if name not in _frozen(models[0])
    }
    vectors = tuple(_Vector(rank.groups) for rank in ranks)
    start = 0
    for name, shape in _all_shapes(models[0]["param_shapes"]):
        shard = -(-math.prod(shape) // len(ranks))
        weights[name] = _Joined(name, tuple(shape), vectors, start, shard, folder)
        start += shard
    for vector in vectors:
        if vector.length != start:
            _check_length(folder, start * len(ranks), vector.length * len(ranks), len(ranks), 0)
    for name, shape in _frozen(models[0]).items():
        pieces = tuple(_Vector([_fragment(folder, model, name)]) for model in models)
        shard = -(-math.prod(shape) // len(ranks))
        weights[name] = _Joined(name, tuple(shape), pieces, 0, shard, folder)
    return weights


def _all_shapes(groups: Any) -> Iterable[tuple[str, Any]]:
    groups = [groups] if isinstance(groups, dict) else groups
    return ((name, shape) for group in groups for name, shape in group.items())


def _frozen(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Shapes of the parameters that were not trained, where they were saved too."""
    fragments = model.get("frozen_param_fragments")
    return (model.get("frozen_param_shapes") or {}) if fragments else {}


def _fragment(folder: Path, model: Mapping[str, Any], name: str) -> PickledTensor:
    found = model["frozen_param_fragments"].get(name)
    if not isinstance(found, PickledTensor):
        text = tr("{path}: a shard of {name} is missing.")
        raise ModelError(text.format(path=folder, name=name))
    return found


def _buffers(model: Mapping[str, Any]) -> list[tuple[str, PickledTensor]]:
    names = model.get("buffer_names") or ()
    found = ((name, model["module"].get(name)) for name in names)
    return [(name, tensor) for name, tensor in found if isinstance(tensor, PickledTensor)]


def _kept_whole(model: Mapping[str, Any]) -> dict[str, Weight]:
    """Buffers and, where they were saved, frozen parameters."""
    frozen = model.get("frozen_param_fragments") or {}
    whole = {n: t for n, t in frozen.items() if isinstance(t, PickledTensor)}
    return {**dict(_buffers(model)), **whole}
