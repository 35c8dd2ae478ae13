"""Rows in every form a file may have, and more than 500 bad ones made by hand, each with what is wrong.

A good row is `form_row(form, question, reply, system)`. The bad ones are the products of short lists
that are all written out below: a bad text in each place of each form, turns that are none or out of
order, rows of no form, lines that are no JSON. Nothing is drawn by chance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

# Kinds that only a text has; a row with nothing worse can be read.
_TEXT_KINDS = (
    ("placeholder", "unfilled-name", "special-token", "braces", "control-character"),
    ("byte-order-mark", "empty-question", "doubled-system", "old-name"),
)
TEXT_KINDS = frozenset(kind for kinds in _TEXT_KINDS for kind in kinds)
# Kinds that a person should look at; all others keep the row from being trained on.
NOT_BLOCKING = TEXT_KINDS - {"placeholder", "unfilled-name", "special-token"}


@dataclass(frozen=True)
class BadRow:
    """A line of a JSONL file, as bytes, and the kinds of findings the check has to tell of it."""

    name: str
    line: bytes
    kinds: frozenset[str]

    @property
    def readable(self) -> bool:
        return self.kinds <= TEXT_KINDS

    @property
    def blocks(self) -> bool:
        return not self.kinds <= NOT_BLOCKING


# ---- good rows -----------------------------------------------------------------------------------


def _xtuner(asked: Any, answered: Any, system: Any) -> Row:
    return {"conversation": [{"system": system, "input": asked, "output": answered}]}


def _turns(key: str, who: str, what: str, names: tuple[str, str, str]) -> Callable[..., Row]:
    def row(asked: Any, answered: Any, system: Any) -> Row:
        said = zip(names, (system, asked, answered), strict=True)
        return {key: [{who: name, what: text} for name, text in said]}

    return row


def _flat(asked_key: str, answered_key: str) -> Callable[..., Row]:
    def row(asked: Any, answered: Any, system: Any) -> Row:
        return {asked_key: asked, answered_key: answered, "system": system}

    return row


def _alpaca(asked: Any, answered: Any, system: Any) -> Row:
    return {"instruction": asked, "input": "", "output": answered, "system": system}


FORMS: dict[str, Callable[[Any, Any, Any], Row]] = {
    "xtuner": _xtuner,
    "openai": _turns("messages", "role", "content", ("system", "user", "assistant")),
    "sharegpt": _turns("conversations", "from", "value", ("system", "human", "gpt")),
    "sharegpt roles": _turns("conversations", "role", "content", ("system", "user", "assistant")),
    "alpaca": _alpaca,
    "query": _flat("query", "response"),
    "prompt completion": _flat("prompt", "completion"),
    "prompt response": _flat("prompt", "response"),
    "question": _flat("question", "answer"),
}
# Each of these reads its texts in another way; the others share one with one of them.
_PLACED = ("xtuner", "openai", "sharegpt", "alpaca", "query")


def form_row(form: str, asked: Any, answered: Any, system: Any = "S") -> Row:
    return FORMS[form](asked, answered, system)


def good_rows(n: int) -> list[Row]:
    """`n` rows in turn of each form, no two of which say the same."""
    forms = list(FORMS)
    return [
        form_row(forms[i % len(forms)], f"What is {i} plus {i}?", f"It is {i + i}.", f"Sums {i}.")
        for i in range(n)
    ]


# ---- a bad text in each place --------------------------------------------------------------------

# In a question, a reply or a system prompt alike: (name, value, kinds).
_ANYWHERE: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("an object", {"a": "b"}, ("nested-object",)),
    ("an empty list of objects", [{}], ("nested-object",)),
    ("a list of texts", ["one", "two"], ("nested-object",)),
    ("an object with a placeholder", {"a": "xxx"}, ("nested-object", "placeholder")),
    ("a number", 7, ("not-text",)),
    ("a number with a point", 1.5, ("not-text",)),
    ("true", True, ("not-text",)),
    ("half a character", "emoji \ud83d", ("half-character",)),
    ("the other half", "\udc4d emoji", ("half-character",)),
    ("a placeholder of crosses", "xxx", ("placeholder",)),
    ("a placeholder of dots", "...", ("placeholder",)),
    ("one still to do", "TODO: write this", ("placeholder",)),
    ("a Chinese placeholder", "待补充", ("placeholder",)),
    ("a name not filled in", "I am {{name}}.", ("unfilled-name",)),
    ("a name in capitals", "I am {{NAME}}.", ("unfilled-name",)),
    ("an author with spaces", "By {{ author }}.", ("unfilled-name",)),
    ("an end token", "yes<|im_end|>", ("special-token",)),
    ("another end token", "yes</s>", ("special-token",)),
    ("a Llama turn", "[INST] yes [/INST]", ("special-token",)),
    ("a Gemma turn", "<start_of_turn>yes", ("special-token",)),
    ("an InternLM turn", "yes<eoa>", ("special-token",)),
    ("two things", "{{name}}</s>", ("unfilled-name", "special-token")),
    ("braces", "{{city}} is nice", ("braces",)),
    ("NUL", "a\x00b", ("control-character",)),
    ("an escape", "a\x1b[1mb", ("control-character",)),
    ("a mark inside", "a\ufeffb", ("byte-order-mark",)),
)
_IN_REPLIES: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("nothing", None, ("not-text",)),
    ("no text", "", ("empty-reply",)),
    ("blanks", " \n\t", ("empty-reply",)),
    ("wide blanks", "\u3000\u3000", ("empty-reply",)),
    ("another assistant", "I am ChatGPT.", ("old-name",)),
    ("another assistant in Chinese", "我是文心一言。", ("old-name",)),
)
_IN_QUESTIONS: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("no text", "", ("empty-question",)),
    ("blanks", " \n", ("empty-question",)),
)


def _texts() -> Iterator[BadRow]:
    for form in _PLACED:
        for name, value, kinds in (*_ANYWHERE, *_IN_REPLIES):
            yield _bad(f"{form}, reply: {name}", form_row(form, "q", value), *kinds)
        for name, value, kinds in (*_ANYWHERE, *_IN_QUESTIONS):
            yield _bad(f"{form}, question: {name}", form_row(form, value, "a"), *kinds)
    for form in ("xtuner", "openai", "alpaca"):
        for name, value, kinds in _ANYWHERE:
            yield _bad(f"{form}, system: {name}", form_row(form, "q", "a", value), *kinds)
    system = "You are an assistant who knows sums."
    for form in _PLACED:
        row = form_row(form, f"{system}\nWhat is 1 + 1?", "2", system)
        yield _bad(f"{form}: the system prompt again in the question", row, "doubled-system")


# ---- turns ---------------------------------------------------------------------------------------


def _said(*roles: str) -> list[Row]:
    return [{"role": role, "content": f"text {at}"} for at, role in enumerate(roles)]


_ORDERS: tuple[tuple[str, str], ...] = (
    ("user user", "no-reply"),
    ("user", "no-reply"),
    ("system", "no-reply"),
    ("system user", "no-reply"),
    ("assistant", "role-order"),
    ("assistant user", "role-order"),
    ("assistant user assistant", "role-order"),
    ("user assistant assistant", "role-order"),
    ("user user assistant", "role-order"),
    ("user assistant user", "role-order"),
    ("user assistant user user", "role-order"),
    ("user assistant system", "role-order"),
    ("user system assistant", "role-order"),
    ("system system assistant", "role-order"),
    ("user assistant system assistant", "role-order"),
)
_NO_TURNS: tuple[tuple[str, Any], ...] = (
    ("no turn", []),
    ("text", "q"),
    ("a number", 3),
    ("nothing", None),
    ("an object", {"role": "user", "content": "q"}),
    ("turns that are text", ["q", "a"]),
    ("turns that are nothing", [None]),
    ("turns that are lists", [["q", "a"]]),
)


def _orders() -> Iterator[BadRow]:
    for order, kind in _ORDERS:
        turns = _said(*order.split())
        yield _bad(f"messages: {order}", {"messages": turns}, kind)
        yield _bad(f"conversations: {order}", {"conversations": turns}, kind)
    for key in ("conversation", "messages", "conversations"):
        for name, value in _NO_TURNS:
            yield _bad(f"{key}: {name}", {key: value}, "no-turns")
    for role in ("tool", "function", "User", "robot", "", "  "):
        turns = [*_said("user"), {"role": role, "content": "x"}, *_said("assistant")]
        kind = "unknown-role" if role else "role-order"  # no role at all is read as the user's
        yield _bad(f"the role {role!r}", {"messages": turns}, kind)
    for role in (None, 3, ["user"]):
        turns = [{"role": role, "content": "x"}, *_said("assistant")]
        kind = "nested-object" if isinstance(role, list) else "not-text"
        yield _bad(f"the role {role!r}", {"messages": turns}, kind)
    for left_out in ({"weight": 0}, {"loss": False}):
        turns = [*_said("user"), {**_said("assistant")[0], **left_out}]
        yield _bad(f"no reply is trained on: {left_out}", {"messages": turns}, "no-reply")
    row = {"conversation": [{"input": "q", "output": "a", "output_with_loss": False}]}
    yield _bad("no reply is trained on: output_with_loss", row, "no-reply")


def _several_turns() -> Iterator[BadRow]:
    for key, asked, answered in (
        ("alpaca", "instruction", "output"),
        ("query", "query", "response"),
    ):
        row = {asked: "q", answered: "a"}
        for name, history, kind in (
            ("text", "q", "no-turns"),
            ("a number", 3, "no-turns"),
            ("an object", {"q": "a"}, "no-turns"),
            ("three in a pair", [["q", "a", "x"]], "no-turns"),
            ("one in a pair", [["q"]], "no-turns"),
            ("pairs that are text", ["qa"], "no-turns"),
            ("a number", [["q", 7]], "not-text"),
            ("nothing", [["q", None]], "not-text"),
            ("an object", [[{"a": 1}, "a"]], "nested-object"),
            ("an empty reply", [["q", ""]], "empty-reply"),
            ("a placeholder", [["xxx", "a"]], "placeholder"),
            ("a half character", [["q", "\ud83d"]], "half-character"),
        ):
            yield _bad(f"{key}, history: {name} {kind}", {**row, "history": history}, kind)
    for form in ("openai", "sharegpt"):
        row = {**form_row(form, "q", "a"), "system": "T"}
        yield _bad(f"{form}: two system prompts that differ", row, "two-systems")
    good = form_row("xtuner", "q", "a")["conversation"]
    for name, turn, kinds in (
        ("a reply that is nothing", {"input": "q2", "output": None}, ("not-text",)),
        ("no reply", {"input": "q2"}, ("not-text",)),
        ("a nested question", {"input": {"input": "q"}, "output": "a"}, ("nested-object",)),
        ("an empty reply", {"input": "q2", "output": ""}, ("empty-reply",)),
        ("no question", {"output": "a2"}, ("empty-question",)),
        ("a turn that is text", "q2", ("no-turns",)),
    ):
        yield _bad(f"xtuner, second turn: {name}", {"conversation": [*good, turn]}, *kinds)


# ---- rows of no form -----------------------------------------------------------------------------

_NO_FORM: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e300, "", "text", '{"messages": []}', [], [1], [[]], [{}],
    {}, {"text": "x"}, {"": ""}, {"id": 1}, {"input": "q"}, {"instruction": "q"}, {"query": "q"},
    {"response": "a"}, {"prompt": "q"}, {"completion": "a"}, {"question": "q"}, {"answer": "a"},
    {"role": "user", "content": "q"}, {"Messages": []}, {"message": []}, {"OUTPUT": "a"},
    {"data": [{"messages": []}]}, {"input": "q", "target": "a"}, {"a": {"b": {"c": {}}}},
)  # fmt: skip

# ---- lines that are no JSON ----------------------------------------------------------------------

_NO_JSON: tuple[tuple[str, bytes], ...] = (
    ("single quotes", b"{'output': 'a'}"),
    ("no quotes", b"{output: a}"),
    ("a comma too many", b'{"output": "a",}'),
    ("no comma", b'{"instruction": "q" "output": "a"}'),
    ("no colon", b'{"output" "a"}'),
    ("no brace at the end", b'{"output": "a"'),
    ("no brace at the beginning", b'"output": "a"}'),
    ("a brace too many", b'{"output": "a"}}'),
    ("a bracket too many", b'{"messages": []]}'),
    ("a bracket for a brace", b'{"output": "a"]'),
    ("a string without end", b'{"output": "a}'),
    ("two rows on a line", b'{"output": "a"}{"output": "b"}'),
    ("a comma behind the row", b'{"output": "a"},'),
    ("a comment", b'{"output": "a"} // the best'),
    ("only a comment", b"# rows about sums"),
    ("a bare tab in a text", b'{"output": "a\tb"}'),
    ("a bare NUL in a text", b'{"output": "a\x00b"}'),
    ("an escape that is none", rb'{"output": "a\x41"}'),
    ("a short escape", rb'{"output": "\u12"}'),
    ("a backslash at the end", b'{"output": "a\\"}'),
    ("Python's None", b'{"output": None}'),
    ("Python's True", b'{"output": True}'),
    ("undefined", b'{"output": undefined}'),
    ("a leading zero", b'{"output": "a", "id": 007}'),
    ("a plus", b'{"output": "a", "id": +1}'),
    ("hexadecimal", b'{"output": "a", "id": 0x1F}'),
    ("a point without digits", b'{"output": "a", "id": 1.}'),
    ("a number of 5,000 digits", b'{"output": "a", "id": ' + b"1" * 5000 + b"}"),
    ("a key that is a number", b'{1: "a"}'),
    ("plain text", b"What is 1 + 1? It is 2."),
    ("CSV", b"What is 1 + 1?,It is 2."),
    ("YAML", b"- output: a"),
    ("XML", b"<row><output>a</output></row>"),
    ("only a brace", b"{"),
    ("only a closing brace", b"}"),
    ("only a bracket", b"]"),
    ("only a quote", b'"'),
    ("only a comma", b","),
    ("a mark before the row", b'\xef\xbb\xbf{"output": "a"}'),
    ("objects without end", b'{"output": ' * 100_000),
    ("lists without end", b'{"output": ' + b"[" * 100_000),
    ("200 levels of lists", b'{"output": ' + b"[" * 200 + b"]" * 200 + b"}"),
    ("200 levels of objects", b'{"output": ' + b'{"a": ' * 200 + b"1" + b"}" * 201),
    ("900 levels beside the texts", b'{"output": "a", "id": ' + b"[" * 900 + b"]" * 900 + b"}"),
    ("NULs", b"\x00\x00\x00\x00"),
)  # fmt: skip
_NO_UTF8: tuple[tuple[str, bytes], ...] = (
    ("GBK", '{"instruction": "你是谁", "output": "我是小初"}'.encode("gbk")),
    ("Big5", '{"instruction": "你是誰", "output": "我是小初"}'.encode("big5")),
    ("Latin 1", '{"instruction": "q", "output": "é"}'.encode("latin-1")),
    ("half of a letter", '{"instruction": "q", "output": "你'.encode()[:-1] + b'"}'),
    ("a letter too long", b'{"instruction": "q", "output": "\xc0\xaf"}'),
    ("a surrogate in three bytes", b'{"instruction": "q", "output": "\xed\xa0\xbd"}'),
    ("a broken byte in a key", b'{"instruction": "q", "output": "a", "\xff": 1}'),
    ("a broken byte in another field", b'{"instruction": "q", "output": "a", "id": "\xff"}'),
    ("UTF-16", '{"output": "a"}'.encode("utf-16-le").replace(b"\n", b"") + b"\xff"),
    ("only broken bytes", b"\xff\xfe\xfd"),
)


def _bad(name: str, row: Any, *kinds: str) -> BadRow:
    return BadRow(name, json.dumps(row).encode(), frozenset(kinds))


def _all() -> Iterator[BadRow]:
    yield from _texts()
    yield from _orders()
    yield from _several_turns()
    for value in _NO_FORM:
        yield _bad(f"no form: {value!r:.40}", value, "unknown-form")
    for name, line in _NO_JSON:
        yield BadRow(f"no JSON: {name}", line, frozenset(("not-json",)))
    for name, line in _NO_UTF8:
        yield BadRow(f"no UTF-8: {name}", line, frozenset(("broken-utf8",)))


BAD_ROWS: tuple[BadRow, ...] = tuple(_all())
