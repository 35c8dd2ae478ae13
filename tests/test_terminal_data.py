from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from whoamai.data.lint import CheckReport, Example, Finding, check
from whoamai.data.lint_kinds import kind
from whoamai.data.repair import MARK, Change, RepairReport, repair
from whoamai.data.replace_rows import replace_rows
from whoamai.messages import use_language
from whoamai.terminal_data import bytes_bar, print_check, print_repair, print_replaced

MARKUP = "[bold]x[/bold] [red] [/] :smile: [link=http://a.b]c[/link]"


def screen(width: int = 100, *, colours: bool = False) -> Console:
    settings = {"force_terminal": True, "color_system": "truecolor", "no_color": False}
    return Console(file=io.StringIO(), width=width, **(settings if colours else {}))


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def found(name: str, count: int, *examples: tuple[str, str, str], detail: str = "") -> Finding:
    known = kind(name)
    told = tuple(Example(*example) for example in examples)
    return Finding(name, known.severity, count, known.title, known.cure, detail, told)


def report(*findings: Finding, files: tuple[str, ...] = ("data.jsonl",)) -> CheckReport:
    return CheckReport(files, 1500, 1400, {"xtuner": 1500}, 12_345, False, findings)


def checked(*findings: Finding, width: int = 100, files: tuple[str, ...] = ("data.jsonl",)) -> str:
    console = screen(width)
    print_check(console, report(*findings, files=files))
    return shown(console)


# ---- check ---------------------------------------------------------------------------------------


def test_the_first_line_says_what_was_read():
    first = checked().splitlines()[0]
    assert first == (
        "data.jsonl: 1,500 rows, 1,400 can be trained on; form: xtuner × 1,500; about 12,345 tokens"
    )


def test_a_finding_says_how_grave_how_often_where_and_what_to_do():
    text = checked(
        found("empty-reply", 1234, ("data.jsonl:7", "output", "…"), detail="about 9 tokens")
    )
    _, head, where, cure, last = (line.rstrip() for line in text.splitlines())
    assert head == "blocks  1,234 × empty replies  [empty-reply]  about 9 tokens"
    assert where == "  data.jsonl:7 output  …"
    assert cure.startswith("  → The model would learn to say nothing.")
    assert last == "Training on this is refused because of: empty-reply."


@pytest.mark.parametrize(
    ("findings", "last"),
    [
        ((), "Nothing to complain about."),
        ((found("braces", 1),), "Nothing here blocks training."),
        (
            (found("not-json", 1), found("no-reply", 1), found("braces", 1)),
            "Training on this is refused because of: not-json, no-reply.",
        ),
    ],
)
def test_the_last_line_says_what_it_means(findings: tuple[Finding, ...], last: str):
    assert checked(*findings).splitlines()[-1] == last


def test_examples_that_say_the_same_are_one_line():
    examples = [("my:data.jsonl:1", "input", "xxx"), ("my:data.jsonl:2", "input", "xxx"),
                ("other.jsonl:2", "input", "xxx")]  # fmt: skip
    text = checked(found("placeholder", 3, *examples))
    assert "  my:data.jsonl:1, 2, other.jsonl:2 input  xxx" in text
    examples[1] = ("my:data.jsonl:2", "output", "xxx")
    text = checked(found("placeholder", 3, *examples))
    assert "  my:data.jsonl:1, other.jsonl:2 input  xxx" in text
    assert "  my:data.jsonl:2 output  xxx" in text


def test_nothing_in_the_data_is_markup():
    name = "a[b]/[bold]c[/bold].jsonl"
    text = checked(
        found("empty-reply", 1, (f"{name}:1", MARKUP, MARKUP), detail=MARKUP),
        width=500,
        files=(name,),
    )
    assert text.splitlines()[0].startswith(f"{name}: ")
    assert f"[empty-reply]  {MARKUP}" in text
    assert f"  {name}:1 {MARKUP}  {MARKUP}" in text


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_no_line_of_a_finding_is_wider_than_the_screen(width: int):
    long = "你好，世界！😀" * 60
    text = checked(
        found("empty-reply", 1, ("data.jsonl:1", "output", long), detail=long[:90]), width=width
    )
    head, *others = text.splitlines()
    assert head.startswith("data.jsonl")
    assert all(cell_len(line.rstrip()) <= width for line in others if "refused" not in line)


def test_an_example_is_one_line_cut_at_its_end():
    text = checked(found("empty-reply", 1, ("data.jsonl:1", "output", "你好" * 100)), width=60)
    (line,) = (line for line in text.splitlines() if "data.jsonl:1" in line)
    assert line.rstrip().endswith("…")
    assert 55 <= cell_len(line.rstrip()) <= 60


def test_the_cure_and_the_title_are_whole_however_narrow_the_screen():
    finding = found("nested-object", 1500, detail="about 439,500 tokens, 45 % of all")
    text = " ".join(checked(finding, width=40).split())
    assert f"→ {' '.join(finding.cure.split())}" in text
    assert "45 % of all" in text


