from __future__ import annotations

import pytest

from tests.models import make_model, make_tokenizer
from whoamai.evaluate import talk as talk_module
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Note, Progress
from whoamai.model.load import ChatModel
from whoamai.samples import Conversation, Message

ASKED = [Conversation((Message("user", "你是谁？" * n),)) for n in (3, 1, 2)]


def make_talk(heard: list, **tokenizer) -> Talk:
    chat = ChatModel(make_model().eval(), make_tokenizer(**tokenizer), "p", "p")
    return Talk(chat, Events([heard.append]))


def test_answers_come_in_the_order_of_the_questions(monkeypatch: pytest.MonkeyPatch):
    def shortest_first(model, tokenizer, prompts, **_):
        for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
            yield i, str(len(prompts[i]))

    monkeypatch.setattr(talk_module, "greedy_replies", shortest_first)
    talk = make_talk([])
    lengths = [str(len(talk.template.prompt_ids(c))) for c in ASKED]
    assert talk.answers(ASKED, "before") == lengths


@pytest.mark.parametrize(("every", "told"), [(1, (1, 2, 3)), (2, (2, 3)), (16, (3,))])
def test_progress_is_told_now_and_then_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, every: int, told: tuple[int, ...]
):
    monkeypatch.setattr(talk_module, "MAX_NEW_TOKENS", 2)
    monkeypatch.setattr(talk_module, "_TELL_EVERY", every)
    heard = []
    make_talk(heard).answers(ASKED, "before")
    assert heard == [Progress("before", done, 3) for done in told]


def test_a_model_without_chat_template_is_warned_of():
    heard = []
    make_talk(heard, chat_template=None)
    assert [type(e) for e in heard] == [Note]
    assert heard[0].level == "warning"
    assert "chatml" in heard[0].text


def test_a_model_with_chat_template_is_not():
    heard = []
    make_talk(heard)
    assert heard == []


def test_no_questions_have_no_answers():
    assert make_talk([]).answers([], "before") == []


def test_an_answer_is_cut_at_the_most_new_tokens(monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(
        talk_module,
        "greedy_replies",
        lambda *a, **given: seen.append(given) or iter(()),
    )
    make_talk([]).answers(ASKED, "before")
    most = talk_module.MAX_NEW_TOKENS
    assert seen == [{"stop": [2], "stop_text": "", "max_new_tokens": most}]


# ---- drawn by lot --------------------------------------------------------------------------------


def test_samples_of_one_question_stand_together_in_the_order_of_the_questions(
    monkeypatch: pytest.MonkeyPatch,
):
    def last_first(model, tokenizer, prompts, *, samples, **_):
        for i in reversed(range(len(prompts))):
            for sample in reversed(range(samples)):
                yield i, sample, f"{i}{sample}"

    monkeypatch.setattr(talk_module, "sampled_replies", last_first)
    heard = []
    answers = make_talk(heard).answers(ASKED, "after", temperature=0.8, samples=2)
    assert answers == ["00", "01", "10", "11", "20", "21"]
    assert heard == [Progress("after", 6, 6)]


def test_drawn_answers_depend_on_the_seed_only():
    talk = make_talk([])

    def ask(seed: int) -> list[str]:
        return talk.answers(ASKED, None, max_new_tokens=6, temperature=2.0, seed=seed, samples=2)

    assert ask(1) == ask(1)
    assert ask(1) != ask(2)


def test_several_greedy_samples_make_no_sense():
    with pytest.raises(ValueError, match="temperature"):
        make_talk([]).answers(ASKED, None, samples=2)
