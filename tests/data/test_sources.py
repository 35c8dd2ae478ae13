from __future__ import annotations

import datetime
import decimal
import gzip
import io
import itertools
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whoamai.data import json_rows
from whoamai.data.sources import (
    RawRow,
    Source,
    begins_with_mark,
    find_sources,
    progress_over,
    read_rows,
)
from whoamai.errors import DataError, WhoamaiError


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> list[tuple[int, Any]]:
    """(number, value) of each row; the kind of its flaw in the place of a value that is not there."""
    return [(r.number, r.value if r.value is not None else _kind(r)) for r in read_rows(path)]


def _kind(row: RawRow) -> str | None:
    return row.flaw.kind if row.flaw else None


def flaws(path: Path) -> list[tuple[int, str, str]]:
    return [(r.number, r.flaw.kind, r.flaw.text) for r in read_rows(path) if r.flaw]


# ---- naming files --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jsonl", "b.jsonl", "c.json", "d#500.jsonl", "e.jsonl#500", "[f].jsonl"):
        written(tmp_path, name, "{}\n")
    (tmp_path / "inner").mkdir()
    written(tmp_path, "inner/g.jsonl", "{}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("?.jsonl", ["a.jsonl", "b.jsonl"]),
        ("[ab].jsonl", ["a.jsonl", "b.jsonl"]),
        ("[f].jsonl", ["[f].jsonl"]),
        ("**/g.jsonl", ["g.jsonl"]),
        ("*/*.jsonl", ["g.jsonl"]),
        ("*", ["[f].jsonl", "a.jsonl", "b.jsonl", "c.json", "d#500.jsonl", "e.jsonl#500"]),
    ],
)
def test_names_and_patterns_give_files_in_the_order_of_their_names(
    folder: Path, given: str, names: list[str]
):
    assert [s.path.name for s in find_sources(f"{folder}/{given}")] == names


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ("a.jsonl#500", Source(Path("a.jsonl"), count=500)),
        ("a.jsonl#0.5x", Source(Path("a.jsonl"), factor=0.5)),
        ("a.jsonl#2x", Source(Path("a.jsonl"), factor=2.0)),
        ("d#500.jsonl", Source(Path("d#500.jsonl"))),
        ("e.jsonl#500", Source(Path("e.jsonl#500"))),
        ("e.jsonl#500#3", Source(Path("e.jsonl#500"), count=3)),
        ("d#500.jsonl#3x", Source(Path("d#500.jsonl"), factor=3.0)),
        ("[f].jsonl#3", Source(Path("[f].jsonl"), count=3)),
    ],
)
def test_so_many_rows_of_a_file_unless_its_name_is_just_that(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: str, source: Source
):
    monkeypatch.chdir(folder)
    assert find_sources(given) == [source]
    assert find_sources(Path(given)) == [source]


def test_so_many_rows_of_each_file_of_a_pattern(folder: Path):
    found = find_sources(f"{folder}/?.jsonl#7")
    assert [(s.path.name, s.count) for s in found] == [("a.jsonl", 7), ("b.jsonl", 7)]


def test_a_source_is_written_as_a_person_writes_it():
    path = Path("a.jsonl")
    sources = (Source(path), Source(path, count=5), Source(path, factor=0.5))
    assert [s.label for s in sources] == ["a.jsonl", "a.jsonl#5", "a.jsonl#0.5x"]


def test_several_are_taken_in_the_order_given(folder: Path):
    found = find_sources([f"{folder}/b.jsonl", f"{folder}/a.jsonl", f"{folder}/b.jsonl"])
    assert [s.path.name for s in found] == ["b.jsonl", "a.jsonl", "b.jsonl"]


