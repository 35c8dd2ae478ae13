"""An adapter becomes part of its model, and the result is asked before it is kept.

Read `merge` from top to bottom; everything it calls is one step of the story.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from whoamai import __version__
from whoamai.convert.adapter import CONFIG_FILE, Adapter, read_adapter
from whoamai.convert.llama import is_internlm2
from whoamai.convert.merge import MergePlan, plan_merge, write_merged
from whoamai.convert.shards import parse_size
from whoamai.data.template_families import TEMPLATE_NAMES, template_text
from whoamai.data.templates import OWN, ChatTemplate, TemplateCard, mismatch, read_card
from whoamai.errors import ModelError, SettingError
from whoamai.events import Events, Note, Progress, Result
from whoamai.messages import tr
from whoamai.model.fingerprint import fingerprint_of, read_base_card
from whoamai.model.load import choose_device, load_tokenizer
from whoamai.model.stored import StoredModel, model_folder, read_json_object
from whoamai.recipes.merge_check import Checked, CheckRequest, check_merged, require_memory
from whoamai.recipes.output import check_space, complete_folder, problems_with_folder
from whoamai.recipes.pth_to_hf import RECORD as CONVERSION
from whoamai.samples import Message

# Every merged folder has this: where it comes from, and that it is ours to replace.
RECORD = "whoamai_merge.json"
DTYPES = ("float32", "float16", "bfloat16")
_OPTION = "OUT"
# Conversations two templates write alike, or are told apart by.
_USER, _REPLY = Message("user", "1 + 1?"), Message("assistant", "2.")
_TALKS = tuple(
    (*system, *turns)
    for system in ((), (Message("system", "S."),))
    for turns in ((_USER,), (_USER, _REPLY, _USER))
)


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """What the user asked for.

    `llm`: a folder, a hub name or "tiny-chat". `adapter`: None writes the model itself, which makes
    sense as Llama only. `dtype`: of the merged weights; None keeps the base's. `check` False leaves out
    the comparison afterwards, for models too large to be loaded here.
    """

    llm: str
    adapter: Path | None
    out: Path
    max_shard_size: str = "2GB"
    device: str = "auto"
    dtype: str | None = None
    is_clip: bool = False
    as_llama: bool = False
    overwrite: bool = False
    check: bool = True


@dataclass(frozen=True, slots=True)
class Merged:
    """Where it is, how many files its weights are in, and what the comparison found, if it was made."""

    folder: Path
    files: int
    dtype: str
    checked: Checked | None


def merge(request: MergeRequest, events: Events) -> Merged:
    """Do the job. Raises a WhoamaiError for what the user can mend; then nothing is left behind."""
    _check_request(request)
    with events.stage("plan", tr("Comparing adapter and model")):
        base = StoredModel(_llm_folder(request))
        adapter = _adapter(request, base, events)
        plan = plan_merge(
            base,
            adapter,
            dtype=getattr(torch, request.dtype) if request.dtype else None,
            to_llama=request.as_llama,
            is_clip=request.is_clip,
        )
        check_space(request.out, plan.nbytes, option=_OPTION)
        checking = _check_of(request, base, plan)
        if request.check:
            require_memory(checking)
        _tell(plan, adapter, events)

    with complete_folder(request.out) as folder:
        with events.stage("merge", tr("Merging")):
            files = _write(request, plan, folder, events)
            card = read_card(adapter.folder) if adapter else None
            if card and not request.is_clip:
                _keep_template(base, card, folder, events)
        checked = None
        if request.check:
            with events.stage("check", tr("Comparing what was written")):
                checked = check_merged(checking, folder, events)
        else:
            events.emit(Note(tr("The merged model was not compared: --no-check."), "warning"))
        _write_record(request, plan, adapter, checked, folder)
    return Merged(request.out, files, _name(plan.dtype), checked)


# ---- what goes together --------------------------------------------------------------------------


def _check_request(request: MergeRequest) -> None:
    """Everything that can be refused before anything is read, told together."""
    problems = problems_with_folder(
        request.out, overwrite=request.overwrite, sign=RECORD, option=_OPTION
    )
    inputs = [Path(request.llm).expanduser(), *([request.adapter] if request.adapter else [])]
    for path in inputs:
        if path.is_dir() and path.resolve() == request.out.resolve():
            text = tr("OUT {path} is the folder that is read. Give another one.")
            problems.insert(0, text.format(path=request.out))
    if request.dtype is not None and request.dtype not in DTYPES:
        text = tr("--dtype {dtype} is not one of {all}.")
        problems.append(text.format(dtype=request.dtype, all=", ".join(DTYPES)))
    if request.is_clip and request.as_llama:
        problems.append(tr("--is-clip and --as-llama do not go together."))
    if request.adapter is None and not request.as_llama:
        text = tr(
            "Without an adapter there is nothing to merge. Give one, or say --as-llama to write an "
            "InternLM2 as Llama."
        )
        problems.append(text)
    for verify, value in ((parse_size, request.max_shard_size), (_verify_device, request.device)):
        try:
            verify(value)
        except SettingError as error:
            problems.append(str(error))
    if problems:
        raise SettingError("\n".join(problems))


def _verify_device(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        text = tr("--device {device} is not one of {all}.")
        raise SettingError(text.format(device=device, all="auto, cuda, cuda:1, …, cpu"))
    choose_device(device)


def _llm_folder(request: MergeRequest) -> Path:
    folder = Path(request.llm).expanduser()
    if (folder / CONFIG_FILE).is_file() and not (folder / "config.json").is_file():
        text = tr("{path} is an adapter. The model comes first, then the adapter, then OUT.")
        raise ModelError(text.format(path=folder))
    return model_folder(request.llm)


def _adapter(request: MergeRequest, base: StoredModel, events: Events) -> Adapter | None:
    """The adapter, read; refused where it is known to belong to other weights."""
    if request.adapter is None:
        return None
    folder = request.adapter.expanduser()
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(_no_adapter(folder))
    adapter = read_adapter(folder)
    _refuse_twice(base, adapter)
    card = read_base_card(folder)
    if card is None:
        _tell_quantization(_recorded_quantization(folder), events)
        return adapter
    if card.fingerprint != fingerprint_of(base):
        raise ModelError(
            tr(
                "The adapter {adapter} was trained on other weights than those in {path} (it says: "
                "{model}). Give that model. If this is the same one in another format, delete "
                "{card} to go on without this check."
            ).format(
                adapter=folder,
                path=base.folder,
                model=card.model,
                card=folder / "whoamai_base.json",
            )
        )
    _tell_quantization(card.quantization, events)
    return adapter


def _recorded_quantization(folder: Path) -> str:
    """What the weights were held in beside an adapter of XTuner's, as `convert pth_to_hf` noted it."""
    record = folder / CONVERSION
    return str(read_json_object(record).get("quantization", "none")) if record.is_file() else "none"


