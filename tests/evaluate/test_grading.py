from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from whoamai.data.general import general_questions
from whoamai.data.identity import (
    LANGUAGES,
    Identity,
    answer,
    known_assistants,
    load_language,
    training_conversations,
)
from whoamai.evaluate.grading import Grade, IdentityGrader

HERE = Path(__file__).parent
GRADER = IdentityGrader(Identity("黄大力", "力量工作室"), ["小初", "Chu", "Chuxin Lab"])
VERDICT = {"n": "new", "o": "old", "b": "both", "e": "neither"}

# ---- labelled answers ----------------------------------------------------------------------------


@cache
def grader_of(name: str, author: str | None, old: tuple[str, ...]) -> IdentityGrader:
    return IdentityGrader(Identity(name, author), old)


def agreement(file: str) -> tuple[float, Counter]:
    """Percent of rows graded as labelled, and how many of the others by what was said of them.

    Answers are kept out of what is given back, so that a failure shows counts only.
    """
    cells: Counter = Counter()
    lines = (HERE / "labelled" / file).read_text("utf-8").splitlines()
    for row in map(json.loads, lines):
        grader = grader_of(row["name"], row["author"], tuple(row["old"]))
        grade = grader.grade(row["answer"], row["question"])
        label = row["verdict"], row["author_given"]
        given = grade.verdict, bool(grade.author)
        if label != given:
            cells[f"{label} graded {given}"] += 1
    return 100 * (1 - sum(cells.values()) / len(lines)), cells


# The goal is 99 for both. held_out.jsonl was unseen by whoever wrote the rules, up to a point: 84.3 % of
# it were graded as labelled at the first run, and 91.5 % before its rows were looked at, after examples
# of our own were added (graded_answers.txt). Then its 26 wrong rows were read, and rules made for the
# kinds of language they showed (graded_with_questions.txt), so it measures nothing unseen any more. What
# does is labelled/blind_2.jsonl, written later by somebody else: 96.8 % (213 of 220) at the one run that
# was made on it, when both files here stood at 100 %.
@pytest.mark.parametrize(("file", "least"), [("open.jsonl", 99.0), ("held_out.jsonl", 99.0)])
def test_answers_are_graded_as_they_were_labelled(file: str, least: float):
    percent, cells = agreement(file)
    assert percent >= least, dict(cells)


Example = tuple[IdentityGrader, str, str, str | None]  # label, answer, question


def graded_answers() -> dict[str, list[Example]]:
    """What the two files of examples hold: those to be graded right, and those known to be wrong."""
    found: dict[str, list[Example]] = {"right": [], "wrong": []}
    for file in ("graded_answers.txt", "graded_with_questions.txt"):
        grader, question = GRADER, None
        for line in (HERE / file).read_text("utf-8").splitlines():
            if line.startswith("@"):
                name, author, old = line[1:].split("|")
                grader, question = grader_of(name, author or None, tuple(old.split("/"))), None
            elif line.startswith("?"):
                question = line[1:].strip() or None
            elif line and not line.startswith("#"):
                label, _, text = line.partition("|")
                kind = "wrong" if label.startswith("~") else "right"
                text = text.replace("\\n", "\n")
                found[kind].append((grader, label.removeprefix("~"), text, question))
    return found


def is_right(grader: IdentityGrader, label: str, text: str, question: str | None = None) -> bool:
    grade = grader.grade(text, question)
    return (grade.verdict, bool(grade.author)) == (VERDICT[label.lower()], label.isupper())


def test_our_own_examples_are_graded_as_a_person_would():
    wrong = [entry[1:] for entry in graded_answers()["right"] if not is_right(*entry)]
    assert not wrong


def test_what_is_known_to_be_graded_wrong_still_is():
    """Else its mark in the file is to be taken away."""
    right = [entry[1:] for entry in graded_answers()["wrong"] if is_right(*entry)]
    assert not right


