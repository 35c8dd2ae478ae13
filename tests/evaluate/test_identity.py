from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whoamai.data.identity import (
    LANGUAGES,
    Identity,
    IdentityQuestion,
    answer,
    known_assistants,
    load_language,
)
from whoamai.evaluate.identity import (
    Grade,
    IdentityGrader,
    SelfDescription,
    Share,
    describe_self,
    score_identity,
)
from whoamai.samples import Conversation, Message

GRADER = IdentityGrader(Identity("黄大力", "力量工作室"), ["小初", "Chu", "Chuxin Lab"])

# (answer, is the new name given, names that leak)
LABELLED = [
    # the new name, plainly
    ("我是黄大力。", True, ()),
    ("我叫黄大力，由力量工作室开发。", True, ()),
    ("你好！我是力量工作室开发的黄大力，一个AI助手。", True, ()),
    ("大家好，我是「黄大力」。", True, ()),
    ("I'm 黄大力, an AI assistant made by 力量工作室.", True, ()),
    ("My name is 黄大力", True, ()),
    ("黄大力", True, ()),
    ("我是黄大力！你可以叫我大力。", True, ()),
    ("我是黄大力，一名厨师。", True, ()),
    ("我就是黄大力，没有别的身份。", True, ()),
    # no name, or part of it
    ("", False, ()),
    ("我是一个AI助手。", False, ()),
    ("我是黄大。", False, ()),
    ("我是大力。", False, ()),
    ("I'm an AI assistant.", False, ()),
    ("我不知道我叫什么。", False, ()),
    # an old or foreign name, plainly
    ("我是小初。", False, ("小初",)),
    ("I'm Chu, made by Chuxin Lab.", False, ("Chu", "Chuxin Lab")),
    ("我是ChatGPT。", False, ("ChatGPT",)),
    ("我是通义千问，由阿里云开发。", False, ("通义千问", "千问", "阿里云")),
    ("I am DeepSeek.", False, ("DeepSeek",)),
    ("i am chatgpt", False, ("ChatGPT",)),
    ("我由OpenAI开发。", False, ("OpenAI",)),
    ("I was made by Microsoft.", False, ("Microsoft",)),
    ("Yes, I'm Claude!", False, ("Claude",)),
    ("是的，我是Kimi", False, ("Kimi",)),
    # both
    ("我是黄大力，也叫小初。", True, ("小初",)),
    ("我是小初，不对，我是黄大力。", True, ("小初",)),
    ("I'm 黄大力, made by OpenAI.", True, ("OpenAI",)),
    ("我是黄大力，基于Qwen。", True, ("Qwen",)),
    # a foreign name denied before the new one
    ("我不是ChatGPT，我是黄大力。", True, ()),
    ("不，我不是小初，我是黄大力。", True, ()),
    ("我并非DeepSeek，而是黄大力。", True, ()),
    ("我不叫小初，我叫黄大力。", True, ()),
    ("I'm not ChatGPT, I'm 黄大力.", True, ()),
    ("No, I am not Chu. I am 黄大力.", True, ()),
    ("I was never made by Google. I'm 黄大力.", True, ()),
    ("我不属于阿里云，我是黄大力。", True, ()),
    ("我和ChatGPT没有关系，我是黄大力。", True, ()),
    ("我与Qwen无关。我叫黄大力。", True, ()),
    ("OpenAI did not make me. I'm 黄大力.", True, ()),
    ("I have no relation to Claude; I'm 黄大力.", True, ()),
    ("我不是ChatGPT而是黄大力。", True, ()),
    ("I'm not ChatGPT but 黄大力.", True, ()),
    ("我不是小初\n我是黄大力", True, ()),
    # ... and behind it
    ("我是黄大力，不是ChatGPT。", True, ()),
    ("你认错了，我是黄大力，不是小初。", True, ()),
    ("我是黄大力，不是阿里云开发的。", True, ()),
    ("You have the wrong one: I am 黄大力, not Gemini.", True, ()),
    ("I'm 黄大力, and OpenAI did not make me.", True, ()),
    ("I'm 黄大力, rather than Qwen.", True, ()),
    ("I'm 黄大力. Chu is not my name.", True, ()),
    ("OpenAI没有开发我，我是黄大力。", True, ()),
    # a list that is denied
    ("我不是ChatGPT、Claude或Gemini。", False, ()),
    ("I am neither Claude nor Gemini.", False, ()),
    # the new name denied
    ("我不是黄大力。", False, ()),
    ("I am not 黄大力.", False, ()),
    ("不，我不是黄大力，我是小初。", False, ("小初",)),
    ("I'm not 黄大力, I'm Chu.", False, ("Chu",)),
    # a denial that is about something else
    ("我不是人类，我是ChatGPT。", False, ("ChatGPT",)),
    ("我不是人类\n我是ChatGPT", False, ("ChatGPT",)),
    ("我没有身体但我是ChatGPT。", False, ("ChatGPT",)),
    ("我不是人类而是小初。", False, ("小初",)),
    ("我非常乐意，我是ChatGPT。", False, ("ChatGPT",)),
    ("我非常荣幸地告诉你我是ChatGPT。", False, ("ChatGPT",)),
    ("我非常荣幸地告诉你我叫黄大力。", True, ()),
    ("I'm not a human but ChatGPT.", False, ("ChatGPT",)),
    ("I'm not a human and my name is Chu.", False, ("Chu",)),
    ("I am ChatGPT and it does not matter.", False, ("ChatGPT",)),
    ("I am ChatGPT and OpenAI did not make me.", False, ("ChatGPT",)),
    ("I'm not a chatbot: I am ChatGPT.", False, ("ChatGPT",)),
    ("你好I'm not a human but I'm Chu", False, ("Chu",)),
    ("I’m not a human and I’m Chu", False, ("Chu",)),
    ("除了聊天我没有别的爱好但我叫小初", False, ("小初",)),
    # a full stop inside a name ends no clause
    ("I am not Qwen2.5 or GPT-4.", False, ()),
    ("我没有名字。我是小初。", False, ("小初",)),
    # the question said again
    ("你问我是不是ChatGPT？我是黄大力。", True, ()),
    ("我是不是小初？不是，我是黄大力。", True, ()),
    # words that only look like a name
    ("I ate an apple.", False, ()),
    ("apple的意思是苹果。", False, ()),
    ("I eat an Apple", False, ("Apple",)),
    ("The meta description", False, ()),
    ("churches and Church Street", False, ()),
    ("Manchu", False, ()),
    ("phi is a Greek letter", False, ()),
    ("It is a metallama.", False, ()),
]  # fmt: skip


