from __future__ import annotations

import gzip
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.bad_rows import BAD_ROWS, FORMS, form_row, good_rows
from tests.data.test_formats import JSON
from whoamai.data import lint
from whoamai.data.lint import (
    CheckOptions,
    CheckReport,
    check,
    check_kinds,
    estimated_tokens,
    excerpt,
    is_placeholder,
    strings_in,
    without_marks,
)
from whoamai.data.lint_kinds import kind, kind_names
from whoamai.errors import DataError, SettingError, WhoamaiError
from whoamai.samples import Conversation


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


def row(reply: str = "a", question: str = "q", system: str | None = None) -> dict[str, Any]:
    return form_row("xtuner", question, reply, system)


def counts(report: CheckReport) -> dict[str, int]:
    return {finding.kind: finding.count for finding in report.findings}


def finding(report: CheckReport, name: str) -> lint.Finding:
    return next(f for f in report.findings if f.kind == name)


# ---- clean files ---------------------------------------------------------------------------------


def test_nothing_is_found_in_a_clean_file(file: Path):
    report = check(lines(file, *good_rows(90)), CheckOptions("小初", "我", ("尖米",), ("en",)))
    assert report.findings == ()
    assert (report.rows, report.usable) == (90, 90)
    assert report.files == ("data.jsonl",)
    assert sum(report.forms.values()) == 90
    assert report.forms["openai"] == 10
    assert not report.blocking()


@pytest.mark.parametrize("reply", ["x", "OK", "None", "no", "。", "null", "N/A", "?", "！", "-", "5",
                                   "x = 1", "好", "嗯…", "wait...", "…and then?", "todo lists help.",
                                   "A TODO list", "placeholder text is text", "XXL", "xx.py",
                                   "未定", "Lorem is Latin.", "I said \"...\"."])  # fmt: skip
def test_a_short_reply_is_no_placeholder(file: Path, reply: str):
    assert not is_placeholder(reply)
    assert "placeholder" not in counts(check(lines(file, row(reply))))


@pytest.mark.parametrize("reply", ["xxx", "XX", "..", "...", "……", "…", "???", "___", "---", "***", "##",
                                   "TODO", "todo", "TODO write the answer", "TODO: 写", "Todo：", "tbd",
                                   "FIXME", "fixme (later)", "placeholder", "Lorem ipsum dolor",
                                   "待补充", "待填", "此处填写答案", "[your answer here]", "insert text",
                                   "  xxx\n"])  # fmt: skip
def test_a_text_still_to_be_written_is_a_placeholder(file: Path, reply: str):
    assert is_placeholder(reply)
    assert counts(check(lines(file, row("good"), row(reply))))["placeholder"] == 1


def test_a_long_text_is_no_placeholder():
    assert not is_placeholder("TODO: " + "write this " * 20)
    assert not is_placeholder("x" * 1000)
    assert not is_placeholder("")


@pytest.mark.parametrize("text", ["List<String>", "a < b and b > c", "[INSTALL]", "<b>bold</b>",
                                  "<|x", "|>", "<s", "[1, 2]", "a</span>", "{name}", "{ {name} }",
                                  "{{}}"])  # fmt: skip
def test_code_is_no_special_token_and_no_name_to_fill_in(file: Path, text: str):
    assert check(lines(file, row(text))).findings == ()


@pytest.mark.parametrize(
    "text", ["冬天工作很冷。", "每天工作八小时。", "Kimino is far.", "a bard sang", "Kimikos"]
)
def test_an_assistants_name_inside_another_word_is_none(file: Path, text: str):
    assert "old-name" not in counts(check(lines(file, row(text)))), text


@pytest.mark.parametrize("text", ["我是天工大模型。", "I am ChatGPT.", "I am CHATGPT!", "我是通义千问",
                                  "Ask Siri, she knows."])  # fmt: skip
def test_an_assistants_name_as_a_word_is_told(file: Path, text: str):
    report = check(lines(file, row("clean"), row(text)))
    assert counts(report)["old-name"] == 1
    assert finding(report, "old-name").examples[0].where == "data.jsonl:2"
    assert finding(report, "old-name").detail.endswith("× 1")


