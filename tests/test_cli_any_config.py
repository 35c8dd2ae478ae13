"""`whoamai train FILE.py` and `whoamai explain FILE.py`: XTuner's own files, as a person types it."""

from __future__ import annotations

import json
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from tests.convert.xtuner_configs import LORA, write_xtuner_config
from tests.models import save_internlm2
from tests.recipes.train_runs import write_rows
from whoamai.cli import main

Ran = namedtuple("Ran", "code out err")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    model = save_internlm2(folder / "internlm2")
    rows = write_rows(folder / "rows.jsonl", 24)
    return write_xtuner_config(folder / "mine_e3.py", model, rows)


@pytest.fixture
def whoamai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["whoamai", *map(str, arguments)])
        code: str | int | None = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        return Ran(code or 0, *capsys.readouterr())

    return run


def test_train_takes_xtuner_s_file_and_tells_what_is_otherwise(whoamai, config: Path):
    ran = whoamai("train", config, "model.device=cpu", "--allow", "few-steps")
    assert ran.code == 0, ran.err
    lines = ran.err.splitlines()
    assert lines[0] == f"{config} is a config of XTuner's. It is read as text and never run."
    assert any("trust_remote_code is not followed" in line for line in lines)
    assert "adapter: work_dirs/mine_e3/adapter" in ran.out
    adapter = json.loads(Path("work_dirs/mine_e3/adapter/adapter_config.json").read_text("utf-8"))
    assert (adapter["r"], adapter["lora_alpha"]) == (16, 32)
    assert "output" in adapter["target_modules"], "XTuner adapts InternLM2's head"
    written = Path("work_dirs/mine_e3/config.yaml").read_text("utf-8")
    assert "prompt_template: internlm2_chat" in written


def test_its_adapter_is_merged_by_the_next_command(whoamai, config: Path):
    assert whoamai("train", config, "model.device=cpu", "--allow", "few-steps").code == 0
    base = config.parent / "internlm2"
    ran = whoamai("convert", "merge", base, "work_dirs/mine_e3/adapter", "m", "--device", "cpu")
    assert ran.code == 0, ran.err
    assert "Same answers as with the adapter" in ran.out
    assert "chat template" not in ran.out


def test_every_weight_is_trained_where_it_has_no_lora(whoamai, config: Path, tmp_path: Path):
    base, rows = config.parent / "internlm2", config.parent / "rows.jsonl"
    file = write_xtuner_config(tmp_path / "full.py", base, rows, lora=None, lr=1e-3)
    ran = whoamai("train", file, "model.device=cpu", "--allow", "few-steps")
    assert ran.code == 0, ran.err
    assert Path("work_dirs/full/model/model.safetensors").is_file()


def test_explain_takes_it_too(whoamai, config: Path):
    ran = whoamai("explain", config, "model.device=cpu", "lora.r=8")
    assert ran.code == 0, ran.err
    assert "is a config of XTuner's" in ran.err
    assert "optimizer steps" in ran.out
    ran = whoamai("explain", config, "--json")
    assert json.loads(ran.out)


def test_what_is_wrong_in_it_is_one_message(whoamai, config: Path, tmp_path: Path):
    bad = write_xtuner_config(
        tmp_path / "bad.py", "a/b", "x.jsonl", lr=3.0, lora=LORA.format(r=0, alpha=1)
    )
    for command in ("train", "explain"):
        ran = whoamai(command, bad)
        assert ran.code == 2
        assert "train.lr: 3 is out of range" in ran.err
        assert "lora.r: 0 is out of range" in ran.err
        assert "Traceback" not in ran.err
    assert list(Path.cwd().iterdir()) == []
