"""Checkpoints: everything a run needs to go on as if it had never stopped, in one folder each.

    work_dir/checkpoints/step_000500/
        adapter/               a peft adapter, as PeftModel.from_pretrained loads it; or, where the
        model/                 whole model is trained, safetensors as from_pretrained loads them
        optimizer.safetensors  "exp_avg/NAME", "exp_avg_sq/NAME", "step/NAME" of every parameter
        rng.safetensors        every random generator
        state.json             TrainState
        config.yaml, …         what the caller adds
        COMPLETE               the other files' sizes and checksums, written last

Safetensors and JSON only. A folder is complete or absent (engine/durable.py), and old ones go only
once a new one is complete. Files of more than 2 GB are split in parts.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whoamai.engine.durable import as_json, durable_folder, problem_with, remove_folder, tidy
from whoamai.errors import ModelError, OutputError
from whoamai.messages import tr

if TYPE_CHECKING:
    import torch

_STATE = "state.json"
_RNG = "rng.safetensors"
_FORMAT = 1  # to be raised once checkpoints of before can no longer be read
_PART_BYTES = 2 * 10**9  # what is held in memory at once while a file is written
# Asked for beyond the tensors: JSON, headers, blocks that are not full.
_SPARE_BYTES = 1 << 20
_NAME = re.compile(r"step_(\d+)")
_SHOWN = 3  # differences named before "and so many more"


@dataclass(frozen=True, slots=True)
class TrainState:
    """Where a run is, but for what is in tensors. Everything must go into JSON.

    step: finished optimizer steps. facts: what the run was made of (engine/facts.py). scaler: the
    state_dict() of fp16's loss scaler. losses: one each finished step, None where it was skipped.
    """

    step: int
    epoch: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    scaler: Mapping[str, Any] | None = None
    counters: Mapping[str, float] = field(default_factory=dict)
    losses: Sequence[float | None] = ()


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Those of a work folder: complete ones by step, and what is to be said of the others."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...]


def checkpoint_folder(work_dir: Path, step: int) -> Path:
    return work_dir / "checkpoints" / f"step_{step:06d}"


def find_checkpoints(work_dir: Path) -> Checkpoints:
    """All checkpoints in `work_dir`; changes nothing, so it may be asked while a run writes there."""
    found, notes = [], []
    for path in (work_dir / "checkpoints").glob("step_*"):
        if not (match := _NAME.fullmatch(path.name)):
            continue
        if problem := problem_with(path):
            text = tr("The checkpoint {path} is not used: {problem}.")
            notes.append(text.format(path=path, problem=problem))
        else:
            found.append((int(match[1]), path))
    return Checkpoints(tuple(path for _, path in sorted(found)), tuple(sorted(notes)))


def last_checkpoint(work_dir: Path) -> Path | None:
    """The complete checkpoint of the highest step."""
    return next(reversed(find_checkpoints(work_dir).paths), None)


def tidy_checkpoints(work_dir: Path) -> None:
    """Clear away what a killed run left half written; only for the run that holds `work_dir`."""
    tidy(work_dir / "checkpoints")


def save_checkpoint(
    work_dir: Path,
    *,
    model: Any,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    extra_files: Mapping[str, str | bytes],
    keep: int,
) -> Path:
    """Write the checkpoint of `state.step`, then remove the oldest beyond `keep` (-1 keeps all).

    The new one is never removed. Raises OutputError where the disk refuses: the checkpoints of before
    are then as they were.
    """
    folder = checkpoint_folder(work_dir, state.step)
    weights, moments = _weights(model), _moments(model, optimizer)
    needed = _SPARE_BYTES + sum(t.nbytes for part in (weights, moments) for t in part.values())
    with _disk_errors(folder, needed):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _check_space(folder, needed)
        with durable_folder(folder) as partial:
            _write(partial, model, weights, moments, state)
            for name, content in extra_files.items():
                assert Path(name).name == name, name
                assert not (partial / name).exists(), name
                data = content.encode("utf-8") if isinstance(content, str) else content
                (partial / name).write_bytes(data)
    _prune(work_dir, folder, keep)
    return folder


def read_state(path: Path) -> TrainState:
    """The state of the checkpoint at `path`, without its tensors: to judge it before a model is there.

    Raises ModelError if it is not complete, or not one of ours.
    """
    _check_complete(path, thorough=False)
    try:
        saved = json.loads((path / _STATE).read_bytes())
        if saved.pop("format") == _FORMAT:
            return TrainState(**saved)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ModelError(
        tr(
            "The checkpoint {path} was not written by this version of whoamai. Go on with the version "
            "that wrote it, or start without --resume in another work folder."
        ).format(path=path)
    )


def load_checkpoint(path: Path, *, model: Any, optimizer: torch.optim.Optimizer) -> TrainState:
    """Put everything back as it was: parameters, optimizer, random generators; returns the rest.

    To be called right before the next step, as what is drawn in between is drawn twice. Raises
    ModelError, and changes nothing, if the checkpoint is damaged or was made for other parameters.
    """
    import torch

    from whoamai.engine.rng import load_rng

    state = read_state(path)
    _check_complete(path, thorough=True)
    weights = _weights(model)
    with ExitStack() as stack:
        folder = path / ("adapter" if _is_peft(model) else "model")
        saved_weights = _open_tensors(stack, folder, "*.safetensors")
        saved_moments = _open_tensors(stack, path, "optimizer*.safetensors")
        problems = _differences(saved_weights, weights)
        problems += _differences_of_moments(saved_moments, _parameters(model))
        if problems:
            raise ModelError(_does_not_fit(path, problems))
        with torch.no_grad():
            for name, tensor in weights.items():
                tensor.copy_(saved_weights[name])
        _set_moments(model, optimizer, saved_moments)
    load_rng(path / _RNG)
    return state


def _write(
    folder: Path,
    model: Any,
    weights: dict[str, torch.Tensor],
    moments: dict[str, torch.Tensor],
    state: TrainState,
) -> None:
    from huggingface_hub import save_torch_state_dict
    from safetensors.torch import save_file

    from whoamai.engine.rng import save_rng

    if _is_peft(model):
        (folder / "adapter").mkdir()
        config = copy.copy(model.peft_config["default"])
        config.inference_mode = True
        config.save_pretrained(str(folder / "adapter"))
        # One file whatever its size: peft reads no parts.
        save_file(
            {name: tensor.contiguous() for name, tensor in weights.items()},
            folder / "adapter" / "adapter_model.safetensors",
            {"format": "pt"},
        )
    else:
        (folder / "model").mkdir()
        config = copy.deepcopy(model.config)
        config.dtype = model.dtype  # as it is held, not as it once was loaded
        config.save_pretrained(str(folder / "model"))
        save_torch_state_dict(dict(weights), folder / "model", max_shard_size=_PART_BYTES)
    pattern = "optimizer{suffix}.safetensors"
    save_torch_state_dict(
        dict(moments), folder, filename_pattern=pattern, max_shard_size=_PART_BYTES
    )
    save_rng(folder / _RNG)
    (folder / _STATE).write_bytes(as_json({"format": _FORMAT, **asdict(state)}))


def _is_peft(model: Any) -> bool:
    return hasattr(model, "peft_config")


def _parameters(model: Any) -> dict[str, torch.Tensor]:
    """What is trained, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def _weights(model: Any) -> dict[str, torch.Tensor]:
    """The model's own tensors, under the names they have on the disk: the adapter's, or all of them.

    Tied parameters come once.
    """
    if _is_peft(model):
        from peft import get_peft_model_state_dict

        # Frozen embeddings beside an adapter on them would be the base model's, as they were.
        found = get_peft_model_state_dict(model, save_embedding_layers=False)
    else:
        found, seen = {}, set()
        for name, tensor in model.state_dict(keep_vars=True).items():
            if id(tensor) not in seen:
                found[name] = tensor.detach()
            seen.add(id(tensor))
    places = {tensor.data_ptr() for tensor in found.values()}
    missing = [name for name, p in _parameters(model).items() if p.data_ptr() not in places]
    assert not missing, f"trained but not saved: {missing}"
    return found


