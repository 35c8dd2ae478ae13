"""The whole job: a model goes in, the same model under a new name comes out, with proof.

Read `rename` from top to bottom; everything it calls is one step of the story.
"""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from whoamai import __version__
from whoamai.config import LoraSettings
from whoamai.data.identity import (
    LANGUAGES,
    Identity,
    IdentityQuestion,
    ask,
    check_languages,
    load_language,
    questions,
)
from whoamai.data.lint import check_kinds
from whoamai.data.replay import replay_prompts
from whoamai.data.steps import StepSize
from whoamai.data.templates import OWN, ChatTemplate, mismatch, read_card, write_card
from whoamai.engine.precision import precision_for
from whoamai.engine.probe import probe
from whoamai.engine.schedule import Schedule, make_schedule
from whoamai.engine.trainer import StepReport, Trainer, TrainSettings
from whoamai.errors import SettingError
from whoamai.evaluate.identity import (
    IdentityGrader,
    SelfDescription,
    Share,
    describe_self,
    score_identity,
)
from whoamai.evaluate.report import AnswerPair, Goals, Report
from whoamai.evaluate.retention import general_questions, score_retention
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, JsonlFile, Note, Progress, Result
from whoamai.messages import tr
from whoamai.model.fingerprint import BaseCard, base_fingerprint, write_base_card
from whoamai.model.load import BUNDLED, ChatModel, load_chat_model
from whoamai.model.lora import add_lora, added_up, merge, save_adapter
from whoamai.recipes.output import check_space, complete_folder, folder_name, problems_with_folder
from whoamai.recipes.rename_plan import RenamePlan, plan_renaming, with_usual_answers
from whoamai.recipes.rename_rows import (
    DataRequest,
    data_systems,
    encoded,
    identity_rows,
    own_answers,
    read_data,
    tell_about_template,
)
from whoamai.recipes.train_plan import tell_probe
from whoamai.samples import Conversation, Message, Sample

_ROWS_PER_STEP = 16
_WARMUP_RATIO, _BETAS = 0.1, (0.9, 0.99)
# Replayed answers per row that teaches the name, alone and beside the user's data; more than the most
# only makes the job longer.
_REPLAY, _REPLAY_BESIDE_DATA, _MOST_REPLAY = 0.8, 1.0, 10
# Of the replayed answers: how many are to what is nearest to identity questions, and how many are given
# under the system prompts of the user's data.
_REPLAY_NEAR, _REPLAY_UNDER_DATA = 0.3, 0.2


@dataclass(frozen=True, slots=True)
class RenameRequest:
    """What the user asked for. `None` means: decide by the model."""

    identity: Identity
    model: str = BUNDLED
    data: tuple[str | Path, ...] = ()
    allow: tuple[str, ...] = ()
    old_names: tuple[str, ...] = ()
    languages: tuple[str, ...] = LANGUAGES
    out: Path | None = None
    overwrite: bool = False
    merge: bool = False
    seed: int = 0
    rows: int | None = None
    replay_ratio: float | None = None
    replay_near: float = _REPLAY_NEAR
    replay_under_data: float = _REPLAY_UNDER_DATA
    lr: float | None = None
    lora_r: int = 32
    lora_alpha: int = 64
    device: str = "auto"
    dtype: str = "auto"
    goals: Goals = field(default_factory=Goals)

    @property
    def data_request(self) -> DataRequest:
        return DataRequest(self.data, self.allow, self.old_names, self.languages, self.seed)

    @property
    def out_folder(self) -> Path:
        return self.out or Path("work_dirs") / folder_name(self.identity.name)


@dataclass(frozen=True, slots=True)
class Renamed:
    """Where everything is, and the report."""

    report: Report
    adapter: Path
    merged: Path | None
    report_file: Path


def rename(request: RenameRequest, events: Events) -> Renamed:
    """Do the job. Raises a WhoamaiError for what the user can mend; then nothing is left behind."""
    _check_request(request)
    data = read_data(request.data_request, request.identity, events) if request.data else []
    with (
        complete_folder(request.out_folder) as folder,
        JsonlFile(folder / "events.jsonl") as journal,
    ):
        report = _learn(request, data, folder, events.also(journal))
        report.write(folder / "report.json")
    out = request.out_folder
    merged = out / "merged" if request.merge else None
    return Renamed(report, out / "adapter", merged, out / "report.json")


