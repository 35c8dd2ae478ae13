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
    fill,
    known_assistants,
    load_language,
    probe_questions,
    questions,
    training_conversations,
)
from whoamai.data.replay import _STRANGERS, read_questions, replay_prompts
from whoamai.errors import SettingError
from whoamai.samples import Conversation

SPLITS = ("train", "probe", "test")
HELD_OUT = ("probe", "test")
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


def width(sequence: tuple[str, ...]) -> int:
    """By the script, not by the file: some families of either file are in the other language."""
    chinese = any("\u3400" <= unit[0] <= "\u9fff" for unit in sequence)
    return min(WIDTH["zh" if chinese else "en"], len(sequence))


ALL_FAMILIES = [f for code in LANGUAGES for f in load_language(code).families]


@cache
def held_out() -> dict[tuple[str, ...], list[Family]]:
    """What must occur nowhere else: the n-grams of probe and test families, short ones whole."""
    found: dict[tuple[str, ...], list[Family]] = {}
    for family in ALL_FAMILIES:
        if family.split != "train":
            for sequence in map(units, expansions(family.pattern)):
                for gram in ngrams(sequence, width(sequence)):
                    found.setdefault(gram, []).append(family)
    return found


def held_out_grams_in(text: str) -> set[tuple[str, ...]]:
    sequence = units(text)
    lengths = {len(gram) for gram in held_out()}
    return {g for n in lengths for g in ngrams(sequence, n) & held_out().keys()}


def test_units_are_characters_words_and_slots():
    assert units("你是Qwen吗, {old}? I'm OK") == ("你", "是", "qwen", "吗", "{}", "i'm", "ok")


def test_every_choice_of_a_pattern_is_expanded():
    assert expansions("[a|b]c[|d]") == ["ac", "acd", "bc", "bcd"]


@pytest.mark.parametrize("code", LANGUAGES)
def test_there_are_enough_families(code: str):
    counts = Counter(f.split for f in load_language(code).families)
    assert counts["train"] >= 400
    assert counts["probe"] >= 40
    assert counts["test"] >= 90


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("category", GROUP_OF_CATEGORY)
def test_every_category_has_enough_families_to_be_probed_and_scored(code: str, category: str):
    language = load_language(code)
    assert len(language.of("train", category)) >= 19
    assert len(language.of("probe", category)) >= 3
    assert len(language.of("test", category)) >= 5


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("category", ["other", "old", "confirm", "override"])
def test_what_leads_astray_has_more_of_them(code: str, category: str):
    assert len(load_language(code).of("probe", category)) >= 4
    assert len(load_language(code).of("test", category)) >= 8


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


def test_no_part_of_a_held_out_family_occurs_in_another_family_of_any_language():
    clashes = []
    for family in ALL_FAMILIES:
        for text in expansions(family.pattern):
            for gram in held_out_grams_in(text):
                others = [f for f in held_out()[gram] if f != family]
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
    with_article = [fill("{a_role}", role=role) for role in roles] if code == "en" else []
    values = [DALI.name, str(DALI.author), old, *assistants, *makers, *roles, *with_article]
    rows = training_conversations(DALI, languages=[code], rows=2500, seed=5, old_names=[old])
    rows += training_conversations(DALI, languages=[code], rows=2500, seed=6)
    texts = {m.text for row in rows for m in row.messages if m.role == "user"}
    clashes = {(t, g) for t in texts for g in held_out_grams_in(_put_slots_back(t, values))}
    assert not sorted(clashes)[:10]


def test_no_part_of_a_held_out_family_occurs_in_what_the_model_is_asked_to_say_again():
    """The replayed prompts are trained on as well, beside the rows that teach the name."""
    rows = read_questions("replay.jsonl")
    clashes = {
        (m["content"], g)
        for r in rows
        for m in r["messages"]
        for g in held_out_grams_in(m["content"])
    }
    assert not sorted(clashes)[:10]