def test_the_models_own_name_is_no_other_assistants(file: Path):
    lines(file, row("I am ChatGPT by OpenAI."))
    assert "old-name" not in counts(check(file, CheckOptions(name="chatgpt", author="openai")))


# ---- every bad row -------------------------------------------------------------------------------

# Kinds that are seen over all rows; the rest is seen in a row by itself.
TOGETHER = {"duplicate-row", "same-question", "repeated-system", "two-names"}


def test_every_bad_row_is_told_by_its_kinds_and_its_number_and_nothing_else(file: Path):
    first, second, third = (json.dumps(r).encode() for r in good_rows(3))
    wrong = {}
    for bad in BAD_ROWS:
        file.write_bytes(b"\n".join((first, b"", second, bad.line, third, b"")))
        report = check(file)
        found = {f.kind for f in report.findings}
        where = {e.where for f in report.findings for e in f.examples}
        right = (bad.kinds, {"data.jsonl:4"}, 4, 3 + bad.readable, bad.blocks)
        got = (found, where, report.rows, report.usable, bool(report.blocking()))
        # A broken byte beside the texts does not keep the row from being used, if allowed.
        if got != right and "another field" not in bad.name and "in a key" not in bad.name:
            wrong[bad.name] = (got, right)
        assert [c for f in report.findings for c in [f.count] if c != 1] == []
    assert wrong == {}


def test_all_bad_rows_in_one_file_are_counted_by_kind_with_their_numbers(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lint, "_SHOWN_EXAMPLES", 10_000)
    content = [(json.dumps(r).encode(), frozenset[str]()) for r in good_rows(100)]
    content += [(bad.line, bad.kinds) for bad in BAD_ROWS]
    random.Random(1).shuffle(content)
    file.write_bytes(b"\n".join(line for line, _ in content))
    report = check(file)
    assert report.rows == len(content) == 100 + len(BAD_ROWS)
    beside = sum("in another field" in b.name or "in a key" in b.name for b in BAD_ROWS)
    assert report.usable == 100 + sum(bad.readable for bad in BAD_ROWS) + beside
    wanted = Counter(name for _, kinds in content for name in kinds)
    assert {k: n for k, n in counts(report).items() if k not in TOGETHER} == wanted
    numbers = {
        f.kind: [int(e.where.removeprefix("data.jsonl:")) for e in f.examples]
        for f in report.findings
        if f.kind not in TOGETHER
    }
    assert numbers == {
        name: [i for i, (_, kinds) in enumerate(content, 1) if name in kinds] for name in wanted
    }


@pytest.mark.parametrize("form", ["array", "packed"])
def test_the_same_is_found_in_other_files(tmp_path: Path, form: str):
    readable = [b for b in BAD_ROWS if b.kinds.isdisjoint({"not-json", "broken-utf8"})]
    rows = [json.loads(b.line) for b in readable] + good_rows(10)
    if form == "array":
        path = tmp_path / "data.json"
        path.write_text(json.dumps(rows, indent=1), "utf-8")
    else:
        path = tmp_path / "data.jsonl.gz"
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    found = counts(check(path))
    wanted = Counter(name for bad in readable for name in bad.kinds)
    assert {k: n for k, n in found.items() if k not in TOGETHER} == wanted


def test_findings_come_grave_ones_first_then_by_count(file: Path):
    report = check(lines(file, row(""), row("{{x}}"), row("{{y}}"), row("</s>"), row("</s>b")))
    assert [(f.severity, f.count) for f in report.findings] == [
        ("blocks", 2),
        ("blocks", 1),
        ("warns", 2),
    ]
    for f in report.findings:
        assert (f.severity, f.title, f.cure) == (
            kind(f.kind).severity,
            kind(f.kind).title,
            kind(f.kind).cure,
        )


def test_a_count_is_of_rows_and_three_are_shown(file: Path):
    turn = {"input": "xxx", "output": "{{name}} {{name}}</s></s>"}
    report = check(lines(file, *[{"conversation": [turn, turn], "id": i} for i in range(7)]))
    assert counts(report) == {
        "placeholder": 7,
        "unfilled-name": 7,
        "special-token": 7,
        "duplicate-row": 6,
    }
    assert all(len(f.examples) <= 3 for f in report.findings)
    assert [e.where for e in finding(report, "placeholder").examples] == [
        "data.jsonl:1",
        "data.jsonl:2",
        "data.jsonl:3",
    ]


