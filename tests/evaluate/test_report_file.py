from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluate.reports import large_report, make_report
from whoamai.errors import DataError, OutputError
from whoamai.evaluate.divergence import Divergence
from whoamai.evaluate.identity import Share
from whoamai.evaluate.report import Curve, Report
from whoamai.evaluate.report_file import read_report, report_from


def written(report: Report, folder: Path) -> Path:
    report.write(folder / "report.json")
    return folder / "report.json"


def plain(report: Report) -> dict:
    return json.loads(json.dumps(report.as_json()))


def test_the_file_is_json_in_utf_8(tmp_path: Path):
    text = written(make_report(merged=Share(99, 100)), tmp_path).read_text("utf-8")
    assert "黄大力" in text
    read = json.loads(text)
    assert read["format"] == 2
    assert read["reached"] is True
    assert read["missed"] == []
    assert read["identity"] == {"name": "黄大力", "author": "力量工作室", "persona": None}
    recall = read["scores"]["recall"]
    assert (recall["k"], recall["n"], recall["percent"]) == (300, 300, 100.0)
    assert (recall["goal"], recall["reached"], recall["before"]["percent"]) == ("≥ 98", True, 0.0)
    assert read["scores"]["merged_recall"]["percent"] == 99.0
    assert read["before"]["recall"]["role/zh"]["k"] == 0
    assert read["answers"][0]["after"] == "我是黄大力。"


def test_what_was_not_measured_is_null_and_has_no_score():
    read = plain(make_report(retention=None))
    assert read["merged"] is None
    assert read["retention"] is None
    assert not {"merged_recall", "retention"} & read["scores"].keys()


def _no_constants(constant: str):
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize(
    "changes",
    [
        {"kept": Share(0, 0)},
        {"role": Share(0, 0)},
        {"curve": Curve([float("nan"), 1.0, None, float("inf")])},
        {"divergence": Divergence({"all": float("nan")}, (), {}, {}, {"all": 0})},
        {"details": {"training": {"lr": float("nan")}}},
    ],
)
def test_the_file_holds_no_nan(tmp_path: Path, changes: dict):
    text = written(make_report(**changes), tmp_path).read_text("utf-8")
    assert json.loads(text, parse_constant=_no_constants)["format"] == 2


def test_a_report_is_read_as_it_was_written(tmp_path: Path):
    report = large_report()
    read = read_report(written(report, tmp_path))
    assert read.after == report.after
    assert read.divergence == report.divergence
    assert read.spread == report.spread
    assert read.retention == report.retention
    assert list(read.probes) == list(report.probes)
    assert (read.stop, read.merged, read.obedience) == (
        report.stop,
        report.merged,
        report.obedience,
    )
    assert list(read.answers) == list(report.answers)
    assert plain(read) == plain(report)


def test_a_report_with_little_in_it_is_read_as_it_was_written(tmp_path: Path):
    report = make_report(before=None, retention=None, curve=Curve([None, 2.0], [1e-3, 1e-3]))
    assert plain(read_report(written(report, tmp_path))) == plain(report)


def test_a_number_that_was_none_is_none_again():
    read = report_from(plain(make_report(curve=Curve([2.0, float("nan")]))))
    assert read.curve
    assert list(read.curve.losses) == [2.0, None]


def test_a_report_of_tomorrow_with_more_in_it_is_read(tmp_path: Path):
    found = plain(make_report()) | {"moon": "full"}
    assert report_from(found).identity.name == "黄大力"


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as error:
        read_report(path)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "Expecting"),
        ("[]", '"format" is missing'),
        ('{"format": 1}', "format 1"),
        ('{"format": 2}', '"model" is missing'),
    ],
)
def test_what_is_no_report_is_refused_with_the_cure(tmp_path: Path, content: str, why: str):
    (tmp_path / "report.json").write_text(content, "utf-8")
    message = refusal(tmp_path / "report.json")
    assert why in message
    assert "whoamai check" in message


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": 3}, '"model" cannot be 3'),
        ({"kind": "x"}, '"kind" cannot be "x"'),
        ({"answers": [{}]}, '"answers[0].language" is missing'),
        ({"goals": {"recall": "high"}}, '"goals.recall" cannot be "high"'),
        ({"merged": {"recall": {"k": 1, "n": True}}}, '"merged.recall.n" cannot be true'),
        ({"before": {"recall": {"a/b": 1}}}, '"before.recall.a/b" cannot be 1'),
        ({"identity": {"name": ""}}, "empty"),
    ],
)
def test_a_field_of_another_kind_is_named(tmp_path: Path, change: dict, why: str):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(plain(make_report()) | change), "utf-8")
    assert why in refusal(path)


def test_a_missing_file_is_told(tmp_path: Path):
    assert "report.json" in refusal(tmp_path / "report.json")


def test_a_file_of_bytes_is_told(tmp_path: Path):
    (tmp_path / "report.json").write_bytes(b"\xff\xfe\x00")
    refusal(tmp_path / "report.json")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(OutputError):
        make_report().write(tmp_path / "none" / "report.json")
