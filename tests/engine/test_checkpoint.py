from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file

from tests.engine.checkpoint_runs import (
    KINDS,
    Run,
    assert_same,
    everything,
    load,
    lora,
    make_run,
    of,
    save,
    steps,
    train,
    whole,
)
from tests.models import make_model
from whoamai.engine import checkpoint, durable
from whoamai.engine.checkpoint import (
    TrainState,
    checkpoint_folder,
    find_checkpoints,
    last_checkpoint,
    read_state,
)
from whoamai.errors import ModelError


@pytest.fixture(scope="module")
def trained() -> Run:
    run = make_run()
    train(run, range(2))
    return run


# ---- going on as if nothing had happened -------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_ends_bit_for_bit_as_one_that_went_on(kind: str, tmp_path: Path):
    straight = make_run(kind)
    torch.manual_seed(7)
    train(straight, range(10))
    expected = everything(straight)

    first = make_run(kind)
    torch.manual_seed(7)
    train(first, range(5))
    path = save(first, tmp_path)
    train(first, range(5, 10))
    assert_same(everything(first), expected)  # saving disturbs nothing

    second = make_run(kind)
    torch.manual_seed(99)
    assert load(path, second).step == 5
    train(second, range(5, 10))
    assert_same(everything(second), expected)


def test_the_order_in_which_the_optimizer_holds_parameters_does_not_matter(tmp_path: Path):
    run = make_run()
    train(run, range(3))
    path, expected = save(run, tmp_path), everything(run)
    other = make_run()
    params = [p for p in other.model.parameters() if p.requires_grad][::-1]
    groups = [{"params": params[:3], "weight_decay": 0.5}, {"params": params[3:]}]
    other.optimizer = torch.optim.AdamW(groups, lr=1e-3)
    load(path, other)
    assert_same(everything(other), expected)
    assert [g["weight_decay"] for g in other.optimizer.param_groups] == [0.5, 0.01]


def test_a_parameter_that_never_had_a_gradient_has_nothing_to_remember(tmp_path: Path):
    run = make_run()
    unused = next(p for p in run.model.parameters() if p.requires_grad)
    train(run, range(2))
    del run.optimizer.state[unused]
    path, expected = save(run, tmp_path), everything(run)
    other = make_run()
    load(path, other)
    assert_same(everything(other), expected)


def test_a_checkpoint_of_before_the_first_step_is_one_too(tmp_path: Path):
    run = make_run()
    path, expected = save(run, tmp_path, 0), everything(run)
    other = make_run()
    load(path, other)
    assert_same(everything(other), expected)


def test_the_state_comes_back_as_it_was(trained: Run, tmp_path: Path):
    state = {
        "epoch": 2,
        "facts": {"rows": 3, "settings": {"lora.r": 4}},
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7},
        "counters": {"tokens": 12345.0},
        "losses": [0.1 + 0.2, None, 1 / 3],
    }
    path = save(trained, tmp_path, **state)
    assert read_state(path) == TrainState(5, **state)
    assert load(path, make_run()) == TrainState(5, **state)


def test_a_checkpoint_is_used_up_once_it_is_loaded(trained: Run, tmp_path: Path):
    """What was loaded does not live in the files: they may go, and change."""
    path, expected = save(trained, tmp_path), everything(trained)
    run = make_run()
    load(path, run)
    for file in path.rglob("*.safetensors"):
        file.write_bytes(bytes(file.stat().st_size))
    assert_same(everything(run), expected)


# ---- what is in it -----------------------------------------------------------------------------------


