"""A listener that hands the curves of a run to TensorBoard, W&B or SwanLab, through accelerate."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from whoamai.errors import SettingError
from whoamai.events import Event, Progress
from whoamai.messages import tr

# Tracker: (what has to be installed, the class in accelerate.tracking).
_KNOWN = {
    "tensorboard": ("tensorboard", "TensorBoardTracker"),
    "wandb": ("wandb", "WandBTracker"),
    "swanlab": ("swanlab", "SwanLabTracker"),
}


def check_trackers(names: Sequence[str]) -> None:
    """Raise SettingError for trackers that are not installed, all of them together."""
    missing = [name for name in names if importlib.util.find_spec(_KNOWN[name][0]) is None]
    if missing:
        text = tr("log.trackers: {names} not installed. pip install {packages}")
        packages = " ".join(_KNOWN[name][0] for name in missing)
        raise SettingError(text.format(names=", ".join(missing), packages=packages))


class Trackers:
    """Sends the values of every training step. Use as a context manager around the run.

    They must be installed (check_trackers). Raises SettingError where one cannot start.
    """

    def __init__(
        self, names: Sequence[str], folder: Path, run_name: str, settings: Mapping[str, Any]
    ) -> None:
        self._trackers = []
        with ExitStack() as stack:
            for name in names:
                tracker = _make(name, folder, run_name)
                stack.callback(tracker.finish)
                tracker.store_init_configuration(_flat(settings))
                self._trackers.append(tracker)
            self._end = stack.pop_all()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "train" and event.values:
            for tracker in self._trackers:
                tracker.log(dict(event.values), step=event.done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._end.close()


def _make(name: str, folder: Path, run_name: str) -> Any:
    from accelerate import PartialState, tracking

    PartialState()  # trackers ask it whether they are the first process
    make = getattr(tracking, _KNOWN[name][1])
    try:
        tracker = make(run_name, folder) if make.requires_logging_directory else make(run_name)
        if hasattr(tracker, "start"):
            tracker.start()
    except Exception as error:  # not logged in, no network: each has errors of its own
        text = tr("log.trackers: {name} cannot start: {reason}")
        raise SettingError(text.format(name=name, reason=error)) from error
    return tracker


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """{"train": {"lr": 1e-4}} as {"train.lr": 1e-4}; what is no number or text as its text."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            flat[before + key] = value if plain else str(value)
    return flat