def _tell_quantization(quantization: str, events: Events) -> None:
    if quantization == "none":
        return
    text = tr(
        "The adapter was trained beside weights in {format}. It is merged into the unquantized "
        "ones: into so few bits the sum could not be rounded without losing what was learned."
    )
    events.emit(Note(text.format(format=quantization)))


def _no_adapter(folder: Path) -> str:
    """Why `folder` is no adapter, and what it probably is."""
    if not folder.exists():
        return tr("There is no folder {path}.").format(path=folder)
    if (folder / "adapter" / CONFIG_FILE).is_file():
        return tr("{path} is the folder of a run. Give its adapter: {adapter}").format(
            path=folder, adapter=folder / "adapter"
        )
    if (folder / "config.json").is_file() and StoredModel(folder).tensors:
        return tr(
            "{path} is a whole model and not an adapter: all of its weights were trained, and there "
            "is nothing to merge. Use the folder as it is."
        ).format(path=folder)
    if folder.suffix == ".pth" or any(folder.glob("*_model_states.pt")):
        return tr(
            "{path} is a checkpoint of XTuner. Make an adapter of it first: whoamai convert pth_to_hf "
            "CONFIG {path} ADAPTER"
        ).format(path=folder)
    return tr("{path} is no adapter: there is no adapter_config.json in it.").format(path=folder)


def _refuse_twice(base: StoredModel, adapter: Adapter) -> None:
    """Raise ModelError where the base is the result of merging this very adapter."""
    record = base.folder / RECORD
    if not record.is_file():
        return
    if read_json_object(record).get("adapter_sha256") == _sha256(adapter.file):
        text = tr(
            "The adapter {adapter} is merged into {path} already. Give the model it was made of."
        )
        raise ModelError(text.format(adapter=adapter.folder, path=base.folder))


def _check_of(request: MergeRequest, base: StoredModel, plan: MergePlan) -> CheckRequest:
    return CheckRequest(
        base=base.folder,
        base_bytes=base.nbytes,
        base_dtype=_main_dtype(base),
        adapter=request.adapter.expanduser() if request.adapter else None,
        dtype=plan.dtype,
        device=choose_device(request.device),
        is_clip=request.is_clip,
    )


def _main_dtype(base: StoredModel) -> torch.dtype:
    largest = max(base.tensors.values(), key=lambda tensor: tensor.nbytes)
    return largest.dtype


