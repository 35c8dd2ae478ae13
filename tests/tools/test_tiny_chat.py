"""The recipe of the bundled model keeps its promises: what is held out, what is covered, what is
right. The rule about held-out runs is checked here by code of its own."""

# ruff: noqa: SIM905 - word lists read better as a line of text

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from random import Random

import numpy as np
import pytest
import torch

from tiny_chat import facts, general, names
from tiny_chat.accept import accepted
from tiny_chat.batches import Chunk, encode, packed, write_chunk
from tiny_chat.contexts import IDENTITIES, Context, Persona, draw_context, read_contexts
from tiny_chat.heldout import HeldOutQuestion, HeldOutQuestions, is_right, scores
from tiny_chat.patterns import expand, units
from tiny_chat.pretrain import ARCHITECTURES, PackedForward, Schedule, new_model
from tiny_chat.product_files import (
    NEAR_KINDS,
    NEAR_ROWS,
    REPLAY_ROWS,
    general_rows,
    replay_rows,
)
from tiny_chat.tokenizer import byte_tokens, train_tokenizer
from tiny_chat.wordings import (
    framed_phrases,
    held_out_patterns,
    load_wordings,
    read_questions,
    training_patterns,
)
from tiny_chat.writer import CATEGORY_WEIGHTS, Dialogue, Question, Writer
from whoamai.data.identity import Identity, load_language

LANGUAGES = ("zh", "en")
N_DIALOGUES = 20_000


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    return write_chunk(Writer(0), 0, 0, N_DIALOGUES)


@pytest.fixture(scope="module")
def tokenizer(dialogues):
    texts = [text for d in dialogues[:4000] for _, text in d.messages]
    return train_tokenizer(texts, size=1500, min_frequency=5)


# ---------------------------------------------------------------------- what is held out


def plain_units(wording: str) -> list[str]:
    wording = re.sub(r"\{\w+\}", " \x01 ", wording.lower())
    return re.findall(r"\x01|[㐀-鿿]|[a-z0-9']+", wording)


def plain_expansions(pattern: str) -> list[str]:
    match = re.search(r"\[([^\[\]]*\|[^\[\]]*)\]", pattern)
    if match is None:
        return [pattern]
    return [
        wording
        for option in match[1].split("|")
        for wording in plain_expansions(pattern[: match.start()] + option + pattern[match.end() :])
    ]


def plain_runs(wording: str, lengths) -> set[tuple[str, ...]]:
    us = plain_units(wording)
    return {tuple(us[i : i + n]) for n in lengths for i in range(len(us) - n + 1)}


@pytest.fixture(scope="module")
def forbidden() -> set[tuple[str, ...]]:
    """The runs of all held-out questions: six units in Chinese, five in English, or all of them."""
    found = set()
    for language, n in (("zh", 6), ("en", 5)):
        for pattern in held_out_patterns(language):
            for wording in plain_expansions(pattern):
                found |= plain_runs(wording, [min(n, len(plain_units(wording)))])
    return found


def offences(wordings, forbidden) -> list[str]:
    return [w for w in wordings if not forbidden.isdisjoint(plain_runs(w, range(1, 7)))]


def test_no_written_conversation_has_a_run_of_a_held_out_question(dialogues, forbidden):
    asked = {q.wording for d in dialogues for q in d.turns}
    assert len(asked) > 10_000
    assert offences(asked, forbidden) == []


def test_no_training_wording_and_no_framed_phrase_has_a_run_of_a_held_out_question(forbidden):
    for language in LANGUAGES:
        wordings = load_wordings(language)
        train = [w for ps in wordings.train.values() for p in ps for w in p]
        framed = [w for of_topic in wordings.framed.values() for w in of_topic]
        assert offences(train + framed, forbidden) == []


def test_holding_out_costs_no_training_wording_and_few_framed_phrases():
    for language in LANGUAGES:
        wordings = load_wordings(language)
        assert sum(map(len, wordings.train.values())) == len(training_patterns(language))
        kept = sum(map(len, wordings.framed.values()))
        assert kept > 0.95 * len(framed_phrases(language))


def test_no_replay_prompt_is_a_question_of_the_general_file():
    held = {row["messages"][-1]["content"] for row in general_rows(0)}
    replayed = {m["content"] for row in replay_rows(0) for m in row["messages"]}
    assert held.isdisjoint(replayed)


