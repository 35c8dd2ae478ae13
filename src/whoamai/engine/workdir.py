"""The folder a run works in: one run at a time, and `run.json` says how far that run is.

A folder with other things in it and no run.json is somebody else's.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from whoamai.engine.checkpoint import last_checkpoint, tidy_checkpoints
from whoamai.engine.durable import as_json, replace_file
from whoamai.engine.lock import LOCK, Holder, InUseError, take_lock, used_by
from whoamai.errors import OutputError
from whoamai.messages import tr

State = Literal["running", "stopped", "finished", "failed"]

_STATUS = "run.json"
# So often a running run writes its status: waiting for the disk costs milliseconds.
_STATUS_SECONDS = 5.0
# What a run killed in its first moment leaves.
_OURS = {LOCK, f".{_STATUS}.partial"}


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How far a run is. "running" where nobody holds the folder: it was killed.

    step: finished ones, when last written. Times are ISO 8601 with the zone.
    """

    state: State
    step: int
    total: int
    config: str
    started: str
    updated: str


class RunPlace:
    """A claimed work folder, in which the run says how far it is.

    previous: the run that was in it, None in a new one. note: what the user should know about the lock,
    if anything. A disk that refuses to take the status stops no run.
    """

    def __init__(self, folder: Path, label: str, previous: RunStatus | None, note: str | None):
        self.folder = folder
        self.previous = previous
        self.note = note
        step, total = (previous.step, previous.total) if previous else (0, 0)
        self.status = RunStatus("running", step, total, label, _now(), _now())
        self._written = -math.inf

    def finished(self) -> RunStatus | None:
        """The status of the run that was in it, if that one came to its end."""
        return self.previous if self.previous and self.previous.state == "finished" else None

    def running(self, step: int, total: int) -> None:
        """`step` of `total` are done. Cheap: it is written down every few seconds."""
        self._set("running", step, total)
        if time.monotonic() - self._written > _STATUS_SECONDS:
            self._write_if_it_can()

    def finished_now(self, total: int) -> None:
        self._set("finished", total, total)
        self._write_if_it_can()

    def _end(self, state: State) -> None:
        """The run has ended, `state` says how unless it has finished."""
        if self.status.state == "running":
            self._set(state, self.status.step, self.status.total)
            self._write_if_it_can()

    def _set(self, state: State, step: int, total: int) -> None:
        self.status = replace(self.status, state=state, step=step, total=total, updated=_now())

    def _write_if_it_can(self) -> None:
        with suppress(OSError):
            self._write()

    def _write(self) -> None:
        replace_file(self.folder / _STATUS, as_json(asdict(self.status)))
        self._written = time.monotonic()


@contextmanager
def claim(work_dir: Path, *, label: str, resume: bool) -> Iterator[RunPlace]:
    """Hold `work_dir`, made if need be, for the run of the config `label` until the block ends.

    With `resume` a folder with a run in it may be claimed, also one that has finished: `finished()` of
    the RunPlace says so, and its status stays as it is. Without, only one in which there is nothing to
    lose: new, empty, or of a run that never came to its first checkpoint. What a killed run left half
    written is cleared away.

    The status becomes "failed" if the block raises, "stopped" if it ends before the run has finished.
    Raises OutputError where it may not be claimed, naming the holder of one in use. Processes forked in
    the block hold the lock until they end too.
    """
    _refuse(problems_with_work_dir(work_dir, resume=resume))
    with _held(work_dir, label) as note:
        tidy_checkpoints(work_dir)
        # Now that nobody can change it any more, once again.
        _refuse(_problems_inside(work_dir, resume=resume))
        place = RunPlace(work_dir, label, find_run(work_dir), note)
        with _status_kept(place):
            yield place


@contextmanager
def _held(work_dir: Path, label: str) -> Iterator[str | None]:
    """Hold the lock inside the block; yields what the user should know about it."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        lock = take_lock(work_dir, label)
    except InUseError as error:
        raise OutputError(_in_use(work_dir, error.holder)) from None
    except OSError as error:
        raise _unusable(work_dir, error) from error
    try:
        text = tr("The disk of {path} knows no locks: take care to start one run at a time there.")
        yield None if lock.works else text.format(path=work_dir)
    finally:
        lock.release()


@contextmanager
def _status_kept(place: RunPlace) -> Iterator[None]:
    """The status says "running" inside the block, and how it ended behind it."""
    if place.finished():
        yield
        return
    try:
        place._write()  # where not even this can be written, nothing else can
    except OSError as error:
        raise _unusable(place.folder, error) from error
    try:
        yield
    except KeyboardInterrupt:
        place._end("stopped")
        raise
    except BaseException:
        place._end("failed")
        raise
    place._end("stopped")


def find_run(work_dir: Path) -> RunStatus | None:
    """The status of the run in `work_dir`; None where there is none, or none that can be read."""
    try:
        return RunStatus(**json.loads((work_dir / _STATUS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def problems_with_work_dir(work_dir: Path, *, resume: bool) -> list[str]:
    """Why a run may not use `work_dir`, each with the cure; empty if it may. Changes nothing.

    That this process holds it itself is no problem: a run may ask again once it has claimed its folder.
    """
    try:
        holder = used_by(work_dir)
        if holder and not holder.is_this_process:
            return [_in_use(work_dir, holder)]
        return _problems_inside(work_dir, resume=resume)
    except (OSError, RuntimeError) as error:  # too long a name, a circle of links, …
        return [str(_unusable(work_dir, error))]


def _problems_inside(work_dir: Path, *, resume: bool) -> list[str]:
    if not work_dir.exists():
        return []
    if not work_dir.is_dir():
        return [tr("The work folder {path} is a file.").format(path=work_dir)]
    if not (work_dir / _STATUS).exists():
        return _problems_with_a_stranger(work_dir)
    status = find_run(work_dir)
    if status is None:
        text = tr("{path} cannot be read. Choose another --work-dir, or remove the whole folder.")
        return [text.format(path=work_dir / _STATUS)]
    if resume:
        return []
    if status.state == "finished":
        text = tr(
            "{path} holds the finished run of {config} ({updated}). Choose another --work-dir, or "
            "remove the folder."
        )
        return [text.format(path=work_dir, config=status.config, updated=status.updated)]
    if last := last_checkpoint(work_dir):
        text = tr(
            "{path} holds a run of {config} that did not finish. Go on from {checkpoint} with --resume, "
            "choose another --work-dir, or remove the folder."
        )
        return [text.format(path=work_dir, config=status.config, checkpoint=last.name)]
    return []


def _problems_with_a_stranger(work_dir: Path) -> list[str]:
    others = sorted(path.name for path in work_dir.iterdir() if path.name not in _OURS)
    if not others:
        return []
    text = tr(
        "{path} holds files that are not of a training run ({name}). Choose another --work-dir."
    )
    return [text.format(path=work_dir, name=others[0] + (", …" if others[1:] else ""))]


def _refuse(problems: list[str]) -> None:
    if problems:
        raise OutputError("\n".join(problems))


def _unusable(work_dir: Path, error: Exception) -> OutputError:
    text = tr("The work folder {path} cannot be used: {reason}. Choose another --work-dir.")
    return OutputError(text.format(path=work_dir, reason=getattr(error, "strerror", None) or error))


def _in_use(work_dir: Path, holder: Holder) -> str:
    text = tr("{path} is in use by {holder}. Wait for it, stop it, or choose another --work-dir.")
    return text.format(path=work_dir, holder=holder)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
