"""A checkpoint of XTuner's as a peft adapter or a model folder: names, numbers, adapter_config.json.

XTuner's names and peft's differ in what stands around the layer's own name:

    llm.base_model.model.model.layers.0.attention.wqkv.lora_A.default.weight      XTuner
        base_model.model.model.layers.0.attention.wqkv.lora_A.weight              peft, on the disk
    llm.model.layers.0.attention.wqkv.weight  →  model.layers.0.attention.wqkv.weight    a whole model
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whoamai.config import RunConfig
from whoamai.convert.checkpoints import LLM
from whoamai.convert.python_values import Dotted, Unknown
from whoamai.convert.weights import Weight
from whoamai.errors import ModelError
from whoamai.messages import tr

if TYPE_CHECKING:
    import torch

    from whoamai.convert.xtuner_python import ParsedConfig

_MATRIX = re.compile(r"\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B)\.default(?=\.|$)")
_MAGNITUDE = re.compile(r"\.lora_magnitude_vector\.default(\.weight)?$")
_WHOLE = re.compile(r"\.modules_to_save\.default(?=\.)")
_RANK = re.compile(r"\.(lora_A\.weight|lora_embedding_A)$")

# Keys of adapter_config.json, and what they are where a config leaves them out: LoraConfig's defaults.
_DEFAULTS: Mapping[str, Any] = {
    "alpha_pattern": {},
    "bias": "none",
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "layers_pattern": None,
    "layers_to_transform": None,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "modules_to_save": None,
    "r": 8,
    "rank_pattern": {},
    "task_type": "CAUSAL_LM",
    "use_dora": False,
    "use_rslora": False,
}
# What changes the adapter's meaning, so that a difference is told.
_TOLD = ("r", "lora_alpha", "bias", "use_rslora", "use_dora", "target_modules")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a config says of how a checkpoint was trained.

    lora: settings by LoraConfig's names, None where the whole model was trained. template: the name of
    the chat template, None where it has none or one of its own. unknown: settings that are there but
    could not be understood. quantization: what the frozen weights were held in, "none" for 16 bits.
    """

    base: str | None
    lora: Mapping[str, Any] | None
    template: str | None = None
    unknown: tuple[str, ...] = ()
    quantization: str = "none"


def facts_of_xtuner(parsed: ParsedConfig) -> Facts:
    """Of a config of XTuner's: the one a checkpoint records, or a file."""
    model = parsed.values.get("model")
    if not isinstance(model, dict):
        return Facts(None, None, None, ("model",))
    llm, lora, unknown = model.get("llm"), model.get("lora"), []
    base = llm.get("pretrained_model_name_or_path") if isinstance(llm, dict) else None
    if isinstance(lora, dict):
        unknown = [f"lora.{key}" for key, value in lora.items() if isinstance(value, Unknown)]
        lora = {key: value for key, value in lora.items() if key != "type"}
    elif lora is not None:
        unknown, lora = ["lora"], None
    template = parsed.values.get("prompt_template")
    return Facts(
        base if isinstance(base, str) and not isinstance(base, Dotted) else None,
        lora,
        template.rpartition(".")[2] if isinstance(template, str) else None,
        tuple(unknown),
        _quantization(llm.get("quantization_config") if isinstance(llm, dict) else None),
    )


def _quantization(given: Any) -> str:
    """By our names, from the arguments of transformers' BitsAndBytesConfig."""
    if not isinstance(given, dict):
        return "none"
    if given.get("load_in_4bit") is True:
        return str(given.get("bnb_4bit_quant_type") or "fp4")
    return "int8" if given.get("load_in_8bit") is True else "none"


def facts_of_config(config: RunConfig) -> Facts:
    """Of a config of ours."""
    base, template = config.model.pretrained_model_name_or_path, config.data.prompt_template
    if config.lora is None:
        return Facts(base, None, template)
    quantization = config.model.quantization
    lora: dict[str, Any] = {
        "r": config.lora.r,
        "lora_alpha": config.lora.lora_alpha,
        "lora_dropout": config.lora.lora_dropout,
        "use_rslora": config.lora.variant == "rslora",
        "use_dora": config.lora.variant == "dora",
    }
    return Facts(base, lora, template, quantization=quantization)


