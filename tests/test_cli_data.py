"""`whoamai data check` and `whoamai data repair`, as a person types them."""

from __future__ import annotations

import gzip
import json
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from tests.data.bad_rows import BAD_ROWS, form_row, good_rows
from tests.models import save_chat_model
from whoamai.cli import main
from whoamai.data.readers import read_conversations

Ran = namedtuple("Ran", "code out err")
LONELY = "我是小初，没有情感，所以不会感到孤独。"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run `whoamai data` with arguments, from an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["whoamai", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ran(ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chu")


def lines(name: str, *rows: Any) -> Path:
    path = Path(name)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def refused(ran: Ran, *parts: str) -> None:
    """Exit code 2, and one message on the error stream."""
    assert ran.code == 2, ran
    assert ran.err.startswith("Error: ")
    assert "Traceback" not in ran.err
    assert ran.out == ""
    for part in parts:
        assert part in ran.err


# ---- check ---------------------------------------------------------------------------------------


def test_a_clean_file_ends_with_0(run):
    ran = run("check", lines("a.jsonl", *good_rows(9)))
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "Nothing to complain about."


def test_findings_that_only_warn_end_with_0(run):
    ran = run("check", lines("a.jsonl", form_row("query", "", "a")))
    assert ran.code == 0
    assert "[empty-question]" in ran.out


def test_what_blocks_training_ends_with_1(run):
    ran = run("check", lines("a.jsonl", *good_rows(3), form_row("query", "q", "")))
    assert ran.code == 1
    assert "a.jsonl:4" in ran.out
    assert "refused because of: empty-reply" in ran.out
    assert "Traceback" not in ran.out + ran.err


def test_all_bad_rows_are_told_without_a_traceback(run):
    Path("a.jsonl").write_bytes(b"\n".join(bad.line for bad in BAD_ROWS))
    ran = run("check", "a.jsonl")
    assert ran.code == 1
    assert f"{len(BAD_ROWS):,} rows" in ran.out
    assert "Traceback" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["no.jsonl"], ["There is no file no.jsonl"]),
        (["no.jsonl", "*.csv", "."], ["no.jsonl", "pattern *.csv", ". is a folder"]),
        (["a.jsonl", "--max-length", "9"], ["--max-length counts tokens: say whose with --model."]),
        (["a.jsonl", "--lang", "xx"], ["xx"]),
        (["a.jsonl", "--old", ""], ["--old is empty"]),
        (["a.jsonl#0"], ["takes no row"]),
        (["a.xlsx"], ["of no known kind"]),
    ],
)
def test_what_can_be_mended_in_the_command_ends_with_2(run, given: list[str], parts: list[str]):
    lines("a.jsonl", *good_rows(1))
    Path("a.xlsx").write_bytes(b"PK\x03\x04")
    refused(run("check", *given), *parts)


def test_no_file_at_all_is_told_by_the_usage(run):
    ran = run("check")
    assert ran.code == 2
    assert "Missing argument" in ran.err


def test_several_files_and_patterns(run):
    lines("a.jsonl", *good_rows(2))
    lines("b.jsonl", form_row("query", "q", ""))
    ran = run("check", "*.jsonl", "b.jsonl")
    assert ran.out.startswith("a.jsonl, b.jsonl, b.jsonl: 4 rows, 2 can be trained on")


def test_names_and_languages_are_given_on_the_command_line(run):
    lines("a.jsonl", form_row("query", "q", "I am {{name}} by {{author}}, not 尖米."))
    assert run("check", "a.jsonl").code == 1
    assert run("check", "a.jsonl", "--name", "N").code == 1
    assert run("check", "a.jsonl", "--name", "N", "--author", "A").code == 0
    told = run("check", "a.jsonl", "--name", "N", "--author", "A", "--old", "尖米", "--old", "x")
    assert told.code == 1
    assert "[old-name-left]" in told.out
    assert "[other-language]" in run("check", "a.jsonl", "--lang", "en").out, "尖米 is Chinese"
    assert "[other-language]" not in run("check", "a.jsonl", "--lang", "zh, en").out


