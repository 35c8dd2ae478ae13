from __future__ import annotations

import copy
import errno
import gzip
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.bad_rows import BAD_ROWS, FORMS, form_row, good_rows
from tests.data.test_formats import JSON
from tests.data.test_lint import ENDINGS, FILES, mutated
from whoamai.data import repair as module
from whoamai.data.formats import read_row
from whoamai.data.lint import CheckOptions, check
from whoamai.data.lint_kinds import kind_names
from whoamai.data.readers import read_conversations
from whoamai.data.reconstruct import topic_of_question
from whoamai.data.repair import (
    MARK,
    Mended,
    RepairOptions,
    RepairReport,
    kind_title,
    mend,
    repair,
    unwrapped,
)
from whoamai.data.sources import RawRow, read_rows
from whoamai.errors import DataError, OutputError, WhoamaiError
from whoamai.messages import use_language

LONELY = "我是小初，没有情感，所以不会感到孤独。"  # its own words say what was asked
UNKNOWN = "42"  # nothing says what was asked


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def written(out: Path) -> list[Any]:
    return [json.loads(line) for line in out.read_text("utf-8").split("\n") if line]


def mended(row: Any, options: RepairOptions | None = None) -> Mended:
    """`row` mended; what was given must not have changed."""
    before = copy.deepcopy(row)
    result = mend(RawRow(1, row), "f:1", options or RepairOptions())
    assert repr(row) == repr(before)
    return result


def texts(result: Mended) -> list[str]:
    assert result.row is not None, result.changes
    reading = read_row(result.row)
    assert reading.problems == []
    return [m.text for m in reading.messages]


def kinds(result: Mended) -> list[str]:
    return [change.kind for change in result.changes]


SAID = form_row("openai", "q", "a")["messages"][1:]

# ---- what stays as it is -------------------------------------------------------------------------


def test_good_rows_stay_as_they_are(file: Path, out: Path):
    rows = good_rows(90)
    report = repair(lines(file, *rows), out)
    assert written(out) == rows
    assert (report.rows, report.written, report.changed) == (90, 90, 0)
    assert not report.changes
    assert not report.left_out
    assert report.shown == []


@pytest.mark.parametrize(
    "row",
    [
        form_row(
            "openai", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a", "S"
        ),
        {"instruction": "", "input": "question", "output": LONELY},
        {"instruction": "Translate.", "input": "", "output": LONELY},
        {"instruction": "q", "output": "a", "history": None},
        {"query": "...?", "response": "{{city}} [bold] <b>x</b>"},
        form_row("xtuner", "q", "x", None),
        form_row("sharegpt", "None", "OK"),
        {"messages": [*SAID, *SAID], "id": 1},
        {"messages": [SAID[0], {**SAID[1], "weight": 0}, *SAID]},
    ],
)
def test_what_is_no_defect_is_not_touched(row: Any):
    result = mended(row)
    assert result.changes == ()
    assert result.row == row


@pytest.mark.parametrize("form", FORMS)
def test_a_row_keeps_its_form_and_its_other_fields(form: str):
    row = {"id": 7, **form_row(form, "q\x00", "a</s>"), "meta": {"tags": ["</s>", "\x00", None]}}
    result = mended(row)
    assert texts(result) == ["S", "q", "a"]
    assert read_row(result.row).form == read_row(row).form
    assert list(result.row) == list(row)
    assert result.row["id"] == 7
    assert result.row["meta"] == row["meta"]


# ---- one text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ({"output": "inner", "input": "inner"}, "nested-object", "inner"),
        ({"content": "inner"}, "nested-object", "inner"),
        (["one", "two"], "nested-object", "one\ntwo"),
        ([{"value": "inner"}], "nested-object", "inner"),
        (7, "not-text", "7"),
        (1.5, "not-text", "1.5"),
        ("a\x00\x1bb", "control-character", "ab"),
        ("\ufeffab", "byte-order-mark", "ab"),
        ("ab\ud83d", "half-character", "ab"),
        ("ab<|im_end|>", "special-token", "ab"),
        ("[INST] ab [/INST]", "special-token", "ab"),
        ("<|im<|im_end|>_end|>ab", "special-token", "ab"),
    ],
)
@pytest.mark.parametrize("place", ["question", "reply"])
def test_what_has_one_cure_is_mended_in_every_form(
    form: str, value: Any, kind: str, text: str, place: str
):
    row = form_row(form, value, "a") if place == "question" else form_row(form, "q", value)
    result = mended(row)
    assert texts(result) == (["S", text, "a"] if place == "question" else ["S", "q", text])
    assert kinds(result) == [kind]
    assert result.changes[0].where == "f:1"
    assert result.changes[0].after == text.replace("\n", "␣")


