"""Conversations to files others can read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
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
    if os.path.lexists(path):
        raise OutputError(tr("{path} exists already. Choose another name.").format(path=path))
    try:
        with _complete_file(path) as file:
            for conversation in conversations:
                row = {"messages": conversation.as_chat()}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as error:
        raise OutputError(
            tr("{path} cannot be written: {reason}").format(path=path, reason=error.strerror)
        ) from error


@contextmanager
def _complete_file(path: Path) -> Iterator[TextIO]:
    """A file beside `path` that takes its name when the block ends well, and is gone otherwise."""
    # Not named after `path`: with anything added, a name of full length would be too long.
    partial = path.with_name(f".whoamai-{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        os.replace(partial, path)
    finally:
        with suppress(OSError):  # gone by now, or never there
            partial.unlink()
