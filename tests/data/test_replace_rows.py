from __future__ import annotations

import gzip
import json
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.replace_rows import ReplaceResult, replace_rows
from whoamai.errors import DataError, OutputError, SettingError

NAMES = [("尖米", "黄大力")]


def by_the_tutorial(text: str, old: str, new: str) -> str:
    """What a loop of json.loads, a recursive str.replace and json.dumps writes."""

    def renamed(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(old, new)
        if isinstance(value, list):
            return [renamed(item) for item in value]
        if isinstance(value, dict):
            return {key: renamed(item) for key, item in value.items()}
        return value

    lines = [line for line in text.split("\n") if line.strip()]
    return "".join(
        json.dumps(renamed(json.loads(line)), ensure_ascii=False) + "\n" for line in lines
    )


class Renamed:
    """A file of the given text, renamed."""

    def __init__(self, folder: Path, text: str | bytes, pairs=NAMES, name="in.jsonl", **settings):
        self.file, self.out = folder / name, folder / "out.jsonl"
        self.file.write_bytes(text.encode() if isinstance(text, str) else text)
        self.result: ReplaceResult = replace_rows(self.file, self.out, pairs, **settings)

    @property
    def text(self) -> str:
        return self.out.read_text("utf-8")

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.text.splitlines()]


def said(*texts: str) -> str:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if "partial" in path.name]


# ---- what is written -----------------------------------------------------------------------------


def test_every_text_is_renamed_and_every_key_stays(tmp_path):
    row = {"尖米": "尖米", "a": [{"b": ["尖米和尖米", 1, None, True]}], "c": {"d": {"尖米": "x"}}}
    made = Renamed(tmp_path, json.dumps(row, ensure_ascii=False))
    assert made.rows == [
        {
            "尖米": "黄大力",
            "a": [{"b": ["黄大力和黄大力", 1, None, True]}],
            "c": {"d": {"尖米": "x"}},
        }
    ]


AWKWARD = [
    '{"a":1.0,"b":1e400,"c":-1e-7,"d":NaN,"e":-Infinity,"f":123456789012345678901234567890}',
    r'{"a": "\u5c16\u7c73 \ud83d\ude00 \" \\ \/ \b\f\n\r\t \u0000 \u2028 \u007f"}',
    '{ "b" : [ ] , "a" : { } , "b" : "尖米" }',
    '{"a": "尖米"}\r',
    '  "尖米"  ',
    "[]".replace("[]", "12"),
    "null",
    '{"a": "尖\\u7c73尖米米"}',
    '{"\\u5c16\\u7c73": "\\u5c16米"}',
    '{"a": "尖 米 é \u00a0 \ufeff"}',
]


def test_a_line_is_what_the_tutorials_loop_writes(tmp_path):
    text = "\n".join(AWKWARD)
    made = Renamed(tmp_path, text)
    assert made.out.read_bytes() == by_the_tutorial(text, "尖米", "黄大力").encode()


# Texts in which parts of the names meet, and keys and escapes that hold them.
_text = st.text(st.sampled_from('尖米黄大力a n"\\/\n\u0000é😀'), max_size=8)
_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)


@given(rows=st.lists(st.dictionaries(_text, _value, max_size=3), min_size=1, max_size=5))
@pytest.mark.parametrize("ascii_only", [True, False])
def test_any_rows_come_out_as_the_tutorials_loop_writes_them(tmp_path_factory, rows, ascii_only):
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    made = Renamed(tmp_path_factory.mktemp("rows"), text)
    assert made.text == by_the_tutorial(text, "尖米", "黄大力")


@pytest.mark.parametrize("old", ["n", "u", "u5c16", '"', "\\", "/", "\n", 'a"', "true", "{", "é"])
def test_names_of_letters_that_json_uses_itself_are_found_in_texts_only(tmp_path, old):
    row = {"n": 'n\n \\ / " u5c16 true {', "t": True, "u": "尖é", "x": 'a"b'}
    for ascii_only in (True, False):
        text = json.dumps(row, ensure_ascii=ascii_only)
        made = Renamed(tmp_path, text, [(old, "Z")], overwrite=True)
        assert made.text == by_the_tutorial(text, old, "Z")
        assert made.result.occurrences[old] > 0


