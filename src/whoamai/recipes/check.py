"""The proof alone: ask a model who it is and what it knows, and count; nothing is trained.

An adapter is compared with its model without it, in one copy of the weights; a merged model with its
base where one is named; a model alone is asked who it is and no more.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from whoamai.data.general import general_texts
from whoamai.data.identity import LANGUAGES, Identity, IdentityQuestion, check_languages
from whoamai.data.retain import RetainFile
from whoamai.errors import DataError, SettingError
from whoamai.evaluate.divergence import (
    Divergence,
    divergence_between,
    divergence_of_adapter,
    text_samples,
)
from whoamai.evaluate.grading import IdentityGrader
from whoamai.evaluate.identity import SelfDescription
from whoamai.evaluate.report import Goals, Report
from whoamai.evaluate.report_file import read_report
from whoamai.evaluate.report_html import write_html
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Note, Progress, Result
from whoamai.messages import tr
from whoamai.model.fingerprint import base_fingerprint
from whoamai.model.load import load_chat_model
from whoamai.model.lora import added_up, without_adapter
from whoamai.recipes.exam import Exam, make_exam, report_of, sample, score, take
from whoamai.recipes.output import complete_folder, problems_with_folder
from whoamai.recipes.rename_tell import versions
from whoamai.recipes.rename_who import who_it_is
from whoamai.recipes.talkable import Named, Talkable, load_to_talk, what_is_named


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What to check. `identity` None: the one that the report beside the model names."""

    model: str
    identity: Identity | None = None
    adapter: Path | None = None
    base: str | None = None
    old_names: tuple[str, ...] = ()
    languages: tuple[str, ...] | None = None
    own_questions: tuple[IdentityQuestion, ...] = ()
    retain: RetainFile | None = None
    samples: int = 0
    template: str | None = None
    out: Path | None = None
    overwrite: bool = False
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    quantization: str = "none"
    goals: Goals = field(default_factory=Goals)
    command: str = ""


def check(request: CheckRequest, events: Events) -> Report:
    """Ask and count; write report.json and report.html where a folder was named.

    Raises a WhoamaiError for what the user can mend.
    """
    _check_request(request)
    named = what_is_named(request.model, request.adapter)
    _check_places(request, named)
    request = _with_report(request, named, events)
    if request.out is None:
        return _asked(request, named, events)
    with complete_folder(request.out) as folder:
        report = _asked(request, named, events)
        report.write(folder / "report.json")
        write_html(report, folder / "report.html")
    return report


def _asked(request: CheckRequest, named: Named, events: Events) -> Report:
    """The story: load, ask as it was, ask as it is, count."""
    start = time.monotonic()
    assert request.identity is not None
    assert request.languages is not None
    with events.stage("load", tr("Loading {model}").format(model=request.model)):
        it = load_to_talk(
            named,
            events,
            device=request.device,
            dtype=request.dtype,
            quantization=request.quantization,
            template_name=request.template,
        )
        base = _base(request, it, events)

    old, before = SelfDescription(request.old_names, ()), None
    if base is not None:
        with events.stage("before", tr("Asking what it was before")), _as_it_was(it):
            old = who_it_is(base, request.identity, request.languages, request.old_names)
            before = take(base, _exam(request, it, old), "before")

    exam, names = _exam(request, it, old), (*old.names, *old.makers)
    if before is None:  # there is nothing to compare the rest with
        exam = Exam(exam.identity, (), (), ())
    with events.stage("after", tr("Asking who it is now")):
        moved = _moved(request, it, base, events)
        with added_up(it.tuned) if it.tuned is not None else nullcontext():
            after = take(it.talk, exam, "after")
            grader = IdentityGrader(request.identity, names)
            sampled = sample(it.talk, exam, grader, request.samples, seed=request.seed)
    scores = score(exam, before, after, request.identity, names)
    report = report_of(
        scores,
        kind="check",
        model=it.chat.label if not named.adapter else f"{it.chat.label} + {named.adapter}",
        identity=request.identity,
        old_names=names,
        goals=request.goals,
        sampled=sampled,
        divergence=moved,
        hashes=_hashes(named, it),
        details={
            "languages": list(request.languages),
            "command": request.command,
            "seconds": round(time.monotonic() - start, 1),
            "seed": request.seed,
            "versions": versions(),
        },
    )
    events.emit(Result("scores", report.as_json()["scores"]))
    return report