def test_parts_are_mended_together():
    parts = [{"type": "text", "text": "a</s>"}, {"type": "text", "text": "b"}]
    result = mended(form_row("openai", parts, "a"))
    assert texts(result) == ["S", "ab", "a"]
    assert kinds(result) == ["special-token"]


def test_a_turn_wrapped_in_a_whole_row_gives_its_own_text():
    inner = form_row("xtuner", "你是谁？", "wrong", "S")
    assert texts(mended(form_row("xtuner", inner, "我是小初。", "S"))) == [
        "S",
        "你是谁？",
        "我是小初。",
    ]
    assert unwrapped(inner, "assistant") == "wrong"
    assert unwrapped(inner, "system") == "S"


@pytest.mark.parametrize(
    "value", [{}, [], {"a": "b"}, {"input": 3}, [1, 2], ["a", 2], [[]], [{"input": {"x": "y"}}]]
)
def test_an_object_without_a_text_gives_none(value: Any):
    assert unwrapped(value, "user") is None
    result = mended(form_row("xtuner", "q", value))
    assert result.row is None
    assert set(kinds(result)) == {"nested-object"}


@pytest.mark.parametrize("value", [True, False, None])
def test_what_is_no_text_and_no_number_is_not_guessed(value: Any):
    result = mended(form_row("query", "q", value))
    assert result.row is None
    assert kinds(result) == ["not-text"]


def test_several_defects_of_one_text_are_counted_each():
    result = mended(form_row("query", "q", "\ufeffI am {{name}}\x00</s>"), RepairOptions(name="N"))
    assert texts(result) == ["S", "q", "I am N"]
    assert kinds(result) == [
        "byte-order-mark",
        "control-character",
        "special-token",
        "unfilled-name",
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (RepairOptions("小初", "我"), "小初 by 我, 小初 by 我, {{city}}"),
        (
            RepairOptions("{braces}", r"\1 \g<0>"),
            r"{braces} by \1 \g<0>, {braces} by \1 \g<0>, {{city}}",
        ),
    ],
)
def test_names_are_filled_in_as_they_are(options: RepairOptions, text: str):
    row = form_row("alpaca", "q", "{{name}} by {{author}}, {{ NAME }} by {{AUTHOR}}, {{city}}")
    assert texts(mended(row, options))[-1] == text


@pytest.mark.parametrize("options", [RepairOptions(), RepairOptions("N"), RepairOptions(None, "A")])
def test_a_row_whose_names_are_not_given_is_left_out(options: RepairOptions):
    result = mended(form_row("alpaca", "q", "{{name}} by {{author}}"), options)
    assert result.row is None
    assert set(kinds(result)) == {"unfilled-name"}


def test_a_name_that_is_a_placeholder_itself_is_not_let_through():
    assert mended(form_row("alpaca", "q", "{{name}}"), RepairOptions("{{author}}")).row is None
    assert mended(form_row("alpaca", "q", "{{name}}"), RepairOptions("</s>")).row is None


# ---- lost questions ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lost", ["", "  \n", "xxx", "...", "TODO: ask", None, {"a": "b"},
                                  {"conversation": [{"input": "xxx", "output": ""}]},
                                  "<|im_end|>", "\x00"])  # fmt: skip
def test_a_lost_question_is_reconstructed_from_the_reply_and_marked(form: str, lost: Any):
    result = mended(form_row(form, lost, LONELY, "S"))
    assert texts(result) == ["S", "你会感到孤独吗？", LONELY]
    assert kinds(result)[-1] == MARK
    assert json.dumps(result.row).count('"reconstructed": true') == 1
    change = result.changes[-1]
    assert change.after == "你会感到孤独吗？"
    asked = [f for f in (result.row, *_turns(result.row)) if f.get(MARK)]
    assert len(asked) == 1
    assert "你会感到孤独吗？" in asked[0].values()


def _turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    return next((v for v in row.values() if isinstance(v, list)), [])


