from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.store import Chosen, StoredConversations
from whoamai.errors import DataError
from whoamai.samples import Conversation, Message


def talk(number: int, turns: int = 1) -> Conversation:
    messages = [Message("system", "你是😀\u2028\x00")] * (number % 2)
    for turn in range(turns):
        messages.append(Message("user", f"q{number}.{turn}"))
        messages.append(Message("assistant", "", trained=turn % 2 == 0))
    return Conversation(tuple(messages), f"data.jsonl:{number}")


ROWS = [talk(number, 1 + number % 3) for number in range(50)]


@pytest.fixture(scope="module")
def stored() -> StoredConversations:
    return StoredConversations(iter(ROWS))


def test_it_is_the_list_of_its_rows(stored: StoredConversations):
    assert len(stored) == 50
    assert list(stored) == ROWS
    assert [stored[i] for i in range(50)] == ROWS
    assert list(reversed(stored)) == ROWS[::-1]
    assert ROWS[7] in stored
    assert stored.index(ROWS[7]) == 7


@pytest.mark.parametrize("at", [0, 49, -1, -50, 7])
def test_a_row_has_its_place_from_either_end(stored: StoredConversations, at: int):
    assert stored[at] == ROWS[at]


@pytest.mark.parametrize("at", [50, -51, 1000])
def test_there_is_no_row_beyond_the_ends(stored: StoredConversations, at: int):
    with pytest.raises(IndexError):
        stored[at]


@pytest.mark.parametrize(
    "part",
    [slice(None), slice(3, 7), slice(-3, None), slice(None, None, -7), slice(40, 90), slice(9, 3)],
)
def test_a_part_is_the_part_of_the_list(stored: StoredConversations, part: slice):
    assert stored[part] == ROWS[part]


def test_no_rows_are_an_empty_sequence():
    empty = StoredConversations([])
    assert len(empty) == 0
    assert list(empty) == []
    assert not empty


def _folders(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("whoamai-data-")]


def test_its_folder_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stored = StoredConversations(ROWS)
    assert len(_folders(tmp_path)) == 1
    part = Chosen([stored], [3])
    del stored
    gc.collect()
    assert len(_folders(tmp_path)) == 1, "a part of it is still in use"
    assert part[0] == ROWS[3]
    del part
    gc.collect()
    assert _folders(tmp_path) == []


def test_nothing_is_left_where_the_reading_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def rows():
        yield ROWS[0]
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        StoredConversations(rows())
    gc.collect()
    assert _folders(tmp_path) == []


# ---- Chosen --------------------------------------------------------------------------------------


def test_chosen_rows_are_counted_through_all_parts(stored: StoredConversations):
    parts: list[Sequence[Conversation]] = [ROWS[:2], [], stored, ROWS[2:3]]
    everything = ROWS[:2] + ROWS + ROWS[2:3]
    chosen = Chosen(parts, range(len(everything)))
    assert list(chosen) == everything
    assert len(chosen) == 53


@given(st.lists(st.integers(0, 9), max_size=30))
def test_chosen_rows_come_in_the_order_chosen(places: list[int]):
    chosen = Chosen([ROWS[:3], ROWS[3:10]], places)
    wanted = [ROWS[place] for place in places]
    assert list(chosen) == wanted
    assert chosen[1:-1] == wanted[1:-1]
    assert chosen[::-2] == wanted[::-2]
    if wanted:
        assert chosen[-1] == wanted[-1]
    with pytest.raises(IndexError):
        chosen[len(places)]


def test_chosen_rows_may_be_chosen_from_again():
    inner = Chosen([ROWS], [5, 6, 5])
    assert list(Chosen([inner, ROWS], [2, 0, 4])) == [ROWS[5], ROWS[5], ROWS[1]]