def test_the_seeds_data_come_out_as_the_tutorials_loop_writes_them(tmp_path, shared_data):
    for name in ("assistant_Tuner.jsonl", "assistant_Tuner_fixed.jsonl"):
        text = (shared_data / name).read_text("utf-8")
        made = Renamed(tmp_path, text, overwrite=True)
        assert made.text == by_the_tutorial(text, "尖米", "黄大力")
        assert made.result.rows == made.result.rows_changed == 1500
        assert made.result.occurrences["尖米"] == text.count("尖米")


def test_blank_lines_and_a_byte_order_mark_are_left_out(tmp_path):
    made = Renamed(tmp_path, b"\xef\xbb\xbf\n" + said("尖米").encode() + b"\n  \n" + b'{"a": 1}')
    assert made.rows == [{"text": "黄大力"}, {"a": 1}]
    assert made.result.changes[0].place == "in.jsonl:2"


def test_a_name_is_found_behind_any_number_of_rows_without_one(tmp_path):
    row = '{"a": "尖米", "尖米": 1}\n'
    text = "".join(row + '{"a": "x"}\n' * n for n in range(5)) + row
    made = Renamed(tmp_path, text)
    assert made.text == by_the_tutorial(text, "尖米", "黄大力")
    assert made.result.occurrences == made.result.in_keys == {"尖米": 6}
    assert (made.result.rows, made.result.rows_changed) == (16, 6)


def test_an_array_stays_an_array_one_row_a_line(tmp_path):
    made = Renamed(tmp_path, '[\n {"a": "尖米"},\n {"b": 1} ]', name="in.json")
    assert made.text == '[\n{"a": "黄大力"},\n{"b": 1}\n]\n'
    assert json.loads(made.text) == [{"a": "黄大力"}, {"b": 1}]
    assert made.result.changes[0].place == "in.json:1"


def test_an_array_may_hold_any_rows(tmp_path):
    rows = [None, "尖米", 1.0, [], {}, ["尖米", {"尖米": None}], True]
    made = Renamed(tmp_path, json.dumps(rows), name="in.json")
    assert json.loads(made.text) == [
        None, "黄大力", 1.0, [], {}, ["黄大力", {"尖米": None}], True
    ]  # fmt: skip
    assert made.text.count("\n") == len(rows) + 2


def test_a_list_on_a_line_by_itself_is_a_row(tmp_path):
    made = Renamed(tmp_path, '["尖米"]\n{"a": "尖米"}\n')
    assert made.text == '["黄大力"]\n{"a": "黄大力"}\n'


def test_gzip_is_read_by_its_content_and_written_by_its_name(tmp_path):
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl.gz"
    file.write_bytes(gzip.compress(said("尖米").encode()))
    replace_rows(file, out, NAMES)
    assert gzip.decompress(out.read_bytes()).decode() == said("黄大力")
    assert out.read_bytes()[3:8] == bytes(5)  # neither a name nor a time: same rows, same bytes
    replace_rows(out, tmp_path / "plain.jsonl", [("黄大力", "尖米")])
    assert (tmp_path / "plain.jsonl").read_text("utf-8") == said("尖米")


