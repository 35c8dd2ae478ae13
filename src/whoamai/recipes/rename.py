"""The whole job: a model goes in, the same model under a new name comes out, with proof.

Read `rename` from top to bottom; everything it calls is one step of the story.
"""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from whoamai import __version__
from whoamai.data.identity import (
    LANGUAGES,
    Identity,
    IdentityQuestion,
    ask,
    load_language,
    questions,
    training_conversations,
)
from whoamai.data.readers import read_conversations
from whoamai.data.replace import find_names, replace_names
from whoamai.data.replay import replay_prompts
from whoamai.data.templates import ChatTemplate
from whoamai.engine.trainer import TrainLog, TrainSettings, train
from whoamai.errors import SettingError
from whoamai.evaluate.identity import IdentityGrader, Share, score_identity, self_names
from whoamai.evaluate.report import AnswerPair, Goals, Report
from whoamai.evaluate.retention import GeneralQuestion, general_questions, score_retention
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, JsonlFile, Note, Progress, Result
from whoamai.messages import tr
from whoamai.model.load import BUNDLED, ChatModel, load_chat_model
from whoamai.model.lora import add_lora, merge, save_adapter
from whoamai.recipes.output import check_space, complete_folder, folder_name, problems_with_folder
from whoamai.samples import Conversation, Message, Sample


@dataclass(frozen=True, slots=True)
class RenameRequest:
    """What the user asked for. `None` means: decide by the model."""

    identity: Identity
    model: str = BUNDLED
    data: Path | None = None
    old_names: tuple[str, ...] = ()
    languages: tuple[str, ...] = LANGUAGES
    out: Path | None = None
    overwrite: bool = False
    merge: bool = False
    seed: int = 0
    rows: int = 900
    replay_ratio: float = 1.0
    lr: float | None = None
    lora_r: int = 16
    lora_alpha: int = 32
    device: str = "auto"
    goals: Goals = field(default_factory=Goals)

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
    """Do the job. Raises a WhoamaiError for anything the user can mend; then nothing is left behind."""
    start = time.monotonic()
    _check_request(request)
    data = _read_data(request, events) if request.data else []

    with events.stage("load", tr("Loading {model}").format(model=request.model)):
        chat = load_chat_model(request.model, device=request.device)
        talk = Talk(chat, events)
    _check_space(request, chat)

    with events.stage("before", tr("Asking who it is now")):
        old_names = _old_names(talk, request)
        asked = questions(
            request.identity,
            "test",
            languages=request.languages,
            seed=request.seed,
            old_names=old_names,
            extra_systems=_systems(data),
        )
        general = general_questions(request.languages)
        identity_before = talk.answers([q.conversation for q in asked], "before")
        general_before = talk.answers([q.conversation for q in general], "before")

    with events.stage("replay", tr("Writing down what it must not forget")):
        conversations = _identity_rows(request, data, old_names)
        replay = _replay(talk, request, len(conversations))
        samples = _samples(talk.template, [*conversations, *replay])

    with events.stage("train", tr("Learning the new name")):
        settings = TrainSettings(lr=request.lr or learning_rate(chat.model), seed=request.seed)
        tuned = add_lora(
            chat.model, r=request.lora_r, alpha=request.lora_alpha, dropout=0.0, seed=request.seed
        )
        log = train(tuned, samples, settings, _progress(events))

    with events.stage("after", tr("Asking again")):
        identity_after = talk.answers([q.conversation for q in asked], "after")
        general_after = talk.answers([q.conversation for q in general], "after")

    with (
        complete_folder(request.out_folder) as folder,
        JsonlFile(folder / "events.jsonl") as journal,
    ):
        told = events.also(journal)
        with told.stage("save", tr("Saving")):
            save_adapter(tuned, folder / "adapter", chat.path)
            merged_recall = None
            if request.merge:
                _save_merged(tuned, chat, folder / "merged")
                merged_recall = _check_merged(folder / "merged", request, asked, events)
        report = _report(
            request,
            chat,
            old_names,
            asked,
            general,
            (identity_before, identity_after, general_before, general_after),
            merged_recall,
            details={
                "rows": {"identity": len(conversations), "replay": len(replay)},
                "training": _training_details(settings, log, request),
                "seconds": round(time.monotonic() - start, 1),
                "versions": _versions(),
            },
        )
        report.write(folder / "report.json")
        told.emit(Result("scores", report.as_json()["scores"]))
    out = request.out_folder
    return Renamed(
        report, out / "adapter", out / "merged" if request.merge else None, out / "report.json"
    )


