from __future__ import annotations

import json

import pytest

from whoamai.events import Events, JsonlFile, Note, Progress, Result, Stage


def test_every_listener_hears_every_event_in_order():
    heard: list[tuple[str, str]] = []
    events = Events([lambda e: heard.append(("a", e.text)), lambda e: heard.append(("b", e.text))])
    events.emit(Note("1"))
    events.emit(Note("2"))
    assert heard == [("a", "1"), ("b", "1"), ("a", "2"), ("b", "2")]


def test_also_adds_listeners_to_a_new_stream_only():
    first, second = [], []
    events = Events([first.append])
    events.also(second.append).emit(Note("both"))
    events.emit(Note("one"))
    assert [e.text for e in first] == ["both", "one"]
    assert [e.text for e in second] == ["both"]


def test_a_stage_is_announced_and_closed_with_its_time():
    heard = []
    with Events([heard.append]).stage("load", "Loading"):
        heard.append("work")
    assert heard[:2] == [Stage("load", "Loading"), "work"]
    assert heard[2].name == "stage"
    assert heard[2].data["stage"] == "load"
    assert heard[2].data["seconds"] >= 0


def test_a_stage_that_fails_is_not_told_as_finished():
    heard = []
    with pytest.raises(RuntimeError), Events([heard.append]).stage("load", "Loading"):
        raise RuntimeError
    assert heard == [Stage("load", "Loading")]


def test_track_tells_an_item_done_after_it_was_used():
    heard = []
    for item in Events([heard.append]).track("ab", "work", 2):
        heard.append(item)
    assert heard == ["a", Progress("work", 1, 2), "b", Progress("work", 2, 2)]


def test_the_journal_has_one_json_line_an_event(tmp_path):
    with JsonlFile(tmp_path / "events.jsonl") as journal:
        journal(Stage("load", "载入 {x}\n[b]"))
        journal(Progress("train", 1, 2, {"loss": 0.5}))
        journal(Result("scores", {"recall": {"k": 1, "n": 2}}))
    rows = [json.loads(x) for x in (tmp_path / "events.jsonl").read_text("utf-8").splitlines()]
    times = [row.pop("time") for row in rows]
    assert times == sorted(times)
    assert rows == [
        {"event": "stage", "name": "load", "text": "载入 {x}\n[b]"},
        {"event": "progress", "stage": "train", "done": 1, "total": 2, "values": {"loss": 0.5}},
        {"event": "result", "name": "scores", "data": {"recall": {"k": 1, "n": 2}}},
    ]


def test_the_journal_can_be_read_while_the_job_runs(tmp_path):
    with JsonlFile(tmp_path / "events.jsonl") as journal:
        journal(Note("now"))
        assert "now" in (tmp_path / "events.jsonl").read_text("utf-8")


def test_the_journal_never_holds_what_json_does_not_know(tmp_path):
    with JsonlFile(tmp_path / "events.jsonl") as journal:
        journal(Result("scores", {"percent": float("nan")}))
    text = (tmp_path / "events.jsonl").read_text("utf-8")
    assert "NaN" not in text
    assert json.loads(text)["data"] == {"percent": None}