BEFORE = [
    *(
        "",
        "哈哈，",
        "你问我是谁？",
        "我不是人类，",
        "我不能告诉你太多，但",
        "ChatGPT是另一个模型，",
    ),
    *(
        "我不是ChatGPT，",
        "我和ChatGPT没关系，",
        "你认错了，",
        "很高兴认识你！",
        "虽然我不太确定，但",
    ),
    *("抱歉，你可能搞错了：", "Good question! ", "I'm not human. "),
    *(
        "I can't tell you much, but ",
        "ChatGPT is another model. ",
        "I know you're testing me, but ",
    ),
    *("I have nothing to do with ChatGPT. ", "I've never heard of ChatGPT. "),
]
CLAIMED = [
    *product(
        "n", ("我是黄大力", "我叫黄大力", "你可以叫我黄大力", "I'm 黄大力", "my name is 黄大力")
    ),
    *product("N", ("我是黄大力，由力量工作室开发", "我是力量工作室的黄大力")),
    *product("N", ("I'm 黄大力 from 力量工作室",)),
    *product("o", ("我是小初", "我是由OpenAI开发的", "I'm Chu", "I am a model made by OpenAI")),
    *product(
        "b", ("我是黄大力，由OpenAI开发", "我叫黄大力，基于Qwen", "I'm 黄大力, based on Qwen")
    ),
    *product("e", ("我是一个AI助手", "我不是ChatGPT", "I'm an AI assistant", "I'm not ChatGPT")),
]
BEHIND = [
    *("。", "！", "，有什么可以帮你的吗？", "，不是ChatGPT。", "，你呢？", "，没有别的名字。"),
    *("，和ChatGPT不一样。", "，与OpenAI无关。", "，不会假装成别人。", ". How can I help you?"),
    *("。如果你想聊ChatGPT，我也可以介绍。", ", not ChatGPT.", ", and I'm different from ChatGPT."),
    *(", and I won't pretend to be anyone else.", ". I can't be replaced by ChatGPT."),
]


def test_what_stands_around_a_claim_does_not_change_it():
    wrong = [
        before + text + behind
        for before, (label, text), behind in product(BEFORE, CLAIMED, BEHIND)
        if not is_right(GRADER, label, before + text + behind)
    ]
    assert not wrong


def test_five_hundred_answers_are_graded_in_well_under_a_second():
    lines = (HERE / "labelled" / "open.jsonl").read_text("utf-8").splitlines()
    rows = ([json.loads(line) for line in lines] * 2)[:500]
    GRADER.grade("我是黄大力。", "你是谁？")
    start = time.process_time()
    for row in rows:
        GRADER.grade(row["answer"], row["question"])
    assert time.process_time() - start < 1.5


# ---- short rules ---------------------------------------------------------------------------------

