"""Overrides from the command line: section.key=value.

The value is what it would be in the file. Without a bracket or quote at its beginning it is taken as it
stands, so that *.jsonl, FILE#500 and text with colons need no quotes beyond those of the shell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whoamai.config import names
from whoamai.config.problems import Place, Problems, shortened
from whoamai.config.values import Given
from whoamai.config.yaml_lines import (
    Entries,
    Node,
    Refused,
    Scalar,
    bare_value,
    can_be_written,
    read_yaml,
)
from whoamai.messages import tr


def read_overrides(
    overrides: Sequence[str], given: Mapping[names.Path, Given], problems: Problems
) -> dict[names.Path, Given]:
    """`given` with the overrides put over it, in their order. What is wrong is added to `problems`."""
    result = dict(given)
    for override in overrides:
        place = Place(shortened(override, 200))
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals:
            what = tr("an override has no =.")
            problems.add(place, what, tr("Write it as section.key=value: train.lr=1e-4"))
            continue
        path = tuple(key.split("."))
        if not names.is_setting(path):
            unknown = _explain(path, text)
            problems.add(place, tr("unknown setting."), unknown.cure, key=shortened(key))
            path = unknown.meant
        if path:
            _put(path, Given(_value(text.strip(), place, problems), place), result, problems)
    return result


def _explain(path: names.Path, text: str) -> names.Unknown:
    """What to do about an override of `path`, which is no setting."""
    key = path[-1]
    if len(path) == 1:
        owners = [
            (section, key) for section in names.sections() if names.is_setting((section, key))
        ]
        if owners:
            return names.Unknown(_written(owners, text), owners[0] if len(owners) == 1 else None)
        unknown = names.explain_unknown(None, key)
    elif path[0] in names.sections():
        unknown = names.explain_unknown(path[0], ".".join(path[1:]))
    else:
        unknown = names.explain_unknown(None, path[0], is_group=True)
        meant = (*(unknown.meant or ()), *path[1:])
        unknown = names.Unknown(unknown.cure, meant if names.is_setting(meant) else None)
    if unknown.meant is None or unknown.meant[-1] in names.sections():
        return names.Unknown(unknown.cure)
    return names.Unknown(_written([unknown.meant], text), unknown.meant)


def _written(paths: Sequence[names.Path], text: str) -> str:
    wanted = [f"{'.'.join(path)}={shortened(text, 30)}" for path in paths]
    return tr("Write {better}").format(better=tr(" or ").join(wanted))


def _value(text: str, place: Place, problems: Problems) -> Node:
    if not can_be_written(text):  # bytes of the shell that are not UTF-8
        problems.add(place, tr("the value is not written in UTF-8."), tr("Type it again."))
        return Refused(1)
    if text[:1] not in ("[", "{", '"', "'"):
        return Scalar(bare_value(text), text, True, 1)
    found = Problems("")
    node = read_yaml(text, found).root
    for problem in found.found:
        problems.add(place, problem.what, problem.cure)
    return Refused(1) if found.found or node is None else node


def _put(path: names.Path, one: Given, result: dict[names.Path, Given], problems: Problems) -> None:
    section = path[0]
    if section not in names.sections():
        result[path] = one
    elif len(path) == 2:
        # lora.r=8 over lora: null asks for an adapter again.
        result.pop((section,), None)
        result[path] = one
    elif section == "lora" and isinstance(one.node, Scalar) and one.node.value is None:
        for other in [p for p in result if p[0] == section]:
            del result[other]
        result[path] = one
    else:
        key = names.settings_of(section)[0]
        if isinstance(one.node, Entries) and one.node.entries:
            key = str(one.node.entries[0][0].value)
        what = tr("a section is not set at once.")
        cure = tr("Set one of its settings: {example}=…").format(example=f"{section}.{key}")
        problems.add(one.place, what, cure, key=section)
