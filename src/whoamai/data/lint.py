"""What is wrong with a data file, found in one pass: findings by kind, with rows, examples, the cure.

Nothing is held of a row but its hash (16 bytes with its number, to find duplicates) and counts, so
millions of rows can be checked. What the kinds mean is in data/lint_kinds.py.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whoamai.data.claims import claimed_names, name_pattern
from whoamai.data.formats import Reading, read_row
from whoamai.data.identity import known_assistants
from whoamai.data.lint_kinds import Severity, kind, kind_names
from whoamai.data.readers import flaw_text, without_repeated_systems
from whoamai.data.sources import (
    RawRow,
    Source,
    begins_with_mark,
    find_sources,
    progress_over,
    read_rows,
)
from whoamai.errors import SettingError
from whoamai.messages import tr
from whoamai.samples import Conversation, Message

_SHOWN_EXAMPLES = 3
_SHOWN_NAMES = 8
_EXCERPT = 160
# Texts counted one by one before only those already known are counted on: what is frequent comes early.
_MOST_COUNTED = 50_000
_MOST_CLAIMED = 1000  # names the first example of each of which is kept
# A question on more than this share of the rows (and at least so many of them) is no coincidence.
_SAME_SHARE, _SAME_ROWS = 0.2, 10
_CLAIM_SHARE = 0.01  # of the replies must claim a name before it counts as one the data gives

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MARK_OF_ORDER = re.compile("\ufeff")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_BRACES = re.compile(r"\{\{([^{}\n]{1,60})\}\}")
_SPECIAL = re.compile(
    r"<\|[A-Za-z_0-9]{2,24}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|\[gMASK\]|<(?:pad|unk|bos|eos)>|<(?:User|Bot|eoh|eoa)>"
)
_PLACEHOLDER = re.compile(
    r"(?:x{2,}|\.{2,}|…+|\?{2,}|？{2,}|_{2,}|-{2,}|\*{2,}|#{2,}"
    r"|(?-i:TODO|TBD|FIXME)\b.*|(?:todo|tbd|fixme|placeholder)\s*(?:[:：\[(].*)?|lorem ipsum\b.*"
    r"|待补充|待填写?|待定|此处填写.*|\[?(?:your|insert) (?:answer|question|text|name)(?: here)?\]?)",
    re.I | re.S,
)
_LONGEST_PLACEHOLDER = 60
# Problems that leave a text out of the messages; where a reply stands that is no question.
_UNREAD = frozenset(("unknown-form", "no-turns", "not-text", "unknown-role", "half-character"))
_NO_QUESTION = ("system", "output", "response", "completion", "answer")
_CHINESE = re.compile("[\u3400-\u9fff]")
_LATIN_WORD = re.compile(r"[A-Za-z]{2,}")


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What the check is told: `None` or empty means not asked for.

    `measure` gives a row's length in tokens, as the model will see it; without it tokens are estimated.
    """

    name: str | None = None
    author: str | None = None
    old_names: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    max_length: int | None = None
    measure: Callable[[Conversation], int] | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One place where a defect was found."""

    where: str
    field: str
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of defect: how many rows have it, the first of them, and what to do."""

    kind: str
    severity: Severity
    count: int
    title: str
    cure: str
    detail: str
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What one pass over the files found; findings that block come first, then by count."""

    files: tuple[str, ...]
    rows: int
    usable: int
    forms: Mapping[str, int]
    tokens: int
    tokens_are_exact: bool
    findings: tuple[Finding, ...]

    def blocking(self, allow: Sequence[str] = ()) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "blocks" and f.kind not in allow)

    def as_json(self) -> dict[str, Any]:
        return {
            "format": 1,
            "files": list(self.files),
            "rows": self.rows,
            "usable": self.usable,
            "forms": dict(self.forms),
            "tokens": self.tokens,
            "tokens_are_exact": self.tokens_are_exact,
            "blocks": bool(self.blocking()),
            "findings": [
                {
                    "kind": f.kind,
                    "severity": f.severity,
                    "count": f.count,
                    "title": f.title,
                    "cure": f.cure,
                    "detail": f.detail,
                    "examples": [
                        {"where": e.where, "field": e.field, "text": e.text} for e in f.examples
                    ],
                }
                for f in self.findings
            ],
        }


def check(
    given: Sequence[str | Path] | str | Path,
    options: CheckOptions | None = None,
    *,
    on_bytes: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Check every row of the files that `given` names; `on_bytes(done, all)` is told the progress.

    Raises DataError only where a file cannot be opened at all.
    """
    sources = find_sources(given)
    checker = _Checker(options or CheckOptions(), sources)
    paths = [source.path for source in sources]
    for number, (path, tell) in enumerate(progress_over(paths, on_bytes)):
        if begins_with_mark(path):
            checker.add("byte-order-mark", Example(path.name, "", ""))
        for raw in read_rows(path, tell):
            checker.row(number, raw)
    return checker.report()


