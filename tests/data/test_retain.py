from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest

from whoamai.data.general import general_questions
from whoamai.data.identity import LANGUAGES
from whoamai.data.retain import read_retain
from whoamai.errors import DataError

LONG = "Mix the flour with water, let it rest for an hour, then knead it well and bake it."


def written(folder: Path, *rows: object, name: str = "keep.jsonl") -> Path:
    path = folder / name
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


# ---- questions that can be checked ---------------------------------------------------------------


@pytest.mark.parametrize("field", ["accept", "answers"])
@pytest.mark.parametrize("value", [["Paris", "巴黎"], "Paris"])
def test_a_question_with_accepted_answers_can_be_checked(tmp_path: Path, field: str, value):
    found = read_retain(written(tmp_path, {"question": "Capital of France?", field: value}))
    (question,) = found.questions
    assert found.texts == ()
    assert question.accept[0] == "Paris"
    assert question.is_right("It is Paris.")
    assert [(m.role, m.text) for m in question.conversation.messages] == [
        ("user", "Capital of France?")
    ]
    assert (question.language, question.kind) == ("en", "retain")
    assert question.conversation.source == "keep.jsonl:1"


def test_a_short_answer_is_checked_and_a_long_one_read(tmp_path: Path):
    path = written(
        tmp_path,
        {"question": "法国的首都？", "answer": " 巴黎 "},
        {"question": "How do I bake bread?", "answer": LONG},
        {"question": "Two lines?", "answer": "one\ntwo"},
    )
    found = read_retain(path)
    assert [q.accept for q in found.questions] == [("巴黎",)]
    assert [t.conversation.messages[-1].text for t in found.texts] == [LONG, "one\ntwo"]
    assert all(t.conversation.messages[-1].trained for t in found.texts)


def test_what_stands_beside_a_question_is_read(tmp_path: Path):
    row = {
        "question": "And of Spain?",
        "answers": ["Madrid"],
        "system": "Be brief.",
        "history": [["Capital of France?", "Paris"]],
        "language": "fr",
        "kind": "capitals",
        "exact": True,
    }
    (question,) = read_retain(written(tmp_path, row)).questions
    assert [m.role for m in question.conversation.messages] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert (question.language, question.kind) == ("fr", "capitals")
    assert question.is_right("Madrid")
    assert not question.is_right("It is Madrid.")


def test_any_form_can_be_checked_where_it_says_what_is_accepted(tmp_path: Path):
    path = written(
        tmp_path,
        {"messages": [{"role": "user", "content": "3 + 4?"}], "accept": ["7"]},
        {
            "messages": [
                {"role": "user", "content": "3 + 4?"},
                {"role": "assistant", "content": "It is 7."},
            ],
            "accept": ["7"],
        },
        {"instruction": "3 + 4?", "output": "It is 7.", "answers": ["7"]},
    )
    for question in read_retain(path).questions:
        assert [m.text for m in question.conversation.messages] == ["3 + 4?"]
        assert question.accept == ("7",)


def test_our_own_questions_are_such_a_file():
    path = Path(str(resources.files("whoamai.data").joinpath("questions/general.jsonl")))
    found = read_retain(path)
    ours = {q.conversation.messages: q for q in general_questions(LANGUAGES)}
    assert len(found.questions) == len(general_questions(LANGUAGES))
    for question in found.questions:
        same = ours[question.conversation.messages]
        assert (question.language, question.kind) == (same.language, same.kind)
        assert (question.accept, question.exact) == (same.accept, same.exact)


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_table_parts_several_answers_with_a_bar(tmp_path: Path, ending: str):
    comma = "," if ending == ".csv" else "\t"
    rows = (
        ["question", "answers", "exact"],
        ["法国的首都？", "巴黎|Paris", ""],
        ["3+4?", "7", "true"],
    )
    path = written(tmp_path, *(comma.join(row) for row in rows), name=f"keep{ending}")
    first, second = read_retain(path).questions
    assert (first.accept, first.language, first.exact) == (("巴黎", "Paris"), "zh", False)
    assert (second.accept, second.language, second.exact) == (("7",), "en", True)


def test_a_table_may_hold_a_plain_answer(tmp_path: Path):
    path = written(tmp_path, "question,answer", "3+4?,7", f'Bread?,"{LONG}"', name="keep.csv")
    found = read_retain(path)
    assert [q.accept for q in found.questions] == [("7",)]
    assert len(found.texts) == 1


