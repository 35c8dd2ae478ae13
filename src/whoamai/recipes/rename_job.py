"""An unfinished renaming on the disk: what was asked and answered before training, to go on from.

    .黄大力.partial/       beside the folder of the results, which it becomes once all is done
        job.json           what was asked for, what the model was, its answers, what is replayed
        checkpoints/, best/    of the training (recipes/rename_learning.py)
        events.jsonl       what was told so far

A renaming that fails or is stopped leaves it only where training had come to a checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from whoamai import __version__
from whoamai.data.identity import Identity
from whoamai.engine.checkpoint import last_checkpoint, tidy_checkpoints
from whoamai.engine.durable import as_json, replace_file
from whoamai.engine.facts import differences
from whoamai.engine.lock import LOCK, InUseError, take_lock, used_by
from whoamai.errors import ModelError, OutputError, SettingError
from whoamai.evaluate.identity import SelfDescription
from whoamai.messages import tr
from whoamai.recipes.exam import Answers, answers_as_json, answers_from_json
from whoamai.recipes.output import complete_folder, partial_of
from whoamai.samples import Conversation, Message

_JOB, _EVENTS = "job.json", "events.jsonl"
_ONLY_FOR_GOING_ON = ("checkpoints", "best")
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Known:
    """What was found out before training: it cannot be asked again once the model has changed."""

    old: SelfDescription
    answers: Answers
    replay: tuple[Conversation, ...]


def unfinished(out: Path) -> bool:
    """Is there a renaming beside `out` that can be gone on with?"""
    partial = partial_of(out)
    return (partial / _JOB).is_file() and last_checkpoint(partial) is not None


def problems_with_unfinished(out: Path, *, resume: bool, overwrite: bool) -> list[str]:
    """Why no renaming may begin beside `out`, or go on there, each with the cure."""
    holder = used_by(partial_of(out))
    if holder:
        text = tr("Another renaming is writing to {path}: {holder}. Wait for it, or stop it.")
        return [text.format(path=out, holder=holder)]
    if resume and not unfinished(out):
        text = tr("There is no unfinished renaming for {path} to go on with. Leave out --resume.")
        return [text.format(path=out)]
    if not resume and not overwrite and unfinished(out):
        text = tr(
            "A renaming for {path} was stopped before it was done. Go on with --resume, or say "
            "--overwrite to begin anew."
        )
        return [text.format(path=out)]
    return []


@contextmanager
def job_folder(out: Path, *, resume: bool) -> Iterator[Path]:
    """The folder of the job, held for this process; it takes the place of `out` when all went well."""

    def is_worth_it(folder: Path) -> bool:
        return used_by(folder) is not None or unfinished(out)

    # What is there is cleared once it is held and not before: another job may be at work in it.
    with complete_folder(out, go_on=True, keep=is_worth_it) as folder, _held(folder, out):
        _clear(folder, keep=(_JOB, _EVENTS, *_ONLY_FOR_GOING_ON) if resume else ())
        tidy_checkpoints(folder)
        yield folder
        for name in _ONLY_FOR_GOING_ON:
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / _JOB).unlink(missing_ok=True)


def _clear(folder: Path, *, keep: Collection[str]) -> None:
    """Remove what an earlier job left in `folder`, but for what to keep and the lock."""
    for path in folder.iterdir():
        if path.name in (LOCK, *keep):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _held(folder: Path, out: Path) -> Iterator[None]:
    try:
        lock = take_lock(folder, out.name)
    except InUseError as error:
        text = tr("Another renaming is writing to {path}: {holder}. Wait for it, or stop it.")
        raise OutputError(text.format(path=out, holder=error.holder)) from None
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):
            (folder / LOCK).unlink()


def job_facts(identity: Identity, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a renaming to be gone on with."""
    who = {"--name": identity.name, "--author": identity.author, "--persona": identity.persona}
    return json.loads(json.dumps({"settings": {**who, **settings, "whoamai": __version__}}))


def refuse_another_renaming(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise SettingError, naming all that differs, unless what is in `path` is of this renaming."""
    if lines := differences(saved, now):
        text = tr(
            "The renaming in {path} was begun with other data or settings:\n"
            "{differences}\n"
            "Say the same as then, or leave out --resume and begin anew with --overwrite."
        )
        raise SettingError(text.format(path=path, differences="\n".join(lines)))


def write_known(folder: Path, known: Known, facts: Mapping[str, Any]) -> None:
    found = {
        "format": _FORMAT,
        "facts": facts,
        "old": asdict(known.old),
        "answers": answers_as_json(known.answers),
        "replay": [_as_rows(conversation) for conversation in known.replay],
    }
    replace_file(folder / _JOB, as_json(found))


def read_known(folder: Path, facts: Mapping[str, Any]) -> Known | None:
    """What an earlier sitting found out; None where there was none.

    Raises SettingError, naming the differences, if something else was asked for then; ModelError where
    the file is not one of ours.
    """
    if not (folder / _JOB).exists():
        return None
    try:
        found = json.loads((folder / _JOB).read_bytes())
        if found["format"] != _FORMAT:
            raise ValueError
        known = Known(
            old=SelfDescription(**{key: tuple(names) for key, names in found["old"].items()}),
            answers=answers_from_json(found["answers"]),
            replay=tuple(_conversation(rows) for rows in found["replay"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = tr(
            "{path} was not written by this version of whoamai. Leave out --resume and begin anew with "
            "--overwrite."
        )
        raise ModelError(text.format(path=folder / _JOB)) from error
    refuse_another_renaming(found["facts"], facts, folder)
    return known


def _as_rows(conversation: Conversation) -> list[list[Any]]:
    return [[m.role, m.text, m.trained] for m in conversation.messages]


def _conversation(rows: list[list[Any]]) -> Conversation:
    return Conversation(tuple(Message(role, text, trained) for role, text, trained in rows))
