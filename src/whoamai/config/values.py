"""Values judged by the schema, in plain words: what was given, what is expected, what to write.

pydantic finds what is wrong; its messages are not shown. One wrong value is one problem, also where the
schema allows several types and pydantic complains of each.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from whoamai.config.names import Path, alternatives, nearest_of, sections
from whoamai.config.problems import Place, Problems, shortened
from whoamai.config.schema import RunConfig
from whoamai.config.yaml_lines import Entries, Items, Node, Refused, Scalar, bare_value
from whoamai.messages import tr

# Words for a choice that come from other trainers.
_CHOICES_ELSEWHERE = {
    "bf16": "bfloat16",
    "torch.bfloat16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "torch.float16": "float16",
    "fp32": "float32",
    "float": "float32",
    "torch.float32": "float32",
    "4bit": "nf4",
    "int4": "nf4",
    "bnb": "nf4",
    "qlora": "nf4",
    "all": "all-linear",
}
_YES = {"yes", "y", "on", "true", "1", "是"}
_NO = {"no", "n", "off", "false", "0", "否"}
_RANGE_ERRORS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


@dataclass(frozen=True, slots=True)
class Given:
    """A value and where it was written."""

    node: Node
    place: Place


def plain(node: Node) -> Any:
    """A node as Python values."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    if isinstance(node, Entries):
        return {str(key.value): plain(value) for key, value in node.entries}
    return None


def check_values(given: Mapping[Path, Given], problems: Problems) -> RunConfig | None:
    """The config these values make, or None where a problem was added.

    A wrong value hides nothing: it is taken out and the rest judged again, because what is judged of
    several values together is judged only where each of them is right.
    """
    left = {path: one for path, one in given.items() if not isinstance(one.node, Refused)}
    complete = len(left) == len(given)
    while True:
        try:
            config = RunConfig.model_validate(_nested(left))
        except ValidationError as error:
            complete = False
            wrong = _tell(error, left, problems)
            for path in wrong:
                left.pop(path, None)
            if not wrong:  # a validator whose text names no setting: ours to mend
                raise
        else:
            return config if complete else None