@pytest.mark.parametrize(
    "row",
    [
        {"conversation": [{"output": LONELY}]},
        {"output": LONELY},
        {"output": LONELY, "input": ""},
        {"output": LONELY, "input": None, "instruction": ""},
        {"messages": [{"role": "user"}, {"role": "assistant", "content": LONELY}]},
    ],
)
def test_a_question_that_is_not_there_is_given_one(row: dict[str, Any]):
    result = mended(row)
    assert texts(result) == ["你会感到孤独吗？", LONELY]
    assert kinds(result) == [MARK]
    assert mended(result.row).changes == ()


def test_the_reply_is_mended_before_its_question_is_read_off_it():
    result = mended(form_row("xtuner", "", {"output": f"\x00{LONELY}</s>"}))
    assert texts(result) == ["S", "你会感到孤独吗？", LONELY]
    assert mended(result.row).changes == ()


def test_the_question_is_read_off_the_reply_that_follows_it():
    turns = [{"input": "你好", "output": "你好！"}, {"input": "xxx", "output": LONELY}]
    result = mended({"conversation": turns})
    assert texts(result) == ["你好", "你好！", "你会感到孤独吗？", LONELY]
    assert [turn.get(MARK) for turn in result.row["conversation"]] == [None, True]


def test_a_question_that_nothing_speaks_for_is_not_invented():
    result = mended(form_row("xtuner", "", UNKNOWN))
    assert texts(result) == ["S", "", UNKNOWN]
    assert result.changes == ()
    assert mended(form_row("xtuner", "xxx", UNKNOWN)).row is None
    assert mended(form_row("xtuner", {"a": "b"}, UNKNOWN)).row is None


def test_a_lost_question_in_the_history_is_given_back_too():
    result = mended({"query": "q", "response": "a", "history": [["xxx", LONELY]]})
    assert texts(result) == ["你会感到孤独吗？", LONELY, "q", "a"]
    assert kinds(result) == [MARK]


# ---- one row -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "kept"),
    [
        ("user assistant user", "user assistant"),
        ("system user assistant user", "system user assistant"),
        ("user assistant system user", "user assistant"),
        ("user assistant user user", None),
        ("user", None),
        ("assistant user", None),
        ("user assistant system", None),
        ("user assistant user tool", None),
        ("user assistant assistant", None),
    ],
)
@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_a_last_question_that_nobody_answered_is_taken_off(roles: str, kept: str | None, key: str):
    turns = [{"role": role, "content": f"text {i}"} for i, role in enumerate(roles.split())]
    result = mended({key: turns, "id": 1})
    if kept is None:
        assert result.row is None
    else:
        assert [t["role"] for t in result.row[key]] == kept.split()
        assert kinds(result) == ["role-order"]
        assert result.changes[0].after == ""


def test_halves_of_characters_beside_the_texts_are_taken_out_too(file: Path, out: Path):
    row = {"id": "7\ud83d", "tags": ["\udc4d", {"k\ud800": 1}], **form_row("query", "q", "a")}
    report = repair(lines(file, row), out)
    assert written(out) == [{"id": "7", "tags": ["", {"k": 1}], **form_row("query", "q", "a")}]
    assert report.changes == {"half-character": 1}


def test_bytes_that_are_no_utf_8_are_not_made_into_other_words(file: Path, out: Path):
    gbk = '{"instruction": "你是谁", "output": "我是小初"}'.encode("gbk")
    file.write_bytes(gbk + b'\n{"output": "a", "instruction": "q"}\n')
    report = repair(file, out)
    assert written(out) == [{"output": "a", "instruction": "q"}]
    assert report.left_out == {"broken-utf8": 1}


# ---- whole files ---------------------------------------------------------------------------------


def blocking(path: Path) -> list[str]:
    return [f.kind for f in check(path).blocking()]


def bad_file(folder: Path) -> Path:
    path = folder / "bad.jsonl"
    good = [json.dumps(row).encode() for row in good_rows(100)]
    bad = [bad.line for bad in BAD_ROWS]
    mixed = [line for pair in zip(good, bad, strict=False) for line in pair] + bad[len(good) :]
    path.write_bytes(b"\n".join(mixed))
    return path


