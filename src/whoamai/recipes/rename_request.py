"""What the user asked for, what of it can be refused at once, and the numbers that follow from it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whoamai.data.identity import LANGUAGES, Identity, IdentityQuestion, check_languages
from whoamai.data.lint import check_kinds
from whoamai.data.retain import RetainFile
from whoamai.data.steps import StepSize
from whoamai.engine.schedule import Schedule, make_schedule
from whoamai.errors import SettingError
from whoamai.evaluate.report import Goals
from whoamai.messages import tr
from whoamai.model.load import BUNDLED
from whoamai.recipes.output import folder_name, problems_with_folder
from whoamai.recipes.rename_job import problems_with_unfinished
from whoamai.recipes.rename_learning import LearningSettings
from whoamai.recipes.rename_rows import DataRequest
from whoamai.samples import Sample

ROWS_PER_STEP = 16
BETAS = (0.9, 0.99)
_WARMUP_RATIO = 0.1
# More replayed answers than the most only make the job longer.
_MOST_REPLAY, _MOST_KL = 10, 100


@dataclass(frozen=True, slots=True)
class RenameRequest:
    """What the user asked for. `None` means: decide by the model."""

    identity: Identity
    model: str = BUNDLED
    data: tuple[str | Path, ...] = ()
    allow: tuple[str, ...] = ()
    old_names: tuple[str, ...] = ()
    languages: tuple[str, ...] = LANGUAGES
    own_questions: tuple[IdentityQuestion, ...] = ()
    retain: RetainFile | None = None
    out: Path | None = None
    overwrite: bool = False
    resume: bool = False
    merge: bool = False
    seed: int = 0
    rows: int | None = None
    replay_ratio: float | None = None
    replay_near: float = 0.3
    replay_under_data: float = 0.2
    replay_named: float = 0.3
    kl_weight: float = 0.0
    lr: float | None = None
    lora_r: int = 64
    lora_alpha: int = 128
    samples: int = 1
    learning: LearningSettings = field(default_factory=LearningSettings)
    device: str = "auto"
    dtype: str = "auto"
    goals: Goals = field(default_factory=Goals)
    command: str = ""

    @property
    def data_request(self) -> DataRequest:
        return DataRequest(self.data, self.allow, self.old_names, self.languages, self.seed)

    @property
    def out_folder(self) -> Path:
        return self.out or Path("work_dirs") / folder_name(self.identity.name)

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the result, beside identity and model, by the option a user knows it under."""
        return {
            "--data": [str(file) for file in self.data],
            "--old": list(self.old_names),
            "--lang": list(self.languages),
            "--rows": self.rows,
            "--replay": self.replay_ratio,
            "--kl": self.kl_weight,
            "--lr": self.lr,
            "--dtype": self.dtype,
            "--seed": self.seed,
            "--stop": self.learning.stop,
            "--evaluation-freq": self.learning.probe_every,
            "--goal-recall": self.learning.rule.recall,
            "--goal-leak": self.learning.rule.leak,
            "--questions": _counted(self.own_questions),
            "--retain": _counted(self.retain.questions if self.retain else ()),
            "replay": [self.replay_near, self.replay_under_data, self.replay_named],
            "lora": [self.lora_r, self.lora_alpha],
        }


def _counted(asked: Sequence[Any]) -> str:
    """How many there are, and a few digits of a hash: answers from before belong to these questions."""
    return (
        f"{len(asked)} ({hashlib.sha256(repr(asked).encode()).hexdigest()[:8]})" if asked else "0"
    )


def check_request(request: RenameRequest) -> None:
    """Everything that can be refused before any work is done, told together."""
    # What an unfinished renaming left is not what `out` holds.
    problems = problems_with_folder(request.out_folder, overwrite=request.overwrite)
    problems += problems_with_unfinished(
        request.out_folder, resume=request.resume, overwrite=request.overwrite
    )
    for verify, value in ((check_kinds, request.allow), (check_languages, request.languages)):
        try:
            verify(value)
        except SettingError as error:
            problems.insert(0, str(error))
    if request.lr is not None and not 0 < request.lr < 1:
        text = tr("--lr {lr:g} is no learning rate. Try one between 1e-5 and 1e-2.")
        problems.append(text.format(lr=request.lr))
    if request.replay_ratio is not None and not 0 <= request.replay_ratio <= _MOST_REPLAY:
        text = tr("--replay {ratio:g} must be between 0 and {most}.")
        problems.append(text.format(ratio=request.replay_ratio, most=_MOST_REPLAY))
    if not 0 <= request.kl_weight <= _MOST_KL:
        text = tr("--kl {weight:g} must be between 0 and {most}.")
        problems.append(text.format(weight=request.kl_weight, most=_MOST_KL))
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", request.device):
        text = tr("--device {device} is none: say auto, cpu, cuda or cuda:1.")
        problems.append(text.format(device=request.device))
    if not 0 <= request.seed < 2**32:
        problems.append(tr("--seed must be between 0 and 4294967295."))
    if any(not name.strip() for name in request.old_names):
        problems.append(tr("--old is empty. Give the name to look for, or leave it out."))
    if problems:
        raise SettingError("\n".join(problems))


def schedule_for(request: RenameRequest, model: Any, samples: Sequence[Sample]) -> Schedule:
    """One pass over the rows in steps of 16, a tenth of them to warm up."""
    steps = -(-len(samples) // ROWS_PER_STEP)
    return make_schedule(
        [len(sample.input_ids) for sample in samples],
        StepSize(rows=ROWS_PER_STEP),
        epochs=1,
        seed=request.seed,
        lr=learning_rate(model, steps) if request.lr is None else request.lr,
        warmup_ratio=_WARMUP_RATIO,
        save_steps=request.learning.save_steps,
    )


def learning_rate(model: Any, steps: int) -> float:
    """2e-4 for a hidden size of 4,096, more for narrower models (∝ 1/width), at most 1e-3.

    A run of more than 120 steps gets less, or it forgets more than it need:

        lr = min(1e-3, 2e-4 · 4096 / width) · min(1, 120 / steps) ^ 0.4

    Both are rules of thumb; benchmarks/NOTES.md has the runs they come from.
    """
    return min(1e-3, 2e-4 * 4096 / model.config.hidden_size) * min(1, 120 / steps) ** 0.4
