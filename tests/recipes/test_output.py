from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.errors import OutputError
from whoamai.recipes.output import (
    check_space,
    complete_folder,
    folder_name,
    partial_of,
    problems_with_folder,
)

Usage = namedtuple("Usage", "total used free")


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("黄大力", "黄大力"),
        ("R2-D2", "R2-D2"),
        ("a/b\\c", "a_b_c"),
        ("..", "renamed"),
        (".hidden", "hidden"),
        ("😀", "_"),
        ("v1.5", "v1.5"),
    ],
)
def test_a_name_becomes_a_folder_name(name: str, folder: str):
    assert folder_name(name) == folder


@given(st.text(min_size=1, max_size=64))
def test_any_name_becomes_a_folder_inside_its_parent(name: str):
    made = folder_name(name)
    assert Path("x", made).parent == Path("x")
    assert made not in ("", ".", "..")


@pytest.mark.parametrize("letter", ["x", "名", "\U00020000"])
def test_the_longest_name_makes_a_folder_the_disk_takes(tmp_path: Path, letter: str):
    with complete_folder(tmp_path / folder_name(letter * 64)):
        pass
    assert len(list(tmp_path.iterdir())) == 1


# ---- what may be there ---------------------------------------------------------------------------


def test_a_folder_that_is_missing_or_empty_is_fine(tmp_path: Path):
    assert problems_with_folder(tmp_path, overwrite=False) == []
    assert problems_with_folder(tmp_path / "new" / "deep", overwrite=False) == []


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path):
    (tmp_path / "x").touch()
    (problem,) = problems_with_folder(tmp_path, overwrite=False)
    assert "not empty" in problem
    assert str(tmp_path) in problem


def test_overwrite_replaces_earlier_results_only(tmp_path: Path):
    (tmp_path / "x").touch()
    (problem,) = problems_with_folder(tmp_path, overwrite=True)
    assert "did not write" in problem
    (tmp_path / "report.json").touch()
    assert problems_with_folder(tmp_path, overwrite=True) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, overwrite: bool):
    (tmp_path / "file").touch()
    assert "is a file" in problems_with_folder(tmp_path / "file", overwrite=overwrite)[0]


def test_a_file_in_the_place_of_a_folder_above_is_refused(tmp_path: Path):
    """Found out before the work, not after it."""
    (tmp_path / "file").touch()
    assert problems_with_folder(tmp_path / "file" / "out", overwrite=False)


def test_a_name_too_long_for_the_disk_is_refused(tmp_path: Path):
    assert "cannot be used" in problems_with_folder(tmp_path / ("x" * 300), overwrite=False)[0]


def test_a_circle_of_links_is_refused(tmp_path: Path):
    (tmp_path / "a").symlink_to(tmp_path / "a")
    assert problems_with_folder(tmp_path / "a", overwrite=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path):
    tmp_path.chmod(0o500)
    assert problems_with_folder(tmp_path / "out", overwrite=False)


# ---- space ---------------------------------------------------------------------------------------


def test_too_little_space_is_told_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda p: Usage(0, 0, 50 << 20))
    with pytest.raises(OutputError, match="50 MiB free and 56 MiB are needed"):
        check_space(tmp_path / "not" / "yet", 40 << 20)


def test_enough_space_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda p: asked.append(p) or Usage(0, 0, 57 << 20))
    check_space(tmp_path / "not" / "yet", 40 << 20)
    assert asked == [tmp_path]


# ---- complete or absent --------------------------------------------------------------------------


def earlier(folder: Path) -> Path:
    folder.mkdir()
    (folder / "report.json").write_text("old")
    (folder / "only-old").touch()
    return folder


def test_the_folder_appears_when_everything_is_written(tmp_path: Path):
    with complete_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
        assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "x"


def test_earlier_results_are_replaced_as_a_whole(tmp_path: Path):
    out = earlier(tmp_path / "out")
    with complete_folder(out) as folder:
        (folder / "report.json").write_text("new")
        assert (out / "report.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in out.iterdir()] == ["report.json"]
    assert (out / "report.json").read_text() == "new"


def test_an_empty_folder_is_taken(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with complete_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert (tmp_path / "out" / "a").exists()


def test_a_link_to_an_empty_folder_is_taken_and_nothing_stays_beside_it(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with complete_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert (tmp_path / "out" / "a").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "real"]


def test_a_link_to_nothing_yet_is_filled(tmp_path: Path):
    (tmp_path / "out").symlink_to(tmp_path / "deep" / "real")
    assert problems_with_folder(tmp_path / "out", overwrite=False) == []
    with complete_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert (tmp_path / "deep" / "real" / "a").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "out"]


def test_earlier_results_that_cannot_be_put_back_are_not_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = earlier(tmp_path / "out")
    calls, rename = [], Path.rename

    def refused_from_the_second_on(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) > 1:
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused_from_the_second_on)
    with pytest.raises(OutputError), complete_folder(out):
        pass
    assert (tmp_path / ".out.replaced" / "report.json").read_text() == "old"


