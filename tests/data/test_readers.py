from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.bad_rows import BAD_ROWS, FORMS, form_row, good_rows
from whoamai.data.lint_kinds import kind_names
from whoamai.data.readers import LeftOut, conversations_of, read_conversations
from whoamai.errors import DataError, WhoamaiError
from whoamai.samples import Conversation, Message

XTUNER = form_row("xtuner", "q", "a")
OPENAI = form_row("openai", "q", "a")
SHAREGPT = form_row("sharegpt", "q", "a")
ALPACA = form_row("alpaca", "q", "a")
EXPECTED = (Message("system", "S"), Message("user", "q"), Message("assistant", "a", trained=True))


def lines(path: Path, *rows) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


# ---- every form in every file --------------------------------------------------------------------


def _table(rows: Sequence[dict[str, Any]], separator: str, end: str = "\n") -> str:
    out = io.StringIO(newline="")
    table = csv.writer(out, delimiter=separator, lineterminator=end)
    table.writerow(rows[0])
    for row in rows:
        cells = row.values()
        table.writerow([c if isinstance(c, str) else json.dumps(c) for c in cells])
    return out.getvalue()


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    keys = dict.fromkeys(key for row in rows for key in row)
    pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in keys}), out)
    return out.getvalue()


CONTAINERS: dict[str, Callable[[Sequence[dict[str, Any]]], bytes | str]] = {
    "lines.jsonl": lambda rows: "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows),
    "no_last_line_end.jsonl": lambda rows: "\n".join(map(json.dumps, rows)),
    "windows.jsonl": lambda rows: "".join(json.dumps(r) + "\r\n" for r in rows),
    "mark.jsonl": lambda rows: "\ufeff" + "".join(json.dumps(r) + "\n" for r in rows),
    "lines.json": lambda rows: "".join(json.dumps(r) + "\n" for r in rows),
    "one_line.json": lambda rows: json.dumps(rows, ensure_ascii=False),
    "tight.json": lambda rows: json.dumps(rows, separators=(",", ":")),
    "pretty.json": lambda rows: json.dumps(rows, indent=2, ensure_ascii=False),
    "windows.json": lambda rows: json.dumps(rows, indent="\t").replace("\n", "\r\n"),
    "array.jsonl": lambda rows: "\ufeff\n [" + ",\n".join(map(json.dumps, rows)) + "\n]\n\n",
    "table.csv": lambda rows: _table(rows, ","),
    "windows.csv": lambda rows: "\ufeff" + _table(rows, ",", "\r\n"),
    "table.tsv": lambda rows: _table(rows, "\t"),
    "table.parquet": _parquet,
}


def container(
    folder: Path, name: str, rows: Sequence[dict[str, Any]], packed: bool = False
) -> Path:
    content = CONTAINERS[name](rows)
    content = content.encode() if isinstance(content, str) else content
    path = folder / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_every_form_in_every_file_becomes_the_same_conversations(
    tmp_path: Path, name: str, packed: bool
):
    for form in FORMS:
        texts = [("你是谁？", "我是\n“小初” 😀", "S"), ('q, "x"\tend', "a;b", "S")]
        path = container(tmp_path, name, [form_row(form, *text) for text in texts], packed)
        read = list(read_conversations(path))
        assert [tuple(m.text for m in c.messages) for c in read] == [(s, q, a) for q, a, s in texts]
        assert [m.trained for c in read for m in c.messages] == [False, False, True] * 2
        assert [c.source for c in read] == [f"{path.name}:{n}" for n in (1, 2)]


@pytest.mark.parametrize("name", ["lines.jsonl", "pretty.json", "table.csv", "table.parquet"])
def test_earlier_turns_are_read_from_every_file(tmp_path: Path, name: str):
    row = {**ALPACA, "history": [["q1", "a1"], ["q2", "a2"]]}
    read = read_conversations(container(tmp_path, name, [row]))[0]
    assert [m.text for m in read.messages] == ["S", "q1", "a1", "q2", "a2", "q", "a"]
    assert [m.trained for m in read.messages] == [False, False, True, False, True, False, True]


