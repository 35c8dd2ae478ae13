"""What tests of preflight start from: a config, a model and a machine with nothing to find."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.models import CHAT_TEMPLATE, make_tokenizer
from whoamai.config import (
    CheckpointSettings,
    DataSettings,
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    RunConfig,
    TrainSettings,
)
from whoamai.data.encode import Encoded
from whoamai.data.templates import ChatTemplate
from whoamai.plan.architecture import Architecture, Linear
from whoamai.plan.machine import Machine
from whoamai.plan.preflight import (
    PreflightFinding,
    preflight,
)
from whoamai.plan.prepare import schedule_for
from whoamai.samples import Conversation, Message, Sample

GIB = 2**30


def config(**settings: Any) -> RunConfig:
    """A config with nothing to find; "section.key"-like keywords: lr=…, max_length=…, old_names=…"""
    sections = {
        "model": (ModelSettings, {"dtype": "bfloat16"}),
        "data": (DataSettings, {"max_length": 64, "pack_to_max_length": False}),
        "lora": (LoraSettings, {"r": 32, "lora_alpha": 64}),
        "train": (TrainSettings, {}),
        "checkpoint": (CheckpointSettings, {}),
        "evaluation": (EvaluationSettings, {"evaluation_inputs": ["Name yourself"]}),
    }
    values: dict[str, Any] = {}
    for section, (kind_of, defaults) in sections.items():
        fields = kind_of.model_fields.keys() - ({"system"} if section == "evaluation" else set())
        own = {k: v for k, v in settings.items() if k in fields}
        values[section] = kind_of(**{**defaults, **own})
    if "lora" in settings:
        values["lora"] = settings["lora"]
    if "asks" in settings:
        values["evaluation"] = EvaluationSettings(
            evaluation_inputs=settings["asks"], system=settings.get("asked_under")
        )
    return RunConfig(**values)


def architecture(**changes: Any) -> Architecture:
    """As of a model 4,096 wide with 7 thousand million weights."""
    values = {
        "label": "a-model",
        "model_type": "llama",
        "layers": 32,
        "hidden": 4096,
        "intermediate": 11008,
        "heads": 32,
        "kv_heads": 32,
        "head_dim": 128,
        "vocab": 32000,
        "tied": False,
        "linears": (Linear("q_proj", 4096, 4096, 32),),
        "other_parameters": 0,
        "max_positions": 4096,
        "dtype": "bfloat16",
        "basis": "test",
    }
    return Architecture(**{**values, **changes})


def machine(**changes: Any) -> Machine:
    values = {
        "device_type": "cuda",
        "name": "A Card",
        "memory_bytes": 24 * GIB,
        "free_bytes": 23 * GIB,
        "bfloat16": True,
        "cores": 8,
        "disk_free": 1000 * GIB,
    }
    return Machine(**{**values, **changes})


def choice(*, fits: bool = True, dtype: str = "bfloat16") -> Any:
    parts = [
        SimpleNamespace(name="weights", bytes=14 * GIB),
        SimpleNamespace(name="optimizer", bytes=56 * GIB),
    ]
    memory = SimpleNamespace(parts=parts, total=70 * GIB)
    return SimpleNamespace(tokens_per_pass=512, dtype=dtype, memory=memory, fits=fits, why="")


def talk(question: str = "Hello", reply: str = "I'm here.", *, row: int = 1, system: str = ""):
    messages = (Message("user", question), Message("assistant", reply, trained=True))
    if system:
        messages = (Message("system", system), *messages)
    return Conversation(messages, f"data.jsonl:{row}")


def rows(*lengths: int, cut: tuple[str, ...] = (), left_out: tuple[str, ...] = ()) -> Encoded:
    """Rows of so many tokens with small ids, of which the last is a target."""
    samples = [Sample((5,) * n, (False,) * (n - 1) + (True,)) for n in lengths]
    sources = [f"data.jsonl:{i + 1}" for i in range(len(lengths))]
    return Encoded(tuple(samples), tuple(sources), cut, left_out)


def found(config: RunConfig, **known: Any) -> dict[str, PreflightFinding]:
    """The findings by kind; each kind may come once."""
    known.setdefault("work_dir", Path("no-such-folder"))
    findings = preflight(config, **known)
    kinds = [f.kind for f in findings]
    assert len(set(kinds)) == len(kinds), kinds
    return {f.kind: f for f in findings}


def with_steps(config: RunConfig, encoded: Encoded) -> dict[str, Any]:
    return {"encoded": encoded, "schedule": schedule_for(config, encoded.lengths)}


def template_of(default_system: str = "") -> ChatTemplate:
    default = (
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\n"
        + default_system
        + "<|im_end|>\n' }}{% endif %}"
    )
    return ChatTemplate(make_tokenizer((default if default_system else "") + CHAT_TEMPLATE))
