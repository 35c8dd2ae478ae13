from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.models import make_tokenizer
from tests.plan.runs import architecture, choice, config, found, machine, rows, with_steps
from whoamai.config import (
    LoraSettings,
    RunConfig,
)
from whoamai.config.reading import read_config
from whoamai.config.shipped import shipped_configs
from whoamai.data.encode import Encoded
from whoamai.engine.workdir import claim
from whoamai.plan.architecture import Architecture, architecture_of
from whoamai.plan.preflight import (
    PreflightFinding,
)
from whoamai.plan.preflight_run import usual_learning_rates
from whoamai.plan.prepare import schedule_for

# ---- optimizer steps -----------------------------------------------------------------------------


def test_one_optimizer_step_an_epoch_is_named_and_refused():
    run = config(pack_to_max_length=True, max_length=2048, accumulative_counts=16)
    finding = found(run, **with_steps(run, rows(*[20] * 1500)))["few-steps"]
    assert finding.severity == "blocks"
    assert "1,500 rows make 3 optimizer steps in 3 epochs" in finding.text
    assert "one optimizer step an epoch" in finding.text
    assert (
        "max_length 2,048 × batch_size 1 × accumulative_counts 16 = 32,768 tokens" in finding.text
    )


def test_each_cure_of_few_steps_gives_the_steps_it_says():
    run = config(pack_to_max_length=True, max_length=2048, batch_size=4, accumulative_counts=16)
    encoded = rows(*[20] * 1500)
    cure = found(run, **with_steps(run, encoded))["few-steps"].cure
    offers = re.findall(r"((?:\w+\.\w+=\w+ ?)+): (\d+) steps", cure)
    assert {c.split("=")[0] for c, _ in offers} == {
        "train.accumulative_counts",
        "data.max_length",
        "data.pack_to_max_length",
        "train.max_epochs",
    }
    for changes, steps in offers:
        assert _steps_with(run, changes, encoded) == int(steps) >= 20


def _steps_with(run: RunConfig, changes: str, encoded: Encoded) -> int:
    """The steps of `run` with changes as a user would give them: "train.batch_size=1 …"."""
    for change in changes.split():
        name, _, value = change.partition("=")
        section, _, key = name.partition(".")
        new = getattr(run, section).model_copy(update={key: yaml.safe_load(value)})
        run = run.model_copy(update={section: new})
    return schedule_for(run, encoded.lengths).total


def test_rows_are_not_to_be_cut_to_have_more_steps():
    run = config(pack_to_max_length=True, max_length=2048, max_epochs=1)
    cure = found(run, **with_steps(run, rows(*[1500] * 5)))["few-steps"].cure
    assert "data.max_length" not in cure
    assert "train.max_epochs=4: 20 steps" in cure


def test_three_rows_leave_only_more_epochs():
    run = config(max_epochs=2, batch_size=2)
    finding = found(run, **with_steps(run, rows(9, 9, 9)))["few-steps"]
    assert "train.max_epochs" in finding.cure
    assert "batch_size" not in finding.cure


def test_a_batch_is_no_smaller_than_it_need_be():
    run = config(max_epochs=2, batch_size=1000)
    cure = found(run, **with_steps(run, rows(*[9] * 460)))["few-steps"].cure
    assert "train.batch_size=51: 20 steps" in cure


def test_twenty_steps_are_enough():
    run = config(max_epochs=1)
    assert "few-steps" not in found(run, **with_steps(run, rows(*[9] * 20)))
    assert "few-steps" in found(run, **with_steps(run, rows(*[9] * 19)))


# ---- learning rate -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "hidden"),
    [
        ({"lr": 2e-4, "r": 64, "lora_alpha": 16}, 4096),  # XTuner's
        ({"lr": 2e-4, "r": 64, "lora_alpha": 16}, 6144),
        ({"lr": 2e-4, "r": 64, "lora_alpha": 16}, 2048),
        ({"lr": 2e-4, "r": 32, "lora_alpha": 64}, 3584),
        ({"lr": 2e-3, "r": 32, "lora_alpha": 64}, 256),  # what rename takes for the bundled model
        ({"lr": 1e-5, "lora": None}, 896),
        ({"lr": 2e-5, "lora": None}, 4096),
    ],
)
def test_usual_learning_rates_are_let_pass(settings: dict[str, Any], hidden: int):
    assert not {"lr-high", "lr-low"} & set(
        found(config(**settings), architecture=architecture(hidden=hidden))
    )


