"""Data files to Conversations. Every form a file may have is known here and nowhere further in.

Known rows: XTuner {"conversation": [{"system", "input", "output"}]}, OpenAI {"messages": [{"role",
"content"}]}, ShareGPT {"conversations": [{"from", "value"}]}, Alpaca {"instruction", "input",
"output", "history": [[user, assistant], …]}; "system" may stand beside any of the last three. A
file is JSON lines or one JSON array, UTF-8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from whoamai.errors import DataError
from whoamai.messages import tr
from whoamai.samples import Conversation, Message

_SHOWN_PROBLEMS = 3
_SHAREGPT_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant"}
_SHAREGPT_ROLES |= {"assistant": "assistant"}


class _RowProblem(Exception):
    """What is wrong with one row; gathered and told together."""


def read_conversations(path: Path) -> list[Conversation]:
    """All rows of `path`. Raises DataError naming the first bad rows and how many there are."""
    conversations, problems = [], []
    for number, row in _rows(path):
        try:
            conversations.append(_conversation(row, f"{path.name}:{number}"))
        except _RowProblem as problem:
            problems.append(f"  {path.name}:{number}: {problem}")
    if problems:
        shown = "\n".join(problems[:_SHOWN_PROBLEMS])
        raise DataError(
            tr("{path}: {n} rows cannot be used. The first:\n{shown}").format(
                path=path, n=len(problems), shown=shown
            )
        )
    if not conversations:
        raise DataError(tr("{path} holds no rows. Give a file with data.").format(path=path))
    return conversations


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(number, row): the line's number in JSON lines, the element's number (from 1) in an array."""
    text = _text(path)
    if not text.strip():
        raise DataError(tr("{path} is empty. Give a file with data.").format(path=path))
    if text.lstrip().startswith("["):
        try:
            array = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: also numbers without end
            raise DataError(
                tr("{path} is not JSON: {error}").format(path=path, error=error)
            ) from None
        yield from enumerate(array, 1)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                tr("{path}:{number} is not JSON: {error}").format(
                    path=path, number=number, error=error
                )
            ) from None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(tr("There is no file {path}.").format(path=path)) from None
    except UnicodeDecodeError as error:
        raise DataError(
            tr("{path} is not UTF-8 text (byte {at}). Save it as UTF-8.").format(
                path=path, at=error.start
            )
        ) from None
    except OSError as error:
        raise DataError(
            tr("{path} cannot be read: {error}").format(path=path, error=error.strerror)
        ) from None


def _conversation(row: Any, source: str) -> Conversation:
    if not isinstance(row, Mapping):
        raise _RowProblem(tr("the row is not an object"))
    forms: dict[str, Callable[[Any], list[Message]]] = {
        "conversation": lambda r: _xtuner(r["conversation"]),
        "messages": lambda r: _with_system(r, _openai(r["messages"])),
        "conversations": lambda r: _with_system(r, _sharegpt(r["conversations"])),
        "output": _alpaca,
    }
    for key, read in forms.items():
        if key in row:
            return Conversation(_checked(read(row)), source)
    raise _RowProblem(
        tr("no known form; it has the fields {fields}, and one of {known} is needed").format(
            fields=", ".join(map(str, row)) or "-", known=", ".join(forms)
        )
    )


def _with_system(row: Any, messages: list[Message]) -> list[Message]:
    """The turns behind the system prompt that stands beside them in the row, if one does."""
    system = _string(row, "system", optional=True)
    if not system:
        return messages
    if messages[0].role != "system":
        return [Message("system", system), *messages]
    if messages[0].text != system:
        raise _RowProblem(tr("there are two system prompts, and they differ"))
    return messages


def _xtuner(turns: Any) -> list[Message]:
    system = _string(_list(turns, "conversation")[0], "system", optional=True)
    messages = [Message("system", system)] if system else []
    for turn in turns:
        if _string(turn, "system", optional=True) not in ("", system):
            raise _RowProblem(tr("a later turn has a system prompt of its own"))
        messages.append(Message("user", _string(turn, "input", optional=True)))
        messages.append(Message("assistant", _string(turn, "output"), trained=True))
    return messages


def _openai(turns: Any) -> list[Message]:
    messages = []
    for turn in _list(turns, "messages"):
        role = _string(turn, "role")
        if role not in ("system", "user", "assistant"):
            raise _RowProblem(tr('the role "{role}" is not known').format(role=role))
        messages.append(Message(role, _string(turn, "content"), trained=role == "assistant"))
    return messages


def _sharegpt(turns: Any) -> list[Message]:
    messages = []
    for turn in _list(turns, "conversations"):
        sender = _string(turn, "from")
        if sender not in _SHAREGPT_ROLES:
            raise _RowProblem(tr('the role "{role}" is not known').format(role=sender))
        role = _SHAREGPT_ROLES[sender]
        messages.append(Message(role, _string(turn, "value"), trained=role == "assistant"))  # type: ignore[arg-type]
    return messages


def _alpaca(row: Any) -> list[Message]:
    parts = [_string(row, key, optional=True) for key in ("instruction", "input")]
    messages = [
        *_history(row.get("history") or []),
        Message("user", "\n".join(p for p in parts if p)),
        Message("assistant", _string(row, "output"), trained=True),
    ]
    return _with_system(row, messages)


def _history(pairs: Any) -> list[Message]:
    """Alpaca's earlier turns; their replies are trained on like the last."""
    messages = []
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise _RowProblem(tr("history is not a list of [user, assistant] pairs"))
        turn = {"history question": pair[0], "history reply": pair[1]}
        messages.append(Message("user", _string(turn, "history question")))
        messages.append(Message("assistant", _string(turn, "history reply"), trained=True))
    return messages


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise _RowProblem(tr("{field} is not a list of turns").format(field=field))
    return value


def _string(turn: Any, key: str, *, optional: bool = False) -> str:
    value = turn.get(key) if isinstance(turn, Mapping) else None
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        kind = {dict: tr("an object"), list: tr("a list"), type(None): tr("missing")}.get(
            type(value), type(value).__name__
        )
        raise _RowProblem(tr("{key} is {kind} where text belongs").format(key=key, kind=kind))
    if re.search("[\ud800-\udfff]", value):  # JSON can hold it; no tokenizer and no file can
        raise _RowProblem(tr("{key} holds half of a character (a lone surrogate)").format(key=key))
    return value


def _checked(messages: list[Message]) -> tuple[Message, ...]:
    """An optional system turn, then user and assistant in alternation, ending in a filled reply."""
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    expected = ["user" if i % 2 == 0 else "assistant" for i in range(len(turns))]
    if [t.role for t in turns] != expected or not turns or turns[-1].role != "assistant":
        raise _RowProblem(tr("the turns do not go user, assistant, user, assistant"))
    if any(t.role == "assistant" and not t.text.strip() for t in turns):
        raise _RowProblem(tr("a reply is empty"))
    return tuple(messages)
