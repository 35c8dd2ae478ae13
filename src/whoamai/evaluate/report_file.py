"""report.json: a report written and read again.

Every field of `Report` stands under its own name, in JSON's own kinds: a share is {"k", "n",
"percent", "low", "high"}, a pair of keys "context/language", a number that is none null. Beside them
stand "format", "reached", "missed" and "scores", for those who only want to know how it went.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from whoamai.data.writers import complete_file
from whoamai.errors import DataError, WhoamaiError
from whoamai.evaluate.identity import Share
from whoamai.evaluate.report import Report, Score
from whoamai.messages import tr

FORMAT = 2
_T = TypeVar("_T")


def report_json(report: Report) -> dict[str, Any]:
    """The report as JSON: mappings, lists, texts, numbers, true, false and null."""
    return {
        "format": FORMAT,
        "reached": not report.missed,
        "missed": report.missed,
        "scores": {score.name: _score(score) for score in report.scores},
        **{f.name: _plain(getattr(report, f.name)) for f in fields(report)},
    }


def write_report(report: Report, path: Path) -> None:
    """Complete or not at all. Raises OutputError."""
    text = json.dumps(report_json(report), ensure_ascii=False, indent=1, allow_nan=False)
    with complete_file(path) as file:
        file.write((text + "\n").encode("utf-8"))


def read_report(path: Path) -> Report:
    """Read report.json. Raises DataError where it is missing or no report."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        text = tr("{path} cannot be read: {reason}. Give the report.json of a renaming or a check.")
        raise DataError(text.format(path=path, reason=error.strerror or error)) from None
    except ValueError as error:  # no JSON, or not in UTF-8
        raise DataError(_no_report(path, error)) from None
    try:
        return report_from(found)
    except DataError as error:
        raise DataError(_no_report(path, error)) from None


def report_from(found: Any) -> Report:
    """The report that `found`, the content of a report.json, was made from. Raises DataError."""
    if not isinstance(found, Mapping) or "format" not in found:
        raise DataError(tr('"format" is missing'))
    if found["format"] != FORMAT:
        text = tr("it is of format {found}, and this version reads format {ours}")
        raise DataError(text.format(found=found["format"], ours=FORMAT))
    try:
        return _restored(Report, found, "")
    except WhoamaiError as error:
        raise DataError(str(error)) from None


def _no_report(path: Path, reason: object) -> str:
    text = tr("{path} is no report that can be read ({reason}). Make one anew with whoamai check.")
    return text.format(path=path, reason=reason)


# ---- to JSON -------------------------------------------------------------------------------------


def _score(score: Score) -> dict[str, Any]:
    return {
        **score.after.as_json(),
        "before": score.before and score.before.as_json(),
        "goal": None if score.goal is None else f"{score.sign} {score.goal:g}",
        "reached": score.reached,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Share):
        return value.as_json()
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {_key(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _key(key: Any) -> str:
    return "/".join(key) if isinstance(key, tuple) else str(key)


# ---- from JSON -----------------------------------------------------------------------------------


def _restored(wanted: Any, found: Any, where: str) -> Any:
    """`found` as the type `wanted` says; raises DataError that names the place where it is not so."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return found
    if origin in (Union, types.UnionType):
        if found is None and type(None) in inner:
            return None
        return _restored(next(t for t in inner if t is not type(None)), found, where)
    if isinstance(wanted, type) and is_dataclass(wanted):
        return _restored_dataclass(wanted, found, where)
    if origin is Literal:
        return _checked(found, found in inner, where)
    if origin is not None and issubclass(origin, Mapping):
        _checked(found, isinstance(found, Mapping), where)
        pairs = get_origin(inner[0]) is tuple
        return {
            tuple(key.rpartition("/")[::2]) if pairs else key: _restored(
                inner[1], item, f"{where}.{key}"
            )
            for key, item in found.items()
        }
    if origin is not None and issubclass(origin, Sequence):
        return _restored_sequence(origin, inner, found, where)
    if wanted is float:
        return math.nan if found is None else float(_checked(found, _is_number(found), where))
    if wanted is int:
        return _checked(found, _is_number(found) and isinstance(found, int), where)
    return _checked(found, isinstance(found, wanted), where)


def _restored_dataclass(wanted: type[_T], found: Any, where: str) -> _T:
    _checked(found, isinstance(found, Mapping), where)
    hints = get_type_hints(wanted, localns=_late_types() if wanted is Report else None)
    values = {}
    for field in fields(wanted):  # pyright: ignore[reportArgumentType]
        place = f"{where}.{field.name}".lstrip(".")
        if field.name in found:
            values[field.name] = _restored(hints[field.name], found[field.name], place)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise DataError(tr('"{field}" is missing').format(field=place))
    return wanted(**values)


def _restored_sequence(origin: type, inner: tuple[Any, ...], found: Any, where: str) -> Any:
    _checked(found, isinstance(found, list), where)
    if origin is tuple and inner[-1] is not Ellipsis:
        _checked(found, len(found) == len(inner), where)
        each = inner
    else:
        each = (inner[0],) * len(found)
    items = (
        _restored(t, item, f"{where}[{i}]")
        for i, (t, item) in enumerate(zip(each, found, strict=True))
    )
    return tuple(items)


def _checked(found: Any, fits: bool, where: str) -> Any:
    if not fits:
        shown = json.dumps(found, ensure_ascii=False, default=str)[:40]
        raise DataError(tr('"{field}" cannot be {value}').format(field=where, value=shown))
    return found


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def _late_types() -> dict[str, Any]:
    """What report.py imports for type checkers only."""
    from whoamai.evaluate.divergence import Divergence

    return {"Divergence": Divergence}
