from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.readers import read_conversations
from whoamai.data.writers import write_messages
from whoamai.errors import OutputError
from whoamai.samples import Conversation, Message

ROW = Conversation(
    (Message("user", "你是谁"), Message("assistant", "我是\n“{小初}”", trained=True))
)


def test_a_row_is_one_line_in_openais_form(tmp_path: Path):
    write_messages([ROW, ROW], tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0]) == {
        "messages": [
            {"role": "user", "content": "你是谁"},
            {"role": "assistant", "content": "我是\n“{小初}”"},
        ]
    }


def test_chinese_is_written_as_it_is_read(tmp_path: Path):
    write_messages([ROW], tmp_path / "out.jsonl")
    assert "你是谁" in (tmp_path / "out.jsonl").read_text("utf-8")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_what_is_written_is_read_again_the_same(text: str):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.jsonl"
        row = Conversation((Message("user", text), Message("assistant", text, trained=True)))
        write_messages([row], path)
        assert read_conversations(path)[0].messages == row.messages


def test_a_file_that_exists_is_not_replaced(tmp_path: Path):
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_messages([ROW], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_a_folder_that_is_missing_is_told(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        write_messages([ROW], tmp_path / "no" / "out.jsonl")


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_messages([ROW], tmp_path / "file" / "out.jsonl")


def test_a_name_too_long_for_the_disk_is_told(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_messages([ROW], tmp_path / ("x" * 300))


def _fails_after_one_row(error: BaseException):
    yield ROW
    raise error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_a_file_is_complete_or_absent(tmp_path: Path, error: BaseException):
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_messages(_fails_after_one_row(error), tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_in_words(tmp_path: Path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OutputError, match="No space left on device"):
        write_messages(_fails_after_one_row(full), tmp_path / "out.jsonl")