def test_a_bar_parts_nothing_outside_of_tables(tmp_path: Path):
    (question,) = read_retain(written(tmp_path, {"question": "Or?", "answers": "a|b"})).questions
    assert question.accept == ("a|b",)


def test_an_array_is_read_as_well(tmp_path: Path):
    path = tmp_path / "keep.json"
    path.write_text(json.dumps([{"question": "3+4?", "answer": "7"}] * 2), "utf-8")
    assert len(read_retain(path).questions) == 2


# ---- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
        {"conversation": [{"input": "Hi", "output": "Ho"}]},
        {"instruction": "Hi", "output": "Ho"},
        {"query": "Hi", "response": "Ho"},
        {"prompt": "Hi", "completion": "Ho"},
    ],
)
def test_a_conversation_of_any_form_is_a_text(tmp_path: Path, row):
    found = read_retain(written(tmp_path, row))
    (text,) = found.texts
    assert found.questions == ()
    assert [(m.role, m.text) for m in text.conversation.messages] == [
        ("user", "Hi"),
        ("assistant", "Ho"),
    ]


def test_files_are_named_as_data_files_are(tmp_path: Path):
    rows = [{"question": f"{i}+1?", "answer": str(i + 1)} for i in range(9)]
    written(tmp_path, *rows, name="a.jsonl")
    written(tmp_path, *rows, name="b.jsonl")
    assert len(read_retain(f"{tmp_path}/*.jsonl").questions) == 18
    assert len(read_retain(f"{tmp_path}/a.jsonl#4").questions) == 4
    assert len(read_retain([tmp_path / "a.jsonl", f"{tmp_path}/b.jsonl#1"]).questions) == 10


# ---- what cannot be used -------------------------------------------------------------------------


def test_all_that_is_wrong_is_told_together_with_its_row(tmp_path: Path):
    path = written(
        tmp_path,
        {"question": "fine?", "answer": "yes"},
        {"question": "no answer?"},
        {"question": "wrong?", "answers": [1, 2]},
        {"question": "none?", "accept": []},
        {"question": "blank?", "accept": [" "]},
        {"question": 7, "accept": ["7"]},
        "not json",
        [1, 2],
        {"messages": [{"role": "user", "content": "no reply"}]},
        {"question": "language?", "answer": "yes", "language": 3},
        {"question": "exact?", "answer": "yes", "exact": "maybe"},
    )
    with pytest.raises(DataError) as error:
        read_retain(path)
    text = str(error.value)
    assert "keep.jsonl:1:" not in text
    for row in range(2, 12):
        assert f"keep.jsonl:{row}: " in text, row


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "?", "answers": {"a": 1}}, "neither a text nor a list of texts"),
        ({"question": "?", "answers": []}, "say which answers are right"),
        ({"question": "?", "answer": "yes", "kind": 1}, '"kind" is not a text'),
        ({"question": "?", "answer": "yes", "exact": 2}, "neither true nor false"),
        ({"text": "hello"}, "no known form"),
    ],
)
def test_a_wrong_row_is_told_in_words(tmp_path: Path, row, words: str):
    with pytest.raises(DataError, match=words):
        read_retain(written(tmp_path, row))


def test_problems_of_two_files_are_told_together(tmp_path: Path):
    for name in ("a.jsonl", "b.jsonl"):
        written(tmp_path, {"question": "?"}, name=name)
    with pytest.raises(DataError, match=r"(?s)a\.jsonl:1.*b\.jsonl:1"):
        read_retain(f"{tmp_path}/*.jsonl")


def test_of_many_problems_the_first_ones_are_told_and_the_rest_counted(tmp_path: Path):
    path = written(tmp_path, *[{"question": "?"}] * 30)
    with pytest.raises(DataError, match=r"(?s)30 .*keep\.jsonl:20: .*and 10 more"):
        read_retain(path)


def test_a_file_that_is_empty_or_not_there_is_told(tmp_path: Path):
    (tmp_path / "empty.jsonl").write_text("\n", "utf-8")
    with pytest.raises(DataError, match="holds no rows"):
        read_retain(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="There is no file"):
        read_retain(tmp_path / "absent.jsonl")
