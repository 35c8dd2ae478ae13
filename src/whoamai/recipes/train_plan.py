"""What `train` decides before it loads a weight, and checks against one real step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from whoamai.config import RunConfig
from whoamai.config.reading import LoadedConfig
from whoamai.data.templates import ChatTemplate
from whoamai.engine.facts import run_facts
from whoamai.engine.probe import Probe
from whoamai.engine.schedule import Schedule
from whoamai.events import Events, Note, Result
from whoamai.messages import tr
from whoamai.model.load import load_tokenizer
from whoamai.plan.architecture import Architecture, architecture_of
from whoamai.plan.choose import Choice
from whoamai.plan.explain import choice_for, data_report, explanation_of
from whoamai.plan.explanation import Explanation
from whoamai.plan.machine import this_machine
from whoamai.plan.name_probe import NameProbe, name_probe
from whoamai.plan.preflight import preflight, refuse
from whoamai.plan.prepare import Prepared, demands, prepare
from whoamai.samples import Sample

# A measured peak this much above the estimate is worth a word.
_WORTH_A_WORD = 1.15
# What only changes where a run is written or how long it takes is no part of what it is.
_NOT_LEARNED = {
    "model": {"device", "pretrained_model_name_or_path"},
    "data": {"data_path", "old_names"},
    "train": {"tokens_per_pass", "gradient_checkpointing", "share_prefixes", "fast_layers"},
    "checkpoint": ...,
    "evaluation": ...,
    "log": ...,
    "work_dir": ...,
    "allow": ...,
}
# But these say where a run ends that stops once its name is learned, with data.old_names.
_WHEN_TO_STOP = ("stop_when_learned", "evaluation_freq", "goal_recall", "goal_leak")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained on, in which steps and how. `facts`: what the run is, for resuming it.

    name_probe: what is asked by a run that ends once its name is learned; None for others.
    """

    source: str
    architecture: Architecture
    prepared: Prepared
    choice: Choice
    explanation: Explanation
    facts: Mapping[str, Any]
    name_probe: NameProbe | None = None

    @property
    def stored_dtype(self) -> torch.dtype:
        """What the model's weights are stored in, where a whole model is written."""
        return getattr(torch, self.architecture.dtype or self.choice.dtype)


def make_plan(loaded: LoadedConfig, events: Events, *, resume: bool) -> Plan:
    """Read the data and decide. Raises SettingError for what would waste the run, all of it together."""
    config = loaded.config
    source = config.model.pretrained_model_name_or_path
    tokenizer, model_type = load_tokenizer(source)
    prepared = prepare(config, tokenizer, model_type, events)
    architecture = architecture_of(source)
    machine = this_machine(config.model.device, loaded.work_dir)
    choice = choice_for(architecture, config, machine, demands(prepared, config))
    encoding = prepared.encoding
    findings = preflight(
        config,
        work_dir=loaded.work_dir,
        resume=resume,
        encoded=prepared.encoded,
        schedule=prepared.schedule,
        conversations=prepared.conversations,
        template=encoding if isinstance(encoding, ChatTemplate) else None,
        tokenizer=tokenizer,
        architecture=architecture,
        machine=machine,
        choice=choice,
        data_report=data_report(config),
    )
    refuse(findings, config.allow)
    explanation = explanation_of(
        config,
        name=loaded.name,
        path=str(loaded.path) if loaded.path else None,
        work_dir=str(loaded.work_dir),
        arch=architecture,
        machine=machine,
        prepared=prepared,
        exact=True,
        choice=choice,
        findings=findings,
    )
    settings = {**_settings(config), "model.dtype": choice.dtype}
    facts = run_facts(prepared.schedule, prepared.encoded.samples, settings)
    asked = name_probe(config, prepared.conversations)
    return Plan(source, architecture, prepared, choice, explanation, facts, asked)


def _settings(config: RunConfig) -> dict[str, Any]:
    """Every setting that changes what is learned, as "section.key"."""
    flat: dict[str, Any] = {"method": config.method}
    for section, values in config.model_dump(mode="json").items():
        left_out = _NOT_LEARNED.get(section, set())
        if left_out is ... or not isinstance(values, dict):
            continue
        flat |= {f"{section}.{key}": v for key, v in values.items() if key not in left_out}
    if config.evaluation.stop_when_learned:
        flat |= {f"evaluation.{key}": getattr(config.evaluation, key) for key in _WHEN_TO_STOP}
        flat["data.old_names"] = list(config.data.old_names)
    return flat


def tell_plan(plan: Plan, events: Events) -> None:
    """The plan for listeners: the terminal shows it on one screen."""
    events.emit(Result("plan", plan.explanation))


def tell_measured(plan: Plan, measured: Probe, events: Events) -> None:
    """What one real step took, and how long all of them will take at that speed."""
    tell_probe(measured, plan.prepared.schedule, plan.prepared.encoded.samples, plan.choice, events)


def tell_probe(
    measured: Probe, schedule: Schedule, samples: Sequence[Sample], choice: Choice, events: Events
) -> None:
    """The same for a schedule over `samples`."""
    per_token = measured.seconds / max(1, measured.logical_tokens)
    tokens = sum(len(sample.input_ids) for sample in samples) * len(schedule.epoch_ends)
    found = {
        "seconds": round(measured.seconds, 3),
        "tokens": measured.logical_tokens,
        "computed_tokens": measured.computed_tokens,
        "peak_bytes": measured.peak_bytes,
        "expected_bytes": choice.memory.total,
        "expected_seconds": round(per_token * tokens, 1),
    }
    events.emit(Result("probe", found))
    if measured.peak_bytes and measured.peak_bytes > _WORTH_A_WORD * choice.memory.total:
        text = tr(
            "The heaviest step took {peak:.1f} GiB, more than the {expected:.1f} GiB expected."
        )
        peak, expected = measured.peak_bytes / 2**30, choice.memory.total / 2**30
        events.emit(Note(text.format(peak=peak, expected=expected), "warning"))