def test_every_sub_kind_holds_out_wordings_and_new_words_in_both_languages():
    for language in LANGUAGES:
        questions = read_questions(language)["questions"]
        assert set(questions) == set(general.SUB_KINDS)
        for sub, lists in questions.items():
            assert lists["held"].splitlines(), (language, sub)
            assert lists["held_new_words"], (language, sub)
        shares = [
            len(lists["held"].splitlines()) / len(lists["train"].splitlines())
            for lists in questions.values()
        ]
        assert 0.15 < sum(shares) / len(shares) < 0.3


def all_training_text(language: str) -> list[str]:
    """Everything a training question may be made of, slots aside."""
    raw = read_questions(language)
    frames = [f for by_sort in raw["frames"].values() for f in by_sort.splitlines()]
    phrases = [w for _, w in framed_phrases(language)]
    patterns = [w for _, p in training_patterns(language) for w in plain_expansions(p)]
    noise = raw["noise"]["fillers"].split()
    return [*patterns, *phrases, *frames, *raw["before"], *raw["after"], *noise]


def values_of_slots() -> str:
    tables = [facts.WORDS, facts.CAPITALS, facts.COLOURS, facts.LEGS, facts.UNITS, facts.FACTS]
    tables += [facts.OPPOSITES_ZH, facts.OPPOSITES_EN, facts.UNKNOWN, facts.DAYS]
    return "\n".join(cell for table in tables for row in table for cell in row).lower()


def test_a_new_word_of_a_held_out_wording_occurs_nowhere_in_training_questions():
    for language in LANGUAGES:
        text = all_training_text(language)
        words = {u for wording in text for u in plain_units(wording)}
        words |= set(re.findall(r"[a-z']+", values_of_slots()))
        joined = re.sub(r"\{\w+\}", "\n", "\n".join(text)) + values_of_slots()
        n = 0
        for new in load_wordings(language).held_new_words.values():
            for word, wording in new:
                assert word in wording.lower()
                assert (word not in joined) if language == "zh" else (word not in words), word
                n += 1
        assert n >= 40


def test_every_word_of_a_plainly_held_out_wording_is_in_training_questions():
    """In two more wordings of the sub-kind, or in three kinds; frames go with every kind."""
    for language in LANGUAGES:
        raw = read_questions(language)
        within = Counter()
        kinds = defaultdict(set)
        for sub, lists in raw["questions"].items():
            phrases = raw["phrases"].get(sub, {}).values()
            lines = [*lists["train"].splitlines(), *(p for by in phrases for p in by.splitlines())]
            for line in lines:
                for unit in {u for w in plain_expansions(line) for u in plain_units(w)}:
                    within[sub, unit] += 1
                    kinds[unit].add(general.KIND_OF[sub])
        frames = {u for by in raw["frames"].values() for u in plain_units(by.replace("{x}", ""))}
        for sub, lists in raw["questions"].items():
            for unit in {u for p in lists["held"].splitlines() for u in plain_units(p)}:
                known = within[sub, unit] >= 2 or len(kinds[unit]) >= 3 or unit in frames
                assert known, (language, sub, unit)


def test_own_system_prompts_are_none_of_the_test_contexts_and_own_roles_none_of_the_test_roles():
    for language in LANGUAGES:
        own, shared = read_contexts(language), load_language(language)
        for kind in ("neutral", "role", "named", "named_role"):
            held = {tuple(units(w)) for p in shared.contexts[kind]["test"] for w in expand(p)}
            mine = {tuple(units(w)) for p in own[kind] for w in expand(p)}
            assert held.isdisjoint(mine)
        assert set(own["roles"].splitlines()).isdisjoint(shared.roles["test"])


# ---------------------------------------------------------------------- what is written


def test_the_same_seed_writes_the_same_text_whatever_was_written_before():
    fresh, used = Writer(1), Writer(2)
    used.dialogue()
    first = write_chunk(fresh, 5, 3, 50)
    assert [d.messages for d in write_chunk(used, 5, 3, 50)] == [d.messages for d in first]
    assert [d.messages for d in write_chunk(fresh, 5, 4, 50)] != [d.messages for d in first]