@pytest.mark.parametrize("name", ["lines.jsonl", "one_line.json", "table.csv", "table.parquet"])
def test_trls_lists_of_messages_are_read_from_every_file(tmp_path: Path, name: str):
    row = {"prompt": OPENAI["messages"][:2], "completion": OPENAI["messages"][2:]}
    assert read_conversations(container(tmp_path, name, [row]))[0].messages == EXPECTED


@pytest.mark.parametrize("name", ["lines.jsonl", "one_line.json", "table.csv", "table.parquet"])
def test_a_reply_that_is_json_stays_text_in_every_file(tmp_path: Path, name: str):
    row = {"instruction": "Give a list.", "output": '[{"a": 1}]'}
    read = read_conversations(container(tmp_path, name, [row]))[0]
    assert read.messages[-1].text == '[{"a": 1}]'


def test_llama_factorys_identity_rows_are_read(file: Path):
    row = {"instruction": "hi", "input": "", "output": "Hello! I am {{name}}, by {{author}}."}
    read = read_conversations(lines(file, row))[0]
    assert [m.text for m in read.messages] == ["hi", "Hello! I am {{name}}, by {{author}}."]


def test_forms_may_be_mixed_in_one_file(file: Path):
    read = read_conversations(lines(file, *(form_row(form, "q", "a") for form in FORMS)))
    assert [c.messages for c in read] == [EXPECTED] * len(FORMS)


LONG = "长" * 300_000


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_texts_of_any_length_are_read(tmp_path: Path, name: str, packed: bool):
    rows = [form_row("alpaca", "q", LONG), form_row("alpaca", "q", "a")]
    read = read_conversations(container(tmp_path, name, rows, packed))
    assert [c.messages[-1].text for c in read] == [LONG, "a"]


def test_the_limit_for_fields_of_csv_stays_what_it_was_for_everyone_else(tmp_path: Path):
    really = csv.field_size_limit(before := 1000)
    path = container(tmp_path, "table.csv", [ALPACA, form_row("alpaca", "q", LONG)])
    for _ in conversations_of(path, LeftOut()):
        assert csv.field_size_limit() == before
    assert csv.field_size_limit(really) == before


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_any_text_comes_out_of_every_file_as_it_went_in(text: str):
    with tempfile.TemporaryDirectory() as folder:
        for name in CONTAINERS:
            path = container(Path(folder), name, [form_row("alpaca", "q", f"{text}.")])
            read = read_conversations(path)[0].messages[-1].text
            if name.endswith(("csv", "tsv")):  # in tables, Windows' line ends inside a text too
                assert read == f"{text}.".replace("\r\n", "\n")
            else:
                assert read == f"{text}."


# ---- no good row is lost to a bad one ------------------------------------------------------------


def mixed_file(folder: Path) -> tuple[Path, dict[int, int]]:
    """100 good rows among all bad ones, and the line of each good row by its place."""
    good = [json.dumps(row).encode() for row in good_rows(100)]
    content = good + [bad.line for bad in BAD_ROWS] + [b"", b"  "] * 20
    places = list(range(len(content)))
    random.Random(0).shuffle(places)
    path = folder / "mixed.jsonl"
    path.write_bytes(b"\n".join(content[at] for at in places) + b"\n")
    return path, {at: line for line, at in enumerate(places, 1)}


def test_the_table_of_bad_rows_is_as_large_as_it_says():
    assert len({bad.line for bad in BAD_ROWS}) == len(BAD_ROWS) > 500


