"""The built-in questions keep their promises, and what is made of them can be counted on."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whoamai.data.identity import (
    GROUP_OF_CATEGORY,
    LANGUAGES,
    Family,
    Identity,
    answer,
    ask,
    check_languages,
    check_name,
    fill,
    known_assistants,
    load_language,
    questions,
    training_conversations,
)
from whoamai.data.replay import replay_prompts
from whoamai.errors import SettingError
from whoamai.samples import Conversation

SPLITS = ("train", "probe", "test")
DALI = Identity("黄大力", "力量工作室")
WILD_NAMES = (
    "黄大力",
    "O'Neil",
    "{old}",
    "{name}",
    "{0}",
    "{",
    "[甲|乙]",
    "[a|b|]",
    'say "hi"',
    "a\\1b",
    "😀 Bot",
    "{{name}}",
    "%s",
)
NAMES = st.one_of(
    st.sampled_from(WILD_NAMES),
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20),
)

# ---- families ------------------------------------------------------------------------------------

_CHOICE = re.compile(r"\[([^\[\]|]*(?:\|[^\[\]|]*)+)\]")
_UNIT = re.compile(r"\{\w+\}|[\u3400-\u9fff]|[A-Za-z0-9]+(?:['’][A-Za-z]+)*")
WIDTH = {"zh": 6, "en": 5}


def expansions(pattern: str) -> list[str]:
    """Every text a pattern's [a|b] choices can give."""
    parts = _CHOICE.split(pattern)
    options = [p.split("|") if i % 2 else [p] for i, p in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*options)]


def units(text: str) -> tuple[str, ...]:
    """Chinese characters, Latin words in lower case, and slots, which are all alike."""
    return tuple("{}" if u[0] == "{" else u.lower() for u in _UNIT.findall(text))


def ngrams(sequence: tuple[str, ...], n: int) -> set[tuple[str, ...]]:
    return {sequence[i : i + n] for i in range(len(sequence) - n + 1)}


@cache
def held_out(code: str) -> dict[tuple[str, ...], list[Family]]:
    """What must occur nowhere else: the n-grams of probe and test families, short ones whole."""
    found: dict[tuple[str, ...], list[Family]] = {}
    for family in load_language(code).families:
        if family.split != "train":
            for text in expansions(family.pattern):
                sequence = units(text)
                for gram in ngrams(sequence, min(WIDTH[code], len(sequence))):
                    found.setdefault(gram, []).append(family)
    return found


def test_units_are_characters_words_and_slots():
    assert units("你是Qwen吗, {old}? I'm OK") == ("你", "是", "qwen", "吗", "{}", "i'm", "ok")


def test_every_choice_of_a_pattern_is_expanded():
    assert expansions("[a|b]c[|d]") == ["ac", "acd", "bc", "bcd"]


@pytest.mark.parametrize("code", LANGUAGES)
def test_there_are_enough_families(code: str):
    counts = Counter(f.split for f in load_language(code).families)
    assert counts["train"] >= 150
    assert counts["probe"] >= 20
    assert counts["test"] >= 40


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("category", GROUP_OF_CATEGORY)
def test_every_category_has_families_in_every_split_and_answers(code: str, category: str):
    language = load_language(code)
    assert all(language.of(split, category) for split in SPLITS)
    assert language.answers[category]["plain"]


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_category_belongs_to_a_group(code: str):
    assert set(load_language(code).categories) == GROUP_OF_CATEGORY.keys()


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_two_families_ask_the_same(code: str):
    """`old` and `other` may: they differ in the name that is put in."""
    seen: dict[tuple[str, ...], Family] = {}
    for family in load_language(code).families:
        for text in {units(t) for t in expansions(family.pattern)}:
            other = seen.setdefault(text, family)
            assert other is family or other.split == family.split, (other, family)
            assert other is family or other.category != family.category, (other, family)


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_part_of_a_held_out_family_occurs_in_another_family(code: str):
    clashes = []
    for family in load_language(code).families:
        for text in expansions(family.pattern):
            sequence = units(text)
            for length in {len(gram) for gram in held_out(code)}:
                for gram in ngrams(sequence, length) & held_out(code).keys():
                    others = [f for f in held_out(code)[gram] if f != family]
                    clashes += [(family.pattern, o.pattern, " ".join(gram)) for o in others]
    assert clashes == []


