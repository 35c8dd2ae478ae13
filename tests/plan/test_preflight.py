from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.models import make_tokenizer
from tests.plan.runs import architecture, choice, config, machine, talk, template_of
from whoamai.data.encode import encode
from whoamai.data.lint_kinds import kind_names as data_kind_names
from whoamai.errors import SettingError
from whoamai.plan.preflight import (
    Facts,
    PreflightFinding,
    check_allowed,
    findings_of,
    not_checked,
    preflight,
    refuse,
)
from whoamai.plan.preflight_kinds import kind, own_kind_names
from whoamai.plan.prepare import schedule_for

SOURCE = Path(__file__).resolve().parents[2] / "src" / "whoamai" / "plan"

# ---- the whole -----------------------------------------------------------------------------------


def test_a_sound_run_has_no_findings(tmp_path: Path):
    run = config(lr=2e-4)
    conversations = [talk(f"Question {i}", row=i) for i in range(40)]
    template = template_of()
    encoded = encode(conversations, template, max_length=64)
    facts = Facts(
        run,
        tmp_path / "new",
        encoded=encoded,
        schedule=schedule_for(run, encoded.lengths),
        conversations=conversations,
        template=template,
        tokenizer=make_tokenizer(),
        architecture=architecture(),
        machine=machine(),
        choice=choice(),
    )
    assert [f for f in findings_of(facts) if f.kind != "disk"] == []
    assert set(not_checked(facts)) == {"two-names", "same-question"}


def test_what_is_not_known_is_not_checked_and_is_named(tmp_path: Path):
    facts = Facts(config(), tmp_path / "new")
    assert findings_of(facts) == []
    assert {"few-steps", "memory", "disk", "lr-high", "question-in-training"} <= set(
        not_checked(facts)
    )
    assert "work-dir-used" not in not_checked(facts)


def test_findings_that_block_come_first():
    run = config(asks=[], lr=0.5)
    findings = preflight(run, work_dir=Path("new"), architecture=architecture())
    assert [f.kind for f in findings] == ["lr-high", "no-eval"]


# ---- refusing ------------------------------------------------------------------------------------

_TWO = [
    PreflightFinding("few-steps", "blocks", "3 steps.", "Take more."),
    PreflightFinding("rows-cut", "warns", "2 rows.", "Raise it."),
    PreflightFinding("lr-high", "blocks", "lr is 1.", "Lower it."),
]


def test_all_that_blocks_is_told_at_once_with_its_cure_and_the_way_around_it():
    with pytest.raises(SettingError) as refused:
        refuse(_TWO, ())
    text = str(refused.value)
    for part in ("3 steps.", "Take more.", "--allow few-steps", "lr is 1.", "--allow lr-high"):
        assert part in text
    assert "rows-cut" not in text


def test_what_is_allowed_does_not_stop_the_run():
    with pytest.raises(SettingError) as refused:
        refuse(_TWO, ["few-steps"])
    assert "few-steps" not in str(refused.value)
    refuse(_TWO, ["few-steps", "lr-high"])


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(SettingError) as refused:
        refuse([], ["few-step"])
    assert "few-step:" in str(refused.value)
    assert "lr-high" in str(refused.value)
    assert "two-names" in str(refused.value)


def test_another_runs_folder_is_not_had_by_allowing_it():
    folder = PreflightFinding("work-dir-used", "blocks", "x holds a run.", "Write elsewhere.")
    with pytest.raises(SettingError) as refused:
        refuse([folder], ["work-dir-used"])
    assert "--allow" not in str(refused.value)


def test_kinds_of_the_data_check_may_be_allowed_too():
    check_allowed(["two-names", "few-steps"])


# ---- kinds ---------------------------------------------------------------------------------------


def test_preflight_and_the_data_check_have_no_kind_in_common():
    assert not set(own_kind_names()) & set(data_kind_names())


@pytest.mark.parametrize("name", own_kind_names())
def test_every_kind_can_be_typed_and_says_what_to_do(name: str):
    assert re.fullmatch("[a-z]+[0-9]*(-[a-z0-9]+)*", name)
    assert kind(name).cure.endswith(".")


def test_every_kind_is_looked_for_somewhere():
    code = "".join(path.read_text("utf-8") for path in sorted(SOURCE.glob("preflight_*.py")))
    assert [name for name in own_kind_names() if code.count(f'"{name}"') < 2] == []