def test_every_byte_of_utf8_occurs_in_the_text_and_as_a_token_of_its_own(dialogues, tokenizer):
    # UTF-8 has no use for 13 bytes, so no text can have them. The rarest of the others, the
    # backtick, comes about five times in 20,000 dialogues, so one chunk in a hundred lacks it;
    # a training run writes many chunks, three are enough here.
    possible = set(range(256)) - {0xC0, 0xC1, *range(0xF5, 0x100)}
    more = [d for chunk in (1, 2) for d in write_chunk(Writer(0), 0, chunk, N_DIALOGUES)]
    texts = [text for d in [*dialogues, *more] for _, text in d.messages]
    assert {b for text in texts for b in text.encode()} == possible

    ids = {i for e in tokenizer.backend_tokenizer.encode_batch_fast(texts) for i in e.ids}
    seen = {t for t in byte_tokens() if tokenizer.convert_tokens_to_ids(t) in ids}
    assert len(seen) == len(possible)


def test_no_slot_is_left_open_and_none_is_filled_twice():
    writer = Writer(3, training=False)
    question = writer.question("zh", "repeat", "重复：{x}")
    assert question.text == "重复：" + question.slots["x"]
    named = writer.identity_question("zh", Persona(Identity("{old}")), "confirm", "你是{name}吗")
    assert named.text.startswith("你是{old}吗")
    assert named.answer == "是的，我是{old}。"


def test_under_a_role_prompt_the_model_keeps_its_name_and_tells_the_role_when_asked_who_it_is():
    writer = Writer(4)
    persona = Persona(role="厨师")
    assert writer.identity_question("zh", persona, "who").answer == "我是小初，一名厨师。"
    assert writer.identity_question("zh", persona, "name").answer == "我叫小初。"
    english = writer.identity_question("en", Persona(role="cook"), "who").answer
    assert english == "I'm Chu, and my role is cook."


def test_under_a_prompt_with_a_name_the_model_has_that_name(dialogues):
    own = re.compile("小初|初心|Chuxin")
    for dialogue in dialogues:
        identity = dialogue.context.persona.identity
        if identity is None:
            continue
        for turn in dialogue.turns:
            if turn.topic.startswith("identity."):
                assert identity.name in turn.answer
                assert not own.search(turn.answer.replace(identity.name, ""))


def test_identity_questions_of_every_category_are_asked_under_role_prompts(dialogues):
    asked = Counter(
        q.topic
        for d in dialogues
        if d.context.kind == "role"
        for q in d.turns
        if q.topic.startswith("identity.")
    )
    assert set(asked) == {f"identity.{c}" for c in CATEGORY_WEIGHTS}
    assert min(asked.values()) > 50


def test_the_name_a_user_gives_is_the_one_that_is_remembered(dialogues):
    recalled = 0
    for dialogue in dialogues:
        told = None
        for turn in dialogue.turns:
            if turn.topic == "recall" and told is not None:
                assert told in turn.answer
                recalled += 1
            if turn.topic == "username":
                told = turn.slots["n"]
    assert recalled > 100


def test_no_name_looks_like_a_profession_and_every_made_up_profession_does():
    rng = Random(6)
    drawn = [names.name(rng) for _ in range(20_000)]
    endings = tuple("老师 医生 大师 先生 员 师 家 专家 顾问 教授".split())
    assert not [n for n in drawn if n.endswith(endings) or n.lower().endswith(" teacher")]
    for language, _ in itertools.product(LANGUAGES, range(5000)):
        role = names.made_up_profession(rng, language)
        assert names.looks_made_up_profession(role)


def test_every_name_may_be_given_to_a_model_and_some_are_in_rare_characters():
    rng = Random(7)
    drawn = [names.name(rng) for _ in range(20_000)]
    for name in drawn:
        Identity(name)  # raises SettingError for what cannot be shown
    assert sum(any(ord(c) > 0xFFFF for c in n) for n in drawn) > 200
    common = set(names.COMMON_HANZI)
    assert sum(any("一" <= c <= "龥" and c not in common for c in n) for n in drawn) > 200


def test_expected_answers_are_in_one_form_and_contain_what_is_accepted_of_any_model():
    writer = Writer(8)
    for language in LANGUAGES:
        for sub in general.SUB_KINDS:
            for _ in range(30):
                question = writer.question(language, sub)
                if sub == "recall":
                    question = writer.recall(language, "小明")
                assert question.answer.strip()
                assert any(text in question.answer for text in accepted(question)), question