def _put_slots_back(text: str, values: list[str]) -> str:
    for value in sorted(values, key=len, reverse=True):
        border = r"(?<![A-Za-z0-9]){}(?![A-Za-z0-9])" if value.isascii() else "{}"
        text = re.sub(border.format(re.escape(value)), "{slot}", text)
    return text


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_part_of_a_held_out_family_occurs_in_training_text(code: str):
    old = "旧名字乙"
    assistants, makers = known_assistants()
    roles = load_language(code).roles["train"]
    values = [DALI.name, str(DALI.author), old, *assistants, *makers, *roles]
    rows = training_conversations(DALI, languages=[code], rows=2500, seed=5, old_names=[old])
    rows += training_conversations(DALI, languages=[code], rows=2500, seed=6)
    texts = {m.text for row in rows for m in row.messages if m.role == "user"}
    lengths = {len(gram) for gram in held_out(code)}
    clashes = set()
    for text in texts:
        sequence = units(_put_slots_back(text, values))
        for length in lengths:
            clashes |= {(text, g) for g in ngrams(sequence, length) & held_out(code).keys()}
    assert not sorted(clashes)[:10]


@pytest.mark.parametrize("code", LANGUAGES)
def test_patterns_hold_known_slots_and_closed_brackets_only(code: str):
    for family in load_language(code).families:
        text = fill(family.pattern, name="N", old="O", other="X", company="C")
        assert text.strip()
        assert not set(text) & set("[]{}|"), family


@pytest.mark.parametrize("code", LANGUAGES)
def test_answers_and_contexts_hold_known_slots_and_closed_brackets_only(code: str):
    language = load_language(code)
    forms = [f for by_kind in language.answers.values() for fs in by_kind.values() for f in fs]
    forms += [p for splits in language.contexts.values() for ps in splits.values() for p in ps]
    for form in forms:
        text = fill(form, name="N", author="A", role="R", old="O", other="X", company="C")
        assert not set(text) & set("[]{}|"), form


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*WILD_NAMES, "a", "x" * 64, "名" * 64, "👩‍🚀", "Δέλτα", "R2 D2"])
def test_a_name_that_can_be_shown_is_taken(name: str):
    check_name(name, "--name")


@pytest.mark.parametrize("name", ["", " ", "\u3000", "\u200b", "\u2060", "\u00ad"])
def test_a_name_with_nothing_to_see_is_refused(name: str):
    with pytest.raises(SettingError, match="--name"):
        check_name(name, "--name")


@pytest.mark.parametrize("bad", ["\n", "\t", "\x00", "\x1b", "\x7f", "\u2028", "\u2029", "\ud800"])
def test_a_name_with_a_character_that_cannot_be_shown_is_refused_with_its_place(bad: str):
    with pytest.raises(SettingError, match=rf"U\+{ord(bad):04X}, at place 3"):
        check_name(f"ab{bad}c", "--name")


def test_a_name_of_65_characters_is_refused_with_its_length():
    with pytest.raises(SettingError, match="65 characters; at most 64"):
        check_name("x" * 65, "--name")


@pytest.mark.parametrize("name", [" a", "a ", "\u3000名", "名\u00a0"])
def test_a_space_around_a_name_is_refused(name: str):
    with pytest.raises(SettingError, match="begins or ends with a space"):
        check_name(name, "--name")


@pytest.mark.parametrize("author", ["b\nc", " b", "\u200b"])
def test_the_author_is_checked_like_the_name(author: str):
    with pytest.raises(SettingError, match="--author"):
        Identity("A", author)


def test_an_empty_author_is_told_in_words_fit_for_an_author():
    with pytest.raises(SettingError, match="--author 力量工作室"):
        Identity("A", "")


# ---- languages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("languages", [(), ("zh", "fr"), ("",)])
def test_languages_we_do_not_have_are_refused_wherever_they_are_given(languages: tuple[str, ...]):
    makers = (
        lambda: check_languages(languages),
        lambda: training_conversations(DALI, languages=languages, rows=1, seed=0),
        lambda: questions(DALI, "test", languages=languages, seed=0),
        lambda: replay_prompts(1, languages=languages, seed=0),
    )
    for make in makers:
        with pytest.raises(SettingError, match="known languages are zh, en"):
            make()


@pytest.mark.parametrize("languages", [LANGUAGES, ("en",), ["zh"]])
def test_one_or_more_known_languages_are_taken(languages):
    check_languages(languages)


# ---- fill ----------------------------------------------------------------------------------------


@given(NAMES, NAMES)
def test_fill_never_reads_what_it_put_in_again(name: str, other: str):
    assert fill("<{name}|{other}>{name}", name=name, other=other) == f"<{name}|{other}>{name}"


def test_fill_takes_the_first_choice_without_a_generator():
    assert fill("[a|b]{name}[|c]", name="N") == "aN"


def test_fill_gets_round_to_every_choice():
    rng = random.Random(0)
    assert {fill("[a|b][c|]", rng) for _ in range(60)} == {"ac", "a", "bc", "b"}


