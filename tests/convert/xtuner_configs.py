"""Small configs in XTuner's form for whole trainings, made of the pieces of test_xtuner_config."""

from __future__ import annotations

from pathlib import Path

from tests.convert.test_xtuner_config import BODY, HEAD

LORA = "dict(type=LoraConfig, r={r}, lora_alpha={alpha}, lora_dropout=0.0, task_type='CAUSAL_LM')"


def write_xtuner_config(
    file: Path,
    model: Path | str,
    rows: Path | str,
    *,
    lora: str | None = LORA.format(r=16, alpha=32),
    lr: float = 1e-2,
    epochs: int = 3,
    batch_size: int = 4,
    accumulative_counts: int = 2,
    max_length: int = 128,
    more: str = "",
) -> Path:
    """LoRA over every linear layer, InternLM2's head among them; `lora` None trains every weight."""
    text = HEAD + BODY.replace(", NF4", "").replace("lora=LORA)", f"lora={lora})") + more
    changes = {
        '"internlm/internlm2_5-7b-chat"': repr(str(model)),
        "'mine.jsonl'": repr(str(rows)),
        "lr = 2e-4": f"lr = {lr}",
        "max_epochs = 3": f"max_epochs = {epochs}",
        "accumulative_counts = 16": f"accumulative_counts = {accumulative_counts}",
        "batch_size=2": f"batch_size={batch_size}",
        "max_length=1024": f"max_length={max_length}",
        "every_n_iters=500": "every_n_iters=100",
        "['你是谁', 'Who are you?']": "['你是谁？'], max_new_tokens=8",
    }
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text, "utf-8")
    return file
