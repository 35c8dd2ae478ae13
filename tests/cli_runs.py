"""`whoamai` run in this process, as a person types it, from an empty folder."""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from whoamai.cli import main

Ran = namedtuple("Ran", "code out err")
Run = Callable[..., Ran]


def runner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """A function that runs `whoamai` with arguments; for a fixture."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["whoamai", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ran(ended.value.code or 0, *capsys.readouterr())

    return run


def refused(ran: Ran, *parts: object) -> None:
    """Exit code 2, one message on stderr that holds `parts`, no traceback, nothing written."""
    assert ran.code == 2, ran.err
    assert ran.err.startswith("Error: ")
    assert "Traceback" not in ran.err + ran.out
    assert len(ran.err.strip().splitlines()) == 1, ran.err
    for part in parts:
        assert str(part) in ran.err
    assert list(Path.cwd().iterdir()) == []
