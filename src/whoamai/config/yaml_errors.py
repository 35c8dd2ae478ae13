"""What PyYAML says of text it cannot read, in plain words: which line, what is there, the cure."""

from __future__ import annotations

import re

import yaml

from whoamai.config.problems import shortened
from whoamai.messages import later, tr

_TABBED = re.compile(r" *\t")
_WIDE_COLON = re.compile(r"\s*(?:- )?[\w.\"']+\s*：")
# A name, a colon, and at once the value; not the colon of https:// or of C:\.
_NO_SPACE = re.compile(r"\s*(?:- )?([A-Za-z_]\w*):([^\s:/\\].*)")
_TWO_COLONS = re.compile(r"\s*(?:- )?[\w.]+:\s.*:(\s|$)")
_NAME = re.compile(r"\s*(?:- )?[\w.]+:(\s|$)")
_BARE_NAME = re.compile(r"\s*\w+\s*")

_NO_COLON = later("a name without a colon."), later("A line is written: name: value")
_INDENT = later("Sections stand at the beginning of a line, their settings two spaces in.")

# Parts of PyYAML's message; what is wrong; the cure, or "" for putting the value in quotes.
_MESSAGES = (
    (("could not find expected ':'",), *_NO_COLON),
    (
        ("sequence entries are not allowed",),
        later("a list cannot begin behind the name or in the midst of settings."),
        later("Write it in brackets, name: [a, b], or each of it in a line of its own below: - a"),
    ),
    (
        ("quoted scalar", "end of stream"),
        later("the quote that opens here is never closed."),
        later("Close it."),
    ),
    (
        ("quoted scalar",),
        later("between double quotes \\ begins an escape, and this is none."),
        later("Use single quotes, or / in paths."),
    ),
    (
        ("while parsing a flow",),
        later("the bracket that opens here is not closed, or a comma is missing in it."),
        later("Write it as [a, b], and text with brackets, commas or colons in it in quotes."),
    ),
    (
        ("while scanning an a",),  # an alias, an anchor
        later("a value begins with a sign that means something else in YAML."),
        "",
    ),
    (
        ("while scanning a tag",),
        later("a value begins with a sign that means something else in YAML."),
        "",
    ),
    (
        ("cannot start any token",),
        later("a value begins with a sign that it cannot begin with."),
        "",
    ),
    (
        ("block scalar",),
        later("| and > announce a text in the lines below; nothing else may follow them here."),
        later("Begin the text in the next line, indented."),
    ),
    (
        ("directive",),
        later("a line that begins with % means something else in YAML."),
        later("Take it away."),
    ),
    (
        ("expected '<document start>'",),
        later("something follows after the end of the config."),
        later("A config is one group of settings. A file with a row a line is data."),
    ),
)


class Unreadable(Exception):
    """Where the text stops being YAML. Caught in yaml_lines; users see a ConfigProblem."""

    def __init__(self, line: int, what: str, cure: str, broken: list[int] | None = None) -> None:
        """line: from 1. broken: the lines to leave out, from 0, where not that one and its own."""
        super().__init__(what)
        self.line, self.what, self.cure, self.broken = line, what, cure, broken


def explain(error: yaml.MarkedYAMLError, lines: list[str]) -> Unreadable:
    """`error` as what is wrong with which of `lines`."""
    mark = _mark(error)
    index = _index(mark, lines)
    said = f"{error.context or ''}; {error.problem or ''}"
    tabs = [i for i in part_of(lines, index) if _TABBED.match(lines[i])]
    if tabs or "'\\t'" in said:
        return _tab(tabs or [index])
    if index > 0 and lines[index - 1].startswith("%"):  # after %… PyYAML looks for a ---
        index, mark, said = index - 1, None, "directive"
    spelling = _misspelt_colon(lines, index, said)
    if spelling:
        return spelling
    column = mark.column if mark and mark.line == index else 0
    what, cure = _by_message(said, lines[index], column)
    if column and cure != tr(_INDENT):
        what = tr("column {column}: {what}").format(column=column + 1, what=what)
    return Unreadable(index + 1, what, cure)


def part_of(lines: list[str], index: int) -> range:
    """The lines from the one without indentation at or before `index` to the next such line."""
    first = index
    while first > 0 and not _begins_part(lines[first]):
        first -= 1
    last = index + 1
    while last < len(lines) and not _begins_part(lines[last]):
        last += 1
    return range(first, last)


