"""What a running job tells the world: one stream of events; terminal, files and web only listen.

A recipe calls `events.emit(...)`; whoever wants to know passes a listener. Nothing here prints.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the job begins. `text` is for people, `name` for programs."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of the current stage, with what is worth watching (loss, lr, …)."""

    stage: str
    done: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person should know."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True)
class Result:
    """What a stage found out; `data` can be written as JSON: a mapping, or a dataclass made of such."""

    name: str
    data: Any


_T = TypeVar("_T")
Event = Stage | Progress | Note | Result
Listener = Callable[[Event], None]


class Events:
    """Hands every event to every listener, in order."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = tuple(listeners)

    def emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def also(self, *listeners: Listener) -> Events:
        """A stream with more listeners; this one stays as it is."""
        return Events((*self._listeners, *listeners))

    @contextmanager
    def stage(self, name: str, text: str) -> Iterator[None]:
        """Announce a stage, and how long it took once it is over."""
        start = time.monotonic()
        self.emit(Stage(name, text))
        yield
        self.emit(Result("stage", {"stage": name, "seconds": round(time.monotonic() - start, 2)}))

    def track(self, items: Iterable[_T], stage: str, total: int) -> Iterator[_T]:
        """Yield the items, telling how many are done."""
        for done, item in enumerate(items, 1):
            yield item
            self.emit(Progress(stage, done, total))


class JsonlFile:
    """A listener that writes every event as one JSON line: {"time": …, "event": "progress", …}.

    What JSON has no word for (NaN, infinity) is written as null.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        row = {
            "time": round(time.time(), 3),
            "event": type(event).__name__.lower(),
            **asdict(event),
        }
        self._file.write(json.dumps(_json(row), ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _json(value: Any) -> Any:
    """`value` with null for every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
