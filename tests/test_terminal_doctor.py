from __future__ import annotations

import io
import json
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from whoamai import cli_doctor
from whoamai.messages import use_language
from whoamai.plan import doctor
from whoamai.plan.doctor import Check, Diagnosis, Group
from whoamai.terminal_doctor import looking, print_diagnosis


def diagnosis(*, ok: bool = True) -> Diagnosis:
    checks = (
        Check("a", "名字", "1.0 [bold]as it is[/bold]"),
        Check("b", "longer name", "x" * 300, "warn", "Mend it."),
        Check("c", "job", "done" if ok else "broken", "ok" if ok else "fail"),
    )
    return Diagnosis((Group("g", "Group", checks), Group("empty", "Nothing", ())))


def printed(found: Diagnosis, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=80, **options)
    print_diagnosis(console, found)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("code", ["en", "zh"])
def test_what_is_printed_is_the_block_to_paste(code: str):
    with use_language(code):
        lines = printed(diagnosis()).splitlines()
        assert [line.rstrip() for line in lines] == [
            line.rstrip() for line in diagnosis().as_text().splitlines()
        ]


def test_names_are_aligned_by_their_width_on_the_screen():
    first, second, *_ = [
        line for line in printed(diagnosis()).splitlines() if "name" in line or "名" in line
    ]
    assert first.index("1.0") + len("名字") == second.index("xxx")


def test_failures_are_red_on_a_screen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR")
    text = printed(diagnosis(ok=False), force_terminal=True, color_system="standard")
    assert "\x1b[1;31m" in text


def test_no_spinner_where_the_error_stream_is_no_screen():
    console = Console(file=io.StringIO(), force_terminal=False)
    with looking(console) as tell:
        tell("one step")
    assert console.file.getvalue() == ""  # pyright: ignore[reportAttributeAccessIssue]


def test_a_spinner_says_what_is_looked_at():
    console = Console(file=io.StringIO(), force_terminal=True)
    with looking(console) as tell:
        tell("[trying] a step")
    assert "[trying] a step" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


# ---- the command ---------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, found: Diagnosis, *options: str):
    """(exit code, output, what examine() was told) of `whoamai doctor`."""
    told: dict[str, Any] = {}

    def examine(**settings: Any) -> Diagnosis:
        told.update(settings)
        return found

    monkeypatch.setattr(doctor, "examine", examine)
    app = typer.Typer()
    app.callback()(lambda: None)
    cli_doctor.register(app)
    result = CliRunner().invoke(app, ["doctor", *options])
    return result.exit_code, result.stdout, told


def test_the_command_prints_the_block(monkeypatch: pytest.MonkeyPatch):
    code, output, told = run(monkeypatch, diagnosis())
    assert code == 0
    assert "[bold]as it is[/bold]" in output
    assert told["network"] is True


def test_the_command_exits_with_1_when_the_main_job_cannot_run(monkeypatch: pytest.MonkeyPatch):
    code, output, _ = run(monkeypatch, diagnosis(ok=False))
    assert code == 1
    assert "CANNOT" in output


def test_json_is_for_programs_and_the_network_can_be_left_alone(monkeypatch: pytest.MonkeyPatch):
    code, output, told = run(monkeypatch, diagnosis(ok=False), "--json", "--no-network")
    assert code == 1
    assert json.loads(output)["ok"] is False
    assert told["network"] is False
