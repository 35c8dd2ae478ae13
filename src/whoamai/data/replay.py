"""General prompts the model answers itself before training, to be trained on beside its new name.

Learning the model's own answers again costs nothing new and keeps them where they are, while the name
moves (self-distillation). The prompts are in questions/replay.jsonl, none of which the retention score
asks; a share comes under a system prompt that gives another name, so that such prompts stay obeyed,
and a share under the system prompts of the user's own data, so that those teach a name and no more.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

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

# Names such prompts give; that they are everyday names keeps them apart from any real assistant's.
_STRANGERS = {
    "zh": ("小林", "阿明", "星河助手", "陈师傅", "蓝鲸", "小满", "赵一鸣", "青禾"),
    "en": ("Nora", "Captain Reed", "Pixel", "Mr. Hale", "Juniper", "Otto", "Marlow", "Sunny"),
}
_STRANGE_MAKERS = {
    "zh": ("青山公司", "明日工作室", "银河科技"),
    "en": ("Northwind Ltd", "Blue Door Studio", "Harbor Works"),
}
# What small models answer badly before they are renamed: those answers are not worth learning again.
_NOT_UNDER_NAMES = ("crosslang", "roleplay")


def replay_prompts(
    count: int,
    *,
    languages: Sequence[str],
    seed: int,
    near_share: float = 0.0,
    systems: Sequence[str] = (),
    systems_share: float = 0.0,
    named_share: float = 0.2,
) -> list[Conversation]:
    """`count` conversations that end in a user turn, for the model to answer.

    `near_share` of them are nearest to identity questions (greetings, thanks, "can you tell me …"):
    onto these a renaming spills over first. `systems_share` of them come under one of `systems`, the
    system prompts of the user's data, in turn. `named_share` of them are identity questions under a
    system prompt with somebody else's name.
    """
    check_languages(languages)
    rng = random.Random(f"replay-{seed}")
    n_named, n_near = round(named_share * count), round(near_share * count)
    named = [_named(load_language(languages[i % len(languages)]), rng) for i in range(n_named)]
    plain = [
        *_drawn("near", n_near, languages, rng),
        *_drawn("mixed", count - n_named - n_near, languages, rng),
    ]
    n_under = round(systems_share * count) if systems else 0
    without = [i for i, prompt in enumerate(plain) if prompt.messages[0].role != "system"]
    for n, i in enumerate(without[:n_under]):
        plain[i] = _under(systems[n % len(systems)], plain[i])
    return plain + named


def _drawn(
    part: str, count: int, languages: Sequence[str], rng: random.Random
) -> list[Conversation]:
    """`count` prompts of a part of the file, each once before any comes twice."""
    prompts = [c for code in languages for c in _general_prompts(code, part)]
    rng.shuffle(prompts)
    return [prompts[i % len(prompts)] for i in range(count)]


def _under(system: str, prompt: Conversation) -> Conversation:
    return Conversation((Message("system", system), *prompt.messages), prompt.source)


def _named(language: Language, rng: random.Random) -> Conversation:
    """An identity question under a system prompt that gives a stranger's name."""
    stranger = Identity(
        rng.choice(_STRANGERS[language.code]), rng.choice(_STRANGE_MAKERS[language.code])
    )
    kind = rng.choice(("named", "named_role"))
    system = fill(
        rng.choice(language.contexts[kind]["train"]),
        rng,
        name=stranger.name,
        author=stranger.author,
        role=rng.choice(language.roles["train"]),
    )
    families = [f for f in language.of("train") if f.category not in _NOT_UNDER_NAMES]
    question, _ = ask(rng.choice(families), stranger, known_assistants()[0], rng)
    return Conversation((Message("system", system), Message("user", question)), "replay:named")


@cache
def _general_prompts(code: str, part: str) -> tuple[Conversation, ...]:
    return tuple(
        Conversation(_messages(row), f"replay:{number}")
        for number, row in enumerate(read_questions("replay.jsonl"), 1)
        if row["language"] == code and row["part"] == part
    )


@cache
def read_questions(name: str) -> tuple[dict[str, Any], ...]:
    """The rows of a JSONL file of the questions folder."""
    text = resources.files("whoamai.data").joinpath(f"questions/{name}").read_text("utf-8")
    return tuple(json.loads(line) for line in text.splitlines())


def _messages(row: dict[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(m["role"], m["content"]) for m in row["messages"])