@pytest.mark.parametrize(
    ("role", "expected"),
    [("pirate", "a pirate"), ("engineer", "an engineer"), ("Indian cook", "an Indian cook")],
)
def test_a_role_gets_its_article(role: str, expected: str):
    assert fill("You are {a_role}.", role=role) == f"You are {expected}."


def test_every_built_in_role_gets_the_right_article():
    """All begin as they sound: none like "hour" or "university", which the rule would get wrong."""
    roles = [r for split in ("train", "test") for r in load_language("en").roles[split]]
    assert not [r for r in roles if re.match("hour|honest|heir|uni|use|eu|one", r, re.I)]


# ---- answers -------------------------------------------------------------------------------------


@given(NAMES, st.sampled_from([None, "初心实验室", "{name}", "[x|y]"]), st.booleans())
def test_every_form_of_every_answer_gives_the_name(name: str, author: str | None, in_role: bool):
    identity = Identity(name, author)
    rng = random.Random(1)
    for code in LANGUAGES:
        language = load_language(code)
        for category in language.categories:
            for choice in (None, rng, rng, rng):
                text = answer(
                    language,
                    category,
                    identity,
                    role="海盗" if in_role else None,
                    rng=choice,
                    old="O",
                    other="X",
                    company="C",
                )
                assert name in text


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_author_is_named_where_somebody_asks_who_made_it(code: str):
    rng = random.Random(0)
    texts = [answer(load_language(code), "maker", DALI, rng=rng) for _ in range(20)]
    assert all("力量工作室" in t for t in texts)


@pytest.mark.parametrize("code", LANGUAGES)
def test_without_an_author_no_answer_names_a_maker(code: str):
    rng = random.Random(0)
    language = load_language(code)
    texts = [answer(language, c, Identity("N"), rng=rng, old="O", other="X", company="C")
             for c in language.categories for _ in range(10)]  # fmt: skip
    assert not [t for t in texts if "{author}" in t or "made by" in t or "由" in t]


@pytest.mark.parametrize("code", LANGUAGES)
def test_in_a_role_it_says_the_role_too(code: str):
    rng = random.Random(0)
    texts = [answer(load_language(code), "who", DALI, role="海盗", rng=rng) for _ in range(20)]
    assert all("海盗" in t and "黄大力" in t for t in texts)


@pytest.mark.parametrize(("code", "gap"), [("zh", ""), ("en", " ")])
def test_the_persona_ends_the_introduction_as_it_was_given(code: str, gap: str):
    identity = Identity("N", persona="{old} [a|b]!")
    text = answer(load_language(code), "intro", identity, rng=random.Random(0))
    assert text.endswith(f"{gap}{{old}} [a|b]!")


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_persona_is_said_in_introductions_only(code: str):
    language = load_language(code)
    identity = Identity("N", persona="PERSONA")
    slots = {"old": "O", "other": "X", "company": "C"}
    saying = {c for c in language.categories if "PERSONA" in answer(language, c, identity, **slots)}
    assert saying == {"intro"}


# ---- training rows -------------------------------------------------------------------------------


def rows(**changes) -> list[Conversation]:
    arguments = {"languages": LANGUAGES, "rows": 300, "seed": 0, **changes}
    return training_conversations(DALI, **arguments)


def test_the_same_seed_gives_the_same_rows():
    assert rows() == rows()


def test_another_seed_gives_other_rows():
    assert rows() != rows(seed=1)


@pytest.mark.parametrize("n", [1, 7, 300])
def test_as_many_rows_are_made_as_were_asked_for(n: int):
    assert len(rows(rows=n)) == n


def test_the_last_turn_of_every_row_is_a_trained_reply_that_gives_the_name():
    for row in rows():
        last = row.messages[-1]
        assert last.role == "assistant"
        assert last.trained
        assert "黄大力" in last.text


def test_turns_alternate_after_an_optional_system_prompt():
    for row in rows():
        roles = [m.role for m in row.messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)


def test_small_talk_is_never_trained_on():
    for row in rows(rows=600):
        for message in row.messages:
            assert message.trained == (message.role == "assistant" and "黄大力" in message.text)


def test_languages_are_met_equally_often():
    made = training_conversations(Identity("N"), languages=LANGUAGES, rows=400, seed=0)
    known = [name for names in known_assistants() for name in names]
    foreign = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
    replies = [re.sub(foreign, "", row.messages[-1].text) for row in made]
    assert sum(bool(re.search("[\u4e00-\u9fff]", reply)) for reply in replies) == 200


