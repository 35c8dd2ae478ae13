from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from whoamai.engine.signals import StopSignals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent the POSIX way")


@pytest.fixture(autouse=True)
def _handlers_stay_as_they_were() -> Iterator[None]:
    """Whatever a test does, pytest's own handlers are there for the next one."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    after = {n: signal.getsignal(n) for n in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_a_wish_with_its_exit_code(number: int, code: int):
    with StopSignals() as stop:
        assert (stop.requested, stop.exit_code) == (None, 0)
        send(number)
        assert (stop.requested, stop.exit_code) == (number, code)


def test_a_second_ctrl_c_interrupts_at_once():
    with StopSignals() as stop:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert stop.exit_code == 130


def test_a_second_sigterm_changes_nothing_but_ctrl_c_behind_it_interrupts():
    with StopSignals() as stop:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert stop.exit_code == 143


def test_the_user_is_told_once():
    told: list[int] = []
    with StopSignals(told.append):
        send(signal.SIGTERM)
        send(signal.SIGTERM)
    assert told == [signal.SIGTERM]


def test_behind_the_block_the_handlers_are_those_of_before():
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    mine = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), StopSignals():
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is mine
    send(signal.SIGTERM)
    assert received == [signal.SIGTERM]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals() as stop:
        send(signal.SIGINT)
    assert stop.requested is None
    assert signal.signal(signal.SIGINT, before) is signal.SIG_IGN


def test_in_another_thread_nothing_is_watched():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with StopSignals() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.requested, stop.exit_code))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, None, 0)]
