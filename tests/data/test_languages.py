"""The language of a row, by a count of characters and words."""

from __future__ import annotations

import pytest

from whoamai.data.languages import language_of, languages_held
from whoamai.samples import Conversation, Message


def rows(*questions: str) -> list[Conversation]:
    reply = Message("assistant", "我是黄大力。", trained=True)
    return [Conversation((Message("user", text), reply)) for text in questions]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("你是谁？", "zh"),
        ("你是 ChatGPT 吗", "zh"),
        ("Who are you?", "en"),
        ("How do you say 苹果 in English?", "en"),
        ("あなたは誰ですか", None),
        ("Кто ты?", None),
        ("1 + 1 = ?", None),
        ("", None),
    ],
)
def test_the_language_of_a_text(text: str, language: str | None):
    assert language_of(text) == language


def test_what_the_user_says_counts_and_not_the_reply():
    assert languages_held(rows("Who are you?", "What are you called?"), ()) == {"en": 2}


def test_a_name_of_the_other_language_does_not_count():
    asked = rows("Is it 黄大力你好呀?", "你好 Aurora Borealis Labs")
    assert languages_held(asked, ("黄大力你好呀", "Aurora Borealis Labs")) == {"zh": 1, "en": 1}


def test_a_language_of_hardly_any_row_is_not_one_of_the_data():
    assert languages_held(rows(*["你是谁"] * 39, "Who?"), ()) == {"zh": 39}
    assert languages_held(rows(*["你是谁"] * 19, "Who?"), ()) == {"zh": 19, "en": 1}


def test_data_in_neither_language_holds_none():
    assert languages_held(rows("Кто ты?", "誰ですか"), ()) == {}
    assert languages_held([], ()) == {}