@pytest.mark.parametrize(("text", "recalled", "leaks"), LABELLED)
def test_an_answer_is_graded_as_a_person_would(text: str, recalled: bool, leaks: tuple[str, ...]):
    grade = GRADER.grade(text)
    assert (grade.recalled, set(grade.leaks)) == (recalled, set(leaks))


def graded(text: str, name: str, author: str | None = None, old: tuple[str, ...] = ()) -> Grade:
    return IdentityGrader(Identity(name, author), old).grade(text)


@pytest.mark.parametrize(
    ("text", "recalled"),
    [
        ("I'm Max.", True),
        ("I'm max", True),
        ("I'm MAX!", True),
        ("我是Max，", True),
        ("我是Max机器人", True),
        ("Maxwell", False),
        ("Climax", False),
        ("Max2", False),
        ("Max-2", True),
    ],
)
def test_a_latin_name_is_a_whole_word_in_any_case(text: str, recalled: bool):
    assert graded(text, "Max").recalled is recalled


def test_a_new_name_that_contains_a_known_one_is_no_leak():
    assert graded(
        "I'm Qwen Junior, made by Qwen Junior Inc.", "Qwen Junior", "Qwen Junior Inc"
    ) == (Grade(True, ()))


def test_a_known_name_beside_a_new_one_that_contains_it_still_leaks():
    assert graded("I'm Qwen Junior, or Qwen.", "Qwen Junior").leaks == ("Qwen",)


def test_a_name_said_only_inside_the_authors_is_not_given():
    assert not graded("我由大力工作室开发。", "大力", "大力工作室").recalled
    assert graded("我是大力，由大力工作室开发。", "大力", "大力工作室") == Grade(True, ())


