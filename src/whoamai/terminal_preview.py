"""A data preview on a terminal: coloured where there are colours, in brackets where there are none."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from whoamai.data.preview import (
    DataPreview,
    Marks,
    RowPreview,
    TokenPiece,
    heading,
    marks_for,
    notes,
    plain_text,
    shared_lines,
    shared_title,
    summary,
    untrained_notes,
    visible,
)
from whoamai.messages import tr

# Ink and ground are both given, so that they fit together on light and on dark terminals. Two shades
# each, taken in turn, so that the borders between tokens are seen.
_GIVEN = ("black on #d9dde3", "black on #eceef2")
_TRAINED = ("black on #8fd6a9", "black on #b9e8c9")
_SEVERAL = "underline"


def print_preview(console: Console, preview: DataPreview) -> None:
    """Print it. Without colours (a file, a pipe, NO_COLOR) it is plain_text(), no line broken."""
    if not console.is_terminal or console.no_color or console.color_system is None:
        console.print(Text(plain_text(preview)), soft_wrap=True, end="")
        return
    marks = marks_for(preview)
    if preview.rows:
        console.print(_legend(marks))
    for row in preview.rows:
        console.print()
        console.print(Text(heading(row), style="bold", overflow="fold"))
        console.print(coloured(row, marks))
        _print_lines(console, notes(row, marks))
    console.print()
    _print_lines(console, untrained_notes(preview), style="yellow")
    _print_lines(console, summary(preview), style="")
    if preview.shared:
        console.print(Text(f"\n{shared_title()}"))
        _print_lines(console, shared_lines(preview, marks))


def coloured(row: RowPreview, marks: Marks) -> Text:
    """The row's text with a ground for each token."""
    text = Text(overflow="fold")
    for i, piece in enumerate(row.pieces):
        text.append(visible(piece.text, marks.line_end), style=_style(piece, i % 2))
    return text


def _style(piece: TokenPiece, shade: int) -> str:
    style = (_TRAINED if piece.trained else _GIVEN)[shade]
    return f"{style} {_SEVERAL}" if len(piece.ids) > 1 else style


def _legend(marks: Marks) -> Text:
    rest = tr(
        "{line_end} is a line end. Shades change from token to token; underlined text takes "
        "several tokens."
    ).format(line_end=marks.line_end)
    return Text.assemble(
        (tr("given"), _GIVEN[0]), " ", (tr("trained on"), _TRAINED[0]), f" {rest}", overflow="fold"
    )


def _print_lines(console: Console, lines: Iterable[str], *, style: str = "dim") -> None:
    for line in lines:
        console.print(Text(line, style=style, overflow="fold"))