def test_the_findings_as_json_and_nothing_else(run):
    lines("a.jsonl", form_row("query", "[bold]", "", "S"), form_row("query", "[/]", "\ud83d", "T"))
    ran = run("check", "a.jsonl", "--json")
    assert ran.code == 1
    assert ran.err == ""
    report = json.loads(ran.out)
    assert (report["format"], report["rows"], report["blocks"]) == (1, 2, True)
    assert {f["kind"] for f in report["findings"]} == {"empty-reply", "half-character"}
    lines("b.jsonl", *good_rows(3))
    ran = run("check", "b.jsonl", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["findings"] == []


def test_with_a_model_tokens_are_exact_and_long_rows_told(run, model: Path):
    lines("a.jsonl", form_row("query", "q", "a"), form_row("query", "q", "long " * 200))
    ran = run("check", "a.jsonl", "--model", model)
    assert "about" not in ran.out.splitlines()[0]
    assert ran.code == 0
    ran = run("check", "a.jsonl", "--model", model, "--max-length", "60")
    assert "[too-long]" in ran.out
    assert "a.jsonl:2" in ran.out
    assert ran.code == 0


# ---- repair --------------------------------------------------------------------------------------


def test_a_repaired_file_passes_the_check(run):
    rows = [form_row("xtuner", {"a": "xxx"}, LONELY), form_row("query", "q\x00", "a</s>"), {"a": 1}]
    lines("a.jsonl", *good_rows(2), *rows)
    assert run("check", "a.jsonl").code == 1
    ran = run("repair", "a.jsonl", "b.jsonl")
    assert ran.code == 0
    assert "5 rows read, 2 changed, 1 left out, 4 kept." in ran.out
    assert "你会感到孤独吗？" in ran.out
    assert ran.out.splitlines()[-1] == "Written to b.jsonl"
    assert run("check", "b.jsonl").code == 0
    assert len(read_conversations("b.jsonl")) == 4


def test_a_dry_run_shows_it_and_writes_nothing(run):
    lines("a.jsonl", form_row("query", "q\x00", "a"))
    ran = run("repair", "a.jsonl", "b.jsonl", "--dry-run")
    assert ran.code == 0
    assert "- q�" in ran.out
    assert "Nothing was written" in ran.out
    assert [path.name for path in Path().iterdir()] == ["a.jsonl"]


def test_names_are_filled_in(run):
    lines("a.jsonl", form_row("alpaca", "q", "I am {{name}} by {{AUTHOR}}."))
    run("repair", "a.jsonl", "b.jsonl", "--name", "小初", "--author", "我")
    assert read_conversations("b.jsonl")[0].messages[-1].text == "I am 小初 by 我."


def test_equal_rows_are_dropped_if_asked(run):
    lines("a.jsonl", *good_rows(3), *good_rows(3))
    run("repair", "a.jsonl", "b.jsonl", "--drop-duplicates")
    assert len(read_conversations("b.jsonl")) == 3


def test_several_files_are_repaired_into_the_last_name(run):
    lines("a.jsonl", *good_rows(2))
    lines("b.jsonl", *good_rows(3))
    assert run("repair", "a.jsonl", "b.jsonl", "out.jsonl.gz").code == 0
    assert len(gzip.decompress(Path("out.jsonl.gz").read_bytes()).splitlines()) == 5


def test_an_output_that_must_not_be_written_ends_with_2(run):
    before = lines("a.jsonl", *good_rows(2)).read_bytes()
    Path("link.jsonl").symlink_to("a.jsonl")
    lines("b.jsonl")
    refused(run("repair", "a.jsonl", "a.jsonl", "--overwrite"), "is the input file itself")
    refused(run("repair", "a.jsonl", "link.jsonl", "--overwrite"), "is the input file itself")
    refused(run("repair", "a.jsonl", "b.jsonl"), "b.jsonl exists already")
    refused(run("repair", "no.jsonl", "c.jsonl"), "There is no file no.jsonl")
    refused(run("repair", "a.jsonl", "no/c.jsonl"), "cannot be written")
    assert Path("a.jsonl").read_bytes() == before
    assert run("repair", "a.jsonl", "b.jsonl", "--overwrite").code == 0


# ---- the seed's files ----------------------------------------------------------------------------


def test_the_seeds_broken_file_is_explained_on_one_screen(
    run, shared_data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "100")
    ran = run("check", shared_data / "assistant_Tuner.jsonl")
    assert ran.code == 1
    told = ran.out.splitlines()
    assert len(told) <= 45
    assert all(cell_len(line.rstrip()) <= 100 for line in told)
    text = " ".join(ran.out.split())
    for name in ("nested-object", "placeholder", "doubled-system", "same-question"):
        assert "1,500 × " in text.partition(f"[{name}]")[0][-120:], name
    assert "405,000 tokens, 41 % of all" in text
    assert "as text: {'conversation': [{'system': 'Role:" in text
    assert "input.conversation[0].input xxx" in text
    assert "whoamai data repair" in text


def test_the_seeds_broken_file_is_mended(run, shared_data: Path):
    ran = run("repair", shared_data / "assistant_Tuner.jsonl", "mended.jsonl")
    assert ran.code == 0
    assert "1,500 rows read, 1,500 changed, 0 left out, 1,500 kept." in ran.out
    assert run("check", "mended.jsonl").code == 0
    assert len(read_conversations("mended.jsonl")) == 1500


@pytest.mark.parametrize(
    "name", ["alpaca_zh_demo.json", "alpaca_en_demo.json", "assistant_Tuner_fixed.jsonl"]
)
def test_nothing_blocks_in_the_seeds_good_files(run, shared_data: Path, name: str):
    ran = run("check", shared_data / name)
    assert ran.code == 0
    assert "Nothing here blocks training." in ran.out


def test_llama_factorys_identity_file_needs_its_names(run, shared_data: Path):
    path = shared_data / "identity.json"
    ran = run("check", path)
    assert ran.code == 1
    assert "Give --name and --author" in ran.out
    assert run("check", path, "--name", "小初", "--author", "我").code == 0
