"""Whole renamings small enough for tests: a random model 32 wide, few questions, answers of 3 tokens."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from whoamai.data.general import GeneralQuestion
from whoamai.data.identity import Identity
from whoamai.evaluate import talk
from whoamai.evaluate.identity import Share
from whoamai.evaluate.probing import Prober, ProbeRecord
from whoamai.evaluate.report import Goals
from whoamai.events import Event, Events
from whoamai.recipes import check as check_recipe
from whoamai.recipes import exam, rename_request, rename_tell
from whoamai.recipes import rename as recipe
from whoamai.recipes.rename import Renamed, RenameRequest, rename
from whoamai.samples import Conversation, Message

# A random model misses every other goal.
EASY = Goals(recall=0, recall_role=0, leak=100, spread=100, retention=0, retention_long=0)
IDENTITY = Identity("黄大力", "力量工作室")


def shorten(
    patch: pytest.MonkeyPatch,
    *,
    tokens: int = 3,
    rows_per_step: int = 4,
    every: int = 23,
    n_general: int = 2,
    n_probed: int = 4,
) -> None:
    """Few questions, short answers (random models never stop by themselves), few rows a step."""
    questions, general, long = exam.questions, exam.general_questions, exam.under_long_systems
    strangers, texts = exam.stranger_questions, recipe.general_texts
    probed, kept = recipe.probe_questions, recipe.probe_general
    of: Any = talk.Talk.answers
    patch.setattr(of, "__kwdefaults__", {**of.__kwdefaults__, "max_new_tokens": tokens})
    patch.setattr(recipe, "Prober", partial(Prober, max_new_tokens=tokens))
    patch.setattr(exam, "questions", lambda *a, **k: questions(*a, **k)[::every])
    patch.setattr(
        exam, "general_questions", lambda *a: general(*a)[: exam.PROBE_GENERAL + n_general]
    )
    patch.setattr(exam, "under_long_systems", lambda *a: _without_length(long(*a)[:2]))
    patch.setattr(exam, "stranger_questions", lambda languages, seed: strangers(languages, seed, 1))
    patch.setattr(recipe, "probe_questions", lambda *a, **k: probed(*a, **k)[:n_probed])
    patch.setattr(recipe, "probe_general", lambda *a: kept(*a)[:2])
    for where in (rename_request, rename_tell):
        patch.setattr(where, "ROWS_PER_STEP", rows_per_step)
    for where in (recipe, check_recipe):
        patch.setattr(where, "general_texts", lambda languages, *_: texts(languages, 1))


def _without_length(asked: list[GeneralQuestion]) -> list[GeneralQuestion]:
    """Questions under long system prompts, these cut: tiny models read 512 tokens."""
    short = []
    for question in asked:
        system, *turns = question.conversation.messages
        turns = (Message("system", system.text[:40]), *turns)
        short.append(replace(question, conversation=Conversation(turns)))
    return short


def request_for(model: Path, out: Path, **changes: Any) -> RenameRequest:
    given = {"rows": 24, "replay_ratio": 0.25, "samples": 0, "goals": EASY, **changes}
    return RenameRequest(identity=IDENTITY, model=str(model), out=out, device="cpu", **given)


def run(request: RenameRequest, *listeners: Any) -> tuple[Renamed, list[Event]]:
    told: list[Event] = []
    return rename(request, Events([told.append, *listeners])), told


def adapter_of(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


# ---- a prober whose findings are written down beforehand -----------------------------------------


def found(step: int, recall: int, leak: int = 0, kept: int = 10) -> ProbeRecord:
    """Of 100 answers `recall` give the name and `leak` an old one; `kept` of 10 others are right."""
    return ProbeRecord(step, Share(recall, 100), Share(leak, 100), Share(kept, 10), 0.0)


class Scripted:
    """Stands in for a Prober: recall by step, and the trained parameters as they were then."""

    def __init__(self, recall: dict[int, int], model: Any = None) -> None:
        self.asked: list[int] = []
        self.seen: dict[int, list[torch.Tensor]] = {}
        self._recall = recall
        self._model = model

    def ask(self, step: int) -> ProbeRecord:
        self.asked.append(step)
        if self._model is not None:
            assert not self._model.training
            self.seen[step] = trained(self._model)
        return found(step, self._recall.get(step, 0))


def trained(model: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


def script_probes(patch: pytest.MonkeyPatch, recall: dict[int, int]) -> list[int]:
    """Every prober of a renaming finds what is written here; returns the steps it was asked at."""
    asked: list[int] = []

    def ask(self: Prober, step: int) -> ProbeRecord:
        asked.append(step)
        return found(step, recall.get(step, 0))

    patch.setattr(Prober, "ask", ask)
    return asked