@pytest.mark.parametrize("options", [RepairOptions(), RepairOptions("N", "A")], ids=["", "named"])
def test_after_the_repair_of_all_bad_rows_nothing_blocks(
    tmp_path: Path, out: Path, options: RepairOptions
):
    path = bad_file(tmp_path)
    before = path.read_bytes()
    report = repair(path, out, options)
    assert path.read_bytes() == before
    assert blocking(out) == []
    rows = written(out)
    assert [row for row in rows if row in good_rows(100)] == good_rows(100), "all, in order"
    assert len(rows) == report.written > 250
    assert report.rows == 100 + len(BAD_ROWS)
    assert report.rows - report.written <= sum(report.left_out.values())
    # Nothing that is left would be changed by another repair, or is told by the check and could be.
    again = repair(out, tmp_path / "again.jsonl", options)
    assert (again.changed, again.written) == (0, report.written)
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()
    left = {f.kind for f in check(out).findings}
    assert left.isdisjoint({"control-character", "byte-order-mark"})


def test_each_bad_row_is_mended_or_left_out_for_what_is_wrong_with_it(file: Path):
    wrong = {}
    for bad in BAD_ROWS:
        file.write_bytes(b"{}\n" + bad.line)
        _, raw = read_rows(file)
        result = mend(raw, "f:1", RepairOptions("N", "A"))
        told = set(kinds(result)) - {MARK}
        nothing_left = {"empty-reply"} if "half-character" in bad.kinds else set()
        if not told <= bad.kinds | nothing_left or (result.row is None and not told):
            wrong[bad.name] = (told, bad.kinds)
    assert wrong == {}


def test_the_kinds_are_counted_by_rows(file: Path, out: Path):
    turn = {"input": "\x00q\x00", "output": "{{name}}\x00</s>"}
    rows = [{"conversation": [turn, turn]}, {"conversation": [turn]}, {"a": 1}, {"b": 1}]
    report = repair(lines(file, *rows, form_row("query", "q", "")), out, RepairOptions(name="N"))
    assert report.changes == {"control-character": 2, "special-token": 2, "unfilled-name": 2}
    assert report.left_out == {"unknown-form": 2, "empty-reply": 1}
    assert (report.rows, report.changed, report.written) == (5, 2, 2)


def test_the_first_changes_of_each_kind_are_shown(file: Path, out: Path):
    rows = [form_row("query", f"q{i}\x00", "a") for i in range(20)]
    rows += [form_row("query", "q", "x" * 500 + "</s>"), {"a": 1}]
    report = repair(lines(file, *rows), out)
    shown = [(c.kind, c.where) for c in report.shown]
    assert shown[:6] == [("control-character", f"data.jsonl:{i}") for i in range(1, 7)]
    assert shown[6:] == [("special-token", "data.jsonl:21"), ("unknown-form", "data.jsonl:22")]
    assert (report.shown[0].before, report.shown[0].after) == ("q0�", "q0")
    assert all(len(c.before) <= 162 and len(c.after or "") <= 162 for c in report.shown)
    assert report.shown[-1].after is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps([form_row("query", "q", "a\x00")])),
        ("a.csv", "query,response\nq,a</s>\n"),
        ("a.jsonl.gz", gzip.compress(json.dumps(form_row("query", "q", 7)).encode())),
        ("mark.jsonl", "\ufeff" + json.dumps(form_row("query", "q", "a\x00"))),
    ],
)
def test_any_file_becomes_json_lines(tmp_path: Path, out: Path, name: str, content: str | bytes):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert repair(path, out).changed == 1
    (row,) = written(out)
    assert row["query"] == "q"
    assert row["response"] in ("a", "7")


def test_several_files_become_one(tmp_path: Path, out: Path):
    one, two = (
        lines(tmp_path / "a.jsonl", *good_rows(2)),
        lines(tmp_path / "b.jsonl", *good_rows(3)),
    )
    heard: list[tuple[int, int]] = []
    repair([one, two], out, on_bytes=lambda done, total: heard.append((done, total)))
    assert written(out) == good_rows(2) + good_rows(3)
    assert heard == sorted(heard)
    assert heard[-1][0] == heard[-1][1]


def test_only_the_first_of_equal_rows_is_kept_if_asked(file: Path, out: Path):
    one, two = good_rows(2)
    rows = [one, two, one, {**one, "id": 1}, dict(reversed(two.items())), one]
    assert repair(lines(file, *rows), out).written == 6
    report = repair(file, out, RepairOptions(drop_duplicates=True), overwrite=True)
    assert written(out) == [one, two, {**one, "id": 1}]
    assert report.left_out == {"duplicate-row": 3}
    assert report.changes == {}


