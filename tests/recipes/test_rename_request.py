"""What is refused at once, and the numbers that follow from what was asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.models import make_model
from whoamai.data.general import GeneralQuestion
from whoamai.data.identity import Identity, IdentityQuestion
from whoamai.data.retain import RetainFile
from whoamai.errors import SettingError
from whoamai.evaluate.probing import StopRule
from whoamai.recipes.rename_learning import LearningSettings
from whoamai.recipes.rename_request import (
    RenameRequest,
    check_request,
    learning_rate,
    schedule_for,
)
from whoamai.samples import Conversation, Message, Sample


def request(tmp_path: Path, **changes: Any) -> RenameRequest:
    return RenameRequest(Identity("黄大力"), out=tmp_path / "out", **changes)


def own(text: str) -> IdentityQuestion:
    return IdentityQuestion("zh", "own", "none", Conversation((Message("user", text),)))


# ---- refused -------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_the_defaults(tmp_path: Path):
    check_request(request(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"lr": 0.0}, "--lr 0 "),
        ({"lr": 1.0}, "--lr 1 "),
        ({"lr": float("nan")}, "--lr nan"),
        ({"replay_ratio": -0.1}, "--replay -0.1"),
        ({"replay_ratio": 11.0}, "--replay 11"),
        ({"kl_weight": -1.0}, "--kl -1"),
        ({"kl_weight": float("inf")}, "--kl inf"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
        ({"old_names": ("小初", " ")}, "--old is empty"),
        ({"languages": ("fr",)}, "--lang fr"),
        ({"allow": ("nonsense",)}, "nonsense"),
        ({"device": "gpu"}, "--device gpu"),
        ({"resume": True}, "no unfinished renaming"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], part: str):
    with pytest.raises(SettingError) as error:
        check_request(request(tmp_path, **changes))
    assert part in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_all_that_is_wrong_is_told_together(tmp_path: Path):
    (tmp_path / "out").write_text("")
    wrong = request(tmp_path, lr=2.0, kl_weight=-1.0, seed=-1, languages=("xx",))
    with pytest.raises(SettingError) as error:
        check_request(wrong)
    told = str(error.value).splitlines()
    assert len(told) == 5
    for part in ("--lang", "is a file", "--lr", "--kl", "--seed"):
        assert sum(part in line for line in told) == 1, part


# ---- what a renaming is --------------------------------------------------------------------------


def test_facts_go_into_json_and_come_out_the_same(tmp_path: Path):
    facts = request(tmp_path, data=(tmp_path / "d.jsonl",), own_questions=(own("?"),)).facts
    assert json.loads(json.dumps(facts)) == facts


def test_what_changes_nothing_that_is_learned_is_no_fact(tmp_path: Path):
    plain = request(tmp_path)
    beside = replace(
        plain, merge=True, out=tmp_path / "other", overwrite=True, resume=True, command="x"
    )
    assert beside.facts == plain.facts


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 1e-3},
        {"rows": 10},
        {"seed": 1},
        {"kl_weight": 0.1},
        {"replay_near": 0.1},
        {"lora_r": 8},
        {"dtype": "float32"},
        {"learning": LearningSettings(stop=False)},
        {"learning": LearningSettings(probe_every=10)},
        {"learning": LearningSettings(rule=StopRule(recall=90))},
        {"own_questions": (own("谁？"),)},
    ],
    ids=str,
)
def test_what_changes_the_result_is_a_fact(tmp_path: Path, changes: dict[str, Any]):
    assert request(tmp_path, **changes).facts != request(tmp_path).facts


def test_other_questions_of_the_same_number_are_other_facts(tmp_path: Path):
    """The answers from before are kept in their order: they must be answers to these questions."""
    assert (
        request(tmp_path, own_questions=(own("a"),)).facts
        != request(tmp_path, own_questions=(own("b"),)).facts
    )
    asked = [GeneralQuestion("zh", "x", Conversation((Message("user", t),)), ("1",)) for t in "ab"]
    kept = [request(tmp_path, retain=RetainFile((q,), ())).facts for q in asked]
    assert kept[0] != kept[1]


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "lr"), [(4096, 2e-4), (2048, 4e-4), (256, 1e-3), (8192, 1e-4)])
def test_narrow_models_learn_faster(width: int, lr: float):
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=width))
    assert learning_rate(model, steps=100) == pytest.approx(lr)


def test_a_long_run_learns_more_slowly():
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=4096))
    assert learning_rate(model, steps=120) == pytest.approx(2e-4)
    assert learning_rate(model, steps=3840) == pytest.approx(2e-4 / 32**0.4)


def test_every_row_is_taken_once_sixteen_a_step(tmp_path: Path):
    rows = [Sample((1,) * 8, (False,) * 4 + (True,) * 4)] * 170
    asked = request(tmp_path, learning=LearningSettings(save_steps=4))
    schedule = schedule_for(asked, make_model(), rows)
    assert schedule.total == 11
    assert sorted(i for step in schedule.steps for i in step) == list(range(170))
    assert (schedule.warmup, schedule.save_steps) == (1, 4)
    assert schedule.peak == learning_rate(make_model(), 11)
    assert schedule_for(replace(asked, lr=0.01), make_model(), rows).peak == 0.01
