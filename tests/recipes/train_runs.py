"""Whole trainings small enough for tests: a model 32 wide, short rows, a second each."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from whoamai.config.reading import LoadedConfig, read_config
from whoamai.events import Event, Events, Progress
from whoamai.recipes.train import Trained, TrainRequest, train

ROWS = 24
STEPS = 24  # 4 rows a step, 4 epochs


def write_rows(file: Path, n: int = ROWS, *, text: str = "{i}") -> Path:
    """`n` conversations in the OpenAI form; every third begins as the one before."""
    lines = []
    for i in range(n):
        talk = [
            {"role": "user", "content": f"Hi {i - (i % 3 == 1)}"},
            {
                "role": "assistant",
                "content": "I'm Chu" + "." * (i % 5) + text.replace("{i}", str(i)),
            },
        ]
        lines.append(json.dumps({"messages": talk}))
    file.write_text("\n".join(lines), "utf-8")
    return file


def settings(model: Path, rows: Path, /, **sections: Any) -> dict[str, Any]:
    """A config with nothing for preflight to find; the sections given change it."""
    plain: dict[str, Any] = {
        "model": {"pretrained_model_name_or_path": str(model), "dtype": "float32", "device": "cpu"},
        "data": {"data_path": str(rows), "max_length": 64, "pack_to_max_length": False},
        "lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1},
        "train": {"batch_size": 4, "max_epochs": 4, "lr": 5e-3},
        "checkpoint": {"save_steps": 5},
    }
    for name, changes in sections.items():
        known = plain.get(name)
        both = isinstance(changes, Mapping) and isinstance(known, Mapping)
        plain[name] = {**known, **changes} if both else changes
    return plain


def write_settings(folder: Path, model: Path, rows: Path, /, **sections: Any) -> Path:
    file = folder / "mine.yaml"
    text = yaml.safe_dump(settings(model, rows, **sections), allow_unicode=True)
    file.write_text(text, "utf-8")
    return file


def loaded(folder: Path, model: Path, rows: Path, /, **sections: Any) -> LoadedConfig:
    """The config read as `train` reads it, with the work folder `folder`/run."""
    sections.setdefault("work_dir", str(folder / "run"))
    return read_config(write_settings(folder, model, rows, **sections))


def run(
    config: LoadedConfig, *listeners: Any, resume: Literal["last"] | Path | None = None
) -> tuple[Trained, list[Event]]:
    told: list[Event] = []
    trained = train(TrainRequest(config, resume), Events([told.append, *listeners]))
    return trained, told


def adapter(trained: Trained) -> bytes:
    assert trained.result
    return (trained.result / "adapter_model.safetensors").read_bytes()


def journal(work_dir: Path) -> list[dict[str, Any]]:
    """events.jsonl, row by row."""
    return [
        json.loads(line) for line in (work_dir / "events.jsonl").read_text("utf-8").splitlines()
    ]


def steps_in(work_dir: Path) -> list[dict[str, Any]]:
    return [e for e in journal(work_dir) if e["event"] == "progress" and e["stage"] == "train"]


def answers_in(work_dir: Path) -> list[dict[str, Any]]:
    found = [e for e in journal(work_dir) if e["event"] == "result" and e["name"] == "answers"]
    return [e["data"] for e in found]


class Sends:
    """A listener that sends this process a signal when so many steps are done."""

    def __init__(self, number: signal.Signals, *, after: int, times: int = 1) -> None:
        self.number, self.after, self.times = number, after, times

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.done == self.after:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