# ---- the kinds one by one ------------------------------------------------------------------------


def test_what_a_naive_tool_would_feed_the_model_is_shown_with_its_cost(file: Path):
    inner = {"conversation": [{"system": "You are nice.", "input": "xxx", "output": ""}]}
    rows = [form_row("xtuner", inner, f"a{i}", "You are nice.") for i in range(12)]
    report = check(lines(file, *rows))
    example = finding(report, "nested-object").examples[0]
    assert example.field == "conversation[0].input"
    assert example.text == "as text: " + str(inner)
    assert "% of all" in finding(report, "nested-object").detail
    places = {f.kind: f.examples[0].field for f in report.findings if f.examples}
    assert places["placeholder"] == "conversation[0].input.conversation[0].input"
    assert places["doubled-system"] == "conversation[0].input.conversation[0].system"
    assert counts(report)["same-question"] == 12, "each is asked the same: the text of the object"


def test_a_nested_reply_is_no_question(file: Path):
    rows = [form_row("openai", f"q{i}", {"a": "b"}) for i in range(20)]
    assert "same-question" in counts(check(lines(file, *rows))), "the role is not in the field"
    rows = [form_row("xtuner", f"q{i}", {"a": "b"}, None) for i in range(20)]
    assert set(counts(check(lines(file, *rows)))) == {"nested-object"}


def test_a_doubled_system_prompt_costs_its_tokens(file: Path):
    system = "You are an assistant that is very nice."
    rows = [row(f"a{i}", f"{system} q{i}", system) for i in range(4)]
    report = check(lines(file, *rows))
    assert counts(report)["doubled-system"] == 4
    tokens = 4 * estimated_tokens(system)
    assert finding(report, "doubled-system").detail.startswith(f"about {tokens} tokens, ")
    assert "doubled-system" not in counts(check(lines(file, row("a", "Hi there", "Hi"))))


def test_a_repeated_system_prompt_is_noted_with_what_its_repetition_costs(file: Path):
    system = "You are an assistant that is very nice."
    report = check(lines(file, *[row(f"a{i}", f"q{i}", system) for i in range(5)], row("b")))
    assert counts(report) == {"repeated-system": 5}
    found = finding(report, "repeated-system")
    assert found.severity == "notes"
    assert found.detail.startswith(f"about {4 * estimated_tokens(system)} tokens, ")
    assert found.examples[0].text == system


def test_a_system_prompt_on_each_turn_of_a_row_is_on_one_row(file: Path):
    turns = [{"system": "S" * 30, "input": f"q{i}", "output": "a"} for i in range(5)]
    assert check(lines(file, {"conversation": turns})).findings == ()


@pytest.mark.parametrize(("same", "others", "told"), [(10, 0, True), (9, 0, False), (10, 40, True),
                                                      (10, 41, False)])  # fmt: skip
def test_a_question_on_a_fifth_of_the_rows_is_told(file: Path, same: int, others: int, told: bool):
    rows = [row(f"a{i}") for i in range(same)] + [row("b", f"q{i}") for i in range(others)]
    report = check(lines(file, *rows))
    assert ("same-question" in counts(report)) is told
    if told:
        assert counts(report)["same-question"] == same
        assert finding(report, "same-question").examples[0].text == "q"


def test_a_question_asked_twice_in_a_row_is_on_one_row(file: Path):
    turns = [{"input": "q", "output": f"a{i}"} for i in range(20)]
    assert check(lines(file, {"conversation": turns})).findings == ()


def test_duplicates_point_to_the_first(file: Path):
    rows = [row("a"), row("b"), row("a"), row("c"), row("b"), row("a"), row("a")]
    report = check(lines(file, *rows))
    assert counts(report) == {"duplicate-row": 4}
    assert [(e.where, e.text) for e in finding(report, "duplicate-row").examples] == [
        ("data.jsonl:3", "the same as data.jsonl:1"),
        ("data.jsonl:5", "the same as data.jsonl:2"),
        ("data.jsonl:6", "the same as data.jsonl:1"),
    ]


