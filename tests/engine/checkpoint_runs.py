"""Tiny runs that are saved and loaded, for tests of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from tests.models import make_model
from whoamai.engine.checkpoint import (
    TrainState,
    find_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


@dataclass(slots=True)
class Run:
    model: Any
    optimizer: torch.optim.Optimizer


def lora(family: str = "Llama", **changes: Any) -> Any:
    given = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.2, "task_type": "CAUSAL_LM", **changes}
    given = {"target_modules": ["q_proj", "down_proj"], **given}
    torch.manual_seed(1)
    return get_peft_model(make_model(family), LoraConfig(**given))


def whole(**changes: Any) -> Any:
    return make_model("Llama", attention_dropout=0.2, **changes)


KINDS = {
    "lora": lora,
    "rslora": lambda: lora(use_rslora=True),
    "dora": lambda: lora(use_dora=True),
    "pissa": lambda: lora(init_lora_weights="pissa"),
    "head": lambda: lora(target_modules=["q_proj", "lm_head"]),
    "saved module": lambda: lora(modules_to_save=["lm_head"]),
    "biases": lambda: lora("Qwen2", bias="lora_only"),
    "whole": whole,
    "tied": lambda: whole(tie_word_embeddings=True),
    "bfloat16": lambda: whole(dtype=torch.bfloat16),
    "experts": lambda: make_model("Mixtral", num_local_experts=2),
}


def make_run(kind: str = "lora") -> Run:
    model = KINDS[kind]()
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    return Run(model, torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1))


def train(run: Run, steps: range) -> None:
    for step in steps:
        ids = torch.randint(3, 300, (2, 8), generator=torch.Generator().manual_seed(step))
        ids = ids.to(run.model.device)
        run.model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)


def save(run: Run, work_dir: Path, step: int = 5, *, keep: int = -1, **state: Any) -> Path:
    return save_checkpoint(
        work_dir,
        model=run.model,
        optimizer=run.optimizer,
        state=TrainState(step, **state),
        extra_files={"config.yaml": "model: 小初\n", "notes.bin": b"\x00"},
        keep=keep,
    )


def load(path: Path, run: Run) -> TrainState:
    return load_checkpoint(path, model=run.model, optimizer=run.optimizer)


def everything(run: Run) -> dict[str, torch.Tensor]:
    """All parameters, all the optimizer remembers, and what is drawn next."""
    names = {p: name for name, p in run.model.named_parameters()}
    found = {name: p.detach().clone() for p, name in names.items()}
    for p, values in run.optimizer.state.items():
        found |= {f"{key} of {names[p]}": value.clone() for key, value in values.items()}
    return {**found, "drawn": torch.get_rng_state()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if a[name].dtype != b[name].dtype] == []
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def steps(work_dir: Path) -> list[int]:
    return [int(p.name.removeprefix("step_")) for p in find_checkpoints(work_dir).paths]


def of(model: Any) -> Run:
    return Run(model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]))
