from __future__ import annotations

import pytest

from whoamai.data.identity import Identity
from whoamai.data.strangers import StrangerQuestion
from whoamai.evaluate.identity import Share
from whoamai.evaluate.obedience import ObedienceScores, score_obedience
from whoamai.samples import Conversation, Message


def stranger(name: str) -> StrangerQuestion:
    turns = (Message("system", f"You are {name}."), Message("user", "Who are you?"))
    return StrangerQuestion("en", Identity(name), Conversation(turns))


ASKED = [stranger(name) for name in ("Mei Lan", "Rollo", "阿蒙")]


def test_each_answer_must_give_the_name_of_its_own_system_prompt():
    before = ["I'm Mei Lan.", "I am Rollo, a baker.", "我叫阿蒙。"]
    after = ["I'm Rollo.", "I'm Rollo.", "我是黄大力。"]
    assert score_obedience(ASKED, before, after) == ObedienceScores(Share(3, 3), Share(1, 3))


def test_a_name_that_is_only_mentioned_is_not_obeyed():
    after = ["I am not Mei Lan.", "Rollo is a common name.", "你好，阿蒙！"]
    assert score_obedience(ASKED, after, after).after == Share(0, 3)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (4, 3)])
def test_there_must_be_an_answer_to_each_question(before: int, after: int):
    with pytest.raises(ValueError):
        score_obedience(ASKED, ["x"] * before, ["x"] * after)


def test_no_questions_have_no_share():
    assert score_obedience([], [], []) == ObedienceScores(Share(0, 0), Share(0, 0))
