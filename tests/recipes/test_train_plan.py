"""What is decided before the weights are loaded is what `explain` says and what the run then does."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.models import save_chat_model
from tests.recipes.train_runs import Sends, answers_in, loaded, run, steps_in, write_rows
from whoamai.config.reading import LoadedConfig
from whoamai.data.steps import StepSize
from whoamai.engine.checkpoint import find_checkpoints, read_state
from whoamai.engine.probe import Probe
from whoamai.engine.schedule import make_schedule
from whoamai.errors import DataError, SettingError
from whoamai.events import Events, Note, Result, Stage
from whoamai.plan.explain import explain
from whoamai.recipes.train_plan import make_plan, tell_probe
from whoamai.samples import Sample

ASKED = {"evaluation_inputs": ["Name?"], "max_new_tokens": 2, "evaluation_freq": 6}
PACKED = {"max_length": 64, "pack_to_max_length": True}

RUNS: dict[str, dict[str, Any]] = {
    "unpacked": {},
    "packed": {"data": PACKED, "train": {"batch_size": 1, "max_epochs": 3}},
    "packs put together": {
        "data": PACKED,
        "train": {"batch_size": 2, "accumulative_counts": 2, "max_epochs": 9},
    },
    "one epoch": {"train": {"batch_size": 1, "max_epochs": 1}},
    "rows left over": {"train": {"batch_size": 7, "max_epochs": 5}},
    "one step of warmup": {"train": {"warmup_ratio": 0.0}},
    "much warmup": {"train": {"warmup_ratio": 0.4}},
    "another seed": {"train": {"seed": 7}},
    "all weights": {"lora": None, "train": {"lr": 1e-3}},
    "dora": {"lora": {"variant": "dora"}},
    "named layers": {"lora": {"target_modules": ["q_proj", "v_proj"]}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


def agrees(config: LoadedConfig) -> None:
    """The run in the work folder did what `explain` says of its config."""
    steps = explain(replace(config, work_dir=config.work_dir / "new")).steps
    assert steps
    done = steps_in(config.work_dir)
    assert [step["done"] for step in done] == list(range(1, steps.total + 1))
    assert [step["values"]["lr"] for step in done] == list(steps.lr)
    epochs = [int(step["values"]["epoch"]) for step in done]
    assert tuple(epochs.count(n + 1) for n in range(len(steps.per_epoch))) == steps.per_epoch
    assert [found["step"] for found in answers_in(config.work_dir)] == list(steps.evaluations)
    kept = [read_state(path).step for path in find_checkpoints(config.work_dir).paths]
    assert kept == list(steps.kept)
    rising = next(i for i, lr in enumerate(steps.lr) if lr == max(steps.lr))
    assert rising + 1 in (steps.warmup, steps.warmup + 1)


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS.keys())
def test_explain_says_what_the_run_then_does(
    changes: dict[str, Any], tmp_path: Path, model: Path, rows: Path
):
    config = loaded(tmp_path, model, rows, evaluation=ASKED, allow=["few-steps"], **changes)
    explained = explain(config)
    _, told = run(config)
    agrees(config)
    planned = next(e.data for e in told if isinstance(e, Result) and e.name == "plan")
    assert planned.steps == explained.steps
    assert planned.rows == explained.rows
    assert planned.packing == explained.packing
    assert planned.trained == explained.trained
    values = [step["values"] for step in steps_in(config.work_dir)]
    assert explained.rows
    assert sum(v["targets"] for v in values) == explained.rows.targets * len(
        planned.steps.per_epoch
    )


@pytest.mark.parametrize("name", ["unpacked", "packed"])
def test_explain_says_what_a_run_gone_on_with_has_done(
    name: str, tmp_path: Path, model: Path, rows: Path
):
    config = loaded(tmp_path, model, rows, evaluation=ASKED, allow=["few-steps"], **RUNS[name])
    run(config, Sends(signal.SIGINT, after=4))
    run(config, Sends(signal.SIGINT, after=6), resume="last")
    run(config, resume="last")
    agrees(config)


def test_a_warmup_of_one_step_takes_the_full_rate_at_once(tmp_path: Path, model: Path, rows: Path):
    config = loaded(tmp_path, model, rows, train={"warmup_ratio": 0.0})
    run(config)
    assert steps_in(config.work_dir)[0]["values"]["lr"] == config.config.train.lr


@pytest.mark.parametrize("family", ["Qwen3", "Mamba"])
def test_the_trained_numbers_are_those_of_the_checkpoint(family: str, tmp_path: Path, rows: Path):
    from safetensors.torch import load_file

    changes = {"num_attention_heads": None, "num_key_value_heads": None, "state_size": 4}
    folder = save_chat_model(tmp_path / "model", family, **(changes if family == "Mamba" else {}))
    config = loaded(tmp_path, folder, rows)
    trained, _ = run(config)
    assert trained.result
    tensors = load_file(trained.result / "adapter_model.safetensors")
    explained = explain(config).trained
    assert explained
    assert sum(tensor.numel() for tensor in tensors.values()) == explained.total


# ---- what is refused -----------------------------------------------------------------------------

WASTED: dict[str, dict[str, Any]] = {
    "few-steps": {"train": {"batch_size": 24}},
    "lr-high": {"train": {"lr": 0.5}},
    "lr-low": {"train": {"lr": 1e-8}},
    "rows-left-out": {"data": {"max_length": 22}},
    "context": {"model_positions": 16},
    "old-name-left": {"data": {"old_names": ["Chu"]}},
}


@pytest.mark.parametrize("kind", WASTED)
def test_what_would_waste_the_run_is_refused_before_weights_are_loaded(
    kind: str, tmp_path: Path, rows: Path
):
    changes = dict(WASTED[kind])
    limit = changes.pop("model_positions", 512)
    folder = save_chat_model(tmp_path / "model", max_position_embeddings=limit)
    (folder / "model.safetensors").write_bytes(b"no weights")
    told = []
    config = loaded(tmp_path, folder, rows, **changes)
    with pytest.raises(SettingError, match=f"because of .*{kind}") as error:
        run(config, told.append)
    assert f"--allow {kind}" in str(error.value)
    assert [e.name for e in told if isinstance(e, Stage)] == ["plan"]
    assert not config.work_dir.exists()


def test_all_that_is_wrong_is_told_together(tmp_path: Path, model: Path, rows: Path):
    config = loaded(tmp_path, model, rows, train={"batch_size": 24, "lr": 0.5})
    with pytest.raises(SettingError, match=r"few-steps, lr-high"):
        run(config)


def test_what_is_allowed_by_name_is_let_through(tmp_path: Path, model: Path, rows: Path):
    config = loaded(tmp_path, model, rows, train={"batch_size": 24}, allow=["few-steps"])
    trained, told = run(config)
    assert trained.done == trained.total == 4
    planned = next(e.data for e in told if isinstance(e, Result) and e.name == "plan")
    assert "few-steps" in [finding.kind for finding in planned.findings]


def test_one_allowed_kind_lets_no_other_through(tmp_path: Path, model: Path, rows: Path):
    config = loaded(tmp_path, model, rows, train={"batch_size": 24, "lr": 0.5}, allow=["few-steps"])
    with pytest.raises(SettingError, match=r"because of lr-high\."):
        run(config)


def test_an_unknown_kind_is_told_with_the_known_ones(tmp_path: Path, model: Path, rows: Path):
    with pytest.raises(SettingError, match=r"few-stepz.*Known are few-steps"):
        run(loaded(tmp_path, model, rows, allow=["few-stepz"]))


def test_missing_data_is_told(tmp_path: Path, model: Path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        run(loaded(tmp_path, model, tmp_path / "nowhere.jsonl"))
    assert not (tmp_path / "run").exists()


# ---- the probe -----------------------------------------------------------------------------------


def told_of(measured: Probe) -> list[Any]:
    """For 4 rows of 1,000 tokens in two epochs, planned to take 10 GiB."""
    told: list[Any] = []
    schedule = make_schedule(
        [1000] * 4, StepSize(rows=1), epochs=2, seed=0, lr=1e-3, warmup_ratio=0.1
    )
    choice: Any = SimpleNamespace(memory=SimpleNamespace(total=10 * 2**30))
    rows = [Sample((5,) * 1000, (True,) * 1000)] * 4
    tell_probe(measured, schedule, rows, choice, Events([told.append]))
    return told


def test_the_time_is_told_from_the_heaviest_step():
    (result,) = told_of(Probe(0.5, 800, 1000, None, 1024))
    assert result.data["expected_seconds"] == 0.5 / 1000 * 4000 * 2
    assert result.data["peak_bytes"] is None


@pytest.mark.parametrize(("peak_gib", "said"), [(10.0, False), (11.0, False), (12.0, True)])
def test_a_peak_well_above_the_estimate_is_said(peak_gib: float, said: bool):
    told = told_of(Probe(0.5, 800, 1000, int(peak_gib * 2**30), 1024))
    warnings = [e.text for e in told if isinstance(e, Note)]
    assert bool(warnings) == said
    assert not said or "12.0 GiB, more than the 10.0 GiB expected" in warnings[0]


# ---- what a run is -------------------------------------------------------------------------------


def facts(config: LoadedConfig) -> dict[str, Any]:
    return dict(make_plan(config, Events(), resume=False).facts)


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": {"save_steps": 9, "save_total_limit": 1}},
        {"evaluation": ASKED},
        {"log": {"interval": 3}},
        {"train": {"tokens_per_pass": 100}},
        {"train": {"gradient_checkpointing": True}},
        {"train": {"share_prefixes": False}},
        {"model": {"dtype": "auto"}},
        {"work_dir": "elsewhere"},
        {"allow": ["few-steps"]},
    ],
)
def test_what_changes_no_result_is_no_part_of_what_a_run_is(
    changes: dict[str, Any], tmp_path: Path, model: Path, rows: Path
):
    assert facts(loaded(tmp_path, model, rows, **changes)) == facts(loaded(tmp_path, model, rows))


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"lr": 4e-3}},
        {"train": {"seed": 1}},
        {"train": {"betas": [0.9, 0.99]}},
        {"train": {"weight_decay": 0.01}},
        {"lora": {"r": 8}},
        {"lora": {"lora_dropout": 0}},
        {"lora": None},
        {"model": {"dtype": "bfloat16"}},
        {"data": {"system": "Be kind."}},
    ],
)
def test_what_changes_the_result_is(
    changes: dict[str, Any], tmp_path: Path, model: Path, rows: Path
):
    changed = loaded(tmp_path, model, rows, **changes, allow=["lr-high"])
    assert facts(changed) != facts(loaded(tmp_path, model, rows))
