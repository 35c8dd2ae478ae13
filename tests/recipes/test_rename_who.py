from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from whoamai.data.identity import Identity
from whoamai.recipes.rename_who import who_it_is
from whoamai.samples import Conversation

NAME = Identity("黄大力", "力量工作室")


class Says:
    """Stands in for Talk: the same answer to everything."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.asked: list[Conversation] = []

    def answers(self, conversations: Sequence[Conversation], stage: Any) -> list[str]:
        assert stage == "before"
        self.asked += conversations
        return [self.answer] * len(conversations)


def found(answer: str, *told: str, identity: Identity = NAME) -> tuple[tuple[str, ...], ...]:
    who = who_it_is(Says(answer), identity, ("zh", "en"), told)  # type: ignore[arg-type]
    return who.names, who.makers


def test_a_model_is_asked_in_every_language_without_being_told_a_name():
    talk = Says("我是小初，由初心实验室开发。")
    who_it_is(talk, NAME, ("zh", "en"), ())  # type: ignore[arg-type]
    texts = [c.messages[-1].text for c in talk.asked]
    assert len(texts) == len(set(texts)) == 48
    assert all(len(c.messages) == 1 for c in talk.asked)
    assert not [text for text in texts if "黄大力" in text or "小初" in text]


def test_its_name_and_its_maker_are_found():
    assert found("我是小初，由初心实验室开发。") == (("小初",), ("初心实验室",))


def test_names_the_user_tells_come_first_and_once():
    assert found("我是小初。", "小布", "小初") == (("小布", "小初"), ())


def test_a_told_name_that_it_gives_as_its_maker_is_one():
    """A report lists both together; `check` tells what it lists, and must ask what `rename` asked."""
    told = ("小初", "初心实验室")
    assert found("我是小初，由初心实验室开发。", *told) == (("小初",), ("初心实验室",))


def test_the_new_name_and_author_are_no_old_ones():
    assert found("我是黄大力，由力量工作室开发。", "黄大力") == ((), ())