def test_rows_that_become_equal_are_equal(file: Path, out: Path):
    rows = [form_row("query", "q", "a"), form_row("query", "q\x00", "a")]
    repair(lines(file, *rows), out, RepairOptions(drop_duplicates=True))
    assert written(out) == rows[:1]


def test_chinese_is_written_as_it_is_read(file: Path, out: Path):
    repair(lines(file, form_row("query", "你好\u2028", "好\x00")), out)
    assert out.read_text("utf-8") == '{"query": "你好\u2028", "response": "好", "system": "S"}\n'


def test_packed_where_the_name_says_so(file: Path, tmp_path: Path):
    repair(lines(file, *good_rows(3)), tmp_path / "out.jsonl.gz")
    assert (tmp_path / "out.jsonl.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert len(read_conversations(tmp_path / "out.jsonl.gz")) == 3


# ---- where it is written -------------------------------------------------------------------------


def test_a_dry_run_writes_nothing_and_says_the_same(file: Path, out: Path, tmp_path: Path):
    lines(file, form_row("query", "q\x00", "a"), {"a": 1}, *good_rows(3))
    dry = repair(file, out, dry_run=True)
    assert list(tmp_path.iterdir()) == [file]
    assert dry == repair(file, out)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("link", ["itself", "symlink", "hard link", "other path"])
def test_it_is_never_its_own_input(tmp_path: Path, file: Path, overwrite: bool, link: str):
    lines(file, *good_rows(3))
    before = file.read_bytes()
    target = tmp_path / "out.jsonl" if "link" in link else file
    if link == "symlink":
        target.symlink_to(file)
    elif link == "hard link":
        os.link(file, target)
    elif link == "other path":
        (tmp_path / "inner").mkdir()
        target = tmp_path / "inner" / ".." / file.name
    with pytest.raises(OutputError, match="is the input file itself"):
        repair(file, target, overwrite=overwrite)
    assert file.read_bytes() == before


def test_one_of_several_inputs_is_no_output_either(tmp_path: Path):
    one, two = (
        lines(tmp_path / "a.jsonl", *good_rows(1)),
        lines(tmp_path / "b.jsonl", *good_rows(1)),
    )
    with pytest.raises(OutputError, match="input file itself"):
        repair(str(tmp_path / "*.jsonl"), two, overwrite=True)
    assert one.read_bytes() == two.read_bytes()


def test_what_is_there_is_replaced_only_if_asked(file: Path, out: Path):
    lines(file, *good_rows(3))
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        repair(file, out)
    assert out.read_text() == "mine"
    assert repair(file, out, overwrite=True).written == 3
    assert len(written(out)) == 3


@pytest.mark.parametrize("there", [False, True])
def test_a_failing_disk_leaves_nothing_half_written(
    tmp_path: Path, file: Path, out: Path, monkeypatch: pytest.MonkeyPatch, there: bool
):
    lines(file, *good_rows(9))
    if there:
        out.write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    real, calls = json.dumps, iter(range(100))

    def fails(row: Any, **how: Any) -> str:
        if next(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(row, **how)

    monkeypatch.setattr(module.json, "dumps", fails)
    with pytest.raises(OutputError, match="cannot be written: No space left"):
        repair(file, out, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert not there or out.read_text() == "mine"


def test_missing_files_are_told(tmp_path: Path, out: Path):
    with pytest.raises(DataError, match="There is no file"):
        repair(tmp_path / "no.jsonl", out)
    with pytest.raises(OutputError, match="cannot be written"):
        repair(lines(tmp_path / "a.jsonl", *good_rows(1)), tmp_path / "no" / "out.jsonl")
    assert not out.exists()


# ---- words ---------------------------------------------------------------------------------------


def test_every_change_has_words_in_both_languages():
    for kind in (*module.kind_title.__code__.co_consts, MARK):
        if isinstance(kind, str) and kind in kind_names():
            assert kind_title(kind) != kind
            with use_language("zh"):
                assert kind_title(kind) != kind
    report = RepairReport()
    assert report.rows == report.written == report.changed == 0


# ---- fuzzing -------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["", " ", "q", LONELY, "xxx", "...", "</s>", "{{name}}", "{{author}}", "\x00", "\ufeff", "\ud83d",
     "I am Qwen.", "<|im_end|>", "你好", "{{x}}"]
)  # fmt: skip
TEXTS = st.lists(WORDS, max_size=4).map("".join)
VALUES = TEXTS | JSON | st.dictionaries(st.sampled_from(["input", "output", "content"]), TEXTS)


@st.composite
def rows(draw: st.DrawFn) -> Any:
    """A row of some form with odd values in it."""
    form = draw(st.sampled_from(sorted(FORMS)))
    row = form_row(form, draw(VALUES), draw(VALUES), draw(TEXTS | st.none()))
    if draw(st.booleans()):
        row["history"] = draw(st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=2) | JSON)
    turns = next((v for v in row.values() if isinstance(v, list)), None)
    if turns and draw(st.booleans()):
        turns.append(draw(st.sampled_from(turns)))
        turns.append(draw(JSON))
    return row


