"""The whole job on tiny random models: it learns nothing worth saying, but everything happens."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.models import save_chat_model
from tests.recipes.rename_runs import request_for, shorten
from tests.recipes.test_rename_rows import write
from whoamai.data.replay import read_questions
from whoamai.errors import DataError, ModelError, OutputError, SettingError
from whoamai.evaluate.report import Goals
from whoamai.evaluate.report_file import read_report, report_json
from whoamai.events import Events, Progress, Result, Stage
from whoamai.recipes import rename as recipe
from whoamai.recipes.rename import Renamed, RenameStopped, rename


@pytest.fixture(scope="module")
def _short():
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


pytestmark = pytest.mark.usefixtures("_short")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "Qwen3": save_chat_model(folder / "qwen3", "Qwen3", dtype=torch.bfloat16),
        "Llama": save_chat_model(folder / "llama", "Llama", tie_word_embeddings=True),
    }


@pytest.fixture(scope="module", params=["Qwen3", "Llama"])
def done(request, models, tmp_path_factory, _short) -> tuple[Renamed, list, Path]:
    heard: list = []
    out = tmp_path_factory.mktemp("done") / "out"
    job = request_for(models[request.param], out, merge=True)
    return rename(job, Events([heard.append])), heard, models[request.param]


def test_everything_is_where_it_is_said_to_be(done):
    renamed, _, _ = done
    out = renamed.report_file.parent
    assert sorted(p.name for p in out.iterdir()) == [
        "adapter",
        "events.jsonl",
        "merged",
        "report.html",
        "report.json",
    ]
    assert renamed.adapter == out / "adapter"
    assert renamed.merged == out / "merged"
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_the_report_file_is_the_report(done):
    renamed, _, _ = done
    read = json.loads(renamed.report_file.read_text("utf-8"))
    assert read["reached"] is True
    assert read["details"]["rows"]["identity"] == 24
    assert read["details"]["training"]["steps"] == len(read["curve"]["losses"])
    assert read["scores"]["merged_recall"]["n"] > 0
    assert len(read["answers"]) == len(renamed.report.answers)
    assert report_json(read_report(renamed.report_file)) == read


def test_the_report_file_holds_no_nan(done):
    assert "NaN" not in done[0].report_file.read_text("utf-8")


def test_plain_transformers_loads_the_merged_model_in_the_bases_precision(done):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    renamed, _, base = done
    assert renamed.merged is not None
    merged = AutoModelForCausalLM.from_pretrained(renamed.merged)
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert type(merged) is type(plain)
    assert (
        merged.dtype == plain.dtype == (torch.bfloat16 if base.name == "qwen3" else torch.float32)
    )
    assert set(merged.state_dict()) == set(plain.state_dict())
    assert AutoTokenizer.from_pretrained(renamed.merged).chat_template


def test_the_merged_model_is_the_base_with_the_adapter_added(done):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    renamed, _, base = done
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(renamed.merged, dtype=torch.float32)
    expected = PeftModel.from_pretrained(plain, str(renamed.adapter)).merge_and_unload()
    for (name, p), q in zip(merged.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=2**-7, atol=1e-6), name


def test_the_adapter_learned_something(done):
    from safetensors.torch import load_file

    weights = load_file(done[0].adapter / "adapter_model.safetensors")
    assert all(w.abs().max() > 0 for n, w in weights.items() if "lora_B" in n)


def test_the_stages_are_told_in_order(done):
    stages = [e.name for e in done[1] if isinstance(e, Stage)]
    assert stages == ["load", "before", "replay", "train", "after", "save"]
    finished = [e.data["stage"] for e in done[1] if isinstance(e, Result) and e.name == "stage"]
    assert finished == stages


def test_progress_never_runs_past_its_total(done):
    progress = [e for e in done[1] if isinstance(e, Progress)]
    assert {e.stage for e in progress} >= {"before", "replay", "train", "after"}
    assert all(0 < e.done <= e.total for e in progress)


def test_the_journal_is_json_lines_of_the_whole_job(done):
    lines = (done[0].report_file.parent / "events.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert {r["name"] for r in rows if r["event"] == "stage"} >= {"before", "train", "save"}
    assert sum(r["event"] == "progress" and r["stage"] == "train" for r in rows) > 0


def test_the_same_seed_gives_the_same_adapter_to_the_bit(models, tmp_path: Path):
    adapters = []
    for name in ("a", "b"):
        torch.rand(len(name))
        renamed = rename(request_for(models["Qwen3"], tmp_path / name), Events())
        adapters.append((renamed.adapter / "adapter_model.safetensors").read_bytes())
        assert renamed.merged is None
    assert adapters[0] == adapters[1]


def test_goals_that_were_missed_are_in_the_report(models, tmp_path: Path):
    job = replace(request_for(models["Qwen3"], tmp_path / "out"), goals=Goals())
    renamed = rename(job, Events())
    assert "recall" in renamed.report.missed
    assert json.loads(renamed.report_file.read_text("utf-8"))["reached"] is False


@pytest.mark.parametrize("stage", ["before", "replay", "train"])
def test_ctrl_c_leaves_nothing(models, tmp_path: Path, stage: str):
    def interrupt(event):
        if isinstance(event, Progress) and event.stage == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rename(request_for(models["Qwen3"], tmp_path / "work" / "out"), Events([interrupt]))
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_saving_keeps_the_earlier_results(models, tmp_path: Path, monkeypatch):
    """And what was trained, which the next one goes on from (test_rename_job.py)."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text("old")

    def interrupt(model, folder, base):
        folder.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "save_adapter", interrupt)
    with pytest.raises(RenameStopped, match="--resume"):
        rename(request_for(models["Qwen3"], out, overwrite=True), Events())
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.partial", "out"]
    assert (out / "report.json").read_text() == "old"


