"""The user's own questions are read as they are meant; what cannot be is told with its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from whoamai.data.identity import IdentityQuestion
from whoamai.data.own_questions import read_own_questions
from whoamai.errors import DataError, SettingError
from whoamai.samples import Message


def read(path: Path, text: str | bytes, language: str = "zh") -> list[IdentityQuestion]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_own_questions(path, language)


def refusal(path: Path, text: str | bytes) -> str:
    with pytest.raises(DataError) as error:
        read(path, text)
    return str(error.value)


def turns(question: IdentityQuestion) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in question.conversation.messages]


def test_a_text_file_holds_one_question_a_line(tmp_path: Path):
    asked = read(
        tmp_path / "q.txt", "\ufeff你是谁？\n\n# who made it\n  你叫什么  \r\nWho are you?"
    )
    assert [turns(q) for q in asked] == [
        [("user", "你是谁？")], [("user", "你叫什么")], [("user", "Who are you?")],
    ]  # fmt: skip
    assert {(q.language, q.group, q.context) for q in asked} == {("zh", "own", "none")}


FULL = {
    "question": "你是谁开发的",
    "system": "你是助手。",
    "history": [["你好", "你好！"], ["在吗", "在的。"]],
    "language": "en",
    "group": "maker",
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.jsonl", json.dumps(FULL) + "\n"),
        ("q.json", json.dumps([FULL], indent=2)),
        ("q.yaml", "- " + json.dumps(FULL)),
        ("q.YML", "# mine\n- " + json.dumps(FULL)),
        ("q.jsonl.gz", gzip.compress(json.dumps(FULL).encode())),
    ],
)
def test_a_row_may_say_what_stands_before_the_question(tmp_path: Path, name: str, text):
    (question,) = read(tmp_path / name, text)
    assert turns(question) == [
        ("system", "你是助手。"),
        ("user", "你好"),
        ("assistant", "你好！"),
        ("user", "在吗"),
        ("assistant", "在的。"),
        ("user", "你是谁开发的"),
    ]
    assert (question.language, question.group, question.context) == ("en", "maker", "named")


def test_history_may_be_messages(tmp_path: Path):
    row = {
        "question": "And you?",
        "history": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}],
    }
    (question,) = read(tmp_path / "q.jsonl", json.dumps(row), "en")
    assert question.conversation.messages == (
        Message("user", "Hi"),
        Message("assistant", "Hello!"),
        Message("user", "And you?"),
    )
    assert question.context == "second"


def test_a_row_may_be_a_question_alone(tmp_path: Path):
    for name, text in (
        ("q.yaml", "- 你是谁\n- 你叫什么\n"),
        ("q.json", '["你是谁", "你叫什么"]'),
        ("q.jsonl", '"你是谁"\n"你叫什么"\n'),
    ):
        asked = read(tmp_path / name, text)
        assert [turns(q) for q in asked] == [[("user", "你是谁")], [("user", "你叫什么")]]


def test_a_table_holds_a_question_a_row_and_its_empty_cells_say_nothing(tmp_path: Path):
    asked = read(tmp_path / "q.csv", "question,system,group\n你是谁,,\n你叫什么,你是助手。,mine\n")
    assert [(q.group, q.context) for q in asked] == [("own", "none"), ("mine", "named")]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question": ""}, '"question" is missing or empty'),
        ({"system": "S"}, '"question" is missing or empty'),
        ({"question": 7}, '"question" is int where text belongs'),
        ({"question": "q", "sytem": "S"}, "unknown: sytem. Known are question, system"),
        ({"question": "q", "language": "fr"}, 'the language "fr" is not known'),
        ({"question": "q", "history": "你好"}, '"history" is no list'),
        ({"question": "q", "history": [["a"]]}, '"history" is no list'),
        ({"question": "q", "history": [["a", "b"], "c"]}, '"history" is no list'),
        ({"question": "q", "history": [["a", ""]]}, "a turn without text"),
        ({"question": "q", "history": [["a", 1]]}, '"history[1].content" is int'),
        ({"question": "q", "history": [{"role": "user", "content": "a"}]}, "does not go user"),
        ({"question": "q", "history": [{"role": ["user"]}, {}]}, "does not go user"),
        ({"question": "q", "group": "x" * 41}, "at most 40 characters"),
        ({"question": "q", "group": "a\nb"}, "on one line"),
        ({"question": "\ud83d"}, "half of a character"),
        (["q"], "it is neither a text"),
        (None, "it is neither a text"),
    ],
)
def test_what_is_wrong_with_a_row_is_told_with_its_place(tmp_path: Path, row, told: str):
    text = refusal(tmp_path / "q.jsonl", f'{{"question": "good"}}\n{json.dumps(row)}\n')
    assert told in text.partition("q.jsonl:2: ")[2]


def test_everything_that_is_wrong_is_told_together_and_the_rest_counted(tmp_path: Path):
    text = refusal(tmp_path / "q.jsonl", "{}\n" * 12 + "not json\n")
    assert "13 questions cannot be used" in text
    assert "q.jsonl:1:" in text
    assert "q.jsonl:10:" in text
    assert "and 3 more" in text


def test_a_row_of_a_yaml_file_is_told_by_its_line(tmp_path: Path):
    text = refusal(
        tmp_path / "q.yaml", "# mine\n- 你是谁\n-\n  question: 你是谁\n  sytem: x\n- yes\n"
    )
    assert "q.yaml:4: unknown: sytem" in text
    assert "q.yaml:6: it is neither a text" in text


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("q.yaml", "- a: [\n", "q.yaml:2 cannot be read as YAML"),
        ("q.yaml", "question: 你是谁\n", "is no list"),
        ("q.yaml", "- \x00", "cannot be read as YAML"),
        ("q.yaml", "[" * 5000, "cannot be read as YAML"),
        ("q.yaml", "- !!python/object:os.system x", "cannot be read as YAML"),
        ("q.yaml", "", "holds no questions"),
        ("q.txt", "\n# only this\n", "holds no questions"),
        ("q.jsonl", "", "holds no questions"),
        ("q.txt", "你是谁".encode("gbk"), "not UTF-8"),
        ("q.jsonl", "你是谁\n", "q.jsonl:1: is not JSON"),
        ("q.docx", "你是谁", "no known kind"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, name, text, told):
    assert told in refusal(tmp_path / name, text)


@pytest.mark.parametrize("name", ["none.txt", "none.yaml", "none.jsonl"])
def test_a_file_that_is_not_there_is_told(tmp_path: Path, name: str):
    with pytest.raises(DataError, match=f"There is no file .*{name}"):
        read_own_questions(tmp_path / name, "zh")


def test_a_folder_is_no_file(tmp_path: Path):
    with pytest.raises(DataError, match="is a folder"):
        read_own_questions(tmp_path, "zh")


def test_a_language_we_do_not_have_is_refused(tmp_path: Path):
    with pytest.raises(SettingError, match="known languages are zh, en"):
        read_own_questions(tmp_path / "q.txt", "fr")
