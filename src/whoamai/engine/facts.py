"""What a run is made of, so that it is not gone on with by something else unnoticed."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from whoamai.engine.schedule import Schedule
from whoamai.errors import SettingError
from whoamai.messages import later, tr
from whoamai.samples import Sample

# What the facts are called when they differ; settings have their own names.
_LABELS = {
    "rows": later("number of rows"),
    "text": later("the rows' tokens and targets"),
    "steps": later("optimizer steps"),
    "warmup": later("warmup steps"),
    "order": later("the order of the rows"),
}
# Hashes say nothing to a person, and follow from what is counted.
_HASHES = ("text", "order")


def run_facts(
    schedule: Schedule, samples: Iterable[Sample], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Numbers and hashes of the run's rows and steps, and the settings that change what it learns.

    settings: by the name a user knows them under ("optim.lr"), with values that go into JSON. What only
    changes how long a run takes (where it is saved, what is shown) does not belong here.
    """
    rows, text = _rows(samples)
    facts = {
        "rows": rows,
        "text": text,
        "steps": schedule.total,
        "warmup": schedule.warmup,
        "order": _order(schedule),
        "settings": dict(settings),
    }
    return json.loads(json.dumps(facts))  # as they will be when read again


def refuse_another_run(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise SettingError, naming all that differs, unless the checkpoint at `path` is of this run.

    saved: the facts of the checkpoint; now: those of the run that is to go on from it.
    """
    lines = differences(saved, now)
    if lines:
        text = tr(
            "The run cannot go on from {path}, which was made with other data or settings:\n"
            "{differences}\n"
            "Resume with the config that is in the checkpoint, or train anew in another work folder."
        )
        raise SettingError(text.format(path=path, differences="\n".join(lines)))


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not the same in the facts of a checkpoint and those of now, a line each."""
    changed = [key for key in _LABELS if saved.get(key) != now.get(key)]
    counted = [key for key in changed if key not in _HASHES]
    lines = [_line(tr(_LABELS[key]), saved.get(key), now.get(key)) for key in counted]
    if not counted:
        lines = [tr("  {name}: not the same").format(name=tr(_LABELS[key])) for key in changed]
    then, today = saved.get("settings", {}), now.get("settings", {})
    names = sorted(name for name in then.keys() | today.keys() if then.get(name) != today.get(name))
    return lines + [_line(name, then.get(name), today.get(name)) for name in names]


def _line(name: str, saved: Any, now: Any) -> str:
    text = tr("  {name}: {saved} in the checkpoint, {now} now")
    return text.format(name=name, saved=_shown(saved), now=_shown(now))


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _rows(samples: Iterable[Sample]) -> tuple[int, str]:
    """How many there are, and a hash of their lengths, tokens and targets."""
    digest, n = hashlib.sha256(), 0
    for n, sample in enumerate(samples, start=1):  # noqa: B007
        digest.update(array("q", [len(sample.input_ids), *sample.input_ids]).tobytes())
        digest.update(bytes(sample.is_target))
    return n, digest.hexdigest()


def _order(schedule: Schedule) -> str:
    digest = hashlib.sha256()
    for step in schedule.steps:
        digest.update(array("q", [len(step), *step]).tobytes())
    return digest.hexdigest()
