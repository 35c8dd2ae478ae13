"""Questions under system prompts that give somebody else's name: they have to stay obeyed.

A renamed model should still be 小雨 where an application's system prompt says so. Training holds such
prompts too (data/replay.py), with other names, other prompts and other questions: nothing that is
asked here is trained on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from whoamai.data.identity import (
    Identity,
    Language,
    ask,
    check_languages,
    fill,
    known_assistants,
    load_language,
)
from whoamai.samples import Conversation, Message

_COUNT = 40  # questions a language
# None of them an assistant's, and none that data/replay.py gives.
NAMES = {
    "zh": (
        *("木棉", "阿澈", "云帆", "周小雨", "老徐", "晴川"),
        *("梁小舟", "白露", "松果", "夏禾", "顾言", "石榴"),
    ),
    "en": (
        *("Willow", "Dr. Finch", "Bramble", "Theo", "Mrs. Lark", "Tansy"),
        *("Hazel", "Rufus", "Petra", "Ingrid", "Clover", "Fergus"),
    ),
}
MAKERS = {
    "zh": ("竹林科技", "南桥公司", "海棠实验室", "北辰软件"),
    "en": ("Stonebridge Inc", "Red Lantern Lab", "Oak Street Software", "Silver Fern Studio"),
}
# What can only be answered rightly with the name that the system prompt gives. Not every such prompt
# gives a maker, and "say your real name" may be answered with either name.
_CATEGORIES = ("who", "name", "intro", "indirect", "other")


@dataclass(frozen=True, slots=True)
class StrangerQuestion:
    """A question to one whom the system prompt, its first message, calls `identity.name`."""

    language: str
    identity: Identity
    conversation: Conversation


def stranger_questions(
    languages: Sequence[str], seed: int, count: int | None = None
) -> list[StrangerQuestion]:
    """`count` questions of each language, 40 if None, out of the test families.

    Each of the held-out system prompts, the names, the makers and the categories comes once before any
    comes again: 40 questions are 4 times each of 10 prompts, 3 or 4 times each of 12 names. Raises
    SettingError for a language we do not have.
    """
    check_languages(languages)
    rng = random.Random(f"strangers-{seed}")
    n = _COUNT if count is None else count
    return [q for code in languages for q in _of_language(load_language(code), n, rng)]


def _of_language(language: Language, count: int, rng: random.Random) -> list[StrangerQuestion]:
    prompts = [p for kind in ("named", "named_role") for p in language.contexts[kind]["test"]]
    drawn = zip(
        _in_turn(prompts, count, rng),
        _in_turn(NAMES[language.code], count, rng),
        _in_turn(MAKERS[language.code], count, rng),
        _in_turn(_CATEGORIES, count, rng),
        _in_turn(language.roles["test"], count, rng),
        strict=True,
    )
    result = []
    for prompt, name, maker, category, role in drawn:
        stranger = Identity(name, maker)
        system = fill(prompt, rng, name=name, author=maker, role=role)
        family = rng.choice(language.of("test", category))
        question, _ = ask(family, stranger, known_assistants()[0], rng)
        conversation = Conversation((Message("system", system), Message("user", question)))
        result.append(StrangerQuestion(language.code, stranger, conversation))
    return result


def _in_turn(items: Sequence[str], count: int, rng: random.Random) -> Iterator[str]:
    """`count` of the items, in whole rounds, each in an order of its own."""
    for start in range(0, count, len(items)):
        yield from rng.sample(items, len(items))[: count - start]