def check_kinds(allow: Sequence[str]) -> None:
    """Raise SettingError for a kind in `allow` that does not exist."""
    unknown = [name for name in allow if name not in kind_names()]
    if unknown:
        raise SettingError(
            tr("--allow {given}: there is no such finding. Known are {known}.").format(
                given=", ".join(unknown), known=", ".join(kind_names())
            )
        )


def estimated_tokens(text: str) -> int:
    """About 0.65 tokens for a character beyond ASCII, a quarter for one in it.

    These are the shares of a large bilingual vocabulary (Qwen's, InternLM2's); a model's own tokenizer
    counts exactly.
    """
    if text.isascii():
        return len(text) // 4 + 1
    wide = sum(1 for c in text if c > "\x7f") if len(text) < 64 else _wide(text)
    return round(0.65 * wide + 0.25 * (len(text) - wide)) + 1


def _wide(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))


def strings_in(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(place, text) of every text inside a JSON value, at any depth that JSON can be read from."""
    stack = [(place, value)]
    while stack:
        at, item = stack.pop()
        if isinstance(item, str):
            yield at, item
        elif isinstance(item, Mapping):
            stack += [(f"{at}.{k}" if at else str(k), v) for k, v in reversed(list(item.items()))]
        elif isinstance(item, list):
            stack += [(f"{at}[{i}]", v) for i, v in reversed(list(enumerate(item)))]


def is_placeholder(text: str) -> bool:
    """Is this a text that stands for one still to be written?"""
    if len(text) > _LONGEST_PLACEHOLDER:
        return False
    return _PLACEHOLDER.fullmatch(text.strip()) is not None


def blocking_defects(text: str, options: CheckOptions) -> Iterator[tuple[str, int]]:
    """(kind, place) of what in a text alone keeps its row from being trained on."""
    return (found for found in _defects(text, options) if kind(found[0]).severity == "blocks")


def without_marks(text: str) -> tuple[str, list[str]]:
    """(the text without characters and tokens that never belong in one, the kinds of what was there)."""
    kinds = []
    for name, pattern in (
        ("byte-order-mark", _MARK_OF_ORDER),
        ("control-character", _CONTROL),
        ("half-character", _HALF_CHARACTER),
        ("special-token", _SPECIAL),
    ):
        cleaned = _without(pattern, text)
        if cleaned != text:
            kinds.append(name)
            text = cleaned.strip() if name == "special-token" else cleaned
    return text, kinds


def _without(pattern: re.Pattern[str], text: str) -> str:
    """`text` without what the pattern finds, also in what is left: <|im<|im_end|>_end|> goes whole."""
    while (cleaned := pattern.sub("", text)) != text:
        text = cleaned
    return text


def excerpt(text: str, around: int = 0) -> str:
    """At most 160 characters on one line, from shortly before the place `around`."""
    start = max(0, around - _EXCERPT // 4)
    piece = text[start : start + _EXCERPT]
    shown = "".join(c if c.isprintable() else "␣" if c.isspace() else "�" for c in piece)
    return ("…" if start else "") + shown + ("…" if start + _EXCERPT < len(text) else "")


# ---- one pass ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    count: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(slots=True)
class _Frequent:
    """Counts of things; after the first 50,000 different ones only those are counted on."""

    counts: Counter[Any] = field(default_factory=Counter)

    def add(self, thing: Hashable) -> None:
        if thing in self.counts or len(self.counts) < _MOST_COUNTED:
            self.counts[thing] += 1


class _Checker:
    """Takes row after row; `report()` says what was found."""

    def __init__(self, options: CheckOptions, sources: Sequence[Source]) -> None:
        self._options = options
        self._files = [s.path.name for s in sources]
        self._tallies: dict[str, _Tally] = {}
        self._forms: Counter[str] = Counter()
        self._rows = self._usable = self._tokens = 0
        self._hashes, self._places = array("q"), array("Q")
        # Of each row once: system prompts, questions, and the names its replies claim (as a tuple).
        self._systems, self._questions, self._claims = _Frequent(), _Frequent(), _Frequent()
        self._claimed: dict[str, Example] = {}
        self._replies = 0
        self._costs: Counter[str] = Counter()  # tokens by kind
        self._named: Counter[str] = Counter()
        own = {n.casefold() for n in (options.name, options.author) if n}
        assistants = [n for n in known_assistants()[0] if n.casefold() not in own]
        self._assistants = {n.lower(): (n, name_pattern(n)) for n in assistants}

    def add(self, name: str, example: Example) -> None:
        """One more row with a defect of this kind."""
        tally = self._tallies.setdefault(name, _Tally())
        tally.count += 1
        if len(tally.examples) < _SHOWN_EXAMPLES:
            tally.examples.append(example)

    def row(self, file: int, raw: RawRow) -> None:
        self._rows += 1
        where = f"{self._files[file]}:{raw.number}"
        found: dict[str, Example] = {}
        if raw.flaw:
            found[raw.flaw.kind.replace("_", "-")] = Example(where, "", excerpt(flaw_text(raw)))
        if raw.value is not None or raw.flaw is None:
            self._read(read_row(raw.value), where, found, file << 40 | raw.number)
        for name, example in found.items():
            self.add(name, example)

    def _read(self, reading: Reading, where: str, found: dict[str, Example], place: int) -> None:
        self._forms[reading.form or "-"] += 1
        for problem in reading.problems:
            if problem.kind == "half-character" and "broken-utf8" in found:
                continue  # the same bytes, told already
            if problem.kind == "nested-object":
                self._nested(reading, problem.field, problem.value, where, found)
                continue
            shown = excerpt(problem.text + _value_shown(problem.value))
            found.setdefault(problem.kind, Example(where, problem.field, shown))
        self._texts(reading.messages, where, found)
        if any(p.kind in _UNREAD or p.kind == "nested-object" for p in reading.problems):
            found.pop("empty-question", None)  # empty because it could not be read
        self._count(reading, place)
        if reading.problems:
            return
        self._usable += 1
        if self._options.measure:
            self._measured(reading, where, found)

    def _nested(
        self, reading: Reading, place: str, value: Any, where: str, found: dict[str, Example]
    ) -> None:
        """An object where text belongs: what a tool that writes it as text would cost and teach."""
        naive = str(value)  # what Python's formatting makes of it, and XTuner with it
        tokens = estimated_tokens(naive)
        text = tr("as text: {value}").format(value=excerpt(naive))
        found.setdefault("nested-object", Example(where, place, text))
        self._costs["nested-object"] += tokens
        self._tokens += tokens
        if place.rpartition(".")[2] not in _NO_QUESTION:
            self._questions.add(naive)
        systems = {m.text for m in reading.messages if m.role == "system"}
        for at, text in strings_in(value, place):
            if text in systems:
                found.setdefault("doubled-system", Example(where, excerpt(at), excerpt(text)))
                self._costs["doubled-system"] += estimated_tokens(text)
            elif is_placeholder(text):
                found.setdefault("placeholder", Example(where, excerpt(at), excerpt(text)))

    def _texts(self, messages: Sequence[Message], where: str, found: dict[str, Example]) -> None:
        options = self._options
        system = ""
        systems: dict[str, None] = {}  # of this row, each once
        questions: dict[str, None] = {}
        claims: dict[str, None] = {}
        for message in messages:
            text = message.text
            if message.role == "system":
                systems[system := text] = None
            elif message.role == "user":
                questions[text] = None
                self._question(text, system, where, found)
            else:
                claims |= self._reply(text, where, found)
            for name, at in _defects(text, options):
                found.setdefault(name, Example(where, message.role, excerpt(text, at)))
            for old in options.old_names:
                if (at := text.find(old)) >= 0:
                    found.setdefault(
                        "old-name-left", Example(where, message.role, excerpt(text, at))
                    )
                    self._named[old] += text.count(old)
        for text in systems:
            self._systems.add(text)
        for text in questions:
            if text and not text.isspace():
                self._questions.add(text)
        if claims:
            self._claims.add(tuple(claims))

    def _question(self, text: str, system: str, where: str, found: dict[str, Example]) -> None:
        if not text or text.isspace():
            found.setdefault("empty-question", Example(where, "user", ""))
            return
        if len(system) > 20 and system in text:
            found.setdefault("doubled-system", Example(where, "user", excerpt(system)))
            self._costs["doubled-system"] += estimated_tokens(system)

    def _reply(self, text: str, where: str, found: dict[str, Example]) -> dict[str, None]:
        """What is to be seen in a reply; gives the names it claims, in the order of the alphabet."""
        self._replies += 1
        low = text.lower()
        for lowered, (name, pattern) in self._assistants.items():
            if lowered in low and (match := pattern.search(text)):
                if name not in self._options.old_names:  # those are counted by themselves
                    self._named[name] += 1
                example = Example(where, "assistant", excerpt(text, match.start()))
                found.setdefault("old-name", example)
        claims: dict[str, None] = {}
        if "我" in text or "I" in text or "my name" in text:
            claims = dict.fromkeys(sorted(claimed_names(text)))
            for name in claims:
                if len(self._claimed) < _MOST_CLAIMED:
                    example = Example(where, "assistant", excerpt(text, text.find(name)))
                    self._claimed.setdefault(name, example)
        wanted = self._options.languages
        if wanted and (code := _language(text)) and code not in wanted:
            found.setdefault("other-language", Example(where, "assistant", excerpt(text)))
        return claims

    def _count(self, reading: Reading, place: int) -> None:
        """The row's hash and its tokens."""
        texts = [m.text for m in reading.messages]
        nested = [str(p.value) for p in reading.problems if p.kind == "nested-object"]
        # Python's own string hash: 64 bits, another key in each process; 8 bytes, and 8 for the place.
        if not any(p.kind in _UNREAD for p in reading.problems):
            self._hashes.append(hash("\x1e".join(texts + nested)))
            self._places.append(place)
        if not self._options.measure:
            self._tokens += sum(map(estimated_tokens, texts))

    def _measured(self, reading: Reading, where: str, found: dict[str, Example]) -> None:
        assert self._options.measure
        messages = without_repeated_systems(reading.messages)
        length = self._options.measure(Conversation(messages, where))
        self._tokens += length
        if self._options.max_length and length > self._options.max_length:
            text = tr("{n} tokens").format(n=length)
            found.setdefault("too-long", Example(where, "", text))

    # ---- the rows together ----

    def report(self) -> CheckReport:
        self._duplicates()
        details = {
            **self._system_detail(),
            **self._question_detail(),
            **self._name_details(),
            **self._cost_details(),
        }
        findings = [
            Finding(
                name,
                (known := kind(name)).severity,
                tally.count,
                known.title,
                known.cure,
                details.get(name, ""),
                tuple(tally.examples),
            )
            for name, tally in self._tallies.items()
        ]
        order = {"blocks": 0, "warns": 1, "notes": 2}
        findings.sort(key=lambda f: (order[f.severity], -f.count))
        return CheckReport(
            tuple(self._files),
            self._rows,
            self._usable,
            dict(self._forms.most_common()),
            self._tokens,
            self._options.measure is not None,
            tuple(findings),
        )

    def _where(self, place: int) -> str:
        return f"{self._files[place >> 40]}:{place & (1 << 40) - 1}"

    def _duplicates(self) -> None:
        """Rows whose hash came before. [5, 9, 5, 5] has the duplicates 2 and 3, of row 0."""
        import numpy as np

        if not self._hashes:
            return
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1]) + 1
        if not len(again):
            return
        rows = np.sort(order[again])
        tally = self._tallies.setdefault("duplicate-row", _Tally())
        tally.count = len(rows)
        for row in rows[:_SHOWN_EXAMPLES]:
            first = order[np.searchsorted(hashes[order], hashes[row])]
            text = tr("the same as {first}").format(first=self._where(self._places[int(first)]))
            tally.examples.append(Example(self._where(self._places[int(row)]), "", text))

    def _system_detail(self) -> dict[str, str]:
        counts = self._systems.counts
        repeated = {text: n for text, n in counts.items() if n > 1}
        if not repeated:
            return {}
        text, n = max(repeated.items(), key=lambda item: item[1])
        tally = self._tallies.setdefault("repeated-system", _Tally())
        tally.count = sum(repeated.values())
        tally.examples.append(Example(tr("{n} rows").format(n=n), "system", excerpt(text)))
        tokens = sum((n - 1) * estimated_tokens(text) for text, n in repeated.items())
        self._costs["repeated-system"] = tokens
        return {}

    def _question_detail(self) -> dict[str, str]:
        if not self._questions.counts:
            return {}
        text, n = self._questions.counts.most_common(1)[0]
        if n < max(_SAME_ROWS, _SAME_SHARE * self._rows):
            return {}
        tally = self._tallies.setdefault("same-question", _Tally())
        tally.count = n
        tally.examples.append(Example(tr("{n} rows").format(n=n), "user", excerpt(text)))
        return {}

    def _name_details(self) -> dict[str, str]:
        details = {}
        enough = max(2, _CLAIM_SHARE * self._replies)
        rows_of: Counter[str] = Counter()
        for names, n in self._claims.counts.items():
            rows_of.update(dict.fromkeys(names, n))
        claims = {name: n for name, n in rows_of.most_common(_SHOWN_NAMES) if n >= enough}
        if len(claims) > 1:
            tally = self._tallies.setdefault("two-names", _Tally())
            rows = (
                n for names, n in self._claims.counts.items() if not claims.keys().isdisjoint(names)
            )
            tally.count = sum(rows)
            tally.examples = [self._claimed[n] for n in claims if n in self._claimed]
            del tally.examples[_SHOWN_EXAMPLES:]
            details["two-names"] = ", ".join(f"{name} × {n}" for name, n in claims.items())
        old = self._options.old_names
        for name, wanted in (("old-name", False), ("old-name-left", True)):
            shown = [(n, c) for n, c in self._named.most_common() if (n in old) is wanted][
                :_SHOWN_NAMES
            ]
            details[name] = ", ".join(f"{n} × {c}" for n, c in shown)
        return details

    def _cost_details(self) -> dict[str, str]:
        details = {}
        for name, tokens in self._costs.items():
            share = 100 * tokens / max(1, self._tokens)
            text = tr("about {tokens:,} tokens, {share:.0f} % of all")
            details[name] = text.format(tokens=tokens, share=share)
        return details


def _defects(text: str, options: CheckOptions) -> Iterator[tuple[str, int]]:
    """(kind, place) of the defects a text can have by itself."""
    if "{{" in text:
        for match in _BRACES.finditer(text):
            inside = match[1].strip().lower()
            if inside in ("name", "author"):
                if not (options.name if inside == "name" else options.author):
                    yield "unfilled-name", match.start()
            else:
                yield "braces", match.start()
    if ("<" in text or "[" in text) and (match := _SPECIAL.search(text)):
        yield "special-token", match.start()
    if match := _CONTROL.search(text):
        yield "control-character", match.start()
    if (at := text.find("\ufeff")) >= 0:
        yield "byte-order-mark", at
    if len(text) <= _LONGEST_PLACEHOLDER and text and is_placeholder(text):
        yield "placeholder", 0


def _value_shown(value: Any) -> str:
    """What was found where text belongs, as JSON."""
    if value is None:
        return ""
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)[:400]
    return f": {shown}"


def _language(text: str) -> str | None:
    """ "zh", "en", or None where a text has no words of either."""
    if not text.isascii() and _CHINESE.search(text):
        return "zh"
    return "en" if _LATIN_WORD.search(text) else None