def learning_rate(model: Any) -> float:
    """2e-4 for a hidden size of 4,096, more for narrower models (∝ 1/width), at most 2e-3.

    Narrow models need it: at 3e-4 the bundled model (width 256) learns nothing in one pass, from 1e-3
    to 5e-3 it learns (`python benchmarks/rename_settings.py`).
    """
    return min(2e-3, 2e-4 * 4096 / model.config.hidden_size)


# ---- what it is called now -----------------------------------------------------------------------


def _old_names(talk: Talk, request: RenameRequest) -> list[str]:
    """What the model calls itself and its maker now: asked, not assumed; the user's --old first."""
    rng = random.Random(0)
    asked = []
    for code in request.languages:
        language = load_language(code)
        for category in ("who", "name", "maker", "intro"):
            for family in language.of("train", category)[:6]:
                text, _ = ask(family, request.identity, (), rng)
                asked.append(Conversation((Message("user", text),)))
    found = self_names(talk.answers(asked, "before"))
    own = {request.identity.name, request.identity.author}
    return [n for n in dict.fromkeys([*request.old_names, *found]) if n not in own]


# ---- what to train on ----------------------------------------------------------------------------


def _read_data(request: RenameRequest, events: Events) -> list[Conversation]:
    """The user's conversations with their model's name replaced by the new one; says how often."""
    assert request.data is not None
    conversations = read_conversations(request.data)
    name, author = request.identity.name, request.identity.author
    old = list(request.old_names) or find_names(conversations, name)
    replaced = replace_names(
        conversations,
        dict.fromkeys(old, name),
        {"name": name, **({"author": author} if author else {})},
    )
    if "{{author}}" in _left_placeholders(replaced.conversations):
        raise SettingError(
            tr("{path} has {{{{author}}}} in its text. Say who made the model: --author …").format(
                path=request.data
            )
        )
    if replaced.counts:
        counts = ", ".join(f"{n} × {old_name}" for old_name, n in replaced.counts.items())
        events.emit(
            Note(
                tr("{path}: {rows} conversations; replaced by {name}: {counts}").format(
                    path=request.data, rows=len(conversations), name=name, counts=counts
                )
            )
        )
    else:
        events.emit(
            Note(
                tr(
                    "{path}: {rows} conversations; the replies give the model no name of its own, so "
                    "nothing was replaced. If they do, say which: --old NAME"
                ).format(path=request.data, rows=len(conversations)),
                "warning",
            )
        )
    return replaced.conversations


def _left_placeholders(conversations: Sequence[Conversation]) -> set[str]:
    texts = (m.text.lower() for c in conversations for m in c.messages)
    return {"{{author}}" for text in texts if "{{author}}" in text.replace(" ", "")}


def _systems(data: Sequence[Conversation]) -> list[str]:
    """The data's own system prompts, most frequent first, at most eight."""
    systems = [c.messages[0].text for c in data if c.messages[0].role == "system"]
    return sorted(set(systems), key=lambda s: -systems.count(s))[:8]


def _identity_rows(
    request: RenameRequest, data: Sequence[Conversation], old_names: Sequence[str]
) -> list[Conversation]:
    generated = training_conversations(
        request.identity,
        languages=request.languages,
        rows=request.rows,
        seed=request.seed,
        old_names=old_names,
    )
    return [*generated, *data]


