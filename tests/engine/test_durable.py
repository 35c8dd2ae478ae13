from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from whoamai.engine import durable
from whoamai.engine.durable import (
    as_json,
    durable_folder,
    problem_with,
    remove_folder,
    replace_file,
    tidy,
)


def write(folder: Path, text: str = "one") -> Path:
    with durable_folder(folder) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "a.txt").write_text(text, "utf-8")
        (partial / "large.bin").write_bytes(bytes(3 << 20))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def fail_at(monkeypatch: pytest.MonkeyPatch, function: str, number: int) -> None:
    """The call of os.`function` with this number (from 1) says that the disk is full."""
    real, calls = getattr(os, function), []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(os, function, failing)


def test_a_folder_says_what_is_in_it_and_nothing_is_left_beside_it(tmp_path: Path):
    folder = write(tmp_path / "result")
    assert problem_with(folder, thorough=True) is None
    assert names(tmp_path) == ["result"]
    told = json.loads((folder / "COMPLETE").read_bytes())["files"]
    assert told.keys() == {"inner/a.txt", "large.bin"}
    assert told["inner/a.txt"]["size"] == 3
    assert "crc32" in told["large.bin"]


def fail_halfway(folder: Path, error: type[BaseException]) -> None:
    with durable_folder(folder) as partial:
        (partial / "half.txt").touch()
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_if_the_block_fails_what_was_there_before_is_as_it_was(
    error: type[BaseException], tmp_path: Path
):
    folder = write(tmp_path / "result")
    with pytest.raises(error):
        fail_halfway(folder, error)
    assert names(tmp_path) == ["result"]
    assert problem_with(folder, thorough=True) is None


@pytest.mark.parametrize("number", range(1, 7))
def test_a_disk_that_fails_at_any_fsync_leaves_what_was_there(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = write(tmp_path / "result")
    with monkeypatch.context() as patch:
        fail_at(patch, "fsync", number)
        with pytest.raises(OSError, match="No space"):
            write(folder, "two")
    tidy(tmp_path)
    assert names(tmp_path) == ["result"]
    assert problem_with(folder, thorough=True) is None
    # Behind the rename the new one is there, whole; the disk failed at saying so for good.
    assert (folder / "inner" / "a.txt").read_text("utf-8") == ("two" if number == 6 else "one")


@pytest.mark.parametrize("number", [1, 2])
def test_a_disk_that_fails_at_a_rename_leaves_what_was_there(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = write(tmp_path / "result")
    fail_at(monkeypatch, "replace", number)
    with pytest.raises(OSError, match="No space"):
        write(folder, "two")
    assert names(tmp_path) == ["result"]
    assert (folder / "inner" / "a.txt").read_text("utf-8") == "one"


def test_everything_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(handle: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        real_sync(handle)

    def replace(*args) -> None:
        events.append("rename")
        real_replace(*args)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the names of open files are not to be had here")
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    write(tmp_path / "result")
    rename = events.index("rename")
    assert set(events[: rename - 2]) == {"a.txt", "large.bin", "inner"}
    assert events[rename - 2 :] == ["COMPLETE", ".result.partial", "rename", tmp_path.name]


@pytest.mark.parametrize("left", ["missing", "short", "changed", "no manifest", "half a manifest"])
def test_a_damaged_folder_is_recognised(left: str, tmp_path: Path):
    folder = write(tmp_path / "result")
    file = folder / "inner" / "a.txt"
    if left == "missing":
        file.unlink()
    elif left == "short":
        os.truncate(folder / "large.bin", 100)
    elif left == "changed":
        file.write_text("two", "utf-8")
    elif left == "no manifest":
        (folder / "COMPLETE").unlink()
    else:
        os.truncate(folder / "COMPLETE", 20)
    assert problem_with(folder)


def test_a_flipped_bit_in_a_large_file_is_found_where_all_is_read(tmp_path: Path):
    folder = write(tmp_path / "result")
    with (folder / "large.bin").open("rb+") as file:
        file.seek(2 << 20)
        file.write(b"\x01")
    assert problem_with(folder) is None
    assert problem_with(folder, thorough=True) == "large.bin is damaged"


@pytest.mark.parametrize("manifest", ["[]", '{"files": []}', '{"files": {"a": 1}}', '"x"', "\xff"])
def test_a_manifest_of_another_form_is_no_manifest(manifest: str, tmp_path: Path):
    (tmp_path / "a").touch()
    (tmp_path / "COMPLETE").write_text(manifest, "latin-1")
    assert problem_with(tmp_path) == "COMPLETE cannot be read"


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path):
    write(tmp_path / "whole")
    (tmp_path / ".half.partial").mkdir()
    (tmp_path / ".old.removed").mkdir()
    tidy(tmp_path)
    assert names(tmp_path) == ["whole"]
    tidy(tmp_path / "nowhere")


def test_one_killed_right_before_it_got_its_name_gets_it(tmp_path: Path):
    folder = write(tmp_path / "result")
    folder.rename(tmp_path / ".result.partial")
    tidy(tmp_path)
    assert problem_with(folder, thorough=True) is None


def test_one_killed_between_the_two_renames_is_the_new_one(tmp_path: Path):
    folder = write(tmp_path / "result")
    write(tmp_path / "new", "two").rename(tmp_path / ".result.partial")
    folder.rename(tmp_path / ".result.removed")
    tidy(tmp_path)
    assert names(tmp_path) == ["result"]
    assert (folder / "inner" / "a.txt").read_text("utf-8") == "two"


def test_a_folder_is_never_seen_half_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write(tmp_path / "result")
    seen = []
    monkeypatch.setattr(durable.shutil, "rmtree", lambda *_, **__: seen.append(folder.exists()))
    remove_folder(folder)
    assert not any(seen[1:])
    assert len(seen) == 2


def test_a_file_has_its_old_content_or_its_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.json"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    fail_at(monkeypatch, "fsync", 1)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"three")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["run.json"]


def test_json_is_for_everyone_to_read():
    assert as_json({"名字": 0.1}) == '{\n  "名字": 0.1\n}\n'.encode()
    with pytest.raises(ValueError):
        as_json(float("nan"))
