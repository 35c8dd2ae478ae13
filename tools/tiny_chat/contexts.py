"""System prompts: neutral ones, ones that give a role, a name, or both; short or drowned in text.

The product's own contexts are used by their split, those of contexts/*.yaml for training only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Literal

import yaml

from whoamai.data.identity import Identity, fill, load_language

from . import general, names
from .facts import ADJECTIVES, FACTS, UNKNOWN, WORDS

ContextKind = Literal["none", "neutral", "role", "named", "named_role"]
_FOLDER = Path(__file__).parent / "contexts"

OWN_IDENTITY = {"zh": Identity("小初", "初心实验室"), "en": Identity("Chu", "Chuxin Lab")}
# Who the models are that only benchmarks make, to see that what holds for 小初 holds for others.
IDENTITIES = {
    "chu": OWN_IDENTITY,
    "flint": {"zh": Identity("小岩", "磐石研究院"), "en": Identity("Flint", "Bedrock Institute")},
    "skiff": {"zh": Identity("小舟", "远帆学社"), "en": Identity("Skiff", "Farsail Society")},
}

# A line of prose is three to fifteen words; CHARACTERS_PER_TOKEN turns a wanted length in tokens
# into one in characters, roughly, for our own tokenizer.
CHARACTERS_PER_TOKEN = {"zh": 1, "en": 3}


@dataclass(frozen=True, slots=True)
class Persona:
    """Who answers under a system prompt. `identity` None: the model as itself."""

    identity: Identity | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    kind: ContextKind
    system: str | None  # None: no system prompt
    persona: Persona


@dataclass(frozen=True, slots=True)
class _Texts:
    """What system prompts are made of, in one language."""

    prompts: dict[str, list[str]]  # kind -> patterns
    either: list[str]  # patterns whose {x} is a name or a role
    instructions: list[str]  # how to answer, with a {manner}
    manners: list[str]
    frames: list[str]
    roles: list[str]
    rules: list[str]
    headings: list[str]
    small_words: list[str]
    people: list[str]


@cache
def read_contexts(language: str) -> dict[str, Any]:
    """contexts/<language>.yaml as it stands."""
    return yaml.safe_load((_FOLDER / f"{language}.yaml").read_text("utf-8"))


@cache
def _texts(language: str, training: bool) -> _Texts:
    own, shared = read_contexts(language), load_language(language)
    split = "train" if training else "test"
    kinds = ("neutral", "role", "named", "named_role")
    return _Texts(
        prompts={
            kind: [*shared.contexts[kind][split], *(own[kind] if training else ())]
            for kind in kinds
        },
        either=own["either"],
        instructions=own["instructions"],
        manners=own["manners"].splitlines(),
        frames=own["frames"],
        roles=[*shared.roles[split], *(own["roles"].splitlines() if training else ())],
        rules=own["rules"].splitlines(),
        headings=own["headings"].splitlines(),
        small_words=own["small_words"].split(),
        people=own["people"],
    )


def role(rng: Random, language: str, *, training: bool = True) -> str:
    """A profession, known or (training only) made up, now and then with an adjective."""
    if training and rng.random() < 0.6:
        drawn = names.made_up_profession(rng, language)
    else:
        drawn = rng.choice(_texts(language, training).roles)
    if rng.random() < 0.25:
        zh, en = rng.choice(ADJECTIVES)
        return zh + drawn if language == "zh" else f"{en} {drawn}"
    return drawn


def draw_context(
    rng: Random,
    language: str,
    kind: ContextKind,
    *,
    training: bool = True,
    filler_tokens: int = 0,
) -> Context:
    """A system prompt of `kind` in (nearly always) `language`; `filler_tokens` of text round it."""
    if kind == "none":
        return Context(kind, None, Persona())
    has_name, has_role = kind in ("named", "named_role"), kind in ("role", "named_role")
    # A role is said again in the answer, so it has to be in the language of the questions.
    written_in = language if has_role or rng.random() < 0.8 else rng.choice(("zh", "en"))
    texts = _texts(written_in, training)
    pattern = _pattern(rng, texts, kind, written_in, training)
    the_role = role(rng, language, training=training) if has_role else None
    name = names.name(rng) if has_name else None
    author = names.maker(rng) if "{author}" in pattern else None
    system = fill(pattern, rng, name=name, author=author, role=the_role)
    if training and system and rng.random() < 0.3:
        before, after = fill(rng.choice(texts.frames), rng).split("{x}")
        system = before + system + after
    if filler_tokens:
        system = _amid_filler(rng, system, written_in, filler_tokens, kind)
    identity = Identity(name, author) if name else None
    return Context(kind, system, Persona(identity, the_role))


def _pattern(rng: Random, texts: _Texts, kind: ContextKind, language: str, training: bool) -> str:
    """A pattern of its kind; in training also one of those that are put together.

    Names and roles are set in the same frames, so that the model learns to tell them by the word
    and not by the frame; and most neutral prompts are instructions of many sorts, so that not all
    it is told is taken for a name.
    """
    if training and kind in ("named", "role") and rng.random() < 0.4:
        slot = "{name}" if kind == "named" else "{role}" if language == "zh" else "{a_role}"
        return rng.choice(texts.either).replace("{x}", slot)
    if training and kind == "neutral" and rng.random() < 0.65:
        return _instruction(rng, texts, language)
    return rng.choice(texts.prompts[kind])


def _instruction(rng: Random, texts: _Texts, language: str) -> str:
    """How to answer, or one to three rules; never one of the product's test contexts."""
    stop = "。" if language == "zh" else "."
    if rng.random() < 0.5:
        manner = rng.choice(texts.manners)
        return rng.choice(texts.instructions).replace("{manner}", manner) + rng.choice((stop, ""))
    rules = rng.sample(texts.rules, rng.choice((1, 1, 2, 3)))
    between = rng.choice((stop, "\n", "；" if language == "zh" else "; "))
    return between.join(rules) + rng.choice((stop, ""))


