"""An XTuner config of the QLoRA, LoRA or full SFT kind as one of ours, and what has no counterpart.

Values are taken where XTuner's runner takes them (model.lora.r, optim_wrapper.optimizer.lr, …), not from
the variables at the file's top, which a user may have left behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whoamai.config import RunConfig
from whoamai.config.names import sections as all_sections
from whoamai.config.problems import Place, Problems
from whoamai.config.values import Given, check_values
from whoamai.config.yaml_lines import Entries, Items, Node, Scalar
from whoamai.convert.python_values import Unknown
from whoamai.convert.xtuner_model import ModelAndData
from whoamai.convert.xtuner_python import read_python_config
from whoamai.convert.xtuner_values import is_name, last, plain
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
_TRACKERS = {
    "TensorboardVisBackend": "tensorboard",
    "WandbVisBackend": "wandb",
    "SwanlabVisBackend": "swanlab",
}


def config_from_xtuner(path: Path) -> tuple[RunConfig, list[str]]:
    """Our config for the one at `path`, and what has no counterpart or is otherwise here, in sentences.

    Raises SettingError where it is no XTuner config of this kind, or a setting that is needed could
    not be worked out.
    """
    parsed = read_python_config(path)
    conversion = _Conversion(path, parsed)
    return conversion.config(), conversion.notes


@dataclass(slots=True)
class _Conversion(ModelAndData):
    """All sections together."""

    def config(self) -> RunConfig:
        self._check_kind()
        epochs = self._epochs()
        steps = self._accumulation()
        sections = {
            "model": self.model(),
            "data": self.data(),
            "lora": self.lora(),
            "train": {**self._train(epochs), "accumulative_counts": steps},
            "checkpoint": self._checkpoint(steps),
            "evaluation": self._evaluation(steps),
            "log": self._log(),
            "work_dir": self.value("work_dir"),
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
        problems = Problems(str(self.path))
        config = check_values(_given(sections, Place(str(self.path))), problems)
        if config is None:
            lines = [f"{one.key}: {one.what} {one.cure}".rstrip() for one in problems.found]
            text = tr("{path} has values that cannot be used here:")
            raise SettingError("\n".join([text.format(path=self.path), *lines]))
        return config

    def _check_kind(self) -> None:
        if "_base_" in self.parsed.values:
            text = tr(
                "{path} builds on other files (_base_), which are not read. Put their settings into it."
            )
            raise SettingError(text.format(path=self.path))
        model = self.parsed.values.get("model")
        kind = last(model.get("type")) if isinstance(model, dict) else None
        if kind != _SFT:
            text = tr(
                "{path} is no config of the kind that is converted: its model is {kind}, where {sft} "
                "(QLoRA, LoRA or full fine-tuning of a chat model) is expected."
            )
            shown = kind or tr("not there")
            raise SettingError(text.format(path=self.path, kind=shown, sft=_SFT))

    # ---- training ----

    def _epochs(self) -> int | None:
        epochs = self.value("train_cfg", "max_epochs")
        if epochs is None:
            self.note(tr("The length of training is not given in epochs: write train.max_epochs."))
        return plain(epochs)

    def _accumulation(self) -> int:
        """Optimizer steps are counted here; XTuner counts iterations, so many of which make one."""
        counts = self.value("optim_wrapper", "accumulative_counts")
        if counts is None:
            counts = self.value("strategy", "gradient_accumulation_steps")
        counts = counts if isinstance(counts, int) and counts > 0 else 1
        parallel = self.value("sequence_parallel_size")
        if isinstance(parallel, int) and parallel > 1:
            self.note(
                tr(
                    "sequence_parallel_size {n} has no counterpart: one device takes a whole row. "
                    "accumulative_counts was divided by it, as XTuner multiplies it."
                ),
                n=parallel,
            )
            counts = max(1, counts // parallel)
        return counts

    def _train(self, epochs: int | None) -> dict[str, Any]:
        optimizer = last(self.value("optim_wrapper", "optimizer", "type"))
        if optimizer not in ("AdamW", None):
            self.note(tr("The optimizer {name} has no counterpart: AdamW is used."), name=optimizer)
        given = self.given(
            batch_size=("train_dataloader", "batch_size"),
            lr=("optim_wrapper", "optimizer", "lr"),
            betas=("optim_wrapper", "optimizer", "betas"),
            weight_decay=("optim_wrapper", "optimizer", "weight_decay"),
            max_norm=("optim_wrapper", "clip_grad", "max_norm"),
            seed=("randomness", "seed"),
        )
        if epochs is not None:
            given["max_epochs"] = epochs
        if "max_norm" not in given and (clip := self.value("strategy", "gradient_clipping")):
            given["max_norm"] = clip
        if "max_norm" not in given:
            self.note(
                tr("Gradients are not clipped in the file; here they are, at train.max_norm.")
            )
        self.note(
            tr(
                "batch_size {n} is that of one device in XTuner, and that of all together here: with "
                "several GPUs, multiply it by their number."
            ),
            n=given.get("batch_size", 1),
        )
        return {**given, "warmup_ratio": self._warmup(epochs)}

    def _warmup(self, epochs: int | None) -> float:
        schedulers = self.value("param_scheduler")
        schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
        ratio = 0.0
        for number, one in enumerate(schedulers):
            if not isinstance(one, dict):
                continue
            kind = last(one.get("type"))
            if kind == "LinearLR":
                end = self.value("param_scheduler", number, "end")
                if one.get("by_epoch", True) and epochs and isinstance(end, int | float):
                    ratio = round(end / epochs, 8)
                elif not isinstance(one.get("end"), Unknown):
                    self.note(
                        tr(
                            "The warmup is not given in epochs: write train.warmup_ratio (0 is there)."
                        )
                    )
            elif kind != "CosineAnnealingLR":
                self.note(
                    tr("The schedule {name} has no counterpart: the rate falls as half a cosine."),
                    name=kind,
                )
            elif one.get("eta_min"):
                self.note(
                    tr("The rate falls to 0 here, and to eta_min {value} in the file."),
                    value=one["eta_min"],
                )
        return ratio

    # ---- hooks ----

    def _checkpoint(self, steps: int) -> dict[str, Any]:
        hook = ("default_hooks", "checkpoint")
        given = self.given(save_total_limit=(*hook, "max_keep_ckpts"))
        interval = self.value(*hook, "interval")
        if interval is None:
            return given
        if self.value(*hook, "by_epoch") is not False:
            self.note(
                tr(
                    "Checkpoints are given in epochs there, and in optimizer steps here: write "
                    "checkpoint.save_steps."
                )
            )
            return given
        return {**given, "save_steps": self._in_steps("save_steps", interval, steps)}

    def _in_steps(self, name: str, iterations: Any, steps: int) -> Any:
        iterations = plain(iterations)
        if steps == 1 or not isinstance(iterations, int):
            return iterations
        found = max(1, -(-iterations // steps))
        self.note(
            tr("{name}: {iterations} iterations of XTuner's are {steps} optimizer steps."),
            name=name,
            iterations=iterations,
            steps=found,
        )
        return found

    def _evaluation(self, steps: int) -> dict[str, Any]:
        hooks = self.value("custom_hooks")
        hooks = hooks if isinstance(hooks, list) else []
        given: dict[str, Any] = {}
        for number, hook in enumerate(hooks):
            name = last(hook.get("type")) if isinstance(hook, dict) else str(hook)
            if name == "EvaluateChatHook":
                given = self._asking(("custom_hooks", number), steps)
            elif name not in _NO_MATTER:
                self.note(tr("The hook {name} has no counterpart."), name=name)
        return given

    def _asking(self, hook: tuple[str | int, ...], steps: int) -> dict[str, Any]:
        given = self.given(max_new_tokens=(*hook, "max_new_tokens"))
        if (every := self.value(*hook, "every_n_iters")) is not None:
            given["evaluation_freq"] = self._in_steps("evaluation_freq", every, steps)
        inputs = self.value(*hook, "evaluation_inputs")
        given["evaluation_inputs"] = [inputs] if isinstance(inputs, str) else list(inputs or [])
        system = self.value(*hook, "system")
        if is_name(system):
            self.note(
                tr(
                    "The system prompt {name} is a text of XTuner's own: questions are asked without "
                    "it. It can be written in evaluation.system."
                ),
                name=system,
            )
        elif system:
            given["system"] = system
        return given

    def _log(self) -> dict[str, Any]:
        given = self.given(interval=("default_hooks", "logger", "interval"))
        backends = self.value("visualizer", "vis_backends")
        names = [last(one.get("type")) for one in backends or [] if isinstance(one, dict)]
        known = [_TRACKERS[name] for name in names if name in _TRACKERS]
        for name in names:
            if name not in _TRACKERS and name != "LocalVisBackend":
                self.note(tr("The log {name} has no counterpart."), name=name)
        return {**given, "trackers": known}

    def _rest(self) -> None:
        """What else changes a run."""
        if self.parsed.values.get("load_from"):
            self.no_counterpart("load_from")
        if self.parsed.values.get("resume"):
            self.note(tr("resume: say --resume behind whoamai train."))
        for key in ("peft_model", "max_position_embeddings", "tokenizer"):
            if (self.value("model") or {}).get(key):
                self.no_counterpart(f"model.{key}")
        if self.parsed.values.get("strategy"):
            self.no_counterpart("strategy")


# ---- as the words of a config are judged ---------------------------------------------------------


def _given(sections: Mapping[str, Any], place: Place) -> dict[tuple[str, ...], Given]:
    """Each setting with its value, as config.values judges those of a YAML file."""
    found: dict[tuple[str, ...], Given] = {}
    for name, values in sections.items():
        if name not in all_sections() or values is None:
            found[name,] = Given(_node(values), place)
            continue
        if name == "lora":  # is one without any setting, too
            found[name,] = Given(Entries(0), place)
        found |= {(name, key): Given(_node(value), place) for key, value in values.items()}
    return found


def _node(value: Any) -> Node:
    if isinstance(value, Mapping):
        pairs = [(Scalar(str(key), str(key), True, 0), _node(one)) for key, one in value.items()]
        return Entries(0, pairs)
    if isinstance(value, list | tuple):
        return Items(0, [_node(one) for one in value])
    is_plain = value is None or isinstance(value, bool | int | float)
    shown = value if is_plain else str(value)
    return Scalar(shown, str(value), is_plain, 0)
