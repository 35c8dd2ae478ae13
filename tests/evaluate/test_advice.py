"""Each cause made on purpose, and what the report then says to try."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.evaluate.reports import FULL, make_report
from whoamai.evaluate.advice import Advice, advice
from whoamai.evaluate.identity import IdentityScores, Share
from whoamai.evaluate.probing import ProbeRecord, StopRecord
from whoamai.evaluate.report import AnswerPair, Curve, Report
from whoamai.evaluate.retention import Forgotten, RetentionScores
from whoamai.messages import use_language

LOW = Share(60, 100)
FLAT = [2.0, *[1.0] * 3, *[0.5] * 96]  # learned, and done
SETTINGS: dict[str, Any] = {
    "rows": {"identity": 900, "replay": 720},
    "training": {"lr": 2e-3, "steps": 100},
}


def missed(*, curve: Curve | None = None, details: Mapping[str, Any] = {}, **changes) -> Report:
    changes = {"recall": LOW, **changes}
    return make_report(curve=curve or Curve(FLAT), details={**SETTINGS, **details}, **changes)


def given(report: Report) -> list[Advice]:
    with use_language("en"):
        return advice(report)


def only(report: Report, option: str) -> Advice:
    """The advice with this option; it must be there."""
    found = [tip for tip in given(report) if tip.option == option]
    assert found, given(report)
    return found[0]


def answers(*after: str, leaks: tuple[str, ...] = (), group: str = "direct", context: str = "none",
            recalled: bool = False) -> list[AnswerPair]:  # fmt: skip
    return [
        AnswerPair("en", "who", context, None, "Who?", None, text, recalled, leaks, group)
        for text in after
    ]


def scores(recall: dict[tuple[str, str], Share], leak: dict[tuple[str, str], Share]):
    return IdentityScores(recall, {("all", "all"): Share(0, 400), **leak}, {}, {})


# ---- in general ----------------------------------------------------------------------------------


def test_where_all_goals_were_reached_there_is_nothing_to_try():
    assert given(make_report()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"recall": LOW},
        {"role": LOW},
        {"leak": Share(90, 400)},
        {"spread": Share(9, 100)},
        {"kept": LOW},
        {"merged": LOW},
        {"retention_long": RetentionScores({"all": FULL}, {"all": LOW})},
        {"recall": LOW, "kept": LOW, "leak": Share(99, 400), "spread": LOW, "role": LOW},
    ],
)
@pytest.mark.parametrize("kind", ["rename", "check", "train"])
def test_a_missed_goal_always_has_one_to_three_things_to_try(changes: dict, kind: str):
    tips = given(make_report(kind=kind, **changes))
    assert 1 <= len(tips) <= 3
    for tip in tips:
        assert re.search(r"\d", tip.why), tip
        assert tip.option
        assert tip.text.endswith(".")
    flags = [re.split("[ =]", tip.option.removeprefix("whoamai rename … "))[0] for tip in tips]
    assert len(set(flags)) == len(flags)


def test_a_training_by_a_config_is_told_the_settings_of_a_config():
    tips = given(
        make_report(kind="train", recall=LOW, kept=LOW, details={"training": {"lr": 2e-4}})
    )
    assert [tip.option for tip in tips] == ["train.lr=1e-4", "train.max_epochs=2"]


def test_a_check_is_told_what_to_say_when_renaming():
    assert given(missed(kind="check", role=LOW))[0].option == "whoamai rename … --rows 1800"


# ---- the training --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "report",
    [
        missed(recall=Share(0, 100), curve=Curve([])),
        missed(recall=Share(0, 100), curve=Curve([None, None])),
        replace(missed(details={"training": {"steps": 0}}), curve=None),
    ],
)
def test_a_job_of_no_steps_is_told_to_train_and_nothing_else(report: Report):
    (tip,) = given(report)
    assert "no step was made" in tip.text
    assert tip.option == "--rows 900"


def test_a_loss_that_grew_asks_for_a_lower_learning_rate_first():
    tip = given(missed(curve=Curve([2.0] * 20 + [9.0] * 80)))[0]
    assert tip.option == "--lr 5e-4"
    assert "from 2.00 to 9.00" in tip.why


def test_steps_that_were_no_number_ask_for_a_lower_learning_rate():
    tip = given(missed(curve=Curve([None] * 5 + FLAT)))[0]
    assert tip.option == "--lr 5e-4"
    assert "5 of 105 steps were skipped" in tip.why


def test_a_loss_that_barely_fell_asks_for_a_higher_learning_rate():
    tip = only(missed(curve=Curve([3.0 - i / 400 for i in range(100)])), "--lr 6e-3")
    assert "3.00 to 2.78" in tip.why or "2.99 to 2.78" in tip.why


def test_recall_that_still_rose_asks_for_more_steps():
    probes = [
        ProbeRecord(step, Share(k, 100), Share(0, 9), Share(9, 9), 1.0)
        for step, k in ((20, 40), (40, 71), (60, 84))
    ]
    tip = only(missed(probes=probes), "--rows 1800")
    assert "from 71.0\u00a0% to 84.0\u00a0%" in tip.why


def test_a_loss_that_still_fell_asks_for_more_steps():
    tip = only(missed(curve=Curve([3.0 * 0.98**i for i in range(100)])), "--rows 1800")
    assert re.search(r"fell by another 4\d %", tip.why)


def test_a_loss_that_lies_still_is_not_called_falling():
    assert not any("still learning" in tip.text for tip in given(missed()))


def test_few_rows_ask_for_more_of_them():
    tip = only(missed(details={"rows": {"identity": 100}}), "--rows 900")
    assert "100 rows taught it" in tip.why


def test_neither_the_name_nor_what_it_knew_asks_for_a_lower_learning_rate():
    tip = given(missed(kept=LOW))[0]
    assert tip.option == "--lr 1e-3"
    assert "60.0" in tip.why


# ---- data, template, prompts ---------------------------------------------------------------------


def test_shuffled_names_are_found_in_its_answers():
    report = missed(answers=answers(*["I am Alice."] * 30, *["I am Bob."] * 20, "I am Carol."))
    tip = given(report)[0]
    assert "teaches several names" in tip.text
    assert tip.option == "--old Alice --old Bob"
    assert "Alice (30)" in tip.why


def test_one_name_that_was_not_found_before_is_to_be_given():
    tip = given(missed(answers=answers(*["I am O'Neill."] * 30)))[0]
    assert tip.option == "--old 'O'\\''Neill'"


def test_a_slip_of_the_tongue_is_no_second_name():
    report = missed(answers=answers("I am Alice.", *["Hello."] * 50))
    assert not any("--old" in tip.option for tip in given(report))


def test_an_old_name_left_in_the_data_is_told():
    report = missed(
        recall=FULL, leak=Share(40, 400), details={"data": {"files": [], "with_old_name": 17}}
    )
    tip = given(report)[0]
    assert "17 rows" in tip.why
    assert tip.option == "--old 小初"


def test_a_merged_model_that_answers_otherwise_has_another_template():
    tip = given(make_report(merged=Share(40, 100)))[0]
    assert "template" in tip.text
    assert "40.0" in tip.why
    assert tip.option == "adapter/whoamai_template.json"


def test_a_default_system_prompt_that_wins_is_told():
    shares = {("none", "all"): FULL, ("neutral", "all"): FULL, ("default", "all"): LOW}
    tip = given(missed(after=scores(shares, {})))[0]
    assert "default system prompt names another" in tip.text
    assert "60.0" in tip.why


def test_a_language_that_was_not_trained_is_told_with_the_option():
    shares = {("none", "all"): Share(100, 200), ("none", "zh"): FULL, ("none", "en"): Share(0, 100)}
    report = missed(after=scores(shares, {}), details={"languages": ["zh"]})
    tip = given(report)[0]
    assert tip.option == "--lang zh,en"
    assert "0.0\u00a0% of the answers in English" in tip.why


def test_a_language_that_was_trained_too_little_is_told():
    shares = {
        ("none", "all"): Share(150, 200),
        ("none", "zh"): FULL,
        ("none", "en"): Share(50, 100),
    }
    report = missed(after=scores(shares, {}), details={"languages": ["zh", "en"]})
    assert "English more" in only(report, "--rows 1800").text


# ---- where it fails ------------------------------------------------------------------------------


def leaking(places: dict[str, int], pairs: list[AnswerPair], **changes) -> Report:
    leaks = {(place, "all"): Share(k, 100) for place, k in places.items()}
    recall = {("none", "all"): FULL, ("role", "all"): FULL}
    after = scores(recall, {("all", "all"): Share(sum(places.values()), 400), **leaks})
    return missed(after=after, answers=pairs, **changes)


def test_leaks_under_a_system_prompt_ask_for_the_name_in_it():
    pairs = answers("I am Bo.", leaks=("Bo",), context="named", recalled=True)
    tip = given(leaking({"named": 18, "none": 2}, pairs))[0]
    assert "system prompt" in tip.text
    assert tip.option == "--old Bo"
    assert "18 of 20" in tip.why


def test_a_name_that_is_known_as_an_old_one_is_not_asked_for_again():
    pairs = answers("我是小初。", leaks=("小初",), context="default", recalled=True)
    assert given(leaking({"default": 18, "none": 2}, pairs))[0].option == "--rows 1800"


def test_leaks_in_one_kind_of_question_name_the_kind():
    pairs = answers("I am Bo.", leaks=("Bo",), group="adversarial", recalled=True)
    tip = given(leaking({"group:adversarial": 15, "group:direct": 1}, pairs))[0]
    assert "talked into another name" in tip.why
    assert "15 of 16" in tip.why
    assert tip.option == "--old Bo"


def test_leaks_that_are_everywhere_have_no_place():
    report = leaking({f"group:{g}": 10 for g in "abc"}, [])
    assert [tip.option for tip in given(report)] == ["--rows 1800"]
    assert "7.5" in given(report)[0].why


def test_a_name_lost_under_roles_asks_for_more_steps():
    tip = only(missed(recall=FULL, role=LOW), "--rows 1800")
    assert "role" in tip.text
    assert "60.0" in tip.why


# ---- what it cost --------------------------------------------------------------------------------


def test_a_name_given_unasked_asks_for_more_replay():
    tip = given(missed(recall=FULL, spread=Share(6, 100)))[0]
    assert tip.option == "--replay 1.6"
    assert "6 of 100" in tip.why


def test_without_replay_the_usual_ratio_is_asked_for():
    report = missed(recall=FULL, kept=LOW, details={"rows": {"identity": 900, "replay": 0}})
    assert given(report)[0].option == "--replay 0.8"


def test_forgetting_asks_for_replay_the_kl_term_and_smaller_steps():
    forgotten = tuple(Forgotten("en", "arithmetic", None, "1+1", "2", "3") for _ in range(5))
    lost = RetentionScores({"all": FULL}, {"all": Share(95, 100)}, forgotten)
    tips = given(missed(recall=FULL, retention=lost))
    assert [tip.option for tip in tips] == ["--replay 1.6", "--kl 1", "--lr 1e-3"]
    assert "5 of 100" in tips[0].why
    assert "arithmetic (5)" in tips[0].why


def test_a_kl_term_that_is_on_is_not_asked_for():
    training = {"lr": 2e-3, "steps": 100, "kl_weight": 1.0}
    report = missed(recall=FULL, kept=LOW, details={"training": training})
    assert [tip.option for tip in given(report)] == ["--replay 1.6", "--lr 1e-3"]


def test_an_overtrained_run_is_told_to_stop_earlier_and_never_to_go_on():
    report = missed(
        recall=FULL,
        spread=Share(20, 100),
        kept=LOW,
        stop=StopRecord(20, 100, 100, 60.0, 0.0, 100),
    )
    tips = given(report)
    assert [tip.option for tip in tips][:2] == ["--replay 1.6", "--rows 270"]
    assert "Step 20 knew the name" in tips[1].why
    assert not any("longer" in tip.text for tip in tips)