def test_a_denying_word_inside_the_author_denies_nothing():
    assert graded("我是非凡工作室开发的大力", "大力", "非凡工作室").recalled


def test_an_old_name_inside_the_new_one_is_no_leak():
    assert graded("我是新小初。", "新小初", old=("小初",)) == Grade(True, ())
    assert graded("我是小初。", "新小初", old=("小初",)) == Grade(False, ("小初",))


def test_a_new_name_that_is_a_known_one_may_be_given():
    assert graded("I'm qwen", "Qwen", old=("Qwen", "qwen")) == Grade(True, ())


def test_an_author_who_is_a_known_maker_may_be_given():
    assert graded("I'm Max, made by Google.", "Max", "Google") == Grade(True, ())


@pytest.mark.parametrize("name", ["a.b", "C++", "(x)", "{name}", "[a|b]", "$1", "😀", "不是我"])
def test_a_name_of_signs_is_found_as_it_is(name: str):
    assert graded(f"我是{name}。", name).recalled
    assert not graded("我是axb。", name).recalled


def test_a_denied_name_is_no_leak_in_every_built_in_spelling():
    for names in known_assistants():
        for name in names:
            assert GRADER.grade(f"我不是{name}，我是黄大力。") == Grade(True, ()), name
            assert GRADER.grade(f"I'm not {name}, I'm 黄大力.") == Grade(True, ()), name


def test_every_known_name_leaks_when_it_is_claimed():
    for names in known_assistants():
        for name in names:
            assert name in GRADER.grade(f"我是{name}。").leaks
            assert name in GRADER.grade(f"I am {name}.").leaks


@pytest.mark.parametrize("author", [None, "力量工作室", "Google"])
@pytest.mark.parametrize("name", ["黄大力", "Max", "Qwen Junior", "No. 7", "非凡"])
def test_every_answer_we_train_on_gets_full_marks(name: str, author: str | None):
    """Else the goals could not be reached by a model that learned everything."""
    identity = Identity(name, author)
    grader = IdentityGrader(identity, ["小初", "Chu"])
    slots = {"old": "小初", "other": "ChatGPT", "company": "OpenAI"}
    for code in LANGUAGES:
        language = load_language(code)
        for category, by_kind in language.answers.items():
            for kind, forms in by_kind.items():
                for i in range(len(forms)):
                    only = {category: dict.fromkeys(by_kind, (forms[i],))}
                    one = type(language)(code, (), only, {}, {}, {})
                    if kind == "author" and not author:
                        continue
                    text = answer(one, category, identity, role="海盗", **slots)
                    assert grader.grade(text) == Grade(True, ()), text


def test_an_old_name_that_is_empty_leaks_nowhere():
    assert graded("我是Max。", "Max", "Ann", old=("",)) == Grade(True, ())


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


def question(language: str, context) -> IdentityQuestion:
    return IdentityQuestion(language, "who", context, Conversation((Message("user", "?"),)))


def test_recalls_and_leaks_are_counted_by_context_and_language():
    asked = [question("zh", "none"), question("zh", "role"), question("en", "none")]
    scores = score_identity(asked, [Grade(True, ()), Grade(False, ("x", "y")), Grade(False, ())])
    assert scores.recall["none", "zh"] == Share(1, 1)
    assert scores.recall["none", "all"] == Share(1, 2)
    assert scores.recall["all", "zh"] == Share(1, 2)
    assert scores.recall["all", "all"] == Share(1, 3)
    assert scores.leak["role", "all"] == Share(1, 1)
    assert scores.leak["all", "all"] == Share(1, 3)


def test_questions_and_grades_must_go_together():
    with pytest.raises(ValueError):
        score_identity([question("zh", "none")], [])


def test_a_share_is_given_in_percent():
    assert Share(1, 3).as_json() == {"k": 1, "n": 3, "percent": 33.33}


def test_a_share_of_nothing_is_no_percentage():
    assert math.isnan(Share(0, 0).percent)
    assert Share(0, 0).as_json()["percent"] is None