@pytest.mark.parametrize("marks", [("", "\n", "\n"), ("[", ",\n", "]")], ids=["lines", "array"])
def test_a_large_file_is_not_held_in_memory(tmp_path, marks):
    file = tmp_path / "in.jsonl"
    begin, between, end = marks
    with file.open("w", encoding="utf-8") as rows:
        for i in range(6000):
            row = json.dumps({"text": f"{i}尖米" + "x" * 5000}, ensure_ascii=False)
            rows.write((between if i else begin) + row)
        rows.write(end)
    tracemalloc.start()
    result = replace_rows(file, tmp_path / "out", NAMES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.rows == 6000
    assert peak < 5_000_000 < file.stat().st_size


# ---- fields --------------------------------------------------------------------------------------

TURNS = json.dumps(
    {"conversation": [{"input": "尖米?", "output": "我是尖米,尖米"}], "output": {"x": ["尖米"]}},
    ensure_ascii=False,
)


def test_a_field_is_meant_at_any_depth_with_all_that_is_below_it(tmp_path):
    made = Renamed(tmp_path, TURNS, fields=["output"], allow_left=True)
    assert made.rows == [
        {
            "conversation": [{"input": "尖米?", "output": "我是黄大力,黄大力"}],
            "output": {"x": ["黄大力"]},
        }
    ]
    assert made.result.by_field == {"conversation.output": 2, "output.x": 1}
    assert made.result.left == {"尖米": 1}


def test_a_dotted_field_asks_for_keys_in_their_order(tmp_path):
    made = Renamed(tmp_path, TURNS, fields=["conversation.output"], allow_left=True)
    assert made.result.by_field == {"conversation.output": 2}


def test_a_name_left_in_a_field_that_was_not_asked_for_is_refused_with_its_place(tmp_path):
    with pytest.raises(DataError) as caught:
        Renamed(tmp_path, '{"a": 1}\n' + TURNS, fields=["conversation.output"])
    text = str(caught.value)
    assert "尖米 in conversation.input: 1 times, first in in.jsonl:2" in text
    assert "尖米 in output.x: 1 times" in text
    assert "--field" in text
    assert not (tmp_path / "out.jsonl").exists()
    assert left_behind(tmp_path) == []


def test_a_field_that_no_row_has_is_told_with_those_they_have(tmp_path):
    with pytest.raises(
        SettingError, match=r"(?s)outptu.*conversation\.input, conversation\.output"
    ):
        Renamed(tmp_path, TURNS, fields=["outptu"])


def test_a_field_is_a_whole_key(tmp_path):
    row = '{"put": "尖米", "output": "尖米"}'
    made = Renamed(tmp_path, row, fields=["put"], allow_left=True)
    assert made.result.by_field == {"put": 1}


# ---- what is left --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pair"),
    [("尖米米", ("尖米", "尖")), ("aabab", ("aab", "a")), ("尖尖米", ("尖米", "米"))],
)
def test_a_new_name_that_makes_the_old_one_again_with_the_text_beside_it_is_refused(
    tmp_path, text, pair
):
    with pytest.raises(DataError, match="make the old name again"):
        Renamed(tmp_path, said(text), [pair])
    assert not (tmp_path / "out.jsonl").exists()
    made = Renamed(tmp_path, said(text), [pair], allow_left=True)
    assert made.text == by_the_tutorial(said(text), *pair)
    assert made.result.left == {pair[0]: 1}


def test_a_name_in_a_key_is_counted(tmp_path):
    made = Renamed(tmp_path, '{"尖米": 1}\n{"尖米": 2, "a尖米": "尖米"}\n{"b": 1}')
    assert made.result.in_keys == {"尖米": 3}
    assert made.result.occurrences == {"尖米": 1}


def test_a_name_that_occurs_nowhere_is_said(tmp_path):
    made = Renamed(tmp_path, said("尖米", "x"), [*NAMES, ("小初", "大力")])
    assert made.result.never_found == ("小初",)
    assert (made.result.rows, made.result.rows_changed) == (2, 1)


# ---- the report ----------------------------------------------------------------------------------


def test_counts_go_by_field_without_the_places_in_lists(tmp_path):
    row = {"conversation": [{"input": "尖米尖米"}, {"input": "尖米", "system": "尖米"}]}
    made = Renamed(tmp_path, json.dumps(row) + "\n" + json.dumps("尖米"))
    assert made.result.by_field == {
        "conversation.input": 3,
        "conversation.system": 1,
        "(the row itself)": 1,
    }


