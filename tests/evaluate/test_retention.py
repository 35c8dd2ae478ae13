from __future__ import annotations

import pytest

from whoamai.data.identity import LANGUAGES
from whoamai.errors import SettingError
from whoamai.evaluate.identity import Share
from whoamai.evaluate.retention import GeneralQuestion, general_questions, score_retention
from whoamai.samples import Conversation, Message


def question(*accept: str, language: str = "zh") -> GeneralQuestion:
    return GeneralQuestion(language, "x", Conversation((Message("user", "?"),)), accept)


@pytest.mark.parametrize(
    ("accept", "answer", "right"),
    [
        ("巴黎", "法国的首都是巴黎。", True),
        ("Paris", "It is paris!", True),
        ("Paris", "Parisian", False),
        ("7", "3加4等于7。", True),
        ("7", "7", True),
        ("7", "17", False),
        ("7", "70", False),
        ("7", "3.7", False),
        ("7", "7.5", False),
        ("7", "It is 7.", True),
        ("7", "-7", False),
        ("7", "答案是-7", False),
        ("7", "答案是−7", False),
        ("7", "5-7", True),
        ("7", "12-5=7", True),
        ("7", "- 7", True),
        ("7", "2, 5, 7", True),
        ("-7", "答案是-7", True),
        ("-7", "5-7", False),
        ("1000", "1000米", True),
        ("a.c", "abc", False),
        ("C++", "用C++写", True),
        ("巴黎", "", False),
    ],
)
def test_an_answer_is_right_when_it_holds_the_accepted_one(accept: str, answer: str, right: bool):
    assert question(accept).is_right(answer) is right


def test_an_exact_question_takes_the_whole_answer_only():
    exact = GeneralQuestion("zh", "x", Conversation((Message("user", "?"),)), ("apple",), True)
    assert exact.is_right(" apple\n")
    assert not exact.is_right("apple.")
    assert not exact.is_right("Apple")


def test_any_of_the_accepted_answers_will_do():
    assert question("巴黎", "Paris").is_right("Paris")


def test_only_what_was_right_before_counts():
    asked = [question("a"), question("b"), question("c")]
    scores = score_retention(asked, ["a", "x", "c"], ["a", "b", "x"])
    assert scores.right_before["all"] == Share(2, 3)
    assert scores.kept["all"] == Share(1, 2)


def test_languages_are_counted_apart():
    asked = [question("a"), question("b", language="en")]
    scores = score_retention(asked, ["a", "b"], ["a", "x"])
    assert scores.kept == {"all": Share(1, 2), "zh": Share(1, 1), "en": Share(0, 1)}


def test_a_model_that_knew_nothing_has_nothing_to_keep():
    assert score_retention([question("a")], ["x"], ["a"]).kept["all"] == Share(0, 0)


def test_questions_and_answers_must_go_together():
    with pytest.raises(ValueError):
        score_retention([question("a")], ["a"], [])


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_built_in_questions_can_be_answered(code: str):
    asked = general_questions([code])
    assert asked
    for q in asked:
        assert q.language == code
        assert q.conversation.messages[-1].role == "user"
        assert q.accept
        assert all(a.strip() for a in q.accept)
        assert all(q.is_right(a) for a in q.accept)


def test_languages_we_do_not_have_are_refused():
    with pytest.raises(SettingError, match="known languages"):
        general_questions(["fr"])


def test_as_many_questions_of_each_language_as_were_asked_for():
    assert [q.language for q in general_questions(LANGUAGES, count=1)] == list(LANGUAGES)


def test_what_was_right_and_is_wrong_now_is_listed_with_both_answers():
    asked = [question("a"), question("b"), question("c")]
    scores = score_retention(asked, ["a", "b", "x"], ["a", "y", "x"])
    assert [(f.before, f.after, f.system) for f in scores.forgotten] == [("b", "y", None)]
