"""What a path given as a checkpoint is: XTuner's file, DeepSpeed's folder, ours, or something else.

What cannot be converted is told in one sentence: what was found, what was expected, what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whoamai.convert.restricted_pickle import PickledTensor
from whoamai.convert.torch_file import read_torch_file
from whoamai.convert.weights import TrainedWeights
from whoamai.convert.zero_checkpoint import is_zero_folder, read_zero_checkpoint, recorded_config
from whoamai.errors import ModelError
from whoamai.messages import tr

# Before every name of a language model that XTuner trained.
LLM = "llm."
# What is in models of other kinds, which XTuner also trains.
_PICTURES = ("visual_encoder.", "projector.")
# Of a checkpoint of ours (engine/checkpoint.py).
_STATE, _COMPLETE = "state.json", "COMPLETE"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class OwnCheckpoint:
    """A checkpoint that whoamai wrote. `weights`: its folder adapter/ or model/; `config` its config."""

    folder: Path
    weights: Path
    config: Path

    @property
    def is_adapter(self) -> bool:
        return self.weights.name == "adapter"


def open_checkpoint(path: Path) -> TrainedWeights | OwnCheckpoint:
    """Look at `path` and open what it is. Nothing in it is run.

    Raises ModelError for everything that is no checkpoint of XTuner's, DeepSpeed's or ours, is
    incomplete or damaged, or names more than harmless things.
    """
    if not path.exists():
        text = tr("There is no checkpoint {path}.")
        raise ModelError(_with_nearby(text.format(path=path), path.parent))
    if path.is_dir():
        return _open_folder(path)
    return _checked(path, _read_file(path))


def _open_folder(folder: Path) -> TrainedWeights | OwnCheckpoint:
    if is_zero_folder(folder):
        return _checked(folder, read_zero_checkpoint(folder))
    if (folder / _STATE).is_file():
        return _open_own(folder)
    raise ModelError(_with_nearby(_other_folder(folder), folder))


def _read_file(path: Path) -> TrainedWeights:
    """A file that torch.save wrote: XTuner's iter_N.pth, or the weights alone."""
    content = read_torch_file(path).content
    if not isinstance(content, dict) or not content:
        text = tr("{path} holds no weights by name, as XTuner's iter_N.pth does.")
        raise ModelError(text.format(path=path))
    _refuse_part(path, content)
    state = content.get("state_dict", content)
    found = state if isinstance(state, dict) else {}
    weights = {str(n): t for n, t in found.items() if isinstance(t, PickledTensor)}
    if not weights:
        text = tr("{path} holds no weights, but only: {names}. XTuner's iter_N.pth is expected.")
        raise ModelError(text.format(path=path, names=_some(content)))
    return TrainedWeights(weights, recorded_config(content), tr("a checkpoint of XTuner's"))


def _refuse_part(path: Path, content: Mapping[Any, Any]) -> None:
    """A file out of DeepSpeed's folder, which is of no use by itself."""
    if "optimizer_state_dict" in content:
        text = tr(
            "{path} is one rank's part of the optimizer in a DeepSpeed checkpoint. Give the folder that "
            "DeepSpeed wrote, with all its files: {folder}"
        )
    elif {"module", "param_shapes"} <= content.keys():
        text = tr(
            "{path} is the model's part of a DeepSpeed checkpoint, without the optimizer's. Give the "
            "folder that DeepSpeed wrote, with all its files: {folder}"
        )
    elif "state_dict" not in content and {"state", "param_groups"} <= content.keys():
        text = tr("{path} is the state of an optimizer, without a model's weights.")
    else:
        return
    raise ModelError(text.format(path=path, folder=path.resolve().parent))


def _checked(path: Path, found: TrainedWeights) -> TrainedWeights:
    """Only language models are converted here."""
    if pictures := [n for n in found.weights if n.startswith(_PICTURES)]:
        text = tr(
            "{path} is of a model for pictures and text (LLaVA): it holds {names}. Only language models "
            "are converted."
        )
        raise ModelError(text.format(path=path, names=_some(pictures)))
    if strange := [n for n in found.weights if not n.startswith(LLM)]:
        text = tr(
            "{path} is no language model that XTuner trained: its weights have names such as {names}, "
            "where names that begin with {llm} are expected."
        )
        raise ModelError(text.format(path=path, names=_some(strange), llm=LLM))
    if not found.weights:
        raise ModelError(tr("{path} holds no weights.").format(path=path))
    return found


def _some(names: Iterable[Any]) -> str:
    every = [str(name) for name in names]
    shown = ", ".join(name[:60] for name in every[:_SHOWN])
    return f"{shown}, …" if len(every) > _SHOWN else shown


# ---- our own -------------------------------------------------------------------------------------


def _open_own(folder: Path) -> OwnCheckpoint:
    if problem := _problem(folder):
        text = tr("{path} is a checkpoint of whoamai, but not a complete one: {problem}.")
        raise ModelError(text.format(path=folder, problem=problem))
    weights = next(p for p in (folder / "adapter", folder / "model") if p.is_dir())
    return OwnCheckpoint(folder, weights, folder / "config.yaml")


def _problem(folder: Path) -> str | None:
    """Why it is not complete: sizes are compared; what was written last lists them."""
    try:
        files = json.loads((folder / _COMPLETE).read_bytes())["files"]
        for name, told in files.items():
            if not (folder / name).is_file():
                return tr("{file} is missing").format(file=name)
            if (folder / name).stat().st_size != told["size"]:
                return tr("{file} is cut off").format(file=name)
    except FileNotFoundError:
        return tr("{file} is missing").format(file=_COMPLETE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return tr("{file} cannot be read").format(file=_COMPLETE)
    if not (folder / "adapter").is_dir() and not (folder / "model").is_dir():
        return tr("{file} is missing").format(file="adapter/")
    return None


# ---- folders that are none -----------------------------------------------------------------------


def _other_folder(folder: Path) -> str:
    """What a folder is that is no checkpoint."""
    if (folder / "adapter_config.json").is_file():
        text = tr(
            "{path} is a peft adapter already, so there is nothing to convert. To put it into its "
            "model: whoamai convert merge"
        )
    elif (folder / "config.json").is_file():
        text = tr("{path} is a model folder already, so there is nothing to convert.")
    elif not any(folder.iterdir()):
        text = tr("{path} is empty.")
    else:
        text = tr(
            "{path} is no checkpoint: neither files of DeepSpeed's (*_model_states.pt, "
            "*_optim_states.pt) are in it nor a checkpoint of whoamai (state.json)."
        )
    return text.format(path=folder)


def _with_nearby(text: str, folder: Path) -> str:
    """The message, and the checkpoints that are in `folder`, the last ones first."""
    if not folder.is_dir():
        return text
    found = [
        p for pattern in ("*.pth", "checkpoints/step_*", "step_*") for p in folder.glob(pattern)
    ]
    found += [p for p in folder.glob("global_step*") if p.is_dir()]
    if not found:
        return text
    found.sort(key=_number, reverse=True)
    there = tr("In {folder} there are: {names}.")
    return (
        f"{text} {there.format(folder=folder, names=_some(p.relative_to(folder) for p in found))}"
    )


def _number(path: Path) -> int:
    """iter_500.pth: 500."""
    digits = "".join(c if c.isdigit() else " " for c in path.name).split()
    return int(digits[-1]) if digits else -1