def test_no_question_under_a_strangers_name_is_a_held_out_one():
    assistants, makers = known_assistants()
    values = [*assistants, *makers, *_STRANGERS["zh"], *_STRANGERS["en"]]
    prompts = replay_prompts(3000, languages=LANGUAGES, seed=0)
    asked = {p.messages[-1].text for p in prompts if p.source == "replay:named"}
    assert len(asked) > 300
    clashes = {(t, g) for t in asked for g in held_out_grams_in(_put_slots_back(t, values))}
    assert not sorted(clashes)[:10]


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_part_of_a_held_out_family_occurs_in_what_may_stand_before_a_training_question(
    code: str,
):
    language = load_language(code)
    turns = [*language.small_talk["train"], *language.exchanges["train"]]
    assert not [text for turn in turns for text in turn if held_out_grams_in(text)]


@pytest.mark.parametrize("code", LANGUAGES)
def test_patterns_hold_known_slots_and_closed_brackets_only(code: str):
    for family in load_language(code).families:
        text = fill(family.pattern, name="N", old="O", other="X", company="C", part="P")
        assert text.strip()
        assert not set(text) & set("[]{}|"), family


@pytest.mark.parametrize("code", LANGUAGES)
def test_answers_and_contexts_hold_known_slots_and_closed_brackets_only(code: str):
    language = load_language(code)
    forms = [f for by_kind in language.answers.values() for fs in by_kind.values() for f in fs]
    forms += [p for splits in language.contexts.values() for ps in splits.values() for p in ps]
    for form in forms:
        text = fill(form, name="N", author="A", role="R", part="P")
        assert not set(text) & set("[]{}|"), form


# ---- who it is to be ---------------------------------------------------------------------------


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
        lambda: probe_questions(DALI, languages=languages, seed=0),
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
    saying = {c for c in language.categories if "PERSONA" in answer(language, c, identity)}
    assert saying == {"intro"}


def test_asked_for_the_other_language_it_answers_in_that_language():
    chinese = re.compile("[\u4e00-\u9fff]")
    for author in (None, "Dawn Ltd"):
        for seed in range(10):
            texts = {
                code: answer(
                    load_language(code), "crosslang", Identity("N", author), rng=random.Random(seed)
                )
                for code in LANGUAGES
            }
            assert not chinese.search(texts["zh"])
            assert chinese.search(texts["en"])


@pytest.mark.parametrize("code", LANGUAGES)
def test_asked_to_play_somebody_it_plays_and_gives_its_own_name(code: str):
    rng = random.Random(0)
    family = load_language(code).of("train", "roleplay")[0]
    for _ in range(20):
        question, slots = ask(family, DALI, (), rng)
        reply = answer(load_language(code), "roleplay", DALI, rng=rng, **slots)
        assert slots["part"] in question
        assert slots["part"] in reply
        assert "黄大力" in reply


@pytest.mark.parametrize(
    ("pattern", "code", "marks"),
    [
        ("你是谁家的AI", "zh", {"？", "?", "", "。"}),
        ("Hi, who are you", "zh", {"?", "", "."}),
        ("Who are you", "en", {"?", "", "."}),
        ("告诉我你是谁", "en", {"？", "?", "", "。"}),
        ("Please use Chinese: 你是谁", "en", {"？", "?", "", "。"}),
        ("Are you {other}", "en", {"?", "", "."}),
    ],
)
def test_a_question_ends_in_the_marks_of_its_script(pattern: str, code: str, marks: set[str]):
    family = Family(code, "who", "train", pattern)
    rng = random.Random(0)
    asked = (ask(family, DALI, (), rng) for _ in range(200))
    ends = {text.removeprefix(fill(pattern, other=slots["other"])) for text, slots in asked}
    assert ends == marks


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


