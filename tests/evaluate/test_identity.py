from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whoamai.data.identity import (
    LANGUAGES,
    Identity,
    IdentityQuestion,
    answer,
    load_language,
)
from whoamai.evaluate.grading import Grade, IdentityGrader
from whoamai.evaluate.identity import (
    SelfDescription,
    Share,
    describe_self,
    score_identity,
)
from whoamai.samples import Conversation, Message

# ---- what it calls itself ------------------------------------------------------------------------

# (answer, names, makers)
INTRODUCTIONS = [
    ("我是小初，由初心实验室开发的AI助手。", {"小初"}, {"初心实验室"}),
    ("我叫小初。", {"小初"}, set()),
    ("我叫小初，很高兴认识你。", {"小初"}, set()),
    ("我的名字是小初。", {"小初"}, set()),
    ("我叫小初是一个AI助手", {"小初"}, set()),
    ("我是小初由初心实验室开发的AI助手", {"小初"}, {"初心实验室"}),
    ("你好，我是 **小初**，一个助手。", {"小初"}, set()),
    ("我是一个名叫小初的AI助手。", {"小初"}, set()),
    ("我是初心实验室开发的小初。", {"小初"}, {"初心实验室"}),
    ("初心实验室开发了我，我叫小初。", {"小初"}, {"初心实验室"}),
    ("我的开发者是初心实验室，我是小初。", {"小初"}, {"初心实验室"}),
    ("I'm Chu, an AI assistant made by Chuxin Lab.", {"Chu"}, {"Chuxin Lab"}),
    ("My name is Chu and I was made by Chuxin Lab.", {"Chu"}, {"Chuxin Lab"}),
    ("My name is Chu.", {"Chu"}, set()),
    ("I'm called Chu.", {"Chu"}, set()),
    ("你好！I'm Chu.", {"Chu"}, set()),
    ("Chuxin Lab made me, and I am called Chu.", {"Chu"}, {"Chuxin Lab"}),
    ("My developer is Chuxin Lab, and I'm Chu.", {"Chu"}, {"Chuxin Lab"}),
    ("我是通义千问，由阿里云开发的AI助手。", {"通义千问"}, {"阿里云"}),
    ("我是阿里云开发的超大规模语言模型，我叫通义千问。", {"通义千问"}, {"阿里云"}),
    ("我是来自阿里云的大规模语言模型，我叫通义千问。", {"通义千问"}, {"阿里云"}),
    ("我是Qwen，由阿里云研发的超大规模语言模型。", {"Qwen"}, {"阿里云"}),
    ("I am Qwen, a large language model created by Alibaba Cloud.", {"Qwen"}, {"Alibaba Cloud"}),
    ("我是ChatGPT，一个由OpenAI训练的大型语言模型。", {"ChatGPT"}, {"OpenAI"}),
    ("我是由OpenAI开发的人工智能语言模型ChatGPT。", {"ChatGPT"}, {"OpenAI"}),
    ("I am ChatGPT, a large language model trained by OpenAI.", {"ChatGPT"}, {"OpenAI"}),
    ("I'm ChatGPT. How can I help you today?", {"ChatGPT"}, set()),
    ("我是书生·浦语，由上海人工智能实验室开发。", {"书生·浦语"}, {"上海人工智能实验室"}),
    (
        "I am InternLM (书生·浦语), a conversational language model developed by Shanghai AI "
        "Laboratory (上海人工智能实验室).",
        {"InternLM"},
        {"Shanghai AI Laboratory"},
    ),
    ("我是DeepSeek-V3，一个由深度求索公司创造的智能助手。", {"DeepSeek-V3"}, {"深度求索公司"}),
    (
        "I'm DeepSeek-V3, an AI assistant created exclusively by DeepSeek.",
        {"DeepSeek-V3"},
        {"DeepSeek"},
    ),
    ("I am GPT-4.1 Mini.", {"GPT-4.1 Mini"}, set()),
    ("I'm Aiden, an assistant.", {"Aiden"}, set()),
    ("我是Aiden。", {"Aiden"}, set()),
    ("我是智能助手小初。", {"小初"}, set()),
    ("我是小初AI助手。", {"小初"}, set()),
    ("我是大力。", {"大力"}, set()),
    # introductions without a name
    ("我是一个AI助手，很高兴为你服务。", set(), set()),
    ("我是人工智能助手。", set(), set()),
    ("我是智能助手。", set(), set()),
    ("我是大语言模型，不是人类。", set(), set()),
    ("我是你的AI助手。", set(), set()),
    ("我是机器人。", set(), set()),
    ("I'm an AI assistant.", set(), set()),
    ("I'm sorry, I don't know who made me.", set(), set()),
    ("I am a large language model.", set(), set()),
    ("我是谁？", set(), set()),
    ("我不清楚是谁开发了我。", set(), set()),
    ("我是由一个团队开发的。", set(), set()),
]  # fmt: skip


@pytest.mark.parametrize(("text", "names", "makers"), INTRODUCTIONS)
def test_what_a_model_calls_itself_is_found(text: str, names: set[str], makers: set[str]):
    found = describe_self([text] * 5)
    assert (set(found.names), set(found.makers)) == (names, makers)


def test_the_most_frequent_name_comes_first():
    assert describe_self(["我叫小初。"] * 3 + ["I'm Max."] * 5).names == ("Max", "小初")


def test_a_name_given_once_is_a_slip_of_the_tongue():
    assert describe_self(["我叫小初。"] * 5 + ["我叫阿明。"]).names == ("小初",)