@pytest.mark.parametrize("allow", [(), kind_names()], ids=["strict", "all allowed"])
def test_every_good_row_among_all_bad_ones_is_read_with_its_number(tmp_path: Path, allow):
    path, line_of = mixed_file(tmp_path)
    wanted = {line_of[at] for at in range(100)}
    # What is wrong only with a text does not keep it from being read; the check tells it.
    wanted |= {line_of[100 + at] for at, bad in enumerate(BAD_ROWS) if bad.readable}
    # Of a broken byte beside the texts a row may be free, if one says so.
    aside = {"a broken byte in a key", "a broken byte in another field"}
    if allow:
        wanted |= {
            line_of[100 + at]
            for at, bad in enumerate(BAD_ROWS)
            if bad.name.removeprefix("no UTF-8: ") in aside
        }
    refused = LeftOut()
    read = list(conversations_of(path, refused, allow))
    assert [int(c.source.rpartition(":")[2]) for c in read] == sorted(wanted)
    texts = {line_of[at]: f"What is {at} plus {at}?" for at in range(100)}
    for conversation in read:
        line = int(conversation.source.rpartition(":")[2])
        assert conversation.messages[1].text == texts.get(line, conversation.messages[1].text)
    n_refused = sum(refused.by_kind.values())
    assert n_refused == (0 if allow else 100 + len(BAD_ROWS) - len(wanted))
    if allow:
        assert list(read_conversations(path, allow=allow)) == read


@pytest.mark.parametrize("name", ["tight.json", "windows.json", "array.jsonl", "table.parquet"])
def test_bad_rows_in_other_files_cost_no_good_one_either(tmp_path: Path, name: str):
    bad = [json.loads(b.line) for b in BAD_ROWS if b.kinds.isdisjoint({"not-json", "broken-utf8"})]
    if name.endswith("parquet"):  # a table's column holds values of one kind
        bad = [{"messages": turns} for turns in ([], _roles("user"), _roles("tool", "assistant"))]
    half = len(bad) // 2
    one, two = good_rows(2)
    path = container(tmp_path, name, [*bad[:half], one, *bad[half:], two], packed=False)
    read = {c.messages: c.source for c in conversations_of(path, LeftOut(), kind_names())}
    first, second = (read_conversations(lines(tmp_path / "good.jsonl", row)) for row in (one, two))
    assert read[first[0].messages] == f"{path.name}:{half + 1}"
    assert read[second[0].messages] == f"{path.name}:{len(bad) + 2}"


def _roles(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "x"} for role in roles]


# ---- what a row may hold -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "names", [("user", "assistant"), ("human", "gpt"), ("human", "bot"), ("user", "model")]
)
def test_sharegpt_knows_all_spellings_of_its_roles(file: Path, names):
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


@pytest.mark.parametrize("history", [None, []])
def test_an_alpaca_row_may_have_no_earlier_turns(file: Path, history):
    assert read_conversations(lines(file, {**ALPACA, "history": history}))[0].messages == EXPECTED


@pytest.mark.parametrize("system", ["", None, "S"])
def test_later_xtuner_turns_may_repeat_the_system_prompt(file: Path, system):
    turns = [*XTUNER["conversation"], {"system": system, "input": "q2", "output": "a2"}]
    read = read_conversations(lines(file, {"conversation": turns}))[0]
    assert [m.text for m in read.messages] == ["S", "q", "a", "q2", "a2"]


def test_a_later_xtuner_turn_may_have_a_system_prompt_of_its_own(file: Path):
    turns = [*XTUNER["conversation"], {"system": "T", "input": "q2", "output": "a2"}]
    read = read_conversations(lines(file, {"conversation": turns}))[0]
    assert [(m.role, m.text) for m in read.messages[3:]] == [
        ("system", "T"),
        ("user", "q2"),
        ("assistant", "a2"),
    ]


def test_parts_that_are_text_are_joined(file: Path):
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "you"}]
    row = {"messages": [{"role": "user", "content": parts}, *OPENAI["messages"][2:]]}
    assert read_conversations(lines(file, row))[0].messages[0].text == "Hello you"