def _replay(talk: Talk, request: RenameRequest, n_rows: int) -> list[Conversation]:
    """General prompts with the model's own answers, made before anything is trained."""
    count = round(request.replay_ratio * n_rows)
    prompts = replay_prompts(count, languages=request.languages, seed=request.seed)
    answers = talk.answers(prompts, "replay")
    return [
        replace(c, messages=(*c.messages, Message("assistant", a, trained=True)))
        for c, a in zip(prompts, answers, strict=True)
        if a
    ]


def _samples(template: ChatTemplate, conversations: Sequence[Conversation]) -> list[Sample]:
    return [sample for c in conversations for sample in template.samples(c)]


def _progress(events: Events) -> Any:
    def on_step(done: int, total: int, values: dict[str, float]) -> None:
        events.emit(Progress("train", done, total, values))

    return on_step


# ---- what is written -----------------------------------------------------------------------------


def _check_request(request: RenameRequest) -> None:
    """Everything that can be refused before any work is done, told together."""
    problems = []
    unknown = [code for code in request.languages if code not in LANGUAGES]
    if unknown or not request.languages:
        problems.append(
            tr("--lang {given}: known languages are {known}.").format(
                given=",".join(request.languages), known=", ".join(LANGUAGES)
            )
        )
    problems += problems_with_folder(request.out_folder, overwrite=request.overwrite)
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
    file = Path(chat.path) / "config.json"
    config = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    name = config.get("dtype") or config.get("torch_dtype")
    return getattr(torch, name) if isinstance(name, str) else chat.model.dtype


def _save_merged(tuned: Any, chat: ChatModel, folder: Path) -> None:
    model = merge(tuned, _base_dtype(chat))
    model.save_pretrained(str(folder))
    chat.tokenizer.save_pretrained(str(folder))


def _check_merged(
    folder: Path, request: RenameRequest, asked: Sequence[IdentityQuestion], events: Events
) -> Share:
    """Load what was written and ask it again: recall without a system prompt."""
    talk = Talk(load_chat_model(str(folder), device=request.device), events)
    plain = [q.conversation for q in asked if q.context == "none"]
    grader = IdentityGrader(request.identity, ())
    grades = [grader.grade(a) for a in talk.answers(plain, "save")]
    return Share(sum(g.recalled for g in grades), len(grades))


def _report(
    request: RenameRequest,
    chat: ChatModel,
    old_names: Sequence[str],
    asked: Sequence[IdentityQuestion],
    general: Sequence[GeneralQuestion],
    answers: tuple[list[str], list[str], list[str], list[str]],
    merged_recall: Share | None,
    details: dict[str, Any],
) -> Report:
    identity_before, identity_after, general_before, general_after = answers
    grader = IdentityGrader(request.identity, old_names)
    grades_before = [grader.grade(a) for a in identity_before]
    grades_after = [grader.grade(a) for a in identity_after]
    pairs = [
        AnswerPair(
            q.language,
            q.category,
            q.context,
            next((m.text for m in q.conversation.messages if m.role == "system"), None),
            q.conversation.messages[-1].text,
            before,
            after,
            grade.recalled,
            grade.leaks,
        )
        for q, before, after, grade in zip(
            asked, identity_before, identity_after, grades_after, strict=True
        )
    ]
    return Report(
        model=chat.label,
        identity=request.identity,
        old_names=old_names,
        goals=request.goals,
        before=score_identity(asked, grades_before),
        after=score_identity(asked, grades_after),
        retention=score_retention(general, general_before, general_after),
        answers=pairs,
        merged_recall=merged_recall,
        details=details,
    )


def _training_details(
    settings: TrainSettings, log: TrainLog, request: RenameRequest
) -> dict[str, Any]:
    return {
        **asdict(settings),
        "lora_r": request.lora_r,
        "lora_alpha": request.lora_alpha,
        "steps": len(log.losses),
        "tokens": log.tokens,
        "targets": log.targets,
        "seconds": round(log.seconds, 1),
        "losses": [round(x, 4) for x in log.losses],
        "learning_rates": log.learning_rates,
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