def test_the_home_folder_may_be_written_short(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(folder))
    assert find_sources("~/a.jsonl#3") == [Source(folder / "a.jsonl", count=3)]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("no.jsonl", "There is no file no.jsonl."),
        ("no.jsonl#500", "There is no file no.jsonl."),
        ("a.jsonl#x", "There is no file a.jsonl#x."),
        ("a.jsonl#-1", "There is no file a.jsonl#-1."),
        ("*.csv", "No file fits the pattern *.csv."),
        ("inner/*.csv#5", "No file fits the pattern inner/*.csv."),
        ("inner", "inner is a folder. Give its files, for example inner/*.jsonl"),
        ("inner#5", "inner is a folder"),
        ("inn*", "No file fits the pattern inn*."),
        ("a.jsonl/x", "There is no file a.jsonl/x."),
        ("a.jsonl#0", "a.jsonl#0 takes no row at all."),
        ("a.jsonl#0.0x", "a.jsonl#0.0x takes no row at all."),
        ("~nobody-of-this-name/a.jsonl", "There is no file ~nobody-of-this-name/a.jsonl."),
        ("a\0.jsonl", "There is no file a\0.jsonl."),
        ("x" * 5000, "There is no file xxx"),
        ("", "is a folder"),
    ],
)
def test_what_cannot_be_used_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: str, reason: str
):
    monkeypatch.chdir(folder)
    with pytest.raises(DataError) as error:
        find_sources(given)
    assert reason in str(error.value)


def test_all_problems_are_told_together(folder: Path):
    given = [f"{folder}/a.jsonl", f"{folder}/no.jsonl", str(folder), f"{folder}/*.csv"]
    with pytest.raises(DataError) as error:
        find_sources(given)
    assert [line.split()[0] for line in str(error.value).splitlines()] == [
        "There",
        str(folder),
        "No",
    ]


def test_no_file_at_all_is_told():
    with pytest.raises(DataError, match="No data file was given"):
        find_sources([])


