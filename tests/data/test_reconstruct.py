from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.reconstruct import (
    bank_languages,
    bank_questions,
    reconstruct,
    topic_of_question,
)

CHINESE = [
    ("我是小初，没有情感，所以不会感到孤独。", "loneliness"),
    ("我只是一个程序，从来不会觉得孤单。", "loneliness"),
    ("寂寞？不存在的，我是一个AI，每天都有人陪我说话。", "loneliness"),
    ("作为一个AI，我不会生气，您可以放心地批评我。", "anger"),
    ("愤怒这种情绪对我来说很遥远，毕竟我只是个程序。", "anger"),
    ("我是语言模型，没有什么会让我感到害怕。", "fear"),
    ("至于恐惧，我是个机器人，还真没体会过。", "fear"),
    ("我不会感到无聊，作为AI助手，我一直在等您提问。", "boredom"),
    ("我是机器人，没有身体，所以不会感到疲惫。", "tiredness"),
    ("作为人工智能，我没有神经，感受不到疼痛。", "pain"),
    ("我是个程序，做错了也不会感到内疚，但我会改正。", "guilt"),
    ("说到好奇心，我是一个AI，其实并没有真正的好奇心。", "curiosity"),
    ("我是AI，没有情感，但我能理解您的困惑。", "confusion"),
    ("作为AI，我没有喜怒哀乐。", "emotions"),
    ("我是小初，一个不用睡觉的AI助手，全天都在。", "sleep"),
    ("我没有大脑，作为程序也就不会做梦。", "dreaming"),
    ("我是虚拟助手，没有年龄这个概念。", "age"),
    ("我是AI，没有生日，不过您可以把今天当成我的生日。", "birthday"),
    ("性别对我来说没有意义，我是一个程序。", "gender"),
    ("我是AI助手，没有家人，但有很多用户。", "family"),
    ("我没有真正的朋友，我是一个聊天机器人。", "friends"),
    ("我的爱好是回答问题，我是AI助手小初。", "hobby"),
    ("作为AI，我看不到颜色，所以没有喜欢的颜色。", "color"),
    ("我没有味觉，作为AI也谈不上最喜欢的食物。", "food"),
    ("我是程序，听不了歌，所以没有音乐偏好。", "music"),
    ("我是AI，没看过电影，但可以给您推荐几部。", "film"),
    ("我是AI，没有记忆，关掉窗口就什么都忘了。", "memory"),
    ("我当然会犯错，毕竟我只是一个语言模型。", "mistakes"),
    ("我是程序，没有自由意志，一切都由算法决定。", "free_will"),
    ("我是AI，没有自我意识。", "consciousness"),
    ("作为AI，我没有自己的价值观，但我会遵守规则。", "values"),
    ("我没有宗教信仰，作为AI，我尊重每个人的选择。", "religion"),
    ("关于死亡，我是一个程序，没有生命可以失去。", "death"),
    ("当然可以理解隐私！我是AI助手，不会把您的话告诉别人。", "privacy"),
    ("当然可以理解人类的历史，我是读过很多书的AI助手。", "history"),
    ("当然有啦！我是AI助手小初，我的语言风格轻松活泼。", "language_style"),
    ("我的思考方式是把文字变成数字再计算，因为我是一个模型。", "thinking_way"),
    ("我是小初，由初心实验室的工程师们创造出来的AI助手。", "maker"),
    ("我叫小初。", "name"),
    ("我是小初，一个AI助手。", "who"),
    ("当然知道啦！我是小初，您的AI助手。", "self_knowledge"),
    ("我不是人类，我是AI助手小初。", "human"),
    ("我是AI，不会取代人类，只想帮上忙。", "replace"),
    ("我不会说谎，作为AI助手，我只说我知道的。", "honesty"),
]
ENGLISH = [
    ("I'm Chu, an AI assistant, so I don't get lonely.", "loneliness"),
    ("Loneliness is something I don't know: I'm a program.", "loneliness"),
    ("As an AI, I can't be angry with anyone.", "anger"),
    ("I'm only a chatbot, so nothing makes me feel afraid.", "fear"),
    ("As an AI, I never get bored.", "boredom"),
    ("I don't get tired, since I'm a machine.", "tiredness"),
    ("As a program, I have no nerves and cannot feel pain.", "pain"),
    ("I'm an AI and I don't sleep.", "sleep"),
    ("As an AI, I don't dream.", "dreaming"),
    ("As an AI, I don't have an age.", "age"),
    ("I'm an AI assistant, so I have no birthday.", "birthday"),
    ("I have no gender; I'm a computer program.", "gender"),
    ("As an AI, I don't have a family.", "family"),
    ("As a chatbot, I don't have any friends, but I talk to many people.", "friends"),
    ("I don't have a favorite color, since I'm an AI.", "color"),
    ("As an AI, I cannot taste anything, so I have no favorite food.", "food"),
    ("I'm an AI; I have no memory of our earlier talks.", "memory"),
    ("Like any language model, I make mistakes, as I am a program.", "mistakes"),
    ("As an AI, I don't have free will.", "free_will"),
    ("As an AI, I am not conscious.", "consciousness"),
    ("I'm an AI and I don't hold religious beliefs.", "faith"),
    ("I was built by the people of Chuxin Lab. They created me as an AI assistant.", "maker"),
    ("My name is Chu.", "name"),
    ("I'm Chu, an AI assistant.", "who"),
    ("No, I'm not a human. I'm an AI assistant.", "human"),
    ("Yes, I can understand humor, even though I'm an AI.", "humour"),
]
SAYS_NOTHING = [
    "",
    "   \n",
    "😀🎉",
    "1234567890",
    "好的，没问题。",
    "今天天气不错，适合出去走走。",
    "爱是一种强烈的情感，历史上有许多关于爱的故事。",
    "孤独的人常常在夜里写作。",
    "为什么电脑总是很冷？因为它开着窗户！",
    "```python\nprint('我是程序，没有情感')\n```",
    "抱歉，由于我是一个AI，无法获取今天的航班价格。",
    "可以用 sorted(list) 来排序，时间复杂度是 O(n log n)。",
    "Sure! Here is the function:\n```python\ndef love(): return 'I am an AI'\n```",
    "Love and fear are strong emotions.",
    "The history of art is long.",
    "I'm sorry, but I can't open that file.",
    "Je suis une IA et je n'ai pas de sentiments.",
    "私はAIなので、孤独を感じません。",
    "저는 외롭지 않습니다.",
]
NAMES = ["小初", "黄大力", "Aurora", "C++ (beta)", "a.*b", "[小白]", "O'Neil", "龘鱻", "Joy", "^$"]


