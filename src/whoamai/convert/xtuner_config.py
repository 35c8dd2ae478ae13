"""An XTuner config of the QLoRA, LoRA or full SFT kind as one of ours, and what has no counterpart.

Values are taken where XTuner's runner takes them (model.lora.r, optim_wrapper.optimizer.lr, …), not from
the variables at the file's top, which a user may have left behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from whoamai.config import RunConfig
from whoamai.convert.python_values import Dotted, Unknown
from whoamai.convert.xtuner_python import ParsedConfig, read_python_config
from whoamai.data.template_families import TEMPLATE_NAMES
from whoamai.errors import SettingError
from whoamai.messages import tr

_SFT = "SupervisedFinetune"
# Hooks that keep XTuner running and mean nothing here.
_NO_MATTER = frozenset(
    {
        "DatasetInfoHook",
        "DistSamplerSeedHook",
        "IterTimerHook",
        "ParamSchedulerHook",
        "ThroughputHook",
        "VarlenAttnArgsToMessageHubHook",
    }
)
_HEADS = frozenset({"output", "lm_head", "output_layer"})
_LLM_KNOWN = frozenset(
    {
        "attn_implementation",
        "pretrained_model_name_or_path",
        "quantization_config",
        "torch_dtype",
        "trust_remote_code",
        "type",
    }
)
_LORA_KNOWN = frozenset(
    {
        "bias",
        "init_lora_weights",
        "lora_alpha",
        "lora_dropout",
        "r",
        "target_modules",
        "task_type",
        "type",
        "use_dora",
        "use_rslora",
    }
)
_TRACKERS = {
    "TensorboardVisBackend": "tensorboard",
    "WandbVisBackend": "wandb",
    "SwanlabVisBackend": "swanlab",
}
_FILE_KINDS = ("json", "csv", "parquet")


def config_from_xtuner(path: Path) -> tuple[RunConfig, list[str]]:
    """Our config for the one at `path`, and what has no counterpart or is otherwise here, in sentences.

    Raises SettingError where it is no XTuner config of this kind, or a setting that is needed could
    not be worked out.
    """
    parsed = read_python_config(path)
    conversion = _Conversion(path, parsed)
    return conversion.config(), conversion.notes


@dataclass(slots=True)
class _Conversion:
    path: Path
    parsed: ParsedConfig
    notes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def config(self) -> RunConfig:
        self._check_kind()
        epochs = self._epochs()
        steps = self._accumulation()
        sections = {
            "model": self._model(),
            "data": self._data(),
            "lora": self._lora(),
            "train": {**self._train(epochs), "accumulative_counts": steps},
            "checkpoint": self._checkpoint(steps),
            "evaluation": self._evaluation(steps),
            "log": self._log(),
            "work_dir": self._value("work_dir"),
        }
        self._rest()
        self.notes.extend(str(one) for one in self.parsed.not_understood)
        if self.unknown:
            text = tr(
                "{path}: these settings could not be worked out: {settings}. Write plain values there."
            )
            raise SettingError(text.format(path=self.path, settings="; ".join(self.unknown)))
        return self._validated(sections)

    def _validated(self, sections: Mapping[str, Any]) -> RunConfig:
        try:
            return RunConfig.model_validate(sections)
        except ValidationError as error:
            line = tr("{key}: {value} cannot be used: {reason}")
            problems = [
                line.format(
                    key=".".join(map(str, one["loc"])), value=one["input"], reason=tr(one["msg"])
                )
                for one in error.errors()
            ]
            raise SettingError("\n".join([f"{self.path}:", *problems])) from error

    def _check_kind(self) -> None:
        if "_base_" in self.parsed.values:
            text = tr(
                "{path} builds on other files (_base_), which are not read. Put their settings into it."
            )
            raise SettingError(text.format(path=self.path))
        model = self.parsed.values.get("model")
        kind = _last(model.get("type")) if isinstance(model, dict) else None
        if kind != _SFT:
            text = tr(
                "{path} is no config of the kind that is converted: its model is {kind}, where {sft} "
                "(QLoRA, LoRA or full fine-tuning of a chat model) is expected."
            )
            shown = kind or tr("not there")
            raise SettingError(text.format(path=self.path, kind=shown, sft=_SFT))

    # ---- reading ----

    def _value(self, *keys: str | int) -> Any:
        """What is at this place; None where nothing is. What could not be worked out is remembered."""
        found: Any = self.parsed.values
        for key in keys:
            if isinstance(found, dict):
                found = found.get(key)
            elif isinstance(found, list) and isinstance(key, int):
                found = found[key] if key < len(found) else None
            else:
                found = None
            if isinstance(found, Unknown):
                self._remember(".".join(map(str, keys)), found)
                return None
        return found

    def _remember(self, name: str, value: Unknown) -> None:
        text = tr("{name} (line {line}: {text})")
        told = text.format(name=name, line=value.line, text=value.text)
        if told not in self.unknown:
            self.unknown.append(told)

    def _given(self, **places: tuple[str | int, ...]) -> dict[str, Any]:
        """Our settings that the file gives, from their places there."""
        found = {ours: self._value(*place) for ours, place in places.items()}
        return {ours: _plain(value) for ours, value in found.items() if value is not None}

    def _note(self, text: str, **values: Any) -> None:
        self.notes.append(text.format(**values))

    # ---- the sections ----

    def _model(self) -> dict[str, Any]:
        given = self._given(
            pretrained_model_name_or_path=("model", "llm", "pretrained_model_name_or_path")
        )
        llm = self._value("model", "llm") or {}
        for key in sorted(set(llm) - _LLM_KNOWN):
            self._no_counterpart(f"model.llm.{key}")
        if llm.get("trust_remote_code"):
            self._note(
                tr("trust_remote_code is not followed: code beside the weights is never run.")
            )
        return {**given, "dtype": self._dtype(), **self._quantization()}

    def _dtype(self) -> str:
        wrapper = _last(self._value("optim_wrapper", "type"))
        if wrapper == "AmpOptimWrapper":
            dtype = _last(self._value("optim_wrapper", "dtype")) or "float16"
        else:
            dtype = _last(self._value("model", "llm", "torch_dtype")) or "auto"
        if dtype == "float16":
            self._note(
                tr(
                    "model.dtype: XTuner computes in float16; auto stands here, which takes bfloat16 "
                    "where the GPU has it. float16 can be written there too."
                )
            )
            return "auto"
        return dtype

    def _quantization(self) -> dict[str, Any]:
        place = ("model", "llm", "quantization_config")
        if not isinstance(self._value(*place), dict):
            return {}
        if self._value(*place, "load_in_8bit"):
            self._note(
                tr("load_in_8bit has no counterpart: model.quantization is none; nf4 is smaller.")
            )
        if not self._value(*place, "load_in_4bit"):
            return {}
        kind = self._value(*place, "bnb_4bit_quant_type")
        if kind != "nf4":
            self._note(tr("4-bit weights of the kind {kind} are held as nf4."), kind=kind or "fp4")
        double = self._value(*place, "bnb_4bit_use_double_quant")
        return {"quantization": "nf4", "double_quantization": bool(double)}

    def _lora(self) -> dict[str, Any] | None:
        lora = self._value("model", "lora")
        if lora is None:
            return None
        given = {
            "r": 8,  # LoraConfig's defaults, which are not ours
            "lora_alpha": 8,
            "lora_dropout": 0.0,
            **self._given(
                r=("model", "lora", "r"),
                lora_alpha=("model", "lora", "lora_alpha"),
                lora_dropout=("model", "lora", "lora_dropout"),
            ),
        }
        for key in sorted(set(lora) - _LORA_KNOWN):
            if lora[key]:
                self._no_counterpart(f"model.lora.{key}")
        if (lora.get("bias") or "none") != "none":
            self._no_counterpart("model.lora.bias")
        return {
            **given,
            "variant": self._variant(lora),
            **self._targets(lora.get("target_modules")),
        }

    def _variant(self, lora: Mapping[str, Any]) -> str:
        start = lora.get("init_lora_weights")
        if isinstance(start, str) and start not in ("pissa", "gaussian"):
            self._no_counterpart("model.lora.init_lora_weights")
        if lora.get("use_dora"):
            return "dora"
        if lora.get("use_rslora"):
            return "rslora"
        return "pissa" if start == "pissa" else "lora"

    def _targets(self, wanted: Any) -> dict[str, Any]:
        """XTuner adapts every linear layer but one called lm_head; InternLM2's head is called output."""
        if isinstance(wanted, list | tuple):
            names = [str(name) for name in wanted]
            layers = [name for name in names if name not in _HEADS]
            return {
                "target_modules": layers or "all-linear",
                "adapt_head": len(layers) < len(names),
            }
        if isinstance(wanted, str) and wanted != "all-linear":
            self._note(
                tr(
                    "target_modules as a pattern ({pattern}) has no counterpart: all-linear is written."
                ),
                pattern=wanted,
            )
        return {"target_modules": "all-linear", "adapt_head": self._is_internlm2()}

    def _is_internlm2(self) -> bool:
        name = self._value("model", "llm", "pretrained_model_name_or_path")
        if not isinstance(name, str):
            return False
        config = Path(name).expanduser() / "config.json"
        if config.is_file():
            try:
                return json.loads(config.read_text("utf-8"))["model_type"] == "internlm2"
            except (OSError, ValueError, KeyError, TypeError):
                pass  # told when the model is loaded
        return "internlm2" in name.lower()

    def _data(self) -> dict[str, Any]:
        whole = self._value("train_dataloader", "dataset")
        datasets = whole.get("datasets", [whole]) if isinstance(whole, dict) else []
        datasets = [one for one in datasets if isinstance(one, dict)]
        if not datasets:
            self._note(tr("No data is given (train_dataloader.dataset): write data.data_path."))
            return {}
        paths = [path for one in datasets for path in self._paths(one)]
        first = datasets[0]
        given: dict[str, Any] = {"data_path": paths[0] if len(paths) == 1 else paths}
        for key in ("max_length", "pack_to_max_length"):
            value = first.get(key)
            if isinstance(value, Unknown):
                self._remember(f"dataset.{key}", value)
            elif value is not None:
                given[key] = value
            if any(other.get(key) != value for other in datasets[1:]):
                text = tr("{key} differs between the datasets: the first one's, {value}, is taken.")
                self._note(text, key=key, value=value)
        if first.get("pack_to_max_length") and not first.get("use_varlen_attn"):
            self._note(
                tr(
                    "In XTuner, rows packed together can see one another (use_varlen_attn = False); here "
                    "they never do."
                )
            )
        self._map_functions(datasets)
        return {**given, **self._template(first)}

    def _paths(self, dataset: Mapping[str, Any]) -> list[str]:
        """The files one dataset is read from."""
        source = dataset.get("dataset")
        source = source if isinstance(source, dict) else {}
        kind, files = source.get("path"), source.get("data_files")
        for name, value in (("path", kind), ("data_files", files)):
            if isinstance(value, Unknown):
                self._remember(f"dataset.{name}", value)
                return []
        if isinstance(files, dict):
            files = [f for one in files.values() for f in (one if isinstance(one, list) else [one])]
        files = [files] if isinstance(files, str) else list(files or [])
        if kind in _FILE_KINDS and files:
            return [str(file) for file in files]
        if isinstance(kind, str):
            self._note(
                tr(
                    "{name} is a data set on the hub. Download it and write the file's name in "
                    "data.data_path (.jsonl, .json, .csv or .parquet)."
                ),
                name=kind,
            )
            return [kind]
        self._note(tr("Of a data set it is not plain which files it reads: write data.data_path."))
        return []

    def _map_functions(self, datasets: Iterable[Mapping[str, Any]]) -> None:
        names = {_last(one.get("dataset_map_fn")) for one in datasets}
        for name in sorted(filter(None, names)):
            self._note(
                tr(
                    "dataset_map_fn {name} is not run: rows of every known form are recognised by their "
                    "keys. whoamai data check shows whether yours are."
                ),
                name=name,
            )

    def _template(self, dataset: Mapping[str, Any]) -> dict[str, Any]:
        mapping = dataset.get("template_map_fn")
        template = mapping.get("template") if isinstance(mapping, dict) else None
        name = _last(template)
        if name in TEMPLATE_NAMES:
            self._note(
                tr(
                    "Rows are written as the model is asked afterwards; data.encoding: xtuner writes "
                    "them token by token as XTuner does."
                )
            )
            return {"prompt_template": name}
        self._note(
            tr("The chat template {name} has no counterpart: the model's own is used."),
            name=name or tr("written in the file itself"),
        )
        return {}

    # ---- training ----

    def _epochs(self) -> int | None:
        epochs = self._value("train_cfg", "max_epochs")
        if epochs is None:
            self._note(tr("The length of training is not given in epochs: write train.max_epochs."))
        return _plain(epochs)

    def _accumulation(self) -> int:
        """Optimizer steps are counted here; XTuner counts iterations, so many of which make one."""
        counts = self._value("optim_wrapper", "accumulative_counts")
        if counts is None:
            counts = self._value("strategy", "gradient_accumulation_steps")
        counts = counts if isinstance(counts, int) and counts > 0 else 1
        parallel = self._value("sequence_parallel_size")
        if isinstance(parallel, int) and parallel > 1:
            self._note(
                tr(
                    "sequence_parallel_size {n} has no counterpart: one device takes a whole row. "
                    "accumulative_counts was divided by it, as XTuner multiplies it."
                ),
                n=parallel,
            )
            counts = max(1, counts // parallel)
        return counts

    def _train(self, epochs: int | None) -> dict[str, Any]:
        optimizer = _last(self._value("optim_wrapper", "optimizer", "type"))
        if optimizer not in ("AdamW", None):
            self._note(
                tr("The optimizer {name} has no counterpart: AdamW is used."), name=optimizer
            )
        given = self._given(
            batch_size=("train_dataloader", "batch_size"),
            lr=("optim_wrapper", "optimizer", "lr"),
            betas=("optim_wrapper", "optimizer", "betas"),
            weight_decay=("optim_wrapper", "optimizer", "weight_decay"),
            max_norm=("optim_wrapper", "clip_grad", "max_norm"),
            seed=("randomness", "seed"),
        )
        if epochs is not None:
            given["max_epochs"] = epochs
        if "max_norm" not in given and (clip := self._value("strategy", "gradient_clipping")):
            given["max_norm"] = clip
        if "max_norm" not in given:
            self._note(
                tr("Gradients are not clipped in the file; here they are, at train.max_norm.")
            )
        self._note(
            tr(
                "batch_size {n} is that of one device in XTuner, and that of all together here: with "
                "several GPUs, multiply it by their number."
            ),
            n=given.get("batch_size", 1),
        )
        return {**given, "warmup_ratio": self._warmup(epochs)}

    def _warmup(self, epochs: int | None) -> float:
        schedulers = self._value("param_scheduler")
        schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
        ratio = 0.0
        for number, one in enumerate(schedulers):
            if not isinstance(one, dict):
                continue
            kind = _last(one.get("type"))
            if kind == "LinearLR":
                end = self._value("param_scheduler", number, "end")
                if one.get("by_epoch", True) and epochs and isinstance(end, int | float):
                    ratio = round(end / epochs, 8)
                elif not isinstance(one.get("end"), Unknown):
                    self._note(
                        tr(
                            "The warmup is not given in epochs: write train.warmup_ratio (0 is there)."
                        )
                    )
            elif kind != "CosineAnnealingLR":
                self._note(
                    tr("The schedule {name} has no counterpart: the rate falls as half a cosine."),
                    name=kind,
                )
            elif one.get("eta_min"):
                self._note(
                    tr("The rate falls to 0 here, and to eta_min {value} in the file."),
                    value=one["eta_min"],
                )
        return ratio

    # ---- hooks ----

    def _checkpoint(self, steps: int) -> dict[str, Any]:
        hook = ("default_hooks", "checkpoint")
        given = self._given(save_total_limit=(*hook, "max_keep_ckpts"))
        interval = self._value(*hook, "interval")
        if interval is None:
            return given
        if self._value(*hook, "by_epoch") is not False:
            self._note(
                tr(
                    "Checkpoints are given in epochs there, and in optimizer steps here: write "
                    "checkpoint.save_steps."
                )
            )
            return given
        return {**given, "save_steps": self._in_steps("save_steps", interval, steps)}

    def _in_steps(self, name: str, iterations: Any, steps: int) -> Any:
        iterations = _plain(iterations)
        if steps == 1 or not isinstance(iterations, int):
            return iterations
        found = max(1, -(-iterations // steps))
        self._note(
            tr("{name}: {iterations} iterations of XTuner's are {steps} optimizer steps."),
            name=name,
            iterations=iterations,
            steps=found,
        )
        return found

    def _evaluation(self, steps: int) -> dict[str, Any]:
        hooks = self._value("custom_hooks")
        hooks = hooks if isinstance(hooks, list) else []
        given: dict[str, Any] = {}
        for number, hook in enumerate(hooks):
            name = _last(hook.get("type")) if isinstance(hook, dict) else str(hook)
            if name == "EvaluateChatHook":
                given = self._asking(("custom_hooks", number), steps)
            elif name not in _NO_MATTER:
                self._note(tr("The hook {name} has no counterpart."), name=name)
        return given

    def _asking(self, hook: tuple[str | int, ...], steps: int) -> dict[str, Any]:
        given = self._given(max_new_tokens=(*hook, "max_new_tokens"))
        if (every := self._value(*hook, "every_n_iters")) is not None:
            given["evaluation_freq"] = self._in_steps("evaluation_freq", every, steps)
        inputs = self._value(*hook, "evaluation_inputs")
        given["evaluation_inputs"] = [inputs] if isinstance(inputs, str) else list(inputs or [])
        system = self._value(*hook, "system")
        if _is_name(system):
            self._note(
                tr(
                    "The system prompt {name} is a text of XTuner's own: questions are asked without it. "
                    "It can be written in evaluation.system."
                ),
                name=system,
            )
        elif system:
            given["system"] = system
        return given

    def _log(self) -> dict[str, Any]:
        given = self._given(interval=("default_hooks", "logger", "interval"))
        backends = self._value("visualizer", "vis_backends")
        names = [_last(one.get("type")) for one in backends or [] if isinstance(one, dict)]
        known = [_TRACKERS[name] for name in names if name in _TRACKERS]
        for name in names:
            if name not in _TRACKERS and name != "LocalVisBackend":
                self._note(tr("The log {name} has no counterpart."), name=name)
        return {**given, "trackers": known}

    def _rest(self) -> None:
        """What else changes a run."""
        if self.parsed.values.get("load_from"):
            self._no_counterpart("load_from")
        if self.parsed.values.get("resume"):
            self._note(tr("resume: say --resume behind whoamai train."))
        for key in ("peft_model", "max_position_embeddings", "tokenizer"):
            if (self._value("model") or {}).get(key):
                self._no_counterpart(f"model.{key}")
        if self.parsed.values.get("strategy"):
            self._no_counterpart("strategy")

    def _no_counterpart(self, name: str) -> None:
        self._note(tr("{name} has no counterpart and was left out."), name=name)


def _last(value: Any) -> str | None:
    """ "LoraConfig" of peft.LoraConfig, as a thing imported or as text."""
    return value.rpartition(".")[2] if isinstance(value, str) else None


def _is_name(value: Any) -> bool:
    """A thing of XTuner's by its name: imported, or as text in a checkpoint's config."""
    return isinstance(value, Dotted) or (isinstance(value, str) and value.startswith("xtuner."))


def _plain(value: Any) -> Any:
    """500.0 as 500, where XTuner's files write 5e2."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
