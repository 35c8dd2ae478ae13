"""What is written down of a training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.engine.rows import lora, samples
from tests.engine.test_trainer import trainer_of
from tests.models import make_tokenizer
from whoamai.data.encode import Encoded
from whoamai.engine.checkpoint import TrainState
from whoamai.engine.trainer import StepReport
from whoamai.events import Events, Note, Result
from whoamai.recipes.train_record import Record, tell_about_data, trained_parts, was_asked
from whoamai.samples import Sample


def report(done: int = 1, **changes: Any) -> StepReport:
    values = {
        "done": done,
        "total": 10,
        "epoch": 1,
        "loss": 2.0 / done,
        "grad_norm": 0.5,
        "lr": 1e-3,
        "targets": 30,
        "logical_tokens": 100,
        "computed_tokens": 80,
        "seconds": 0.5,
        "data_seconds": 0.01,
        "applied": True,
        "peak_bytes": None,
    }
    return StepReport(**{**values, **changes})


def told_by(record: Record, *reports: StepReport) -> list[Any]:
    told: list[Any] = []
    for one in reports:
        record.add(one, Events([told.append]))
    return told


def test_every_step_is_told_with_its_numbers():
    (event,) = told_by(Record({}), report(3))
    assert (event.stage, event.done, event.total) == ("train", 3, 10)
    assert event.values["loss"] == 2.0 / 3
    assert event.values["step_tokens"] == 100
    assert event.values["tokens_per_s"] == 200
    assert event.values["computed_per_s"] == 160
    assert "memory_gib" not in event.values


def test_the_speed_is_that_of_the_steps_alone_since_the_run_began():
    events = told_by(Record({}), report(1), report(2, seconds=1.5))
    assert events[-1].values["tokens_per_s"] == 100


def test_a_step_that_took_no_time_by_a_coarse_clock_is_told_all_the_same():
    (event,) = told_by(Record({}), report(seconds=0.0))
    assert math.isfinite(event.values["tokens_per_s"])


def test_memory_is_told_on_a_gpu():
    (event,) = told_by(Record({}), report(peak_bytes=3 * 2**29))
    assert event.values["memory_gib"] == 1.5


def test_a_step_left_out_has_no_loss_and_is_said():
    record = Record({})
    _, note = told_by(record, report(4, loss=float("nan"), applied=False))
    assert isinstance(note, Note)
    assert note.text.startswith("Step 4:")
    assert record.losses == [None]
    assert record.learning_rates == [1e-3]


def test_what_is_saved_brings_another_record_to_the_same_place():
    trainer = trainer_of(lora(), samples(12), epochs=2)
    record = Record({"rows": 12})
    steps = trainer.steps()
    told_by(record, next(steps), next(steps), next(steps), next(steps))
    steps.close()
    trainer.skipped = 1
    state = record.state(trainer)
    assert isinstance(state, TrainState)
    assert (state.step, state.epoch, state.facts) == (4, 2, {"rows": 12})

    told: list[Any] = []
    other, again = trainer_of(lora(), samples(12), epochs=2), Record({"rows": 12})
    again.go_on(state, other, Events([told.append]))
    assert (other.done, other.skipped) == (4, 1)
    assert again.losses == record.losses
    assert again.learning_rates == record.learning_rates
    assert told == [Note("Going on after step 4 of 6.")]


# ---- the data ------------------------------------------------------------------------------------

TOKENIZER = make_tokenizer()


def row(*parts: tuple[str, bool]) -> Sample:
    pieces = [(TOKENIZER(text, add_special_tokens=False)["input_ids"], t) for text, t in parts]
    ids = tuple(i for found, _ in pieces for i in found)
    return Sample(ids, tuple(t for found, t in pieces for _ in found))


def test_a_row_is_cut_where_training_begins_and_ends():
    parts = [("<|im_start|>user\n名字 {x}?", False), ("我是小初。<|im_end|>", True), ("\n", False)]
    assert trained_parts(row(*parts), TOKENIZER) == parts


def test_a_character_on_both_sides_of_a_border_is_marked():
    ids = TOKENIZER("😀", add_special_tokens=False)["input_ids"]
    assert len(ids) > 1
    parts = trained_parts(Sample(tuple(ids), (False,) + (True,) * (len(ids) - 1)), TOKENIZER)
    assert all("\ufffd" in text for text, _ in parts)


def test_the_data_is_told_in_numbers_with_its_first_row():
    rows = (row(("ab", False), ("c", True)), row(("d", True)))
    told: list[Any] = []
    encoded = Encoded(rows, ("a.jsonl:1", "a.jsonl:3"), ("a.jsonl:3",), ("a.jsonl:2",))
    tell_about_data(encoded, TOKENIZER, Events([told.append]))
    (event,) = told
    assert isinstance(event, Result)
    lengths = [len(r.input_ids) for r in rows]
    assert event.data == {
        "rows": 2,
        "tokens": sum(lengths),
        "targets": encoded.n_targets,
        "longest": max(lengths),
        "cut": 1,
        "left_out": 1,
        "sample": {
            "source": "a.jsonl:1",
            "parts": [{"text": "ab", "trained": False}, {"text": "c", "trained": True}],
        },
    }


# ---- was it asked? -------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    rows = [
        {"event": "result", "name": "answers", "data": {"step": 0, "answers": []}},
        {"event": "progress", "stage": "answers", "done": 7, "total": 9},
        {"event": "note", "text": '{"name": "answers", "data": {"step": 8}}'},
        {"event": "result", "name": "answers", "data": {"step": 6, "answers": ["名字"]}},
    ]
    file = tmp_path / "events.jsonl"
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_text(text + '\n{"event": "result", "name": "answers", "data": {"st', "utf-8")
    return file


@pytest.mark.parametrize(("done", "asked"), [(0, True), (6, True), (7, False), (8, False)])
def test_what_was_asked_is_found_in_the_events_also_behind_a_line_cut_off(
    done: int, asked: bool, journal: Path
):
    assert was_asked(journal, done) == asked


def test_nothing_was_asked_in_an_empty_file(tmp_path: Path):
    (tmp_path / "events.jsonl").touch()
    assert not was_asked(tmp_path / "events.jsonl", 0)