def test_a_disk_that_fills_up_while_saving_is_told_and_what_was_trained_is_kept(
    models, tmp_path: Path, monkeypatch
):
    def full(model, folder, base):
        folder.mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    job = request_for(models["Qwen3"], tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "save_adapter", full)
        with pytest.raises(OutputError, match="No space left") as error:
            rename(job, Events())
    assert len(str(error.value).splitlines()) == 1
    rename(replace(job, resume=True), Events())
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_disk_that_is_full_at_the_first_checkpoint_is_told_and_leaves_nothing(
    models, tmp_path: Path, monkeypatch
):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("whoamai.recipes.rename_job.replace_file", full)
    with pytest.raises(OutputError, match="No space left") as error:
        rename(request_for(models["Qwen3"], tmp_path / "out"), Events())
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_refused_at_once_is_told_together(tmp_path: Path):
    (tmp_path / "out").write_text("")
    job = request_for(tmp_path / "no-model", tmp_path / "out", languages=("zh", "fr"))
    with pytest.raises(SettingError) as error:
        rename(job, Events())
    assert "zh,fr: known languages are zh, en" in str(error.value)
    assert "is a file" in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [{"lr": -1.0}, {"lr": 0.0}, {"lr": float("nan")}, {"lr": float("inf")},
     {"replay_ratio": float("nan")}, {"replay_ratio": float("inf")}, {"old_names": ("",)},
     {"seed": 2**70}, {"languages": ()}],
    ids=str,
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_refused_before_any_work(tmp_path: Path, changes: dict):
    """The model is not there: a job that got as far as loading it would say so."""
    job = replace(request_for(tmp_path / "no-model", tmp_path / "out"), **changes)
    with pytest.raises(SettingError):
        rename(job, Events())


def test_a_model_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(ModelError, match="no model folder"):
        rename(request_for(tmp_path / "no-model", tmp_path / "out"), Events())


def test_too_little_space_is_told_before_training(models, tmp_path: Path, monkeypatch):
    def full(folder, needed):
        assert needed > sum(f.stat().st_size for f in models["Qwen3"].glob("*.safetensors"))
        raise OutputError("full")

    monkeypatch.setattr(recipe, "check_space", full)
    heard: list = []
    with pytest.raises(OutputError, match="full"):
        rename(request_for(models["Qwen3"], tmp_path / "out", merge=True), Events([heard.append]))
    assert not [e for e in heard if isinstance(e, Progress)]


# ---- the user's own data -------------------------------------------------------------------------


def test_bad_data_is_told_before_the_model_is_loaded(tmp_path: Path):
    (tmp_path / "d.jsonl").write_text("")
    job = request_for(tmp_path / "no-model", tmp_path / "out", data=(tmp_path / "d.jsonl",))
    with pytest.raises(DataError, match="empty"):
        rename(job, Events())


def test_the_datas_system_prompts_are_asked_under_too(models, tmp_path: Path):
    data = write(tmp_path / "d.jsonl", "我是小初。", "我叫小初。")
    renamed = rename(request_for(models["Llama"], tmp_path / "out", data=(data,)), Events())
    systems = {a.system for a in renamed.report.answers if a.context == "named"}
    assert systems == {"你是黄大力。"}


def test_there_are_general_questions_in_both_languages():
    assert {r["language"] for r in read_questions("general.jsonl")} == {"zh", "en"}
