"""The plan of a renaming, as a config would say it: `rename` shows the same screen as `train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from whoamai.config import DataSettings, LoraSettings, ModelSettings, RunConfig
from whoamai.config import TrainSettings as TrainSection
from whoamai.data.encode import Encoded
from whoamai.data.steps import StepSize
from whoamai.data.templates import ChatTemplate
from whoamai.engine.schedule import Schedule
from whoamai.errors import SettingError
from whoamai.model.load import ChatModel
from whoamai.plan.architecture import of_model
from whoamai.plan.choose import Choice
from whoamai.plan.explain import choice_for, explanation_of
from whoamai.plan.explanation import Explanation
from whoamai.plan.machine import this_machine
from whoamai.plan.prepare import Prepared, demands
from whoamai.samples import Conversation, Message, Sample

# A usual answer of a model to a general prompt, before it has been asked for its own.
_USUAL_ANSWER = "x " * 24


@dataclass(frozen=True, slots=True)
class RenamePlan:
    """What is done how, and the same for people."""

    choice: Choice
    explanation: Explanation


def plan_renaming(
    chat: ChatModel,
    template: ChatTemplate,
    samples: Sequence[Sample],
    schedule: Schedule,
    *,
    name: str,
    source: str,
    out: Path,
    device: str,
    dtype: str,
    rows_per_step: int,
    lora: LoraSettings,
    betas: tuple[float, float],
    exact: bool,
) -> RenamePlan:
    """The plan for these rows; `exact`: are they the ones that will be trained on?

    Raises SettingError where it does not fit the memory whatever is chosen.
    """
    config = RunConfig(
        model=ModelSettings(
            pretrained_model_name_or_path=source,
            device=device,
            dtype=dtype,  # type: ignore[arg-type]
        ),
        data=DataSettings(pack_to_max_length=False),
        lora=lora,
        train=TrainSection(
            max_epochs=1,
            batch_size=rows_per_step,
            lr=schedule.peak,
            betas=betas,
            warmup_ratio=min(0.99, schedule.warmup / schedule.total),
        ),
    )
    encoded = Encoded(tuple(samples), ("",) * len(samples), (), ())
    prepared = Prepared((), encoded, schedule, StepSize(rows=rows_per_step), template)
    machine = this_machine(device, out)
    architecture = of_model(chat.model, label=chat.label, basis="config.json")
    choice = choice_for(architecture, config, machine, demands(prepared, config))
    if not choice.fits:
        raise SettingError(choice.why)
    explanation = explanation_of(
        config,
        name=name,
        path=None,
        work_dir=str(out),
        arch=architecture,
        machine=machine,
        prepared=prepared,
        exact=exact,
        choice=choice,
    )
    return RenamePlan(choice, explanation)


def with_usual_answers(prompts: Sequence[Conversation]) -> list[Conversation]:
    """The prompts as if they had been answered, for a plan before anything is asked."""
    answer = Message("assistant", _USUAL_ANSWER, trained=True)
    return [replace(c, messages=(*c.messages, answer)) for c in prompts]
