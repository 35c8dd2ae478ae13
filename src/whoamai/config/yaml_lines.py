"""YAML text as values that know their lines.

PyYAML cuts the text into events; what a bare word means is decided here, by YAML 1.2's core schema
(https://yaml.org/spec/1.2.2/#103-core-schema): 2e-4 is a number, `on`, `off`, `yes` and `no` are text,
010 is ten, and nothing is a date. What a config has no use for is refused: anchors, aliases and merge
keys (and with them loops and texts that unfold to gigabytes), tags, several documents.

One broken line does not hide what is wrong elsewhere: it is told, blanked out with what hangs below it,
and the text is read again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.reader import Reader

from whoamai.config.problems import Problems, shortened
from whoamai.config.yaml_errors import Unreadable, explain, part_of, with_what_hangs_below
from whoamai.messages import tr

_MOST_UNREADABLE = 30
_DEEPEST = 16

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_LONGEST_NUMBER = 400  # digits; Python refuses to read integers of some thousands


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value. `plain`: written without quotes."""

    value: str | int | float | bool | None
    text: str
    plain: bool
    line: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Entries:
    """Keys with values, in the order of the file; a key may come twice, which has been told."""

    line: int
    entries: list[tuple[Scalar, Node]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Refused:
    """A value that was told as a problem and is not looked at further."""

    line: int


Node = Scalar | Items | Entries | Refused


@dataclass(frozen=True, slots=True)
class YamlText:
    """root: None for an empty text. complete: nothing was unreadable."""

    root: Node | None
    complete: bool


def bare_value(text: str) -> str | int | float | bool | None:
    """What `text` means where it stands without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= _LONGEST_NUMBER:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def can_be_written(text: str) -> bool:
    """Whether a file in UTF-8 or the name of a file can hold it: no half characters, no NUL."""
    return not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def read_yaml(text: str, problems: Problems) -> YamlText:
    """The one document of `text`. What is wrong with it as YAML is added to `problems`."""
    text = _printable(text.replace("\r\n", "\n").replace("\r", "\n"), problems)
    lines = text.split("\n")
    blanked: set[int] = set()
    for _ in range(_MOST_UNREADABLE):
        attempt = Problems(problems.file)
        try:
            root = _Builder(lines, blanked, attempt).root()
        except Unreadable as found:
            problems.at_line(found.line, found.what, found.cure)
            broken = _to_blank(found, lines)
            if not broken:
                break
            blanked.update(broken)
            for i in broken:
                lines[i] = ""
            continue
        problems.found.extend(attempt.found)
        return YamlText(root, not blanked)
    return YamlText(None, False)


def _to_blank(found: Unreadable, lines: list[str]) -> list[int]:
    """Which lines (from 0) hold what is unreadable; empty where all of them are blank already."""
    index = found.line - 1
    for broken in (found.broken or with_what_hangs_below(lines, index), part_of(lines, index)):
        if any(lines[i].strip() for i in broken):
            return list(broken)
    return []


def _printable(text: str, problems: Problems) -> str:
    """`text` with spaces for characters that YAML does not allow; a line with some is told once."""
    for number, line in enumerate(text.split("\n"), 1):
        if found := Reader.NON_PRINTABLE.search(line):
            what = tr("an invisible control character ({code}) is in this line.")
            problems.at_line(
                number,
                what.format(code=f"U+{ord(found.group()):04X}"),
                tr("Delete it and what is around it, and type that again."),
            )
    return Reader.NON_PRINTABLE.sub(" ", text)


@dataclass(slots=True)
class _Open:
    """A list or group whose end has not come yet."""

    node: Items | Entries
    key: Scalar | Refused | None = None  # the key that waits for its value
    seen: dict[str, int] = field(default_factory=dict)
    bad_key: bool = False


class _Builder:
    """Events to nodes, without recursion: no depth of nesting can exhaust Python's stack."""

    def __init__(self, lines: list[str], blanked: set[int], problems: Problems) -> None:
        self.lines = lines
        self.blanked = blanked
        self.problems = problems
        self.stack: list[_Open] = []
        self.result: Node | None = None
        self.last_line = 1

    def root(self) -> Node | None:
        """Raises Unreadable where the text is not YAML."""
        documents = 0
        for event in self._events():
            line = self.last_line = event.start_mark.line + 1
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.problems.at_line(
                        line,
                        tr("a second document begins here; a file is one config."),
                        tr("Delete the line with ---, or put the rest into a file of its own."),
                    )
                    break
            elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent | yaml.AliasEvent):
                self._begin(event, line)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
        return self.result

    def _events(self) -> Iterator[Any]:
        try:
            yield from yaml.parse("\n".join(self.lines), Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            raise explain(error, self.lines) from None
        except (yaml.YAMLError, ValueError, OverflowError, LookupError, AttributeError):
            # PyYAML's scanner stumbles over some escapes and directives, such as "\UFFFFFFFF".
            raise Unreadable(
                self.last_line,
                tr("this line or the next one cannot be read as YAML."),
                tr("Look for a % at the beginning of a line, or a \\ between double quotes."),
            ) from None

    def _begin(self, event: Any, line: int) -> None:
        self._refuse_anchor_and_tag(event, line)
        if isinstance(event, yaml.AliasEvent):
            self._place(Refused(line))
        elif isinstance(event, yaml.ScalarEvent):
            plain = event.style is None
            self._place(self._scalar(event.value, plain, line))
        else:
            if len(self.stack) >= _DEEPEST:
                raise Unreadable(
                    line,
                    tr("brackets or indentation are nested more than {n} deep.").format(n=_DEEPEST),
                    tr("A config is sections with settings: two levels."),
                )
            mapping = isinstance(event, yaml.MappingStartEvent)
            self.stack.append(_Open(Entries(line) if mapping else Items(line)))

    def _end(self) -> None:
        ended = self.stack.pop()
        # A value such as {{name}} was told already; a section is looked at all the same.
        told = ended.bad_key and len(self.stack) > 1
        self._place(Refused(ended.node.line) if told else ended.node)

    def _scalar(self, text: str, plain: bool, line: int) -> Scalar | Refused:
        if not can_be_written(text):  # from an escape such as "\ud83d" or "\0"
            self.problems.at_line(
                line,
                tr("an escape stands for half a character, or for none."),
                tr("Write the character itself."),
            )
            return Refused(line)
        if plain and not text and line in self.blanked:  # what stood below it was unreadable
            return Refused(line)
        return Scalar(bare_value(text) if plain else text, text, plain, line)

    def _refuse_anchor_and_tag(self, event: Any, line: int) -> None:
        if isinstance(event, yaml.AliasEvent):
            what = tr("*{name} stands for something written elsewhere; a config has no such thing.")
            cure = tr('Write the value out. Text that begins with * goes in quotes: "*{name}".')
        elif event.anchor:
            what = tr(
                "&{name} gives a value a name to be used elsewhere; a config has no such thing."
            )
            cure = tr('Take it away. Text that begins with & goes in quotes: "&{name}".')
        elif event.tag:
            what = tr("{name} is a YAML tag; a config has none.")
            cure = tr('Take it away. Text that begins with ! goes in quotes: "{name}".')
        else:
            return
        tag = (getattr(event, "tag", None) or "").replace("tag:yaml.org,2002:", "!!")
        name = shortened(event.anchor or tag)
        self.problems.at_line(line, what.format(name=name), cure.format(name=name))

    def _place(self, node: Node) -> None:
        """A complete node goes where it belongs: into the innermost open list or group."""
        if not self.stack:
            self.result = node
            return
        top = self.stack[-1]
        if isinstance(top.node, Items):
            top.node.items.append(node)
        elif top.key is None:
            top.key = self._checked_key(node, top)
            top.bad_key |= isinstance(top.key, Refused)
        else:
            if isinstance(top.key, Scalar):
                top.node.entries.append((top.key, node))
            top.key = None

    def _checked_key(self, node: Node, top: _Open) -> Scalar | Refused:
        if not isinstance(node, Scalar):
            if not isinstance(node, Refused):
                self.problems.at_line(
                    node.line,
                    tr("brackets stand where the name of a setting belongs."),
                    tr('Text that begins with { or [ goes in quotes: "{{name}}".'),
                    key=self._above(),
                )
            return Refused(node.line)
        if not isinstance(node.value, str):
            what = tr("{text} stands where the name of a setting belongs.")
            self.problems.at_line(
                node.line,
                what.format(text=shortened(node.text) or "null"),
                tr("Write the name of the setting, a colon and a space before its value."),
            )
            return Refused(node.line)
        if node.value == "<<" and node.plain:
            self.problems.at_line(
                node.line,
                tr("<< takes settings over from elsewhere; a config has no such thing."),
                tr("Write the settings out."),
            )
            return Refused(node.line)
        if node.value in top.seen:
            self._tell_twice(node, top.seen[node.value])
        else:
            top.seen[node.value] = node.line
        return node

    def _tell_twice(self, key: Scalar, first: int) -> None:
        name = f"{self._above()}.{key.text}".removeprefix(".")
        what = tr("stands here a second time; the first is on line {first}.").format(first=first)
        cure = tr("Keep one of the two.")
        self.problems.at_line(key.line, what, cure, key=shortened(name))

    def _above(self) -> str:
        """The setting that is being written, without the innermost group: "data.name"."""
        keys = [o.key.text for o in self.stack[:-1] if isinstance(o.key, Scalar)]
        return shortened(".".join(keys))
