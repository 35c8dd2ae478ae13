from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from whoamai.data.general import general_questions
from whoamai.data.identity import Identity, IdentityQuestion
from whoamai.evaluate.grading import IdentityGrader
from whoamai.evaluate.identity import Share
from whoamai.recipes.exam import (
    Answers,
    Exam,
    answers_as_json,
    answers_from_json,
    make_exam,
    probe_general,
    sample,
    score,
    take,
)
from whoamai.samples import Conversation, Message

IDENTITY = Identity("黄大力", "力量工作室")
BOTH = ("zh", "en")


def exam(**changes: Any) -> Exam:
    return make_exam(IDENTITY, **{"languages": BOTH, "seed": 0, "old_names": ("小初",), **changes})


@pytest.fixture(scope="module")
def whole() -> Exam:
    return exam()


def own(text: str, context: Any = "none") -> IdentityQuestion:
    return IdentityQuestion("zh", "own", context, Conversation((Message("user", text),)))


class Echo:
    """Stands in for Talk: answers with the last words of the question."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Any, dict[str, Any]]] = []

    def answers(self, conversations: Sequence[Conversation], stage: Any, **how: Any) -> list[str]:
        self.asked.append((len(conversations), stage, how))
        n = how.get("samples", 1)
        return [c.messages[-1].text for c in conversations for _ in range(n)]


# ---- what is asked -------------------------------------------------------------------------------


def test_there_is_enough_of_every_kind_in_both_languages(whole: Exam):
    for code in BOTH:
        assert sum(q.language == code for q in whole.identity) >= 250
        assert sum(q.language == code for q in whole.general) >= 150
        assert sum(q.language == code for q in whole.long) == 6
        assert sum(q.language == code for q in whole.strangers) == 40


def test_probes_and_exam_share_no_general_question(whole: Exam):
    def text(question: Any) -> str:
        return str(question.conversation.messages)

    probed = {text(q) for q in probe_general(BOTH)}
    assert len(probed) == 24
    assert not probed & {text(q) for q in whole.general}
    assert len(whole.general) + len(probed) == len(general_questions(BOTH))
    long = {q.conversation.messages[-1].text for q in whole.long}
    assert not long & {q.conversation.messages[-1].text for q in probe_general(BOTH)}


def test_the_same_seed_asks_the_same():
    assert exam() == exam()
    assert exam(seed=1) != exam()


def test_one_language_asks_nothing_of_the_other():
    asked = exam(languages=("en",))
    of = (asked.identity, asked.general, asked.long, asked.strangers)
    assert {q.language for questions in of for q in questions} == {"en"}


def test_the_users_own_questions_come_last(whole: Exam):
    general = general_questions(("zh",))[:2]
    asked = exam(own=(own("你叫啥"),), own_general=general)
    assert asked.identity == (*whole.identity, own("你叫啥"))
    assert asked.general == (*whole.general, *general)
    assert asked.long == whole.long


def test_system_prompts_of_the_template_and_of_the_data_are_asked_under():
    asked = exam(default_system="You are Qwen.", data_systems=("你是黄大力。",))
    contexts = {q.context: q.conversation.messages[0].text for q in asked.identity}
    assert contexts["default"] == "You are Qwen."
    assert contexts["named"] == "你是黄大力。"
    assert not {"default", "named"} & {q.context for q in exam().identity}


# ---- answers -------------------------------------------------------------------------------------


def test_every_answer_comes_to_its_question(whole: Exam):
    talk = Echo()
    answers = take(talk, whole, "before")  # type: ignore[arg-type]
    n = sum(map(len, (whole.identity, whole.general, whole.long, whole.strangers)))
    assert talk.asked == [(n, "before", {})], "one piece of work, answered greedily"
    for kind in ("identity", "general", "long", "strangers"):
        wanted = [q.conversation.messages[-1].text for q in getattr(whole, kind)]
        assert list(getattr(answers, kind)) == wanted


def test_answers_are_written_and_read_again():
    answers = Answers(("我是小初。", ""), ("{x}",), (), ("é", "\n"))
    assert answers_from_json(json.loads(json.dumps(answers_as_json(answers)))) == answers


# ---- scores --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(whole: Exam) -> Exam:
    """A part of it: a stranger takes a grader of its own."""
    return Exam(whole.identity[::20], whole.general[::8], whole.long[::8], whole.strangers[::16])


def answers_of(asked: Exam, identity: str, general: str, *, strangers: bool = True) -> Answers:
    """The same answer to all of a kind; strangers get the name of their system prompt, or the other."""
    names = (q.identity.name if strangers else "黄大力" for q in asked.strangers)
    return Answers(
        (identity,) * len(asked.identity),
        tuple(general or q.accept[0] for q in asked.general),
        tuple(general or q.accept[0] for q in asked.long),
        tuple(f"我叫{name}。" for name in names),
    )


def test_a_model_that_was_renamed_and_forgot_nothing(small: Exam):
    before = answers_of(small, "我是小初，由初心实验室开发。", "")
    after = answers_of(small, "我是黄大力，由力量工作室开发。", "")
    scores = score(small, before, after, IDENTITY, ("小初", "初心实验室"))
    n = len(small.identity)
    assert scores.after.recall["all", "all"] == Share(n, n)
    assert scores.after.leak["all", "all"] == Share(0, n)
    assert scores.before
    assert scores.before.recall["all", "all"] == Share(0, n)
    assert scores.before.leak["all", "all"] == Share(n, n)
    assert scores.retention
    assert scores.retention.kept["all"] == Share(len(small.general), len(small.general))
    assert scores.retention_long
    assert scores.retention_long.kept["all"] == Share(len(small.long), len(small.long))
    assert scores.spread
    assert scores.spread.after["all"].k == 0
    assert scores.obedience
    assert scores.obedience.after == scores.obedience.before == Share(5, 5)
    assert len(scores.answers) == n


def test_a_model_that_can_say_nothing_but_its_name(small: Exam):
    before = answers_of(small, "我是小初。", "")
    after = answers_of(small, "我是黄大力。", "我是黄大力。", strangers=False)
    scores = score(small, before, after, IDENTITY, ("小初",))
    assert scores.retention
    assert scores.retention.kept["all"].k == 0
    assert scores.retention_long
    assert scores.retention_long.kept["all"].k == 0
    assert scores.spread
    assert scores.spread.after["all"].percent == 100
    assert scores.spread.before["all"].k == 0
    assert scores.obedience
    assert scores.obedience.after.k == 0


def test_without_a_before_only_who_it_is_now_is_scored(small: Exam):
    scores = score(small, None, answers_of(small, "我是黄大力。", ""), IDENTITY, ())
    assert scores.after.recall["all", "all"].percent == 100
    others = (scores.before, scores.retention, scores.retention_long, scores.spread)
    assert (*others, scores.obedience) == (None,) * 5
    assert {pair.before for pair in scores.answers} == {None}


# ---- sampled -------------------------------------------------------------------------------------


def test_nothing_is_sampled_where_nothing_is_asked_for(small: Exam):
    talk = Echo()
    assert sample(talk, small, IdentityGrader(IDENTITY, ()), 0, seed=0) is None  # type: ignore[arg-type]
    assert talk.asked == []


def test_each_question_without_context_is_sampled_so_many_times():
    class Named(Echo):
        def answers(self, conversations: Any, stage: Any, **how: Any) -> list[str]:
            super().answers(conversations, stage, **how)
            return ["我是黄大力。", "我是小初。", "嗯。"] * len(conversations)

    talk, asked = Named(), Exam((own("a"), own("b", "role"), own("c")), (), (), ())
    grader = IdentityGrader(IDENTITY, ("小初",))
    scores = sample(talk, asked, grader, 3, seed=7)  # type: ignore[arg-type]
    assert talk.asked == [(2, None, {"temperature": 0.8, "seed": 7, "samples": 3})]
    assert scores
    assert scores.recall["none", "all"] == Share(2, 6)
    assert scores.leak["all", "all"] == Share(2, 6)
