"""One row to messages. Every form a row may have is known here and nowhere further in.

    xtuner     {"conversation": [{"system", "input", "output"}, …]}
    openai     {"messages": [{"role", "content"}, …]}
    sharegpt   {"conversations": [{"from", "value"}, …]}
    alpaca     {"instruction", "input", "output", "history": [[user, assistant], …]}
    query      {"query", "response", "history"} (ms-swift); also prompt/completion, prompt/response,
               question/answer

"system" may stand beside any of them. A row is read as far as it can be: `Reading` holds the messages,
or everything that is wrong with the row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from whoamai.messages import tr
from whoamai.samples import Message, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_QUERY_KEYS = (
    ("query", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
)
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row: its kind (data/lint_kinds.py), the field, and the value found there."""

    kind: str
    field: str
    text: str
    value: Any = None


@dataclass(slots=True)
class Reading:
    """One row read. `messages` can be trained on where `problems` is empty.

    With problems they are what could be read: an object where text belongs is left out as "".
    """

    form: str | None = None
    messages: list[Message] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def recognise(row: Any) -> str | None:
    """The form of a row, by its keys; None where it has none of them."""
    if not isinstance(row, Mapping):
        return None
    for key, form in (
        ("conversation", "xtuner"),
        ("messages", "openai"),
        ("conversations", "sharegpt"),
    ):
        if key in row:
            return form
    if any(all(key in row for key in keys) for keys in _QUERY_KEYS):
        return "query"
    return "alpaca" if "output" in row else None


def read_row(row: Any) -> Reading:
    """`row` as messages, with everything that is wrong with it."""
    form = recognise(row)
    reading = Reading(form)
    if form is None:
        reading.problems.append(_no_form(row))
        return reading
    _FORMS[form](row, reading)
    if not reading.problems:
        _check_turns(reading)
    return reading


def _no_form(row: Any) -> Problem:
    if not isinstance(row, Mapping):
        return Problem("unknown-form", "", tr("the row is not an object"), row)
    known = ", ".join(("conversation", "messages", "conversations", "output", "query"))
    text = tr("no known form; it has the fields {fields}, and one of {known} is needed")
    return Problem(
        "unknown-form", "", text.format(fields=", ".join(map(str, row)) or "-", known=known), row
    )


# ---- the forms -----------------------------------------------------------------------------------


def _xtuner(row: Any, reading: Reading) -> None:
    for at, turn in enumerate(_list(row, "conversation", reading)):
        place = f"conversation[{at}]"
        if system := _string(turn, "system", place, reading, needed=False):
            reading.messages.append(Message("system", system))
        question = _string(turn, "input", place, reading, needed=False)
        reading.messages.append(Message("user", question))
        reply = _string(turn, "output", place, reading)
        trained = not isinstance(turn, Mapping) or turn.get("output_with_loss", True) is not False
        reading.messages.append(Message("assistant", reply, trained))


def _openai(row: Any, reading: Reading) -> None:
    for at, turn in enumerate(_list(row, "messages", reading)):
        _message(turn, f"messages[{at}]", ("role", "content"), reading)
    _system_beside(row, reading)


def _sharegpt(row: Any, reading: Reading) -> None:
    turns = _list(row, "conversations", reading)
    keys = ("from", "value")
    if turns and isinstance(turns[0], Mapping) and "role" in turns[0]:
        keys = ("role", "content")
    for at, turn in enumerate(turns):
        _message(turn, f"conversations[{at}]", keys, reading)
    _system_beside(row, reading)


def _alpaca(row: Any, reading: Reading) -> None:
    _history(row, reading)
    parts = [_string(row, key, "", reading, needed=False) for key in ("instruction", "input")]
    reading.messages.append(Message("user", "\n".join(p for p in parts if p)))
    reading.messages.append(Message("assistant", _string(row, "output", "", reading), trained=True))
    _system_beside(row, reading)


def _query(row: Any, reading: Reading) -> None:
    asked, answered = next(keys for keys in _QUERY_KEYS if all(key in row for key in keys))
    if isinstance(row[asked], list) and isinstance(row[answered], list):  # TRL: lists of messages
        for key in (asked, answered):
            for at, turn in enumerate(row[key]):
                _message(turn, f"{key}[{at}]", ("role", "content"), reading)
    else:
        _history(row, reading)
        reading.messages.append(Message("user", _string(row, asked, "", reading)))
        reply = _string(row, answered, "", reading)
        reading.messages.append(Message("assistant", reply, trained=True))
    _system_beside(row, reading)


