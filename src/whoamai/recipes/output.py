"""A job's output folder: complete or absent, never mistaken for somebody else's."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from whoamai.errors import OutputError
from whoamai.messages import tr

# Free space asked for beyond what will be written, for the report and the events.
_SPARE_BYTES = 16 << 20
# Every finished job leaves this file; a folder without it is not ours to replace.
_SIGN = "report.json"
# Disks take names of 255 bytes; some are left for what complete_folder() adds.
_NAME_BYTES = 200


def folder_name(name: str) -> str:
    """The name as a folder's: letters and digits of any script stay, the rest becomes "_".

    >>> folder_name("O'Neil {x}")
    'O_Neil__x_'
    """
    plain = "".join(c if c.isalnum() or c in "-." else "_" for c in name)
    short = plain.encode()[:_NAME_BYTES].decode(errors="ignore")
    return short.strip(".") or "renamed"


def problems_with_folder(
    folder: Path, *, overwrite: bool, sign: str = _SIGN, option: str = "--out"
) -> list[str]:
    """Why results cannot go to `folder`; empty if they can.

    `sign` is the file that every finished job of this kind leaves; `option` is what the user gave the
    folder as.
    """
    try:
        return _problems_above(folder, option) or _problems_inside(folder, overwrite, sign, option)
    except (OSError, RuntimeError) as error:  # too long a name, a circle of links, …
        reason = getattr(error, "strerror", None) or error
        text = tr("{option} {path} cannot be used: {reason}")
        return [text.format(option=option, path=folder, reason=reason)]


def _problems_above(folder: Path, option: str) -> list[str]:
    """Is what holds the folder, or is to hold it, a folder that can be written to?"""
    parent = next(p for p in folder.resolve().parents if p.exists())
    if not parent.is_dir():
        text = tr("{option} {path} cannot be made: {parent} is a file.")
    elif not os.access(parent, os.W_OK | os.X_OK):
        text = tr("{option} {path} cannot be made: {parent} may not be written to.")
    else:
        return []
    return [text.format(option=option, path=folder, parent=parent)]


def _problems_inside(folder: Path, overwrite: bool, sign: str, option: str) -> list[str]:
    if folder.exists() and not folder.is_dir():
        return [tr("{option} {path} is a file, not a folder.").format(option=option, path=folder)]
    if not folder.exists() or not any(folder.iterdir()):
        return []
    if not overwrite:
        text = tr("{path} is not empty. Choose another {option}, or say --overwrite.")
        return [text.format(path=folder, option=option)]
    if not (folder / sign).is_file():
        text = tr(
            "{path} holds something that whoamai did not write, so --overwrite does not touch it. "
            "Choose another {option}."
        )
        return [text.format(path=folder, option=option)]
    return []


def check_space(folder: Path, needed: int, *, option: str = "--out") -> None:
    """Raise OutputError unless `needed` bytes and a little more are free where `folder` will be."""
    needed += _SPARE_BYTES
    folder = folder.resolve()
    parent = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise OutputError(
            tr(
                "Not enough space for the results: {path} has {free} MiB free and {needed} MiB are "
                "needed. Free some space or choose another {option}."
            ).format(path=parent, free=free >> 20, needed=-(-needed >> 20), option=option)
        )


def partial_of(folder: Path) -> Path:
    """Where complete_folder() writes what will become `folder`."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.partial")


@contextmanager
def complete_folder(
    folder: Path, *, go_on: bool = False, keep: Callable[[Path], bool] | None = None
) -> Iterator[Path]:
    """Yield a folder beside `folder` that takes its place once everything in it is written.

    If the block fails nothing is left but what was there before, or, where `keep` says of the folder
    that it is worth it, the folder itself: with `go_on` the next one begins with what is in it. A link
    stays, and what it leads to is replaced. Raises OutputError where the disk refuses.
    """
    partial, folder = partial_of(folder), folder.resolve()
    missing = [p for p in folder.parents if not p.exists()]
    try:
        with _disk_errors(folder):
            if not go_on:
                shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True, exist_ok=True)
            yield partial
            _put_in_place(partial, folder)
    except BaseException:
        if keep and keep(partial):
            raise
        shutil.rmtree(partial, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):  # never made, or holds something by now
                parent.rmdir()
        raise


def _put_in_place(partial: Path, folder: Path) -> None:
    """Give `partial` the name `folder`; what is there gives way only once that has worked."""
    replaced = folder.with_name(f".{folder.name}.replaced")
    if folder.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
    try:
        partial.rename(folder)
    except BaseException:
        if replaced.exists():
            replaced.rename(folder)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Errors of the disk as OutputError; others stay what they are."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OutputError) or not _is_about_the_disk(error):
            raise
        raise OutputError(
            tr("The results cannot be written to {path}: {reason}").format(
                path=folder, reason=getattr(error, "strerror", None) or error
            )
        ) from error


def _is_about_the_disk(error: Exception) -> bool:
    """Full, read-only or forbidden; safetensors tells only in words."""
    if isinstance(error, OSError):
        refused = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
        return error.errno in refused or isinstance(error, FileExistsError | NotADirectoryError)
    return "os error" in str(error).lower()