# ---- which rows ----------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 200), st.integers(0, 5))
def test_so_many_rows_are_whole_rounds_and_a_rest_without_repetition(rows: int, n: int, seed: int):
    places = Source(Path("f"), count=n).chosen(rows, seed)
    assert len(places) == n
    rounds = n // rows * rows
    assert places[:rounds] == [*range(rows)] * (n // rows)
    assert places[rounds:] == sorted(set(places[rounds:]))
    assert places == Source(Path("f"), count=n).chosen(rows, seed)


@pytest.mark.parametrize(("factor", "n"), [(0.5, 50), (0.25, 25), (1.0, 100), (2.5, 250)])
def test_a_factor_is_of_the_rows_there_are(factor: float, n: int):
    assert len(Source(Path("f"), factor=factor).chosen(100, 0)) == n


def test_another_seed_and_another_file_draw_other_rows():
    drawn = [Source(Path(f), count=50).chosen(100, s) for f, s in (("a", 0), ("a", 1), ("b", 0))]
    assert all(one != other for one, other in itertools.combinations(drawn, 2))


def test_all_rows_are_chosen_where_nothing_is_said():
    assert Source(Path("f")).chosen(3, 0) == [0, 1, 2]
    assert Source(Path("f"), count=5).chosen(0, 0) == []


# ---- JSON lines ----------------------------------------------------------------------------------


def test_numbers_are_lines(tmp_path: Path):
    path = written(tmp_path, "a.jsonl", '\n{"a": 1}\n\n  \t\r\n{"a": 2}\r\n3\n\nnull\nx\n"s"')
    wanted = [(2, {"a": 1}), (5, {"a": 2}), (6, 3), (8, None), (9, "not_json"), (10, "s")]
    assert read(path) == wanted


def test_a_first_row_that_is_a_list_makes_no_array_of_the_lines(tmp_path: Path):
    path = written(tmp_path, "a.jsonl", '[1, 2]\n{"a": 1}\n\n{"a": 2}\n')
    assert read(path) == [(1, [1, 2]), (2, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize("size", [10, 70_000, 1_100_000])
def test_lines_of_any_length_are_read(tmp_path: Path, size: int):
    rows = [{"a": "x" * size}, {"a": 1}, {"a": "你" * size}, {"a": 2}]
    path = written(tmp_path, "a.jsonl", "\n".join(json.dumps(r) for r in rows))
    assert read(path) == list(enumerate(rows, 1))


def test_a_broken_byte_is_told_with_its_place_and_the_rest_is_read(tmp_path: Path):
    path = written(tmp_path, "a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n{"a": 3}\n\xfe\n')
    assert read(path) == [(1, {"a": 1}), (2, {"a": "\udcff"}), (3, {"a": 3}), (4, "broken_utf8")]
    assert flaws(path)[0] == (2, "broken_utf8", "byte 8 of the line")


@pytest.mark.parametrize("levels", [100, 101, 5000, 100_000])
@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("form", ["lines", "array"])
def test_nesting_is_read_to_a_hundred_levels(
    tmp_path: Path, levels: int, opened: str, closed: str, form: str
):
    row = opened * levels + "1" + closed * levels
    if form == "lines":
        path = written(tmp_path, "a.jsonl", f'{{"a": 0}}\n{row}\n{{"a": 2}}\n')
    else:
        path = written(tmp_path, "a.json", f'[{{"a": 0}}, {row}, {{"a": 2}}]')
    first, second, third = read(path)
    assert (first, third) == ((1, {"a": 0}), (3, {"a": 2}))
    assert (second[1] == "not_json") is (levels > 100)


def test_brackets_inside_texts_are_no_nesting(tmp_path: Path):
    row = {"a": "[{" * 500, "b": [[]] * 500}
    assert read(written(tmp_path, "a.jsonl", json.dumps(row))) == [(1, row)]


# ---- arrays --------------------------------------------------------------------------------------

GOOD = {
    "messages": [{"role": "user", "content": "你好 {[,"}, {"role": "assistant", "content": "]}"}]
}
STYLES = {
    "one line": {},
    "tight": {"separators": (",", ":")},
    "pretty": {"indent": 2},
    "tabs": {"indent": "\t"},
}


def array(elements: list[str], style: str) -> str:
    """The elements, each JSON or not, as an array in a style."""
    how = STYLES[style]
    if "indent" not in how:
        return "[" + how.get("separators", (", ",))[0].join(elements) + "]"
    indent = " " * 2 if how["indent"] == 2 else "\t"
    inner = [indent + e.replace("\n", "\n" + indent) for e in elements]
    return "[\n" + ",\n".join(inner) + "\n]\n"


def _element(number: int, style: str) -> str:
    return json.dumps({**GOOD, "id": number}, ensure_ascii=False, **STYLES[style])


# How an element may be broken: what to put in the place of what.
BREAKS = {
    "a missing brace at the end": ("}", "", -1),
    "a missing brace at the beginning": ("{", "", 0),
    "a missing bracket": ("]", "", -1),
    "a missing comma": (',', "", -1),
    "a missing colon": (":", "", 0),
    "a missing quote": ('"', "", -1),
    "a missing first quote": ('"', "", 0),
    "a string without end": ('"user"', '"user', 0),
    "a brace too many": ("}", "}}", -1),
    "a bracket too many": ("]", "]]", -1),
    "a bare word": ('"user"', "user", 0),
    "a comma too many": ("}", ",}", -1),
    "nesting without end": ('"user"', "[" * 100_000, 0),
    "a number of 5,000 digits": ('"user"', "1" * 5000, 0),
    "a control character": ("user", "us\x01er", 0),
}  # fmt: skip

# Of two such in a row nobody can say where the second begins.
BEHEADED = ("a missing brace at the beginning", "a missing first quote")


def broken(element: str, how: str) -> str:
    old, new, at = BREAKS[how]
    place = element.index(old) if at == 0 else element.rindex(old)
    return element[:place] + new + element[place + len(old) :]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_element_costs_no_other_and_no_number_changes(
    tmp_path: Path, style: str, how: str
):
    elements = [_element(i, style) for i in range(1, 9)]
    in_a_row = [] if how in BEHEADED else [[3, 4], [2, 5, 6], [7, 8]]
    for bad in ([3], [1], [2, 4, 8], *in_a_row):
        torn = [broken(e, how) if i in bad else e for i, e in enumerate(elements, 1)]
        path = written(tmp_path, "a.json", array(torn, style))
        rows = list(read_rows(path))
        assert [r.number for r in rows] == list(range(1, 9))
        assert [r.number for r in rows if r.flaw] == bad
        assert all(r.value == {**GOOD, "id": r.number} for r in rows if r.number not in bad)


@pytest.mark.parametrize("style", ["pretty", "tabs"])
def test_elements_are_known_by_their_indentation_whatever_they_begin_with(
    tmp_path: Path, style: str
):
    elements = [json.dumps({key: [{"x": {}}]}, **STYLES[style]) for key in "abcde"]
    elements[0] = broken(elements[0], "a missing bracket")
    elements[3] = broken(elements[3], "a missing colon")
    found = read(written(tmp_path, "a.json", array(elements, style)))
    assert found[1:3] == [(2, {"b": [{"x": {}}]}), (3, {"c": [{"x": {}}]})]
    assert found[4] == (5, {"e": [{"x": {}}]})
    assert [value for _, value in found if not isinstance(value, dict)] == ["not_json"] * 2


@pytest.mark.parametrize("style", STYLES)
def test_a_missing_comma_is_told_and_both_elements_are_read(tmp_path: Path, style: str):
    elements = [_element(i, style) for i in range(1, 5)]
    text = array([elements[0], elements[1] + " " + elements[2], elements[3]], style)
    path = written(tmp_path, "a.json", text)
    assert [value["id"] for _, value in read(path)] == [1, 2, 3, 4]
    assert flaws(path) == [(2, "not_json", "a comma is missing behind the element")]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("text", "n_read", "reason"),
    [
        ("{array},]", 4, "there is a comma behind the last element"),
        ("{array}", 4, "the array does not end"),
        ("{array},", 4, "the array does not end"),
        ("{array}] and more", 4, "there is text behind the end of the array"),
        ("{array}]]", 4, "there is text behind the end of the array"),
        ("{array}]\n{array}]", 8, "there is text behind the end of the array"),
    ],
)
def test_what_is_wrong_with_an_arrays_end_is_told_and_its_elements_are_read(
    tmp_path: Path, style: str, text: str, n_read: int, reason: str
):
    beginning = array([_element(i, style) for i in range(1, 5)], style).rstrip("\n]")
    path = written(tmp_path, "a.json", text.replace("{array}", beginning))
    assert sum(isinstance(value, dict) for _, value in read(path)) == n_read
    assert flaws(path)[0] == (5, "not_json", reason)


@pytest.mark.parametrize("style", STYLES)
def test_a_file_cut_off_keeps_the_elements_before_the_cut(tmp_path: Path, style: str):
    text = array([_element(i, style) for i in range(1, 9)], style)
    half = len(text) // 2
    for cut in range(half, half + 130, 3):
        rows = read(written(tmp_path, "a.json", text[:cut]))
        whole = [value["id"] for _, value in rows if isinstance(value, dict)]
        assert whole in ([1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5])
        assert rows[-1] == (len(whole) + 1, "not_json")


def test_a_broken_byte_in_an_element_is_told_with_its_number(tmp_path: Path):
    text = '[{"a": "你"}, {"a": "!"}, {"a": "好"}]'
    path = written(tmp_path, "a.json", text.encode().replace(b"!", b"\xff"))
    assert read(path) == [(1, {"a": "你"}), (2, {"a": "\udcff"}), (3, {"a": "好"})]
    assert flaws(path) == [(2, "broken_utf8", "in the element")]


@pytest.mark.parametrize("content", ["[]", "[ \n ]", "\ufeff[]", "\n\n[\n]\n"])
def test_an_empty_array_has_no_rows(tmp_path: Path, content: str):
    assert read(written(tmp_path, "a.json", content)) == []


def test_elements_longer_than_the_pieces_a_file_is_read_in(tmp_path: Path):
    rows = [{"messages": ["你" * n]} for n in (1, 70_000, 3, 300_000, 5)]
    for style, how in STYLES.items():
        elements = [json.dumps(r, ensure_ascii=False, **how) for r in rows]
        path = written(tmp_path, "a.json", array(elements, style))
        assert read(path) == list(enumerate(rows, 1))


@given(st.integers(0, 40), st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_wherever_a_piece_ends_the_elements_are_the_same(chunk: int, values: list[int]):
    rows = [{"a": "你" * n, "n": -1.5e3, "t": True, "e": "\n\\"} for n in values]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "CHUNK", chunk + 1)
        for style, how in STYLES.items():
            elements = [json.dumps(r, ensure_ascii=False, **how) for r in rows]
            path = written(Path(folder), "a.json", array(elements, style))
            assert read(path) == list(enumerate(rows, 1))


# ---- packed files --------------------------------------------------------------------------------

LINES = "".join(json.dumps({"id": i, "text": f"row {i * 7919 % 1000}"}) + "\n" for i in range(500))


def test_rows_before_the_cut_of_a_packed_file_survive(tmp_path: Path):
    packed = gzip.compress(LINES.encode())
    whole = 0
    for cut in range(0, len(packed), 97):
        path = written(tmp_path, "a.jsonl.gz", packed[:cut])
        rows = read(path)
        good = [value["id"] for _, value in rows if isinstance(value, dict)]
        assert good == list(range(len(good)))
        assert len(good) >= whole
        whole = len(good)
        if cut > 2:
            assert rows[-1] == (len(good) + 1, "ends_early")
            assert len(rows) == len(good) + 1
    assert whole > 400


def test_elements_before_the_cut_of_a_packed_array_survive(tmp_path: Path):
    rows = [{"id": i, "text": f"row {i * 7919 % 1000}"} for i in range(500)]
    packed = gzip.compress(json.dumps(rows, indent=1).encode())
    path = written(tmp_path, "a.json.gz", packed[: len(packed) // 2])
    found = read(path)
    assert found[:-1] == list(enumerate(rows, 1))[: len(found) - 1]
    assert len(found) > 200
    assert found[-1] == (len(found), "ends_early")


def test_a_broken_element_before_the_cut_costs_no_other(tmp_path: Path):
    elements = [_element(i, "one line") for i in range(1, 500)]
    elements[1] = broken(elements[1], "a missing brace at the end")
    packed = gzip.compress(array(elements, "one line").encode())
    found = read(written(tmp_path, "a.json.gz", packed[:-50]))
    assert [number for number, value in found if not isinstance(value, dict)] == [2, len(found)]
    assert len(found) > 300
    assert found[-1][1] == "ends_early"


def test_rows_of_a_packed_table_before_the_cut_survive_and_none_is_half(tmp_path: Path):
    table = "id,text\n" + "".join(f"{i},text number {i}\n" for i in range(500))
    packed = gzip.compress(table.encode())
    for cut in range(40, len(packed), 211):
        found = read(written(tmp_path, "a.csv.gz", packed[:cut]))
        assert found[-1] == (len(found), "ends_early")
        assert all(row["text"] == f"text number {n - 1}" for n, row in found[:-1])


@given(st.data())
@settings(max_examples=100)
def test_a_corrupted_packed_file_ends_in_no_traceback(data: st.DataObject):
    packed = bytearray(gzip.compress(LINES.encode()))
    for _ in range(data.draw(st.integers(1, 5))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder, suppress(WhoamaiError):
        for row in read_rows(written(Path(folder), "a.jsonl.gz", bytes(packed))):
            assert row.number > 0


def test_packed_pieces_one_after_the_other_are_one_file(tmp_path: Path):
    content = gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n')
    assert read(written(tmp_path, "a.jsonl.gz", content)) == [(1, {"a": 1}), (2, {"a": 2})]


def test_a_packed_file_is_known_by_its_content_not_its_name(tmp_path: Path):
    assert read(written(tmp_path, "a.jsonl", gzip.compress(b'{"a": 1}\n'))) == [(1, {"a": 1})]
    assert read(written(tmp_path, "a.jsonl.gz", b'{"a": 1}\n')) == [(1, {"a": 1})]


# ---- tables --------------------------------------------------------------------------------------


def test_quoted_texts_may_hold_separators_quotes_and_line_ends(tmp_path: Path):
    table = 'query,response\n"a, b","c ""d""\ne"\n\n  \nq,"\r\nr"\n'
    wanted = [{"query": "a, b", "response": 'c "d"\ne'}, {"query": "q", "response": "\nr"}]
    assert read(written(tmp_path, "a.csv", table)) == list(enumerate(wanted, 1))
    assert read(written(tmp_path, "a.csv.gz", gzip.compress(table.encode())))[0][1] == wanted[0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("only one", "1 fields where the heading has 2"),
        ("one,two,three", "3 fields where the heading has 2"),
        ('q,"never closed', "unexpected end of data|expected after"),
        ('"q" x,a', "expected after"),
        ('"never closed,a', "unexpected end of data|expected after"),
    ],
)
@pytest.mark.parametrize("behind", ["q3,a3\nq4,a4\n", '"q3","a\n3"\n"q4","a4"\n', ""])
def test_a_bad_row_of_a_table_costs_no_other(tmp_path: Path, row: str, reason: str, behind: str):
    path = written(tmp_path, "a.csv", f"query,response\nq1,a1\n{row}\n{behind}")
    found = read(path)
    assert [v["query"] for _, v in found if isinstance(v, dict)] == ["q1", "q3", "q4"][
        : 3 if behind else 1
    ]
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    ((number, kind, text),) = flaws(path)
    assert (number, kind) == (2, "wrong_columns")
    assert any(part in text for part in reason.split("|"))


def test_a_quote_never_closed_takes_no_rows_with_it_however_many_come(tmp_path: Path):
    rows = "".join(f"q{i},a{i}\n" for i in range(3, 2000))
    path = written(tmp_path, "a.csv", f'query,response\nq1,a1\n"q2,a2\n{rows}')
    found = read(path)
    assert [number for number, value in found if value == "wrong_columns"] == [2]
    assert found[-1] == (1999, {"query": "q1999", "response": "a1999"})


def test_broken_bytes_in_a_table_are_told_with_row_and_field(tmp_path: Path):
    path = written(tmp_path, "a.csv", b"query,response\nq,a\nq,\xff\n")
    assert flaws(path) == [(2, "broken_utf8", "in the field response")]


@pytest.mark.parametrize("content", ["", "\n\n", "query,response\n", "query,response"])
def test_a_table_without_rows_has_none(tmp_path: Path, content: str):
    assert read(written(tmp_path, "a.csv", content)) == []


def test_only_fields_of_turns_are_read_as_lists(tmp_path: Path):
    turns = '[{""role"": ""user"", ""content"": ""q""}]'
    table = f'messages,id,reply\n"{turns}","[[1]]","[{{""a"": 1}}]"\n"[{{","[{{]","x"\n'
    (_, first), (_, second) = read(written(tmp_path, "a.csv", table))
    assert first["messages"] == [{"role": "user", "content": "q"}]
    assert (first["id"], first["reply"]) == ("[[1]]", '[{"a": 1}]')
    assert (second["messages"], second["id"]) == ("[{", "[{]")


def parquet(columns: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_parquet_rows_are_numbered_through_all_batches(tmp_path: Path):
    path = written(tmp_path, "a.parquet", parquet({"id": list(range(1000))}))
    assert read(path) == [(i + 1, {"id": i}) for i in range(1000)]
    heard: list[int] = []
    list(read_rows(path, heard.append))
    assert heard == sorted(heard)
    assert heard[-1] == path.stat().st_size


def test_what_a_parquet_file_holds_becomes_what_json_can_hold(tmp_path: Path):
    columns = {
        "day": [datetime.date(2024, 1, 2), None],
        "price": [decimal.Decimal("1.5"), None],
        "raw": [b"\xe4\xbd\xa0", None],
        "pairs": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "turns": [[{"a": "x", "b": None}], None],
    }
    (_, first), (_, second) = read(written(tmp_path, "a.parquet", parquet(columns)))
    assert first == {"day": "2024-01-02", "price": "1.5", "raw": "你", "pairs": [["k", 1]],
                     "turns": [{"a": "x"}]}  # fmt: skip
    assert second == {}
    json.dumps(first)


def test_broken_bytes_in_parquet_are_told_with_row_and_field(tmp_path: Path):
    column = pa.array([b"a", b"\xff", "你".encode()]).cast(pa.binary()).view(pa.string())
    path = written(tmp_path, "a.parquet", parquet({"output": column}))
    assert [r.value["output"] for r in read_rows(path)] == ["a", "\udcff", "你"]
    assert flaws(path) == [(2, "broken_utf8", "in the field output")]


@pytest.mark.parametrize(
    "content", [b"PAR1", b"PAR1" * 9, b"PAR1" + bytes(50) + b"PAR1", b"no table", b"{}"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_parquet_file_is_told(tmp_path: Path, content: bytes, packed: bool):
    content = gzip.compress(content) if packed else content
    path = written(tmp_path, "a.parquet", content)
    with pytest.raises(DataError, match=r"a\.parquet is not a Parquet file that can be read: \S"):
        list(read_rows(path))


def test_a_date_that_python_cannot_hold_is_told(tmp_path: Path):
    column = pa.array([2**62], pa.timestamp("us"))
    with pytest.raises(DataError, match="can be read: date value out of range"):
        list(read_rows(written(tmp_path, "a.parquet", parquet({"output": column}))))


@given(st.data())
@settings(max_examples=100)
def test_a_corrupted_parquet_file_ends_in_no_traceback(data: st.DataObject):
    content = bytearray(parquet({"output": ["a", "b"], "n": [1, 2]}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder, suppress(WhoamaiError):
        list(read_rows(written(Path(folder), "a.parquet", bytes(content))))


# ---- files as a whole ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "is UTF-16 text. Save it as UTF-8."),
        ("a.csv", "query,response".encode("utf-16"), "is UTF-16 text. Save it as UTF-8."),
        ("a.xlsx", b"PK\x03\x04", "is of no known kind. Known are .jsonl, .json"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd", "is of no known kind"),
        ("a", b"text", "is of no known kind"),
    ],
)
def test_a_file_of_another_kind_is_told(tmp_path: Path, name: str, content: bytes, reason: str):
    with pytest.raises(DataError) as error:
        list(read_rows(written(tmp_path, name, content)))
    assert reason in str(error.value)


@pytest.mark.parametrize("name", ["a", "a.data", "a.jsonl.bak"])
def test_json_is_known_by_its_first_letter_whatever_the_file_is_called(tmp_path: Path, name: str):
    assert read(written(tmp_path, name, '\ufeff{"a": 1}')) == [(1, {"a": 1})]
    assert read(written(tmp_path, name, '[{"a": 1}]')) == [(1, {"a": 1})]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.gz", "a"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str):
    assert read(written(tmp_path, name, b"")) == []


def test_an_error_of_the_disk_is_told_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = written(tmp_path, "a.jsonl", "{}")

    def fails(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", fails)
    for touch in (lambda: list(read_rows(path)), lambda: begins_with_mark(path)):
        with pytest.raises(DataError, match=r"a\.jsonl cannot be read: Permission denied"):
            touch()


def test_a_file_that_went_meanwhile_is_told(tmp_path: Path):
    with pytest.raises(DataError, match="There is no file"):
        list(read_rows(tmp_path / "gone.jsonl"))


def test_the_mark_at_the_beginning_is_seen(tmp_path: Path):
    assert begins_with_mark(written(tmp_path, "a", "\ufeff{}"))
    assert not begins_with_mark(written(tmp_path, "b", "{}"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_reading_tells_how_far_it_is(tmp_path: Path, name: str):
    path = written(tmp_path, name, "[\n" * (name == "a.json") + LINES)
    heard: list[int] = []
    list(read_rows(path, heard.append))
    assert heard == sorted(heard)
    assert heard[-1] == path.stat().st_size


def test_progress_goes_on_from_file_to_file(tmp_path: Path):
    paths = [written(tmp_path, f"{i}.jsonl", LINES) for i in range(3)]
    heard: list[tuple[int, int]] = []
    for path, tell in progress_over(paths, lambda done, total: heard.append((done, total))):
        list(read_rows(path, tell))
    assert heard == sorted(heard)
    assert heard[-1] == (3 * len(LINES), 3 * len(LINES))


@given(
    st.binary(max_size=400), st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet", ""])
)
@settings(max_examples=200)
def test_any_bytes_are_rows_or_a_message(content: bytes, ending: str):
    with tempfile.TemporaryDirectory() as folder, suppress(WhoamaiError):
        numbers = [r.number for r in read_rows(written(Path(folder), f"a{ending}", content))]
        assert numbers == sorted(set(numbers))


@given(st.data())
@settings(max_examples=150)
def test_one_changed_byte_costs_one_row_of_a_file_of_lines(data: st.DataObject):
    rows = [{**GOOD, "id": i} for i in range(6)]
    content = [json.dumps(r, ensure_ascii=False).encode() for r in rows]
    at = data.draw(st.integers(0, 5))
    line = bytearray(content[at])
    place = data.draw(st.integers(0, len(line) - 1))
    how = data.draw(st.sampled_from(["delete", "insert", "replace"]))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != 10))
    line[place : place + (how != "insert")] = b"" if how == "delete" else bytes([byte])
    content[at] = bytes(line)
    with tempfile.TemporaryDirectory() as folder:
        found = dict(read(written(Path(folder), "a.jsonl", b"\n".join(content))))
    assert all(found[i + 1] == row for i, row in enumerate(rows) if i != at)
    assert set(found) in ({1, 2, 3, 4, 5, 6}, {1, 2, 3, 4, 5, 6} - {at + 1})


@given(st.data())
@settings(max_examples=150)
def test_one_changed_byte_costs_at_most_one_element_of_an_array(data: st.DataObject):
    style = data.draw(st.sampled_from(sorted(STYLES)))
    elements = [_element(i, style) for i in range(1, 7)]
    at = data.draw(st.integers(0, 5))
    letters = list(elements[at])
    place = data.draw(st.integers(1, len(letters) - 2))
    how = data.draw(st.sampled_from(["delete", "insert", "replace"]))
    letter = data.draw(st.sampled_from('{}[],:"\\x \n'))
    letters[place : place + (how != "insert")] = "" if how == "delete" else letter
    elements[at] = "".join(letters)
    with tempfile.TemporaryDirectory() as folder:
        found = read(written(Path(folder), "a.json", array(elements, style)))
    there = {value.get("id"): number for number, value in found if isinstance(value, dict)}
    assert {1, 2, 3, 4, 5, 6} - {at + 1} <= set(there)
    assert all(there[i] == i for i in range(1, at + 1))
    # A brace too many may make up to three of the one; the others are told, and have numbers too.
    assert all(there[i] - i in (0, 1, 2) for i in range(at + 2, 7))