@pytest.mark.parametrize("name", [shipped.name for shipped in shipped_configs()])
def test_the_configs_that_come_along_have_usual_learning_rates(name: str):
    run = read_config(name).config
    arch = architecture_of(run.model.pretrained_model_name_or_path)
    assert not {"lr-high", "lr-low"} & set(found(run, architecture=arch))


@pytest.mark.parametrize(
    ("settings", "hidden", "name", "severity"),
    [
        ({"lr": 0.02}, 4096, "lr-high", "blocks"),
        ({"lr": 1e-3}, 4096, "lr-high", "warns"),
        ({"lr": 2e-4, "lora": None}, 4096, "lr-high", "warns"),
        ({"lr": 2e-3, "lora": None}, 4096, "lr-high", "blocks"),
        ({"lr": 1e-6}, 4096, "lr-low", "blocks"),
        ({"lr": 1e-8, "lora": None}, 4096, "lr-low", "blocks"),
        ({"lr": 2e-4, "r": 64, "lora_alpha": 16}, 256, "lr-low", "warns"),
    ],
)
def test_a_learning_rate_far_outside_is_told(
    settings: dict[str, Any], hidden: int, name: str, severity: str
):
    finding = found(config(**settings), architecture=architecture(hidden=hidden))[name]
    assert finding.severity == severity
    assert f"{hidden:,} wide" in finding.text
    better = float(re.search(r"train\.lr=([0-9.e+-]+)\.", finding.cure)[1])  # pyright: ignore
    assert not {"lr-high", "lr-low"} & set(
        found(config(**{**settings, "lr": better}), architecture=architecture(hidden=hidden))
    )


def test_the_usual_rate_falls_with_what_the_adapter_is_multiplied_by():
    one = usual_learning_rates(config(r=16, lora_alpha=16), 4096)
    four = usual_learning_rates(config(r=16, lora_alpha=64), 4096)
    root = usual_learning_rates(
        RunConfig(lora=LoraSettings(r=16, lora_alpha=16, variant="rslora")), 4096
    )
    assert one == pytest.approx((5e-5, 5e-4))
    assert four == pytest.approx([x / 4 for x in one])
    assert root == pytest.approx([x / 4 for x in one])


# ---- precision -----------------------------------------------------------------------------------


def test_float16_for_a_model_of_bfloat16_is_a_warning_and_for_all_weights_refused():
    lora = found(config(dtype="float16"), architecture=architecture())
    assert lora["fp16-overflow"].severity == "warns"
    assert "bfloat16" in lora["fp16-overflow"].text
    full = found(config(dtype="float16", lora=None, lr=1e-5), architecture=architecture())
    assert full["fp16-overflow"].severity == "blocks"


def test_float16_for_a_model_stored_in_it_is_all_right():
    assert "fp16-overflow" not in found(
        config(dtype="float16"), architecture=architecture(dtype="float16")
    )
    gemma = architecture(dtype="float16", model_type="gemma2")
    assert "fp16-overflow" in found(config(dtype="float16"), architecture=gemma)


def test_what_auto_became_counts():
    run = config(dtype="auto")
    assert "fp16-overflow" not in found(run, architecture=architecture())
    chosen = found(run, architecture=architecture(), choice=choice(dtype="float16"))
    assert "fp16-overflow" in chosen


def test_bfloat16_on_a_card_without_it_is_refused():
    old = machine(bfloat16=False, name="Tesla V100")
    finding = found(config(), machine=old)["no-bfloat16"]
    assert finding.severity == "blocks"
    assert "Tesla V100" in finding.text
    assert "no-bfloat16" not in found(config(), machine=machine())
    cpu = machine(bfloat16=False, device_type="cpu")
    assert "no-bfloat16" not in found(config(), machine=cpu)


# ---- the model's limits --------------------------------------------------------------------------


