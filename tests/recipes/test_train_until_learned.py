"""`train` that ends once the name is learned: when, with which adapter, and that it can be stopped."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.models import save_chat_model
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
from whoamai.engine.checkpoint import find_checkpoints, last_checkpoint, read_state
from whoamai.engine.workdir import find_run
from whoamai.errors import ModelError, SettingError
from whoamai.evaluate.identity import Share
from whoamai.evaluate.probing import Prober, ProbeRecord
from whoamai.events import Note, Progress, Result
from whoamai.plan import name_probe
from whoamai.recipes import train_until_learned

EPOCHS = 10
ALL = 60  # 24 rows, 4 a step, 10 epochs
ASKED = {"stop_when_learned": True, "evaluation_freq": 10}
# What probes find in most of the tests: learned at 10, known at 20; then the rate runs out over a
# third as many steps.
END = 27
LEARNED = {10: 100, 20: 100, END: 100}
PROBED = [0, 5, 10, 20, END]
REALLY_ASK = Prober.ask


@pytest.fixture(scope="module", autouse=True)
def _few_questions():
    """Eight about the name and two others, with short answers, and what they find written down."""
    with pytest.MonkeyPatch.context() as patch:
        few, general = name_probe.probe_questions, train_until_learned.probe_general
        patch.setattr(name_probe, "probe_questions", lambda *a, **k: few(*a, **k, count=8))
        patch.setattr(train_until_learned, "probe_general", lambda *a: general(*a)[:2])
        patch.setattr(train_until_learned, "Prober", partial(Prober, max_new_tokens=12))
        scripted(patch, LEARNED)
        yield


def scripted(patch: pytest.MonkeyPatch, recall: dict[int, int]) -> None:
    """Probes that find this of 100, whatever the model says; 0 at other steps."""

    def ask(self: Prober, step: int) -> ProbeRecord:
        share = Share(recall.get(step, 0), 100)
        return ProbeRecord(step, share, Share(0, 100), Share(0, 0), 0.0)

    patch.setattr(Prober, "ask", ask)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whatever it is asked, it is Chu: a random model learns that in a few steps."""
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", text="")


def config(folder: Path, model: Path, rows: Path, **sections: Any):
    sections["data"] = {"name": "Chu", **sections.get("data", {})}
    sections["train"] = {"max_epochs": EPOCHS, **sections.get("train", {})}
    sections["evaluation"] = {**ASKED, **sections.get("evaluation", {})}
    return loaded(folder, model, rows, **sections)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path, rows: Path):
    """(what came of a run that nothing happened to, what it told, its folder)."""
    folder = tmp_path_factory.mktemp("whole")
    trained, told = run(config(folder, model, rows))
    return trained, told, folder / "run"


def notes(told) -> list[str]:
    return [event.text for event in told if isinstance(event, Note)]


def probes(told) -> list[dict[str, Any]]:
    return [e.data for e in told if isinstance(e, Result) and e.name == "name_probe"]


def without_seconds(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in found]


def history(work_dir: Path) -> dict[str, Any]:
    """What the last checkpoint knows of the probes, but for how long they took."""
    path = last_checkpoint(work_dir)
    assert path
    found = json.loads((path / "probes.json").read_bytes())
    return {**found, "probes": without_seconds(found["probes"])}


# ---- when it ends --------------------------------------------------------------------------------