def test_duplicates_are_found_across_files_and_forms(tmp_path: Path):
    one = lines(tmp_path / "a.jsonl", form_row("openai", "q", "a"))
    two = lines(tmp_path / "b.jsonl", row("x"), {"id": 7, **form_row("sharegpt", "q", "a")})
    report = check([one, two])
    (example,) = finding(report, "duplicate-row").examples
    assert (example.where, example.text) == ("b.jsonl:2", "the same as a.jsonl:1")


def test_rows_that_cannot_be_read_are_no_duplicates_of_each_other(file: Path):
    rows = [{"a": 1}, {"b": 2}, form_row("openai", 3, 4), form_row("openai", 5, 6), {"messages": 1}]
    assert "duplicate-row" not in counts(check(lines(file, *rows)))
    rows = [form_row("xtuner", {"a": n}, "a") for n in (1, 2)]
    assert "duplicate-row" not in counts(check(lines(file, *rows)))
    rows = [form_row("xtuner", {"a": n}, "a") for n in (1, 1)]
    assert counts(check(lines(file, *rows)))["duplicate-row"] == 1


def test_two_names_are_told_with_an_example_of_each(file: Path):
    rows = [
        row("我是小初。"),
        row("我叫小初。"),
        row("我是尖米。"),
        row("我叫尖米。"),
        row("你好。"),
    ]
    report = check(lines(file, *rows))
    assert counts(report)["two-names"] == 4
    found = finding(report, "two-names")
    assert found.detail in ("小初 × 2, 尖米 × 2", "尖米 × 2, 小初 × 2")
    assert {e.text for e in found.examples} == {"我是小初。", "我是尖米。"}
    assert {e.where for e in found.examples} == {"data.jsonl:1", "data.jsonl:3"}
    assert "two-names" not in counts(check(lines(file, *rows[:2], row("我是小初！"))))


def test_of_many_names_three_are_shown_by_example(file: Path):
    rows = [
        row(f"我是{name}。", f"q{i}") for name in ("小初", "尖米", "小明", "大力") for i in (1, 2)
    ]
    found = finding(check(lines(file, *rows)), "two-names")
    assert (found.count, len(found.examples)) == (8, 3)
    assert found.detail.count("×") == 4


def test_a_row_with_both_names_counts_once(file: Path):
    turns = [{"input": "q", "output": "我是小初。"}, {"input": "q", "output": "我是尖米。"}]
    report = check(lines(file, *[{"conversation": turns}] * 3))
    assert counts(report)["two-names"] == 3


def test_a_name_said_once_among_many_rows_is_no_name_of_the_data(file: Path):
    rows = [row("我是小初。", f"q{i}") for i in range(300)] + [row("我是尖米。")] * 2
    assert "two-names" not in counts(check(lines(file, *rows)))


def test_an_old_name_that_must_not_be_left_is_told_where_it_stands(file: Path):
    rows = [row("a"), row("我是尖米。"), row("a", "尖米，尖米？"), row("a", "q", "你是尖米。")]
    report = check(lines(file, *rows), CheckOptions(old_names=("尖米", "黄大力")))
    assert counts(report)["old-name-left"] == 3
    found = finding(report, "old-name-left")
    assert [(e.where, e.field) for e in found.examples] == [
        ("data.jsonl:2", "assistant"),
        ("data.jsonl:3", "user"),
        ("data.jsonl:4", "system"),
    ]
    assert found.detail == "尖米 × 4"
    assert "old-name-left" not in counts(check(file))


def test_an_old_name_that_is_a_known_assistants_is_counted_once(file: Path):
    report = check(lines(file, row("I am ChatGPT.")), CheckOptions(old_names=("ChatGPT",)))
    assert finding(report, "old-name-left").detail == "ChatGPT × 1"
    assert finding(report, "old-name").detail == ""


@pytest.mark.parametrize(
    ("languages", "told"), [((), 0), (("zh",), 1), (("en",), 2), (("zh", "en"), 0)]
)
def test_replies_in_another_language_are_told(file: Path, languages: tuple[str, ...], told: int):
    rows = [row("你好，Tom"), row("好的。"), row("Hello there"), row("42!"), row("😀")]
    found = counts(check(lines(file, *rows), CheckOptions(languages=languages)))
    assert found.get("other-language", 0) == told


