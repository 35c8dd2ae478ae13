"""General questions, texts and long system prompts: what has nothing to do with who the model is.

    questions/general.jsonl       questions whose answers can be checked
    questions/texts.jsonl         prompts with a reference reply, of many kinds
    questions/long_systems.yaml   system prompts of 500 to 1,000 tokens that give nobody a name

All is of our own writing. Before and after training the same is asked and read; what changed is the
price of the new name. None of it is ever trained on: replayed prompts are others
(questions/replay.jsonl).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import yaml

from whoamai.data.identity import check_languages
from whoamai.data.replay import read_questions
from whoamai.samples import Conversation, Message


@dataclass(frozen=True, slots=True)
class GeneralQuestion:
    """A question whose answer can be checked: any of `accept`, alone where `exact`."""

    language: str
    kind: str
    conversation: Conversation
    accept: tuple[str, ...]
    exact: bool = False

    def is_right(self, answer: str) -> bool:
        if self.exact:
            return answer.strip() in self.accept
        return any(_contains(answer, accepted) for accepted in self.accept)


@dataclass(frozen=True, slots=True)
class GeneralText:
    """A conversation to read, not to ask: the replies marked as trained are what is scored."""

    language: str
    kind: str
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class LongSystem:
    """A long system prompt that gives the one who answers neither a name nor a role."""

    language: str
    subject: str
    text: str


def general_questions(languages: Sequence[str], count: int | None = None) -> list[GeneralQuestion]:
    """The built-in questions of `languages`; the first `count` of each language, all if None.

    The file is mixed, so its beginning holds every kind.
    """
    return [
        GeneralQuestion(
            row["language"],
            row["kind"],
            Conversation(tuple(Message(m["role"], m["content"]) for m in row["messages"])),
            tuple(row["accept"]),
            row.get("exact", False),
        )
        for row in _rows("general.jsonl", languages, count)
    ]


def general_texts(languages: Sequence[str], count: int | None = None) -> list[GeneralText]:
    """The built-in texts of `languages`; the first `count` of each language, all if None.

    Kinds come in turn, so the beginning holds every kind.
    """
    return [
        GeneralText(
            row["language"],
            row["kind"],
            Conversation(
                (Message("user", row["prompt"]), Message("assistant", row["reply"], trained=True)),
                f"texts:{row['language']}:{row['kind']}",
            ),
        )
        for row in _rows("texts.jsonl", languages, count)
    ]


def long_systems(languages: Sequence[str]) -> list[LongSystem]:
    """The built-in long system prompts of `languages`."""
    check_languages(languages)
    return [s for code in languages for s in _long_systems() if s.language == code]


def under_long_systems(
    questions: Sequence[GeneralQuestion], languages: Sequence[str], count: int
) -> list[GeneralQuestion]:
    """The first `count` questions of each language that have no system prompt, each under a long one.

    The prompts come in turn, and in the question's language. A question's kind stays what it is; its
    conversation's source names the prompt's subject.
    """
    result = []
    for code in languages:
        systems = long_systems([code])
        asked = [
            q
            for q in questions
            if q.language == code and q.conversation.messages[0].role != "system"
        ]
        for i, question in enumerate(asked[:count]):
            system = systems[i % len(systems)]
            turns = (Message("system", system.text), *question.conversation.messages)
            source = f"long:{code}:{system.subject}"
            result.append(replace(question, conversation=Conversation(turns, source)))
    return result


def _rows(name: str, languages: Sequence[str], count: int | None) -> list[dict[str, Any]]:
    check_languages(languages)
    of = {code: [r for r in read_questions(name) if r["language"] == code] for code in languages}
    return [row for code in languages for row in of[code][:count]]


@cache
def _long_systems() -> tuple[LongSystem, ...]:
    text = (
        resources.files("whoamai.data").joinpath("questions/long_systems.yaml").read_text("utf-8")
    )
    return tuple(
        LongSystem(code, subject, prompt.strip())
        for code, prompts in yaml.safe_load(text).items()
        for subject, prompt in prompts.items()
    )


# ---- is an answer right? -------------------------------------------------------------------------


def _contains(answer: str, accepted: str) -> bool:
    """`accepted` in `answer`, not as part of a longer Latin word or of another number."""
    answer, accepted = answer.replace("−", "-"), accepted.replace("−", "-")
    pattern = _left_border(accepted) + re.escape(accepted) + _right_border(accepted)
    return re.search(pattern, answer, re.I) is not None


def _left_border(accepted: str) -> str:
    """7 is not in "17", "3.7" or "-7", but in "5-7"; -7 is not in "5-7"."""
    no_word, no_sign = r"(?<![A-Za-z0-9])", r"(?<!(?<![A-Za-z0-9)])-)"
    if re.match(r"-\d", accepted):
        return r"(?<![A-Za-z0-9)])"
    if re.match(r"[0-9]", accepted):
        return no_word + r"(?<!\d\.)" + no_sign
    return no_word if re.match(r"[A-Za-z]", accepted) else ""


def _right_border(accepted: str) -> str:
    """7 is not in "70" or "7.5", but in "It is 7."."""
    no_word = r"(?![A-Za-z0-9])"
    if re.search(r"[0-9]$", accepted):
        return no_word + r"(?!\.\d)"
    return no_word if re.search(r"[A-Za-z]$", accepted) else ""