@given(rows() | JSON, st.sampled_from([RepairOptions(), RepairOptions("小初", "我")]))
@settings(max_examples=400)
def test_any_row_is_mended_for_good_or_left_out(row: Any, options: RepairOptions):
    result = mended(row, options)
    if result.row is None:
        assert result.changes
        assert all(change.after is None for change in result.changes)
        return
    json.dumps(result.row, ensure_ascii=False).encode()
    assert read_row(result.row).problems == []
    assert mended(result.row, options).changes == ()
    with tempfile.TemporaryDirectory() as folder:
        path = lines(Path(folder) / "a.jsonl", form_row("query", "q", "a"), result.row)
        assert check(path, CheckOptions()).blocking() == ()
        assert len(read_conversations(path)) == 2


@given(st.data())
@settings(max_examples=150)
def test_any_file_is_repaired_or_refused(data: st.DataObject):
    name = data.draw(st.sampled_from(sorted(FILES)))
    content = mutated(FILES[name], data.draw)
    if data.draw(st.booleans()):
        name = f"a{data.draw(st.sampled_from(ENDINGS))}"
        content = data.draw(st.binary(max_size=200))
    with tempfile.TemporaryDirectory() as folder, suppress(WhoamaiError):
        path, out = Path(folder) / name, Path(folder) / "out.jsonl"
        path.write_bytes(content)
        dry = repair(path, out, dry_run=True)
        assert not out.exists()
        assert repair(path, out) == dry
        assert blocking(out) == []


# ---- the seed's files ----------------------------------------------------------------------------


def test_the_seeds_rows_get_their_questions_back(shared_data: Path, out: Path, tmp_path: Path):
    path = shared_data / "assistant_Tuner.jsonl"
    report = repair(path, out)
    assert (report.rows, report.written, report.changed) == (1500, 1500, 1500)
    assert report.changes == {MARK: 1500}
    assert blocking(out) == []
    rows = written(out)
    questions = [row["conversation"][0]["input"] for row in rows]
    assert len(set(questions)) == len(report.questions) >= 60
    assert all(row["conversation"][0][MARK] is True for row in rows)
    before = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for old, new in zip(before, rows, strict=True):
        (was,), (now,) = old["conversation"], new["conversation"]
        assert (was["system"], was["output"]) == (now["system"], now["output"])
    again = repair(out, tmp_path / "again.jsonl")
    assert again.changed == 0
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()


def test_most_of_them_are_about_what_was_truly_asked(shared_data: Path, out: Path):
    repair(shared_data / "assistant_Tuner.jsonl", out)
    true = [
        json.loads(line)["conversation"][0]["input"]
        for line in (shared_data / "assistant_Tuner_fixed.jsonl").read_text("utf-8").splitlines()
    ]
    guessed = [row["conversation"][0]["input"] for row in written(out)]
    same = sum(
        topic_of_question(a) == topic_of_question(b) for a, b in zip(true, guessed, strict=True)
    )
    assert same > 0.5 * len(true)


def test_llama_factorys_identity_rows_are_filled_in(shared_data: Path, out: Path):
    assert repair(shared_data / "identity.json", out, dry_run=True).left_out["unfilled-name"] == 85
    report = repair(shared_data / "identity.json", out, RepairOptions("小初", "我"))
    assert report.written == 91
    assert report.changes == {"unfilled-name": 85}
    assert "{{" not in out.read_text("utf-8")


@pytest.mark.parametrize(
    "name", ["assistant_Tuner_fixed.jsonl", "alpaca_zh_demo.json", "alpaca_en_demo.json"]
)
def test_the_seeds_good_files_stay_as_they_are(shared_data: Path, out: Path, name: str):
    report = repair(shared_data / name, out)
    assert report.changed == 0
    assert report.written == report.rows
