"""A data preview as one HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from whoamai.data.preview import (
    DataPreview,
    Marks,
    RowPreview,
    TokenPiece,
    heading,
    marks_for,
    notes,
    saved_elsewhere,
    shared_title,
    sign,
    summary,
    untrained_notes,
    visible,
)
from whoamai.data.writers import checked_out, complete_file
from whoamai.messages import language, tr

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1b1b; --faint: #5c6370;
  --a: #f1f3f5; --b: #e1e5ea; --trained-a: #c7ecd4; --trained-b: #a3ddb8; --line: #1d7a46; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --ink: #eceff1; --faint: #a0a8b3;
  --a: #262a2f; --b: #343a41; --trained-a: #1d4f35; --trained-b: #2a6a48; --line: #74d69f; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 60rem; background: var(--page);
  color: var(--ink); font: 1rem/1.6 system-ui, "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; overflow-wrap: anywhere; }
pre, td:last-child { white-space: pre-wrap; overflow-wrap: anywhere; }
pre { font: 0.95rem/1.9 ui-monospace, "Noto Sans Mono CJK SC", monospace; }
.t { padding: 0.15em 0; background: var(--a); } .b { background: var(--b); }
.x { background: var(--trained-a); border-bottom: 2px solid var(--line); }
.x.b { background: var(--trained-b); }
.t[data-n]::after { content: "×" attr(data-n); font-size: 0.65em; color: var(--faint); }
.s { color: var(--faint); }
.note { color: var(--faint); }
table { border-collapse: collapse; } th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: left;
  vertical-align: top; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
"""


def write_html(
    preview: DataPreview, path: Path, inputs: Sequence[Path] = (), *, overwrite: bool = False
) -> None:
    """Write the page, complete or not at all. Raises OutputError, also where `path` is an input."""
    with complete_file(checked_out(path, inputs, overwrite=overwrite)) as file:
        file.write(html_page(preview).encode("utf-8"))


def html_page(preview: DataPreview) -> str:
    """The preview as one HTML page that needs nothing else, in the language of messages."""
    title = html.escape(tr("What the model sees"))
    marks = marks_for(preview)
    body = [f"<h1>{title}</h1>", _html_legend(marks)] if preview.rows else [f"<h1>{title}</h1>"]
    body += [_html_row(row, marks) for row in preview.rows]
    body += [_html_note(note) for note in untrained_notes(preview)]
    heading = html.escape(tr("All rows"))
    body += [f"<h2>{heading}</h2>", *map(_html_paragraph, summary(preview))]
    body += [_html_shared(preview, marks)] if preview.shared else []
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="{language().replace("_", "-")}">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{title}</title>",
            f"<style>{_STYLE}</style></head>",
            f"<body>\n{chr(10).join(body)}\n</body>",
            "</html>\n",
        ]
    )


def _html_legend(marks: Marks) -> str:
    given = '<span class="t">' + html.escape(tr("given")) + "</span>"
    trained = '<span class="t x">' + html.escape(tr("trained on")) + "</span>"
    rest = tr(
        "{line_end} is a line end. Shades change from token to token; ×3 behind a text says that "
        "it takes 3 tokens. Hold the pointer over a text to see its token numbers."
    ).format(line_end=marks.line_end)
    return f"<p>{given} {trained} {html.escape(rest)}</p>"


def _html_row(row: RowPreview, marks: Marks) -> str:
    spans = (_html_piece(piece, i % 2 == 1, marks) for i, piece in enumerate(row.pieces))
    lines = (_html_note(note) for note in notes(row, marks))
    return "\n".join(
        [
            f"<section>\n<h2>{html.escape(heading(row))}</h2>",
            f"<pre>{''.join(spans)}</pre>",
            *lines,
            "</section>",
        ]
    )


def _html_piece(piece: TokenPiece, is_odd: bool, marks: Marks) -> str:
    kind = "t" + " x" * piece.trained + " b" * is_odd
    several = f' data-n="{len(piece.ids)}"' if len(piece.ids) > 1 else ""
    numbers = ", ".join(map(str, piece.ids))
    text = "".join(_html_character(c, marks) for c in piece.text)
    return f'<span class="{kind}"{several} title="{numbers}">{text}</span>'


def _html_character(c: str, marks: Marks) -> str:
    shown = sign(c, marks.line_end, False)
    if shown == c:
        return html.escape(c)
    return f'<span class="s">{shown}</span>' + "\n" * (c == "\n")


def _html_shared(preview: DataPreview, marks: Marks) -> str:
    heads = (tr("rows"), tr("tokens"), tr("saved"), tr("shared text"))
    lines = [
        f'<tr><td class="n">{shared.rows:,}</td><td class="n">{shared.n_tokens:,}</td>'
        f'<td class="n">{shared.saved:,}</td><td style="padding-left: {shared.level}em">'
        f"{html.escape(visible(shared.text, marks.line_end, on_lines=False))}</td></tr>"
        for shared in preview.shared
    ]
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    title = f"<h2>{html.escape(shared_title())}</h2>"
    rest = saved_elsewhere(preview)
    return "\n".join(
        [
            title,
            f"<table><tr>{head}</tr>",
            *lines,
            "</table>",
            *([_html_note(rest)] if rest else []),
        ]
    )


def _html_note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _html_paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"
