"""Conversations to files others can read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from whoamai.errors import OutputError
from whoamai.messages import tr
from whoamai.samples import Conversation


def write_messages(conversations: Iterable[Conversation], path: Path) -> None:
    """One {"messages": [{"role", "content"}, …]} a line (OpenAI's form), complete or not at all.

    Raises OutputError where the file exists or cannot be written.
    """
    refuse_existing(path)
    with complete_file(path) as file:
        for conversation in conversations:
            row = {"messages": conversation.as_chat()}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def refuse_existing(path: Path) -> None:
    """Raise OutputError where something of that name is there already."""
    if os.path.lexists(path):
        raise OutputError(tr("{path} exists already. Choose another name.").format(path=path))


def refuse_own_input(path: Path, inputs: Sequence[Path], *, overwrite: bool = False) -> None:
    """Raise OutputError where `path` is one of the inputs, or exists and may not be replaced."""
    for source in inputs:
        if path.exists() and source.exists() and os.path.samefile(path, source):
            raise OutputError(
                tr("{path} is the input itself. Write to another file.").format(path=path)
            )
    if not overwrite:
        refuse_existing(path)


@contextmanager
def complete_file(path: Path) -> Iterator[TextIO]:
    """A file beside `path` that takes its name when the block ends well, and is gone otherwise.

    Raises OutputError where it cannot be written.
    """
    # Not named after `path`: with anything added, a name of full length would be too long.
    partial = path.with_name(f".whoamai-{os.getpid()}.partial")
    try:
        with _writing_errors(path, partial):
            file = partial.open("w", encoding="utf-8", newline="\n")
        with file, _writing_errors(path, partial):
            yield file
        with _writing_errors(path, partial):
            os.replace(partial, path)
    finally:
        with suppress(OSError):  # gone by now, or never there
            partial.unlink()


@contextmanager
def _writing_errors(path: Path, partial: Path) -> Iterator[None]:
    """Errors of the disk as OutputError; those about other files stay what they are."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError) or error.filename not in (None, str(partial)):
            raise
        raise OutputError(
            tr("{path} cannot be written: {reason}").format(path=path, reason=error.strerror)
        ) from error