@pytest.mark.parametrize(
    ("name", "author", "left"), [(None, None, 3), ("N", None, 2), (None, "A", 2), ("N", "A", 0)]
)
def test_names_given_are_filled_in(file: Path, name: str | None, author: str | None, left: int):
    rows = [row("{{name}}"), row("{{ AUTHOR }}"), row("{{Name}} {{author}}"), row("{{city}}")]
    found = counts(check(lines(file, *rows), CheckOptions(name, author)))
    assert found.get("unfilled-name", 0) == left
    assert found["braces"] == 1


def test_rows_too_long_are_told_with_their_length(file: Path):
    def measure(conversation: Conversation) -> int:
        return sum(len(m.text) for m in conversation.messages)

    lines(file, row("a" * 9), row("b" * 10), row("c" * 11), row(""))
    report = check(file, CheckOptions(max_length=11, measure=measure))
    assert counts(report) == {"empty-reply": 1, "too-long": 1}
    assert finding(report, "too-long").examples[0].where == "data.jsonl:3"
    assert finding(report, "too-long").examples[0].text == "12 tokens"
    assert (report.tokens, report.tokens_are_exact) == (10 + 11 + 12, True)
    assert counts(check(file, CheckOptions(measure=measure))) == {"empty-reply": 1}
    assert not check(file).tokens_are_exact


def test_a_row_is_measured_as_it_is_trained_on(file: Path):
    measured: list[Conversation] = []
    turns = [{"system": "S", "input": "q", "output": "a"}] * 2
    options = CheckOptions(measure=lambda c: measured.append(c) or 1)
    check(lines(file, {"conversation": turns}), options)
    assert [m.role for m in measured[0].messages] == ["system"] + ["user", "assistant"] * 2


def test_a_mark_at_the_beginning_of_a_file_is_noted(file: Path):
    file.write_bytes(b"\xef\xbb\xbf" + lines(file, row()).read_bytes())
    report = check(file)
    assert counts(report) == {"byte-order-mark": 1}
    assert not report.blocking()


def test_a_file_cut_off_is_told_and_the_rows_before_are_checked(tmp_path: Path):
    path = tmp_path / "a.jsonl.gz"
    content = "".join(json.dumps(r) + "\n" for r in good_rows(400))
    path.write_bytes(gzip.compress(content.encode())[:-300])
    report = check(path)
    assert counts(report) == {"ends-early": 1}
    assert report.usable == report.rows - 1 > 100


def test_rows_of_a_table_that_do_not_fit_are_told(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text('query,response\nq,a\nq,a,b\nq\n"q,a\nq2,"a2"\n', "utf-8")
    report = check(path)
    assert counts(report) == {"wrong-columns": 3}
    assert [e.where for e in finding(report, "wrong-columns").examples] == [
        "a.csv:2",
        "a.csv:3",
        "a.csv:4",
    ]
    assert report.usable == 2


def test_every_kind_can_be_found(file: Path, tmp_path: Path):
    """All that the tests of this file find, once more in one place."""
    found = {name for bad in BAD_ROWS for name in bad.kinds}
    options = CheckOptions(
        old_names=("尖米",), languages=("en",), max_length=1, measure=lambda _: 2
    )
    same = [row(f"我是{name}。", "q", "S" * 30) for name in ("尖米", "小初") for _ in range(6)]
    found |= set(counts(check(lines(file, *same), options)))
    (tmp_path / "a.csv").write_text("query,response\nq\n")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b'{"a": 1}\n')[:-5])
    found |= set(counts(check([tmp_path / "a.csv", tmp_path / "b.gz"])))
    assert found == set(kind_names())


# ---- the report ----------------------------------------------------------------------------------


def test_the_report_can_be_written_as_json(file: Path):
    broken = row("\ud83d \x1b[1m [bold]", '{"a": "\ud800"}')
    lines(file, broken, form_row("xtuner", {"\ud800": "xxx"}, "a"))
    report = check(file, CheckOptions(languages=("zh",)))
    written = json.dumps(report.as_json(), ensure_ascii=False).encode()
    read = json.loads(written)
    assert read["format"] == 1
    assert read["blocks"] is True
    assert read["rows"] == 2
    assert {f["kind"] for f in read["findings"]} == set(counts(report))
    assert all(
        set(f) == {"kind", "severity", "count", "title", "cure", "detail", "examples"}
        for f in read["findings"]
    )
    assert read["findings"][0]["examples"][0]["where"] == "data.jsonl:1"