def _tell(plan: MergePlan, adapter: Adapter | None, events: Events) -> None:
    for text in plan.notes:
        events.emit(Note(text))
    found = {
        "tensors": len(plan.outputs),
        "changed": sum(output.change is not None for output in plan.outputs),
        "bytes": plan.nbytes,
        "dtype": _name(plan.dtype),
        "adapter": str(adapter.folder) if adapter else None,
    }
    events.emit(Result("merge_plan", found))
    if adapter:
        text = tr("{changed} of {tensors} tensors change. They are written in {dtype}.")
        events.emit(Note(text.format(**found)))


# ---- what is written -----------------------------------------------------------------------------


def _write(request: MergeRequest, plan: MergePlan, folder: Path, events: Events) -> int:
    shards = write_merged(
        plan,
        folder,
        max_shard_bytes=parse_size(request.max_shard_size),
        device=choose_device(request.device),
        written=told_in_mib("merge", plan, events),
    )
    return len(shards)


def told_in_mib(stage: str, plan: MergePlan, events: Events) -> Callable[[int], None]:
    """Takes the bytes of each tensor that was written, and tells how many MiB of all are."""
    total = -(-sum(output.nbytes for output in plan.outputs) >> 20)
    done = 0

    def written(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        events.emit(Progress(stage, -(-done >> 20), total))

    return written


def _keep_template(base: StoredModel, trained: TemplateCard, folder: Path, events: Events) -> None:
    """The template the adapter was trained with goes along where the model has none of its own."""
    tokenizer, model_type = load_tokenizer(str(base.folder))
    own = ChatTemplate(tokenizer, model_type=model_type)
    if OWN not in (own.name, trained.name):
        _write_template(template_text(trained.name), folder)
        own = ChatTemplate(tokenizer, name=trained.name)
        _stop_behind(own.ending, tokenizer, folder)
    different = mismatch(trained, own.card)
    if different and not _writes_the_same(trained, own, tokenizer):
        events.emit(Note(different, "warning"))


def _writes_the_same(trained: TemplateCard, own: ChatTemplate, tokenizer: Any) -> bool:
    """Do two Jinja texts that differ write the same? InternLM2.5's own and internlm2_chat do."""
    if trained.name not in TEMPLATE_NAMES or trained.thinking != own.card.thinking:
        return False
    other = ChatTemplate(tokenizer, name=trained.name)
    if other.card.sha256 != trained.sha256:
        return False
    return own.reply_text("2.") == other.reply_text("2.") and all(
        own.prompt_text(talk) == other.prompt_text(talk) for talk in _TALKS
    )


def _write_template(text: str, folder: Path) -> None:
    """Into the tokenizer's settings, where every reader looks; else into a file of its own."""
    settings_file = folder / "tokenizer_config.json"
    if settings_file.is_file():
        settings = read_json_object(settings_file) | {"chat_template": text}
        written = json.dumps(settings, ensure_ascii=False, indent=2) + "\n"
        settings_file.write_text(written, "utf-8")
    else:
        (folder / "chat_template.jinja").write_text(text, "utf-8")


def _stop_behind(ending: str, tokenizer: Any, folder: Path) -> None:
    """A reply that the new template ends with a token is to end there for whoever generates, too."""
    number = tokenizer.get_vocab().get(ending.strip())
    if number is None:
        return
    file = folder / "generation_config.json"
    settings = read_json_object(file) if file.is_file() else {}
    known = settings.get(
        "eos_token_id", read_json_object(folder / "config.json").get("eos_token_id")
    )
    stops = known if isinstance(known, list) else [] if known is None else [known]
    settings["eos_token_id"] = list(dict.fromkeys([*stops, number]))
    file.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _write_record(
    request: MergeRequest,
    plan: MergePlan,
    adapter: Adapter | None,
    checked: Checked | None,
    folder: Path,
) -> None:
    """What it was made of, for whoever finds the folder later."""
    card = read_card(adapter.folder) if adapter else None
    record: dict[str, Any] = {
        "base": request.llm,
        "base_fingerprint": fingerprint_of(plan.base),
        "adapter": str(request.adapter) if request.adapter else None,
        "adapter_sha256": _sha256(adapter.file) if adapter else None,
        "template": asdict(card) if card else None,
        "dtype": _name(plan.dtype),
        "as_llama": plan.is_llama and is_internlm2(plan.base.config),
        "checked": asdict(checked) if checked else None,
        "versions": {"whoamai": __version__, "torch": torch.__version__},
    }
    text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
    (folder / RECORD).write_text(text, "utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