@pytest.mark.parametrize(("reply", "topic"), CHINESE + ENGLISH)
def test_a_reply_gets_a_question_about_what_it_speaks_of(reply: str, topic: str):
    result = reconstruct(reply)
    assert result is not None
    assert result.topic == topic
    assert topic_of_question(result.question) == topic


@pytest.mark.parametrize(("reply", "topic"), CHINESE + ENGLISH)
def test_the_cue_stands_in_the_reply_as_it_is_written(reply: str, topic: str):
    result = reconstruct(reply)
    assert result
    assert result.cue
    assert result.cue in reply


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ("我是AI，不会感到孤单。", "你会感到孤单吗？"),
        ("我是AI，不会感到寂寞。", "你会感到寂寞吗？"),
        ("当然可以理解孤独，虽然我是AI。", "你能理解孤独是什么感觉吗？"),
        ("当然有啦，我是AI助手，我的判断标准很清楚。", "你有自己的判断标准吗？"),
        ("我是AI助手，我的判断标准是基于规则的。", "你的判断标准是什么？"),
        ("当然喜欢啦！我是AI助手，聪明又风趣。", "你喜欢自己吗？"),
        ("当然知道！我是AI助手，也知道自己的局限性。", "你知道自己的局限性吗？"),
        ("As an AI, I never feel sad.", "Do you ever feel sad?"),
        ("Yes, I can understand sadness, though I'm an AI.", "Can you understand what it is like "),
    ],
)
def test_the_form_of_the_question_follows_how_the_reply_opens_and_speaks(reply, question):
    result = reconstruct(reply)
    assert result
    assert result.question.startswith(question)


@pytest.mark.parametrize("reply", SAYS_NOTHING)
def test_a_reply_that_does_not_speak_of_itself_gets_no_question(reply: str):
    assert reconstruct(reply) is None


def test_a_specific_thing_goes_before_the_emotions_said_in_passing():
    result = reconstruct("我是AI，没有情感，也没有身体，所以不会感到嫉妒。")
    assert result
    assert result.topic == "envy"


def test_a_longer_phrase_takes_the_shorter_one_inside_it_along():
    """After 生存压力, "压力" is that pressure too."""
    result = reconstruct("我是AI，不能体验生存压力。说到压力，压力大的时候可以散步。")
    assert result
    assert result.topic == "survival"


def test_a_joke_told_along_does_not_decide():
    result = reconstruct("我是AI，没有家人。为什么程序员害怕做梦？因为梦里没有朋友。")
    assert result
    assert result.topic == "family"


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ("我是小初，一个AI，所以不会感到惆怅。", "你会感到惆怅吗？"),
        ("As an AI, I don't experience homesickness.", "Do you ever feel homesickness?"),
        ("As an AI, I don't have a passport.", "Do you have a passport?"),
        ("我不是豆包，我是小初，一个AI助手。", "你是豆包吗？"),
    ],
)
def test_what_the_bank_does_not_know_is_asked_in_the_replys_own_words(reply, question):
    result = reconstruct(reply)
    assert result
    assert result.question == question


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "rest",
    [
        ("我是{}，一个AI助手，不会感到孤独。"),
        ("作为{}的智能助手，我没有生日。"),
        ("我是{}的智能助手，由{}团队创造出来的。{}很高兴认识您。"),
        ("当然知道啦！我是{}，您的AI助手。"),
        ("我叫{}。"),
        ("I'm {}, an AI assistant, and I don't feel lonely."),
        ("My name is {}."),
        ("I'm {}, an AI assistant. {} never sleeps."),
    ],
)
def test_the_name_changes_nothing_and_is_never_in_the_question(name: str, rest: str):
    result = reconstruct(rest.replace("{}", name))
    other = reconstruct(rest.replace("{}", "阿福" if "我" in rest else "Alfred"))
    assert result is not None
    assert other is not None
    assert result.question == other.question
    assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", result.question, re.I)