def write_half(out: Path, error: BaseException) -> None:
    with complete_folder(out) as folder:
        (folder / "report.json").write_text("new")
        raise error


FAILURES = [
    RuntimeError("ours"),
    KeyboardInterrupt(),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EACCES, "Permission denied"),
]


@pytest.mark.parametrize("error", FAILURES, ids=str)
def test_a_failure_midway_leaves_nothing(tmp_path: Path, error: BaseException):
    with pytest.raises((type(error), OutputError)):
        write_half(tmp_path / "out", error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", FAILURES, ids=str)
def test_a_failure_midway_keeps_the_earlier_results(tmp_path: Path, error: BaseException):
    out = earlier(tmp_path / "out")
    with pytest.raises((type(error), OutputError)):
        write_half(out, error)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (out / "report.json").read_text() == "old"
    assert (out / "only-old").exists()


def test_a_failure_midway_leaves_no_folder_above_that_was_not_there(tmp_path: Path):
    with pytest.raises(RuntimeError), complete_folder(tmp_path / "work_dirs" / "out"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failing_exchange_of_old_and_new_keeps_the_earlier_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
):
    """The old folder is moved away, the new one put in place: either step may be refused."""
    out = earlier(tmp_path / "out")
    calls, rename = [], Path.rename

    def refused(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OutputError), complete_folder(out) as folder:
        (folder / "report.json").write_text("new")
    assert (out / "report.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_refuses_is_told_in_words(tmp_path: Path, code: int):
    with (
        pytest.raises(OutputError, match=os.strerror(code)) as error,
        complete_folder(tmp_path / "out"),
    ):
        raise OSError(code, os.strerror(code))
    assert str(tmp_path / "out") in str(error.value)


def test_a_full_disk_is_told_when_safetensors_finds_it(tmp_path: Path):
    from safetensors import SafetensorError

    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    with (
        pytest.raises(OutputError, match="No space left on device"),
        complete_folder(tmp_path / "out"),
    ):
        raise SafetensorError(text)


def test_an_error_that_is_not_the_disks_stays_what_it_is(tmp_path: Path):
    with pytest.raises(FileNotFoundError), complete_folder(tmp_path / "out"):
        open(tmp_path / "no such file").close()


def test_what_a_killed_run_left_is_cleared(tmp_path: Path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half").touch()
    with complete_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]


# ---- kept for the next one -----------------------------------------------------------------------


def test_what_is_written_beside_a_link_is_beside_what_it_leads_to(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    assert partial_of(tmp_path / "out") == tmp_path / ".real.partial"


def write_half_and_keep(out: Path, error: BaseException, *, worth_it: bool = True) -> None:
    def keep(folder: Path) -> bool:
        assert (folder / "half").is_file(), "asked before it is gone"
        return worth_it

    with complete_folder(out, go_on=True, keep=keep) as folder:
        (folder / "half").write_text("x")
        raise error


@pytest.mark.parametrize("error", FAILURES, ids=str)
def test_what_is_worth_it_is_kept_and_the_next_one_goes_on_with_it(
    tmp_path: Path, error: BaseException
):
    out = earlier(tmp_path / "out")
    with pytest.raises((type(error), OutputError)):
        write_half_and_keep(out, error)
    assert partial_of(out).is_dir()
    assert (out / "report.json").read_text() == "old", "earlier results stay meanwhile"
    with complete_folder(out, go_on=True) as folder:
        assert (folder / "half").read_text() == "x"
        (folder / "report.json").write_text("new")
    assert sorted(p.name for p in out.iterdir()) == ["half", "report.json"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_what_is_not_worth_it_goes_also_where_one_went_on(tmp_path: Path):
    with pytest.raises(RuntimeError):
        write_half_and_keep(tmp_path / "deep" / "out", RuntimeError(), worth_it=False)
    assert list(tmp_path.iterdir()) == []


def test_one_that_begins_anew_finds_nothing_of_what_was_kept(tmp_path: Path):
    with pytest.raises(RuntimeError):
        write_half_and_keep(tmp_path / "out", RuntimeError())
    with complete_folder(tmp_path / "out") as folder:
        assert list(folder.iterdir()) == []


def test_nothing_is_kept_where_nobody_says_what_is_worth_it(tmp_path: Path):
    with pytest.raises(RuntimeError), complete_folder(tmp_path / "out", go_on=True):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_above_that_holds_what_is_kept_stays(tmp_path: Path):
    with pytest.raises(RuntimeError):
        write_half_and_keep(tmp_path / "work_dirs" / "out", RuntimeError())
    assert [p.name for p in (tmp_path / "work_dirs").iterdir()] == [".out.partial"]
