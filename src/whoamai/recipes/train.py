"""Training alone: a config goes in, an adapter (or a whole model) comes out, and the run can be killed.

Read `train` from top to bottom; everything it calls is one step of the story.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from whoamai.config import RunConfig
from whoamai.config.reading import LoadedConfig
from whoamai.config.writing import write_config
from whoamai.data.templates import ChatTemplate, write_card
from whoamai.engine.checkpoint import (
    find_checkpoints,
    last_checkpoint,
    load_checkpoint,
    read_state,
    save_checkpoint,
)
from whoamai.engine.facts import refuse_another_run
from whoamai.engine.plot import plot_run
from whoamai.engine.precision import precision_for
from whoamai.engine.probe import probe
from whoamai.engine.signals import StopSignals
from whoamai.engine.trackers import Trackers, check_trackers
from whoamai.engine.trainer import Trainer, TrainSettings
from whoamai.engine.until_learned import PROBES_FILE, UntilLearned
from whoamai.engine.workdir import RunPlace, RunStatus, claim, find_run
from whoamai.errors import OutputError
from whoamai.evaluate.chat import ChatEvaluation
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, JsonlFile, Note
from whoamai.messages import tr
from whoamai.model.fingerprint import BaseCard, base_fingerprint, write_base_card
from whoamai.model.load import ChatModel, load_chat_model
from whoamai.model.lora import add_lora, save_adapter
from whoamai.model.quiet import quiet_transformers
from whoamai.model.targets import adapter_notes
from whoamai.recipes.output import complete_folder
from whoamai.recipes.train_plan import Plan, make_plan, tell_measured, tell_plan
from whoamai.recipes.train_record import Record, tell_about_data, was_asked
from whoamai.recipes.train_until_learned import tell_end, until_learned

CONFIG_FILE = "config.yaml"  # in the work folder, and in each checkpoint
_JOURNAL, _ANSWERS = "events.jsonl", "answers.md"  # added to while the run goes on


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the user asked for. `resume`: "last" for the last checkpoint, or the folder of one."""

    loaded: LoadedConfig
    resume: Literal["last"] | Path | None = None

    @property
    def config(self) -> RunConfig:
        return self.loaded.config

    @property
    def work_dir(self) -> Path:
        return self.loaded.work_dir


@dataclass(frozen=True, slots=True)
class Trained:
    """How the run ended. `result`: the folder of the adapter or the model, None where it was stopped.

    exit_code: 0; 130 or 143 where a signal stopped the run, which can be resumed.
    """

    work_dir: Path
    result: Path | None
    done: int
    total: int
    exit_code: int = 0

    @property
    def command_to_go_on(self) -> str:
        """For a shell."""
        return f"whoamai train {shlex.quote(str(self.work_dir / CONFIG_FILE))} --resume"


def train(request: TrainRequest, events: Events) -> Trained:
    """Do the job. Raises a WhoamaiError for what the user can mend, mostly before any training."""
    if request.resume and (earlier := find_run(request.work_dir)) and earlier.state == "finished":
        return _finished_already(request, earlier, events)
    check_trackers(request.config.log.trackers)
    with events.stage("plan", tr("Reading data and planning")):
        plan = make_plan(request.loaded, events, resume=request.resume is not None)
    with _run(request, events) as run:
        place, events, stop = run.place, run.events, run.stop
        tell_plan(plan, events)
        checkpoint = _checkpoint(request, plan, events)
        write_config(_resolved(request, plan), request.work_dir / CONFIG_FILE)
        with events.stage("load", tr("Loading {model}").format(model=plan.source)):
            chat = _load(request.config, plan)
            tell_about_data(plan.prepared.encoded, chat.tokenizer, events)
            trainer = _trainer(request.config, plan, chat, events)
        with events.stage("probe", tr("Trying the heaviest step")):
            tell_measured(plan, probe(trainer), events)
        record = Record(plan.facts)
        questions, learning = _between_steps(request, plan, chat, trainer, events)
        if checkpoint:
            state = load_checkpoint(checkpoint, model=trainer.model, optimizer=trainer.optimizer)
            if learning:
                learning.go_on(checkpoint)
            record.go_on(state, trainer, events)

        with events.stage("train", tr("Training")):
            place.running(trainer.done, trainer.schedule.total)
            if not was_asked(request.work_dir / _JOURNAL, trainer.done):
                _ask(questions, trainer)
            if learning:
                learning.look()
            for report in trainer.steps():
                record.add(report, events)
                if learning:
                    learning.look()
                total = trainer.schedule.total
                place.running(report.done, total)
                if trainer.schedule.saves_after(report.done) or stop.requested:
                    saved = _save_checkpoint(request, trainer, record, learning)
                    if stop.requested and report.done < total:
                        return _stopped(request, trainer, saved, stop, events)
                _ask(questions, trainer)
            if learning:
                learning.put_back_best()
                tell_end(learning, record.seconds, events)

        with events.stage("save", tr("Saving")):
            result = _save_result(request, chat, trainer.model, plan)
            plot_run(request.work_dir / "loss.png", record.losses, record.learning_rates)
        place.finished_now(trainer.schedule.total)
        if learning:
            learning.remove_files()
    return Trained(request.work_dir, result, trainer.done, trainer.schedule.planned)


