"""From a config to rows and steps: the one way that training and explaining share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.models import make_tokenizer
from whoamai.config import RunConfig
from whoamai.data.steps import StepSize
from whoamai.data.templates import ChatTemplate
from whoamai.data.xtuner_encoding import XTunerEncoding
from whoamai.errors import DataError, SettingError
from whoamai.events import Events, Note
from whoamai.plan.prepare import Demands, Prepared, demands, prepare, step_size

SYSTEM = "You are a friendly assistant."


def write_rows(
    folder: Path, n: int = 20, *, system: str | None = SYSTEM, reply: str = "hello"
) -> Path:
    file = folder / "rows.jsonl"
    rows = []
    for i in range(n):
        turn = {"input": f"question {i}", "output": f"{reply} {i}"}
        rows.append({"conversation": [{"system": system, **turn} if system else turn]})
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def config_with(file: Path, **sections: dict[str, Any]) -> RunConfig:
    data = {"data_path": str(file), **sections.pop("data", {})}
    return RunConfig.model_validate({"data": data, **sections})


def prepared_with(file: Path, **sections: dict[str, Any]) -> Prepared:
    return prepare(config_with(file, **sections), make_tokenizer(), "qwen3")


def test_packed_steps_are_as_large_as_max_length_times_batch_size_times_accumulation():
    config = RunConfig.model_validate(
        {"data": {"max_length": 100}, "train": {"batch_size": 3, "accumulative_counts": 2}}
    )
    assert step_size(config) == StepSize(tokens=600)


def test_unpacked_steps_are_as_many_rows_as_batch_size_times_accumulation():
    config = RunConfig.model_validate(
        {
            "data": {"pack_to_max_length": False},
            "train": {"batch_size": 3, "accumulative_counts": 2},
        }
    )
    assert step_size(config) == StepSize(rows=6)


def test_every_row_is_in_one_step_of_each_epoch(tmp_path: Path):
    prepared = prepared_with(write_rows(tmp_path), train={"max_epochs": 2})
    schedule = prepared.schedule
    first, last = schedule.epoch_ends
    for start, end in ((0, first), (first, last)):
        rows = [row for step in schedule.steps[start:end] for row in step]
        assert sorted(rows) == list(range(20))


def test_no_packed_step_has_more_tokens_than_its_size(tmp_path: Path):
    prepared = prepared_with(write_rows(tmp_path), data={"max_length": 128})
    lengths = prepared.encoded.lengths
    assert max(sum(lengths[row] for row in step) for step in prepared.schedule.steps) <= 128


def test_schedule_takes_rates_saves_and_questions_from_the_config(tmp_path: Path):
    prepared = prepared_with(
        write_rows(tmp_path),
        data={"pack_to_max_length": False},
        train={"lr": 1e-3, "max_epochs": 1, "warmup_ratio": 0.1},
        checkpoint={"save_steps": 8},
        evaluation={"evaluation_freq": 15, "evaluation_inputs": ["Who are you?"]},
    )
    schedule = prepared.schedule
    assert (schedule.total, schedule.warmup, schedule.peak) == (20, 2, 1e-3)
    assert schedule.saves == [8, 16, 20]
    assert schedule.evaluations == [0, 15, 20]


def test_without_questions_nothing_is_asked(tmp_path: Path):
    prepared = prepared_with(write_rows(tmp_path), evaluation={"evaluation_freq": 1})
    assert prepared.schedule.evaluations == []


def test_a_placeholder_is_filled_in_before_the_rows_are_encoded(tmp_path: Path):
    file = write_rows(tmp_path, 2, reply="I am {{name}}")
    prepared = prepared_with(file, data={"name": "Aurora"})
    assert prepared.conversations[0].messages[-1].text == "I am Aurora 0"
    assert "Aurora" in make_tokenizer().decode(prepared.encoded.samples[0].input_ids)


def test_the_encoding_is_the_template_or_xtuners(tmp_path: Path):
    file = write_rows(tmp_path, 2)
    assert isinstance(prepared_with(file).encoding, ChatTemplate)
    xtuner = {"encoding": "xtuner", "prompt_template": "qwen_chat"}
    assert isinstance(prepared_with(file, data=xtuner).encoding, XTunerEncoding)


def test_xtuners_encoding_without_a_template_name_is_refused(tmp_path: Path):
    with pytest.raises(SettingError, match=r"data\.prompt_template"):
        prepared_with(write_rows(tmp_path), data={"encoding": "xtuner"})


def test_without_a_data_file_the_setting_to_give_is_named():
    with pytest.raises(SettingError, match=r"data\.data_path is empty"):
        prepare(RunConfig(), make_tokenizer(), None)


def test_rows_none_of_which_fits_are_refused_with_their_number(tmp_path: Path):
    with pytest.raises(DataError, match="Of 20 conversations none has a reply"):
        prepared_with(write_rows(tmp_path), data={"max_length": 10})


def test_rows_left_out_are_told_with_their_places(tmp_path: Path):
    file = write_rows(tmp_path, 3)
    long = {"conversation": [{"input": "long " * 100, "output": "x"}]}
    with file.open("a", encoding="utf-8") as out:
        out.write("\n" + json.dumps(long))
    notes: list[Note] = []
    config = config_with(file, data={"max_length": 100})
    prepare(config, make_tokenizer(), None, Events([notes.append]))  # type: ignore[list-item]
    assert [note.level for note in notes] == ["warning"]
    assert "1 rows were left out" in notes[0].text
    assert "rows.jsonl:4" in notes[0].text


def test_demands_count_shared_beginnings_once_in_each_step(tmp_path: Path):
    file = write_rows(tmp_path, 4)
    unpacked = {"pack_to_max_length": False}
    one_step = {"batch_size": 4, "max_epochs": 1}
    config = config_with(file, data=unpacked, train=one_step)
    prepared = prepare(config, make_tokenizer(), None)
    shared = demands(prepared, config)
    off = config_with(file, data=unpacked, train={**one_step, "share_prefixes": False})
    alone = demands(prepared, off)
    fed = [len(sample.input_ids) - 1 for sample in prepared.encoded.samples]
    assert alone.computed == alone.tokens == alone.step_tokens == sum(fed)
    assert shared.tokens == alone.tokens
    assert shared.computed < alone.computed / 2  # the system prompt is most of a row
    assert shared.targets == prepared.encoded.n_targets
    assert shared.longest_row == max(fed)


def test_shares_of_demands_are_of_what_is_computed_and_of_all():
    wanted = Demands(longest_row=10, step_tokens=40, tokens=100, computed=60, targets=15)
    assert wanted.target_share == 0.25
    assert wanted.saved_share == pytest.approx(0.4)
