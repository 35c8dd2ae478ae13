"""A peft LoRA adapter as what it changes in a model's tensors, without a model.

For a layer with the weight W (out × in), A (r × in), B (out × r) and the scale s = alpha / r, or
alpha / √r for rslora, the merged weight is

    W' = W + s B A                        dora: W' = m · (W + s B A) / ‖W + s B A‖, row by row

(Hu et al. 2021, arXiv:2106.09685; Kalajdzievski 2023, arXiv:2312.03732; Liu et al. 2024,
arXiv:2402.09353.) A pissa adapter of ours is a plain one of rank 2r (model/pissa.py). Whatever an
adapter asks for beyond this is refused by its name: half a merge would look like a whole one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.model.stored import read_json_object, read_tensors

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")

_PREFIX = re.compile(r"^base_model\.model\.")
_PART = re.compile(
    r"^(?P<module>.+?)\.(?:"
    r"(?P<matrix>lora_[AB])(?:\.default)?\.weight"
    r"|(?P<embedding>lora_embedding_[AB])(?:\.default)?"
    r"|(?P<bias>lora_B)(?:\.default)?\.bias"
    r"|(?P<magnitude>lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
    r")$"
)
# What peft puts into the name of a tensor it saves as a whole.
_WRAPPER = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)")

# Settings that change what a merge has to do, and for which there is nothing here. The others say how
# it was trained or are seen to below.
_UNKNOWN_WHEN_SET = (
    *(
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "use_qalora",
        "use_bdlora",
    ),
    *(
        "alora_invocation_tokens",
        "arrow_config",
        "kasa_config",
        "velora_config",
        "monteclora_config",
    ),
    *("megatron_config", "ensure_weight_tying"),
)
_HANDLED = frozenset(
    (
        *("auto_mapping", "peft_type", "task_type", "peft_version", "inference_mode", "revision"),
        *("base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "fan_in_fan_out", "bias"),
        *("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform"),
        *("layers_pattern", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias"),
        *("init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
        *("megatron_core", "qalora_group_size", "runtime_config"),
    )
)
# Ways to start in which peft takes the adapter's start out of the base: the adapter then belongs to a
# base that nobody else has.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to a weight: scale · left @ right, left (rows × r), right (r × columns).

    `magnitude`: of dora, the length each output's weights get; the outputs are the weight's rows, or
    its columns where `by_columns`.
    """

    left: torch.Tensor
    right: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None = None
    by_columns: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], self.right.shape[1]


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one tensor: it is replaced, then something is added to it."""

    replaced: torch.Tensor | None = None
    low_rank: LowRank | None = None
    added: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape the tensor must have."""
        if self.low_rank is not None:
            return self.low_rank.shape
        whole = self.replaced if self.added is None else self.added
        assert whole is not None, "a change of nothing"
        return tuple(whole.shape)


@dataclass(frozen=True, slots=True)
class Adapter:
    """`changes` by the names the model's own class gives its tensors."""

    folder: Path
    file: Path
    config: Mapping[str, Any]
    changes: Mapping[str, Change]


