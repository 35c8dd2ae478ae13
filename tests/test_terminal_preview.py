from __future__ import annotations

import io
import re
from itertools import pairwise

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.data.test_preview import TEXTS, preview_of, talk
from whoamai.data.preview import marks_for, plain_text, visible
from whoamai.messages import use_language
from whoamai.terminal_preview import coloured, print_preview

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def printed(preview, *, width: int = 100, colours: bool = True) -> str:
    settings = {"force_terminal": True, "color_system": "truecolor", "no_color": False}
    out = Console(file=io.StringIO(), width=width, **(settings if colours else {}))
    print_preview(out, preview)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_without_a_terminal_it_is_the_plain_text():
    preview = preview_of(talk("你好 " * 80, "[red]x[/red] :smile:"))
    assert printed(preview, width=20, colours=False) == plain_text(preview)


def test_a_terminal_without_colours_gets_brackets():
    out = Console(file=io.StringIO(), width=500, force_terminal=True, no_color=True)
    print_preview(out, preview_of(talk("a", "b")))
    assert isinstance(out.file, io.StringIO)
    assert "⟦b<|im_end|>⟧" in out.file.getvalue()


def test_trained_and_given_tokens_have_grounds_of_their_own_and_neighbours_differ():
    (row,) = (preview := preview_of(talk("你好", "我是小初 😀"))).rows
    spans = coloured(row, marks_for(preview)).spans
    assert len(spans) == len(row.pieces)
    grounds = [
        {str(s.style).removesuffix(" underline") for s, p in zip(spans, row.pieces, strict=True)
         if p.trained is trained}
        for trained in (True, False)
    ]  # fmt: skip
    assert [len(ground) for ground in grounds] == [2, 2]
    assert not grounds[0] & grounds[1]
    assert all(a.style != b.style for a, b in pairwise(spans))


def test_a_text_of_several_tokens_is_underlined():
    (row,) = (preview := preview_of(talk("?", "a😀"))).rows
    spans = coloured(row, marks_for(preview)).spans
    underlined = [
        piece.text for piece, s in zip(row.pieces, spans, strict=True) if "underline" in s.style
    ]
    assert "😀" in underlined
    assert "a" not in underlined


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_shown_as_it_is_and_never_read_as_markup(text):
    (row,) = (preview := preview_of(talk(text, f"{text}!"))).rows
    marks = marks_for(preview)
    assert coloured(row, marks).plain == visible(row.text, marks.line_end)
    shown = ESCAPE.sub("", printed(preview, width=400))
    assert visible(f"{text}!<|im_end|>", marks.line_end) in shown


def test_no_control_character_of_a_text_reaches_the_terminal():
    shown = printed(preview_of(talk(TEXTS[5], TEXTS[5], source="\x1b[2Jx:1")))
    assert all(c == "\n" or c.isprintable() for c in ESCAPE.sub("", shown))
    assert "\x1b[31m" not in shown
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [40, 80])
def test_the_preview_fits_the_terminal(width: int, language: str):
    rows = [talk("你好 " * 30 + "x" * 200, f"我是小初{n}" * 9) for n in range(4)]
    with use_language(language):
        shown = ESCAPE.sub("", printed(preview_of(*rows), width=width))
    assert max(cell_len(line) for line in shown.splitlines()) <= width


def test_the_numbers_of_all_rows_are_printed():
    shown = printed(preview_of(*[talk("你好", "hi")] * 3))
    assert "As one prefix tree" in shown
    assert "3 rows share" in shown