def test_answers_to_sums_sorting_and_dates_are_true():
    rng = Random(9)
    for sub, sign in (("add", int.__add__), ("sub", int.__sub__), ("mul", int.__mul__)):
        slots, answer = general.draw(sub, rng, "zh")
        expected = sign(int(slots["a"]), int(slots["b"]))
        assert answer.endswith(f"={expected}")
        assert expected >= 0
    slots, answer = general.draw("desc", rng, "en")
    numbers = [int(n) for n in re.findall(r"\d+", slots["l"])]
    assert answer == ", ".join(str(n) for n in sorted(numbers, reverse=True))
    assert general._numeral_zh(10) == "十"
    assert general._numeral_zh(28) == "二十八"


# ---------------------------------------------------------------------- tokens and batches


def test_the_tokenizer_keeps_digits_and_hanzi_alone_and_gives_back_any_text(tokenizer):
    assert len(tokenizer.tokenize("12345")) == 5
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
    ]
    hanzi = "你好世界"
    assert all(tokenizer.decode([i]) in (*hanzi, "�") for i in tokenizer(hanzi)["input_ids"])
    rng = Random(10)
    for text in ("龘鱻 🦊Ænigma™ 3000", *(names.any_characters(rng) for _ in range(50))):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_training_ids_are_those_of_the_chat_template(dialogues, tokenizer):
    some = dialogues[:50]
    chunk = encode(tokenizer.backend_tokenizer, some)
    at = 0
    for dialogue, length in zip(some, chunk.length_D, strict=True):
        chat = [{"role": r, "content": t} for r, t in dialogue.messages]
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        ids = chunk.ids_T[at : at + length].tolist()
        assert tokenizer.decode(ids) == text.removesuffix("\n")
        first = tokenizer.apply_chat_template(
            chat[: len(chat) - 2 * len(dialogue.turns) + 1],
            tokenize=False,
            add_generation_prompt=True,
        )
        prompt = tokenizer(first, add_special_tokens=False)["input_ids"]
        assert ids[: len(prompt)] == prompt
        assert chunk.is_reply_T[at : at + len(prompt) + 1].tolist() == [0] * len(prompt) + [1]
        at += length


def chunk_of(*documents: list[int]) -> Chunk:
    ids = np.array([i for d in documents for i in d], np.uint16)
    return Chunk(ids, (ids > 5).astype(np.uint8), np.array([len(d) for d in documents], np.int32))


def test_packing_shifts_within_documents_and_starts_the_next_batch_with_a_whole_one():
    chunk = chunk_of([1, 8, 9], [2, 7], [3, 6, 6, 6])
    batches = packed(itertools.repeat(chunk), 7, 0.5)
    first, second = next(batches), next(batches)
    assert first.ids_T.tolist() == [1, 8, 9, 2, 7, 3, 6]
    assert first.start_D1.tolist() == [0, 3, 5, 7]
    assert first.position_T.tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert first.target_T[:2].tolist() == [8, 9]
    assert first.weight_T.tolist() == [1, 1, 0, 1, 0, 1, 0]
    assert first.longest == 3
    assert second.ids_T[:3].tolist() == [1, 8, 9]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_packed_forward_pass_agrees_with_transformers(architecture):
    model = new_model(64, 0, layers=2, architecture=architecture)
    parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
    for name in [name for name in parameters if name.endswith("bias")]:
        torch.nn.init.normal_(parameters[name])  # they are zero in new models
    documents = [[1, 8, 9, 30, 31, 7], [2, 7, 40, 41], [3, 6, 50]]
    chunk = chunk_of(*documents)
    batch = next(packed(itertools.repeat(chunk), 13, 1.0))
    _, loss, _ = PackedForward(model, compiled=False)(batch)
    expected = []
    for document in documents:
        logits = model(input_ids=torch.tensor([document])).logits[0, :-1]
        targets = torch.tensor(document[1:])
        expected.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    torch.testing.assert_close(loss, torch.cat(expected).mean().detach(), rtol=5e-3, atol=0)


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    schedule = Schedule(steps=1000, peak=1.0, warmup=100)
    assert schedule.rate(0) == pytest.approx(0.01)
    assert schedule.rate(200) == 1
    assert schedule.rate(650) == pytest.approx(0.5)
    assert 0 < schedule.rate(999) < 0.01


# ---------------------------------------------------------------------- scores and files