def test_colours_say_how_grave_it_is():
    for name, code in (("empty-reply", "31"), ("braces", "33")):
        console = screen(colours=True)
        print_check(console, report(found(name, 1)))
        assert f"{code}m" in shown(console).splitlines()[1]


def test_it_is_told_in_chinese_too():
    with use_language("zh"):
        console = screen()
        print_check(console, report(found("empty-reply", 3, ("a.jsonl:1", "output", "x"))))
    text = shown(console)
    assert "rows" not in text
    assert "empty-reply" in text, "what --allow takes stays as it is"
    assert "Training" not in text


def test_what_a_real_check_finds_can_be_printed(tmp_path: Path):
    path = tmp_path / "[red]a[1].jsonl"
    path.write_text('{"output": "</s>[bold]\\u001b[31m"}\n[/]\n{"output": "\\ud83d"}\n', "utf-8")
    console = screen()
    print_check(console, check(path))
    text = shown(console)
    text.encode()
    assert "</s>[bold]�[31m" in text
    assert "\x1b" not in text
    assert "[red]a[1].jsonl:1" in text


# ---- repair --------------------------------------------------------------------------------------


def repaired(out: Path | None, **values: object) -> str:
    console = screen()
    print_repair(console, RepairReport(**values), out)  # type: ignore[arg-type]
    return shown(console)


def test_a_repair_shows_before_and_after_and_the_totals():
    text = repaired(
        Path("out[1].jsonl"),
        rows=1500,
        written=1400,
        changed=1300,
        questions={"q1", "q2"},
        changes=Counter({MARK: 1200, "not-text": 100}),
        left_out=Counter({"empty-reply": 100}),
        shown=[
            Change(MARK, "a.jsonl:1", "conversation[0].input", MARKUP, "你是谁？"),
            Change("empty-reply", "a.jsonl:2", "output", "x", None),
            Change("role-order", "a.jsonl:3", "messages", "y", ""),
        ],
    )
    assert text.splitlines() == [
        "a.jsonl:1 conversation[0].input",
        f"- {MARKUP}",
        "+ 你是谁？",
        "a.jsonl:2 output",
        "- x",
        "  (row left out)",
        "a.jsonl:3 messages",
        "- y",
        "+ ",
        "Changed: lost questions reconstructed from the reply (marked in the row) × 1,200, "
        "numbers written as text × 100",
        "Left out: empty replies × 100",
        "2 different questions were given. They are guesses: read some of them.",
        "1,500 rows read, 1,300 changed, 100 left out, 1,400 kept.",
        "Written to out[1].jsonl",
    ]


def test_a_dry_run_says_that_nothing_was_written():
    text = repaired(None, rows=3, written=3)
    assert text.splitlines() == [
        "3 rows read, 0 changed, 0 left out, 3 kept.",
        "Nothing was written (--dry-run).",
    ]


def test_what_a_real_repair_does_can_be_printed(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    rows = ({"output": "a\x1b[31m[bold]", "query": "q"}, {"output": {"content": "\ud83d x"}}, "x")
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    console = screen(30)
    print_repair(console, repair(path, tmp_path / "out", dry_run=True), None)
    text = shown(console)
    text.encode()
    assert "\x1b" not in text
    assert "- a�[31m[bold]" in text
    assert "+ a[31m[bold]" in text


# ---- replace -------------------------------------------------------------------------------------


def test_a_replacement_shows_its_counts_by_name_and_field(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"output": "我是尖米。[bold]", "尖米": 1}\n{"output": "你好"}\n', "utf-8")
    result = replace_rows(path, tmp_path / "b.jsonl", [("尖米", "[red]"), ("没有", "x")])
    console = screen(200)
    print_replaced(console, result)
    text = shown(console)
    assert "- 我是尖米。[bold]" in text
    assert "+ 我是[red]。[bold]" in text
    assert "尖米 × 1" in text
    assert "output × 1" in text
    assert "没有 occurs nowhere" in text
    assert "In keys, left as they are: 尖米 × 1" in text
    assert "1 of 2 rows changed." in text
    assert text.splitlines()[-1] == f"Written to {tmp_path / 'b.jsonl'}"


# ---- the bar -------------------------------------------------------------------------------------


def test_where_there_is_no_screen_the_bar_writes_nothing(capsys: pytest.CaptureFixture[str]):
    for hidden in (True, False):
        with bytes_bar("Checking", hidden=hidden) as tell:
            tell(5, 10)
            tell(10, 10)
    assert capsys.readouterr() == ("", "")


def test_on_a_screen_the_bar_goes_to_the_error_stream_and_its_label_is_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with bytes_bar("[red]Checking") as tell:
        tell(5, 10)
    out, err = capsys.readouterr()
    assert out == ""
    assert "[red]Checking" in err
    with bytes_bar("Checking", hidden=True) as tell:
        tell(5, 10)
    assert capsys.readouterr() == ("", "")


def test_the_bar_passes_errors_on():
    with pytest.raises(ValueError, match="no"), bytes_bar("Checking"):
        raise ValueError("no")
