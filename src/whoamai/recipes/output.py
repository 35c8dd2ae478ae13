"""A job's output folder: complete or absent, never mistaken for somebody else's."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from whoamai.errors import OutputError
from whoamai.messages import tr

# Free space asked for beyond what will be written, for the report and the events.
_SPARE_BYTES = 16 << 20
# Every finished job leaves this file; a folder without it is not ours to replace.
_SIGN = "report.json"


def folder_name(name: str) -> str:
    """The name as a folder's: letters and digits of any script stay, the rest becomes "_".

    >>> folder_name("O'Neil {x}")
    'O_Neil__x_'
    """
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name).strip(".") or "renamed"


def problems_with_folder(folder: Path, *, overwrite: bool) -> list[str]:
    """Why results cannot go to `folder`; empty if they can."""
    if folder.exists() and not folder.is_dir():
        return [tr("--out {path} is a file, not a folder.").format(path=folder)]
    if not folder.exists() or not any(folder.iterdir()):
        return []
    if not overwrite:
        text = tr("{path} is not empty. Choose another --out, or say --overwrite.")
        return [text.format(path=folder)]
    if not (folder / _SIGN).is_file():
        text = tr(
            "{path} holds something that whoamai did not write, so --overwrite does not touch it. "
            "Choose another --out."
        )
        return [text.format(path=folder)]
    return []


def check_space(folder: Path, needed: int) -> None:
    """Raise OutputError unless `needed` bytes and a little more are free where `folder` will be."""
    needed += _SPARE_BYTES
    parent = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise OutputError(
            tr(
                "Not enough space for the results: {path} has {free} MiB free and {needed} MiB are "
                "needed. Free some space or choose another --out."
            ).format(path=parent, free=free >> 20, needed=-(-needed >> 20))
        )


@contextmanager
def complete_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` that takes its place once everything in it is written.

    If the block fails nothing is left but what was there before. Raises OutputError where the disk
    refuses.
    """
    folder = folder.absolute()
    partial = folder.with_name(f".{folder.name}.partial")
    replaced = folder.with_name(f".{folder.name}.replaced")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            folder.rename(replaced)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OutputError) or not _is_about_the_disk(error):
            raise
        raise OutputError(
            tr("The results cannot be written to {path}: {reason}").format(
                path=folder, reason=getattr(error, "strerror", None) or error
            )
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _is_about_the_disk(error: Exception) -> bool:
    """Full, read-only or forbidden; safetensors tells only in words."""
    if isinstance(error, OSError):
        refused = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)
        return error.errno in refused or isinstance(error, FileExistsError | NotADirectoryError)
    return "os error" in str(error).lower()
