from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.recipes.rename_runs import found
from whoamai.data.general import GeneralQuestion
from whoamai.data.identity import Identity, probe_questions
from whoamai.evaluate.grading import IdentityGrader
from whoamai.evaluate.identity import Share
from whoamai.evaluate.probing import Prober, ProbeRecord, StopRule, probes_after
from whoamai.samples import Conversation, Message

IDENTITY = Identity("黄大力")


# ---- when ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "every", "steps"),
    [
        (107, 20, [0, 5, 10, 20, 40, 60, 80, 100, 107]),
        (12, 20, [0, 5, 10, 12]),
        (3, 20, [0, 3]),
        (30, 15, [0, 5, 10, 15, 20, 30]),
        (5, 1, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_probes_are_taken_first_early_regularly_and_last(total: int, every: int, steps: list[int]):
    assert [n for n in range(total + 1) if probes_after(n, total=total, every=every)] == steps


# ---- the rule ------------------------------------------------------------------------------------


def test_the_goals_must_be_met_at_two_probes_in_a_row():
    rule = StopRule()
    assert rule.learned_at([found(5, 98)]) is None
    assert rule.learned_at([found(5, 98), found(10, 98)]) == 5
    assert rule.learned_at([found(5, 98), found(10, 97), found(20, 98)]) is None
    assert rule.learned_at([found(5, 0), found(10, 99), found(20, 100)]) == 10


def test_the_leak_must_be_low_too():
    rule = StopRule()
    assert rule.met_by(found(5, 98, leak=1))
    assert not rule.met_by(found(5, 100, leak=2))
    assert rule.learned_at([found(5, 100, leak=2), found(10, 100, leak=1)]) is None


def test_a_probe_before_the_first_step_does_not_count():
    assert StopRule().learned_at([found(0, 100), found(5, 100)]) is None


def test_more_probes_in_a_row_can_be_asked_for():
    records = [found(5, 98), found(10, 98), found(20, 98)]
    assert StopRule(in_a_row=3).learned_at(records) == 5
    assert StopRule(in_a_row=3).learned_at(records[1:]) is None
    assert StopRule(in_a_row=1).learned_at(records[:1]) == 5


def test_a_probe_without_questions_meets_no_goal():
    empty = ProbeRecord(5, Share(0, 0), Share(0, 0), Share(0, 0), 0.0)
    assert not StopRule(recall=0).met_by(empty)


def test_a_later_probe_is_as_good_unless_it_is_clearly_worse():
    rule, earlier = StopRule(), [found(20, 90, leak=2)]
    assert rule.is_as_good(found(40, 90, leak=2), earlier)
    assert rule.is_as_good(found(40, 85, leak=2), earlier), "chance"
    assert not rule.is_as_good(found(40, 80, leak=2), earlier)
    assert not rule.is_as_good(found(40, 90, leak=12), earlier)


def test_probes_that_become_a_little_worse_each_time_are_worse_in_the_end():
    rule, earlier = StopRule(), [found(20, 100), found(40, 95)]
    assert not rule.is_as_good(found(60, 90), earlier), "as good as the last, not as the best"
    assert rule.is_as_good(found(60, 95), earlier)


def test_the_first_probe_after_a_step_is_as_good_as_what_was_before():
    assert StopRule().is_as_good(found(5, 0), [found(0, 100)])


# ---- records -------------------------------------------------------------------------------------


def test_a_record_is_written_and_read_again():
    record = ProbeRecord(40, Share(51, 52), Share(1, 52), Share(20, 24), 1.25)
    assert ProbeRecord.from_json(json.loads(json.dumps(record.as_json()))) == record


# ---- the prober ----------------------------------------------------------------------------------


class Answering:
    """Stands in for Talk: what it answers to a question, by the question's last words."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers_given = list(answers)
        self.asked: list[Conversation] = []
        self.limits: list[int] = []

    def answers(
        self, conversations: Sequence[Conversation], stage: Any, *, max_new_tokens: int
    ) -> list[str]:
        assert stage is None, "a probe has no bar of its own"
        self.asked += conversations
        self.limits.append(max_new_tokens)
        given = self.answers_given[: len(conversations)]
        del self.answers_given[: len(conversations)]
        return given


def general(text: str, *accept: str) -> GeneralQuestion:
    return GeneralQuestion("zh", "facts", Conversation((Message("user", text),)), accept)


def prober(talk: Answering, *questions: GeneralQuestion, n: int = 4) -> Prober:
    asked = probe_questions(IDENTITY, languages=("zh", "en"), seed=0, count=n)
    grader = IdentityGrader(IDENTITY, ("小初",))
    return Prober(talk, grader, asked, questions)  # type: ignore[arg-type]


def test_a_probe_counts_names_old_names_and_right_answers():
    talk = Answering(
        ["我是黄大力。", "我是小初。", "我是黄大力，也叫小初。", "不知道。", "巴黎", "7"]
    )
    record = prober(talk, general("法国的首都？", "巴黎"), general("3+5?", "8")).ask(20)
    assert (record.step, record.recall, record.leak) == (20, Share(2, 4), Share(2, 4))
    assert record.kept == Share(1, 2)
    assert record.seconds >= 0
    assert len(talk.asked) == 6
    assert talk.limits == [48]


def test_only_what_the_model_knows_now_is_asked_later():
    talk = Answering(["里昂", "8", "我是黄大力。", "8"])
    paris, eight = general("法国的首都？", "巴黎"), general("3+5?", "8")
    now = prober(talk, paris, eight, n=1).right_now()
    assert now.general == (eight,)
    assert now.ask(0).kept == Share(1, 1)


def test_a_model_that_knows_nothing_yet_has_nothing_to_keep():
    now = prober(Answering(["?", "?", "我是黄大力。"]), general("a", "b"), general("c", "d"), n=1)
    record = now.right_now().ask(0)
    assert record.kept == Share(0, 0)
    assert json.loads(json.dumps(record.as_json()))["kept"] == [0, 0]


def test_probes_and_scores_never_ask_the_same():
    from whoamai.data.identity import questions

    probed = probe_questions(IDENTITY, languages=("zh", "en"), seed=0, old_names=("小初",))
    scored = questions(IDENTITY, "test", languages=("zh", "en"), seed=0, old_names=("小初",))
    last = {q.conversation.messages[-1].text for q in scored}
    assert not [q for q in probed if q.conversation.messages[-1].text in last]