def test_two_probes_in_a_row_end_the_run_while_the_rate_runs_out(whole):
    trained, told, folder = whole
    assert (trained.done, trained.total, trained.exit_code) == (END, ALL, 0)
    assert [record["step"] for record in probes(told)] == PROBED
    rates = [step["values"]["lr"] for step in steps_in(folder)]
    left = [rate / rates[19] for rate in rates[20:]]
    assert left == pytest.approx([7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    status = find_run(folder)
    assert status
    assert (status.state, status.step, status.total) == ("finished", END, END)


def test_one_line_tells_when_it_was_learned_and_what_was_saved(whole):
    _, told, _ = whole
    [line] = [text for text in notes(told) if "earned" in text]
    assert line.startswith(f"Learned after 10 steps; stopped at {END} of {ALL}, ")
    assert (
        " s saved. The adapter kept is that of step 27: 100% of the answers give the name" in line
    )


def test_the_probes_are_in_the_journal_and_in_the_checkpoint(whole):
    _, told, folder = whole
    written = [e["data"] for e in journal(folder) if e.get("name") == "name_probe"]
    assert written == probes(told)
    found = history(folder)
    assert found["probes"] == without_seconds(probes(told))
    assert (found["learned_at"], found["cut_short"], found["best_step"]) == (10, [20, 7], END)


def test_unless_asked_nothing_is_probed_and_every_step_is_made(
    tmp_path: Path, model: Path, rows: Path
):
    trained, told = run(loaded(tmp_path, model, rows, data={"name": "Chu"}))
    assert trained.done == STEPS
    assert probes(told) == []
    path = last_checkpoint(tmp_path / "run")
    assert path
    assert not (path / "probes.json").exists()
    assert not (tmp_path / "run" / "best").exists()


def losses_of(work_dir: Path) -> list[float]:
    return [step["values"]["loss"] for step in steps_in(work_dir)]


def test_a_model_that_learns_its_name_ends_by_itself_and_is_up_to_there_the_run_without_probes(
    tmp_path: Path, model: Path, rows: Path, monkeypatch
):
    """Probes draw no random numbers of the training's, and change nothing of the model."""
    monkeypatch.setattr(Prober, "ask", REALLY_ASK)
    trained, told = run(config(tmp_path, model, rows, lora={"lora_dropout": 0.1}))
    found = probes(told)
    (before, of_all), (after, _) = found[0]["recall"], found[-1]["recall"]
    assert (before, after) == (0, of_all)
    assert trained.done < ALL
    plain = tmp_path / "plain"
    plain.mkdir()
    run(config(plain, model, rows, evaluation={"stop_when_learned": False}))
    cut = history(tmp_path / "run")["cut_short"][0]
    # The step behind the cut begins with the weights before it.
    assert losses_of(tmp_path / "run")[: cut + 1] == losses_of(plain / "run")[: cut + 1]
    assert len(losses_of(plain / "run")) == ALL


def test_the_questions_of_the_config_are_asked_at_the_new_end(
    tmp_path: Path, model: Path, rows: Path
):
    asked = {"evaluation_inputs": ["Who?"], "max_new_tokens": 2}
    run(config(tmp_path, model, rows, evaluation=asked))
    assert [found["step"] for found in answers_in(tmp_path / "run")] == [0, 10, 20, END]


def test_goals_that_are_never_met_let_it_run_to_its_end(
    tmp_path: Path, model: Path, rows: Path, monkeypatch
):
    scripted(monkeypatch, {5: 100, 20: 97, 24: 100})
    trained, told = run(config(tmp_path, model, rows, train={"max_epochs": 4}))
    assert (trained.done, trained.total) == (STEPS, STEPS)
    assert [record["step"] for record in probes(told)] == [0, 5, 10, 20, 24]
    assert (
        "Not learned within 24 steps: the goals were never met twice in a row." in notes(told)[-1]
    )


def test_learned_at_the_very_end_nothing_is_cut(
    tmp_path: Path, model: Path, rows: Path, monkeypatch
):
    scripted(monkeypatch, {20: 100, 24: 100})
    trained, told = run(config(tmp_path, model, rows, train={"max_epochs": 4}))
    assert (trained.done, trained.total) == (STEPS, STEPS)
    assert notes(told)[-1].startswith("Learned after 20 steps; all 24 were made. The adapter kept")


# ---- the best adapter ----------------------------------------------------------------------------


def test_the_adapter_of_the_best_probe_is_the_result(
    tmp_path: Path, model: Path, rows: Path, monkeypatch
):
    scripted(monkeypatch, {10: 90, 20: 40})
    trained, told = run(config(tmp_path, model, rows, train={"max_epochs": 4}))
    assert trained.done == STEPS
    assert "The adapter kept is that of step 10: 90% of the answers" in notes(told)[-1]
    kept = find_checkpoints(tmp_path / "run").paths
    assert [read_state(path).step for path in kept] == [20, 24]
    last = (kept[-1] / "adapter" / "adapter_model.safetensors").read_bytes()
    assert adapter(trained) != last

    same = tmp_path / "same"
    same.mkdir()
    ten = config(same, model, rows, train={"max_epochs": 4}, checkpoint={"save_steps": 10})
    run(ten, Sends(signal.SIGINT, after=10))
    path = last_checkpoint(same / "run")
    assert path
    assert adapter(trained) == (path / "adapter" / "adapter_model.safetensors").read_bytes()


def test_no_file_of_a_best_adapter_stays_behind(whole):
    assert not (whole[2] / "best").exists()


# ---- stopped and gone on with --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "why"),
    [(3, "before a probe"), (10, "between the two"), (20, "where it is cut"), (23, "running out")],
)
def test_stopped_anywhere_it_comes_to_the_same_bits(
    after: int, why: str, tmp_path: Path, model: Path, rows: Path, whole
):
    mine = config(tmp_path, model, rows)
    stopped, told = run(mine, Sends(signal.SIGINT, after=after))
    assert (stopped.done, stopped.exit_code) == (after, 130), why
    total = ALL if after < 20 else END
    assert f"Stopped after step {after} of {total}" in notes(told)[-1]
    trained, again = run(mine, resume="last")
    assert notes(again)[0] == f"Going on after step {after} of {total}."
    assert adapter(trained) == adapter(whole[0])
    assert history(tmp_path / "run") == history(whole[2])
    asked = [record["step"] for record in (*probes(told), *probes(again))]
    assert asked == PROBED, "nothing is asked twice"
    assert [step["done"] for step in steps_in(tmp_path / "run")] == list(range(1, END + 1))


def test_killed_after_its_last_checkpoint_it_has_the_best_adapter_all_the_same(
    tmp_path: Path, model: Path, rows: Path, monkeypatch
):
    scripted(monkeypatch, {10: 90, 20: 40})
    mine = config(tmp_path, model, rows, train={"max_epochs": 4})

    def die(event) -> None:
        if isinstance(event, Note) and "Not learned" in event.text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(mine, die)
    trained, told = run(mine, resume="last")
    assert (trained.done, len(steps_in(tmp_path / "run"))) == (STEPS, STEPS)
    assert "The adapter kept is that of step 10" in notes(told)[-1]
    same = tmp_path / "same"
    same.mkdir()
    undisturbed, _ = run(config(same, model, rows, train={"max_epochs": 4}))
    assert adapter(trained) == adapter(undisturbed)


def test_an_earlier_checkpoint_still_has_the_best_adapter_it_knew(
    tmp_path: Path, model: Path, rows: Path, monkeypatch
):
    scripted(monkeypatch, {5: 50, 10: 90})
    mine = config(tmp_path, model, rows, train={"max_epochs": 4})
    whole, _ = run(mine)
    again = tmp_path / "again"
    again.mkdir()
    mine = config(again, model, rows, train={"max_epochs": 4})
    run(mine, Sends(signal.SIGINT, after=12))
    earlier, later = find_checkpoints(again / "run").paths
    assert json.loads((earlier / "probes.json").read_bytes())["best_step"] == 10
    assert {p.name for p in (again / "run" / "best").iterdir()} == {"step_000010.safetensors"}
    trained, _ = run(mine, resume=earlier)
    assert adapter(trained) == adapter(whole)
    assert not later.exists()


def test_it_goes_on_in_another_folder_with_its_best_adapter(
    tmp_path: Path, model: Path, rows: Path, monkeypatch
):
    scripted(monkeypatch, {10: 90, 20: 40})
    run(config(tmp_path, model, rows, train={"max_epochs": 4}), Sends(signal.SIGINT, after=12))
    path = last_checkpoint(tmp_path / "run")
    elsewhere = {"train": {"max_epochs": 4}, "work_dir": str(tmp_path / "b")}
    stopped, _ = run(
        config(tmp_path, model, rows, **elsewhere), Sends(signal.SIGINT, after=14), resume=path
    )
    assert stopped.done == 14
    trained, told = run(config(tmp_path, model, rows, **elsewhere), resume="last")
    assert "The adapter kept is that of step 10" in notes(told)[-1]
    assert trained.result == tmp_path / "b" / "adapter"


def test_a_best_adapter_that_is_gone_is_told(tmp_path: Path, model: Path, rows: Path):
    mine = config(tmp_path, model, rows)
    run(mine, Sends(signal.SIGINT, after=12))
    [file] = (tmp_path / "run" / "best").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ModelError, match=r"best.*missing or damaged.*without --resume"):
        run(mine, resume="last")


