"""The whole job: a model goes in, the same model under a new name comes out, with proof.

Read `rename` from top to bottom; everything it calls is one step of the story.
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whoamai.data.general import general_texts
from whoamai.data.identity import Identity, probe_questions
from whoamai.data.templates import OWN, ChatTemplate, mismatch, read_card, write_card
from whoamai.engine.checkpoint import last_checkpoint, read_state
from whoamai.engine.facts import run_facts
from whoamai.engine.precision import precision_for
from whoamai.engine.probe import probe
from whoamai.engine.schedule import Schedule
from whoamai.engine.signals import StopSignals
from whoamai.engine.trainer import Trainer, TrainSettings
from whoamai.evaluate.divergence import Divergence, divergence_of_adapter, text_samples
from whoamai.evaluate.grading import IdentityGrader
from whoamai.evaluate.identity import SelfDescription, Share
from whoamai.evaluate.probing import Prober
from whoamai.evaluate.report import Curve, MergedScores, Report
from whoamai.evaluate.report_html import write_html
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, JsonlFile, Note, Progress, Result
from whoamai.messages import tr
from whoamai.model.fingerprint import BaseCard, base_fingerprint, write_base_card
from whoamai.model.load import ChatModel, load_chat_model
from whoamai.model.lora import add_lora, added_up, merge, save_adapter
from whoamai.recipes.exam import (
    Exam,
    grade_answers,
    make_exam,
    probe_general,
    report_of,
    sample,
    score,
    take,
)
from whoamai.recipes.output import check_space
from whoamai.recipes.rename_job import (
    Known,
    job_facts,
    job_folder,
    read_known,
    refuse_another_renaming,
    unfinished,
    write_known,
)
from whoamai.recipes.rename_learning import Learned, Learning, StoppedLearning
from whoamai.recipes.rename_request import (
    BETAS,
    RenameRequest,
    check_request,
    learning_rate,
    schedule_for,
)
from whoamai.recipes.rename_rows import (
    data_systems,
    encoded,
    identity_rows,
    own_answers,
    read_data,
    replay_for,
    tell_about_template,
    without_names,
)
from whoamai.recipes.rename_tell import plan_of, tell_plan_ahead, training_details, versions
from whoamai.recipes.rename_who import who_it_is
from whoamai.recipes.train_plan import tell_probe
from whoamai.samples import Conversation, Sample

# Built-in texts of each language that are read before and after; `whoamai check` reads all.
_TEXTS = 40
# Digits of the model's fingerprint that are compared, and shown, when a renaming is gone on with.
_SHORT_HASH = 16

__all__ = ["Identity", "RenameRequest", "Renamed", "learning_rate", "rename"]


@dataclass(frozen=True, slots=True)
class Renamed:
    """Where everything is, and the report."""

    report: Report
    adapter: Path
    merged: Path | None
    report_file: Path
    page: Path


class RenameStopped(Exception):
    """Stopped by the user between two steps; `--resume` goes on. The text is for them."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def rename(request: RenameRequest, events: Events) -> Renamed:
    """Do the job. Raises a WhoamaiError for what the user can mend, and then nothing is left behind but
    a training that had come to a checkpoint; RenameStopped where the user stopped such a one."""
    check_request(request)
    data = read_data(request.data_request, request.identity, events) if request.data else []
    with (
        _stopped_at_once(request.out_folder),
        job_folder(request.out_folder, resume=request.resume) as folder,
        JsonlFile(folder / "events.jsonl") as journal,
    ):
        report = _learn(request, data, folder, events.also(journal))
        report.write(folder / "report.json")
        write_html(report, folder / "report.html")
    out = request.out_folder
    return Renamed(
        report=report,
        adapter=out / "adapter",
        merged=out / "merged" if request.merge else None,
        report_file=out / "report.json",
        page=out / "report.html",
    )