def read_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`. Raises ModelError that tells all that cannot be merged."""
    config = read_json_object(folder / CONFIG_FILE)
    file = _weights_of(folder)
    problems = list(_problems_with(config))
    if file is None:
        problems.append(tr("adapter_model.safetensors (or .bin) is missing"))
    if problems or file is None:
        raise _cannot(folder, problems)
    modules, whole, unknown = _sorted_out(read_tensors(file))
    if unknown:
        text = tr("it holds tensors of a kind that is not known: {names}")
        problems.append(text.format(names=few(unknown)))
    changes = {name: Change(replaced=tensor) for name, tensor in whole.items()}
    for module, parts in modules.items():
        try:
            changes |= _changes_of(module, parts, config, whole)
        except ModelError as error:
            problems.append(str(error))
    if not changes and not problems:
        problems.append(tr("{file} holds no tensors").format(file=file.name))
    if problems:
        raise _cannot(folder, problems)
    return Adapter(folder, file, config, changes)


def read_adapter_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter as they are named in its file."""
    file = _weights_of(folder)
    return read_tensors(file) if file else {}


def _weights_of(folder: Path) -> Path | None:
    return next((folder / n for n in WEIGHT_FILES if (folder / n).is_file()), None)


def few(names: Iterable[str], *, shown: int = 4) -> str:
    """The first few of some names, and how many more there are."""
    listed = list(names)
    text = ", ".join(listed[:shown])
    if len(listed) > shown:
        text += " " + tr("and {n} more").format(n=len(listed) - shown)
    return text


def _cannot(folder: Path, problems: Iterable[str]) -> ModelError:
    text = tr("The adapter {path} cannot be merged: {problems}.")
    return ModelError(text.format(path=folder, problems="; ".join(problems)))


# ---- its config ----------------------------------------------------------------------------------


def _problems_with(config: Mapping[str, Any]) -> Iterable[str]:
    kind = config.get("peft_type")
    if str(kind).upper() != "LORA":
        yield tr("its peft_type is {kind}, and only LORA can be merged here").format(kind=kind)
        return
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        yield tr(
            "it was made with init_lora_weights: {start}, for which peft changed the base model too; "
            "load it with peft on that base and merge it there"
        ).format(start=start)
    for name in sorted(config):
        value = config[name]
        if value and (name in _UNKNOWN_WHEN_SET or name not in _HANDLED):
            shown = json.dumps(value, ensure_ascii=False)
            yield tr("it sets {name}: {value}, which is not known here").format(
                name=name, value=shown if len(shown) <= 60 else shown[:60] + "…"
            )
    for name in ("r", "lora_alpha"):
        if not isinstance(config.get(name), int | float) or config[name] <= 0:
            text = tr("{name} in adapter_config.json is {value}; it must be a number above 0")
            yield text.format(name=name, value=config.get(name))


def scale_of(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """alpha / r of one layer, or alpha / √r; alpha and r may be given by patterns of layers' names.

    Raises ModelError where the layer's rank is not the one the config gives it.
    """
    alpha = _by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    r = _by_pattern(config.get("rank_pattern"), module, config["r"])
    if r != rank:
        text = tr("{module} has the rank {found}, adapter_config.json says {said}")
        raise ModelError(text.format(module=module, found=rank, said=r))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _by_pattern(patterns: Any, module: str, otherwise: float) -> float:
    """The value of the first pattern that a module's name, or its end, matches, as peft has it."""
    for pattern, value in (patterns or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            text = tr(
                "the pattern {pattern} in adapter_config.json is no regular expression: {reason}"
            )
            raise ModelError(text.format(pattern=pattern, reason=error)) from error
    return otherwise


# ---- its tensors ---------------------------------------------------------------------------------

_Parts = dict[str, torch.Tensor]


def _sorted_out(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, _Parts], dict[str, torch.Tensor], list[str]]:
    """(the parts of each adapted layer, tensors saved as a whole, names of no known kind)."""
    modules: dict[str, _Parts] = {}
    whole: dict[str, torch.Tensor] = {}
    unknown = []
    for key, tensor in tensors.items():
        name = _PREFIX.sub("", key)
        if match := _PART.match(name):
            kind = next(k for k in ("matrix", "embedding", "bias", "magnitude") if match[k])
            part = match[kind] + (".bias" if kind == "bias" else "")
            modules.setdefault(match["module"].replace(".base_layer", ""), {})[part] = tensor
        elif "lora_" in name or ".original_module." in name:
            unknown.append(key)
        else:
            whole[_WRAPPER.sub("", name)] = tensor
    return modules, whole, unknown


def _changes_of(
    module: str, parts: _Parts, config: Mapping[str, Any], whole: Mapping[str, torch.Tensor]
) -> dict[str, Change]:
    for part, tensor in parts.items():
        if not torch.isfinite(tensor).all():
            text = tr("{module}.{part} holds numbers that are not finite; the training went wrong")
            raise ModelError(text.format(module=module, part=part))
    weight, bias = f"{module}.weight", f"{module}.bias"
    low_rank = _low_rank(module, parts, config)
    found = {weight: Change(whole.get(weight), low_rank)}
    if "lora_B.bias" in parts:
        added = low_rank.scale * parts["lora_B.bias"].float()
        found[bias] = Change(whole.get(bias), added=added)
    return found


def _low_rank(module: str, parts: _Parts, config: Mapping[str, Any]) -> LowRank:
    magnitude = parts.get("lora_magnitude_vector")
    is_embedding = "lora_embedding_A" in parts or "lora_embedding_B" in parts
    names = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A", "lora_B")
    missing = [name for name in names if name not in parts]
    if config.get("use_dora") and magnitude is None:
        missing.append("lora_magnitude_vector")
    if missing:
        text = tr("{module} lacks {parts}")
        raise ModelError(text.format(module=module, parts=", ".join(missing)))
    a, b = (parts[name] for name in names)
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1]:
        text = tr("{module} has A of {a} and B of {b}, which are no matrices r × in and out × r")
        raise ModelError(text.format(module=module, a=shape_text(a.shape), b=shape_text(b.shape)))
    if is_embedding and magnitude is not None:
        raise ModelError(tr("{module} is an embedding under dora").format(module=module))
    scale = scale_of(module, a.shape[0], config)
    if is_embedding:  # the weight is vocabulary × size, A is r × vocabulary
        return LowRank(a.T, b.T, scale)
    if config.get("fan_in_fan_out"):  # the weight is in × out
        return LowRank(a.T, b.T, scale, magnitude, by_columns=True)
    return LowRank(b, a, scale, magnitude)


def shape_text(shape: Iterable[int]) -> str:
    """ "4096 × 64" """
    return " × ".join(map(str, shape)) or "1"
