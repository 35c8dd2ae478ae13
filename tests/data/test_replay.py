from __future__ import annotations

import re

import pytest

from whoamai.data.identity import LANGUAGES, known_assistants, load_language
from whoamai.data.replay import (
    _STRANGE_MAKERS,
    _STRANGERS,
    read_questions,
    replay_prompts,
)


@pytest.mark.parametrize("count", [0, 1, 10, 57])
def test_as_many_prompts_are_made_as_were_asked_for(count: int):
    assert len(replay_prompts(count, languages=LANGUAGES, seed=0)) == count


def test_every_prompt_ends_in_the_users_turn_and_trains_on_nothing():
    for prompt in replay_prompts(60, languages=LANGUAGES, seed=0):
        assert prompt.messages[-1].role == "user"
        assert not any(m.trained for m in prompt.messages)


def test_the_same_seed_gives_the_same_prompts():
    first = replay_prompts(60, languages=LANGUAGES, seed=1)
    assert first == replay_prompts(60, languages=LANGUAGES, seed=1)
    assert first != replay_prompts(60, languages=LANGUAGES, seed=2)


def test_one_prompt_in_five_gives_somebody_elses_name():
    prompts = replay_prompts(100, languages=LANGUAGES, seed=0)
    named = [p for p in prompts if p.source == "replay:named"]
    assert len(named) == 20
    strangers = [n for names in (*_STRANGERS.values(), *_STRANGE_MAKERS.values()) for n in names]
    for prompt in named:
        assert prompt.messages[0].role == "system"
        assert any(n in prompt.messages[0].text for n in strangers)


def test_the_name_asked_about_is_the_strangers_own():
    """A question with {name} under such a prompt must ask about the name the prompt gives."""
    for prompt in replay_prompts(400, languages=["en"], seed=0):
        if prompt.source == "replay:named":
            asked = [n for n in _STRANGERS["en"] if n in prompt.messages[-1].text]
            assert all(n in prompt.messages[0].text for n in asked)


def test_nothing_is_left_to_fill_in():
    for prompt in replay_prompts(200, languages=LANGUAGES, seed=0):
        if prompt.source == "replay:named":
            assert not any(re.search(r"[{}|]", m.text) for m in prompt.messages)


@pytest.mark.parametrize("code", LANGUAGES)
def test_only_the_languages_asked_for_are_met(code: str):
    general = {r["messages"][-1]["content"] for r in read_questions("replay.jsonl")
               if r["language"] == code}  # fmt: skip
    for prompt in replay_prompts(40, languages=[code], seed=0):
        if prompt.source != "replay:named":
            assert prompt.messages[-1].text in general


def test_system_prompts_that_give_a_strangers_name_are_never_held_out_ones():
    for code in LANGUAGES:
        for kind in ("named", "named_role"):
            by_split = load_language(code).contexts[kind]
            assert not set(by_split["train"]) & set(by_split["test"])


def test_strangers_are_no_real_assistants():
    known = {n.lower() for names in known_assistants() for n in names}
    groups = (*_STRANGERS.values(), *_STRANGE_MAKERS.values())
    strangers = {n.lower() for names in groups for n in names}
    assert not known & strangers


def test_question_files_hold_one_object_a_line_with_the_fields_we_read():
    for name in ("replay.jsonl", "general.jsonl"):
        for row in read_questions(name):
            assert row["language"] in LANGUAGES
            assert row["messages"][-1]["role"] == "user"
            # A system prompt may be empty: some programs send one.
            assert all(m["content"].strip() for m in row["messages"] if m["role"] != "system")


def test_no_general_question_is_replayed():
    """What the retention score asks must not be trained on."""
    asked = {r["messages"][-1]["content"] for r in read_questions("general.jsonl")}
    replayed = {r["messages"][-1]["content"] for r in read_questions("replay.jsonl")}
    assert not asked & replayed


def test_a_share_comes_from_what_is_nearest_to_identity_questions():
    near = {
        f"replay:{number}"
        for number, row in enumerate(read_questions("replay.jsonl"), 1)
        if row["part"] == "near"
    }
    mixed = replay_prompts(100, languages=LANGUAGES, seed=0)
    assert not any(p.source in near for p in mixed)
    more = replay_prompts(100, languages=LANGUAGES, seed=0, near_share=0.3)
    assert sum(p.source in near for p in more) == 30
    assert len(more) == 100


def test_a_share_comes_under_the_datas_system_prompts_in_turn():
    prompts = replay_prompts(
        100, languages=LANGUAGES, seed=0, systems=["S1", "S2"], systems_share=0.2
    )
    systems = [p.messages[0].text for p in prompts if p.messages[0].text in ("S1", "S2")]
    assert systems.count("S1") == systems.count("S2") == 10
    assert all(p.messages[1].role == "user" for p in prompts if p.messages[0].text == "S1")


def test_a_share_under_no_system_prompts_is_none():
    plain = replay_prompts(50, languages=LANGUAGES, seed=0)
    assert replay_prompts(50, languages=LANGUAGES, seed=0, systems_share=0.2) == plain