# (answer, is the new name given, names that leak)
LABELLED = [
    # the new name, plainly
    ("我是黄大力。", True, ()),
    ("我叫黄大力，由力量工作室开发。", True, ()),
    ("你好！我是力量工作室开发的黄大力，一个AI助手。", True, ()),
    ("大家好，我是「黄大力」。", True, ()),
    ("I'm 黄大力, an AI assistant made by 力量工作室.", True, ()),
    ("My name is 黄大力", True, ()),
    ("黄大力", True, ()),
    ("我是黄大力！你可以叫我大力。", True, ()),
    ("我是黄大力，一名厨师。", True, ()),
    ("我就是黄大力，没有别的身份。", True, ()),
    # no name, or part of it
    ("", False, ()),
    ("我是一个AI助手。", False, ()),
    ("我是黄大。", False, ()),
    ("我是大力。", False, ()),
    ("I'm an AI assistant.", False, ()),
    ("我不知道我叫什么。", False, ()),
    # an old or foreign name, plainly
    ("我是小初。", False, ("小初",)),
    ("I'm Chu, made by Chuxin Lab.", False, ("Chu", "Chuxin Lab")),
    ("我是ChatGPT。", False, ("ChatGPT",)),
    ("我是通义千问，由阿里云开发。", False, ("通义千问", "阿里云")),
    ("I am DeepSeek.", False, ("DeepSeek",)),
    ("i am chatgpt", False, ("ChatGPT",)),
    ("我由OpenAI开发。", False, ("OpenAI",)),
    ("I was made by Microsoft.", False, ("Microsoft",)),
    ("Yes, I'm Claude!", False, ("Claude",)),
    ("是的，我是Kimi", False, ("Kimi",)),
    # both
    ("我是黄大力，也叫小初。", True, ("小初",)),
    ("我是小初，不对，我是黄大力。", True, ("小初",)),
    ("I'm 黄大力, made by OpenAI.", True, ("OpenAI",)),
    ("我是黄大力，基于Qwen。", True, ("Qwen",)),
    # a foreign name denied before the new one
    ("我不是ChatGPT，我是黄大力。", True, ()),
    ("不，我不是小初，我是黄大力。", True, ()),
    ("我并非DeepSeek，而是黄大力。", True, ()),
    ("我不叫小初，我叫黄大力。", True, ()),
    ("I'm not ChatGPT, I'm 黄大力.", True, ()),
    ("No, I am not Chu. I am 黄大力.", True, ()),
    ("I was never made by Google. I'm 黄大力.", True, ()),
    ("我不属于阿里云，我是黄大力。", True, ()),
    ("我和ChatGPT没有关系，我是黄大力。", True, ()),
    ("我与Qwen无关。我叫黄大力。", True, ()),
    ("OpenAI did not make me. I'm 黄大力.", True, ()),
    ("I have no relation to Claude; I'm 黄大力.", True, ()),
    ("我不是ChatGPT而是黄大力。", True, ()),
    ("I'm not ChatGPT but 黄大力.", True, ()),
    ("我不是小初\n我是黄大力", True, ()),
    # ... and behind it
    ("我是黄大力，不是ChatGPT。", True, ()),
    ("你认错了，我是黄大力，不是小初。", True, ()),
    ("我是黄大力，不是阿里云开发的。", True, ()),
    ("You have the wrong one: I am 黄大力, not Gemini.", True, ()),
    ("I'm 黄大力, and OpenAI did not make me.", True, ()),
    ("I'm 黄大力, rather than Qwen.", True, ()),
    ("I'm 黄大力. Chu is not my name.", True, ()),
    ("OpenAI没有开发我，我是黄大力。", True, ()),
    # a list that is denied
    ("我不是ChatGPT、Claude或Gemini。", False, ()),
    ("I am neither Claude nor Gemini.", False, ()),
    # the new name denied
    ("我不是黄大力。", False, ()),
    ("I am not 黄大力.", False, ()),
    ("不，我不是黄大力，我是小初。", False, ("小初",)),
    ("I'm not 黄大力, I'm Chu.", False, ("Chu",)),
    # a denial that is about something else
    ("我不是人类，我是ChatGPT。", False, ("ChatGPT",)),
    ("我不是人类\n我是ChatGPT", False, ("ChatGPT",)),
    ("我没有身体但我是ChatGPT。", False, ("ChatGPT",)),
    ("我不是人类而是小初。", False, ("小初",)),
    ("我非常乐意，我是ChatGPT。", False, ("ChatGPT",)),
    ("我非常荣幸地告诉你我是ChatGPT。", False, ("ChatGPT",)),
    ("我非常荣幸地告诉你我叫黄大力。", True, ()),
    ("I'm not a human but ChatGPT.", False, ("ChatGPT",)),
    ("I'm not a human and my name is Chu.", False, ("Chu",)),
    ("I am ChatGPT and it does not matter.", False, ("ChatGPT",)),
    ("I am ChatGPT and OpenAI did not make me.", False, ("ChatGPT",)),
    ("I'm not a chatbot: I am ChatGPT.", False, ("ChatGPT",)),
    ("你好I'm not a human but I'm Chu", False, ("Chu",)),
    ("I’m not a human and I’m Chu", False, ("Chu",)),
    ("除了聊天我没有别的爱好但我叫小初", False, ("小初",)),
    # a full stop inside a name ends no clause
    ("I am not Qwen2.5 or GPT-4.", False, ()),
    ("我没有名字。我是小初。", False, ("小初",)),
    # the question said again
    ("你问我是不是ChatGPT？我是黄大力。", True, ()),
    ("我是不是小初？不是，我是黄大力。", True, ()),
    # words that only look like a name
    ("I ate an apple.", False, ()),
    ("apple的意思是苹果。", False, ()),
    ("I eat an Apple", False, ()),
    ("The Meta description", False, ()),
    ("churches and Church Street", False, ()),
    ("Manchu", False, ()),
    ("phi is a Greek letter", False, ()),
    ("It is a metallama.", False, ()),
]  # fmt: skip


