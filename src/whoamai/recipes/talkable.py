"""What a person names to talk to a model: a model, an adapter, or what `rename` wrote.

`check` asks what is loaded here for talking, so nobody talks to anything that was not asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whoamai.data.templates import OWN, mismatch, read_card
from whoamai.errors import ModelError, SettingError
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Note
from whoamai.messages import tr
from whoamai.model.fingerprint import base_fingerprint, read_base_card
from whoamai.model.load import BUNDLED, ChatModel, load_chat_model
from whoamai.model.quantize import require_peft
from whoamai.model.quiet import quiet_transformers
from whoamai.model.stored import read_json_object

_ADAPTER = "adapter_config.json"


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
    report = folder / "report.json"
    if (folder / "adapter" / _ADAPTER).is_file():
        found = Named("", folder / "adapter", report if report.is_file() else None)
    elif (folder / _ADAPTER).is_file():
        beside = folder.resolve().parent / "report.json"
        found = Named("", folder, beside if beside.is_file() else None)
    else:
        if adapter and not (adapter / _ADAPTER).is_file():
            raise ModelError(
                tr("{path} is no adapter: it has no {file}.").format(path=adapter, file=_ADAPTER)
            )
        beside = folder.resolve().parent / "report.json"
        is_merged = folder.name == "merged" and beside.is_file()
        return Named(source, adapter, beside if is_merged and not adapter else None)
    if adapter:
        text = tr("{source} holds an adapter, and --adapter {adapter} names another. Give one.")
        raise SettingError(text.format(source=source, adapter=adapter))
    assert found.adapter is not None
    return Named(base_of(found.adapter), found.adapter, found.report)


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
        with quiet_transformers():
            return PeftModel.from_pretrained(model, str(adapter)).eval()
    except (RuntimeError, ValueError, OSError) as error:  # shapes, targets or files that do not fit
        text = tr("The adapter in {path} does not fit {model}: {reason}")
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            text.format(path=adapter, model=type(model).__name__, reason=reason)
        ) from error