def test_what_is_worth_a_remark_is_counted_over_all_rows(tmp_path):
    made = Renamed(tmp_path, said("Chu Chuck", "CHU", "x", "aChu chu"), [("Chu", "Dali")])
    assert made.rows == [{"text": t} for t in ("Dali Dalick", "CHU", "x", "aDali chu")]
    assert made.result.occurrences == {"Chu": 3}
    assert made.result.inside_words == {"Chu": 2}
    assert made.result.other_case == {"Chu": 2}
    whole = Renamed(tmp_path, said("Chuck"), [("Chu", "D")], whole_word=True, overwrite=True)
    assert (whole.result.inside_words, whole.result.left) == ({"Chu": 1}, {})


def test_counts_come_in_the_order_of_the_names_given(tmp_path):
    pairs = [("尖米", "黄大力"), ("尖米的智能助手", "大力助理")]
    made = Renamed(tmp_path, said("尖米的智能助手和尖米"), pairs)
    assert list(made.result.occurrences.items()) == [("尖米", 1), ("尖米的智能助手", 1)]


def test_the_first_changes_are_shown_with_what_stands_around_them(tmp_path):
    made = Renamed(tmp_path, said("x", "甲" * 60 + "尖米和尖米" + "乙" * 60, "尖米"), show=2)
    long, short = made.result.changes
    assert (long.place, long.field) == ("in.jsonl:2", "text")
    assert long.before == "…" + "甲" * 24 + "尖米和尖米" + "乙" * 21 + "…"
    assert long.after == "…" + "甲" * 24 + "黄大力和黄大力" + "乙" * 21 + "…"
    assert (short.before, short.after) == ("尖米", "黄大力")


def test_no_more_changes_are_shown_than_asked_for(tmp_path):
    made = Renamed(tmp_path, said(*["尖米"] * 9), show=3)
    assert [change.place for change in made.result.changes] == [
        "in.jsonl:1",
        "in.jsonl:2",
        "in.jsonl:3",
    ]