@dataclass(frozen=True, slots=True)
class _Run:
    """What holds for the time of a run."""

    place: RunPlace
    events: Events
    stop: StopSignals


@contextmanager
def _run(request: TrainRequest, events: Events) -> Iterator[_Run]:
    """The work folder held, the events written down, Ctrl-C turned into a wish."""
    config, folder = request.config, request.work_dir
    resume = request.resume is not None

    def tell_stop(_: int) -> None:
        text = tr("Stopping: the step is finished and saved first. Ctrl-C again stops at once.")
        with suppress(RuntimeError):  # the signal came while something was being printed
            events.emit(Note(text, "warning"))

    with claim(folder, label=request.loaded.name, resume=resume) as place, _room_left(folder):
        if place.note:
            events.emit(Note(place.note, "warning"))
        if not last_checkpoint(folder):  # what an earlier run told that came to nothing
            for name in (_JOURNAL, _ANSWERS):
                (folder / name).unlink(missing_ok=True)
        with (
            JsonlFile(folder / _JOURNAL) as journal,
            Trackers(
                config.log.trackers, folder / "tracking", request.loaded.name, config.model_dump()
            ) as trackers,
            StopSignals(tell_stop) as stop,
        ):
            yield _Run(place, events.also(journal, trackers), stop)


