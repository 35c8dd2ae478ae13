"""A config trained from end to end: what it leaves, how it is stopped, and that it goes on."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models import make_tokenizer, save_chat_model
from tests.recipes.train_runs import (
    STEPS,
    Sends,
    adapter,
    answers_in,
    journal,
    loaded,
    run,
    steps_in,
    write_rows,
)
from whoamai.config.reading import read_config
from whoamai.data.templates import read_card
from whoamai.engine.checkpoint import find_checkpoints, read_state
from whoamai.engine.workdir import find_run
from whoamai.errors import ModelError, OutputError, SettingError
from whoamai.events import Note, Progress, Result, Stage
from whoamai.recipes.train import TrainRequest, train

ASKED = {"evaluation_inputs": ["Who are {you}?", "名字？"], "max_new_tokens": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path, rows: Path) -> bytes:
    """The adapter of a run that nothing happened to."""
    trained, _ = run(loaded(tmp_path_factory.mktemp("undisturbed"), model, rows))
    return adapter(trained)


def notes(told) -> list[str]:
    return [event.text for event in told if isinstance(event, Note)]


def checkpoints(work_dir: Path) -> list[int]:
    return [read_state(path).step for path in find_checkpoints(work_dir).paths]


# ---- what a run leaves ---------------------------------------------------------------------------


def test_the_adapter_is_one_that_plain_peft_loads(tmp_path: Path, model: Path, rows: Path):
    from peft import PeftModel

    trained, _ = run(loaded(tmp_path, model, rows))
    assert (trained.done, trained.total, trained.exit_code) == (STEPS, STEPS, 0)
    assert trained.result == tmp_path / "run" / "adapter"
    base = AutoModelForCausalLM.from_pretrained(model)
    ids = torch.tensor([make_tokenizer()("Hi 3")["input_ids"]])
    before = base(input_ids=ids).logits
    tuned = PeftModel.from_pretrained(base, str(trained.result))
    assert not torch.allclose(tuned(input_ids=ids).logits, before, atol=1e-3)
    assert read_card(trained.result)


def test_a_whole_model_is_one_that_plain_transformers_loads(tmp_path: Path, rows: Path, capfd):
    stored = save_chat_model(tmp_path / "model", "Llama", dtype=torch.bfloat16)
    capfd.readouterr()
    trained, _ = run(loaded(tmp_path, stored, rows, lora=None, train={"lr": 1e-3}))
    assert capfd.readouterr() == ("", ""), "a library talks to the terminal"
    assert trained.result == tmp_path / "run" / "model"
    found = AutoModelForCausalLM.from_pretrained(trained.result)
    before = AutoModelForCausalLM.from_pretrained(stored)
    assert found.dtype == torch.bfloat16
    changed = [
        not torch.equal(now, then)
        for now, then in zip(found.parameters(), before.parameters(), strict=True)
    ]
    assert sum(changed) > len(changed) / 2
    tokenizer = AutoTokenizer.from_pretrained(trained.result)
    assert tokenizer.chat_template == make_tokenizer().chat_template
    assert checkpoints(tmp_path / "run") == [20, 24]


def test_a_run_writes_down_its_config_and_runs_again_from_it(
    tmp_path: Path, model: Path, rows: Path, undisturbed: bytes
):
    trained, _ = run(loaded(tmp_path, model, rows, model={"dtype": "auto"}))
    written = tmp_path / "run" / "config.yaml"
    copies = [path / "config.yaml" for path in find_checkpoints(tmp_path / "run").paths]
    assert all(copy.read_bytes() == written.read_bytes() for copy in copies)
    again = read_config(written, [f"work_dir={tmp_path / 'again'}"])
    assert again.config.model.dtype == "float32"
    assert adapter(run(again)[0]) == adapter(trained) == undisturbed


def test_only_the_last_checkpoints_are_kept(tmp_path: Path, model: Path, rows: Path):
    limit = {"save_steps": 4, "save_total_limit": 3}
    run(loaded(tmp_path, model, rows, checkpoint=limit))
    assert checkpoints(tmp_path / "run") == [16, 20, 24]


def test_all_checkpoints_are_kept_where_that_is_wished(tmp_path: Path, model: Path, rows: Path):
    run(loaded(tmp_path, model, rows, checkpoint={"save_steps": 9, "save_total_limit": -1}))
    assert checkpoints(tmp_path / "run") == [9, 18, 24]


def test_the_curves_are_a_picture(tmp_path: Path, model: Path, rows: Path):
    run(loaded(tmp_path, model, rows))
    png = (tmp_path / "run" / "loss.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == (960, 600)


def test_the_plan_the_data_and_the_probe_are_told_before_the_first_step(
    tmp_path: Path, model: Path, rows: Path
):
    _, told = run(loaded(tmp_path, model, rows))
    names = [e.name for e in told if isinstance(e, Stage | Result) and e.name != "stage"]
    assert names == ["plan", "plan", "load", "dataset", "probe", "probe", "train", "save"]
    written = [e["name"] for e in journal(tmp_path / "run") if e["event"] == "result"]
    assert [n for n in written if n != "stage"] == ["plan", "dataset", "probe"]


def test_a_trackers_curves_are_written(tmp_path: Path, model: Path, rows: Path):
    pytest.importorskip("tensorboard")
    run(loaded(tmp_path, model, rows, log={"trackers": ["tensorboard"]}))
    assert list((tmp_path / "run" / "tracking").rglob("events.out.tfevents*"))


def test_missing_trackers_are_told_before_anything_is_written(
    tmp_path: Path, model: Path, rows: Path, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = loaded(tmp_path, model, rows, log={"trackers": ["wandb", "swanlab"]})
    with pytest.raises(SettingError, match=r"wandb, swanlab not installed\. pip install wandb"):
        run(config)
    assert not (tmp_path / "run").exists()


# ---- models of other kinds -----------------------------------------------------------------------


def test_an_adapter_is_trained_beside_four_bit_weights(tmp_path: Path, model: Path, rows: Path):
    pytest.importorskip("bitsandbytes")
    config = loaded(
        tmp_path,
        model,
        rows,
        model={"quantization": "nf4"},
        train={"batch_size": 12, "max_epochs": 1},
        allow=["few-steps"],
    )
    trained, _ = run(config)
    assert trained.total == 2
    assert [step["values"]["lr"] > 0 for step in steps_in(tmp_path / "run")] == [True, True]


def test_a_model_that_cannot_fork_is_trained_and_asked_all_the_same(tmp_path: Path, rows: Path):
    changes = {"state_size": 4, "num_attention_heads": None, "num_key_value_heads": None}
    recurrent = save_chat_model(tmp_path / "model", "Mamba", **changes)
    trained, told = run(loaded(tmp_path, recurrent, rows, evaluation=ASKED))
    assert trained.result
    assert any("Beginnings are not shared" in text for text in notes(told))
    assert any("out_proj get no adapter" in text for text in notes(told))
    assert [found["step"] for found in answers_in(tmp_path / "run")] == [0, STEPS]


# ---- questions on the way ------------------------------------------------------------------------


def test_questions_are_asked_when_the_schedule_says(tmp_path: Path, model: Path, rows: Path):
    config = loaded(tmp_path, model, rows, evaluation={**ASKED, "evaluation_freq": 7})
    _, told = run(config)
    order = [
        event.data["step"] if isinstance(event, Result) else f"step {event.done}"
        for event in told
        if isinstance(event, Progress) or (isinstance(event, Result) and event.name == "answers")
    ]
    asked = [i for i in order if isinstance(i, int)]
    assert asked == [0, 7, 14, 21, 24]
    assert order[0] == 0
    assert all(order[order.index(n) - 1] == f"step {n}" for n in asked[1:])
    assert [found["step"] for found in answers_in(tmp_path / "run")] == asked


def test_questions_and_their_system_prompt_stay_as_they_are(
    tmp_path: Path, model: Path, rows: Path
):
    asked = {**ASKED, "system": "You are {nobody}.\nBe kind."}
    run(loaded(tmp_path, model, rows, evaluation=asked))
    (before, after) = answers_in(tmp_path / "run")
    assert [a["question"] for a in before["answers"]] == ["Who are {you}?", "名字？"]
    assert before["system"] == after["system"] == asked["system"]
    text = (tmp_path / "run" / "answers.md").read_text("utf-8")
    assert text.count("> You are {nobody}.\n> Be kind.") == 2
    assert text.count("**Who are {you}?**") == text.count("**名字？**") == 2
    assert "## Before training" in text
    assert f"## After step {STEPS}" in text


def test_asking_changes_nothing_of_what_is_learned(
    tmp_path: Path, model: Path, rows: Path, undisturbed: bytes
):
    trained, _ = run(loaded(tmp_path, model, rows, evaluation={**ASKED, "evaluation_freq": 3}))
    assert adapter(trained) == undisturbed


# ---- stopped, and gone on with -------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_told_to_stop_saves_and_goes_on_to_the_same_bits(
    number: signal.Signals, code: int, tmp_path: Path, model: Path, rows: Path, undisturbed: bytes
):
    config = loaded(tmp_path, model, rows)
    trained, told = run(config, Sends(number, after=7))
    assert (trained.exit_code, trained.done, trained.result) == (code, 7, None)
    assert checkpoints(tmp_path / "run") == [5, 7]
    status = find_run(tmp_path / "run")
    assert status
    assert (status.state, status.step) == ("stopped", 7)
    assert "Ctrl-C again stops at once" in notes(told)[0]
    written = tmp_path / "run" / "config.yaml"
    assert trained.command_to_go_on == f"whoamai train {written} --resume"
    assert f"Stopped after step 7 of {STEPS}" in notes(told)[1]

    trained, told = run(read_config(written), resume="last")
    assert notes(told) == [f"Going on after step 7 of {STEPS}."]
    assert adapter(trained) == undisturbed
    assert [step["done"] for step in steps_in(tmp_path / "run")] == list(range(1, STEPS + 1))


def test_a_run_stopped_again_and_again_ends_in_the_same_bits(
    tmp_path: Path, model: Path, rows: Path, undisturbed: bytes
):
    config = loaded(tmp_path, model, rows)
    for n, step in enumerate((1, 2, 10, 23)):
        trained, _ = run(config, Sends(signal.SIGINT, after=step), resume="last" if n else None)
        assert (trained.done, trained.exit_code) == (step, 130)
    trained, _ = run(config, resume="last")
    assert adapter(trained) == undisturbed


def test_a_stop_in_the_last_step_lets_the_run_end(
    tmp_path: Path, model: Path, rows: Path, undisturbed: bytes
):
    trained, _ = run(loaded(tmp_path, model, rows), Sends(signal.SIGINT, after=STEPS))
    assert trained.exit_code == 0
    assert adapter(trained) == undisturbed


def test_a_second_interrupt_stops_at_once(tmp_path: Path, model: Path, rows: Path):
    config = loaded(tmp_path, model, rows)
    with pytest.raises(KeyboardInterrupt):
        run(config, Sends(signal.SIGINT, after=7, times=2))
    assert checkpoints(tmp_path / "run") == [5]
    status = find_run(tmp_path / "run")
    assert status
    assert status.state == "stopped"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_comes_while_something_is_printed_breaks_nothing(
    tmp_path: Path, model: Path, rows: Path
):
    """Python refuses to write to a stream from a signal handler that has interrupted a write to it."""

    def printing(event) -> None:
        if isinstance(event, Note) and "Stopping" in event.text:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    trained, _ = run(loaded(tmp_path, model, rows), printing, Sends(signal.SIGINT, after=3))
    assert (trained.done, trained.exit_code) == (3, 130)


def test_a_run_goes_on_from_an_earlier_checkpoint(
    tmp_path: Path, model: Path, rows: Path, undisturbed: bytes
):
    config = loaded(tmp_path, model, rows)
    run(config, Sends(signal.SIGINT, after=12))
    assert checkpoints(tmp_path / "run") == [10, 12]
    earlier = find_checkpoints(tmp_path / "run").paths[0]
    trained, told = run(config, resume=earlier)
    assert notes(told) == [f"Going on after step 10 of {STEPS}."]
    assert adapter(trained) == undisturbed


def test_a_run_goes_on_in_another_folder(
    tmp_path: Path, model: Path, rows: Path, undisturbed: bytes
):
    run(loaded(tmp_path, model, rows), Sends(signal.SIGINT, after=12))
    earlier = find_checkpoints(tmp_path / "run").paths[0]
    trained, _ = run(loaded(tmp_path, model, rows, work_dir=str(tmp_path / "b")), resume=earlier)
    assert adapter(trained) == undisturbed
    assert checkpoints(tmp_path / "b") == [20, 24]
    assert checkpoints(tmp_path / "run") == [10, 12]


def test_without_a_checkpoint_a_run_begins_anew(
    tmp_path: Path, model: Path, rows: Path, undisturbed: bytes
):
    config = loaded(tmp_path, model, rows, evaluation=ASKED)
    with pytest.raises(KeyboardInterrupt):
        run(config, Sends(signal.SIGINT, after=3, times=2))
    trained, told = run(config, resume="last")
    assert "There is no checkpoint" in notes(told)[0]
    assert adapter(trained) == undisturbed
    assert [step["done"] for step in steps_in(tmp_path / "run")] == list(range(1, STEPS + 1))
    assert (tmp_path / "run" / "answers.md").read_text("utf-8").count("Before training") == 1


def test_the_picture_of_a_run_gone_on_with_holds_all_its_steps(
    tmp_path: Path, model: Path, rows: Path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        "whoamai.recipes.train.plot_run", lambda path, *curves: drawn.append(curves)
    )
    config = loaded(tmp_path, model, rows)
    run(config, Sends(signal.SIGINT, after=12))
    run(config, resume="last")
    (losses, rates), steps = drawn[0], steps_in(tmp_path / "run")
    assert list(losses) == [step["values"]["loss"] for step in steps]
    assert list(rates) == [step["values"]["lr"] for step in steps]


def test_questions_that_a_stop_cut_off_are_asked_when_the_run_goes_on(
    tmp_path: Path, model: Path, rows: Path
):
    config = loaded(tmp_path, model, rows, evaluation={**ASKED, "evaluation_freq": 6})
    run(config, Sends(signal.SIGINT, after=6))
    assert [found["step"] for found in answers_in(tmp_path / "run")] == [0]
    run(config, Sends(signal.SIGINT, after=9), resume="last")
    run(config, resume="last")
    assert [found["step"] for found in answers_in(tmp_path / "run")] == [0, 6, 12, 18, 24]


def test_another_config_is_refused_naming_what_differs(tmp_path: Path, model: Path, rows: Path):
    run(loaded(tmp_path, model, rows), Sends(signal.SIGINT, after=7))
    written = (tmp_path / "run" / "config.yaml").read_bytes()
    other = loaded(tmp_path, model, rows, lora={"r": 8}, train={"lr": 4e-3, "max_norm": 2})
    with pytest.raises(SettingError) as error:
        run(other, resume="last")
    lines = str(error.value).splitlines()[1:-1]
    assert [line.split(":")[0].strip() for line in lines] == [
        "lora.r",
        "train.lr",
        "train.max_norm",
    ]
    assert "0.005 in the checkpoint, 0.004 now" in lines[1]
    assert (tmp_path / "run" / "config.yaml").read_bytes() == written


def test_other_rows_are_refused(tmp_path: Path, model: Path, rows: Path):
    run(loaded(tmp_path, model, rows), Sends(signal.SIGINT, after=7))
    longer = write_rows(tmp_path / "more.jsonl", 28)
    with pytest.raises(SettingError, match="number of rows: 24 in the checkpoint, 28 now"):
        run(loaded(tmp_path, model, longer), resume="last")
    changed = write_rows(tmp_path / "other.jsonl", text="!")
    with pytest.raises(SettingError, match="the rows' tokens and targets: not the same"):
        run(loaded(tmp_path, model, changed), resume="last")


def test_what_changes_no_result_may_be_changed_on_the_way(
    tmp_path: Path, model: Path, rows: Path, undisturbed: bytes
):
    run(loaded(tmp_path, model, rows), Sends(signal.SIGINT, after=7))
    moved = rows.rename(tmp_path / "moved.jsonl")
    changes = {"checkpoint": {"save_steps": 100}, "evaluation": ASKED, "log": {"interval": 1}}
    trained, _ = run(loaded(tmp_path, model, moved, **changes), resume="last")
    moved.rename(rows)
    assert adapter(trained) == undisturbed


def test_a_finished_run_says_so(tmp_path: Path, model: Path, rows: Path, undisturbed: bytes):
    config = loaded(tmp_path, model, rows)
    run(config)
    before = journal(tmp_path / "run")
    trained, told = run(config, resume="last")
    assert (trained.done, trained.total, trained.exit_code) == (STEPS, STEPS, 0)
    assert [type(event) for event in told] == [Note]
    assert "all 24 steps are done" in notes(told)[0]
    assert adapter(trained) == undisturbed
    assert journal(tmp_path / "run") == before


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, model: Path, rows: Path):
    with pytest.raises(ModelError, match="not a complete checkpoint"):
        run(loaded(tmp_path, model, rows), resume=tmp_path)


# ---- refused -------------------------------------------------------------------------------------


def test_a_run_that_is_not_finished_is_not_overwritten(tmp_path: Path, model: Path, rows: Path):
    config = loaded(tmp_path, model, rows)
    run(config, Sends(signal.SIGINT, after=7))
    with pytest.raises(SettingError, match="step_000007 with --resume"):
        run(config)


def test_a_second_run_in_one_folder_is_refused_naming_the_first(
    tmp_path: Path, model: Path, rows: Path, undisturbed: bytes
):
    config, refused = loaded(tmp_path, model, rows), []

    def start_another(event) -> None:
        if isinstance(event, Progress) and event.done == 3:
            with pytest.raises(OutputError) as error:
                train(TrainRequest(config), events=_silent())
            refused.append(str(error.value))

    trained, _ = run(config, start_another)
    assert "is in use by" in refused[0]
    assert f"{os.getpid()}" in refused[0]
    assert "mine" in refused[0]
    assert adapter(trained) == undisturbed


def _silent():
    from whoamai.events import Events

    return Events()


def test_a_full_disk_is_told_and_the_run_goes_on_once_there_is_room(
    tmp_path: Path, model: Path, rows: Path, undisturbed: bytes
):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    config = loaded(tmp_path, model, rows, evaluation={**ASKED, "evaluation_freq": 7})
    answers = tmp_path / "run" / "answers.md"

    def fill(event) -> None:
        if isinstance(event, Progress) and event.done == 6:
            answers.unlink()
            answers.symlink_to("/dev/full")

    with pytest.raises(OutputError, match=r"No space left.*--resume"):
        run(config, fill)
    answers.unlink()
    trained, _ = run(config, resume="last")
    assert adapter(trained) == undisturbed
