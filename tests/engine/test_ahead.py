from __future__ import annotations

import threading

import pytest

from whoamai.engine.ahead import Ahead


def test_what_was_begun_is_made_once_and_in_another_thread():
    made: list[tuple[int, int]] = []

    def make(key: int) -> int:
        made.append((key, threading.get_ident()))
        return 10 * key

    ahead = Ahead(make)
    ahead.begin(3)
    assert ahead.take(3) == 30
    assert [key for key, _ in made] == [3]
    assert made[0][1] != threading.get_ident()
    ahead.close()


def test_what_was_not_begun_is_made_when_it_is_taken():
    ahead = Ahead(str)
    assert ahead.take(1) == "1"
    ahead.begin(2)
    assert ahead.take(4) == "4"
    assert ahead.take(2) == "2"
    ahead.close()


def test_an_error_comes_to_who_takes():
    ahead = Ahead(lambda key: 1 // key)
    ahead.begin(0)
    with pytest.raises(ZeroDivisionError):
        ahead.take(0)
    ahead.close()


def test_after_closing_it_can_begin_again():
    ahead = Ahead(str)
    ahead.begin(1)
    ahead.close()
    ahead.begin(2)
    assert ahead.take(2) == "2"
    ahead.close()
