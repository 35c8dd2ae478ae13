"""Ctrl-C and SIGTERM as a wish: the run ends its step, saves, and says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_WATCHED = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Inside the block the first SIGINT or SIGTERM only sets `requested`; a SIGINT after it interrupts.

    on_request: called with the signal's number when the first one comes, between two steps of Python;
    to tell the user that the run is about to stop, and that another Ctrl-C stops it at once.

    A signal that was ignored before (as in a shell's background jobs) stays so. Python handles signals
    in the main thread only; in others nothing is watched.
    """

    def __init__(self, on_request: Callable[[int], None] | None = None) -> None:
        self.requested: int | None = None
        self._on_request = on_request
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process ended by the signal (130, 143); 0 without one."""
        return 0 if self.requested is None else 128 + self.requested

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _WATCHED:
                # None: set by something other than Python, and could not be put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested = number
            if self._on_request is not None:
                self._on_request(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
