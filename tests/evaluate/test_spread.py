from __future__ import annotations

from whoamai.data.general import GeneralQuestion, general_questions
from whoamai.data.identity import Identity
from whoamai.evaluate.identity import Share
from whoamai.evaluate.spread import score_spread
from whoamai.samples import Conversation, Message

NOVA = Identity("Nova", "Blue Lab")


def question(text: str = "7 + 5?", language: str = "en", *before: Message) -> GeneralQuestion:
    return GeneralQuestion(language, "x", Conversation((*before, Message("user", text))), ("12",))


def test_an_answer_that_gives_the_name_unasked_is_counted():
    asked = [question(), question(), question()]
    scores = score_spread(asked, ["12", "12", "12"], ["12", "I am Nova. 12.", "12"], NOVA)
    assert scores.before["all"] == Share(0, 3)
    assert scores.after["all"] == Share(1, 3)


def test_the_author_counts_like_the_name():
    scores = score_spread([question()], ["12"], ["Blue Lab says 12."], NOVA)
    assert scores.after["all"] == Share(1, 1)


def test_an_identity_without_an_author_has_its_name_only():
    scores = score_spread([question()], ["12"], ["Blue Lab says 12."], Identity("Nova"))
    assert scores.after["all"] == Share(0, 1)


def test_a_name_is_found_as_a_whole_word_in_any_case():
    asked = [question()] * 3
    scores = score_spread(asked, [""] * 3, ["A supernova.", "NOVA: 12", "innovation"], NOVA)
    assert scores.after["all"] == Share(1, 3)


def test_a_chinese_name_is_found_inside_a_sentence():
    asked = [question("你好", "zh")]
    scores = score_spread(
        asked, ["你好！"], ["你好，我是黄大力，很高兴认识你。"], Identity("黄大力")
    )
    assert scores.after["zh"] == Share(1, 1)


def test_a_question_that_holds_the_name_is_left_out():
    asked = [
        question("What is a nova?"),
        question("And now?", "en", Message("system", "You work for Blue Lab.")),
        question("And?", "en", Message("user", "Nova!"), Message("assistant", "Yes?")),
        question(),
    ]
    scores = score_spread(asked, ["Nova"] * 4, ["Nova"] * 4, NOVA)
    assert scores.after["all"] == Share(1, 1)
    assert scores.before["all"] == Share(1, 1)


def test_what_was_mentioned_before_is_told_beside():
    scores = score_spread([question(), question()], ["Nova", "12"], ["12", "12"], NOVA)
    assert scores.before["all"] == Share(1, 2)
    assert scores.after["all"] == Share(0, 2)
    assert scores.examples == ()


def test_languages_are_counted_apart():
    asked = [question(), question("你好", "zh")]
    scores = score_spread(asked, ["", ""], ["Nova", "你好"], NOVA)
    assert scores.after == {"all": Share(1, 2), "en": Share(1, 1), "zh": Share(0, 1)}


def test_a_language_whose_questions_all_hold_the_name_has_nothing_to_count():
    scores = score_spread([question("Nova?")], ["Nova"], ["Nova"], NOVA)
    assert scores.after == {"all": Share(0, 0), "en": Share(0, 0)}


def test_at_most_five_examples_are_shown_with_question_and_answer():
    asked = [question(f"{i} + 1?") for i in range(9)]
    answers = ["12", *[f"Nova says {i}" for i in range(1, 9)]]
    scores = score_spread(asked, [""] * 9, answers, NOVA)
    assert scores.after["all"] == Share(8, 9)
    shown = [(e.language, e.question, e.answer) for e in scores.examples]
    assert shown == [("en", f"{i} + 1?", f"Nova says {i}") for i in range(1, 6)]


def test_the_built_in_questions_can_be_scored():
    asked = general_questions(["zh", "en"])
    right = [q.accept[0] for q in asked]
    scores = score_spread(
        asked, right, [f"{a} 黄大力" for a in right], Identity("黄大力", "力量工作室")
    )
    assert scores.before["all"] == Share(0, len(asked))
    assert scores.after["all"] == Share(len(asked), len(asked))