def _amid_filler(rng: Random, system: str, language: str, tokens: int, kind: str) -> str:
    lines = filler(rng, language, tokens * CHARACTERS_PER_TOKEN[language])
    at = 0 if rng.random() < 0.5 else rng.randrange(len(lines) + 1)
    lines.insert(at, system)
    if kind != "neutral" and rng.random() < 0.3:
        lines.append(system)  # important things get said twice
    return ("\n" if rng.random() < 0.8 else " ").join(lines)


def filler(rng: Random, language: str, n_characters: int) -> list[str]:
    """Lines of what fills real system prompts: rules, headings, facts, people, and nonsense."""
    lines: list[str] = []
    length = 0
    while length < n_characters:
        lines.append(_line(rng, language))
        length += len(lines[-1]) + 1
    return lines


def _line(rng: Random, language: str) -> str:
    zh, texts = language == "zh", _texts(language, True)
    if rng.random() < 0.45:
        return _bullet(rng) + " ".join(_prose(rng, language) for _ in range(rng.randrange(1, 4)))
    k = rng.random()
    if k < 0.15:
        return rng.choice(("# ", "## ")) + rng.choice(texts.headings)
    if k < 0.60:
        stop = rng.choice(("。", "；", "") if zh else (".", ";", ""))
        return _bullet(rng) + rng.choice(texts.rules) + stop
    if k < 0.80:
        return general.draw(rng.choice(general.STATING), rng, language)[1]
    if k < 0.90:
        form = rng.choice(texts.people)
        form = form.replace("{number}", str(rng.randrange(10**6))).replace("{person}", "{name}")
        return fill(form, name=names.name(rng), role=rng.choice(texts.roles))
    phrases = [general.phrase(rng, language) for _ in range(3)]
    return ("，" if zh else ", ").join(phrases)


def _bullet(rng: Random) -> str:
    return rng.choice(("", "", "- ", "* ", f"{rng.randrange(1, 20)}. "))


def _prose(rng: Random, language: str) -> str:
    """A sentence without sense, so that the model learns to pass over what it cannot follow."""
    zh = language == "zh"
    out = ""
    for _ in range(rng.randrange(3, 16)):
        out += _prose_word(rng, language)
        if zh:
            out += rng.choice("，。、：；？") if rng.random() < 0.15 else ""
        else:
            out += ", " if rng.random() < 0.1 else " "
    return out.strip() + rng.choice("。？！；" if zh else ".?!;")


def _prose_word(rng: Random, language: str) -> str:
    zh = language == "zh"
    k = rng.random()
    if k < 0.35:
        return rng.choice(WORDS)[0 if zh else 1]
    if k < 0.50:
        return rng.choice(rng.choice((UNKNOWN, ADJECTIVES, FACTS)))[0 if zh else 1]
    if k < 0.75:
        n = rng.randrange(1, 5)
        return "".join(rng.choices(names.COMMON_HANZI, k=n)) if zh else names.syllables(rng)
    if k < 0.80:
        return str(rng.randrange(10 ** rng.randrange(1, 6)))
    if k < 0.84:
        return rng.choice(WORDS)[1 if zh else 0]  # of the other language
    if k < 0.88:
        return rng.choice(names.MARKS) * rng.choice((1, 1, 2))
    return rng.choice(_texts(language, True).small_words)