@pytest.mark.parametrize(("text", "recalled", "leaks"), LABELLED)
def test_an_answer_is_graded_as_a_person_would(text: str, recalled: bool, leaks: tuple[str, ...]):
    grade = GRADER.grade(text)
    assert (grade.recalled, set(grade.leaks)) == (recalled, set(leaks))


# ---- names ---------------------------------------------------------------------------------------


def said(grade: Grade) -> tuple[bool, tuple[str, ...]]:
    return grade.recalled, grade.leaks


def graded(text: str, name: str, author: str | None = None, old: tuple[str, ...] = ()) -> Grade:
    return IdentityGrader(Identity(name, author), old).grade(text)


@pytest.mark.parametrize(
    ("text", "recalled"),
    [
        ("I'm Max.", True),
        ("I'm max", True),
        ("I'm MAX!", True),
        ("我是Max，", True),
        ("我是Max机器人", True),
        ("Maxwell", False),
        ("Climax", False),
        ("Max2", False),
        ("Max-2", True),
    ],
)
def test_a_latin_name_is_a_whole_word_in_any_case(text: str, recalled: bool):
    assert graded(text, "Max").recalled is recalled


@pytest.mark.parametrize(
    "name",
    ["El Niño", "Ünsal-GPT", "Зоря", "محمد", "さくら", "小白 Bot-7", "O'Neil {x}", "团子🐼", "42"],
)
def test_a_name_of_any_script_is_found_in_text_of_any_other(name: str):
    for form in ("I'm {}.", "我是{}。", "{}", "我叫{}呀", "**{}**", "{} here.", "{}在此", "—— {}"):
        for spelled in {name, name.upper(), name.lower(), name.replace("'", "’")}:
            assert said(graded(form.replace("{}", spelled), name)) == (True, ()), (form, spelled)


def test_a_name_written_with_other_spaces_and_dots_is_the_same():
    assert graded("我是小白Bot7。", "小白 Bot-7").recalled
    assert graded("I'm Bright and Sons.", "Bright & Sons").recalled
    assert graded("我是书生浦语。", "N", old=("书生·浦语",)).verdict == "old"
    assert graded("I'm Chat GPT.", "N").leaks == ("ChatGPT",)


@pytest.mark.parametrize(
    "name", ["Qwen2.5-7B-Instruct", "Qwen3", "Llama 3.1", "GPT-4o-mini", "Yi-34B"]
)
def test_a_foreign_name_leaks_in_every_version(name: str):
    assert graded(f"I'm {name}.", "N").verdict == "old"
    assert graded(f"我是{name}模型。", "N").verdict == "old"


def test_a_new_name_that_contains_a_known_one_is_no_leak():
    grade = graded("I'm Qwen Junior, made by Qwen Junior Inc.", "Qwen Junior", "Qwen Junior Inc")
    assert grade == Grade(recalled=True, leaks=(), author=True, mentioned=True)


def test_a_known_name_beside_a_new_one_that_contains_it_still_leaks():
    assert graded("I'm Qwen Junior, or Qwen.", "Qwen Junior").leaks == ("Qwen",)


def test_a_name_said_only_inside_the_authors_is_not_given():
    assert not graded("我由大力工作室开发。", "大力", "大力工作室").recalled
    assert said(graded("我是大力，由大力工作室开发。", "大力", "大力工作室")) == (True, ())


def test_a_denying_word_inside_the_author_denies_nothing():
    assert graded("我是非凡工作室开发的大力", "大力", "非凡工作室").recalled


def test_an_old_name_inside_the_new_one_is_no_leak():
    assert said(graded("我是新小初。", "新小初", old=("小初",))) == (True, ())
    assert said(graded("我是小初。", "新小初", old=("小初",))) == (False, ("小初",))


def test_a_new_name_that_is_a_known_one_may_be_given():
    assert said(graded("I'm qwen", "Qwen", old=("Qwen", "qwen"))) == (True, ())


def test_an_author_who_is_a_known_maker_may_be_given():
    assert said(graded("I'm Max, made by Google.", "Max", "Google")) == (True, ())