def _learn(
    request: RenameRequest, data: list[Conversation], folder: Path, events: Events
) -> Report:
    """The story: ask, write down, learn, ask again, save."""
    start = time.monotonic()
    with events.stage("load", tr("Loading {model}").format(model=request.model)):
        chat = load_chat_model(request.model, device=request.device, dtype=request.dtype)
        talk = Talk(chat, events)
        tell_about_template(talk.template, events)
        _check_space(request, chat)
        _tell_plan_ahead(request, talk, data, chat, events)

    with events.stage("before", tr("Asking who it is now")):
        old = _who_it_is(talk, request)
        asked = questions(
            request.identity,
            "test",
            languages=request.languages,
            seed=request.seed,
            old_names=old.names,
            extra_systems=data_systems(data),
        )
        general = general_questions(request.languages)
        identity_before = talk.answers([q.conversation for q in asked], "before")
        general_before = talk.answers([q.conversation for q in general], "before")

    with events.stage("replay", tr("Writing down what it must not forget")):
        conversations = [*_identity_rows(request, talk, old, len(data)), *data]
        replay = own_answers(talk, _replay_prompts(request, len(conversations), data))
        samples = encoded(talk.template, [*conversations, *replay], chat, events)

    with events.stage("train", tr("Learning the new name")):
        schedule = schedule_for(request, chat, samples)
        plan = _plan(request, talk.template, chat, samples, schedule, exact=True)
        tuned = add_lora(
            chat.model, r=request.lora_r, alpha=request.lora_alpha, dropout=0.0, seed=request.seed
        )
        reports = _train(tuned, samples, schedule, plan, chat, events)

    with events.stage("after", tr("Asking again")), added_up(tuned):
        identity_after = talk.answers([q.conversation for q in asked], "after")
        general_after = talk.answers([q.conversation for q in general], "after")

    with events.stage("save", tr("Saving")):
        save_adapter(tuned, folder / "adapter", chat.path)
        write_card(folder / "adapter", talk.template.card)
        base = BaseCard(base_fingerprint(chat.path), chat.label, "none")
        write_base_card(folder / "adapter", base)
        merged_recall = None
        if request.merge:
            _save_merged(tuned, chat, talk.template, folder / "merged")
            merged_recall = _check_merged(folder, request, asked, events)

    grader = IdentityGrader(request.identity, (*old.names, *old.makers))
    report = Report(
        model=chat.label,
        identity=request.identity,
        old_names=(*old.names, *old.makers),
        goals=request.goals,
        before=score_identity(asked, [grader.grade(a) for a in identity_before]),
        after=score_identity(asked, [grader.grade(a) for a in identity_after]),
        retention=score_retention(general, general_before, general_after),
        answers=_pairs(asked, identity_before, identity_after, grader),
        merged_recall=merged_recall,
        details={
            "rows": {"identity": len(conversations), "replay": len(replay)},
            "training": _training_details(schedule, reports, request),
            "seconds": round(time.monotonic() - start, 1),
            "seed": request.seed,
            "versions": _versions(),
        },
    )
    events.emit(Result("scores", report.as_json()["scores"]))
    return report


