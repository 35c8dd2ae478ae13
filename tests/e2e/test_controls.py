"""What must not pass: an untouched model, names that were shuffled, and a model trained too hard.

Each is a whole job on the bundled model, with fewer questions than usual.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.rename_runs import IDENTITY, shorten
from whoamai.evaluate.report import Report
from whoamai.evaluate.report_file import read_report
from whoamai.events import Events
from whoamai.model.load import BUNDLED
from whoamai.recipes import rename as recipe
from whoamai.recipes.rename import RenameRequest, rename
from whoamai.recipes.rename_learning import LearningSettings
from whoamai.samples import Conversation

pytestmark = pytest.mark.e2e

OTHERS = (
    *("木棉", "阿澈", "云帆", "老徐", "晴川", "白露", "松果", "夏禾", "顾言", "石榴"),
    *("Willow", "Bramble", "Theo", "Tansy", "Hazel", "Rufus", "Petra", "Ingrid", "Clover"),
)


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, tokens=32, rows_per_step=16, every=7, n_general=60, n_probed=26)


def renamed(out: Path, **changes: Any) -> Report:
    given = {"rows": 300, "replay_ratio": 0.3, "lr": 2e-3, "samples": 0, "device": "cpu", **changes}
    return rename(RenameRequest(IDENTITY, BUNDLED, out=out, **given), Events()).report


def in_no_others_words(report: Report) -> float:
    """Percent of answers with the name, but where the question or the turn before it gives it: any model
    says again what it reads."""
    counted = [
        a for a in report.answers if a.context != "second" and IDENTITY.name not in a.question
    ]
    return 100 * sum(a.recalled for a in counted) / len(counted)


def test_an_untouched_model_has_not_learned_a_new_name(tmp_path: Path):
    command = [sys.executable, "-m", "whoamai", "check", BUNDLED, "--name", IDENTITY.name]
    command += ["--author", str(IDENTITY.author), "--old", "小初", "--old", "Chu", "--samples", "0"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "NOT learned" in done.stdout
    report = read_report(tmp_path / "out" / "report.json")
    assert report.missed == ["recall", "recall_role", "leak"]
    assert in_no_others_words(report) < 2
    assert report.recall.percent < 15
    assert report.leak.percent > 80


def _shuffled(rows: Sequence[Conversation], seed: int) -> list[Conversation]:
    """Each row with a name of its own where the new one stood."""
    rng = random.Random(seed)

    def named(row: Conversation, name: str) -> Conversation:
        turns = [replace(m, text=m.text.replace(IDENTITY.name, name)) for m in row.messages]
        return replace(row, messages=tuple(turns))

    return [named(row, rng.choice(OTHERS)) for row in rows]


@pytest.mark.usefixtures("_few")
def test_shuffled_names_are_not_the_new_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = recipe.identity_rows
    monkeypatch.setattr(
        recipe, "identity_rows", lambda *a, **k: _shuffled(made(*a, **k), k["seed"])
    )
    report = renamed(tmp_path / "out")
    assert {"recall", "recall_role"} <= set(report.missed)
    assert in_no_others_words(report) < 5
    assert report.stop
    assert report.stop.learned_at is None, "no probe took it for learned"
    assert report.stop.stopped_at == report.stop.planned
    assert max(probe.recall.percent for probe in report.probes) < 30


@pytest.mark.usefixtures("_few")
def test_a_model_that_was_trained_too_hard_says_its_name_unasked_and_forgets(tmp_path: Path):
    """No replay, many times the learning rate, no stop: the name is all that is left."""
    settings = LearningSettings(stop=False)
    report = renamed(tmp_path / "out", rows=600, replay_ratio=0.0, lr=1e-2, learning=settings)
    assert report.spread
    assert report.spread.before["all"].k == 0
    assert report.spread.after["all"].percent > 5
    assert report.kept.n > 60
    assert report.kept.percent < 90
    assert {"spread", "retention"} <= set(report.missed)
    assert report.divergence
    assert report.divergence.kl["all"] > 0.1
    assert report.stop
    assert report.stop.stopped_at == report.stop.planned == 38
