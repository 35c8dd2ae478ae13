"""What doctor tries in a process of its own: importing torch, looking at the cards, a training step.

A library that is broken may end its process, hang, or print whatever it likes. So all that imports one
runs as

    python -m whoamai.plan.doctor_child FILE

and appends what it finds to FILE, one JSON object a line as soon as it is known; what the libraries
print goes nowhere near it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whoamai.errors import WhoamaiError


def main(file: Path) -> None:
    """Append {"name", "value"} or {"name", "error"} for each fact."""
    looks = {"torch": _torch, "cards": _cards, "libraries": _libraries, "step": _step, "nf4": _nf4}
    for name, look in looks.items():
        found: dict[str, Any] = {"name": name}
        try:
            found["value"] = look()
        except WhoamaiError as error:
            found["error"] = str(error)
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {error}"
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(found) + "\n")


def read_facts(file: Path) -> Iterator[tuple[str, Any, str | None]]:
    """(name, value, error) of every fact in FILE; a last line that was not finished is left out."""
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        try:
            found = json.loads(line)
        except ValueError:
            return
        yield found["name"], found.get("value"), found.get("error")


# ---- torch and the cards -------------------------------------------------------------------------


def _torch() -> dict[str, Any]:
    """The library as it was imported; `cuda` and `hip`: what it was built for."""
    import torch

    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def _cards() -> dict[str, Any]:
    """Every GPU torch can use; where there is none although torch was built for them, why."""
    import torch

    if not torch.cuda.is_available():
        return {"cards": [], "reason": _why_no_cuda() if torch.version.cuda else None}
    cards = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        free, total = torch.cuda.mem_get_info(i)
        cards.append(
            {
                "name": properties.name,
                "memory": total,
                "free": free,
                "capability": [properties.major, properties.minor],
            }
        )
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {"cards": cards, "bfloat16": bfloat16, "reason": None}


def _why_no_cuda() -> str:
    import torch

    try:
        torch.cuda.init()
    except Exception as error:
        return str(error).split("\n")[0]
    return ""


# ---- the main job --------------------------------------------------------------------------------


def _libraries() -> dict[str, float]:
    """Seconds the imports take that the main job needs."""
    start = time.monotonic()
    from whoamai.model.quantize import require_peft

    require_peft()
    import peft  # noqa: F401
    import transformers  # noqa: F401

    return {"seconds": round(time.monotonic() - start, 2)}


def _step() -> dict[str, Any]:
    """Load the bundled model and take one optimizer step with an adapter on it, on the CPU."""
    from whoamai.data.steps import StepSize
    from whoamai.data.templates import ChatTemplate
    from whoamai.engine.precision import precision_for
    from whoamai.engine.schedule import make_schedule
    from whoamai.engine.trainer import Trainer, TrainSettings
    from whoamai.events import Events
    from whoamai.model.load import BUNDLED, load_chat_model
    from whoamai.model.lora import add_lora
    from whoamai.samples import Conversation, Message

    chat = load_chat_model(BUNDLED, device="cpu", dtype="float32")
    rows = [
        Conversation((Message("user", question), Message("assistant", reply, trained=True)))
        for question, reply in (("Who are you?", "I am Chu."), ("你是谁？", "我是小初。"))
    ]
    template = ChatTemplate(chat.tokenizer, model_type=chat.model.config.model_type)
    samples = [sample for row in rows for sample in template.samples(row)]
    lengths = [len(sample.input_ids) for sample in samples]
    schedule = make_schedule(
        lengths, StepSize(rows=len(rows)), epochs=1, seed=0, lr=1e-3, warmup_ratio=0
    )
    tuned = add_lora(chat.model, r=4, alpha=8, dropout=0.0, seed=0)
    precision = precision_for("float32", "cpu")
    trainer = Trainer(
        tuned, samples, schedule, TrainSettings(), precision=precision, events=Events([])
    )
    (report,) = trainer.steps()
    if not report.applied:
        raise ArithmeticError("the loss or its gradient is not a number")
    return {"loss": report.loss, "seconds": round(report.seconds, 2)}


# ---- 4 bits --------------------------------------------------------------------------------------


def _nf4() -> dict[str, Any]:
    """Can weights be held in nf4 on the device that would be used? `problem`: why not, and the cure."""
    import torch

    from whoamai.model.quantize import problem_with_nf4

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"device": device, "problem": problem_with_nf4(device)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
