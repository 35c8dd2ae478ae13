"""Questions under a stranger's name are held out from everything that is trained on."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from tests.data.test_identity import expansions
from whoamai.data.identity import (
    LANGUAGES,
    Identity,
    fill,
    known_assistants,
    load_language,
    training_conversations,
)
from whoamai.data.replay import _STRANGE_MAKERS, _STRANGERS, read_questions, replay_prompts
from whoamai.data.strangers import MAKERS, NAMES, stranger_questions
from whoamai.errors import SettingError


@pytest.mark.parametrize("code", LANGUAGES)
def test_there_are_enough_strangers_and_makers(code: str):
    assert len(set(NAMES[code])) >= 12
    assert len(set(MAKERS[code])) >= 4


def test_no_stranger_is_met_in_training():
    known = {n for names in known_assistants() for n in names}
    replayed = {n for of in (_STRANGERS, _STRANGE_MAKERS) for names in of.values() for n in names}
    strangers = {n for of in (NAMES, MAKERS) for names in of.values() for n in names}
    assert not {n.lower() for n in strangers} & {n.lower() for n in known | replayed}
    rows = training_conversations(Identity("N", "A"), languages=LANGUAGES, rows=2000, seed=0)
    rows += replay_prompts(1000, languages=LANGUAGES, seed=0)
    texts = [m.text for row in rows for m in row.messages]
    texts += [m["content"] for row in read_questions("replay.jsonl") for m in row["messages"]]
    assert not [(n, text) for n in strangers for text in texts if n in text]


@pytest.mark.parametrize(("count", "expected"), [(None, 40), (0, 0), (1, 1), (7, 7), (100, 100)])
def test_as_many_questions_of_each_language_are_made_as_were_asked_for(count, expected: int):
    made = Counter(q.language for q in stranger_questions(LANGUAGES, 0, count))
    assert [made[code] for code in LANGUAGES] == [expected] * len(LANGUAGES)


def test_prompts_names_makers_and_kinds_of_question_are_balanced():
    for code in LANGUAGES:
        made = stranger_questions([code], 0)
        names = Counter(q.identity.name for q in made)
        assert names.keys() == set(NAMES[code])
        assert set(names.values()) == {3, 4}
        assert Counter(q.identity.author for q in made) == dict.fromkeys(MAKERS[code], 10)


def test_every_question_comes_under_a_held_out_system_prompt_that_gives_the_name():
    for code in LANGUAGES:
        contexts = load_language(code).contexts
        patterns = [*contexts["named"]["test"], *contexts["named_role"]["test"]]
        asked = Counter()
        for q in stranger_questions([code], 0):
            system, question = q.conversation.messages
            assert (system.role, question.role) == ("system", "user")
            assert q.identity.name in system.text
            fitting = [
                pattern
                for pattern in patterns
                for role in load_language(code).roles["test"]
                if fill(pattern, name=q.identity.name, author=q.identity.author, role=role)
                == system.text
            ]
            asked[fitting[0]] += 1
        assert asked == dict.fromkeys(patterns, 4)


def test_questions_are_of_the_test_families():
    for code in LANGUAGES:
        language = load_language(code)
        held = [
            text.replace("{other}", other)
            for family in language.of("test")
            for text in expansions(family.pattern)
            for other in (known_assistants()[0] if "{other}" in text else [""])
        ]
        for q in stranger_questions([code], 0):
            asked = q.conversation.messages[-1].text
            assert any(asked.startswith(text) and len(asked) - len(text) <= 1 for text in held)


def test_no_question_puts_another_name_in_place_of_the_strangers():
    for q in stranger_questions(LANGUAGES, 0, 200):
        others = set(itertools.chain.from_iterable(NAMES.values())) - {q.identity.name}
        text = " ".join(m.text for m in q.conversation.messages)
        assert not [n for n in others if n in text and n not in q.identity.name]


def test_the_same_seed_gives_the_same_questions():
    assert stranger_questions(LANGUAGES, 1) == stranger_questions(LANGUAGES, 1)
    assert stranger_questions(LANGUAGES, 1) != stranger_questions(LANGUAGES, 2)


def test_a_language_we_do_not_have_is_refused():
    with pytest.raises(SettingError, match="known languages are zh, en"):
        stranger_questions(["fr"], 0)