def schedule_for(request: RenameRequest, chat: ChatModel, samples: Sequence[Sample]) -> Schedule:
    """One pass over the rows in steps of 16, a tenth of them to warm up."""
    steps = -(-len(samples) // _ROWS_PER_STEP)
    return make_schedule(
        [len(sample.input_ids) for sample in samples],
        StepSize(rows=_ROWS_PER_STEP),
        epochs=1,
        seed=request.seed,
        lr=learning_rate(chat.model, steps) if request.lr is None else request.lr,
        warmup_ratio=_WARMUP_RATIO,
    )


def _plan(
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
        rows_per_step=_ROWS_PER_STEP,
        lora=LoraSettings(r=request.lora_r, lora_alpha=request.lora_alpha, lora_dropout=0.0),
        betas=_BETAS,
        exact=exact,
    )


def _tell_plan_ahead(
    request: RenameRequest,
    talk: Talk,
    data: Sequence[Conversation],
    chat: ChatModel,
    events: Events,
) -> None:
    """What is about to happen, before anything is asked: with answers of a usual length."""
    rows = [*_identity_rows(request, talk, SelfDescription((), ()), len(data)), *data]
    replay = with_usual_answers(_replay_prompts(request, len(rows), data))
    samples = encoded(talk.template, [*rows, *replay], chat, Events())
    schedule = schedule_for(request, chat, samples)
    plan = _plan(request, talk.template, chat, samples, schedule, exact=False)
    events.emit(Result("plan", plan.explanation))


def _train(
    tuned: Any,
    samples: Sequence[Sample],
    schedule: Schedule,
    plan: RenamePlan,
    chat: ChatModel,
    events: Events,
) -> list[StepReport]:
    """Every step of the schedule, after one was tried out."""
    if plan.choice.gradient_checkpointing:
        tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    settings = TrainSettings(betas=_BETAS, tokens_per_pass=plan.choice.tokens_per_pass)
    precision = precision_for(plan.choice.dtype, chat.device)
    trainer = Trainer(tuned, samples, schedule, settings, precision=precision, events=events)
    tell_probe(probe(trainer), schedule, samples, plan.choice, events)
    reports, tokens, seconds = [], 0, 0.0
    for report in trainer.steps():
        reports.append(report)
        tokens += report.logical_tokens
        seconds += report.seconds
        values = {
            "loss": report.loss,
            "lr": report.lr,
            "grad_norm": report.grad_norm,
            "tokens_per_s": tokens / seconds,
        }
        events.emit(Progress("train", report.done, report.total, values))
    return reports


def learning_rate(model: Any, steps: int) -> float:
    """2e-4 for a hidden size of 4,096, more for narrower models (∝ 1/width), at most 2e-3.

    A run of more than 120 steps gets less, or it forgets more than it need:

        lr = min(2e-3, 2e-4 · 4096 / width) · min(1, 120 / steps) ^ 0.4

    Both are rules of thumb; benchmarks/NOTES.md has the runs they come from.
    """
    return min(2e-3, 2e-4 * 4096 / model.config.hidden_size) * min(1, 120 / steps) ** 0.4


# ---- what it is called now -----------------------------------------------------------------------


def _who_it_is(talk: Talk, request: RenameRequest) -> SelfDescription:
    """What the model calls itself and its maker now: asked, not assumed; the user's --old first."""
    rng = random.Random(0)
    asked = []
    for code in request.languages:
        language = load_language(code)
        for category in ("who", "name", "maker", "intro"):
            for family in language.of("train", category)[:6]:
                text, _ = ask(family, request.identity, (), rng)
                asked.append(Conversation((Message("user", text),)))
    found = describe_self(talk.answers(asked, "before"))
    new = (request.identity.name, request.identity.author)
    return SelfDescription(
        tuple(n for n in dict.fromkeys((*request.old_names, *found.names)) if n not in new),
        tuple(n for n in found.makers if n not in new),
    )


# ---- what to train on ----------------------------------------------------------------------------


def _identity_rows(
    request: RenameRequest, talk: Talk, old: SelfDescription, beside: int
) -> list[Conversation]:
    return identity_rows(
        request.identity,
        old,
        languages=request.languages,
        rows=request.rows,
        beside=beside,
        seed=request.seed,
        default_system=talk.template.default_system,
    )


def _replay_prompts(
    request: RenameRequest, n_rows: int, data: Sequence[Conversation]
) -> list[Conversation]:
    ratio = request.replay_ratio
    if ratio is None:
        ratio = _REPLAY_BESIDE_DATA if data else _REPLAY
    return replay_prompts(
        round(ratio * n_rows),
        languages=request.languages,
        seed=request.seed,
        near_share=request.replay_near,
        systems=data_systems(data),
        systems_share=request.replay_under_data,
    )


# ---- what is written -----------------------------------------------------------------------------


def _check_request(request: RenameRequest) -> None:
    """Everything that can be refused before any work is done, told together."""
    problems = problems_with_folder(request.out_folder, overwrite=request.overwrite)
    for verify, value in ((check_kinds, request.allow), (check_languages, request.languages)):
        try:
            verify(value)
        except SettingError as error:
            problems.insert(0, str(error))
    if request.lr is not None and not 0 < request.lr < 1:
        text = tr("--lr {lr:g} is no learning rate. Try one between 1e-5 and 1e-2.")
        problems.append(text.format(lr=request.lr))
    if request.replay_ratio is not None and not 0 <= request.replay_ratio <= _MOST_REPLAY:
        text = tr("--replay {ratio:g} must be between 0 and {most}.")
        problems.append(text.format(ratio=request.replay_ratio, most=_MOST_REPLAY))
    if not 0 <= request.seed < 2**32:
        problems.append(tr("--seed must be between 0 and 4294967295."))
    if any(not name.strip() for name in request.old_names):
        problems.append(tr("--old is empty. Give the name to look for, or leave it out."))
    if problems:
        raise SettingError("\n".join(problems))


def _check_space(request: RenameRequest, chat: ChatModel) -> None:
    """Refuse before training if the results will not fit."""
    linear = [m for m in chat.model.modules() if isinstance(m, torch.nn.Linear)]
    needed = sum(4 * request.lora_r * (m.in_features + m.out_features) for m in linear)
    if request.merge:
        needed += sum(p.numel() for p in chat.model.parameters()) * _base_dtype(chat).itemsize
    check_space(request.out_folder, needed)


def _base_dtype(chat: ChatModel) -> torch.dtype:
    """The precision the base's weights are stored in; merged weights are written in the same."""
    from transformers import PretrainedConfig

    stored, _ = PretrainedConfig.get_config_dict(chat.path)
    name = stored.get("dtype") or stored.get("torch_dtype")
    return getattr(torch, name) if isinstance(name, str) else chat.model.dtype


def _save_merged(tuned: Any, chat: ChatModel, template: ChatTemplate, folder: Path) -> None:
    """The merged model, with the template it was trained with where it had none of its own."""
    model = merge(tuned, _base_dtype(chat))
    model.save_pretrained(str(folder))
    if template.name != OWN:
        chat.tokenizer.chat_template = template.text
    chat.tokenizer.save_pretrained(str(folder))


def _check_merged(
    folder: Path, request: RenameRequest, asked: Sequence[IdentityQuestion], events: Events
) -> Share:
    """Load what was written and ask it again: recall without a system prompt."""
    chat = load_chat_model(str(folder / "merged"), device=request.device, dtype=request.dtype)
    talk = Talk(chat, events)
    trained_with = read_card(folder / "adapter")
    if trained_with and (different := mismatch(trained_with, talk.template.card)):
        events.emit(Note(different, "warning"))
    plain = [q.conversation for q in asked if q.context == "none"]
    grader = IdentityGrader(request.identity, ())
    grades = [grader.grade(a) for a in talk.answers(plain, "save")]
    return Share(sum(g.recalled for g in grades), len(grades))


def _pairs(
    asked: Sequence[IdentityQuestion],
    before: Sequence[str],
    after: Sequence[str],
    grader: IdentityGrader,
) -> list[AnswerPair]:
    pairs = []
    for q, old, new in zip(asked, before, after, strict=True):
        grade, messages = grader.grade(new), q.conversation.messages
        pairs.append(
            AnswerPair(
                language=q.language,
                category=q.category,
                context=q.context,
                system=messages[0].text if messages[0].role == "system" else None,
                question=messages[-1].text,
                before=old,
                after=new,
                recalled=grade.recalled,
                leaks=grade.leaks,
            )
        )
    return pairs


def _training_details(
    schedule: Schedule, reports: Sequence[StepReport], request: RenameRequest
) -> dict[str, Any]:
    return {
        "lr": schedule.peak,
        "rows_per_step": _ROWS_PER_STEP,
        "warmup": schedule.warmup,
        "betas": _BETAS,
        "lora_r": request.lora_r,
        "lora_alpha": request.lora_alpha,
        "steps": len(reports),
        "tokens": sum(r.logical_tokens for r in reports),
        "computed_tokens": sum(r.computed_tokens for r in reports),
        "targets": sum(r.targets for r in reports),
        "seconds": round(sum(r.seconds for r in reports), 1),
        "losses": [round(r.loss, 4) for r in reports],
        "learning_rates": [r.lr for r in reports],
    }


def _versions() -> dict[str, str]:
    import peft
    import transformers

    return {
        "whoamai": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