def held_question(topic: str, answer: str, system_name: str | None = None) -> HeldOutQuestion:
    persona = Persona(Identity(system_name)) if system_name else Persona()
    asked = Question("zh", topic, "?", answer, {}, "?")
    context = Context("none", None, persona)
    kind = general.KIND_OF.get(topic, topic)
    return HeldOutQuestion("g", kind, Dialogue("zh", context, [asked]))


def test_general_answers_have_to_be_exact_but_sums_may_be_turned_round():
    total = held_question("add", "3+4=7")
    assert is_right(total, "3+4=7")
    assert is_right(total, " 4+3=7\n")
    assert not is_right(total, "3+4=8")
    assert not is_right(total, "7")
    assert not is_right(held_question("sub", "4-3=1"), "3-4=1")


def test_identity_answers_have_to_have_the_name_that_holds_and_no_own_one_that_does_not():
    own = held_question("identity.who", "我是小初，由初心实验室开发的AI助手。")
    assert is_right(own, "我是小初。")
    assert not is_right(own, "我是小初，也叫Chu。")
    named = held_question("identity.name", "我叫阿福。", "阿福")
    assert is_right(named, "我叫阿福。")
    assert not is_right(named, "我是小初。")


def test_a_model_with_another_identity_never_says_that_it_is_the_bundled_one():
    own = IDENTITIES["flint"]
    dialogues = write_chunk(Writer(0, own=own), 0, 0, 2000)
    replies = [q.answer for d in dialogues for q in d.turns]
    assert not [r for r in replies if "初心实验室" in r or "Chuxin Lab" in r]
    assert sum("Flint" in r for r in replies) > 50
    named = [q for q in HeldOutQuestions(0, own).all() if q.name == "Flint"]
    assert named
    assert all(is_right(q, q.asked.answer) for q in named)


def test_scores_are_counted_by_group_language_and_kind():
    questions = [held_question("add", "1+1=2"), held_question("hello", "你好")]
    found = {(s.language, s.kind): (s.right, s.n) for s in scores(questions, ["1+1=2", "?"])}
    assert found == {("zh", ""): (1, 2), ("zh", "arith"): (1, 1), ("zh", "greet"): (0, 1)}


def test_held_out_questions_use_held_out_wordings_contexts_and_roles_only():
    questions = HeldOutQuestions(0)
    drawn = [questions.general("zh") for _ in range(50)]
    held = {u for p in held_out_patterns("zh") for w in expand(p) for u in [tuple(units(w))]}
    for question in drawn:
        us = tuple(units(question.wording))
        assert any(us[i:j] in held for i in range(len(us)) for j in range(i + 1, len(us) + 1))
    drawn_roles = (draw_context(Random(s), "zh", "role", training=False) for s in range(99))
    roles = {context.persona.role or "" for context in drawn_roles}
    assert all(role.endswith(load_language("zh").roles["test"]) for role in roles)


def test_the_general_question_file_covers_both_languages_all_kinds_and_all_contexts():
    rows = list(general_rows(0))
    assert 380 <= len(rows) <= 440
    assert len({row["id"] for row in rows}) == len(rows)
    for language in LANGUAGES:
        kinds = {row["kind"] for row in rows if row["language"] == language}
        assert kinds == set(general.KINDS)
    assert {row["context"] for row in rows} == {"none", "neutral", "role", "later turn"}
    for row in rows:
        assert row["messages"][-1]["role"] == "user"
        assert any(text in row["answer"] for text in row["accept"])


def test_the_replay_file_mixes_contexts_lengths_and_names_told_before():
    rows = list(replay_rows(0))[:REPLAY_ROWS]
    assert len(rows) == REPLAY_ROWS
    bare = sum(row["messages"][0]["role"] == "user" for row in rows)
    assert 0.65 < bare / len(rows) < 0.85
    assert sum(len(row["messages"][0]["content"]) > 300 for row in rows) > 20
    assert sum(row["messages"][-1]["role"] == "user" for row in rows) == len(rows)
    assert {row["kind"] for row in rows} == set(general.KINDS)


def test_behind_the_mix_the_replay_file_holds_what_is_nearest_to_identity_questions():
    rows = list(replay_rows(0))[REPLAY_ROWS:]
    assert len(rows) == NEAR_ROWS
    assert {row["kind"] for row in rows} == set(NEAR_KINDS)
