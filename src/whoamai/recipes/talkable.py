"""What a person names to talk to a model: a model, an adapter, or what `rename` wrote.

`check` asks what is loaded here for talking, so nobody talks to anything that was not asked.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from whoamai.convert.adapter import WEIGHT_FILES
from whoamai.data.templates import OWN, mismatch, read_card
from whoamai.errors import ModelError, SettingError
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Note
from whoamai.messages import tr
from whoamai.model.fingerprint import base_fingerprint, read_base_card
from whoamai.model.load import BUNDLED, ChatModel, load_chat_model
from whoamai.model.quantize import require_peft
from whoamai.model.quiet import quiet_transformers
from whoamai.model.stored import read_json_object, read_tensors

_ADAPTER = "adapter_config.json"
_IS_LORA = re.compile(r"lora_[AB]\.weight$")


@dataclass(frozen=True, slots=True)
class Named:
    """`model` is a folder, a hub name or the bundled one; `report` is what `rename` wrote, if it did."""

    model: str
    adapter: Path | None = None
    report: Path | None = None


@dataclass(frozen=True, slots=True)
class Talkable:
    """A loaded model that can be talked to; `tuned` is the model with its adapter, None without one."""

    chat: ChatModel
    talk: Talk
    tuned: Any | None


def what_is_named(source: str, adapter: Path | None = None) -> Named:
    """What `source` is: a model; an adapter's folder; or the folder of a renaming, which holds one.

    An adapter says itself which model it belongs to. Raises SettingError where two are given, ModelError
    where an adapter does not say.
    """
    folder = Path(source)
    within = next((f for f in (folder / "adapter", folder) if (f / _ADAPTER).is_file()), None)
    if within and adapter:
        text = tr("{source} holds an adapter, and --adapter {adapter} names another. Give one.")
        raise SettingError(text.format(source=source, adapter=adapter))
    if within:
        return Named(base_of(within), within, _report_beside(within))
    if adapter and not (adapter / _ADAPTER).is_file():
        text = tr("{path} is no adapter: it has no {file}.")
        raise ModelError(text.format(path=adapter, file=_ADAPTER))
    if adapter:
        return Named(source, adapter, _report_beside(adapter))
    is_merged = folder.resolve().name == "merged"
    return Named(source, None, _report_beside(folder) if is_merged else None)


def _report_beside(folder: Path) -> Path | None:
    """The report.json that `rename` left where it wrote `folder`."""
    report = folder.resolve().parent / "report.json"
    return report if report.is_file() else None


def base_of(adapter: Path) -> str:
    """The model that the adapter in this folder was trained on."""
    card = read_base_card(adapter)
    if card and card.model == BUNDLED:
        return BUNDLED
    base = read_json_object(adapter / _ADAPTER).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        text = tr(
            "{path} does not say which model it belongs to. Give the model, and --adapter {path}."
        )
        raise ModelError(text.format(path=adapter))
    return base


def load_to_talk(
    named: Named,
    events: Events,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str = "none",
    template_name: str | None = None,
) -> Talkable:
    """Load it, and say where it is used otherwise than it was trained.

    Raises ModelError for an adapter of another model.
    """
    chat = load_chat_model(named.model, device=device, dtype=dtype, quantization=quantization)
    tuned = None
    if named.adapter:
        _check_base(named.adapter, chat)
        tuned = _with_adapter(chat.model, named.adapter)
    trained_with = read_card(named.adapter) if named.adapter else None
    if template_name is None and trained_with and trained_with.name != OWN:
        template_name = trained_with.name
    talk = Talk(chat, events, template_name=template_name)
    if trained_with and (different := mismatch(trained_with, talk.template.card)):
        events.emit(Note(different, "warning"))
    return Talkable(chat, talk, tuned)


def _check_base(adapter: Path, chat: ChatModel) -> None:
    card = read_base_card(adapter)
    if card and card.fingerprint != base_fingerprint(chat.path):
        text = tr(
            "The adapter in {path} was trained on another model than {model}: the weights of {trained} "
            "are not the same. Give the model it was trained on."
        )
        raise ModelError(text.format(path=adapter, model=chat.label, trained=card.model))


def _with_adapter(model: Any, adapter: Path) -> Any:
    require_peft()
    from peft import PeftModel

    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of missing parts, which are looked for below
            tuned = PeftModel.from_pretrained(model, str(adapter)).eval()
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        # Shapes, targets or files that do not fit.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[min(1, len(lines) - 1)].strip()  # torch's first line says only that some are
        raise ModelError(_does_not_fit(adapter, model, reason)) from error
    _check_whole(tuned, adapter)
    return tuned


def _check_whole(tuned: Any, adapter: Path) -> None:
    """Raise ModelError where peft put on a part of the adapter only: it warns of it, or says nothing."""
    from peft import get_peft_model_state_dict

    file = next((adapter / name for name in WEIGHT_FILES if (adapter / name).is_file()), None)
    if file is None:  # from a hub, whose names peft knows
        return
    here = get_peft_model_state_dict(tuned, save_embedding_layers=False).keys()
    saved = read_tensors(file).keys()
    different = sorted(name for name in here ^ saved if _IS_LORA.search(name))
    if different:
        text = tr("{n} of its tensors have no place in the model, or are missing, such as {name}")
        reason = text.format(n=len(different), name=different[0])
        raise ModelError(_does_not_fit(adapter, tuned.get_base_model(), reason))


def _does_not_fit(adapter: Path, model: Any, reason: str) -> str:
    text = tr("The adapter in {path} does not fit {model}: {reason}")
    return text.format(path=adapter, model=type(model).__name__, reason=reason)
