"""Folders and files that are complete or absent, also when the process or the machine dies.

A folder is written as `.NAME.partial`. Every file in it is forced onto the disk, then a manifest of
their sizes and checksums, then it is renamed to NAME. So a folder that has its name was complete once,
and its manifest tells whether it still is. One to be removed is renamed to `.NAME.removed` first: it
is never seen half there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from whoamai.messages import tr

MANIFEST = "COMPLETE"

_PARTIAL = ".partial"
_REMOVED = ".removed"
# Files up to this size are hashed; larger ones get a CRC, which costs about as much as reading them.
_SMALL_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 22


@contextmanager
def durable_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` that takes its name once everything in it is on the disk.

    If the block fails, the new one is gone and what was there before is untouched. Raises OSError where
    the disk refuses.
    """
    partial = folder.with_name(f".{folder.name}{_PARTIAL}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        _seal(partial)
        _put_in_place(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    with suppress(OSError):  # the one it replaced
        shutil.rmtree(_removed(folder))


def remove_folder(folder: Path) -> None:
    """Remove `folder` such that it is never seen half there. Raises OSError."""
    _set_aside(folder)
    shutil.rmtree(_removed(folder))


def tidy(parent: Path) -> None:
    """Clear away what killed processes left in `parent`; nobody else may be writing there.

    A partial folder that was complete but for its name gets it, unless the name is taken by now.
    """
    for partial in sorted(parent.glob(f".*{_PARTIAL}")):
        folder = partial.with_name(partial.name[1 : -len(_PARTIAL)])
        if problem_with(partial) is None and not folder.exists():
            with suppress(OSError):  # it stays for the next time
                os.replace(partial, folder)
        else:
            shutil.rmtree(partial, ignore_errors=True)
    for removed in parent.glob(f".*{_REMOVED}"):
        shutil.rmtree(removed, ignore_errors=True)


def problem_with(folder: Path, *, thorough: bool = False) -> str | None:
    """Why `folder` is not complete, None if it is.

    Compares sizes, and the content of small files; with `thorough` every byte is read.
    """
    try:
        files: dict[str, dict[str, Any]] = json.loads((folder / MANIFEST).read_bytes())["files"]
        for name, told in files.items():
            path = folder / name
            if not path.is_file():
                return tr("{file} is missing").format(file=name)
            if path.stat().st_size != told["size"]:
                return tr("{file} has {size} bytes instead of {told}").format(
                    file=name, size=path.stat().st_size, told=told["size"]
                )
            if (thorough or "sha256" in told) and _facts(path) != told:
                return tr("{file} is damaged").format(file=name)
    except FileNotFoundError:
        return tr("{file} is missing").format(file=MANIFEST)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return tr("{file} cannot be read").format(file=MANIFEST)
    return None


def replace_file(path: Path, content: bytes) -> None:
    """Give `path` this content, whole or not at all. Raises OSError."""
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        partial.write_bytes(content)
        _sync_file(partial)
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):  # has its name by now, or never was there
            partial.unlink()


def as_json(value: Any) -> bytes:
    """A file's content, for people to read too. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    return (text + "\n").encode("utf-8")


def _put_in_place(partial: Path, folder: Path) -> None:
    """Give `partial` the name `folder`; what has it now comes back if that fails."""
    if folder.exists():
        _set_aside(folder)
    try:
        os.replace(partial, folder)
    except BaseException:
        if _removed(folder).exists():
            os.replace(_removed(folder), folder)
        raise
    _sync_folder(folder.parent)


def _seal(folder: Path) -> None:
    """Force what is in `folder` onto the disk, then say in its manifest what that is."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    for file in files:
        _sync_file(file)
    for inner in (p for p in folder.rglob("*") if p.is_dir()):
        _sync_folder(inner)
    listing = {file.relative_to(folder).as_posix(): _facts(file) for file in files}
    (folder / MANIFEST).write_bytes(as_json({"files": listing}))
    _sync_file(folder / MANIFEST)
    _sync_folder(folder)


def _facts(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    if size <= _SMALL_BYTES:
        return {"size": size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    crc = 0
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return {"size": size, "crc32": crc}


def _removed(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_REMOVED}")


def _set_aside(folder: Path) -> None:
    shutil.rmtree(_removed(folder), ignore_errors=True)
    os.replace(folder, _removed(folder))


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """A new or changed name is on the disk once its folder is."""
    if os.name == "nt":  # has no way to say this
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