def _moments(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What the optimizer remembers, as "KEY/NAME"; a parameter that never had a gradient has nothing."""
    return {
        f"{key}/{name}": value
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _set_moments(
    model: Any, optimizer: torch.optim.Optimizer, saved: Mapping[str, torch.Tensor]
) -> None:
    by_name: dict[str, dict[str, torch.Tensor]] = {}
    for full, tensor in saved.items():
        key, _, name = full.partition("/")
        by_name.setdefault(name, {})[key] = tensor.clone()  # not the file's own memory
    names = {parameter: name for name, parameter in model.named_parameters()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {i: by_name[names[p]] for i, p in enumerate(parameters) if names[p] in by_name}
    # torch itself knows which of them belong on which device; its numbering is by place.
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _open_tensors(stack: ExitStack, folder: Path, pattern: str) -> dict[str, torch.Tensor]:
    """The tensors of all files of this pattern, read as they are used."""
    from safetensors import safe_open

    tensors = {}
    for path in sorted(folder.glob(pattern)):
        file = stack.enter_context(safe_open(path, "pt"))
        tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


def _differences(saved: Mapping[str, torch.Tensor], here: Mapping[str, torch.Tensor]) -> list[str]:
    """Why tensors of the checkpoint cannot be put in those of the model, a line each."""
    missing = [tr("{name} is not in the checkpoint").format(name=n) for n in here.keys() - saved]
    extra = [tr("{name} is not in the model").format(name=n) for n in saved.keys() - here]
    other = [
        tr("{name} is {saved} in the checkpoint and {here} in the model").format(
            name=name, saved=_form(saved[name]), here=_form(here[name])
        )
        for name in saved.keys() & here.keys()
        if _form(saved[name]) != _form(here[name])
    ]
    return sorted(missing) + sorted(extra) + sorted(other)


def _differences_of_moments(
    saved: Mapping[str, torch.Tensor], parameters: Mapping[str, torch.Tensor]
) -> list[str]:
    """The same for the optimizer: a moment has its parameter's shape, a count of steps has none."""
    problems = []
    for full, tensor in saved.items():
        name = full.partition("/")[2]
        if name not in parameters:
            problems.append(tr("{name} is not trained here").format(name=name))
        elif tensor.dim() and tensor.shape != parameters[name].shape:
            text = tr("{name} is {saved} in the checkpoint and {here} in the model")
            here = _form(parameters[name])
            problems.append(text.format(name=full, saved=_form(tensor), here=here))
    return sorted(set(problems))


def _form(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _does_not_fit(path: Path, problems: Sequence[str]) -> str:
    shown = list(problems[:_SHOWN])
    if len(problems) > _SHOWN:
        shown.append(tr("and {n} more").format(n=len(problems) - _SHOWN))
    text = tr(
        "The checkpoint {path} was made for another model or another adapter: {problems}. Resume with "
        "the config that is in it, or start without --resume in another work folder."
    )
    return text.format(path=path, problems="; ".join(shown))


def _check_complete(path: Path, *, thorough: bool) -> None:
    if problem := problem_with(path, thorough=thorough):
        raise ModelError(
            tr(
                "{path} is not a complete checkpoint: {problem}. Choose another one, or remove it: "
                "--resume then takes the one before."
            ).format(path=path, problem=problem)
        )


def _prune(work_dir: Path, newest: Path, keep: int) -> None:
    """Remove complete checkpoints, lowest steps first, until `keep` are left with `newest`."""
    others = [path for path in find_checkpoints(work_dir).paths if path != newest]
    for path in others[: max(0, len(others) - keep + 1)] if keep > 0 else []:
        with suppress(OSError):  # in use elsewhere: it stays, and the run goes on
            remove_folder(path)


def _check_space(folder: Path, needed: int) -> None:
    if shutil.disk_usage(folder.parent).free < needed:
        raise OutputError(_full(folder, needed))


@contextmanager
def _disk_errors(folder: Path, needed: int) -> Iterator[None]:
    """What a disk says as OutputError; safetensors tells it only in words."""
    from safetensors import SafetensorError

    try:
        yield
    except OutputError:
        raise
    except (OSError, SafetensorError) as error:
        words = str(error).lower()
        if isinstance(error, SafetensorError) and "os error" not in words and "i/o" not in words:
            raise
        full = "no space" in words or "quota" in words
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            _full(folder, needed)
            if full
            else tr("The checkpoint {path} cannot be written: {reason}. {before}").format(
                path=folder, reason=reason, before=_before(folder)
            )
        ) from error


def _full(folder: Path, needed: int) -> str:
    free = shutil.disk_usage(folder.parent).free
    return tr(
        "The checkpoint {path} cannot be written: the disk has {free} MiB free and {needed} MiB are "
        "needed. {before} Free some space, or keep fewer (save_total_limit), then go on with --resume."
    ).format(path=folder, free=free >> 20, needed=-(-needed >> 20), before=_before(folder))


def _before(folder: Path) -> str:
    """What is left to resume from when `folder` could not be written."""
    if last := last_checkpoint(folder.parent.parent):
        return tr("The last complete one is {path}.").format(path=last)
    return tr("There is none before it.")