def differences(recorded: Facts, given: Facts) -> list[str]:
    """What CONFIG says otherwise than the checkpoint, a line each; the checkpoint is right."""
    text = tr("{what}: the checkpoint was trained with {recorded}, CONFIG says {given}.")
    pairs: list[tuple[str, Any, Any]] = [
        ("pretrained_model_name_or_path", recorded.base, given.base)
    ]
    if recorded.lora is not None and given.lora is not None:
        mine, other = {**_DEFAULTS, **recorded.lora}, {**_DEFAULTS, **given.lora}
        pairs += [(key, mine.get(key), other.get(key)) for key in _TOLD]
    elif (recorded.lora is None) != (given.lora is None):
        words = {True: tr("every weight"), False: tr("an adapter")}
        pairs.append(("lora", words[recorded.lora is None], words[given.lora is None]))
    return [
        text.format(what=what, recorded=_shown(one), given=_shown(two))
        for what, one, two in pairs
        if one is not None and two is not None and _plain(one) != _plain(two)
    ]


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple | set):
        return ", ".join(sorted(map(str, value)))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list | tuple | set) else value


# ---- the adapter ---------------------------------------------------------------------------------


def is_adapter(weights: Mapping[str, Weight]) -> bool:
    return any(".lora_" in name for name in weights)


def adapter_weights(weights: Mapping[str, Weight], bias: str) -> dict[str, Weight]:
    """What belongs to the adapter, by peft's names."""
    return {
        peft_name(name): weight
        for name, weight in weights.items()
        if ".lora_" in name
        or _WHOLE.search(name)
        or (bias != "none" and name.endswith(".bias") and ".modules_to_save." not in name)
    }


def peft_name(name: str) -> str:
    """The name in adapter_model.safetensors of what XTuner calls `name`.

    >>> peft_name("llm.base_model.model.lm_head.lora_A.default.weight")
    'base_model.model.lm_head.lora_A.weight'
    """
    name = _MATRIX.sub(r".\1", name.removeprefix(LLM))
    name = _MAGNITUDE.sub(".lora_magnitude_vector", name)
    return _WHOLE.sub("", name)


def adapter_config(facts: Facts, weights: Mapping[str, Weight]) -> dict[str, Any]:
    """adapter_config.json for these weights (by peft's names), as XTuner writes it.

    Raises ModelError where rank and weights contradict each other, or a half of a pair is missing.
    """
    lora = facts.lora or {}
    alone = [
        n for n in weights if ".lora_A." in n and n.replace(".lora_A.", ".lora_B.") not in weights
    ]
    if alone:
        text = tr("{name} has no lora_B beside it: the checkpoint is incomplete.")
        raise ModelError(text.format(name=alone[0]))
    ranks = {_RANK.sub("", name): w.shape[0] for name, w in weights.items() if _RANK.search(name)}
    common = Counter(ranks.values()).most_common(1)[0][0]
    config = {key: lora.get(key, default) for key, default in _DEFAULTS.items()}
    if "r" in lora and lora["r"] not in ranks.values() and not config["rank_pattern"]:
        text = tr(
            "The config says that the adapter's rank is {told}, but its matrices have the rank {there}. "
            "Are config and checkpoint of the same run?"
        )
        raise ModelError(text.format(told=lora["r"], there=common))
    if "r" not in lora:
        config["r"] = common
    others = {_layer(m): rank for m, rank in ranks.items() if rank != config["r"]}
    config["rank_pattern"] = config["rank_pattern"] or others
    wanted = lora.get("target_modules")
    # A pattern (text) stays one; a list is what the weights say, whatever the config left open.
    targets = wanted if isinstance(wanted, str) else sorted({_last(module) for module in ranks})
    return {
        **config,
        "auto_mapping": None,
        "base_model_name_or_path": facts.base,
        "inference_mode": True,
        "peft_type": "LORA",
        "revision": None,
        "target_modules": targets,
    }


def _layer(module: str) -> str:
    return module.removeprefix("base_model.model.")


def _last(module: str) -> str:
    return module.rpartition(".")[2]


# ---- numbers -------------------------------------------------------------------------------------


def converted(weight: Weight, dtype: torch.dtype, name: str) -> torch.Tensor:
    """Its values in `dtype`, rounded once; whole numbers stay as they are.

    Raises ModelError where a value is no number, or too large for float16.
    """
    values = weight.load()
    if not values.is_floating_point():
        return values.contiguous()
    if not values.isfinite().all():
        text = tr(
            "{name} holds values that are no numbers (NaN or infinity): the training broke down. Take "
            "an earlier checkpoint."
        )
        raise ModelError(text.format(name=name))
    rounded = values.to(dtype, copy=True)  # of its own, not the file's memory
    if not rounded.isfinite().all():
        text = tr("{name} holds {value}, which is too large for float16. Convert with --fp32.")
        raise ModelError(text.format(name=name, value=f"{values.abs().max().item():g}"))
    return rounded.contiguous()