def _nested(given: Mapping[Path, Given]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path, one in given.items():
        if len(path) == 1:
            values.setdefault(path[0], plain(one.node))
        else:
            section = values.get(path[0])
            if not isinstance(section, dict):
                section = values[path[0]] = {}
            section[path[1]] = plain(one.node)
    return values


def _tell(error: ValidationError, given: Mapping[Path, Given], problems: Problems) -> set[Path]:
    """Add the problems; returns the settings they are of."""
    by_setting: dict[Path, list[Any]] = {}
    wrong: set[Path] = set()
    for found in error.errors(include_url=False):
        loc = found["loc"]
        if found["type"] == "value_error" and len(loc) < 2:
            wrong |= _tell_contradiction(
                loc, str(found.get("ctx", {}).get("error")), given, problems
            )
        else:
            size = 2 if loc[0] in sections() else 1
            by_setting.setdefault(tuple(map(str, loc[:size])), []).append(found)
    for path, errors in by_setting.items():
        if path in given:
            _tell_value(path, given[path], errors, problems)
            wrong.add(path)
    return wrong


def _tell_contradiction(
    loc: tuple[Any, ...], text: str, given: Mapping[Path, Given], problems: Problems
) -> set[Path]:
    """A validator's text names the settings it is about; those that were given are told as its place."""
    names = re.findall(r"[a-z_]+(?:\.[a-z_]+)?", text)
    paths = [(*map(str, loc), *name.split(".")) for name in names]
    about = list(dict.fromkeys(path for path in paths if path in given))
    if not about:
        return set()
    first, *others = about
    also = "".join(f" ({given[path].place})" for path in others)
    key = ".".join(first)
    # The key stands before it already; but in "betas 的两个数" (the two of betas) it has to stay.
    named = rf"^({re.escape(key)}|{re.escape(first[-1])})[\s:：]+(?!的)"
    what = re.sub(named, "", tr(text))
    problems.add(given[first].place, f"{what}{also}", key=key)
    return set(about)


def _tell_value(path: Path, given: Given, errors: list[Any], problems: Problems) -> None:
    field = _field(path)
    node, key = given.node, ".".join(path)
    items = sorted(
        {part for e in errors for part in e["loc"][len(path) :] if isinstance(part, int)}
    )
    if isinstance(node, Items) and items and all(i < len(node.items) for i in items):
        for i in items:
            item = node.items[i]
            place = given.place if given.place.line is None else Place(problems.file, item.line)
            what, cure = _wrong_item(field, item)
            cure = cure or tr("Correct it, or take it out of the list.")
            what = tr("item {n}: {what}").format(n=i + 1, what=what)
            problems.add(place, what, cure, key=key)
        return
    kinds = {e["type"] for e in errors}
    if kinds & _RANGE_ERRORS or "finite_number" in kinds:
        what, cure = _out_of_range(field, node)
    elif "string_pattern_mismatch" in kinds:
        what = tr("{found} is not one of the forms it has.").format(found=_found(node))
        cure = tr(str(field.description))
    elif "string_too_short" in kinds:
        what, cure = tr("the text is empty."), _default(field)
    else:
        what, cure = _wrong(field.annotation, node)
        cure = cure or _default(field)
    problems.add(given.place, what, cure, key=key)


def _field(path: Path) -> FieldInfo:
    if len(path) == 1:
        return RunConfig.model_fields[path[0]]
    return sections()[path[0]].model_fields[path[1]]


def _wrong_item(field: FieldInfo, item: Node) -> tuple[str, str]:
    for one in alternatives(field.annotation):
        if get_origin(one) is list or get_origin(one) is tuple:
            return _wrong(get_args(one)[0], item)
    return _wrong(field.annotation, item)


def _wrong(annotation: Any, node: Node) -> tuple[str, str]:
    """(what is expected and what was found, the cure or "")."""
    kinds = [one for one in alternatives(annotation) if one is not NoneType]
    choices = _choices(kinds)
    if choices and isinstance(plain(node), str) and len(choices) > 1:
        word = shortened(str(plain(node)))
        return tr("{word} is none of its choices.").format(word=word), _choice_cure(word, choices)
    what = tr("expected {expected}, found {found}.").format(
        expected=tr(" or ").join(map(_expected, kinds)), found=_found(node)
    )
    return what, _cure(kinds, node)


def _choices(kinds: Iterable[Any]) -> list[str]:
    return [str(c) for kind in kinds if get_origin(kind) is Literal for c in get_args(kind)]


def _choice_cure(word: str, choices: list[str]) -> str:
    meant = _CHOICES_ELSEWHERE.get(word.lower())
    if meant in choices:
        return tr("Write {better}").format(better=meant)
    there = tr("There are: {names}.").format(names=", ".join(choices))
    return f"{nearest_of(word, choices)} {there}".strip()


def _expected(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return tr(" or ").join(map(str, get_args(kind)))
    if origin is tuple:
        return tr("a list of {n} numbers").format(n=len(get_args(kind)))
    if origin is list:
        inner = get_args(kind)[0]
        return tr("a list of texts") if inner is str else tr("a list")
    if origin is not None:  # Annotated
        return _expected(get_args(kind)[0])
    names = {
        str: tr("text"),
        int: tr("a whole number"),
        float: tr("a number"),
        bool: tr("true or false"),
    }
    return names[kind]


def _found(node: Node) -> str:
    if isinstance(node, Items):
        return tr("a list of {n}").format(n=len(node.items))
    if not isinstance(node, Scalar):
        return tr("a name with a value (name: value)")
    value = node.value
    if value is None:
        return tr("nothing (null)")
    if isinstance(value, bool):
        return node.text
    if isinstance(value, str):
        return tr("the text {text}").format(text=_quoted(value))
    return tr("the number {number}").format(number=shortened(node.text))


def _cure(kinds: list[Any], node: Node) -> str:
    """What to write instead, where that can be told; else ""."""
    types = [
        get_args(k)[0] if get_origin(k) not in (None, Literal, list, tuple) else k for k in kinds
    ]
    if isinstance(node, Entries):
        better = ": ".join(map(_text_of, node.entries[0])) if node.entries else "…: …"
        return tr("Text with a colon followed by a space in it goes in quotes: {better}").format(
            better=_quoted(better)
        )
    if not isinstance(node, Scalar) or node.value is None:
        return ""
    text = str(node.value) if isinstance(node.value, str) else node.text
    better = None
    if bool in types:
        better = "true" if text.lower() in _YES else "false" if text.lower() in _NO else None
    if better is None and (float in types or int in types):
        better = _as_number(text, whole=float not in types)
    if better is not None:
        bare = tr("Write {better}") if node.plain else tr("Write {better} without quotes.")
        return bare.format(better=better)
    if str in types and not isinstance(node.value, str):
        return tr("If text is meant, put it in quotes: {better}").format(better=_quoted(text))
    if any(get_origin(k) is list for k in kinds):
        if text.startswith("-") and node.plain:
            return tr("Write a space after each -, and each in a line of its own.")
        return tr("Write a list: {better}").format(better=f"[{_quoted(text)}]")
    return ""


def _text_of(node: Node) -> str:
    return node.text if isinstance(node, Scalar) else "…"


def _as_number(text: str, *, whole: bool) -> str | None:
    """The number that was meant by "1,000", "1_000", "'3'" or "2.0"; None where there is none."""
    number = bare_value(re.sub(r"[\s,_'\"，]", "", text))
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    if not math.isfinite(number):
        return None
    if whole and isinstance(number, float):
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else None
    return str(number)


def _out_of_range(field: FieldInfo, node: Node) -> tuple[str, str]:
    words = {
        "gt": tr("above {limit}"),
        "ge": tr("at least {limit}"),
        "lt": tr("below {limit}"),
        "le": tr("at most {limit}"),
    }
    limits = [
        text.format(limit=f"{int(limit):,}" if limit == int(limit) else limit)
        for name, text in words.items()
        for m in field.metadata
        if (limit := getattr(m, name, None)) is not None
    ]
    wanted = tr(" and ").join(limits) or tr("a number")
    what = tr("{value} is out of range: it must be {wanted}.")
    value = shortened(node.text) if isinstance(node, Scalar) else _found(node)
    return what.format(value=value, wanted=wanted), _default(field)


def _default(field: FieldInfo) -> str:
    if field.default in (None, []):
        return tr("Leave it out if there is none.")
    text = tr("Left out, it is {default}.")
    return text.format(default=json.dumps(field.default, ensure_ascii=False).strip('"'))


def _quoted(text: str) -> str:
    return '"' + shortened(text.replace('"', "'")) + '"'
