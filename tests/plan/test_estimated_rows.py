"""Rows estimated from characters: about as long as real ones, and sharing what texts share."""

from __future__ import annotations

import pytest

from whoamai.plan.estimated_rows import EstimatedEncoding
from whoamai.samples import Conversation, Message, Sample


def row_of(*texts: str, system: str | None = None) -> Sample:
    """Questions and trained replies in turn."""
    messages = [Message("system", system)] if system else []
    for i, text in enumerate(texts):
        messages.append(Message("assistant", text, True) if i % 2 else Message("user", text))
    [sample] = EstimatedEncoding().samples(Conversation(tuple(messages)))
    return sample


def test_chinese_takes_about_three_tokens_for_five_characters():
    text = "我是你的智能助手擅长修复问题和编写代码" * 10
    assert sum(row_of("你好", text).is_target) / len(text) == pytest.approx(0.6, abs=0.05)


def test_an_english_word_takes_a_token():
    text = "the quick brown fox jumps over a lazy dog " * 10
    assert sum(row_of("hi", text.strip()).is_target) == 90 + 1  # and the end of the reply


def test_only_trained_replies_and_their_ends_are_targets():
    messages = (
        Message("user", "one"),
        Message("assistant", "not this", False),
        Message("user", "two"),
        Message("assistant", "this", True),
    )
    [sample] = EstimatedEncoding().samples(Conversation(messages))
    assert sum(sample.is_target) == 2
    assert sample.is_target[-1]


def test_nothing_comes_after_the_last_trained_reply():
    trained = (Message("user", "one"), Message("assistant", "two", True))
    rest = (Message("user", "three"), Message("assistant", "four", False))
    encoding = EstimatedEncoding()
    assert encoding.samples(Conversation((*trained, *rest))) == encoding.samples(
        Conversation(trained)
    )


def test_a_conversation_without_a_trained_reply_gives_no_row():
    messages = (Message("user", "one"), Message("assistant", "two", False))
    assert EstimatedEncoding().samples(Conversation(messages)) == []


def test_rows_with_one_system_prompt_begin_alike():
    system = "你是一个乐于助人的助手。Be brief."
    a = row_of("你好", "你好！", system=system).input_ids
    b = row_of("再见", "再见！", system=system).input_ids
    alike = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    assert alike > 10
    assert a[:alike] == b[:alike]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "🦊🦊", "\ud800", "a" * 1000, "1234567", "龘鱻"])
def test_any_text_is_estimated(text: str):
    assert len(row_of("?", text).input_ids) >= 1
