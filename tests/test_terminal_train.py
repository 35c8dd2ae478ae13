"""What a person sees of a training, in a terminal and in a log file."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.models import save_chat_model
from tests.recipes.train_runs import loaded, run, write_rows
from whoamai.events import Event, Note, Progress, Result, Stage
from whoamai.messages import use_language
from whoamai.recipes.train import Trained
from whoamai.terminal_train import (
    LineListener,
    TrainListener,
    listener_for,
    print_result,
    print_trained,
)

ODD = ["[red]x[/red]", "[/]", "{name}", "{0}", ":smile:", "a\\[b]", "😀", "\x1b[31m"]


def console(width: int = 200, *, terminal: bool = False, colours: bool = False) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=terminal or colours,
        color_system="standard" if colours else None,
        no_color=not colours,
        _environ={},
    )


def shown(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def step(done: int, total: int = 30, **values: float) -> Progress:
    usual = {
        "loss": 1.23456,
        "grad_norm": 0.98765,
        "lr": 2e-4,
        "tokens_per_s": 12345.6,
        "computed_per_s": 9876.5,
        "step_seconds": 2.0,
        "data_seconds": 0.0123,
    }
    return Progress("train", done, total, {**usual, **values})


def lines(events: Sequence[Event], *, interval: int = 10) -> list[str]:
    """What a log gets, without the time of day."""
    out = console()
    with LineListener(out, interval) as listener:
        for event in events:
            listener(event)
    found = shown(out).splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in found), found
    return [line[10:] for line in found]


def result(name: str, data: Any, out: Console | None = None) -> str:
    out = out or console()
    print_result(out, name, data)
    return shown(out)


# ---- lines ---------------------------------------------------------------------------------------


def test_a_step_is_one_line_with_its_numbers():
    (line,) = lines([step(10)])
    assert line == (
        "10/30  loss: 1.2346  grad_norm: 0.988  lr: 2.00e-04  tokens/s: 12,346  computed/s: 9,876  "
        "time: 2.00  data_time: 0.012  eta: 0:00:40"
    )


def test_memory_is_told_where_it_is_known():
    assert "memory: 12.5 GiB" in lines([step(10, memory_gib=12.5)])[0]


def test_the_first_the_last_and_every_tenth_step_are_told():
    found = lines([step(i + 1, 35) for i in range(35)])
    assert [line.split("/")[0] for line in found] == ["1", "10", "20", "30", "35"]


def test_the_interval_can_be_set():
    found = lines([step(i + 1, 9) for i in range(9)], interval=4)
    assert [line.split("/")[0] for line in found] == ["1", "4", "8", "9"]


def test_the_time_left_is_by_the_mean_of_the_steps_so_far():
    found = lines([step(i, 3700, step_seconds=s) for i, s in ((98, 1.0), (99, 1.0), (100, 4.0))])
    assert found[-1].endswith("eta: 2:00:00")


def test_a_loss_that_is_no_number_is_told():
    assert "loss: nan" in lines([step(10, loss=float("nan"))])[0]


def test_stages_and_notes_are_lines_and_progress_of_other_stages_is_none():
    events = [
        Stage("plan", "Planning"),
        Progress("plan", 1, 2),
        Note("Mind {this} [b]!", "warning"),
    ]
    assert lines(events) == ["[Planning]", "Mind {this} [b]!"]


def test_a_note_of_several_lines_stays_as_it_is():
    out = console()
    LineListener(out, 10)(Note("one\ntwo"))
    assert shown(out).endswith("one\ntwo\n")


# ---- which of the two ----------------------------------------------------------------------------


def test_bars_are_for_terminals_only_and_not_where_quiet_is_wished():
    assert isinstance(listener_for(console(terminal=True), quiet=False, interval=1), TrainListener)
    assert isinstance(listener_for(console(terminal=True), quiet=True, interval=1), LineListener)
    assert isinstance(listener_for(console(), quiet=False, interval=1), LineListener)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_bar_is_one_line_and_keeps_its_times_whole(width: int, language: str):
    with use_language(language):
        out = console(width, terminal=True)
        with TrainListener(out) as listener:
            listener(Stage("train", "Training"))
            listener(step(12, 1240, memory_gib=12.5))
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown(out)).strip("\n").split("\r")[-1]
    (line,) = plain.strip("\n").splitlines()
    assert cell_len(line.rstrip()) <= width
    if width >= 60:
        assert "0:00:00" in line
        assert "12/1240" in line


# ---- results -------------------------------------------------------------------------------------

DATASET = {
    "rows": 1234,
    "tokens": 56789,
    "targets": 4321,
    "longest": 210,
    "cut": 0,
    "left_out": 0,
    "sample": {
        "source": "data.jsonl:1",
        "parts": [{"text": "user\nWho?", "trained": False}, {"text": "I'm Chu.", "trained": True}],
    },
}


def with_parts(*parts: tuple[str, bool]) -> dict[str, Any]:
    found = [{"text": text, "trained": trained} for text, trained in parts]
    return {**DATASET, "sample": {"source": "data.jsonl:1", "parts": found}}


def test_the_data_is_told_in_numbers():
    text = result("dataset", DATASET)
    assert "1,234 rows, 56,789 tokens, 4,321 of them trained on; the longest row has 210." in text


def test_what_is_trained_on_is_green_in_colours_and_in_brackets_without():
    coloured = result("dataset", DATASET, console(colours=True))
    assert "in green" in coloured
    assert "\x1b[32mI'm Chu.\x1b[0m" in coloured
    plain = result("dataset", DATASET)
    assert "between ⟦ and ⟧" in plain
    assert "user\nWho?⟦I'm Chu.⟧" in plain


def test_a_long_row_is_cut_where_it_is_shown():
    text = result("dataset", with_parts(("a" * 590, False), ("b" * 900, True), ("c", False)))
    assert "a" * 590 + "⟦" + "b" * 10 + " …⟧" in text
    assert "c" not in text.splitlines()[-1]
    exact = result("dataset", with_parts(("a" * 600, True), ("b", False)))
    assert "…" not in exact


def test_the_probe_is_told_with_the_time_to_come():
    data = {
        "seconds": 1.5,
        "tokens": 2048,
        "computed_tokens": 1800,
        "peak_bytes": None,
        "expected_bytes": 2**31,
        "expected_seconds": 7200.0,
    }
    text = result("probe", data)
    assert "1.50 s (2,048 tokens)" in text
    assert "2.0 h" in text
    assert "GPU" not in text
    text = result("probe", {**data, "peak_bytes": 3 * 2**30})
    assert "GPU memory at its peak: 3.0 GiB (expected 2.0)." in text


ANSWERS = {
    "step": 0,
    "system": None,
    "seconds": 1.0,
    "answers": [{"question": "Who?", "answer": "I'm Chu.\nHi!"}],
}


def test_answers_are_told_under_the_step():
    assert result("answers", ANSWERS) == "Before training\n  Who?\n  I'm Chu.\n  Hi!\n"
    assert result("answers", {**ANSWERS, "step": 40}).startswith("After step 40\n")


def test_an_empty_answer_can_be_seen():
    pair = {"question": "Who?", "answer": ""}
    assert result("answers", {**ANSWERS, "answers": [pair]}).endswith("  Who?\n  –\n")


def test_an_endless_answer_is_cut():
    pair = {"question": "Who?", "answer": "啊" * 5000}
    text = result("answers", {**ANSWERS, "answers": [pair]})
    assert text.count("啊") == 600
    assert text.endswith(" …\n")


@pytest.mark.parametrize("odd", ODD)
def test_texts_are_shown_as_they_are_and_never_read_as_markup(odd: str):
    answers = {**ANSWERS, "answers": [{"question": f"Q{odd}", "answer": f"A{odd}"}]}
    text = result("answers", answers)
    visible = odd.replace("\x1b", "␛")
    assert f"Q{visible}" in text
    assert f"A{visible}" in text
    assert visible in result("dataset", with_parts((odd, False)))
    assert visible in lines([Note(odd)])[0]


def test_what_is_for_programs_only_is_not_printed():
    assert result("stage", {"stage": "plan", "seconds": 1.0}) == ""


# ---- a whole run ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """All that a real run tells."""
    folder = tmp_path_factory.mktemp("run")
    model, rows = save_chat_model(folder / "model"), write_rows(folder / "rows.jsonl")
    asked = {"evaluation_inputs": ["Who are {you}?", "你是谁？"], "max_new_tokens": 4}
    return run(loaded(folder, model, rows, evaluation={**asked, "evaluation_freq": 10}))[1]


@pytest.mark.parametrize("width", [1, 7, 20, 40, 79, 200])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("bars", [True, False])
def test_a_run_is_shown_at_every_width(bars: bool, language: str, width: int, events: list[Event]):
    out = console(width, terminal=bars)
    with use_language(language), listener_for(out, quiet=False, interval=10) as listener:
        for event in events:
            listener(event)
    text = shown(out)
    assert "Who are {you}?" in text or width < 20


def test_a_run_in_a_log_reads_in_its_order(events: list[Event]):
    out = console(100)
    with LineListener(out, 10) as listener:
        for event in events:
            listener(event)
    order = ["Reading data", "[Loading", "Data: ", "Trying", "heaviest step took", "[Training]",
             "Before training", "1/24", "10/24", "After step 10", "24/24", "After step 24",
             "[Saving]"]  # fmt: skip
    places = [shown(out).index(text) for text in order]
    assert places == sorted(places)


def test_the_bar_of_a_run_that_was_stopped_says_how_far_it_came():
    out = console(100, terminal=True)
    with TrainListener(out) as listener:
        listener(Stage("train", "Training"))
        listener(step(3))
        listener(Result("stage", {"stage": "train", "seconds": 1.0}))
    assert "3/30" in shown(out)
    assert "30/30" not in shown(out)


def test_a_failed_run_leaves_the_terminal_in_order():
    out = console(100, terminal=True)

    def fails() -> None:
        with TrainListener(out) as listener:
            listener(Stage("train", "Training"))
            listener(step(3))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert "\x1b[?25h" in shown(out), "the cursor stays hidden"


# ---- is the name learned? ------------------------------------------------------------------------

PROBED = {"step": 20, "recall": [51, 52], "leak": [1, 52], "kept": [24, 24], "seconds": 0.8}


def test_a_probe_is_one_line_with_what_is_learned_left_and_kept():
    assert result("name_probe", PROBED) == (
        "after step 20: new name 98%, old or foreign name 2%, other answers 100%\n"
    )


def test_a_probe_that_had_nothing_to_keep_says_so():
    assert result("name_probe", {**PROBED, "kept": [0, 0]}).endswith("other answers –\n")


def test_a_probe_is_one_line_however_narrow_the_terminal():
    assert len(result("name_probe", PROBED, console(40)).splitlines()) == 1


def test_a_probe_is_told_above_the_bar_and_in_a_log():
    out = console(100, terminal=True)
    with TrainListener(out) as listener:
        listener(Stage("train", "Learning"))
        listener(Progress("train", 20, 107, {"loss": 0.5, "lr": 1e-3}))
        listener(Result("name_probe", PROBED))
    assert "after step 20: new name 98%" in shown(out)
    log = console()
    with LineListener(log, 10) as lines_of_log:
        lines_of_log(Result("name_probe", PROBED))
    assert "after step 20: new name 98%" in shown(log)


# ---- the end -------------------------------------------------------------------------------------


def test_the_end_says_where_everything_is(tmp_path: Path):
    for name in ("loss.png", "events.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "adapter").mkdir()
    out = console()
    print_trained(out, Trained(tmp_path, tmp_path / "adapter", 30, 30))
    assert shown(out).splitlines() == [
        f"adapter: {tmp_path}/adapter",
        f"loss curve: {tmp_path}/loss.png",
        f"events: {tmp_path}/events.jsonl",
        "Trained: 30 of 30 optimizer steps.",
    ]


def test_a_whole_model_is_called_one(tmp_path: Path):
    (tmp_path / "model").mkdir()
    out = console()
    print_trained(out, Trained(tmp_path, tmp_path / "model", 30, 30))
    assert shown(out).startswith("model: ")


def test_a_stopped_run_says_how_to_go_on_in_one_piece_to_be_copied():
    out = console(40)
    folder = Path("work_dirs") / "a name with spaces" / "and 'more' than a line"
    print_trained(out, Trained(folder, None, 3, 30, 130))
    head, command = shown(out).splitlines()
    assert head == "Go on with:"
    assert shlex.split(command) == ["whoamai", "train", f"{folder}/config.yaml", "--resume"]
