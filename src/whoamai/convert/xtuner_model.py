"""The model, the adapter and the data of an XTuner config, as sections of ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whoamai.convert.python_values import Unknown
from whoamai.convert.xtuner_values import XTunerValues, last
from whoamai.data.template_families import TEMPLATE_NAMES
from whoamai.messages import tr

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
_FILE_KINDS = ("json", "csv", "parquet")


@dataclass(slots=True)
class ModelAndData(XTunerValues):
    """What is trained, and on what."""

    def model(self) -> dict[str, Any]:
        given = self.given(
            pretrained_model_name_or_path=("model", "llm", "pretrained_model_name_or_path")
        )
        llm = self.value("model", "llm") or {}
        for key in sorted(set(llm) - _LLM_KNOWN):
            self.no_counterpart(f"model.llm.{key}")
        if llm.get("trust_remote_code"):
            self.note(
                tr("trust_remote_code is not followed: code beside the weights is never run.")
            )
        return {**given, "dtype": self._dtype(), **self._quantization()}

    def _dtype(self) -> str:
        wrapper = last(self.value("optim_wrapper", "type"))
        if wrapper == "AmpOptimWrapper":
            dtype = last(self.value("optim_wrapper", "dtype")) or "float16"
        else:
            dtype = last(self.value("model", "llm", "torch_dtype")) or "auto"
        if dtype == "float16":
            self.note(
                tr(
                    "model.dtype: XTuner computes in float16; auto stands here, which takes bfloat16 "
                    "where the GPU has it. float16 can be written there too."
                )
            )
            return "auto"
        return dtype

    def _quantization(self) -> dict[str, Any]:
        place = ("model", "llm", "quantization_config")
        if not isinstance(self.value(*place), dict):
            return {}
        if self.value(*place, "load_in_8bit"):
            self.note(
                tr("load_in_8bit has no counterpart: model.quantization is none; nf4 is smaller.")
            )
        if not self.value(*place, "load_in_4bit"):
            return {}
        kind = self.value(*place, "bnb_4bit_quant_type")
        if kind != "nf4":
            self.note(tr("4-bit weights of the kind {kind} are held as nf4."), kind=kind or "fp4")
        double = self.value(*place, "bnb_4bit_use_double_quant")
        return {"quantization": "nf4", "double_quantization": bool(double)}

    def lora(self) -> dict[str, Any] | None:
        lora = self.value("model", "lora")
        if lora is None:
            return None
        given = {
            "r": 8,  # LoraConfig's defaults, which are not ours
            "lora_alpha": 8,
            "lora_dropout": 0.0,
            **self.given(
                r=("model", "lora", "r"),
                lora_alpha=("model", "lora", "lora_alpha"),
                lora_dropout=("model", "lora", "lora_dropout"),
            ),
        }
        for key in sorted(set(lora) - _LORA_KNOWN):
            if lora[key]:
                self.no_counterpart(f"model.lora.{key}")
        if (lora.get("bias") or "none") != "none":
            self.no_counterpart("model.lora.bias")
        return {
            **given,
            "variant": self._variant(lora),
            **self._targets(lora.get("target_modules")),
        }

    def _variant(self, lora: Mapping[str, Any]) -> str:
        start = lora.get("init_lora_weights")
        if isinstance(start, str) and start not in ("pissa", "gaussian"):
            self.no_counterpart("model.lora.init_lora_weights")
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
            self.note(
                tr(
                    "target_modules as a pattern ({pattern}) has no counterpart: all-linear is written."
                ),
                pattern=wanted,
            )
        return {"target_modules": "all-linear", "adapt_head": self._is_internlm2()}

    def _is_internlm2(self) -> bool:
        name = self.value("model", "llm", "pretrained_model_name_or_path")
        if not isinstance(name, str):
            return False
        config = Path(name).expanduser() / "config.json"
        if config.is_file():
            try:
                return json.loads(config.read_text("utf-8"))["model_type"] == "internlm2"
            except (OSError, ValueError, KeyError, TypeError):
                pass  # told when the model is loaded
        template = last(self.parsed.values.get("prompt_template"))
        return "internlm2" in name.lower() or template == "internlm2_chat"

    def data(self) -> dict[str, Any]:
        whole = self.value("train_dataloader", "dataset")
        datasets = whole.get("datasets", [whole]) if isinstance(whole, dict) else []
        datasets = [one for one in datasets if isinstance(one, dict)]
        if not datasets:
            self.note(tr("No data is given (train_dataloader.dataset): write data.data_path."))
            return {}
        paths = [path for one in datasets for path in self._paths(one)]
        first = datasets[0]
        given: dict[str, Any] = {"data_path": paths[0] if len(paths) == 1 else paths}
        for key in ("max_length", "pack_to_max_length"):
            value = first.get(key)
            if isinstance(value, Unknown):
                self.remember(f"dataset.{key}", value)
            elif value is not None:
                given[key] = value
            if any(other.get(key) != value for other in datasets[1:]):
                text = tr("{key} differs between the datasets: the first one's, {value}, is taken.")
                self.note(text, key=key, value=value)
        if first.get("pack_to_max_length") and not first.get("use_varlen_attn"):
            self.note(
                tr(
                    "In XTuner, rows packed together can see one another (use_varlen_attn = False); "
                    "here they never do."
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
                self.remember(f"dataset.{name}", value)
                return []
        if isinstance(files, dict):
            files = [f for one in files.values() for f in (one if isinstance(one, list) else [one])]
        files = [files] if isinstance(files, str) else list(files or [])
        if kind in _FILE_KINDS and files:
            return [str(file) for file in files]
        if isinstance(kind, str):
            self.note(
                tr(
                    "{name} is a data set on the hub. Download it and write the file's name in "
                    "data.data_path (.jsonl, .json, .csv or .parquet)."
                ),
                name=kind,
            )
            return [kind]
        self.note(tr("Of a data set it is not plain which files it reads: write data.data_path."))
        return []

    def _map_functions(self, datasets: Iterable[Mapping[str, Any]]) -> None:
        names = {last(one.get("dataset_map_fn")) for one in datasets}
        for name in sorted(filter(None, names)):
            self.note(
                tr(
                    "dataset_map_fn {name} is not run: rows of every known form are recognised by their "
                    "keys. whoamai data check shows whether yours are."
                ),
                name=name,
            )

    def _template(self, dataset: Mapping[str, Any]) -> dict[str, Any]:
        mapping = dataset.get("template_map_fn")
        template = mapping.get("template") if isinstance(mapping, dict) else None
        name = last(template)
        if name in TEMPLATE_NAMES:
            self.note(
                tr(
                    "Rows are written as the model is asked afterwards; data.encoding: xtuner writes "
                    "them token by token as XTuner does."
                )
            )
            return {"prompt_template": name}
        self.note(
            tr("The chat template {name} has no counterpart: the model's own is used."),
            name=name or tr("written in the file itself"),
        )
        return {}