_FORMS: dict[str, Callable[[Any, Reading], None]] = {
    "xtuner": _xtuner,
    "openai": _openai,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "query": _query,
}


def _message(turn: Any, place: str, keys: tuple[str, str], reading: Reading) -> None:
    """One turn that says who speaks; `weight` 0 or `loss` false takes a reply out of the training."""
    who = _string(turn, keys[0], place, reading)
    if who and who not in _ROLES:
        text = tr('the role "{role}" is not known').format(role=who)
        reading.problems.append(Problem("unknown-role", f"{place}.{keys[0]}", text, who))
        return
    role = _ROLES.get(who, "user")
    text = _string(turn, keys[1], place, reading, parts=True)
    left_out = isinstance(turn, Mapping) and (turn.get("weight") == 0 or turn.get("loss") is False)
    reading.messages.append(Message(role, text, trained=role == "assistant" and not left_out))


def _history(row: Any, reading: Reading) -> None:
    """Earlier turns of Alpaca and query rows; their replies are trained on like the last."""
    pairs = row.get("history") or []
    for at, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
        place = f"history[{at}]"
        if not isinstance(pair, list) or len(pair) != 2:
            text = tr("history is not a list of [user, assistant] pairs")
            reading.problems.append(Problem("no-turns", place, text, pair))
            continue
        named = {"[0]": pair[0], "[1]": pair[1]}
        reading.messages.append(Message("user", _string(named, "[0]", place, reading)))
        reply = _string(named, "[1]", place, reading)
        reading.messages.append(Message("assistant", reply, trained=True))


def _system_beside(row: Any, reading: Reading) -> None:
    """The system prompt that stands beside the turns, put before them."""
    system = _string(row, "system", "", reading, needed=False)
    if not system:
        return
    if not reading.messages or reading.messages[0].role != "system":
        reading.messages.insert(0, Message("system", system))
    elif reading.messages[0].text != system:
        text = tr("there are two system prompts, and they differ")
        reading.problems.append(Problem("two-systems", "system", text, system))


# ---- fields --------------------------------------------------------------------------------------


def _list(row: Any, key: str, reading: Reading) -> list[Any]:
    value = row[key]
    if isinstance(value, list) and value:
        return value
    text = tr("{field} is not a list of turns").format(field=key)
    reading.problems.append(Problem("no-turns", key, text, value))
    return []


def _string(
    turn: Any, key: str, place: str, reading: Reading, *, needed: bool = True, parts: bool = False
) -> str:
    """The text of a field; "" and a problem where it holds something else."""
    value = turn.get(key) if isinstance(turn, Mapping) else None
    if parts and isinstance(value, list) and (joined := joined_parts(value)) is not None:
        value = joined
    if isinstance(value, str):
        if not value.isascii() and _HALF_CHARACTER.search(value):
            text = tr("{key} holds half of a character (a lone surrogate)").format(key=key)
            reading.problems.append(Problem("half-character", _at(place, key), text, value))
            return ""
        return value
    if value is None and not needed:
        return ""
    reading.problems.append(_not_text(turn, key, place, value))
    return ""


def joined_parts(value: list[Any]) -> str | None:
    """OpenAI's [{"type": "text", "text": …}, …] as one text; None if a part is no text."""
    texts = [p.get("text") if isinstance(p, Mapping) else None for p in value]
    return "".join(texts) if texts and all(isinstance(t, str) for t in texts) else None  # type: ignore[arg-type]


def _not_text(turn: Any, key: str, place: str, value: Any) -> Problem:
    if not isinstance(turn, Mapping):
        text = tr("{field} is not an object").format(field=place)
        return Problem("no-turns", place, text, turn)
    kinds = {dict: tr("an object"), list: tr("a list"), type(None): tr("missing")}
    kind = kinds.get(type(value), type(value).__name__)
    text = tr("{key} is {kind} where text belongs").format(key=key, kind=kind)
    name = "nested-object" if isinstance(value, dict | list) else "not-text"
    return Problem(name, _at(place, key), text, value)