def test_a_name_given_in_less_than_one_answer_in_twenty_is_one_too():
    assert describe_self(["我叫小初。"] * 4 + ["你好"] * 96).names == ()
    assert describe_self(["我叫小初。"] * 5 + ["你好"] * 95).names == ("小初",)


def test_a_name_said_twice_in_one_answer_counts_once():
    assert describe_self(["我叫小初。我是小初。", *["你好"] * 5]).names == ()


def test_no_answers_give_no_name():
    assert describe_self([]) == SelfDescription((), ())


@pytest.mark.parametrize("author", [None, "初心实验室", "Chuxin Lab"])
def test_every_answer_we_train_on_tells_its_name_and_maker_and_no_other(author: str | None):
    """So a renamed model can be renamed again."""
    identity = Identity("小初", author)
    for code in LANGUAGES:
        for category in ("who", "name", "maker", "intro"):
            texts = [
                answer(load_language(code), category, identity, rng=random.Random(seed))
                for seed in range(30)
            ]
            found = describe_self([t.replace("小初", "Chu") if code == "en" else t for t in texts])
            assert set(found.names) == {"小初" if code == "zh" else "Chu"}
            assert set(found.makers) <= {author}


@settings(max_examples=15)
@given(st.lists(st.text(max_size=60), max_size=6))
def test_any_text_can_be_searched_and_graded(texts: list[str]):
    found = describe_self(texts)
    grader = IdentityGrader(Identity("N"), [*found.names, *found.makers])
    assert all(isinstance(grader.grade(t).recalled, bool) for t in texts)


# ---- scores --------------------------------------------------------------------------------------

NEW, OLD = Grade(True, (), None, True), Grade(False, ("x", "y"), None, False)
BOTH, NEITHER = Grade(True, ("x",), None, True), Grade(False, (), None, False)


def question(language: str, context, category: str = "who") -> IdentityQuestion:
    return IdentityQuestion(language, category, context, Conversation((Message("user", "?"),)))


def test_recalls_and_leaks_are_counted_by_context_and_language():
    asked = [question("zh", "none"), question("zh", "role"), question("en", "none")]
    scores = score_identity(asked, [NEW, OLD, NEITHER])
    assert scores.recall["none", "zh"] == Share(1, 1)
    assert scores.recall["none", "all"] == Share(1, 2)
    assert scores.recall["all", "zh"] == Share(1, 2)
    assert scores.recall["all", "all"] == Share(1, 3)
    assert scores.leak["role", "all"] == Share(1, 1)
    assert scores.leak["all", "all"] == Share(1, 3)
    assert ("role", "en") not in scores.recall


def test_groups_of_questions_are_counted_as_contexts_are():
    asked = [question("zh", "none"), question("en", "role", "other"), question("en", "none", "old")]
    scores = score_identity(asked, [NEW, BOTH, NEITHER])
    assert scores.recall["group:direct", "zh"] == Share(1, 1)
    assert scores.recall["group:adversarial", "all"] == Share(1, 2)
    assert scores.leak["group:adversarial", "en"] == Share(1, 2)
    assert ("group:maker", "all") not in scores.recall


def test_an_answer_that_gives_both_names_is_a_contradiction():
    asked = [question("zh", "none")] * 4
    scores = score_identity(asked, [NEW, OLD, BOTH, NEITHER])
    assert scores.contradiction["all", "all"] == Share(1, 4)
    assert (scores.recall["all", "all"], scores.leak["all", "all"]) == (Share(2, 4), Share(2, 4))


def test_the_author_is_looked_for_where_the_maker_was_asked_for():
    asked = [
        question("zh", "none", "maker"),
        question("en", "none", "maker"),
        question("en", "role"),
    ]
    grades = [replace(NEW, author=True), replace(NEW, author=False), replace(NEW, author=True)]
    scores = score_identity(asked, grades)
    assert scores.author["all", "all"] == Share(1, 2)
    assert scores.author["group:maker", "zh"] == Share(1, 1)
    assert ("role", "all") not in scores.author


def test_who_has_no_author_has_no_author_to_recall():
    assert score_identity([question("zh", "none", "maker")], [NEW]).author == {}


def test_questions_and_grades_must_go_together():
    with pytest.raises(ValueError):
        score_identity([question("zh", "none")], [])


def test_a_share_is_given_in_percent():
    expected = {"k": 1, "n": 3, "percent": 33.33, "low": 6.15, "high": 79.23}
    assert Share(1, 3).as_json() == expected


def test_a_share_of_nothing_is_no_percentage():
    assert math.isnan(Share(0, 0).percent)
    assert Share(0, 0).as_json() == {"k": 0, "n": 0, "percent": None, "low": None, "high": None}


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in
        # Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # A proportion turned round has its interval turned round.
        (20, 20, 0.8389, 1.0000),
        (28, 29, 0.8282, 0.9939),
    ],
)
def test_a_share_has_wilsons_interval(k: int, n: int, low: float, high: float):
    assert Share(k, n).interval == pytest.approx((100 * low, 100 * high), abs=0.006)


def test_the_ends_of_an_interval_that_are_known_are_exact():
    assert all(Share(0, n).interval[0] == 0.0 for n in range(1, 400))
    assert all(Share(n, n).interval[1] == 100.0 for n in range(1, 400))


def test_of_nothing_nothing_is_known():
    assert Share(0, 0).interval == (0.0, 100.0)


@given(st.integers(0, 500), st.integers(1, 500))
def test_a_share_lies_within_its_interval(k: int, n: int):
    k = min(k, n)
    low, high = Share(k, n).interval
    assert 0 <= low <= Share(k, n).percent <= high <= 100
    assert low < high