@contextmanager
def _stopped_at_once(out: Path) -> Iterator[None]:
    """Ctrl-C where there is no step to be finished: also then something may be left to go on with."""
    try:
        yield
    except KeyboardInterrupt:
        if not unfinished(out):
            raise
        text = tr("Stopped. What was saved before is left. Say the same with --resume to go on.")
        raise RenameStopped(text, 128 + signal.SIGINT) from None


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
        tell_plan_ahead(request, talk, data, chat, events)
        model = base_fingerprint(chat.path)[:_SHORT_HASH]
        facts = job_facts(request.identity, {**request.facts, "model": model})

    known = read_known(folder, facts)
    if known is None:
        known = _find_out(request, talk, data, events)
        write_known(folder, known, facts)
    exam = _exam(request, talk, known.old, data)
    prober = _prober(request, talk, known.old, data)

    with events.stage("train", tr("Learning the new name")):
        rows = [*_identity_rows(request, talk, known.old, len(data)), *data]
        samples = encoded(talk.template, rows, known.replay, chat, events)
        schedule = schedule_for(request, chat.model, samples)
        tuned = add_lora(
            chat.model, r=request.lora_r, alpha=request.lora_alpha, dropout=0.0, seed=request.seed
        )
        trainer = _trainer(request, talk.template, tuned, samples, schedule, chat, events)
        facts = run_facts(schedule, samples, facts["settings"])
        learned = _until_learned(request, trainer, prober, folder, facts, events)

    with events.stage("after", tr("Asking again")):
        moved = _moved(request, tuned, talk.template, events)
        with added_up(tuned):
            answers = take(talk, exam, "after")
            grader = IdentityGrader(request.identity, _names(known.old))
            sampled = sample(talk, exam, grader, request.samples, seed=request.seed)
        scores = score(exam, known.answers, answers, request.identity, _names(known.old))

    with events.stage("save", tr("Saving")):
        _save_adapter(tuned, chat, talk.template, folder / "adapter")
        merged = None
        if request.merge:
            _save_merged(tuned, chat, talk.template, folder / "merged")
            merged = _check_merged(folder, request, exam, _names(known.old), events)

    report = report_of(
        scores,
        model=chat.label,
        identity=request.identity,
        old_names=_names(known.old),
        goals=request.goals,
        sampled=sampled,
        divergence=moved,
        merged=merged,
        probes=learned.probes,
        curve=Curve(learned.losses, learned.learning_rates),
        stop=learned.stop,
        hashes=_hashes(folder, chat),
        details={
            "rows": {
                "identity": len(rows) - len(data),
                "replay": len(known.replay),
                "data": len(data),
            },
            "training": training_details(request, schedule, learned),
            "languages": list(request.languages),
            "data": {"files": [str(file) for file in request.data]},
            "command": request.command,
            "seconds": round(time.monotonic() - start, 1),
            "seed": request.seed,
            "versions": versions(),
        },
    )
    events.emit(Result("scores", report.as_json()["scores"]))
    return report


# ---- before anything is trained ------------------------------------------------------------------


def _find_out(
    request: RenameRequest, talk: Talk, data: Sequence[Conversation], events: Events
) -> Known:
    """What the model calls itself, its answers to the exam, and its answers to replay."""
    with events.stage("before", tr("Asking who it is now")):
        old = who_it_is(talk, request.identity, request.languages, request.old_names)
        answers = take(talk, _exam(request, talk, old, data), "before")
    with events.stage("replay", tr("Writing down what it must not forget")):
        n_rows = len(_identity_rows(request, talk, old, len(data))) + len(data)
        prompts = replay_for(request, n_rows, data)
        replay = without_names(own_answers(talk, prompts), _names(old))
    return Known(old, answers, tuple(replay))


def _names(old: SelfDescription) -> tuple[str, ...]:
    return (*old.names, *old.makers)


def _exam(
    request: RenameRequest, talk: Talk, old: SelfDescription, data: Sequence[Conversation]
) -> Exam:
    return make_exam(
        request.identity,
        languages=request.languages,
        seed=request.seed,
        old_names=old.names,
        default_system=talk.template.default_system,
        data_systems=data_systems(data),
        own=request.own_questions,
        own_general=request.retain.questions if request.retain else (),
    )


def _prober(
    request: RenameRequest, talk: Talk, old: SelfDescription, data: Sequence[Conversation]
) -> Prober:
    asked = probe_questions(
        request.identity,
        languages=request.languages,
        seed=request.seed,
        old_names=old.names,
        default_system=talk.template.default_system,
        extra_systems=data_systems(data),
    )
    grader = IdentityGrader(request.identity, _names(old))
    return Prober(talk, grader, asked, probe_general(request.languages)).right_now()


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


# ---- training ------------------------------------------------------------------------------------


def _trainer(
    request: RenameRequest,
    template: ChatTemplate,
    tuned: Any,
    samples: Sequence[Sample],
    schedule: Schedule,
    chat: ChatModel,
    events: Events,
) -> Trainer:
    """All that trains the adapter, after one step was tried out."""
    choice = plan_of(request, template, chat, samples, schedule, exact=True).choice
    if choice.gradient_checkpointing:
        tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    settings = TrainSettings(
        betas=BETAS, tokens_per_pass=choice.tokens_per_pass, kl_weight=request.kl_weight
    )
    precision = precision_for(choice.dtype, chat.device)
    trainer = Trainer(tuned, samples, schedule, settings, precision=precision, events=events)
    tell_probe(probe(trainer), schedule, samples, choice, events)
    return trainer


