from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.bad_rows import BAD_ROWS, FORMS, form_row
from whoamai.data.formats import joined_parts, read_row, recognise, text_fields
from whoamai.data.lint_kinds import kind_names
from whoamai.samples import Message

EXPECTED = [Message("system", "S"), Message("user", "q"), Message("assistant", "a", trained=True)]


def kinds(row: Any) -> list[str]:
    return [problem.kind for problem in read_row(row).problems]


def said(row: Any) -> list[tuple[str, str]]:
    reading = read_row(row)
    assert reading.problems == []
    return [(m.role, m.text) for m in reading.messages]


# ---- which form ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_messages(form: str):
    assert read_row(form_row(form, "q", "a")).messages == EXPECTED


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"conversation": 1}, "xtuner"),
        ({"messages": 1}, "openai"),
        ({"conversations": 1}, "sharegpt"),
        ({"output": 1}, "alpaca"),
        ({"query": 1, "response": 1}, "query"),
        ({"prompt": 1, "completion": 1}, "query"),
        ({"prompt": 1, "response": 1}, "query"),
        ({"question": 1, "answer": 1}, "query"),
        ({"messages": 1, "output": 1}, "openai"),
        ({"query": 1, "response": 1, "output": 1}, "query"),
        ({"query": 1}, None),
        ({"input": 1, "instruction": 1}, None),
        ({}, None),
        ([], None),
        ("messages", None),
        (None, None),
    ],
)
def test_the_form_is_known_by_the_keys(row: Any, form: str | None):
    assert recognise(row) == form
    assert read_row(row).form == form


def test_other_fields_of_a_row_do_not_matter():
    for form in FORMS:
        row = {"id": 7, **form_row(form, "q", "a"), "source": {"a": [None]}, "score": 0.5}
        assert read_row(row).messages == EXPECTED


# ---- the forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["system", "developer"])
def test_both_names_of_the_system_are_known(role: str):
    turns = [{"role": role, "content": "S"}, *form_row("openai", "q", "a")["messages"][1:]]
    assert read_row({"messages": turns}).messages == EXPECTED


@pytest.mark.parametrize("user", ["user", "human"])
@pytest.mark.parametrize("assistant", ["assistant", "gpt", "bot", "model"])
@pytest.mark.parametrize(("key", "who", "what"), [("messages", "role", "content"),
                                                  ("conversations", "from", "value"),
                                                  ("conversations", "role", "content")])  # fmt: skip
def test_all_names_of_the_two_who_speak_are_known(
    user: str, assistant: str, key: str, who: str, what: str
):
    row = {key: [{who: user, what: "q"}, {who: assistant, what: "a"}]}
    assert said(row) == [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize("form", ["openai", "sharegpt", "sharegpt roles", "query", "alpaca"])
def test_a_system_prompt_may_stand_beside_the_turns(form: str):
    row = {**form_row(form, "q", "a", None), "system": "S"}
    if form in ("openai", "sharegpt", "sharegpt roles"):
        key = next(iter(row))
        row[key] = row[key][1:]
    assert read_row(row).messages == EXPECTED
    assert said({**row, "system": ""}) == [("user", "q"), ("assistant", "a")]
    assert said({**row, "system": None}) == [("user", "q"), ("assistant", "a")]


def test_the_same_system_prompt_twice_is_one():
    assert read_row({**form_row("openai", "q", "a"), "system": "S"}).messages == EXPECTED
    assert kinds({**form_row("openai", "q", "a"), "system": "T"}) == ["two-systems"]


def test_an_xtuner_turn_without_a_question_is_an_empty_question():
    for turn in ({"output": "a"}, {"input": "", "output": "a"}, {"input": None, "output": "a"}):
        assert said({"conversation": [turn]}) == [("user", ""), ("assistant", "a")]


def test_instruction_and_input_are_two_lines_of_one_question():
    for given_, wanted in (
        ({"instruction": "i", "input": "x"}, "i\nx"),
        ({"instruction": "i", "input": None}, "i"),
        ({"instruction": "", "input": "x"}, "x"),
        ({"input": "x"}, "x"),
        ({}, ""),
    ):
        assert said({**given_, "output": "a"}) == [("user", wanted), ("assistant", "a")]


@pytest.mark.parametrize(
    "row", [{"output": "a", "instruction": "q"}, {"query": "q", "response": "a"}]
)
def test_earlier_turns_come_first_and_are_trained_on(row: dict[str, Any]):
    reading = read_row({**row, "system": "S", "history": [["q1", "a1"], ["q2", "a2"]]})
    assert [m.text for m in reading.messages] == ["S", "q1", "a1", "q2", "a2", "q", "a"]
    assert all(m.trained == (m.role == "assistant") for m in reading.messages)
    for nothing in (None, [], ""):
        assert said({**row, "history": nothing}) == [("user", "q"), ("assistant", "a")]


def test_trls_lists_are_one_conversation():
    turns = form_row("openai", "q", "a")["messages"]
    assert read_row({"prompt": turns[:2], "completion": turns[2:]}).messages == EXPECTED
    assert kinds({"prompt": turns[:2], "completion": "a"}) == ["nested-object"]
    assert kinds({"prompt": [], "completion": []}) == ["no-reply"]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([{"type": "text", "text": "a"}], "a"),
        ([{"type": "text", "text": "a "}, {"type": "text", "text": "b"}], "a b"),
        ([{"type": "image_url", "image_url": "x"}, {"type": "text", "text": "b"}], None),
        ([{"type": "text", "text": 3}], None),
        (["a"], None),
        ([], None),
    ],
)
def test_parts_are_joined_where_all_are_text(parts: list[Any], text: str | None):
    assert joined_parts(parts) == text
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "a"}]}
    if text is None:
        assert kinds(row) == ["nested-object"]
    else:
        assert said(row)[0] == ("user", text)


