"""Files to write: complete or absent, never over an input, conversations in a form others can read."""

from __future__ import annotations

import gzip
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from whoamai.errors import OutputError
from whoamai.messages import tr
from whoamai.samples import Conversation


def write_messages(conversations: Iterable[Conversation], path: Path) -> None:
    """One {"messages": [{"role", "content"}, …]} a line (OpenAI's form), complete or not at all.

    Gzipped where the name ends in .gz; its folder is made if need be. Raises OutputError where the file
    exists or cannot be written.
    """
    path = checked_out(path, (), overwrite=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None
    with complete_file(path) as file:
        for conversation in conversations:
            row = {"messages": conversation.as_chat()}
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8"))


def checked_out(out: Path, inputs: Sequence[Path], *, overwrite: bool) -> Path:
    """`out` with links followed, if it may be written.

    Raises OutputError where it is one of the inputs (also through links of either sort), no file (a
    folder, a device), or there already and not to be replaced.
    """
    if not os.path.lexists(out):
        return out
    try:
        there = out.stat()
    except FileNotFoundError:  # a link to nothing
        there = None
    except OSError as error:
        raise _unwritable(out, error) from None
    if there and any(_is_file(there, file) for file in inputs):
        raise OutputError(
            tr("{path} is the input file itself. Choose another name for the result.").format(
                path=out
            )
        )
    if there and not stat.S_ISREG(there.st_mode):
        raise OutputError(tr("{path} is not a file. Choose another name.").format(path=out))
    if not overwrite:
        raise OutputError(tr("{path} exists already. Choose another name.").format(path=out))
    return Path(os.path.realpath(out))


def _is_file(there: os.stat_result, file: Path) -> bool:
    try:
        return os.path.samestat(there, file.stat())
    except OSError:  # an input that cannot be looked at is told when it is read
        return False


@contextmanager
def complete_file(path: Path, *, compress: bool | None = None) -> Iterator[IO[bytes]]:
    """A file beside `path` that takes its name when the block ends well, and is gone otherwise.

    compress: gzip what is written, the same bytes for the same content; by the ending .gz if None.

    Raises OutputError where it cannot be written; errors about other files stay what they are.
    """
    if compress is None:
        compress = path.suffix.lower() == ".gz"
    # Not named after `path`: with anything added, a name of full length would be too long.
    partial = path.with_name(f".whoamai-{secrets.token_hex(8)}.partial")
    try:
        with _writing_errors(path, partial):
            with partial.open("xb") as file:
                if compress:
                    # No name and no time inside: they would differ from one writing to the next.
                    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as zipped:
                        yield zipped  # type: ignore[misc]
                else:
                    yield file
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
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or error
    return OutputError(tr("{path} cannot be written: {reason}").format(path=path, reason=reason))