def test_a_reply_may_be_taken_out_of_the_training(file: Path):
    turns = OPENAI["messages"]
    for left_out in ({"weight": 0}, {"loss": False}):
        row = {"messages": [turns[1], {**turns[2], **left_out}, *turns[1:]]}
        read = read_conversations(lines(file, row))[0]
        assert [m.trained for m in read.messages] == [False, False, False, True]
    turn = {"input": "q", "output": "a", "output_with_loss": False}
    row = {"conversation": [turn, *XTUNER["conversation"]]}
    read = read_conversations(lines(file, row))[0]
    assert [m.trained for m in read.messages if m.role == "assistant"] == [False, True]


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
    "a turn that is text": ({"messages": ["x"]}, "messages[0] is not an object"),
    "an unknown role": ({"messages": [{"role": "tool", "content": "x"}]}, '"tool" is not known'),
    "an unknown sender": ({"conversations": [{"from": "cat", "value": "x"}]}, '"cat" is not known'),
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
        "[1] is int where text belongs",
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
    with pytest.raises(DataError, match=r"data\.jsonl:3: is not JSON: Expecting property name"):
        read_conversations(file)


def test_lines_that_are_not_json_are_gathered_with_the_other_bad_rows(file: Path):
    file.write_text(f'{json.dumps(OPENAI)}\nx\n{{"a": 1}}\n\n[\n', "utf-8")
    with pytest.raises(DataError, match="3 rows cannot be used") as error:
        read_conversations(file)
    for number in (2, 3, 5):
        assert f"data.jsonl:{number}: " in str(error.value)
    assert "whoamai data check" in str(error.value)


@pytest.mark.parametrize(
    ("text", "number", "reason"),
    [
        ("[{good}", 2, "the array does not end"),
        ("[{good},", 2, "the array does not end"),
        ("[{good},]", 2, "a comma behind the last element"),
        ("[{good}] x", 2, "text behind the end of the array"),
        ("[{good} {good}]", 1, "a comma is missing behind the element"),
        ("[{good}, {bad}]", 2, "Expecting"),
    ],
)
def test_an_array_that_is_not_json_is_told(file: Path, text: str, number: int, reason: str):
    text = text.replace("{good}", json.dumps(OPENAI)).replace("{bad}", '{"messages": []')
    file.write_text(text, "utf-8")
    with pytest.raises(DataError, match=f"data.jsonl:{number}: is not JSON: .*{reason}"):
        read_conversations(file)
    assert read_conversations(file, allow=["not-json"])[0].messages == EXPECTED


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


@pytest.mark.parametrize("held", ['"a\\ud83d"', '[{"type": "text", "text": "\\ud83d"}]'])
def test_half_a_surrogate_pair_is_told_as_a_bad_row(file: Path, held: str):
    """JSON can hold it; no tokenizer and no file can."""
    file.write_text(json.dumps(OPENAI).replace('"a"', held), "utf-8")
    with pytest.raises(DataError, match=r"data\.jsonl:1: content holds half of a character"):
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


def test_a_folder_is_told_with_the_cure(tmp_path: Path):
    with pytest.raises(DataError, match=r"is a folder. Give its files, for example .*\*\.jsonl"):
        read_conversations(tmp_path)


def test_a_file_that_is_not_utf_8_is_told_with_the_place(file: Path):
    file.write_bytes('{"instruction": "你是谁", "output": "我是小初"}'.encode("gbk"))
    with pytest.raises(DataError, match=r":1: is not UTF-8 text \(byte 18 of the line\)"):
        read_conversations(file)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_in_utf_16_is_told_as_such(file: Path, encoding: str):
    text = json.dumps(OPENAI)
    mark = "" if encoding == "utf-16" else "\ufeff"
    file.write_bytes((mark + text).encode(encoding))
    with pytest.raises(DataError, match=r"is UTF-16 text\. Save it as UTF-8"):
        read_conversations(file)


# ---- several files, and a part of a file ---------------------------------------------------------