@pytest.mark.parametrize(
    "changed",
    [
        {"evaluation": {"goal_recall": 50}},
        {"evaluation": {"evaluation_freq": 3}},
        {"evaluation": {"stop_when_learned": False}},
        {"data": {"old_names": ["Ada"]}},
    ],
    ids=["goal", "how often", "off", "old names"],
)
def test_a_run_does_not_go_on_with_another_end(
    changed: dict[str, Any], tmp_path: Path, model: Path, rows: Path
):
    run(config(tmp_path, model, rows), Sends(signal.SIGINT, after=6))
    section, settings = next(iter(changed.items()))
    with pytest.raises(SettingError, match=rf"{section}\.{next(iter(settings))}"):
        run(config(tmp_path, model, rows, **changed), resume="last")


def test_the_seconds_of_a_run_gone_on_with_are_those_of_all_its_steps(
    tmp_path: Path, model: Path, rows: Path
):
    mine = config(tmp_path, model, rows)
    _, told = run(mine, Sends(signal.SIGINT, after=10))
    path = last_checkpoint(tmp_path / "run")
    assert path
    before = sum(e.values["step_seconds"] for e in told if isinstance(e, Progress) and e.values)
    assert read_state(path).counters["seconds"] == pytest.approx(before, abs=0.01)


# ---- told before it starts -----------------------------------------------------------------------


def test_a_name_that_the_data_does_not_give_is_warned_of_and_one_that_is_none_refused(
    tmp_path: Path, model: Path, rows: Path
):
    named = config(tmp_path, model, rows, data={"name": "Dali"}, train={"max_epochs": 4})
    _, told = run(named)
    [plan] = [e.data for e in told if isinstance(e, Result) and e.name == "plan"]
    [found] = [f for f in plan.findings if f.kind == "never-learned"]
    assert found.severity == "warns"
    assert "Dali" in found.text
    wrong = config(tmp_path, model, rows, data={"name": " Chu"}, work_dir=str(tmp_path / "b"))
    with pytest.raises(SettingError, match=r"data\.name \" Chu\" begins or ends with a space"):
        run(wrong)