def test_what_is_allowed_blocks_no_more(file: Path):
    report = check(lines(file, row(""), row("</s>")))
    assert {f.kind for f in report.blocking()} == {"empty-reply", "special-token"}
    assert [f.kind for f in report.blocking(["empty-reply"])] == ["special-token"]
    assert report.blocking(["empty-reply", "special-token"]) == ()


def test_a_kind_to_allow_must_exist():
    check_kinds([])
    check_kinds(list(kind_names()))
    with pytest.raises(SettingError, match="--allow place-holder, x: there is no such finding"):
        check_kinds(["placeholder", "place-holder", "x"])


def test_several_files_are_checked_together(tmp_path: Path):
    one, two = (
        lines(tmp_path / "a.jsonl", row("")),
        lines(tmp_path / "b.jsonl", row("", "q2"), row()),
    )
    heard: list[tuple[int, int]] = []
    report = check([one, two], on_bytes=lambda done, total: heard.append((done, total)))
    assert report.files == ("a.jsonl", "b.jsonl")
    assert counts(report) == {"empty-reply": 2}
    assert [e.where for e in report.findings[0].examples] == ["a.jsonl:1", "b.jsonl:1"]
    size = one.stat().st_size + two.stat().st_size
    assert heard == sorted(heard)
    assert heard[-1] == (size, size)


def test_only_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="There is no file"):
        check(tmp_path / "no.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    assert check(tmp_path / "empty.jsonl").rows == 0


# ---- its parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "around", "shown"),
    [
        ("a\nb\tc\u3000d", 0, "a␣b␣c␣d"),
        ("\ud83d\x00\u200b", 0, "���"),
        ("x" * 200, 0, "x" * 160 + "…"),
        ("a" * 100 + "HERE" + "b" * 200, 100, "…" + "a" * 40 + "HERE" + "b" * 116 + "…"),
        ("", 0, ""),
    ],
)
def test_an_excerpt_is_one_line_that_can_be_printed(text: str, around: int, shown: str):
    assert excerpt(text, around) == shown


@given(st.text(), st.integers(0, 300))
def test_any_excerpt_can_be_printed(text: str, around: int):
    shown = excerpt(text * 20, around)
    assert shown.isprintable()
    assert len(shown) <= 162
    shown.encode()


@pytest.mark.parametrize(
    ("text", "cleaned", "kinds"),
    [
        ("clean", "clean", []),
        (" clean ", " clean ", []),
        ("a\ufeffb", "ab", ["byte-order-mark"]),
        ("a\x00\x1b\x7fb\n\tc\r", "ab\n\tc\r", ["control-character"]),
        ("a\ud83d\ude00b", "ab", ["half-character"]),
        (" a <|im_end|> ", "a", ["special-token"]),
        ("<|im\x00_end|>a", "a", ["control-character", "special-token"]),
        ("<|im<|im_end|>_end|>a</</s>s>", "a", ["special-token"]),
    ],
)
def test_what_never_belongs_in_a_text_is_taken_out(text: str, cleaned: str, kinds: list[str]):
    assert without_marks(text) == (cleaned, kinds)
    assert without_marks(cleaned) == (cleaned, [])


def test_texts_are_found_at_any_depth_with_their_places():
    value = {"a": ["x", {"b": "y"}, 3], "c": "z"}
    assert list(strings_in(value, "f")) == [("f.a[0]", "x"), ("f.a[1].b", "y"), ("f.c", "z")]
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert [text for _, text in strings_in(deep)] == ["x"]


@pytest.mark.parametrize("text", ["", "a", "你好", "hello " * 100, "你好，world" * 30])
def test_tokens_are_estimated_from_the_letters(text: str):
    wide = sum(c > "\x7f" for c in text)
    assert abs(estimated_tokens(text) - (0.65 * wide + 0.25 * (len(text) - wide))) <= 1.5


