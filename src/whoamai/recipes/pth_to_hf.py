"""A checkpoint goes in, a peft adapter or a model folder comes out: XTuner's, DeepSpeed's or ours.

Read `pth_to_hf` from top to bottom; everything it calls is one step of the story.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch

from whoamai import __version__
from whoamai.config.files import ENDINGS
from whoamai.config.reading import read_config
from whoamai.convert.checkpoints import OwnCheckpoint, open_checkpoint
from whoamai.convert.model_folder import ModelPlan, plan_model, write_model
from whoamai.convert.pth_to_hf import (
    Facts,
    adapter_config,
    adapter_weights,
    converted,
    differences,
    facts_of_config,
    facts_of_xtuner,
    is_adapter,
)
from whoamai.convert.shards import parse_size
from whoamai.convert.weights import TrainedWeights, Weight
from whoamai.convert.xtuner_python import parse_python_config, read_python_config
from whoamai.data.template_families import TEMPLATE_NAMES, template_text
from whoamai.data.templates import ChatTemplate, TemplateCard, write_card
from whoamai.errors import ModelError, SettingError, WhoamaiError
from whoamai.events import Events, Note, Progress
from whoamai.messages import tr
from whoamai.model.load import load_tokenizer
from whoamai.model.stored import model_folder, read_json_object, read_tensors
from whoamai.recipes.output import check_space, complete_folder, problems_with_folder

# Every converted folder has this: where it comes from, and that it is ours to replace.
RECORD = "whoamai_conversion.json"
# XTuner leaves the config beside what it converted, under this name.
_XTUNER_CONFIG = "xtuner_config.py"
_OPTION = "OUT"
# Space asked for beside the weights: a tokenizer, configs.
_OTHER_FILES = 64 << 20


@dataclass(frozen=True, slots=True)
class ConvertRequest:
    """What the user asked for.

    `config`: the config it was trained with, ours or XTuner's; None where the checkpoint tells enough.
    `fp32`: keep float32 instead of rounding to float16. `safe_serialization`: safetensors, else .bin.
    """

    checkpoint: Path
    out: Path
    config: str | None = None
    fp32: bool = False
    max_shard_size: str = "2GB"
    safe_serialization: bool = True
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Converted:
    """Where it is, what it is, how many tensors in how many files, and in which format."""

    folder: Path
    kind: Literal["adapter", "model"]
    tensors: int
    files: int
    dtype: str
    base: str | None


def pth_to_hf(request: ConvertRequest, events: Events) -> Converted:
    """Do the job. Raises a WhoamaiError for what the user can mend; then nothing is left behind."""
    _check_request(request)
    with events.stage("open", tr("Opening {path}").format(path=request.checkpoint.name)):
        opened = open_checkpoint(request.checkpoint)
    if isinstance(opened, OwnCheckpoint):
        return _convert_own(request, opened, events)
    events.emit(Note(tr("This is {what}.").format(what=opened.what)))
    if request.fp32 and opened.sharded:
        text = tr("Its float32 values are kept; XTuner rounds them to float16 even with --fp32.")
        events.emit(Note(text))
    facts = _facts(request, opened, events)
    if is_adapter(opened.weights):
        return _convert_adapter(request, opened, facts, events)
    return _convert_model(request, opened, facts, events)


# ---- what is known -------------------------------------------------------------------------------


def _check_request(request: ConvertRequest) -> None:
    """Everything that can be refused before anything is read, told together."""
    problems = problems_with_folder(
        request.out, overwrite=request.overwrite, sign=RECORD, option=_OPTION
    )
    out = request.out.resolve()
    given = [request.checkpoint, *([Path(request.config)] if request.config else [])]
    if any(out == path or out in path.parents for path in (p.resolve() for p in given)):
        text = tr("OUT {path} is, or holds, what is to be read. Give another one.")
        problems.insert(0, text.format(path=request.out))
    if request.checkpoint.suffix in (".py", *ENDINGS):
        text = tr("{path} is a config. It stands before the checkpoint: CONFIG PTH OUT.")
        problems.insert(0, text.format(path=request.checkpoint))
    try:
        parse_size(request.max_shard_size)
    except SettingError as error:
        problems.append(str(error))
    if problems:
        raise SettingError("\n".join(problems))


def _facts(request: ConvertRequest, opened: TrainedWeights, events: Events) -> Facts:
    """What the checkpoint records counts; CONFIG fills the gap where it records nothing."""
    recorded = None
    if opened.config is not None:
        recorded = facts_of_xtuner(parse_python_config(opened.config, str(request.checkpoint)))
    given = None
    if request.config is not None:
        try:
            given = _facts_of(request.config)
        except WhoamaiError as error:
            if recorded is None:
                raise
            text = tr("CONFIG was not used, as the checkpoint tells enough: {reason}")
            events.emit(Note(text.format(reason=error), "warning"))
    lines = differences(recorded, given) if recorded and given else []
    if lines:
        lines.append(tr("What the checkpoint records counts."))
        events.emit(Note("\n".join(lines), "warning"))
    facts = recorded or given
    if facts is None:
        text = tr(
            "{path} does not record the config it was trained with, so lora_alpha and the base model "
            "are not known. Give the config first: whoamai convert pth_to_hf CONFIG PTH OUT"
        )
        raise ModelError(text.format(path=request.checkpoint))
    if facts.unknown:
        text = tr(
            "In the config, {names} could not be understood. Write the values there as numbers."
        )
        raise ModelError(text.format(names=", ".join(facts.unknown)))
    if facts.base is None and given and given.base:
        facts = replace(facts, base=given.base)
    return facts


def _facts_of(config: str) -> Facts:
    if Path(config).suffix == ".py":
        return facts_of_xtuner(read_python_config(Path(config).expanduser()))
    return facts_of_config(read_config(config).config)


def _format(request: ConvertRequest) -> torch.dtype:
    return torch.float32 if request.fp32 else torch.float16


# ---- XTuner's ------------------------------------------------------------------------------------


def _convert_adapter(
    request: ConvertRequest, opened: TrainedWeights, facts: Facts, events: Events
) -> Converted:
    if facts.lora is None:
        text = tr(
            "{path} holds an adapter, but the config has no lora, so lora_alpha is not known. Give the "
            "config it was trained with."
        )
        raise ModelError(text.format(path=request.checkpoint))
    weights = adapter_weights(opened.weights, str(facts.lora.get("bias", "none")))
    settings = adapter_config(facts, weights)
    dtype = _format(request)
    check_space(request.out, _n_bytes(weights, dtype), option=_OPTION)
    with complete_folder(request.out) as folder:
        with events.stage("convert", tr("Converting")):
            tensors = {}
            for done, (name, weight) in enumerate(weights.items(), 1):
                tensors[name] = converted(weight, dtype, name)
                events.emit(Progress("convert", done, len(weights)))
            _save_adapter(request, tensors, settings, folder)
        _write_template(facts, folder, events)
        _write_record(request, opened, dtype, folder, facts.quantization)
    name = str(dtype).removeprefix("torch.")
    return Converted(request.out, "adapter", len(weights), 1, name, _base_now(request, facts))


def _save_adapter(
    request: ConvertRequest, tensors: dict[str, torch.Tensor], settings: Any, folder: Path
) -> None:
    """One file whatever its size: peft reads no parts."""
    from safetensors.torch import save_file

    if request.safe_serialization:
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    else:
        torch.save(tensors, folder / "adapter_model.bin")
    text = json.dumps(settings, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    (folder / "adapter_config.json").write_text(text, "utf-8")


def _convert_model(
    request: ConvertRequest, opened: TrainedWeights, facts: Facts, events: Events
) -> Converted:
    if facts.lora is not None:
        text = tr(
            "{path} holds no adapter, but the config has lora. Are config and checkpoint of the same "
            "run?"
        )
        raise ModelError(text.format(path=request.checkpoint))
    base = _base_folder(request, facts)
    plan = plan_model(opened.weights, base, _format(request))
    for note in plan.notes:
        events.emit(Note(note))
    check_space(request.out, plan.nbytes + _OTHER_FILES, option=_OPTION)
    with complete_folder(request.out) as folder:
        files = _write_model(request, plan, folder, events)
        _write_record(request, opened, plan.dtype, folder)
    dtype = str(plan.dtype).removeprefix("torch.")
    return Converted(request.out, "model", len(plan.weights), files, dtype, facts.base)


def _named_bases(request: ConvertRequest, facts: Facts) -> list[str]:
    """What the checkpoint calls its base, then what CONFIG calls it."""
    named = [facts.base] if facts.base else []
    if request.config is not None:
        try:
            given = _facts_of(request.config).base
            named += [given] if given else []
        except WhoamaiError:  # told before
            pass
    return named


def _base_now(request: ConvertRequest, facts: Facts) -> str | None:
    """The one of them that is a folder here; what the checkpoint says if none is."""
    named = _named_bases(request, facts)
    there = [name for name in named if Path(name).expanduser().is_dir()]
    return next(iter([*there, *named]), None)


def _base_folder(request: ConvertRequest, facts: Facts) -> Path:
    """Where the base's config and tokenizer are: as the checkpoint says, or as CONFIG says."""
    named = _named_bases(request, facts)
    for name in named:
        if Path(name).expanduser().is_dir():
            return model_folder(name)
    if not named:
        text = tr("Neither the checkpoint nor CONFIG names the base model of {path}.")
        raise ModelError(text.format(path=request.checkpoint))
    try:
        return model_folder(named[-1])
    except ModelError as error:
        text = tr(
            "A whole model was trained, whose config and tokenizer are to be taken from its base. "
            "{reason} Where it is now, can be said in CONFIG (pretrained_model_name_or_path)."
        )
        raise ModelError(text.format(reason=error)) from error


