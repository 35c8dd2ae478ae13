from __future__ import annotations

import json
from pathlib import Path

import pytest

from whoamai.data.readers import read_conversations
from whoamai.errors import DataError
from whoamai.samples import Conversation, Message

XTUNER = {"conversation": [{"system": "S", "input": "q", "output": "a"}]}
OPENAI = {
    "messages": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
}
SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "S"},
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "a"},
    ]
}
ALPACA = {"instruction": "q", "input": "", "output": "a", "system": "S"}
EXPECTED = (Message("system", "S"), Message("user", "q"), Message("assistant", "a", trained=True))


def lines(path: Path, *rows) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


@pytest.mark.parametrize("row", [XTUNER, OPENAI, SHAREGPT, ALPACA], ids=lambda r: next(iter(r)))
def test_every_form_becomes_the_same_conversation(file: Path, row):
    assert read_conversations(lines(file, row)) == [Conversation(EXPECTED, "data.jsonl:1")]


def test_forms_may_be_mixed_in_one_file(file: Path):
    read = read_conversations(lines(file, XTUNER, OPENAI, SHAREGPT, ALPACA))
    assert [c.messages for c in read] == [EXPECTED] * 4


@pytest.mark.parametrize("names", [("user", "assistant"), ("human", "gpt")])
def test_sharegpt_knows_both_spellings_of_its_roles(file: Path, names):
    row = {"conversations": [{"from": n, "value": "x"} for n in names]}
    assert [m.role for m in read_conversations(lines(file, row))[0].messages] == [
        "user",
        "assistant",
    ]


def test_the_system_prompt_beside_sharegpt_turns_is_read(file: Path):
    row = {"system": "S", "conversations": SHAREGPT["conversations"][1:]}
    assert read_conversations(lines(file, row))[0].messages == EXPECTED


def test_two_system_prompts_that_differ_are_told(file: Path):
    with pytest.raises(DataError, match="two system prompts, and they differ"):
        read_conversations(lines(file, {"system": "T", **SHAREGPT}))
    assert read_conversations(lines(file, {"system": "S", **SHAREGPT}))[0].messages == EXPECTED


def test_the_earlier_turns_of_an_alpaca_row_are_read(file: Path):
    row = {**ALPACA, "history": [["q1", "a1"], ["q2", "a2"]]}
    read = read_conversations(lines(file, row))[0]
    assert [m.text for m in read.messages] == ["S", "q1", "a1", "q2", "a2", "q", "a"]
    assert [m.trained for m in read.messages] == [False, False, True, False, True, False, True]


@pytest.mark.parametrize("history", [None, []])
def test_an_alpaca_row_may_have_no_earlier_turns(file: Path, history):
    assert read_conversations(lines(file, {**ALPACA, "history": history}))[0].messages == EXPECTED


@pytest.mark.parametrize("system", ["", None, "S"])
def test_later_xtuner_turns_may_repeat_the_system_prompt(file: Path, system):
    turns = [*XTUNER["conversation"], {"system": system, "input": "q2", "output": "a2"}]
    read = read_conversations(lines(file, {"conversation": turns}))[0]
    assert [m.text for m in read.messages] == ["S", "q", "a", "q2", "a2"]


def test_an_alpaca_input_goes_below_its_instruction(file: Path):
    row = {"instruction": "Translate.", "input": "你好", "output": "Hello"}
    assert read_conversations(lines(file, row))[0].messages[0].text == "Translate.\n你好"


def test_xtuner_turns_go_on_in_one_conversation(file: Path):
    row = {"conversation": [{"input": "q", "output": "a"}, {"input": "q2", "output": "a2"}]}
    read = read_conversations(lines(file, row))[0]
    assert [(m.role, m.text) for m in read.messages] == [
        ("user", "q"),
        ("assistant", "a"),
        ("user", "q2"),
        ("assistant", "a2"),
    ]


def test_every_reply_of_a_file_is_trained_on(file: Path):
    row = {"messages": [*OPENAI["messages"], *OPENAI["messages"][1:]]}
    read = read_conversations(lines(file, row))[0]
    assert [m.trained for m in read.messages] == [False, False, True, False, True]


