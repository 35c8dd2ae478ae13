"""Sentences in lines: between Chinese characters too, never a full stop alone, nothing lost."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from whoamai.terminal_prose import Prose, wrapped

MIXED = "float16：给没有 bfloat16 的显卡；大数会溢出，所以损失要先放大（除以 √r 则不会）。"


@pytest.mark.parametrize("width", range(16, 80))
def test_no_line_is_too_wide_and_none_begins_with_a_closing_mark(width: int):
    lines = wrapped(MIXED, width)
    assert max(map(cell_len, lines)) <= width
    assert not any(line[0] in "，。；：）" for line in lines)
    assert not any(line[-1] in "（" for line in lines)


def test_lines_are_filled_where_rich_would_break_at_a_space():
    assert wrapped("↑ 能学的更多；适配器成比例变大。", 20) == [
        "↑ 能学的更多；适配器",
        "成比例变大。",
    ]


def test_an_english_word_is_not_cut_where_it_fits_on_a_line():
    assert wrapped("one step takes whole rows", 10) == ["one step", "takes", "whole rows"]


def test_a_word_longer_than_a_line_is_cut():
    assert wrapped("a" * 25, 10) == ["a" * 10, "a" * 10, "a" * 5]


def test_lines_after_the_first_hang():
    assert wrapped("· one two three four five", 20, hanging=2) == ["· one two three four", "  five"]


def test_line_ends_of_the_text_stay():
    assert wrapped("one\n\ntwo", 20) == ["one", "", "two"]


@given(st.text(alphabet="ab c，。（一二🦊", max_size=60), st.integers(2, 30))
def test_nothing_but_spaces_is_lost_and_nothing_is_too_wide(text: str, width: int):
    lines = wrapped(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert max(map(cell_len, lines)) <= width


def test_in_a_table_it_takes_the_width_of_its_column():
    table = Table.grid(padding=(0, 2))
    table.add_row("名字", Prose(MIXED))
    console = Console(file=io.StringIO(), width=40)
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("名字  float16")
    assert max(map(cell_len, lines)) <= 40