def _until_learned(
    request: RenameRequest,
    trainer: Trainer,
    prober: Prober,
    folder: Path,
    facts: dict[str, Any],
    events: Events,
) -> Learned:
    """Train; stopped by the user, say how to go on."""
    if checkpoint := last_checkpoint(folder):
        refuse_another_renaming(read_state(checkpoint).facts, facts, checkpoint)
        text = tr("Going on after step {done} of {total}.")
        done = read_state(checkpoint).step
        events.emit(Note(text.format(done=done, total=trainer.schedule.total)))
    learning = Learning(
        trainer, prober, request.learning, folder=folder, facts=facts, events=events
    )
    with StopSignals(lambda _: _tell_stop(events)) as stop:
        try:
            learned = learning.run(stop)
        except StoppedLearning as stopped:
            text = tr(
                "Stopped after step {done} of {total}, and saved. Say the same with --resume to go on."
            )
            text = text.format(done=stopped.done, total=stopped.total)
            raise RenameStopped(text, stopped.exit_code) from None
    if learned.stop.stopped_at < learned.stop.planned:
        text = tr(
            "Learned after {learned} steps; stopped at {stopped} of {planned}, {seconds} s saved."
        )
        of = learned.stop
        events.emit(
            Note(
                text.format(
                    learned=of.learned_at,
                    stopped=of.stopped_at,
                    planned=of.planned,
                    seconds=round(of.seconds_saved),
                )
            )
        )
    return learned


def _tell_stop(events: Events) -> None:
    text = tr("Stopping: the step is finished and saved first. Ctrl-C again stops at once.")
    with suppress(RuntimeError):  # the signal came while something was being printed
        events.emit(Note(text, "warning"))


# ---- afterwards ----------------------------------------------------------------------------------


def _moved(
    request: RenameRequest, tuned: Any, template: ChatTemplate, events: Events
) -> Divergence:
    """How far the distributions moved, on some of the built-in texts and all of the user's."""
    texts = [
        *general_texts(request.languages, _TEXTS),
        *(request.retain.texts if request.retain else ()),
    ]
    return divergence_of_adapter(
        tuned,
        text_samples(template, texts),
        tell=lambda done, total: events.emit(Progress("after", done, total)),
    )


def _check_space(request: RenameRequest, chat: ChatModel) -> None:
    """Refuse before training if the results will not fit: adapter, a checkpoint with its moments."""
    linear = [m for m in chat.model.modules() if isinstance(m, torch.nn.Linear)]
    adapter = sum(4 * request.lora_r * (m.in_features + m.out_features) for m in linear)
    needed = 6 * adapter
    if request.merge:
        needed += sum(p.numel() for p in chat.model.parameters()) * _base_dtype(chat).itemsize
    check_space(request.out_folder, needed)


def _base_dtype(chat: ChatModel) -> torch.dtype:
    """The precision the base's weights are stored in; merged weights are written in the same."""
    from transformers import PretrainedConfig

    stored, _ = PretrainedConfig.get_config_dict(chat.path)
    name = stored.get("dtype") or stored.get("torch_dtype")
    return getattr(torch, name) if isinstance(name, str) else chat.model.dtype


def _save_adapter(tuned: Any, chat: ChatModel, template: ChatTemplate, folder: Path) -> None:
    save_adapter(tuned, folder, chat.path)
    write_card(folder, template.card)
    write_base_card(folder, BaseCard(base_fingerprint(chat.path), chat.label, "none"))


def _save_merged(tuned: Any, chat: ChatModel, template: ChatTemplate, folder: Path) -> None:
    """The merged model, with the template it was trained with where it had none of its own."""
    model = merge(tuned, _base_dtype(chat))
    model.save_pretrained(str(folder))
    if template.name != OWN:
        chat.tokenizer.chat_template = template.text
    chat.tokenizer.save_pretrained(str(folder))


def _check_merged(
    folder: Path, request: RenameRequest, exam: Exam, old_names: Sequence[str], events: Events
) -> MergedScores:
    """Load what was written and ask it again, without a system prompt."""
    chat = load_chat_model(str(folder / "merged"), device=request.device, dtype=request.dtype)
    talk = Talk(chat, events)
    trained_with = read_card(folder / "adapter")
    if trained_with and (different := mismatch(trained_with, talk.template.card)):
        events.emit(Note(different, "warning"))
    plain = [q for q in exam.identity if q.context == "none"]
    grader = IdentityGrader(request.identity, old_names)
    answers = talk.answers([q.conversation for q in plain], "save")
    grades = grade_answers(grader, plain, answers)
    return MergedScores(
        recall=Share(sum(g.recalled for g in grades), len(grades)),
        leak=Share(sum(bool(g.leaks) for g in grades), len(grades)),
    )


def _hashes(folder: Path, chat: ChatModel) -> dict[str, str]:
    """Which base and which adapter this report is about."""
    adapter = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    found = {"base": base_fingerprint(chat.path), "adapter": hashlib.sha256(adapter).hexdigest()}
    if (folder / "merged").exists():
        found["merged"] = base_fingerprint(folder / "merged")
    return found