def test_a_byte_order_mark_is_no_part_of_the_data(file: Path):
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(OPENAI).encode())
    assert len(read_conversations(file)) == 1


def test_windows_line_ends_are_read(file: Path):
    file.write_bytes((json.dumps(OPENAI) + "\r\n").encode() * 2)
    assert [c.source for c in read_conversations(file)] == ["data.jsonl:1", "data.jsonl:2"]


def test_a_json_array_is_read(file: Path):
    file.write_text(json.dumps([OPENAI, XTUNER], indent=2), "utf-8")
    assert [c.source for c in read_conversations(file)] == ["data.jsonl:1", "data.jsonl:2"]


def test_blank_lines_are_passed_over_and_still_counted(file: Path):
    text = json.dumps(OPENAI)
    file.write_text(f"\n{text}\n\n  \n{text}\n\n", "utf-8")
    assert [c.source for c in read_conversations(file)] == ["data.jsonl:2", "data.jsonl:5"]


def test_a_line_separator_inside_a_text_ends_no_row(file: Path):
    row = {"messages": [*OPENAI["messages"][:2], {"role": "assistant", "content": "a\u2028b\x85"}]}
    assert read_conversations(lines(file, row))[0].messages[-1].text == "a\u2028b\x85"


BAD = {
    "a list": ([1], "not an object"),
    "a number": (3, "not an object"),
    "unknown form": ({"text": "x", "id": 1}, "fields text, id"),
    "nothing": ({}, "fields -"),
    "no turns": ({"messages": []}, "messages is not a list of turns"),
    "turns that are text": ({"messages": "x"}, "messages is not a list of turns"),
    "a turn that is text": ({"messages": ["x"]}, "role is missing"),
    "an unknown role": ({"messages": [{"role": "tool", "content": "x"}]}, '"tool" is not known'),
    "an unknown sender": ({"conversations": [{"from": "bot", "value": "x"}]}, '"bot" is not known'),
    "no content": ({"messages": [{"role": "user"}]}, "content is missing where text belongs"),
    "a nested input": (
        {"conversation": [{"input": {"input": "q"}, "output": "a"}]},
        "input is an object where text belongs",
    ),
    "content in parts": (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "content is a list where text belongs",
    ),
    "a number as reply": ({"instruction": "q", "output": 7}, "output is int where text belongs"),
    "an empty reply": ({"instruction": "q", "output": " \n"}, "a reply is empty"),
    "two questions": (
        {"messages": [{"role": "user", "content": "q"}] * 2},
        "do not go user, assistant",
    ),
    "earlier turns that are no pairs": (
        {**ALPACA, "history": [["q", "a", "x"]]},
        "history is not a list of [user, assistant] pairs",
    ),
    "earlier turns that are text": (
        {**ALPACA, "history": "q"},
        "history is not a list of [user, assistant] pairs",
    ),
    "a number among earlier turns": (
        {**ALPACA, "history": [["q", 7]]},
        "history reply is int where text belongs",
    ),
    "another system prompt later": (
        {"conversation": [*XTUNER["conversation"], {"system": "T", "input": "q", "output": "a"}]},
        "a later turn has a system prompt of its own",
    ),
    "a question without reply": (
        {"messages": [*OPENAI["messages"], {"role": "user", "content": "q"}]},
        "do not go user, assistant",
    ),
    "a reply first": (
        {"messages": [{"role": "assistant", "content": "a"}]},
        "do not go user, assistant",
    ),
    "a system prompt alone": (
        {"messages": [{"role": "system", "content": "S"}]},
        "do not go user, assistant",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_row_that_cannot_be_used_is_told_with_its_number_and_reason(file: Path, case: str):
    row, reason = BAD[case]
    with pytest.raises(DataError) as error:
        read_conversations(lines(file, OPENAI, row))
    assert "1 rows cannot be used" in str(error.value)
    assert "data.jsonl:2: " in str(error.value)
    assert reason in str(error.value)


def test_bad_rows_are_gathered_and_the_first_three_shown(file: Path):
    with pytest.raises(DataError) as error:
        read_conversations(lines(file, {"a": 1}, OPENAI, *[{"b": 1}] * 4))
    numbers = [part.split(":")[0] for part in str(error.value).split("data.jsonl:")[2:]]
    assert "5 rows cannot be used" in str(error.value)
    assert numbers == ["1", "3", "4"]


def test_a_line_that_is_not_json_is_told_with_its_number(file: Path):
    file.write_text(json.dumps(OPENAI) + "\n\n{'a': 1}\n", "utf-8")
    with pytest.raises(DataError, match=r"data\.jsonl:3 is not JSON"):
        read_conversations(file)


@pytest.mark.parametrize("text", ["[{}", "[1, 2", '[{"a": 1},]'])
def test_an_array_that_is_not_json_is_told(file: Path, text: str):
    file.write_text(text, "utf-8")
    with pytest.raises(DataError, match=r"data\.jsonl is not JSON"):
        read_conversations(file)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"messages": ' + "[" * 100_000])
def test_nesting_without_end_is_told_as_bad_json(file: Path, text: str):
    file.write_text(text, "utf-8")
    with pytest.raises(DataError, match="is not JSON"):
        read_conversations(file)


@pytest.mark.parametrize("form", ["{}", "[{}]"])
def test_a_number_too_long_to_read_is_told_as_bad_json(file: Path, form: str):
    file.write_text(form.format('{"n": ' + "1" * 5000 + "}"), "utf-8")
    with pytest.raises(DataError, match="is not JSON"):
        read_conversations(file)


def test_half_a_surrogate_pair_is_told_as_a_bad_row(file: Path):
    """JSON can hold it; no tokenizer and no file can."""
    text = json.dumps(OPENAI).replace('"a"', '"a\\ud83d"')
    file.write_text(text, "utf-8")
    with pytest.raises(DataError, match=r"data\.jsonl:1"):
        read_conversations(file)


def test_a_whole_surrogate_pair_is_read(file: Path):
    file.write_text(json.dumps(OPENAI).replace('"a"', '"\\ud83d\\ude00"'), "utf-8")
    assert read_conversations(file)[0].messages[-1].text == "😀"


@pytest.mark.parametrize("text", ["", " \n\n", "\ufeff"])
def test_an_empty_file_is_told(file: Path, text: str):
    file.write_text(text, "utf-8")
    with pytest.raises(DataError, match="is empty"):
        read_conversations(file)


def test_an_empty_array_is_told(file: Path):
    file.write_text("[]", "utf-8")
    with pytest.raises(DataError, match="holds no rows"):
        read_conversations(file)


def test_a_missing_file_is_told(file: Path):
    with pytest.raises(DataError, match="There is no file"):
        read_conversations(file)


def test_a_folder_is_told_as_unreadable(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_conversations(tmp_path)


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_a_file_that_is_not_utf_8_is_told_with_the_place(file: Path, encoding: str):
    file.write_bytes('{"instruction": "你是谁", "output": "我是小初"}'.encode(encoding))
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte \d+\)"):
        read_conversations(file)


@pytest.mark.parametrize(
    ("name", "n_rows"),
    [
        ("assistant_Tuner_fixed.jsonl", 1500),
        ("identity.json", 91),
        ("alpaca_zh_demo.json", 1000),
        ("alpaca_en_demo.json", 999),
    ],
)
def test_the_seeds_data_files_are_read_whole(shared_data: Path, name: str, n_rows: int):
    assert len(read_conversations(shared_data / name)) == n_rows


def test_the_seeds_broken_file_is_refused_with_the_reason(shared_data: Path):
    """Its `input` fields hold objects where the text belongs."""
    with pytest.raises(DataError, match="input is an object") as error:
        read_conversations(shared_data / "assistant_Tuner.jsonl")
    assert "1500 rows cannot be used" in str(error.value)