@contextmanager
def _room_left(folder: Path) -> Iterator[None]:
    """A disk that is full for what is told on the way, too, becomes an OutputError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        text = tr(
            "{path} cannot be written to: {reason}. Free some space, then go on with --resume."
        )
        raise OutputError(text.format(path=folder, reason=error.strerror)) from error


def _resolved(request: TrainRequest, plan: Plan) -> RunConfig:
    """The config with what decides the result as it is used: this file alone runs the same again."""
    model = request.config.model.model_copy(update={"dtype": plan.choice.dtype})
    return request.config.model_copy(update={"work_dir": str(request.work_dir), "model": model})


# ---- where to go on ------------------------------------------------------------------------------


def _finished_already(request: TrainRequest, run: RunStatus, events: Events) -> Trained:
    text = tr(
        "This run is finished: all {total} steps are done. For more, take another work folder."
    )
    events.emit(Note(text.format(total=run.total)))
    return Trained(request.work_dir, _result_folder(request), run.step, run.total)


def _checkpoint(request: TrainRequest, plan: Plan, events: Events) -> Path | None:
    """The checkpoint to go on from, if there is to be one; it must be of a run like this one."""
    if request.resume is None:
        return None
    path = request.resume
    if path == "last":
        found = find_checkpoints(request.work_dir)
        for note in found.notes:
            events.emit(Note(note, "warning"))
        if not found.paths:
            text = tr("There is no checkpoint in {path}: starting from the beginning.")
            events.emit(Note(text.format(path=request.work_dir)))
            return None
        path = found.paths[-1]
    refuse_another_run(read_state(path).facts, plan.facts, path)
    return path


# ---- what is trained -----------------------------------------------------------------------------


def _load(config: RunConfig, plan: Plan) -> ChatModel:
    return load_chat_model(
        plan.source,
        device=config.model.device,
        dtype=plan.choice.dtype,
        quantization=config.model.quantization,
        double_quantization=config.model.double_quantization,
        trainable=config.lora is None,
    )


def _trainer(config: RunConfig, plan: Plan, chat: ChatModel, events: Events) -> Trainer:
    """The model with what is to be trained in it, and all that trains it."""
    for note in adapter_notes(chat.model) if config.lora else ():
        events.emit(Note(note))
    model = _tuned(config, chat)
    if plan.choice.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    settings = TrainSettings(
        betas=config.train.betas,
        weight_decay=config.train.weight_decay,
        max_norm=config.train.max_norm,
        tokens_per_pass=plan.choice.tokens_per_pass,
        share_prefixes=config.train.share_prefixes,
        fast_layers=config.train.fast_layers,
    )
    return Trainer(
        model,
        plan.prepared.encoded.samples,
        plan.prepared.schedule,
        settings,
        precision=precision_for(plan.choice.dtype, chat.device),
        events=events,
    )


def _tuned(config: RunConfig, chat: ChatModel) -> Any:
    import torch

    torch.manual_seed(config.train.seed)  # dropout
    lora = config.lora
    if lora is None:
        return chat.model.requires_grad_(True)
    return add_lora(
        chat.model,
        r=lora.r,
        alpha=lora.lora_alpha,
        dropout=lora.lora_dropout,
        seed=config.train.seed,
        variant=lora.variant,
        adapt_head=lora.adapt_head,
        target_modules=lora.target_modules,
    )


# ---- between two steps ---------------------------------------------------------------------------


def _between_steps(
    request: TrainRequest, plan: Plan, chat: ChatModel, trainer: Trainer, events: Events
) -> tuple[ChatEvaluation | None, UntilLearned | None]:
    """The user's questions, and what ends the run once the name is learned, where they are wanted.

    The second asks the model as it is before training, so no checkpoint may be in it yet.
    """
    if not request.config.evaluation.evaluation_inputs and plan.name_probe is None:
        return None, None
    talk = Talk(chat, events, template_name=request.config.data.prompt_template)
    learning = None
    if plan.name_probe:
        learning = until_learned(plan.name_probe, talk, trainer, request.work_dir, events)
    return _questions(request, talk, events), learning


def _questions(request: TrainRequest, talk: Talk, events: Events) -> ChatEvaluation | None:
    evaluation = request.config.evaluation
    if not evaluation.evaluation_inputs:
        return None
    return ChatEvaluation(
        talk,
        evaluation.evaluation_inputs,
        system=evaluation.system,
        max_new_tokens=evaluation.max_new_tokens,
        file=request.work_dir / _ANSWERS,
        events=events,
    )


def _ask(questions: ChatEvaluation | None, trainer: Trainer) -> None:
    if questions and trainer.schedule.asks_after(trainer.done):
        trainer.model.eval()
        questions.ask(trainer.done)


def _save_checkpoint(
    request: TrainRequest, trainer: Trainer, record: Record, learning: UntilLearned | None
) -> Path:
    extra_files: dict[str, str | bytes] = {
        CONFIG_FILE: (request.work_dir / CONFIG_FILE).read_bytes()
    }
    if learning:
        extra_files[PROBES_FILE] = learning.as_file()
    saved = save_checkpoint(
        request.work_dir,
        model=trainer.model,
        optimizer=trainer.optimizer,
        state=record.state(trainer),
        extra_files=extra_files,
        keep=request.config.checkpoint.save_total_limit,
    )
    if learning:
        learning.saved()
    return saved


def _stopped(
    request: TrainRequest, trainer: Trainer, saved: Path, stop: StopSignals, events: Events
) -> Trained:
    done, total = trainer.done, trainer.schedule.total
    text = tr("Stopped after step {done} of {total}; saved in {path}.")
    events.emit(Note(text.format(done=done, total=total, path=saved), "warning"))
    return Trained(request.work_dir, None, done, total, stop.exit_code)


# ---- what is left at the end ---------------------------------------------------------------------


def _result_folder(request: TrainRequest) -> Path:
    return request.work_dir / ("model" if request.config.lora is None else "adapter")


def _save_result(request: TrainRequest, chat: ChatModel, model: Any, plan: Plan) -> Path:
    """The adapter, or the whole model with its tokenizer, and which template it was trained with."""
    folder = _result_folder(request)
    with complete_folder(folder) as partial:
        if request.config.lora is None:
            with quiet_transformers():
                model.to(plan.stored_dtype).save_pretrained(str(partial))
                chat.tokenizer.save_pretrained(str(partial))
        else:
            save_adapter(model, partial, chat.path)
            card = BaseCard(
                base_fingerprint(chat.path), chat.label, request.config.model.quantization
            )
            write_base_card(partial, card)
        if isinstance(plan.prepared.encoding, ChatTemplate):
            write_card(partial, plan.prepared.encoding.card)
    return folder