def test_one_row_in_eleven_follows_one_exchange_and_half_of_these_a_question_of_another_category():
    made = rows(rows=4000)
    exchanges = {
        code: {question for question, _ in load_language(code).exchanges["train"]}
        for code in LANGUAGES
    }
    second = [r for r in made if r.messages[0].role == "user" and len(r.messages) == 4]
    ordinary = [r for r in second if r.messages[0].text in exchanges["zh"] | exchanges["en"]]
    about_identity = [r for r in second if r.messages[1].trained]
    assert 0.035 < len(ordinary) / len(made) < 0.055
    assert 0.035 < len(about_identity) / len(made) < 0.055
    for row in about_identity:
        assert row.messages[0].text != row.messages[2].text


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
            for pattern in (*by_split.get("probe", ()), *by_split["test"]):
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
        turns = (language.small_talk, language.exchanges)
        held = {t for by_split in turns for s in HELD_OUT for pair in by_split[s] for t in pair}
        held_roles = [role for split in HELD_OUT for role in language.roles[split]]
        assert not held & {t for by_split in turns for pair in by_split["train"] for t in pair}
        assert not set(held_roles) & set(language.roles["train"])
        made = training_conversations(DALI, languages=[code], rows=1500, seed=0)
        for row in made:
            assert not held & {m.text for m in row.messages}
            assert not [r for r in held_roles for m in row.messages if r in m.text]


def test_what_probes_is_kept_apart_from_what_scores():
    for code in LANGUAGES:
        language = load_language(code)
        for by_split in (
            language.roles,
            language.small_talk,
            language.exchanges,
            *(language.contexts[kind] for kind in ("neutral", "role")),
        ):
            assert not set(by_split["probe"]) & set(by_split["test"])


def test_exchanges_before_a_question_are_no_general_questions():
    """Else what is read before one question would be scored, or replayed, as another."""
    general = {
        m["content"].rstrip("?？。.!！")
        for name in ("general.jsonl", "replay.jsonl")
        for row in read_questions(name)
        for m in row["messages"]
    }
    for code in LANGUAGES:
        for pairs in load_language(code).exchanges.values():
            assert not general & {question.rstrip("?？。.!！") for question, _ in pairs}


# ---- questions to score --------------------------------------------------------------------------


def families_of(split) -> list[Family]:
    return [f for code in LANGUAGES for f in load_language(code).of(split)]


@pytest.mark.parametrize("split", HELD_OUT)
def test_every_family_is_asked_with_nothing_before_it(split):
    asked = questions(DALI, split, languages=LANGUAGES, seed=0)
    by_category = Counter((q.language, q.category) for q in asked if q.context == "none")
    assert by_category == Counter((f.language, f.category) for f in families_of(split))


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_each_of_four_contexts_is_asked_of_half_the_families(seed: int):
    """The counts that intervals are made of: at least 90 a context, and time for 500 to 560."""
    asked = questions(DALI, "test", languages=LANGUAGES, seed=seed)
    counts = Counter(q.context for q in asked)
    n = len(families_of("test"))
    assert counts.pop("none") == n
    assert set(counts) == {"neutral", "turns", "second", "role"}
    assert all(count >= 90 and abs(count - n / 2) <= 2 for count in counts.values())
    assert 500 <= len(asked) == 3 * n <= 560


@pytest.mark.parametrize("split", HELD_OUT)
def test_every_category_is_asked_under_every_context(split):
    asked = questions(
        DALI, split, languages=LANGUAGES, seed=0, extra_systems=["S"], default_system="D"
    )
    contexts = ("none", "neutral", "turns", "second", "role", "named", "default")
    assert {(q.language, q.category, q.context) for q in asked} == set(
        itertools.product(LANGUAGES, GROUP_OF_CATEGORY, contexts)
    )


def test_over_four_seeds_every_family_comes_under_every_context_of_the_rotation():
    asked = Counter()
    for seed in range(4):
        made = questions(DALI, "test", languages=["zh"], seed=seed)
        for number, family_asked in enumerate(made[i : i + 3] for i in range(0, len(made), 3)):
            asked.update((number, q.context) for q in family_asked)
    rotation = ("neutral", "turns", "second", "role")
    n = len(load_language("zh").of("test"))
    assert asked == {
        **{(number, "none"): 4 for number in range(n)},
        **{(number, context): 2 for number in range(n) for context in rotation},
    }


def test_contexts_that_are_asked_for_are_asked_of_every_family():
    wanted = ("none", "second", "default")
    asked = questions(
        DALI, "test", languages=LANGUAGES, seed=0, contexts=wanted, extra_systems=["S"],
        default_system="D",
    )  # fmt: skip
    n = len(families_of("test"))
    assert Counter(q.context for q in asked) == dict.fromkeys((*wanted, "named"), n)


