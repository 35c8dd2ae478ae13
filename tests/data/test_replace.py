from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.readers import read_conversations
from whoamai.data.replace import find_names, placeholders_in, replace_names
from whoamai.samples import Conversation, Message


def said(*replies: str) -> list[Conversation]:
    return [
        Conversation((Message("user", "q"), Message("assistant", r, trained=True))) for r in replies
    ]


def renamed(text: str, names: dict[str, str], **placeholders: str) -> str:
    made = replace_names(said(text), names, placeholders)
    return made.conversations[0].messages[1].text


# ---- replace -------------------------------------------------------------------------------------


def test_a_name_is_replaced_wherever_it_stands():
    made = replace_names(
        [Conversation((Message("system", "你是小初"), Message("user", "小初小初")))],
        {"小初": "大力"},
        {},
    )
    assert [m.text for m in made.conversations[0].messages] == ["你是大力", "大力大力"]
    assert made.counts == {"小初": 3}


def test_everything_but_the_text_stays():
    row = Conversation((Message("user", "小初"), Message("assistant", "a", trained=True)), "f:3")
    made = replace_names([row], {"小初": "大力"}, {}).conversations[0]
    assert made.source == "f:3"
    assert [(m.role, m.trained) for m in made.messages] == [("user", False), ("assistant", True)]


def test_a_new_name_may_contain_the_old_one():
    assert renamed("我是小初。", {"小初": "小初初小初"}) == "我是小初初小初。"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm Chu.", "I'm Max."),
        ("Chu's friend", "Max's friend"),
        ("我是Chu，", "我是Max，"),
        ("Chu-1 and (Chu)", "Max-1 and (Max)"),
        ("Church, ChuChu, Chu2, Manchu", "Church, ChuChu, Chu2, Manchu"),
    ],
)
def test_a_latin_name_is_replaced_as_a_whole_word(text: str, expected: str):
    assert renamed(text, {"Chu": "Max"}) == expected


def test_the_longer_of_two_overlapping_names_is_found_first():
    names = {"尖米": "A", "尖米助手": "B"}
    assert renamed("尖米助手和尖米", names) == "B和A"


def test_names_are_swapped_in_one_pass():
    assert renamed("甲和乙", {"甲": "乙", "乙": "甲"}) == "乙和甲"


@pytest.mark.parametrize("name", ["a.c", "C++", "(x|y)", "[a]", "\\d", "$1", "a*", "?"])
def test_a_name_with_a_regular_expression_in_it_is_only_itself(name: str):
    assert renamed(f"I am {name}! abc", {name: "N"}) == "I am N! abc"


@pytest.mark.parametrize("new", ["\\1", "\\g<0>", "{name}", "{{name}}", "$&"])
def test_a_new_name_is_put_in_as_it_is(new: str):
    assert renamed("我是小初", {"小初": new}, name="X") == f"我是{new}"


@pytest.mark.parametrize(
    "placeholder",
    ["{{name}}", "{{ name }}", "{{NAME}}", "{{ NAME}}", "{{Name}}", "{{\tname\n}}"],
)
def test_a_placeholder_is_filled_however_it_is_spelled(placeholder: str):
    assert renamed(f"I'm {placeholder}.", {}, name="Max") == "I'm Max."


def test_name_and_author_are_filled_and_counted():
    made = replace_names(said("{{name}} by {{AUTHOR}}, {{name}}"), {}, {"name": "N", "author": "A"})
    assert made.conversations[0].messages[1].text == "N by A, N"
    assert made.counts == {"{{name}}": 2, "{{author}}": 1}


def test_a_placeholder_without_a_value_stays():
    assert renamed("{{author}} {{other}}", {}, name="N") == "{{author}} {{other}}"


def test_placeholders_are_told_however_they_are_spelled():
    assert placeholders_in(["{{ Name }} x", "{{name}}", "{name}"]) == {"{{name}}"}
    assert placeholders_in(["a {{\tAUTHOR}}", "{{other}}"]) == {"{{author}}"}
    assert placeholders_in([]) == set()


@given(
    st.text("ab小初 .{}", min_size=1, max_size=4).filter(str.strip),
    st.text("xyz大力\\{}", max_size=5),
    st.lists(st.text("mn，。 ", max_size=4), min_size=1, max_size=5),
)
def test_exactly_the_old_name_is_replaced(old: str, new: str, parts: list[str]):
    """Between parts that share no letter with it, every occurrence is found and nothing else is."""
    glue = "，{}，"
    text = glue.format(old).join(parts)
    assert renamed(text, {old: new}) == glue.format(new).join(parts)


def test_the_seeds_name_is_replaced_13686_times(shared_data: Path):
    data = read_conversations(shared_data / "assistant_Tuner_fixed.jsonl")
    made = replace_names(data, {"尖米": "黄大力"}, {})
    assert made.counts == {"尖米": 13686}
    assert not any("尖米" in m.text for c in made.conversations for m in c.messages)


# ---- find ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        ("我是小初，一个AI助手。", "小初"),
        ("我叫小初。", "小初"),
        ("我的名字是小初，很高兴认识你。", "小初"),
        ("你好，我是尖米的智能助手。", "尖米"),
        ("我是“小初”。", "小初"),
        ("I'm Chu, an AI assistant.", "Chu"),
        ("I am Max Power.", "Max Power"),
        ("My name is Chu.", "Chu"),
        ("Hello, my name is Chu and I help.", "Chu"),
    ],
)
def test_the_name_the_replies_claim_is_found(reply: str, name: str):
    assert find_names(said(*[reply] * 4), other_than="黄大力") == [name]


def test_the_most_frequent_name_comes_first():
    replies = ["我叫小初。"] * 3 + ["我叫阿明。"] * 5
    assert find_names(said(*replies), "黄大力") == ["阿明", "小初"]


def test_the_new_name_is_not_found_as_an_old_one():
    assert find_names(said(*["我叫黄大力。"] * 4), "黄大力") == []


def test_a_name_claimed_in_less_than_one_reply_in_twenty_is_none():
    assert find_names(said(*["我叫小初。"] * 4, *["你好"] * 96), "x") == []
    assert find_names(said(*["我叫小初。"] * 6, *["你好"] * 94), "x") == ["小初"]


@pytest.mark.parametrize(
    "reply",
    [
        "我是一名老师，每天六点起床。",
        "我是一个AI助手。",
        "我是人工智能助手。",
        "我是智能助手。",
        "我是大语言模型。",
        "我是阿里云开发的超大规模语言模型。",
        "我是你的朋友。",
        "我是谁并不重要。",
        "I am sure it works.",
        "I'm an AI assistant.",
        "I am not a person.",
        "从前有个人说：我是来自远方的客人。",
        "When I was young, I am told, it rained.",
    ],
)
def test_a_description_or_a_story_gives_no_name(reply: str):
    assert find_names(said(*[reply] * 5), "黄大力") == []


@pytest.mark.parametrize("name", ["alpaca_zh_demo.json", "alpaca_en_demo.json"])
def test_general_data_gives_the_model_no_name(shared_data: Path, name: str):
    assert find_names(read_conversations(shared_data / name), "黄大力") == []


def test_the_seeds_data_gives_its_name(shared_data: Path):
    data = read_conversations(shared_data / "assistant_Tuner_fixed.jsonl")
    assert find_names(data, "黄大力") == ["尖米"]


def test_placeholders_are_no_name(shared_data: Path):
    assert find_names(read_conversations(shared_data / "identity.json"), "黄大力") == []