def _at(place: str, key: str) -> str:
    return f"{place}{key}" if key.startswith("[") else f"{place}.{key}" if place else key


# ---- the turns together --------------------------------------------------------------------------


def _check_turns(reading: Reading) -> None:
    """Before any user turn a system message may stand; user and assistant alternate; a reply is last."""
    turns = [m for m in reading.messages if m.role != "system"]
    expected = ("user", "assistant")
    out_of_order = any(t.role != expected[i % 2] for i, t in enumerate(turns))
    before_reply = any(
        a.role == "system" and b.role != "user"
        for a, b in zip(reading.messages, reading.messages[1:], strict=False)
    )
    if not turns or out_of_order or before_reply or reading.messages[-1].role != "assistant":
        text = tr("the turns do not go user, assistant, user, assistant")
        roles = " ".join(m.role for m in reading.messages)
        kind = "no-reply" if not any(t.role == "assistant" for t in turns) else "role-order"
        reading.problems.append(Problem(kind, "", text, roles))
        return
    for message in turns:
        if message.role == "assistant" and not message.text.strip():
            reading.problems.append(Problem("empty-reply", "", tr("a reply is empty")))
    if not any(t.trained for t in turns):
        text = tr("no reply of the row is trained on")
        reading.problems.append(Problem("no-reply", "", text))


# ---- the places of the texts ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextField:
    """Where a text of a row lies or should lie: `holder[key]`. What is there need not be text."""

    holder: Any
    key: Any
    role: Role
    place: str

    @property
    def value(self) -> Any:
        return self.holder.get(self.key) if isinstance(self.holder, dict) else self.holder[self.key]

    def put(self, text: str) -> None:
        self.holder[self.key] = text


def text_fields(row: Any) -> list[TextField]:
    """The places of a row's texts, in the order they are said; none where the form is not known."""
    form = recognise(row)
    if form is None:
        return []
    beside = [TextField(row, "system", "system", "system")] if row.get("system") else []
    if form == "xtuner":
        return _xtuner_fields(row["conversation"])
    if form in ("openai", "sharegpt"):
        key = "messages" if form == "openai" else "conversations"
        return beside + _message_fields(row[key], key)
    if form == "query":
        asked, answered = next(keys for keys in _QUERY_KEYS if all(key in row for key in keys))
        if isinstance(row[asked], list) and isinstance(row[answered], list):
            messages = [_message_fields(row[key], key) for key in (asked, answered)]
            return beside + messages[0] + messages[1]
        last = [
            TextField(row, asked, "user", asked),
            TextField(row, answered, "assistant", answered),
        ]
        return beside + _history_fields(row) + last
    keys = [key for key in ("instruction", "input") if row.get(key) is not None] or ["instruction"]
    asked_fields = [TextField(row, key, "user", key) for key in keys]
    reply = TextField(row, "output", "assistant", "output")
    return beside + _history_fields(row) + asked_fields + [reply]


def _xtuner_fields(turns: Any) -> list[TextField]:
    roles: dict[str, Role] = {"system": "system", "input": "user", "output": "assistant"}
    return [
        TextField(turn, key, role, f"conversation[{at}].{key}")
        for at, turn in enumerate(turns if isinstance(turns, list) else [])
        if isinstance(turn, dict)
        for key, role in roles.items()
        if turn.get(key) or key != "system"
    ]


def _message_fields(turns: Any, place: str) -> list[TextField]:
    fields = []
    for at, turn in enumerate(turns if isinstance(turns, list) else []):
        if not isinstance(turn, dict):
            continue
        who_key, key = ("from", "value") if "role" not in turn else ("role", "content")
        who = turn.get(who_key)
        if isinstance(who, str) and who in _ROLES:
            fields.append(TextField(turn, key, _ROLES[who], f"{place}[{at}].{key}"))
    return fields


def _history_fields(row: Any) -> list[TextField]:
    roles: tuple[Role, Role] = ("user", "assistant")
    pairs = row.get("history")
    return [
        TextField(pair, at, roles[at], f"history[{number}][{at}]")
        for number, pair in enumerate(pairs if isinstance(pairs, list) else [])
        if isinstance(pair, list) and len(pair) == 2
        for at in (0, 1)
    ]