def test_it_holds_safetensors_json_and_what_the_caller_adds(trained: Run, tmp_path: Path):
    path = save(trained, tmp_path)
    assert path == checkpoint_folder(tmp_path, 5) == tmp_path / "checkpoints" / "step_000005"
    assert {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()} == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "optimizer.safetensors",
        "rng.safetensors",
        "state.json",
        "config.yaml",
        "notes.bin",
        "COMPLETE",
    }
    assert (path / "config.yaml").read_text("utf-8") == "model: 小初\n"
    assert (path / "notes.bin").read_bytes() == b"\x00"
    for name in ("state.json", "COMPLETE", "adapter/adapter_config.json"):
        json.loads((path / name).read_bytes())
    with safe_open(path / "optimizer.safetensors", "pt") as file:
        keys = set(file.keys())
    names = [n for n, p in trained.model.named_parameters() if p.requires_grad]
    assert keys == {f"{key}/{n}" for n in names for key in ("step", "exp_avg", "exp_avg_sq")}
    adapter = load_file(path / "adapter" / "adapter_model.safetensors")
    assert {t.dtype for t in adapter.values()} == {torch.float32}


def test_the_adapter_in_it_is_one_for_peft(trained: Run, tmp_path: Path):
    path = save(trained, tmp_path)
    loaded = PeftModel.from_pretrained(make_model("Llama"), str(path / "adapter"))
    ids = torch.arange(3, 12)[None]
    trained.model.eval()
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, trained.model(input_ids=ids).logits)
    trained.model.train()
    assert trained.model.peft_config["default"].inference_mode is False


@pytest.mark.parametrize("kind", ["whole", "tied", "bfloat16", "experts"])
def test_the_model_in_it_is_one_for_transformers(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoint, "_PART_BYTES", 20_000)
    run = make_run(kind)
    train(run, range(1))
    path = save(run, tmp_path)
    assert len(list((path / "model").glob("model-*.safetensors"))) > 1
    assert len(list(path.glob("optimizer-*.safetensors"))) > 1
    loaded = transformers.AutoModelForCausalLM.from_pretrained(path / "model")
    assert_same(loaded.state_dict(), run.model.state_dict())
    other = make_run(kind)
    load(path, other)
    assert_same(everything(other), everything(run))


def test_the_model_in_it_is_loaded_in_the_precision_it_was_trained_in(tmp_path: Path):
    path = save(of(whole(dtype=torch.bfloat16).float()), tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(path / "model")
    assert loaded.dtype == torch.float32


# ---- which there are ---------------------------------------------------------------------------------


def copies(path: Path, *steps: int) -> None:
    for step in steps:
        shutil.copytree(path, checkpoint_folder(path.parent.parent, step))


def test_they_come_in_the_order_of_their_steps(trained: Run, tmp_path: Path):
    assert find_checkpoints(tmp_path).paths == ()
    assert last_checkpoint(tmp_path) is None
    copies(save(trained, tmp_path), 999_999, 1_000_000, 10)
    (tmp_path / "checkpoints" / "step_final").mkdir()
    (tmp_path / "checkpoints" / ".step_2000000.partial").mkdir()
    assert steps(tmp_path) == [5, 10, 999_999, 1_000_000]
    assert last_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 1_000_000)
    assert find_checkpoints(tmp_path).notes == ()


def test_a_damaged_one_is_skipped_and_told(trained: Run, tmp_path: Path):
    copies(save(trained, tmp_path), 10, 15)
    os.truncate(checkpoint_folder(tmp_path, 15) / "optimizer.safetensors", 10)
    (checkpoint_folder(tmp_path, 10) / "COMPLETE").unlink()
    found = find_checkpoints(tmp_path)
    assert [p.name for p in found.paths] == ["step_000005"]
    assert len(found.notes) == 2
    assert "step_000010" in found.notes[0]
    assert "COMPLETE is missing" in found.notes[0]
    assert "optimizer.safetensors has 10 bytes" in found.notes[1]


@pytest.mark.parametrize(
    ("keep", "left"), [(-1, [5, 10, 15, 20]), (1, [20]), (2, [15, 20]), (9, [5, 10, 15, 20])]
)
def test_old_ones_go_beyond_the_limit(trained: Run, tmp_path: Path, keep: int, left: list[int]):
    copies(save(trained, tmp_path), 10, 15)
    save(trained, tmp_path, 20, keep=keep)
    assert steps(tmp_path) == left
    assert list((tmp_path / "checkpoints").glob(".*")) == []