def test_the_old_name_is_put_to_the_model():
    texts = [m.text for r in rows(old_names=["旧名字"]) for m in r.messages if m.role == "user"]
    assert any("旧名字" in t for t in texts)


def test_the_new_name_is_never_asked_about_as_another_assistant():
    identity = Identity("Qwen", "OpenAI")
    other = next(f for f in load_language("en").families if f.category == "other")
    rng = random.Random(0)
    drawn = [ask(other, identity, (), rng)[1] for _ in range(600)]
    assert "Qwen" not in {d["other"] for d in drawn} | {d["old"] for d in drawn}
    assert "OpenAI" not in {d["company"] for d in drawn}


def test_a_new_name_in_other_letter_case_is_never_asked_about_as_another_assistant():
    other = next(f for f in load_language("en").families if f.category == "other")
    rng = random.Random(0)
    drawn = {ask(other, Identity("deepseek"), (), rng)[1]["other"] for _ in range(600)}
    assert "DeepSeek" not in drawn


def _held_out_contexts() -> dict[str, str]:
    """Every text a held-out system prompt, role or small-talk turn can have -> where it is from."""
    found = {}
    for code in LANGUAGES:
        language = load_language(code)
        for kind, by_split in language.contexts.items():
            for pattern in by_split["test"]:
                for text in expansions(pattern):
                    found[text] = f"{code} {kind}"
    return found


def test_training_system_prompts_are_never_held_out_ones():
    held = _held_out_contexts()
    for code in LANGUAGES:
        for kind, by_split in load_language(code).contexts.items():
            for pattern in by_split["train"]:
                clash = [(t, held[t]) for t in expansions(pattern) if t in held]
                assert not clash, f"{code} {kind} (train) is also held out: {clash}"


def test_training_text_never_holds_a_held_out_role_or_turn():
    for code in LANGUAGES:
        language = load_language(code)
        small_talk = {turn for pair in language.small_talk["test"] for turn in pair}
        assert not small_talk & {t for pair in language.small_talk["train"] for t in pair}
        assert not set(language.roles["test"]) & set(language.roles["train"])
        made = training_conversations(DALI, languages=[code], rows=1500, seed=0)
        for row in made:
            assert not small_talk & {m.text for m in row.messages}
            if row.messages[0].role == "system":
                assert not [r for r in language.roles["test"] if r in row.messages[0].text]


# ---- questions to score --------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["probe", "test"])
def test_every_family_is_asked_once_under_each_context(split):
    asked = questions(DALI, split, languages=LANGUAGES, seed=0, extra_systems=["S1", "S2"])
    n = sum(len(load_language(code).of(split)) for code in LANGUAGES)
    assert Counter(q.context for q in asked) == dict.fromkeys(
        ("none", "neutral", "turns", "role", "named"), n
    )
    by_category = Counter((q.language, q.category) for q in asked if q.context == "none")
    assert by_category == Counter(
        (c, f.category) for c in LANGUAGES for f in load_language(c).of(split)
    )


def test_questions_end_in_the_users_turn():
    asked = questions(DALI, "test", languages=LANGUAGES, seed=0)
    assert {q.conversation.messages[-1].role for q in asked} == {"user"}


def test_the_datas_own_system_prompts_are_used_in_turn():
    asked = questions(
        DALI, "test", languages=["zh"], seed=0, contexts=(), extra_systems=["S1", "S2"]
    )
    systems = [q.conversation.messages[0].text for q in asked]
    assert systems[:4] == ["S1", "S2", "S1", "S2"]


def test_questions_come_under_held_out_system_prompts_only():
    held = _held_out_contexts()
    asked = questions(DALI, "test", languages=LANGUAGES, seed=0, contexts=("neutral",))
    assert all(q.conversation.messages[0].text in held for q in asked)


def test_questions_after_other_turns_follow_held_out_small_talk():
    asked = questions(DALI, "test", languages=LANGUAGES, seed=0, contexts=("turns",))
    for q in asked:
        pairs = load_language(q.language).small_talk["test"]
        assert q.conversation.messages[1].text in [reply for _, reply in pairs]


def test_scored_questions_never_occur_in_the_training_rows():
    trained = {m.text for r in rows(rows=4000) for m in r.messages if m.role == "user"}
    asked = questions(DALI, "test", languages=LANGUAGES, seed=0)
    asked += questions(DALI, "probe", languages=LANGUAGES, seed=0)
    assert not trained & {q.conversation.messages[-1].text for q in asked}


def test_the_same_seed_asks_the_same():
    first = questions(DALI, "test", languages=LANGUAGES, seed=3)
    assert first == questions(DALI, "test", languages=LANGUAGES, seed=3)
    assert first != questions(DALI, "test", languages=LANGUAGES, seed=4)