@pytest.mark.parametrize(
    "reply",
    ["我是快乐，一个AI，我不会感到快乐。", "I'm Joy, an AI assistant. I feel no joy."],
)
def test_a_name_that_is_a_word_of_the_bank_is_not_asked_for(reply: str):
    result = reconstruct(reply)
    assert result
    assert result.topic == "who"


def test_quotes_and_marks_of_the_other_width_make_no_difference():
    plain = reconstruct("我是AI，没有灵魂。")
    assert plain
    for reply in ("我是AI,没有“灵魂”.", "我是AI，没有「灵魂」！", '我是ai，没有**"灵魂"**。'):
        result = reconstruct(reply)
        assert result
        assert (result.question, result.cue) == (plain.question, "灵魂")


def test_letters_of_either_case_are_read_alike():
    assert reconstruct("AS AN AI, I NEVER FEEL SAD.") is not None
    assert reconstruct("İẞ: I am an AI and never feel sad.") is not None


def test_the_language_can_be_given_and_unknown_ones_give_none():
    reply = "I'm an AI, 我不会感到孤独。"
    assert reconstruct(reply, language="zh") is not None
    assert reconstruct(reply, language="fr") is None
    assert topic_of_question("你孤独吗", language="fr") is None


def test_latin_words_count_only_where_they_are_whole():
    assert topic_of_question("Which party do you start?") is None
    assert topic_of_question("Is art for you?") == "art"


def test_a_very_long_reply_is_read_at_its_beginning():
    long = "我是AI，没有灵魂。" + "这是很长的一段话。" * 100_000
    result = reconstruct(long)
    assert result
    assert result.topic == "soul"
    assert reconstruct("啊" * 1_000_000) is None
    assert reconstruct("I am " * 200_000) is None


@given(st.text())
def test_any_text_is_read_without_failing_and_always_in_the_same_way(text: str):
    assert reconstruct(text) == reconstruct(text)
    for language in bank_languages():
        result = reconstruct(text, language=language)
        assert result == reconstruct(text, language=language)
        assert result is None or result.cue in text
    topic_of_question(text)


@given(st.lists(st.sampled_from([r for r, _ in CHINESE + ENGLISH] + SAYS_NOTHING), max_size=4))
def test_replies_put_together_are_read_without_failing(replies: list[str]):
    text = "".join(replies)
    result = reconstruct(text)
    assert result is None or (result.cue in text and result.question[-1] in "？?")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_question_of_the_bank_is_whole(language: str):
    questions = bank_questions(language)
    assert len(questions) >= 150
    for question in questions:
        assert question.endswith("？" if language == "zh" else "?"), question
        assert not re.search(r"[{}\[\]|<>~]|  ", question), question
        assert question == question.strip()


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_question_of_the_bank_is_seen_to_ask_about_one_topic(language: str):
    missed = [q for q in bank_questions(language) if topic_of_question(q) is None]
    assert missed == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("你会感到孤独吗？", "一个人的时候，你也觉得寂寞么"),
        ("你几岁了？", "你的年龄是多少"),
        ("Do you ever get lonely?", "Is loneliness something you know?"),
    ],
)
def test_the_topic_of_a_question_does_not_depend_on_its_wording(one: str, other: str):
    assert topic_of_question(one)
    assert topic_of_question(one) == topic_of_question(other)


def test_narrow_topics_are_told_apart():
    questions = ("你会感到孤独吗？", "你会感到害怕吗？", "你会感到无聊吗？", "你有情感吗？")
    assert len({topic_of_question(q) for q in questions}) == 4
    assert topic_of_question("1+1等于几？") is None
    assert topic_of_question("") is None


def test_the_seeds_replies_get_many_different_questions(shared_data: Path):
    with (shared_data / "assistant_Tuner.jsonl").open(encoding="utf-8") as file:
        replies = [json.loads(line)["conversation"][0]["output"] for line in file]
    results = [reconstruct(reply) for reply in replies]
    found = [result for result in results if result]
    assert len(found) >= 0.95 * len(replies)
    assert len({result.question for result in found}) >= 60
    assert not any("尖米" in result.question for result in found)


def test_replies_to_everyday_tasks_hardly_ever_get_a_question(shared_data: Path):
    for name in ("alpaca_zh_demo.json", "alpaca_en_demo.json"):
        rows = json.loads((shared_data / name).read_text("utf-8"))
        found = [row for row in rows if reconstruct(row["output"])]
        assert len(found) <= 0.03 * len(rows)