def test_the_new_one_stays_also_where_later_ones_are_left_of_an_earlier_run(
    trained: Run, tmp_path: Path
):
    copies(save(trained, tmp_path), 10, 15)
    save(trained, tmp_path, 7, keep=1)
    assert steps(tmp_path) == [7]


def test_damaged_ones_do_not_count(trained: Run, tmp_path: Path):
    copies(save(trained, tmp_path), 10, 15)
    (checkpoint_folder(tmp_path, 15) / "COMPLETE").unlink()
    save(trained, tmp_path, 20, keep=2)
    assert steps(tmp_path) == [10, 20]
    assert checkpoint_folder(tmp_path, 15).exists()


def test_one_of_the_same_step_is_replaced(trained: Run, tmp_path: Path):
    save(trained, tmp_path, counters={"tokens": 1.0})
    path = save(trained, tmp_path, keep=1, counters={"tokens": 2.0})
    assert steps(tmp_path) == [5]
    assert read_state(path).counters == {"tokens": 2.0}


# ---- what does not fit -------------------------------------------------------------------------------


def refusal(path: Path, run: Run) -> str:
    """The message; nothing may have been changed."""
    before = everything(run)
    with pytest.raises(ModelError) as error:
        load(path, run)
    assert_same(everything(run), before)
    assert str(path) in str(error.value)
    return str(error.value)


def test_an_adapter_of_another_rank_is_refused_with_the_first_that_differ(
    trained: Run, tmp_path: Path
):
    text = refusal(save(trained, tmp_path), of(lora(r=8)))
    assert "down_proj.lora_A.weight is float32 [4, 64] in the checkpoint" in text
    assert "float32 [8, 64] in the model" in text
    assert "more" in text
    assert "config that is in it" in text


def test_an_adapter_on_other_layers_is_refused(trained: Run, tmp_path: Path):
    path = save(trained, tmp_path)
    wider = refusal(path, of(lora(target_modules=["q_proj", "down_proj", "up_proj"])))
    assert "up_proj.lora_A.weight is not in the checkpoint" in wider
    assert "down_proj.lora_A.weight is not in the model" in refusal(
        path, of(lora(target_modules=["q_proj"]))
    )


def test_another_precision_is_refused(tmp_path: Path):
    path = save(make_run("whole"), tmp_path)
    assert "is float32 [320, 32] in the checkpoint and bfloat16" in refusal(
        path, make_run("bfloat16")
    )


def test_an_adapter_is_not_a_whole_model(trained: Run, tmp_path: Path):
    assert "is not in the checkpoint" in refusal(save(trained, tmp_path), make_run("whole"))


def test_a_parameter_that_is_not_trained_any_more_is_told(tmp_path: Path):
    run = make_run("whole")
    train(run, range(1))
    path = save(run, tmp_path)
    model = whole()
    model.lm_head.requires_grad_(False)
    assert "lm_head.weight is not trained here" in refusal(path, of(model))


def test_one_flipped_bit_is_refused_with_the_cure(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(durable, "_SMALL_BYTES", 100)  # as if its files were large
    path = save(trained, tmp_path)
    with (path / "optimizer.safetensors").open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    text = refusal(path, make_run())
    assert "optimizer.safetensors is damaged" in text
    assert "the one before" in text


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelError, match="COMPLETE is missing"):
            read_state(path)


@pytest.mark.parametrize("content", ['{"format": 2, "step": 3}', "[]", '{"step": 1}', '{"format":'])
def test_a_state_of_another_version_is_refused(content: str, tmp_path: Path):
    path = checkpoint_folder(tmp_path, 5)
    with checkpoint.durable_folder(path) as partial:
        (partial / "state.json").write_text(content, "utf-8")
    with pytest.raises(ModelError, match="version of whoamai"):
        read_state(path)


def test_what_is_trained_but_would_not_be_saved_is_noticed(tmp_path: Path):
    model = lora()
    model.get_base_model().model.norm.weight.requires_grad_(True)
    with pytest.raises(AssertionError, match=r"norm\.weight"):
        save(of(model), tmp_path)