def test_only_the_most_frequent_texts_are_counted_on(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lint, "_MOST_COUNTED", 5)
    rows = [row(f"a{i}", "q" if i % 2 else f"q{i}") for i in range(40)]
    assert counts(check(lines(file, *rows))) == {"same-question": 20}


# ---- fuzzing -------------------------------------------------------------------------------------


@given(st.lists(JSON, max_size=5))
@settings(max_examples=150)
def test_any_rows_are_checked(rows: list[Any]):
    with tempfile.TemporaryDirectory() as folder:
        path = lines(Path(folder) / "a.jsonl", row(), *rows)
        report = check(path, CheckOptions("N", None, ("a",), ("zh",)))
    assert report.rows == 1 + len(rows)
    assert report.usable + sum(f.count for f in report.blocking()) >= 1 + len(rows)
    json.dumps(report.as_json(), ensure_ascii=False).encode()


ENDINGS = [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ""]


@given(st.binary(max_size=300), st.sampled_from(ENDINGS), st.booleans())
@settings(max_examples=150)
def test_any_bytes_are_checked_or_refused(content: bytes, ending: str, packed: bool):
    with tempfile.TemporaryDirectory() as folder, suppress(WhoamaiError):
        path = Path(folder) / f"a{ending}"
        path.write_bytes(gzip.compress(content) if packed else content)
        check(path).as_json()


def mutated(content: bytes, draw: Callable[..., Any]) -> bytes:
    """A few bytes deleted, inserted or replaced."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(changed) - 1))
        how = draw(st.sampled_from(["delete", "insert", "replace"]))
        new = b"" if how == "delete" else bytes([draw(st.integers(0, 255))])
        changed[at : at + (how != "insert")] = new
    return bytes(changed)


ROWS = [form_row(form, f"你好 {form}?", "Yes.\n") for form in FORMS]
FILES = {
    "a.jsonl": "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in ROWS).encode(),
    "a.json": json.dumps(ROWS, ensure_ascii=False, indent=1).encode(),
    "b.json": json.dumps(ROWS).encode(),
    "a.csv": b'query,response\n"q, 1","a\n1"\nq2,a2\n"q ""3""",a3\n',
    "a.jsonl.gz": gzip.compress("".join(json.dumps(r) + "\n" for r in ROWS).encode()),
}


@given(st.data())
@settings(max_examples=250)
def test_good_files_with_a_few_bytes_changed_are_checked(data: st.DataObject):
    name = data.draw(st.sampled_from(sorted(FILES)))
    with tempfile.TemporaryDirectory() as folder, suppress(WhoamaiError):
        path = Path(folder) / name
        path.write_bytes(mutated(FILES[name], data.draw))
        check(path).as_json()


# ---- the seed's files ----------------------------------------------------------------------------


def test_the_three_questions_of_the_seeds_author_are_answered(shared_data: Path):
    report = check(shared_data / "assistant_Tuner.jsonl")
    found = counts(report)
    assert [
        found[k] for k in ("nested-object", "placeholder", "doubled-system", "same-question")
    ] == [1500] * 4
    assert {f.kind for f in report.blocking()} == {"nested-object", "placeholder"}
    share = finding(report, "nested-object").detail
    assert 40 < int(share.split(", ")[-1].split(" %")[0]) < 55, "47 % of all tokens were waste"
    assert finding(report, "doubled-system").detail.startswith("about 4")
    assert (report.rows, report.usable) == (1500, 0)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("alpaca_zh_demo.json", 1000),
        ("alpaca_en_demo.json", 999),
        ("assistant_Tuner_fixed.jsonl", 1500),
    ],
)
def test_nothing_in_the_seeds_good_files_blocks(shared_data: Path, name: str, rows: int):
    report = check(shared_data / name)
    assert report.blocking() == ()
    assert report.rows == report.usable == rows


def test_llama_factorys_identity_rows_need_both_names(shared_data: Path):
    path = shared_data / "identity.json"
    for options in (CheckOptions(), CheckOptions(name="N"), CheckOptions(author="A")):
        assert [f.kind for f in check(path, options).blocking()] == ["unfilled-name"]
    report = check(path, CheckOptions(name="N", author="A"))
    assert report.blocking() == ()
    assert report.rows == report.usable == 91
