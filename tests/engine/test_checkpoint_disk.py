"""Disks that are full, or that may not be written to: the checkpoints of before are as they were."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.checkpoint_runs import (
    Run,
    assert_same,
    everything,
    load,
    make_run,
    save,
    steps,
    train,
)
from whoamai.engine import checkpoint
from whoamai.errors import OutputError


@pytest.fixture(scope="module")
def trained() -> Run:
    run = make_run()
    train(run, range(2))
    return run


def test_too_little_space_is_told_before_anything_is_written(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = save(trained, tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError) as error:
        save(trained, tmp_path, 10, keep=1)
    for part in (
        "0 MiB free",
        "2 MiB",
        "step_000010",
        f"last complete one is {before}",
        "--resume",
    ):
        assert part in str(error.value)
    assert steps(tmp_path) == [5]


@pytest.mark.parametrize("number", [1, 4, 9, 10])
def test_a_disk_that_is_full_halfway_leaves_the_checkpoint_before(
    number: int, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before, calls, real = save(trained, tmp_path), [], os.fsync

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == number:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="MiB are needed") as error:
            save(trained, tmp_path, 10, keep=1)
    assert str(before) in str(error.value)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000005"]
    run = make_run()
    load(before, run)
    assert_same(everything(run), everything(trained))


def test_a_disk_that_may_not_be_written_to_is_told(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def read_only(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", read_only)
    with pytest.raises(OutputError, match=r"Read-only file system\. There is none before it"):
        save(trained, tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB, where one can be had."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a small disk takes Linux and its administrator")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_disk_that_is_really_full_the_checkpoint_before_is_intact(
    trained: Run, small_disk: Path, monkeypatch: pytest.MonkeyPatch
):
    before = save(trained, small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 60_000))
    with pytest.raises(OutputError, match="0 MiB free and 2 MiB are needed"):
        save(trained, small_disk, 10, keep=1)
    monkeypatch.setattr(checkpoint, "_check_space", lambda *_: None)  # as if taken meanwhile
    with pytest.raises(OutputError, match="are needed"):
        save(trained, small_disk, 10, keep=1)
    assert [p.name for p in (small_disk / "checkpoints").iterdir()] == ["step_000005"]
    run = make_run()
    load(before, run)
    assert_same(everything(run), everything(trained))

    filler.unlink()
    save(trained, small_disk, 10, keep=1)
    assert steps(small_disk) == [10]