def _asked(*numbers: int) -> list[dict[str, Any]]:
    return [form_row("query", f"q{n}", "a") for n in numbers]


def _questions(read: Sequence[Conversation]) -> list[str]:
    return [c.messages[1].text for c in read]


def test_several_files_are_read_one_after_the_other(tmp_path: Path):
    one, two = lines(tmp_path / "b.jsonl", *_asked(1, 2)), lines(tmp_path / "a.jsonl", *_asked(3))
    read = read_conversations([one, two])
    assert [c.source for c in read] == ["b.jsonl:1", "b.jsonl:2", "a.jsonl:1"]
    assert read_conversations(str(tmp_path / "*.jsonl")) == [read[2], read[0], read[1]]


def test_problems_of_several_files_are_told_together(tmp_path: Path):
    one, two = lines(tmp_path / "a.jsonl", {"a": 1}), lines(tmp_path / "b.jsonl", {"b": 1})
    with pytest.raises(DataError, match="2 rows cannot be used") as error:
        read_conversations([one, two])
    assert "a.jsonl:1: " in str(error.value)
    assert "b.jsonl:1: " in str(error.value)


@pytest.mark.parametrize("largest_in_memory", [1, 1 << 20], ids=["stored", "in memory"])
def test_a_part_of_a_file_is_drawn_by_the_seed(file: Path, largest_in_memory: int):
    lines(file, *_asked(*range(100)))

    def drawn(take: str, seed: int = 0) -> list[str]:
        read = read_conversations(f"{file}{take}", seed=seed, largest_in_memory=largest_in_memory)
        return _questions(read)

    half = drawn("#50")
    assert half == drawn("#50") == drawn("#0.5x") != drawn("#50", seed=1)
    assert len(set(half)) == 50
    assert half == sorted(half, key=lambda q: int(q[1:]))
    everything = drawn("")
    assert drawn("#2x") == everything * 2
    assert drawn("#150")[:100] == everything
    assert len(set(drawn("#150")[100:])) == 50


def test_a_part_that_is_no_row_is_told(file: Path):
    lines(file, *_asked(1, 2))
    with pytest.raises(DataError, match=r"data\.jsonl#0\.1x takes no row"):
        read_conversations(f"{file}#0.1x")


def test_parts_of_several_files_are_mixed(tmp_path: Path):
    one = lines(tmp_path / "a.jsonl", *_asked(1, 2))
    two = lines(tmp_path / "b.jsonl", *_asked(3, 4))
    for largest in (1, 1 << 20):
        read = read_conversations([f"{one}#3", f"{two}#2x"], largest_in_memory=largest)
        assert [c.source[0] for c in read] == ["a"] * 3 + ["b"] * 4


def test_a_file_larger_than_memory_is_read_the_same_from_the_disk(tmp_path: Path):
    path, _ = mixed_file(tmp_path)
    in_memory = read_conversations(path, allow=kind_names())
    stored = read_conversations(path, allow=kind_names(), largest_in_memory=1)
    assert not isinstance(stored, list)
    assert list(stored) == in_memory
    with pytest.raises(DataError, match="rows cannot be used"):
        read_conversations(path, largest_in_memory=1)


@given(st.binary(max_size=300), st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet", "x"]))
def test_no_bytes_whatever_end_in_a_traceback(content: bytes, ending: str):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data.{ending}"
        for written in (content, gzip.compress(content), gzip.compress(content)[: len(content)]):
            path.write_bytes(written)
            with suppress(WhoamaiError):
                read_conversations(path)


# ---- the seed's files ----------------------------------------------------------------------------


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


def test_a_file_of_which_every_row_was_left_out_is_told_from_one_without_rows(tmp_path: Path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"instruction": {"a": 1}, "output": "x"}\n', "utf-8")
    with pytest.raises(DataError, match="every row has something wrong"):
        read_conversations(path, allow=["nested-object"])
