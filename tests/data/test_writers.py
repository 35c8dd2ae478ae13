from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.readers import read_conversations
from whoamai.data.writers import checked_out, complete_file, write_messages
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


def test_a_folder_that_is_missing_is_made(tmp_path: Path):
    write_messages([ROW], tmp_path / "no" / "such" / "out.jsonl")
    assert (tmp_path / "no" / "such" / "out.jsonl").read_text().startswith('{"messages"')


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


# ---- complete_file -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "compress", "packed"),
    [
        ("out.jsonl", None, False),
        ("out.jsonl.GZ", None, True),
        ("out.jsonl", True, True),
        ("out.gz", False, False),
    ],
)
def test_a_file_is_gzipped_by_its_ending_unless_told(tmp_path: Path, name, compress, packed):
    with complete_file(tmp_path / name, compress=compress) as file:
        file.write("你好\n".encode())
    written = (tmp_path / name).read_bytes()
    assert written.startswith(b"\x1f\x8b") == packed
    assert (gzip.decompress(written) if packed else written).decode() == "你好\n"


def test_the_same_content_is_packed_to_the_same_bytes_at_any_time(tmp_path: Path, monkeypatch):
    for name, now in (("a.gz", 1e9), ("b.gz", 2e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        with complete_file(tmp_path / name) as file:
            file.write(b"x" * 1000)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_nothing_stands_under_the_name_before_it_is_complete(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    with complete_file(path) as file:
        file.write(b"new")
        assert path.read_text() == "mine"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_may_write_beside_each_other(tmp_path: Path):
    with complete_file(tmp_path / "a") as a, complete_file(tmp_path / "b") as b:
        a.write(b"a")
        b.write(b"b")
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"a", b"b"]


def test_an_error_about_another_file_stays_what_it_is(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as caught, complete_file(tmp_path / "out"):
        (tmp_path / "input").read_bytes()
    assert not isinstance(caught.value, OutputError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("compress", [False, True])
def test_a_disk_that_is_full_at_the_very_end_is_told(tmp_path: Path, monkeypatch, compress):
    really_open = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode: really_open(Path("/dev/full"), "wb"))
    with (
        pytest.raises(OutputError, match="out cannot be written: No space left"),
        complete_file(tmp_path / "out", compress=compress) as file,
    ):
        file.write(b"a few bytes, written when the file is closed")


# ---- checked_out ---------------------------------------------------------------------------------


def test_a_name_that_is_free_may_be_written(tmp_path: Path):
    (tmp_path / "in").write_text("")
    for overwrite in (False, True):
        assert checked_out(tmp_path / "out", [tmp_path / "in"], overwrite=overwrite) == (
            tmp_path / "out"
        )


@pytest.mark.parametrize("link", ["itself", "symlink", "hard link"])
def test_no_input_is_written_over_whatever_it_is_called(tmp_path: Path, link):
    inputs = [tmp_path / "a", tmp_path / "gone", tmp_path / "b"]
    inputs[0].write_text("")
    inputs[2].write_text("")
    out = inputs[2] if link == "itself" else tmp_path / "out"
    if link == "symlink":
        out.symlink_to(inputs[2])
    elif link == "hard link":
        os.link(inputs[2], out)
    with pytest.raises(OutputError, match="is the input file itself"):
        checked_out(out, inputs, overwrite=True)


def test_an_existing_file_may_be_written_over_if_told_and_links_are_followed(tmp_path: Path):
    (tmp_path / "real").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    for name, real in (("real", "real"), ("link", "real"), ("dangling", "new")):
        with pytest.raises(OutputError, match=f"{name} exists already"):
            checked_out(tmp_path / name, [], overwrite=False)
        assert checked_out(tmp_path / name, [], overwrite=True) == (tmp_path / real).resolve()


def test_what_is_no_file_is_never_written(tmp_path: Path):
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(OutputError, match="is not a file"):
            checked_out(path, [], overwrite=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OutputError, match="cannot be written"):
        checked_out(tmp_path / "loop", [], overwrite=True)
