"""Curves sent to TensorBoard, W&B or SwanLab."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate import tracking

from whoamai.engine import trackers
from whoamai.engine.trackers import Trackers, check_trackers
from whoamai.errors import SettingError
from whoamai.events import Note, Progress, Result


class Remembers:
    """Stands for a tracker of accelerate's."""

    requires_logging_directory = False
    made: list[Remembers]

    def __init__(self, name: str) -> None:
        self.name = name
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[dict[str, float], int]] = []
        self.finished = False
        type(self).made.append(self)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Remembers]:
    monkeypatch.setattr(Remembers, "made", [], raising=False)
    monkeypatch.setattr(tracking, "WandBTracker", Remembers)
    monkeypatch.setattr(tracking, "SwanLabTracker", Remembers)
    return Remembers.made


def test_only_the_steps_of_the_training_are_sent(tmp_path: Path, made: list[Remembers]):
    with Trackers(["wandb"], tmp_path, "mine", {}) as listener:
        listener(Progress("train", 3, 10, {"loss": 1.5, "lr": 1e-4}))
        for other in (Progress("plan", 1, 2), Progress("ask", 1, 2, {"x": 1.0}), Note("hello")):
            listener(other)
        listener(Result("answers", {"step": 3}))
    (tracker,) = made
    assert tracker.name == "mine"
    assert tracker.logged == [({"loss": 1.5, "lr": 1e-4}, 3)]


def test_every_tracker_gets_every_step_and_is_finished(tmp_path: Path, made: list[Remembers]):
    with Trackers(["wandb", "swanlab"], tmp_path, "mine", {}) as listener:
        listener(Progress("train", 1, 2, {"loss": 1.5}))
        assert not any(tracker.finished for tracker in made)
    assert [len(tracker.logged) for tracker in made] == [1, 1]
    assert all(tracker.finished for tracker in made)


def test_trackers_are_finished_when_the_run_fails(tmp_path: Path, made: list[Remembers]):
    with pytest.raises(RuntimeError), Trackers(["wandb"], tmp_path, "mine", {}):
        raise RuntimeError
    assert made[0].finished


def test_settings_are_sent_flat_and_in_plain_values(tmp_path: Path, made: list[Remembers]):
    settings = {"train": {"lr": 1e-4, "betas": (0.9, 0.99)}, "lora": None, "work_dir": "x"}
    with Trackers(["wandb"], tmp_path, "mine", settings):
        pass
    assert made[0].settings == {
        "train.lr": 1e-4,
        "train.betas": "(0.9, 0.99)",
        "lora": "None",
        "work_dir": "x",
    }


def test_a_tracker_that_cannot_start_is_told_and_the_others_are_finished(
    tmp_path: Path, made: list[Remembers], monkeypatch: pytest.MonkeyPatch
):
    def not_logged_in(name: str):
        raise ValueError("api_key not configured")

    not_logged_in.requires_logging_directory = False
    monkeypatch.setattr(tracking, "SwanLabTracker", not_logged_in)
    with pytest.raises(SettingError, match=r"swanlab cannot start: api_key not configured"):
        Trackers(["wandb", "swanlab"], tmp_path, "mine", {})
    assert made[0].finished


def test_without_trackers_nothing_is_imported_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with Trackers([], tmp_path / "tracking", "mine", {}) as listener:
        listener(Progress("train", 1, 2, {"loss": 1.5}))
    assert list(tmp_path.iterdir()) == []


def test_missing_trackers_are_told_all_together(monkeypatch: pytest.MonkeyPatch):
    there = {"tensorboard"}
    monkeypatch.setattr(
        trackers.importlib.util, "find_spec", lambda name: name if name in there else None
    )
    check_trackers([])
    check_trackers(["tensorboard"])
    with pytest.raises(SettingError) as error:
        check_trackers(["wandb", "tensorboard", "swanlab"])
    assert str(error.value) == (
        "log.trackers: wandb, swanlab not installed. pip install wandb swanlab"
    )


def test_tensorboard_reads_what_is_written(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Trackers(["tensorboard"], tmp_path, "mine", {"train": {"lr": 1e-4}}) as listener:
        for done in (1, 2, 3):
            listener(Progress("train", done, 3, {"loss": 3.0 - done}))
    written = EventAccumulator(str(tmp_path / "mine"))
    written.Reload()
    points = [(point.step, point.value) for point in written.Scalars("loss")]
    assert points == [(1, 2.0), (2, 1.0), (3, 0.0)]