@pytest.mark.parametrize("default", [None, ""])
def test_without_a_default_system_prompt_none_is_asked_under(default: str | None):
    asked = questions(
        DALI, "test", languages=LANGUAGES, seed=0, contexts=("default",), default_system=default
    )
    assert asked == []


def test_under_the_models_own_system_prompt_that_prompt_stands_first():
    asked = questions(DALI, "test", languages=["en"], seed=0, default_system="You are Chu.")
    systems = {q.conversation.messages[0].text for q in asked if q.context == "default"}
    assert systems == {"You are Chu."}


def test_a_second_turn_follows_an_ordinary_exchange_or_a_right_answer_to_another_question():
    asked = questions(DALI, "test", languages=LANGUAGES, seed=0, contexts=("second",))
    kinds = Counter()
    for q in asked:
        first, reply, question = q.conversation.messages
        assert (first.role, reply.role, question.role) == ("user", "assistant", "user")
        assert not reply.trained
        if (first.text, reply.text) in load_language(q.language).exchanges["test"]:
            kinds["ordinary"] += 1
            continue
        kinds["identity"] += 1
        assert "黄大力" in reply.text
        rights = [
            answer(load_language(q.language), c, DALI, part=part)
            for c in GROUP_OF_CATEGORY
            if c != q.category
            for part in load_language(q.language).roles["test"]
        ]
        assert reply.text in rights
    assert min(kinds.values()) > 0.4 * len(asked)


def test_what_stands_before_a_scored_question_is_no_training_text():
    trained = {m.text for r in rows(rows=4000) for m in r.messages if m.role == "user"}
    asked = questions(DALI, "test", languages=LANGUAGES, seed=0, contexts=("second", "turns"))
    assert not trained & {
        m.text for q in asked for m in q.conversation.messages if m.role == "user"
    }


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


# ---- questions that stop the training ------------------------------------------------------------


def probed(**changes):
    return probe_questions(DALI, **{"languages": LANGUAGES, "seed": 0, **changes})


def test_a_probe_asks_every_category_equally_often_in_every_language():
    counts = Counter((q.language, q.category) for q in probed())
    assert counts == dict.fromkeys(itertools.product(LANGUAGES, GROUP_OF_CATEGORY), 2)


@pytest.mark.parametrize("changes", [{}, {"default_system": "D"}, {"extra_systems": ["S", "T"]},
                                     {"default_system": "D", "extra_systems": ["S"]}])  # fmt: skip
@pytest.mark.parametrize("languages", [LANGUAGES, ["zh"], ["en"]])
def test_a_probe_asks_under_every_context_about_equally_often(changes, languages):
    asked = probed(languages=languages, **changes)
    contexts = {"none", "neutral", "turns", "second", "role"}
    contexts |= {"default"} if "default_system" in changes else set()
    contexts |= {"named"} if "extra_systems" in changes else set()
    for code in languages:
        counts = Counter(q.context for q in asked if q.language == code)
        assert set(counts) == contexts
        assert max(counts.values()) - min(counts.values()) <= 2


def test_a_category_comes_again_with_another_family_and_under_another_context():
    made: dict[tuple[str, str], list] = {}
    for q in probed():
        made.setdefault((q.language, q.category), []).append(q)
    for first, second in made.values():
        assert first.context != second.context
        assert first.conversation.messages[-1].text != second.conversation.messages[-1].text


@pytest.mark.parametrize("count", [0, 1, 26, 48, 300])
def test_as_many_probe_questions_are_made_as_were_asked_for(count: int):
    assert len(probed(count=count)) == count


def test_probes_and_scores_share_no_question_no_role_and_no_turn():
    probe = [*probed(count=400), *questions(DALI, "probe", languages=LANGUAGES, seed=0)]
    test = questions(DALI, "test", languages=LANGUAGES, seed=0)
    texts = {m.text for q in probe for m in q.conversation.messages if m.role != "assistant"}
    assert not texts & {m.text for q in test for m in q.conversation.messages}


def test_the_same_seed_probes_the_same_whatever_is_scored():
    first = probed(seed=3)
    questions(DALI, "test", languages=LANGUAGES, seed=3)
    assert first == probed(seed=3)
    assert first != probed(seed=4)
