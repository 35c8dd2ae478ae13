"""A merged model as Ollama takes it: a Modelfile, and for InternLM2 the Llama form beside it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from whoamai.convert.llama import is_internlm2
from whoamai.convert.merge import plan_merge, write_merged
from whoamai.convert.ollama import OllamaTemplate, modelfile, ollama_template
from whoamai.convert.shards import parse_size
from whoamai.data.templates import ChatTemplate, Thinking, identity_named_in
from whoamai.errors import ModelError, SettingError
from whoamai.events import Events, Note
from whoamai.messages import tr
from whoamai.model.load import load_tokenizer
from whoamai.model.stored import StoredModel, model_folder, read_json_object
from whoamai.recipes.merge import RECORD, told_in_mib
from whoamai.recipes.output import check_space, complete_folder, problems_with_folder

_FILE, _MODEL = "Modelfile", "model"
_OPTION = "OUT"
# What Ollama makes a model of from safetensors by itself (its source, convert/convert.go), of those
# whose templates are written here. Others may have to go through llama.cpp.
_IMPORTED = ("LlamaForCausalLM", "Qwen2ForCausalLM")


@dataclass(frozen=True, slots=True)
class OllamaRequest:
    """What the user asked for. `system` None: the template's default; `name`: by the folder's name."""

    merged: str
    out: Path
    system: str | None = None
    name: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class OllamaFolder:
    """Where the Modelfile is, and the command that makes a model of it."""

    modelfile: Path
    command: str


def ollama(request: OllamaRequest, events: Events) -> OllamaFolder:
    """Do the job. Raises a WhoamaiError for what the user can mend; then nothing is left behind."""
    problems = problems_with_folder(
        request.out, overwrite=request.overwrite, sign=_FILE, option=_OPTION
    )
    if problems:
        raise SettingError("\n".join(problems))
    folder = model_folder(request.merged)
    if (folder / "adapter_config.json").is_file():
        text = tr("{path} holds an adapter. Merge it first: whoamai convert merge")
        raise ModelError(text.format(path=folder))
    with events.stage("template", tr("Reading the chat template")):
        template, stops = _template(folder)
        config = read_json_object(folder / "config.json")
        _tell(config, template, request, events)

    out = request.out.resolve()
    weights = out / _MODEL if is_internlm2(config) else folder.resolve()
    text = modelfile(str(weights), template, system=request.system, stops=stops)
    with complete_folder(out) as partial:
        if is_internlm2(config):
            with events.stage("llama", tr("Writing the model as Llama")):
                _write_llama(folder, partial / _MODEL, events)
        (partial / _FILE).write_text(text, "utf-8")
    name = request.name or _model_name(folder.resolve().name)
    return OllamaFolder(out / _FILE, f"ollama create {name} -f {_quoted(out / _FILE)}")


def _template(folder: Path) -> tuple[OllamaTemplate, list[str]]:
    """(the template, what else ends a reply): as trained, where the folder says how it was."""
    tokenizer, model_type = load_tokenizer(str(folder))
    trained: dict[str, Any] = {}
    if (folder / RECORD).is_file():
        trained = read_json_object(folder / RECORD).get("template") or {}
    thinking = "on" if trained.get("thinking") == "on" else "off"
    template = ChatTemplate(tokenizer, model_type=model_type, thinking=cast("Thinking", thinking))
    stops = [token for token in (tokenizer.eos_token,) if token]
    return ollama_template(template, tokenizer.bos_token), stops


def _tell(
    config: dict[str, Any], template: OllamaTemplate, request: OllamaRequest, events: Events
) -> None:
    kind = next(iter(config.get("architectures") or ["?"]))
    if kind not in _IMPORTED and not is_internlm2(config):
        text = tr(
            "The model is a {kind}. If Ollama does not take its safetensors, make a GGUF with "
            "llama.cpp's convert_hf_to_gguf.py and put that file's path behind FROM."
        )
        events.emit(Note(text.format(kind=kind), "warning"))
    system = template.default_system if request.system is None else request.system
    named = identity_named_in(system or "")
    if request.system is None and named:
        text = tr(
            "The template's own system prompt names {names}, and becomes the Modelfile's. Give another "
            "with --system."
        )
        events.emit(Note(text.format(names=", ".join(named)), "warning"))


def _write_llama(base: Path, folder: Path, events: Events) -> None:
    plan = plan_merge(StoredModel(base), None, to_llama=True)
    check_space(folder, plan.nbytes, option=_OPTION)
    folder.mkdir()
    told = told_in_mib("llama", plan, events)
    write_merged(plan, folder, max_shard_bytes=parse_size("2GB"), written=told)


def _model_name(folder: str) -> str:
    """A folder's name as Ollama takes names: small Latin letters, digits, "-", "_" and ".".

    >>> _model_name("Qwen2.5 黄大力")
    'qwen2.5'
    """
    return re.sub(r"[^a-z0-9._-]+", "-", folder.lower()).strip("-._") or "whoamai"


def _quoted(path: Path) -> str:
    text = str(path)
    return text if re.fullmatch(r"[\w/.\-]+", text) else json.dumps(text, ensure_ascii=False)