def test_an_id_beyond_the_embedding_is_refused():
    small = architecture(vocab=4)
    finding = found(config(), architecture=small, tokenizer=make_tokenizer(), encoded=rows(9, 9))[
        "vocabulary"
    ]
    assert finding.severity == "blocks"
    assert "5 (data.jsonl:1)" in finding.text
    assert "4 rows" in finding.text


def test_a_token_that_nothing_uses_is_a_warning():
    tokenizer = make_tokenizer()
    tight = architecture(vocab=len(tokenizer) - 1)
    finding = found(config(), architecture=tight, tokenizer=tokenizer, encoded=rows(9))[
        "vocabulary"
    ]
    assert finding.severity == "warns"
    assert f"{len(tokenizer):,} tokens" in finding.text
    exact = architecture(vocab=len(tokenizer))
    assert "vocabulary" not in found(config(), architecture=exact, tokenizer=tokenizer)


def test_a_max_length_beyond_the_model_warns_and_rows_beyond_it_block():
    run = config(max_length=200)
    small = architecture(max_positions=100)
    assert found(run, architecture=small, encoded=rows(90))["context"].severity == "warns"
    finding = found(run, architecture=small, encoded=rows(90, 120))["context"]
    assert finding.severity == "blocks"
    assert "1 rows are longer: data.jsonl:2" in finding.text
    assert "data.max_length=100" in finding.cure
    assert "context" not in found(run, architecture=architecture(max_positions=None))


# ---- memory and disk -----------------------------------------------------------------------------


def test_a_plan_that_does_not_fit_is_refused_with_its_numbers():
    finding = found(config(), machine=machine(), choice=choice(fits=False))["memory"]
    assert finding.severity == "blocks"
    for part in ("70.0 GiB", "optimizer 56.0 GiB", "A Card", "23.0 GiB", "512 tokens"):
        assert part in finding.text


def _disk(free: float, run: RunConfig, arch: Any) -> dict[str, PreflightFinding]:
    encoded = rows(*[9] * 100)
    known = with_steps(run, encoded)
    return found(run, architecture=arch, machine=machine(disk_free=int(free)), **known)


def test_checkpoints_that_do_not_fit_are_refused():
    """1,000 million weights: a checkpoint is 12 GB, three are there at once; 2 GB at the end."""
    run = config(lora=None, lr=1e-5, dtype="float32", save_steps=10)
    arch = SimpleNamespace(**_values(architecture()), n_parameters=10**9)
    finding = _disk(37.9e9, run, arch)["disk"]
    assert finding.severity == "blocks"
    assert "35.4 GiB" in finding.text
    assert "3 checkpoints of 11.2 GiB" in finding.text
    assert "disk" not in _disk(38.1e9, run, arch)


def test_fewer_checkpoints_are_written_than_may_be_kept():
    run = config(lora=None, lr=1e-5, dtype="float32", save_steps=200)
    arch = SimpleNamespace(**_values(architecture()), n_parameters=10**9)
    assert "2 checkpoints" in _disk(1e9, run, arch)["disk"].text


def test_a_merged_model_that_would_not_fit_is_a_warning():
    """32 layers 4,096 × 4,096 in bfloat16 and the head: 1.2 GiB; the adapter is a few dozen MiB."""
    run = config(save_steps=10, r=8)
    finding = _disk(1e9, run, architecture())["disk"]
    assert finding.severity == "warns"
    assert "A merged model would need 1.2 GiB more" in finding.text
    assert "disk" not in _disk(2e9, run, architecture())


def _values(arch: Architecture) -> dict[str, Any]:
    return {name: getattr(arch, name) for name in Architecture.__dataclass_fields__}


def test_a_folder_with_another_run_is_refused_unless_it_is_to_be_resumed(tmp_path: Path):
    assert "work-dir-used" not in found(config(), work_dir=tmp_path)
    with claim(tmp_path, label="my_config", resume=False) as place:
        place.finished_now(30)
    finding = found(config(), work_dir=tmp_path)["work-dir-used"]
    assert "my_config" in finding.text
    assert "work-dir-used" not in found(config(), work_dir=tmp_path, resume=True)


def test_a_folder_with_other_files_is_refused(tmp_path: Path):
    (tmp_path / "thesis.docx").write_text("mine")
    assert "thesis.docx" in found(config(), work_dir=tmp_path)["work-dir-used"].text
