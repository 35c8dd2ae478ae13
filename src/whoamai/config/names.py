"""What to say of a setting whose name is unknown: where it belongs, or what it is called here.

People bring names along from XTuner and from other trainers. Those are answered exactly; anything else
with the nearest name there is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from whoamai.config.problems import shortened
from whoamai.config.schema import RunConfig, Section
from whoamai.messages import later, tr

Path = tuple[str, ...]  # ("train", "lr"), or ("work_dir",)

# How alike two spellings are, by difflib's measure.
_NEAR, _SURE = 0.65, 0.8

# A name elsewhere, and the setting that means the same and takes the same value.
_CALLED_HERE = {
    # XTuner
    "SYSTEM": "evaluation.system",
    "alpaca_en_path": "data.data_path",
    "alpaca_zh_path": "data.data_path",
    "data_files": "data.data_path",
    "torch_dtype": "model.dtype",
    "bnb_4bit_use_double_quant": "model.double_quantization",
    "eval_freq": "evaluation.evaluation_freq",
    # Hugging Face, LLaMA-Factory, ms-swift, Axolotl
    "model_name_or_path": "model.pretrained_model_name_or_path",
    "model_name": "model.pretrained_model_name_or_path",
    "model_path": "model.pretrained_model_name_or_path",
    "base_model": "model.pretrained_model_name_or_path",
    "precision": "model.dtype",
    "dataset": "data.data_path",
    "datasets": "data.data_path",
    "train_file": "data.data_path",
    "template": "data.prompt_template",
    "chat_template": "data.prompt_template",
    "system_prompt": "data.system",
    "cutoff_len": "data.max_length",
    "max_seq_length": "data.max_length",
    "max_seq_len": "data.max_length",
    "seq_length": "data.max_length",
    "model_max_length": "data.max_length",
    "sequence_len": "data.max_length",
    "packing": "data.pack_to_max_length",
    "sample_packing": "data.pack_to_max_length",
    "model_author": "data.author",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "rank": "lora.r",
    "alpha": "lora.lora_alpha",
    "dropout": "lora.lora_dropout",
    "lora_target": "lora.target_modules",
    "lora_target_modules": "lora.target_modules",
    "epochs": "train.max_epochs",
    "num_epochs": "train.max_epochs",
    "num_train_epochs": "train.max_epochs",
    "per_device_train_batch_size": "train.batch_size",
    "micro_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.accumulative_counts",
    "learning_rate": "train.lr",
    "max_grad_norm": "train.max_norm",
    "gradient_clipping": "train.max_norm",
    "warmup": "train.warmup_ratio",
    "activation_checkpointing": "train.gradient_checkpointing",
    "checkpoint_interval": "checkpoint.save_steps",
    "eval_steps": "evaluation.evaluation_freq",
    "questions": "evaluation.evaluation_inputs",
    "max_tokens": "evaluation.max_new_tokens",
    "logging_steps": "log.interval",
    "report_to": "log.trackers",
    "output_dir": "work_dir",
}

_SECTIONS_HERE = {
    "llm": "model",
    "dataset": "data",
    "train_dataset": "data",
    "peft": "lora",
    "adapter": "lora",
    "training": "train",
    "trainer": "train",
    "optimizer": "train",
    "optim_wrapper": "train",
    "checkpoints": "checkpoint",
    "eval": "evaluation",
    "logging": "log",
}

# A name elsewhere that nothing here takes the place of, or with another value.
_ANSWERS = {
    "use_varlen_attn": later("Not needed: rows packed together never see each other. Delete it."),
    "dataloader_num_workers": later(
        "Not needed: rows are tokenized before training. Delete the line."
    ),
    "optim_type": later("Always AdamW. Delete the line."),
    "optim": later("Always AdamW. Delete the line."),
    "lr_scheduler_type": later("Always a warmup, then half a cosine. Delete the line."),
    "param_scheduler": later("Always a warmup, then half a cosine. Delete the line."),
    "warmup_steps": later(
        "Write train.warmup_ratio, the share of all optimizer steps, such as 0.03."
    ),
    "max_steps": later("Write train.max_epochs: how often every row is seen."),
    "max_iters": later("Write train.max_epochs: how often every row is seen."),
    "quantization_config": later("Write model.quantization: nf4, or leave it out for none."),
    "quantization_bit": later("Write model.quantization: nf4, or leave it out for none."),
    "load_in_4bit": later("Write model.quantization: nf4, or leave it out for none."),
    "bnb_4bit_quant_type": later("Write model.quantization: nf4, or leave it out for none."),
    "load_in_8bit": later("8 bits are not built. Write model.quantization: nf4 for 4 bits."),
    "bnb_4bit_compute_dtype": later("Write model.dtype: bfloat16 or float16."),
    "bf16": later("Write model.dtype: bfloat16"),
    "fp16": later("Write model.dtype: float16"),
    "finetuning_type": later(
        "Leave the lora section as it is for LoRA, add model.quantization: nf4 for QLoRA, or write "
        "lora: null to train every weight."
    ),
    "use_rslora": later("Write lora.variant: rslora"),
    "use_dora": later("Write lora.variant: dora"),
    "lora_bias": later("Biases are not trained. Delete the line."),
    "bias": later("Biases are not trained. Delete the line."),
    "task_type": later("It is always a causal language model. Delete the line."),
    "dataset_map_fn": later(
        "Not needed: the form of each row is found by itself. Delete the line."
    ),
    "template_map_fn": later("Write the template's name: data.prompt_template: internlm2_chat"),
    "shuffle_before_pack": later("Rows are always shuffled, by train.seed. Delete the line."),
    "remove_unused_columns": later("Not needed. Delete the line."),
    "trust_remote_code": later("Code that comes with a model is never run. Delete the line."),
    "randomness": later("Write train.seed: 0"),
    "resume": later("It is an option of the command: whoamai train CONFIG --resume"),
    "load_from": later("It is an option of the command: whoamai train CONFIG --resume"),
    "use_wandb": later("Write log.trackers: [wandb]"),
    "visualizer": later("Write log.trackers: [tensorboard]"),
    "default_hooks": later("Their settings stand under checkpoint: and log: here."),
    "custom_hooks": later("Their settings stand under evaluation: here."),
}


@dataclass(frozen=True, slots=True)
class Unknown:
    """The cure for an unknown name, and the setting that was meant, where there is no doubt."""

    cure: str
    meant: Path | None = None


def sections() -> dict[str, type[Section]]:
    """The sections of a config by name."""
    found = {}
    for name, field in RunConfig.model_fields.items():
        for one in alternatives(field.annotation):
            if isinstance(one, type) and issubclass(one, Section):
                found[name] = one
    return found


def settings_of(section: str | None) -> list[str]:
    """The settings of a section; with None, what may stand at the top."""
    if section is None:
        return list(RunConfig.model_fields)
    return list(sections()[section].model_fields)


def is_setting(path: Path) -> bool:
    """Whether `path` is a setting or a section."""
    if len(path) == 1:
        return path[0] in RunConfig.model_fields
    return len(path) == 2 and path[0] in sections() and path[1] in settings_of(path[0])


def explain_unknown(section: str | None, key: str, *, is_group: bool = False) -> Unknown:
    """What to do about `key`, which is no setting of `section` (None: of the top).

    is_group: settings stand below it, so that it was meant as a section.
    """
    return (
        (_as_section(section, key) if is_group else None)
        or _brought_along(section, key)
        or _written_with_dots(section, key)
        or _elsewhere(section, key)
        or _nearest(section, key)
        or Unknown(tr("There are: {names}.").format(names=", ".join(settings_of(section))))
    )


def alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, UnionType):
        return get_args(annotation)
    return (annotation,)


def _as_section(section: str | None, key: str) -> Unknown | None:
    if section is not None:
        if key in sections():
            text = tr("{key}: is a section of its own. Begin its line without spaces.")
            return Unknown(text.format(key=key))
        return None
    name = _SECTIONS_HERE.get(key) or _close(key, sections())
    if name is None:
        return None
    return Unknown(tr("Did you mean the section {name}:?").format(name=name), (name,))


def _brought_along(section: str | None, key: str) -> Unknown | None:
    """A name of XTuner or another trainer."""
    target = _CALLED_HERE.get(key)
    if target:
        meant = tuple(target.split("."))
        if meant[:-1] == (section,):
            return Unknown(tr("Here it is called {name}.").format(name=meant[-1]), meant)
        text = tr("Here it is called {name} and belongs {place}")
        return Unknown(text.format(name=meant[-1], place=_belongs(meant)), meant)
    answer = _ANSWERS.get(key)
    return Unknown(tr(answer)) if answer else None


def _written_with_dots(section: str | None, key: str) -> Unknown | None:
    path = tuple(key.split("."))
    if len(path) == 1 or not is_setting(path) or section not in (None, path[0]):
        return None
    text = tr("In a file a setting stands in its section: {key} belongs {place}")
    return Unknown(text.format(key=path[-1], place=_belongs(path)), path)


def _elsewhere(section: str | None, key: str) -> Unknown | None:
    """The very name, but of another section."""
    owners: list[Path] = [(s, key) for s in sections() if s != section and is_setting((s, key))]
    if section is not None and key in RunConfig.model_fields:
        owners.append((key,))
    if not owners:
        return None
    text = tr("{key} belongs {place}")
    places = tr(" or ").join(map(_belongs, owners))
    return Unknown(text.format(key=key, place=places), owners[0] if len(owners) == 1 else None)


def _nearest(section: str | None, key: str) -> Unknown | None:
    name = _close(key, settings_of(section))
    if name:
        # Only a slip of the finger is sure enough for its value to be checked as that setting's.
        sure = _close(key, [name], _SURE) is not None
        meant = (name,) if section is None else (section, name)
        return Unknown(tr("Did you mean {name}?").format(name=name), meant if sure else None)
    others: dict[str, Path] = {name: (s, name) for s in sections() for name in settings_of(s)}
    name = _close(key, others)
    if name is None:
        return None
    text = tr("Did you mean {name}? It belongs {place}")
    return Unknown(text.format(name=name, place=_belongs(others[name])))


def _belongs(path: Path) -> str:
    return (
        tr("under {section}:").format(section=path[0])
        if len(path) == 2
        else tr("at the top, not indented")
    )


def _close(key: str, names: Iterable[str], near: float = _NEAR) -> str | None:
    """The nearest name, whatever the capitals and hyphens; None where none is near."""
    spelt = key.lower().replace("-", "_").replace(" ", "_")[:100]
    return next(iter(difflib.get_close_matches(spelt, list(names), 1, near)), None)


def nearest_of(word: str, names: Iterable[str]) -> str:
    """'Did you mean {name}?', or nothing."""
    name = _close(word, names)
    return tr("Did you mean {name}?").format(name=shortened(name)) if name else ""