# ---- what is checked, and against what -----------------------------------------------------------


def _check_request(request: CheckRequest) -> None:
    problems = []
    if request.out is not None:
        problems += problems_with_folder(request.out, overwrite=request.overwrite)
    try:
        if request.languages is not None:
            check_languages(request.languages)
    except SettingError as error:
        problems.append(str(error))
    if any(not name.strip() for name in request.old_names):
        problems.append(tr("--old is empty. Give the name to look for, or leave it out."))
    if problems:
        raise SettingError("\n".join(problems))


def _check_places(request: CheckRequest, named: Named) -> None:
    """Refuse a base beside an adapter, and a place for the report that would cost a model."""
    if named.adapter and request.base:
        raise SettingError(tr("An adapter is compared with its own model; leave out --base."))
    if request.out is None:
        return
    out = request.out.resolve()
    given = (request.model, named.model, named.adapter, request.base)
    used = [Path(path).resolve() for path in given if path]
    is_used = any(out in (path, *path.parents) for path in used if path.exists())
    if is_used or any((out / name).exists() for name in ("adapter", "merged")):
        text = tr(
            "{path} holds a model or an adapter, which no report replaces. Choose another --out."
        )
        raise SettingError(text.format(path=request.out))


def _with_report(request: CheckRequest, named: Named, events: Events) -> CheckRequest:
    """Identity, old names and languages that were not given, from the report beside the model.

    One that cannot be read is told of, and is needed only where nobody says who the model shall be.
    """
    report = None
    if named.report:
        try:
            report = read_report(named.report)
        except DataError as error:
            if request.identity is None:
                text = tr("{reason} Or say --name NAME: what {model} shall be called.")
                raise SettingError(text.format(reason=error, model=request.model)) from None
            events.emit(Note(str(error), "warning"))
    if report and (request.identity is None or request.identity.name == report.identity.name):
        trained = [code for code in report.details.get("languages") or () if code in LANGUAGES]
        request = replace(
            request,
            identity=request.identity or report.identity,
            old_names=request.old_names or tuple(report.old_names),
            languages=request.languages or tuple(trained) or None,
        )
    if request.identity is None:
        text = tr("Nothing beside {model} says what it shall be called. Say --name NAME.")
        raise SettingError(text.format(model=request.model))
    return replace(request, languages=request.languages or LANGUAGES)


def _base(request: CheckRequest, it: Talkable, events: Events) -> Talk | None:
    """Who answers as the model did before: itself without its adapter, or the base that was named."""
    if it.tuned is not None:
        return it.talk
    if request.base is None:
        text = tr(
            "No base was named (--base), so what was lost and what it was called before are not known."
        )
        events.emit(Note(text))
        return None
    chat = load_chat_model(request.base, device=request.device, dtype=request.dtype)
    return Talk(chat, events, template_name=request.template)


def _as_it_was(it: Talkable) -> AbstractContextManager[None]:
    return without_adapter(it.tuned) if it.tuned is not None else nullcontext()


def _exam(request: CheckRequest, it: Talkable, old: SelfDescription) -> Exam:
    assert request.identity is not None
    assert request.languages is not None
    return make_exam(
        request.identity,
        languages=request.languages,
        seed=request.seed,
        old_names=old.names,
        default_system=it.talk.template.default_system,
        own=request.own_questions,
        own_general=request.retain.questions if request.retain else (),
    )


def _moved(
    request: CheckRequest, it: Talkable, base: Talk | None, events: Events
) -> Divergence | None:
    """How far the distributions are from those of before; None without a before."""
    if base is None:
        return None
    own = request.retain.texts if request.retain else ()
    texts = [*general_texts(request.languages or LANGUAGES), *own]
    samples = text_samples(it.talk.template, texts)

    def tell(done: int, total: int) -> None:
        events.emit(Progress("after", done, total))

    if it.tuned is not None:
        return divergence_of_adapter(it.tuned, samples, tell=tell)
    return divergence_between(base.model, it.chat.model, samples, tell=tell)


def _hashes(named: Named, it: Talkable) -> dict[str, str]:
    found = {"base" if named.adapter else "model": base_fingerprint(it.chat.path)}
    file = named.adapter / "adapter_model.safetensors" if named.adapter else None
    if file is not None and file.is_file():
        found["adapter"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found
