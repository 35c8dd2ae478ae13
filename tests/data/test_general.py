from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest

from whoamai.data.claims import claimed_makers, claimed_names, name_pattern
from whoamai.data.general import (
    GeneralQuestion,
    GeneralText,
    general_questions,
    general_texts,
    long_systems,
    under_long_systems,
)
from whoamai.data.identity import LANGUAGES, known_assistants
from whoamai.data.replay import read_questions
from whoamai.errors import SettingError
from whoamai.model.load import bundled_model, load_tokenizer
from whoamai.samples import Conversation, Message

_CHINESE = "[\u3400-\u9fff]"
# What would ask for who answers, or speak of it.
_ABOUT_ONESELF = re.compile(
    r"助手|助理|语言模型|机器人|人工智能|你是谁|你叫|你的名字|自我介绍"
    r"|\b(?:assistant|chatbot|language model|robot|artificial intelligence|AI)\b"
    r"|who are you|your name|introduce yourself|what are you",
    re.I,
)


def runs(text: str) -> set[tuple[str, ...]]:
    """Six Chinese characters in a row, five Latin words in a row; marks are passed over."""
    found: set[tuple[str, ...]] = set()
    parts = ((_CHINESE, 6), (r"[a-z0-9]+(?:['’][a-z]+)?", 5))
    for unit, n in parts:
        units = re.findall(unit, text.lower())
        found |= {tuple(units[i : i + n]) for i in range(len(units) - n + 1)}
    return found


@cache
def asked_elsewhere(name: str) -> tuple[frozenset[str], frozenset[tuple[str, ...]]]:
    """(the user turns of a file, the runs of all its turns)."""
    messages = [m for row in read_questions(name) for m in row["messages"]]
    return (
        frozenset(m["content"].strip() for m in messages if m["role"] == "user"),
        frozenset(run for m in messages for run in runs(m["content"])),
    )


def question(text: str = "?", language: str = "zh", system: str | None = None) -> GeneralQuestion:
    before = (Message("system", system),) if system is not None else ()
    turns = (*before, Message("user", text))
    return GeneralQuestion(language, "x", Conversation(turns), ("a",))


# ---- the texts -----------------------------------------------------------------------------------


def test_there_are_more_than_three_hundred_texts_of_many_kinds():
    texts = general_texts(LANGUAGES)
    assert len(texts) >= 320
    counts = Counter(t.language for t in texts)
    assert counts["zh"] == counts["en"]
    for code in LANGUAGES:
        kinds = Counter(t.kind for t in texts if t.language == code)
        assert len(kinds) >= 10
        assert min(kinds.values()) >= 8


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_text_is_one_question_and_the_reply_that_is_scored(code: str):
    prompts = Counter()
    for text in general_texts([code]):
        asked, reply = text.conversation.messages
        assert (asked.role, reply.role) == ("user", "assistant")
        assert reply.trained
        assert asked.text == asked.text.strip() != ""
        assert reply.text == reply.text.strip() != ""
        prompts[asked.text] += 1
    assert max(prompts.values()) == 1


def test_the_first_texts_hold_every_kind():
    texts = general_texts(["zh"])
    kinds = {t.kind for t in texts}
    assert {t.kind for t in general_texts(["zh"], count=len(kinds))} == kinds


def test_texts_say_nothing_of_who_answers():
    names = [name_pattern(n) for group in known_assistants() for n in group]
    for text in general_texts(LANGUAGES):
        for message in text.conversation.messages:
            assert not _ABOUT_ONESELF.search(message.text), message.text
            assert not [n.pattern for n in names if n.search(message.text)], message.text
        reply = text.conversation.messages[-1].text
        assert not claimed_names(reply) | claimed_makers(reply), reply


@pytest.mark.parametrize("name", ["replay.jsonl", "general.jsonl"])
def test_no_text_asks_what_another_file_asks(name: str):
    """No whole prompt, and no run of six Chinese characters or five words of any of its turns."""
    prompts, there = asked_elsewhere(name)
    for text in general_texts(LANGUAGES):
        prompt = text.conversation.messages[0].text
        assert prompt not in prompts
        assert not runs(prompt) & there, prompt


def test_languages_we_do_not_have_are_refused():
    for load in (general_texts, general_questions, long_systems):
        with pytest.raises(SettingError, match="known languages"):
            load(["fr"])


# ---- long system prompts -------------------------------------------------------------------------


@cache
def tokenizer():
    return load_tokenizer(str(bundled_model()))[0]


@pytest.mark.parametrize("code", LANGUAGES)
def test_long_system_prompts_have_500_to_1000_tokens(code: str):
    systems = long_systems([code])
    assert len({s.subject for s in systems}) == len(systems) >= 6
    lengths = [len(tokenizer()(s.text, add_special_tokens=False)["input_ids"]) for s in systems]
    assert min(lengths) >= 500
    assert max(lengths) <= 1000


def test_long_system_prompts_name_nobody_and_give_no_role():
    names = [name_pattern(n) for group in known_assistants() for n in group]
    role = re.compile(r"你是|你叫|你将|扮演|you are|you're|your role|act as|play the", re.I)
    for system in long_systems(LANGUAGES):
        assert not role.search(system.text), system.subject
        assert not _ABOUT_ONESELF.search(system.text), system.subject
        assert not [n.pattern for n in names if n.search(system.text)], system.subject


def test_long_system_prompts_are_no_text_that_is_replayed():
    _, there = asked_elsewhere("replay.jsonl")
    for system in long_systems(LANGUAGES):
        assert not runs(system.text) & there


def test_questions_are_put_under_long_prompts_in_turn_and_in_their_language():
    asked = under_long_systems(general_questions(LANGUAGES), LANGUAGES, 8)
    assert [q.language for q in asked] == ["zh"] * 8 + ["en"] * 8
    for code in LANGUAGES:
        texts = [s.text for s in long_systems([code])]
        found = [q.conversation.messages[0].text for q in asked if q.language == code]
        assert found == [texts[i % len(texts)] for i in range(8)]


def test_a_question_under_a_long_prompt_is_still_the_same_question():
    plain = question("3 + 4?", "en")
    (asked,) = under_long_systems([plain], ["en"], 5)
    assert asked.conversation.messages[1:] == plain.conversation.messages
    assert (asked.kind, asked.accept, asked.exact) == (plain.kind, plain.accept, plain.exact)
    assert asked.conversation.source == "long:en:shop"


def test_questions_that_have_a_system_prompt_keep_it_and_are_passed_over():
    asked = under_long_systems([question("a", system="s"), question("b"), question("c")], ["zh"], 1)
    assert [q.conversation.messages[-1].text for q in asked] == ["b"]
    assert under_long_systems([question("a", system="")], ["zh"], 1) == []


def test_no_more_are_asked_than_were_wanted():
    assert under_long_systems([question()] * 3, ["zh"], 0) == []
    assert under_long_systems([question()], ["en"], 5) == []


def test_the_loaders_give_the_types_they_promise():
    assert all(isinstance(t, GeneralText) for t in general_texts(["en"], count=3))
    assert len(general_texts(LANGUAGES, count=3)) == 6
