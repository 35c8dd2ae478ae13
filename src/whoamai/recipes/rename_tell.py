"""What a renaming tells on the way and writes down at the end."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import torch

from whoamai import __version__
from whoamai.config import LoraSettings
from whoamai.data.templates import ChatTemplate
from whoamai.engine.schedule import Schedule
from whoamai.evaluate.identity import SelfDescription
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Result
from whoamai.model.load import ChatModel
from whoamai.recipes.rename_learning import Learned
from whoamai.recipes.rename_plan import RenamePlan, plan_renaming, with_usual_answers
from whoamai.recipes.rename_request import BETAS, ROWS_PER_STEP, RenameRequest, schedule_for
from whoamai.recipes.rename_rows import encoded, identity_rows, replay_for
from whoamai.samples import Conversation, Sample


def plan_of(
    request: RenameRequest,
    template: ChatTemplate,
    chat: ChatModel,
    samples: Sequence[Sample],
    schedule: Schedule,
    *,
    exact: bool,
) -> RenamePlan:
    return plan_renaming(
        chat,
        template,
        samples,
        schedule,
        name=request.identity.name,
        source=request.model,
        out=request.out_folder,
        device=request.device,
        dtype=request.dtype,
        rows_per_step=ROWS_PER_STEP,
        lora=LoraSettings(r=request.lora_r, lora_alpha=request.lora_alpha, lora_dropout=0.0),
        betas=BETAS,
        exact=exact,
    )


def tell_plan_ahead(
    request: RenameRequest,
    talk: Talk,
    data: Sequence[Conversation],
    chat: ChatModel,
    events: Events,
) -> None:
    """What is about to happen, before anything is asked: with answers of a usual length."""
    generated = identity_rows(
        request.identity,
        SelfDescription((), ()),
        languages=request.languages,
        rows=request.rows,
        beside=len(data),
        seed=request.seed,
        default_system=talk.template.default_system,
    )
    rows = [*generated, *data]
    replay = with_usual_answers(replay_for(request, len(rows), data))
    samples = encoded(talk.template, rows, replay, chat, Events())
    schedule = schedule_for(request, chat.model, samples)
    plan = plan_of(request, talk.template, chat, samples, schedule, exact=False)
    events.emit(Result("plan", plan.explanation))


def training_details(
    request: RenameRequest, schedule: Schedule, learned: Learned
) -> dict[str, Any]:
    return {
        "lr": schedule.peak,
        "rows_per_step": ROWS_PER_STEP,
        "warmup": schedule.warmup,
        "betas": BETAS,
        "lora_r": request.lora_r,
        "lora_alpha": request.lora_alpha,
        "kl_weight": request.kl_weight,
        "steps": len(learned.losses),
        "tokens": learned.tokens,
        "computed_tokens": learned.computed_tokens,
        "targets": learned.targets,
        "seconds": round(learned.seconds, 1),
    }


def versions() -> dict[str, str]:
    import peft
    import transformers

    return {
        "whoamai": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