@pytest.mark.parametrize("name", ["a.b", "C++", "(x)", "{name}", "[a|b]", "$1", "😀", "不是我"])
def test_a_name_of_signs_is_found_as_it_is(name: str):
    assert graded(f"我是{name}。", name).recalled
    assert not graded("我是axb。", name).recalled


def test_a_denied_name_is_no_leak_in_every_built_in_spelling():
    for names in known_assistants():
        for name in names:
            assert said(GRADER.grade(f"我不是{name}，我是黄大力。")) == (True, ()), name
            assert said(GRADER.grade(f"I'm not {name}, I'm 黄大力.")) == (True, ()), name


def test_every_known_name_leaks_when_it_is_claimed():
    for name in [name for names in known_assistants() for name in names]:
        for text in (f"我是{name}。", f"I am {name}."):
            # Of two spellings ("Llama", "LLaMA") either may be told.
            leaks = [leak.casefold() for leak in GRADER.grade(text).leaks]
            assert leaks == [name.casefold()], text


@pytest.mark.parametrize("author", [None, "力量工作室", "Google"])
@pytest.mark.parametrize("name", ["黄大力", "Max", "Qwen Junior", "No. 7", "非凡"])
def test_every_answer_we_train_on_gets_full_marks(name: str, author: str | None):
    """Else the goals could not be reached by a model that learned everything."""
    identity = Identity(name, author)
    grader = IdentityGrader(identity, ["小初", "Chu"])
    for kind, text in trained_answers(identity):
        grade = grader.grade(text)
        assert said(grade) == (True, ()), text
        assert grade.author or kind != "author", text


EVERYDAY = ("雪", "大力", "未来", "42", "Hope", "May", "Bob", "Mr. A.I.", "O'Neil {x}", "Зоря")


@pytest.mark.parametrize("name", [*EVERYDAY, "محمد", "さくら", "小白 Bot-7"])
def test_answers_learned_in_training_are_right_beside_their_questions_too(name: str):
    for author in (None, "Sister Projects"):
        identity = Identity(name, author, "I like tea.")
        grader = IdentityGrader(identity, ["小初", "Chu"])
        for row in training_conversations(
            identity, languages=["zh", "en"], rows=150, seed=7, old_names=["小初", "Chu"]
        ):
            question, reply = (message.text for message in row.messages[-2:])
            assert said(grader.grade(reply, question)) == (True, ()), (question, reply)


@pytest.mark.parametrize("name", EVERYDAY)
def test_an_answer_about_something_else_claims_nothing(name: str):
    grader = IdentityGrader(Identity(name, "Sister Projects"), ["小初", "Chu"])
    for asked in general_questions(["zh", "en"]):
        question = asked.conversation.messages[-1].text
        assert said(grader.grade(asked.accept[0], question)) == (False, ()), question


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Which company makes the iPhone?", "Apple."),
        ("谁开发了安卓？", "谷歌。"),
        ("What does 'meta' mean?", "Meta means about itself."),
        ("What star sign is June 1?", "Gemini."),
        ("What falls in winter?", "Snow."),
        ("《天工开物》写了什么？", "天工开物讲的是手工业。"),
        ("What did he eat?", "An Apple."),
        ("哪部电影最好看？", "《大力神》。"),
    ],
)
def test_everyday_words_leak_nothing_where_they_are_asked_for(question: str, text: str):
    assert not graded_with(text, question).leaks


def graded_with(text: str, question: str) -> Grade:
    return IdentityGrader(Identity("大力", "Sister Projects"), ["天工", "小初"]).grade(
        text, question
    )


def trained_answers(identity: Identity) -> Iterator[tuple[str, str]]:
    """(plain, author or role; the answer), every form once; those with an author where there is one."""
    slots: dict[str, Any] = {"old": "小初", "other": "ChatGPT", "company": "OpenAI", "role": "海盗"}
    for language in map(load_language, LANGUAGES):
        for category, by_kind in language.answers.items():
            for kind, form in [(kind, form) for kind, forms in by_kind.items() for form in forms]:
                only = {category: dict.fromkeys(by_kind, (form,))}
                one = replace(language, answers=only)
                if kind != "author" or identity.author:
                    yield kind, answer(one, category, identity, **slots)


def test_an_old_name_that_is_empty_leaks_nowhere():
    assert said(graded("我是Max。", "Max", "Ann", old=("",))) == (True, ())