def _write_model(request: ConvertRequest, plan: ModelPlan, folder: Path, events: Events) -> int:
    total, done = max(1, plan.nbytes >> 20), 0

    def written(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        events.emit(Progress("convert", min(done >> 20, total), total))  # MiB

    with events.stage("convert", tr("Converting")):
        return write_model(
            plan,
            folder,
            max_shard_bytes=parse_size(request.max_shard_size),
            safe_serialization=request.safe_serialization,
            written=written,
        )


def _n_bytes(weights: dict[str, Weight], dtype: torch.dtype) -> int:
    return sum(prod(weight.shape) * dtype.itemsize for weight in weights.values())


def _write_template(facts: Facts, folder: Path, events: Events) -> None:
    """Which template it was trained with, where it is one that is known here by XTuner's name."""
    if facts.template is None or facts.template not in TEMPLATE_NAMES:
        text = tr("The config names no chat template that is known here, so none is noted.")
        events.emit(Note(text))
        return
    sha256 = hashlib.sha256(template_text(facts.template).encode()).hexdigest()
    write_card(folder, TemplateCard(facts.template, sha256, None, "none"))


def _write_record(
    request: ConvertRequest,
    opened: TrainedWeights,
    dtype: torch.dtype,
    folder: Path,
    quantization: str = "none",
) -> None:
    """What it was made from, for whoever finds the folder later; `convert merge` reads it too."""
    record = {
        "checkpoint": str(request.checkpoint),
        "config": request.config,
        "what": opened.what,
        "dtype": str(dtype).removeprefix("torch."),
        "quantization": quantization,
        "whoamai": __version__,
    }
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    (folder / RECORD).write_text(text, "utf-8")
    if opened.config is not None:
        (folder / _XTUNER_CONFIG).write_text(opened.config, "utf-8")


# ---- our own -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Here:
    """A tensor that is in memory already."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def load(self) -> torch.Tensor:
        return self.tensor


def _convert_own(request: ConvertRequest, own: OwnCheckpoint, events: Events) -> Converted:
    """Its weights are in the right form: they are copied, with what says how to use them."""
    config = read_config(own.config).config
    base = config.model.pretrained_model_name_or_path
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(own.weights.glob("*.safetensors")):
        tensors |= read_tensors(file)
    dtype = torch.float32 if request.fp32 else next(iter(tensors.values())).dtype
    text = tr("This is a checkpoint of whoamai: its weights stay in {dtype}.")
    events.emit(Note(text.format(dtype=str(dtype).removeprefix("torch."))))
    opened = TrainedWeights({}, None, "whoamai")
    weights: dict[str, Weight] = {name: _Here(tensor) for name, tensor in tensors.items()}
    if own.is_adapter:
        check_space(request.out, _n_bytes(weights, dtype), option=_OPTION)
        files = 1
        with complete_folder(request.out) as folder, events.stage("convert", tr("Converting")):
            settings = read_json_object(own.weights / "adapter_config.json")
            settings["base_model_name_or_path"] = base
            _save_adapter(
                request, {n: converted(w, dtype, n) for n, w in weights.items()}, settings, folder
            )
            _write_own_template(
                base, config.data.prompt_template, config.data.encoding, folder, events
            )
            _write_record(request, opened, dtype, folder)
    else:
        plan = plan_model(weights, model_folder(base), dtype)
        plan = replace(plan, config=read_json_object(own.weights / "config.json"))
        check_space(request.out, plan.nbytes + _OTHER_FILES, option=_OPTION)
        with complete_folder(request.out) as folder:
            files = _write_model(request, plan, folder, events)
            _write_own_template(
                base, config.data.prompt_template, config.data.encoding, folder, events
            )
            _write_record(request, opened, dtype, folder)
    kind = "adapter" if own.is_adapter else "model"
    return Converted(
        request.out, kind, len(weights), files, str(dtype).removeprefix("torch."), base
    )


def _write_own_template(
    base: str, name: str | None, encoding: str, folder: Path, events: Events
) -> None:
    """The card that a finished run has beside its adapter; it needs the base's tokenizer."""
    if encoding != "whoamai":
        return
    try:
        tokenizer, model_type = load_tokenizer(base)
    except ModelError as error:
        text = tr("Which chat template it was trained with is not noted: {reason}")
        events.emit(Note(text.format(reason=error), "warning"))
        return
    write_card(folder, ChatTemplate(tokenizer, name=name, model_type=model_type).card)
