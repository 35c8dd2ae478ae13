"""Conversations to files others can read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from whoamai.errors import OutputError
from whoamai.messages import tr
from whoamai.samples import Conversation


def write_messages(conversations: Iterable[Conversation], path: Path) -> None:
    """One {"messages": [{"role", "content"}, …]} a line (OpenAI's form), complete or not at all.

    Raises OutputError where the file exists or cannot be written.
    """
    if path.exists():
        raise OutputError(tr("{path} exists already. Choose another name.").format(path=path))
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            for conversation in conversations:
                row = {"messages": conversation.as_chat()}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(
            tr("{path} cannot be written: {reason}").format(path=path, reason=error.strerror)
        ) from error
