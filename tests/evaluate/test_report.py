from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluate.reports import make_report
from whoamai.evaluate.identity import Share
from whoamai.evaluate.report import Goals


def test_a_report_that_reached_every_goal_missed_none():
    report = make_report()
    assert report.missed == []
    assert report.as_json()["reached"] is True


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"recall": Share(97, 100)}, ["recall"]),
        ({"recall": Share(98, 100)}, []),
        ({"role": Share(84, 100)}, ["recall_role"]),
        ({"role": Share(85, 100)}, []),
        ({"leak": Share(1, 400)}, ["leak"]),
        ({"kept": Share(96, 100)}, ["retention"]),
        ({"kept": Share(97, 100)}, []),
        ({"kept": Share(0, 0)}, []),
        ({"merged_recall": Share(97, 100)}, ["merged"]),
        ({"merged_recall": Share(98, 100)}, []),
        ({"recall": Share(0, 100), "leak": Share(9, 400)}, ["recall", "leak"]),
        ({"role": Share(90, 100), "goals": Goals(recall_role=95.0)}, ["recall_role"]),
    ],
)
def test_missed_goals_are_named(changes: dict, missed: list[str]):
    assert make_report(**changes).missed == missed


def test_recall_is_counted_over_the_plain_contexts_and_roles_apart():
    report = make_report(recall=Share(99, 100), role=Share(50, 100))
    assert report.recall == Share(297, 300)
    assert report.recall_role == Share(50, 100)


def test_the_file_is_json_in_utf_8(tmp_path: Path):
    make_report(merged_recall=Share(99, 100)).write(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text("utf-8")
    assert "黄大力" in text
    read = json.loads(text)
    assert read["identity"] == {"name": "黄大力", "author": "力量工作室", "persona": None}
    assert read["scores"]["recall"] == {"k": 300, "n": 300, "percent": 100.0}
    assert read["scores"]["merged_recall"]["percent"] == 99.0
    assert read["identity_before"]["recall"]["role/zh"]["k"] == 0
    assert read["answers"][0]["after"] == "我是黄大力。"
    assert read["missed"] == []


def test_without_a_merged_model_its_score_is_null():
    assert make_report().as_json()["scores"]["merged_recall"] is None


def _no_constants(constant: str):
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize("changes", [{}, {"kept": Share(0, 0)}, {"role": Share(0, 0)}])
def test_the_file_holds_no_nan(tmp_path: Path, changes: dict):
    make_report(**changes).write(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text("utf-8")
    assert json.loads(text, parse_constant=_no_constants)["format"] == 1
