"""The questions of a config, asked between two steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.models import make_model, make_tokenizer
from whoamai.evaluate.chat import ChatEvaluation
from whoamai.evaluate.talk import Talk
from whoamai.events import Events, Result
from whoamai.messages import use_language
from whoamai.model.load import ChatModel
from whoamai.samples import Conversation, Message

BRACES = "Who are {you}? {0} {{name}} %s"


class Parrot:
    """Stands for Talk: answers with what it was asked, and remembers how."""

    def __init__(self) -> None:
        self.asked: list[Conversation] = []
        self.limits: list[int] = []

    def answers(
        self, conversations: Sequence[Conversation], stage: str | None, *, max_new_tokens: int
    ) -> list[str]:
        assert stage is None, "progress of the questions would overwrite that of the training"
        self.asked += conversations
        self.limits.append(max_new_tokens)
        return [f"You said: {c.messages[-1].text}" for c in conversations]


def evaluation(file: Path, *questions: str, talk: Any = None, system: str | None = None):
    told: list[Any] = []
    found = ChatEvaluation(
        talk or Parrot(),
        questions,
        system=system,
        max_new_tokens=12,
        file=file,
        events=Events([told.append]),
    )
    return found, told


def test_all_questions_are_asked_under_the_system_prompt(tmp_path: Path):
    parrot = Parrot()
    asks, _ = evaluation(tmp_path / "a.md", "A?", "B?", talk=parrot, system="Be {kind}.")
    assert asks.ask(0) == ["You said: A?", "You said: B?"]
    system = Message("system", "Be {kind}.")
    assert parrot.asked == [
        Conversation((system, Message("user", "A?"))),
        Conversation((system, Message("user", "B?"))),
    ]
    assert parrot.limits == [12]


@pytest.mark.parametrize("system", [None, ""])
def test_without_a_system_prompt_none_is_given(tmp_path: Path, system: str | None):
    parrot = Parrot()
    evaluation(tmp_path / "a.md", "A?", talk=parrot, system=system)[0].ask(3)
    assert parrot.asked == [Conversation((Message("user", "A?"),))]


def test_answers_are_told_with_their_questions_and_the_step(tmp_path: Path):
    asks, told = evaluation(tmp_path / "a.md", BRACES, "名字？", system="S")
    asks.ask(14)
    (event,) = told
    assert isinstance(event, Result)
    assert event.name == "answers"
    assert event.data["step"] == 14
    assert event.data["system"] == "S"
    assert event.data["seconds"] >= 0
    assert event.data["answers"] == [
        {"question": BRACES, "answer": f"You said: {BRACES}"},
        {"question": "名字？", "answer": "You said: 名字？"},
    ]


def test_the_file_grows_by_a_section_each_time(tmp_path: Path):
    file = tmp_path / "a.md"
    asks, _ = evaluation(file, BRACES, system="One.\nTwo.")
    asks.ask(0)
    asks.ask(5)
    section = f"> One.\n> Two.\n\n**{BRACES}**\n\n> You said: {BRACES}\n\n"
    expected = f"## Before training\n\n{section}## After step 5\n\n{section}"
    assert file.read_text("utf-8") == expected


def test_several_lines_stay_in_their_place_in_the_file(tmp_path: Path):
    file = tmp_path / "a.md"
    evaluation(file, "Sort:\n\nb\na")[0].ask(1)
    text = file.read_text("utf-8")
    assert "**Sort:**\n\n**b**\n**a**" in text
    assert "> You said: Sort:\n>\n> b\n> a" in text


def test_an_empty_answer_is_an_empty_quotation(tmp_path: Path):
    class Silent(Parrot):
        def answers(self, conversations, stage, *, max_new_tokens):
            return ["" for _ in conversations]

    file = tmp_path / "a.md"
    evaluation(file, "A?", talk=Silent())[0].ask(1)
    assert file.read_text("utf-8").endswith("**A?**\n\n>\n\n")


def test_the_file_speaks_the_users_language(tmp_path: Path):
    with use_language("zh"):
        evaluation(tmp_path / "a.md", "A?")[0].ask(0)
    assert "## 训练" in (tmp_path / "a.md").read_text("utf-8")


def test_a_real_model_answers_as_it_does_elsewhere(tmp_path: Path):
    chat = ChatModel(make_model().eval(), make_tokenizer(), "no-folder", "tiny")
    talk = Talk(chat, Events())
    asks, _ = evaluation(tmp_path / "a.md", "Hi", "你好", talk=talk, system="S")
    turns = [(Message("system", "S"), Message("user", text)) for text in ("Hi", "你好")]
    alone = [talk.answers([Conversation(c)], None, max_new_tokens=12)[0] for c in turns]
    assert asks.ask(0) == alone