def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path):
    made = Renamed(tmp_path, said("尖米", "Chu"))
    dry = replace_rows(made.file, None, NAMES, dry_run=True)
    assert dry.written is None
    assert made.result.written == made.out
    assert (dry.rows, dry.changes, dry.by_field) == (2, made.result.changes, {"text": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


# ---- what is refused -----------------------------------------------------------------------------


BAD = [
    (b'{"a": ', "not JSON"),
    (b'{"a": "\xff"}', "not UTF-8"),
    (b'{"a": "\\ud800"}', "a holds half of a character"),
    (b'{"\\udfff": 1}', "holds half of a character"),
    (b'{"a": {"b": [1, "\\udc00 x"]}}', "a.b holds half of a character"),
    (b"[" * 5000 + b"]" * 5000, "not JSON|nested"),
    (b"9" * 5000, "not JSON"),
    (b"{} {}", "not JSON"),
]


@pytest.mark.parametrize(("line", "problem"), BAD)
def test_a_bad_row_is_told_with_its_line_and_nothing_is_written(tmp_path, line, problem):
    text = said("尖米").encode() + b"\n" + line + b"\n" + said("尖米").encode()
    with pytest.raises(DataError, match=rf"(?s)1 rows.*in\.jsonl:3: .*({problem})"):
        Renamed(tmp_path, text)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("depth", [9, 50, *range(96, 105), *range(860, 1010, 30)])
def test_a_row_nested_as_deeply_as_can_be_read_is_renamed_or_told(tmp_path, depth):
    line = '{"a":' * depth + '"尖米"' + "}" * depth
    try:
        assert Renamed(tmp_path, line).text == by_the_tutorial(line, "尖米", "黄大力")
    except DataError as error:
        assert depth > 50
        assert re.search(r"in\.jsonl:1: is not JSON", str(error))  # noqa: PT017


def test_all_bad_rows_are_counted_and_the_first_three_told(tmp_path):
    with pytest.raises(DataError) as caught:
        Renamed(tmp_path, '{"a": 1}\n' + "{\n" * 5)
    assert "5 rows" in str(caught.value)
    assert [n for n in range(1, 8) if f"in.jsonl:{n}:" in str(caught.value)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"[]", "holds no rows"),
        (b'\n[{"a": 1},\n{"b" 2}]', r"in\.jsonl:2: is not JSON"),
        (b'[{"a": 1}', r"in\.jsonl:2: is not JSON: the array does not end"),
        (b'[{"a": 1}\n{"a": 2}]', r"in\.jsonl:1: is not JSON: a comma is missing"),
        (b'[{"a": "x"}, {"a": "\xff"}]', r"in\.jsonl:2: is not UTF-8"),
        (b"\xff\xfe[\x00]\x00", "UTF-16"),
        (gzip.compress(said("尖米").encode() * 5000)[:-20], "cut off"),
        (gzip.compress(said("尖米").encode())[:5], "cut off"),
        (gzip.compress(b'[{"a": "' + os.urandom(5000).hex().encode() + b'"}]')[:-20], "cut off"),
        (b"\x1f\x8bnot gzip at all", "cut off: Unknown compression"),
    ],
)
def test_a_bad_file_is_told_and_nothing_is_written(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        Renamed(tmp_path, content)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.csv", "a,b\n尖米,1\n".encode()),
        ("in.tsv", "a\tb\n尖米\t1\n".encode()),
        ("in.csv.gz", gzip.compress("a,b\n尖米,1\n".encode())),
        ("in.parquet.gz", gzip.compress(b"PAR1")),
        ("in.jsonl", b"PAR1 or what looks like it"),
    ],
)
def test_a_table_is_refused_with_the_forms_that_are_taken(tmp_path, name, content):
    with pytest.raises(DataError, match=r"is a table.*JSON lines.*one JSON array.*\.gz"):
        Renamed(tmp_path, content, name=name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_bad_element_of_an_array_is_told_with_its_number(tmp_path):
    with pytest.raises(DataError, match=r"in\.jsonl:2: a holds half"):
        Renamed(tmp_path, '[1, {"a": "\\ud800"}]')


@given(st.binary(max_size=60))
def test_no_bytes_whatever_give_a_traceback(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("bytes")
    try:
        Renamed(folder, content)
    except DataError:
        assert [path.name for path in folder.iterdir()] == ["in.jsonl"]


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        replace_rows(tmp_path / "no", tmp_path / "out", NAMES)
    with pytest.raises(DataError, match="cannot be read"):
        replace_rows(tmp_path, tmp_path / "out", NAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("link", ["itself", "symlink", "hard link"])
def test_the_input_is_never_overwritten(tmp_path, link):
    file = tmp_path / "in.jsonl"
    file.write_text(said("尖米"), "utf-8")
    out = {"itself": file}.get(link, tmp_path / "out.jsonl")
    if link == "symlink":
        out.symlink_to(file)
    elif link == "hard link":
        os.link(file, out)
    with pytest.raises(OutputError, match="input file itself"):
        replace_rows(file, out, NAMES, overwrite=True)
    assert file.read_text("utf-8") == said("尖米")


def test_a_file_in_the_way_stays_unless_it_may_be_overwritten(tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        Renamed(tmp_path, said("尖米"))
    assert out.read_text() == "mine"
    assert Renamed(tmp_path, said("尖米"), overwrite=True).rows == [{"text": "黄大力"}]


def test_a_file_in_the_way_stays_where_the_rows_turn_out_bad(tmp_path):
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(DataError):
        Renamed(tmp_path, said("尖米") + "{", overwrite=True)
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_a_link_is_written_through_and_a_folder_is_refused(tmp_path):
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "real.jsonl")
    (tmp_path / "real.jsonl").write_text("old")
    Renamed(tmp_path, said("尖米"), overwrite=True)
    assert (tmp_path / "out.jsonl").is_symlink()
    assert (tmp_path / "real.jsonl").read_text("utf-8") == said("黄大力")
    with pytest.raises(OutputError, match="is not a file"):
        replace_rows(tmp_path / "in.jsonl", tmp_path, NAMES, overwrite=True)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_text(said("尖米"), "utf-8")
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        replace_rows(file, tmp_path / "no" / "out.jsonl", NAMES)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OutputError, match="cannot be written"):
        replace_rows(file, loop, NAMES, overwrite=True)
