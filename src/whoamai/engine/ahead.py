"""What the next step needs, made while this one is computed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")


class Ahead(Generic[Key, Made]):
    """`make` is called in a thread of its own for what `begin` names, and else when it is taken.

    `make` must depend on its key alone. What it raises is raised by `take`.
    """

    def __init__(self, make: Callable[[Key], Made]) -> None:
        self._make = make
        self._pool: ThreadPoolExecutor | None = None
        self._begun: tuple[Key, Future[Made]] | None = None

    def begin(self, key: Key) -> None:
        """Start making it; what was begun before and not taken is forgotten."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._begun = key, self._pool.submit(self._make, key)

    def take(self, key: Key) -> Made:
        begun, self._begun = self._begun, None
        if begun is not None and begun[0] == key:
            return begun[1].result()
        return self._make(key)

    def close(self) -> None:
        """Wait for the thread and let it go; `begin` starts another."""
        self._begun = None
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