def with_what_hangs_below(lines: list[str], index: int) -> range:
    """The line and those after it that are indented deeper."""
    depth = _depth(lines[index])
    last = index + 1
    while last < len(lines) and (not lines[last].strip() or _depth(lines[last]) > depth):
        last += 1
    return range(index, last)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _begins_part(line: str) -> bool:
    return line[:1] not in ("", " ", "\t", "#", "-", "]", "}")


def _mark(error: yaml.MarkedYAMLError) -> yaml.Mark | None:
    """The place to show: where a quote or bracket was opened rather than where it was missed."""
    opened = (error.context or "").startswith(("while scanning", "while parsing a flow"))
    return error.context_mark if opened and error.context_mark else error.problem_mark


def _index(mark: yaml.Mark | None, lines: list[str]) -> int:
    index = min(mark.line if mark else 0, len(lines) - 1)
    while index > 0 and not lines[index].strip():  # the end of the text: its last line
        index -= 1
    return index


def _tab(indexes: list[int]) -> Unreadable:
    shown = ", ".join(str(i + 1) for i in indexes[:5]) + (", …" if len(indexes) > 5 else "")
    what = tr("a tab is used as a space (line {lines}); YAML does not allow it.")
    cure = tr("Replace each tab by two spaces.")
    return Unreadable(indexes[0] + 1, what.format(lines=shown), cure, indexes)


def _misspelt_colon(lines: list[str], index: int, said: str) -> Unreadable | None:
    """A wide colon, one without a space, or none, in this line or the one before it."""
    before = next((i for i in range(index - 1, -1, -1) if lines[i].strip()), index)
    for i in (index, before):
        found = None if _NAME.match(lines[i]) else colon_problem(lines[i])
        if found:
            return Unreadable(i + 1, *found)
    bare = _BARE_NAME.fullmatch(lines[before]) and _depth(lines[before]) == _depth(lines[index])
    if bare and "mapping values are not allowed" in said:
        what, cure = _NO_COLON
        return Unreadable(before + 1, tr(what), tr(cure))
    return None


def colon_problem(text: str) -> tuple[str, str] | None:
    """(what is wrong, the cure) where `text` was meant as "name: value" and its colon is not one."""
    if _WIDE_COLON.match(text):
        before, _, after = text.strip().partition("：")
        what = tr("the colon is the wide one of Chinese text (：).")
    elif found := _NO_SPACE.match(text):
        before, after = found.groups()
        what = tr("a space is missing after the colon.")
    else:
        return None
    # Several such lines come as one text; each colon of them is mended.
    after = re.sub(r"(\s)([A-Za-z_]\w*)[:：]\s*", r"\1 \2: ", after)
    fixed = shortened(f"{before.strip()}: {after.strip()}".strip())
    return what, tr("Write: {fixed}").format(fixed=fixed)


def _by_message(said: str, line: str, column: int) -> tuple[str, str]:
    """(what, the cure) of PyYAML's message about `line`. `column` counts from 0."""
    for signs, what, cure in _MESSAGES:
        if all(sign in said for sign in signs):
            return tr(what), tr(cure) if cure else _in_quotes(line)
    if "mapping values are not allowed" in said and _TWO_COLONS.match(line):
        return tr("the value has a colon followed by a space in it."), _in_quotes(line)
    if "mapping values are not allowed" in said:
        return tr("this line is indented deeper than the one before it allows."), tr(_INDENT)
    if "<block end>" in said and line[:column].strip():
        return (
            tr("something follows a closing quote or bracket."),
            tr("Put the whole value in one pair of quotes."),
        )
    if "<block end>" in said:
        return tr("the indentation agrees with no line above."), tr(_INDENT)
    return (
        tr("this cannot be read as YAML."),
        tr('Compare it with the lines around it, and put text with special signs in quotes ("…").'),
    )


def _in_quotes(line: str) -> str:
    name, colon, value = line.strip().partition(": ")
    if not colon or '"' in value or not value:
        name, value = tr("name"), tr("value")
    cure = tr("Put the value in quotes: {fixed}")
    return cure.format(fixed=shortened(f'{name}: "{value.strip()}"'))