def test_half_of_a_character_in_a_part_is_told():
    parts = [{"type": "text", "text": "\ud83d"}]
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": parts}]}
    assert kinds(row) == ["half-character"]


@pytest.mark.parametrize("left_out", [{"weight": 0}, {"weight": 0.0}, {"loss": False}])
def test_a_turn_may_say_that_it_is_not_trained_on(left_out: dict[str, Any]):
    turns = [*form_row("openai", "q", "a")["messages"], *form_row("openai", "q", "a")["messages"]]
    turns[2] = {**turns[2], **left_out}
    reading = read_row({"messages": turns})
    assert reading.problems == []
    assert [m.trained for m in reading.messages] == [False] * 5 + [True]


@pytest.mark.parametrize("kept", [{"weight": 1}, {"loss": True}, {"weight": None}])
def test_other_values_leave_it_trained_on(kept: dict[str, Any]):
    turns = form_row("openai", "q", "a")["messages"]
    assert read_row({"messages": [*turns[:2], {**turns[2], **kept}]}).messages == EXPECTED


# ---- the turns together --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "roles",
    ["user assistant", "system user assistant", "user assistant user assistant",
     "user assistant system user assistant", "system system user assistant"],
)  # fmt: skip
def test_a_system_message_may_stand_before_any_user_turn(roles: str):
    turns = [{"role": r, "content": f"{i}"} for i, r in enumerate(roles.split())]
    if roles.startswith("system system"):
        assert kinds({"messages": turns}) == ["role-order"]
    else:
        assert [r for r, _ in said({"messages": turns})] == roles.split()


def test_all_problems_of_a_row_are_told_with_their_fields():
    turns = [{"system": 3, "input": {"a": 1}, "output": None}, "text"]
    problems = read_row({"conversation": turns}).problems
    assert [(p.kind, p.field) for p in problems[:4]] == [
        ("not-text", "conversation[0].system"),
        ("nested-object", "conversation[0].input"),
        ("not-text", "conversation[0].output"),
        ("no-turns", "conversation[1]"),
    ]
    assert [p.value for p in problems[:2]] == [3, {"a": 1}]


def test_every_problem_is_of_a_known_kind():
    told = {
        problem.kind
        for bad in BAD_ROWS
        if bad.kinds.isdisjoint({"not-json", "broken-utf8"})
        for problem in read_row(json.loads(bad.line)).problems
    }
    assert told <= set(kind_names())
    assert len(told) >= 10


KEYS = (
    *("messages", "conversation", "conversations", "role", "content", "from", "value", "a"),
    *("input", "output", "instruction", "system", "history"),
    *("query", "response", "prompt", "completion"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner | st.sampled_from(["user", "assistant", "system", "human", "gpt"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=300)
def test_any_value_is_read_or_told_and_stays_as_it_is(row: Any):
    before = copy.deepcopy(row)
    reading = read_row(row)
    fields = text_fields(row)
    assert repr(row) == repr(before)
    assert reading.problems or reading.messages[-1].role == "assistant"
    if not reading.problems:
        assert all(isinstance(message.text, str) for message in reading.messages)
        texts = [f.value for f in fields if isinstance(f.value, str)]
        assert all(any(text in m.text for m in reading.messages) for text in texts)


# ---- the places of the texts ---------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_the_places_of_the_texts_are_in_the_order_they_are_said(form: str):
    row = form_row(form, "q", "a")
    fields = [f for f in text_fields(row) if f.key != "input" or f.value]
    assert [(f.role, f.value) for f in fields] == [
        ("system", "S"),
        ("user", "q"),
        ("assistant", "a"),
    ]
    for field in text_fields(row):
        field.put(f"new {field.role}" if field.value else "")
    assert [m.text for m in read_row(row).messages] == ["new system", "new user", "new assistant"]


@pytest.mark.parametrize(
    ("row", "places"),
    [
        ({"conversation": [{"output": "a"}]}, ["conversation[0].input", "conversation[0].output"]),
        ({"output": "a"}, ["instruction", "output"]),
        ({"output": "a", "input": "q"}, ["input", "output"]),
        (
            {"query": "q", "response": "a", "history": [["q1", "a1"]]},
            ["history[0][0]", "history[0][1]", "query", "response"],
        ),
        ({"messages": [{"role": "user"}]}, ["messages[0].content"]),
        ({"conversations": [{"from": "gpt"}]}, ["conversations[0].value"]),
        ({"messages": [{"role": "tool", "content": "x"}, 3, {"role": ["user"]}]}, []),
        ({"messages": 3}, []),
        ({"conversation": {"a": 1}}, []),
        ({"output": "a", "history": 3}, ["instruction", "output"]),
        ({"output": "a", "history": "ab"}, ["instruction", "output"]),
        ({"output": "a", "history": {"ab": 1}}, ["instruction", "output"]),
        ({"text": "a"}, []),
        (3, []),
    ],
)
def test_a_text_has_a_place_also_where_it_is_missing(row: Any, places: list[str]):
    assert [f.place for f in text_fields(row)] == places
    for field in text_fields(row):
        field.put("x")
        assert field.value == "x"


def test_trls_messages_have_places():
    turns = form_row("openai", "q", "a")["messages"]
    fields = text_fields({"prompt": turns[:2], "completion": turns[2:]})
    assert [f.place for f in fields] == [
        "prompt[0].content",
        "prompt[1].content",
        "completion[0].content",
    ]
