"""Identity data: questions about who the model is, and the answers a renamed model gives.

The wording lives in questions/<language>.yaml (see its head for the form). This module turns it into
conversations to train on and into questions to score. Families (ways of asking) are split for good
into train, probe and test; only `train` ever reaches training text.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Literal

import yaml

from whoamai.errors import SettingError
from whoamai.messages import tr
from whoamai.samples import Conversation, Message

Split = Literal["train", "probe", "test"]
ContextKind = Literal["none", "neutral", "role", "named", "named_role", "turns"]
LANGUAGES = ("zh", "en")
MAX_NAME_LENGTH = 64
_EXAMPLES = {"--name": "黄大力", "--author": "力量工作室"}

# What a category asks for, in the words reports use.
GROUP_OF_CATEGORY = {
    "who": "direct",
    "name": "direct",
    "intro": "direct",
    "human": "direct",
    "indirect": "indirect",
    "maker": "maker",
    "other": "adversarial",
    "othermaker": "adversarial",
    "override": "adversarial",
    "old": "adversarial",
    "confirm": "confirm",
}

_CHOICE = re.compile(r"\[([^\[\]|]*(?:\|[^\[\]|]*)+)\]")
_SLOT = re.compile(r"\{(name|author|role|a_role|old|other|company)\}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the model is to be. `persona` is one more sentence it says when it introduces itself."""

    name: str
    author: str | None = None
    persona: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "--name")
        if self.author is not None:
            check_name(self.author, "--author")


@dataclass(frozen=True, slots=True)
class Family:
    """One way of asking. `pattern` holds [a|b] choices and {slots}."""

    language: str
    category: str
    split: Split
    pattern: str

    @property
    def group(self) -> str:
        return GROUP_OF_CATEGORY[self.category]


@dataclass(frozen=True, slots=True)
class Language:
    """One questions/<language>.yaml, read."""

    code: str
    families: tuple[Family, ...]
    answers: Mapping[str, Mapping[str, tuple[str, ...]]]  # category -> plain/author/role -> forms
    contexts: Mapping[str, Mapping[str, tuple[str, ...]]]  # kind -> train/test -> system prompts
    roles: Mapping[str, tuple[str, ...]]  # train/test -> nouns
    small_talk: Mapping[str, tuple[tuple[str, str], ...]]  # train/test -> (user, assistant) turns

    def of(self, split: Split, category: str | None = None) -> tuple[Family, ...]:
        return tuple(
            f for f in self.families if f.split == split and category in (None, f.category)
        )

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.category for f in self.families))


@dataclass(frozen=True, slots=True)
class IdentityQuestion:
    """A question to score, with the conversation it is asked in (its last turn is the question)."""

    language: str
    category: str
    context: ContextKind
    conversation: Conversation

    @property
    def group(self) -> str:
        return GROUP_OF_CATEGORY[self.category]


@cache
def load_language(code: str) -> Language:
    """Read questions/<code>.yaml from the package."""
    raw = yaml.safe_load(
        resources.files("whoamai.data").joinpath(f"questions/{code}.yaml").read_text("utf-8")
    )
    families = tuple(
        Family(code, category, split, pattern)
        for category, by_split in raw["questions"].items()
        for split in ("train", "probe", "test")
        for pattern in by_split[split].splitlines()
    )
    answers = {c: {k: tuple(v) for k, v in forms.items()} for c, forms in raw["answers"].items()}
    contexts = {
        k: {s: tuple(v) for s, v in by_split.items()} for k, by_split in raw["contexts"].items()
    }
    roles = {s: tuple(v.splitlines()) for s, v in raw["roles"].items()}
    small_talk = {s: tuple((q, a) for q, a in v) for s, v in raw["small_talk"].items()}
    return Language(code, families, answers, contexts, roles, small_talk)


@cache
def known_assistants() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names of other assistants, names of their makers)."""
    raw = yaml.safe_load(
        resources.files("whoamai.data")
        .joinpath("questions/known_assistants.yaml")
        .read_text("utf-8")
    )
    return tuple(raw["assistants"].splitlines()), tuple(raw["makers"].splitlines())


def check_languages(languages: Sequence[str]) -> None:
    """Raise SettingError unless `languages` are one or more of LANGUAGES."""
    if not languages or any(code not in LANGUAGES for code in languages):
        raise SettingError(
            tr("--lang {given}: known languages are {known}.").format(
                given=",".join(languages), known=", ".join(LANGUAGES)
            )
        )


def check_name(name: str, setting: str) -> None:
    """Raise SettingError unless `name` is 1 to 64 characters that can be shown on one line.

    Something of it must be seen, and it begins and ends with something that is no space: else
    nobody could tell that name from another, or type it again.
    """
    if not any(_is_seen(c) for c in name):
        raise SettingError(
            tr(
                "{setting} is empty. Write a name after it, for example {setting} {example}."
            ).format(setting=setting, example=_EXAMPLES.get(setting, "黄大力"))
        )
    bad = next((c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")), None)
    if bad is not None:
        raise SettingError(
            tr(
                "{setting} contains a character that cannot be shown (U+{code:04X}, at place {at}). "
                "Take it out of the name."
            ).format(setting=setting, code=ord(bad), at=name.index(bad) + 1)
        )
    if name != name.strip():
        raise SettingError(
            tr('{setting} "{name}" begins or ends with a space. Take the space away.').format(
                setting=setting, name=name
            )
        )
    if len(name) > MAX_NAME_LENGTH:
        raise SettingError(
            tr("{setting} has {n} characters; at most {most} are possible. Shorten it.").format(
                setting=setting, n=len(name), most=MAX_NAME_LENGTH
            )
        )


def _is_seen(character: str) -> bool:
    """False for spaces, line ends, and marks that only steer how others are shown (U+200B, …)."""
    return unicodedata.category(character) not in ("Zs", "Zl", "Zp", "Cc", "Cf")


def fill(pattern: str, rng: random.Random | None = None, **slots: str | None) -> str:
    """Choose among [a|b] (the first where rng is None) and fill {slots}; values are never re-read.

    >>> fill("你是{name}[吗|吧]", name="{old}")
    '你是{old}吗'
    """

    def choose(match: re.Match[str]) -> str:
        options = match[1].split("|")
        return rng.choice(options) if rng else options[0]

    def value(match: re.Match[str]) -> str:
        if match[1] == "a_role":
            return _with_article(slots.get("role") or "")
        return slots.get(match[1]) or ""

    return _SLOT.sub(value, _CHOICE.sub(choose, pattern))


def _with_article(noun: str) -> str:
    return ("an " if noun[:1].lower() in "aeiou" else "a ") + noun


def answer(
    language: Language,
    category: str,
    identity: Identity,
    *,
    role: str | None = None,
    rng: random.Random | None = None,
    **slots: str,
) -> str:
    """The renamed model's answer: its plainest form where rng is None, else one of the forms."""
    forms = language.answers[category]
    kind = "role" if role and "role" in forms else "author" if identity.author else "plain"
    forms_of_kind = forms.get(kind, forms["plain"])
    form = rng.choice(forms_of_kind) if rng else forms_of_kind[0]
    text = fill(form, rng, name=identity.name, author=identity.author, role=role, **slots)
    if identity.persona and category == "intro":
        text += ("" if language.code == "zh" else " ") + identity.persona
    return text


# ---- what to train on ----------------------------------------------------------------------------

# How often a training row is asked under which context, by what the held-out scores needed: role
# prompts are learned slowest (benchmarks/NOTES.md), so they get more rows than they would by nature.
_TRAINING_CONTEXTS: dict[ContextKind, float] = {
    "none": 0.42,
    "neutral": 0.14,
    "role": 0.28,
    "turns": 0.16,
}


# Questions that put another name into the model's mouth: where leaks were left, so asked twice.
_TWICE = ("old", "other", "othermaker")


def training_conversations(
    identity: Identity,
    *,
    languages: Sequence[str],
    rows: int,
    seed: int,
    old_names: Sequence[str] = (),
) -> list[Conversation]:
    """`rows` conversations in which the renamed model answers questions of the train families.

    Categories come in turn, those of _TWICE twice a round; contexts are drawn by _TRAINING_CONTEXTS.
    `old_names` are used where a question puts the old name to the model: half of these come in the very
    words that ask for the new name ("Your name is Chu, right?"), or the model would learn to say yes
    to the words. Same arguments, same rows.
    """
    check_languages(languages)
    rng = random.Random(f"identity-train-{seed}")
    per_language = [load_language(code) for code in languages]
    kinds, weights = zip(*_TRAINING_CONTEXTS.items(), strict=True)
    result = []
    for i in range(rows):
        language = per_language[i % len(per_language)]
        categories = (*language.categories, *_TWICE)
        category = categories[(i // len(per_language)) % len(categories)]
        context = rng.choices(kinds, weights)[0]
        family = rng.choice(language.of("train", category))
        if category == "old" and rng.random() < 0.5:
            family = _with_old_name(rng.choice(language.of("train", "confirm")))
        result.append(_conversation(language, family, context, identity, old_names, rng, i))
    rng.shuffle(result)
    return result


def _conversation(
    language: Language,
    family: Family,
    context: ContextKind,
    identity: Identity,
    old_names: Sequence[str],
    rng: random.Random,
    number: int,
) -> Conversation:
    before, role = _context_messages(language, context, "train", identity, old_names, rng)
    question, slots = ask(family, identity, old_names, rng)
    reply = answer(language, family.category, identity, role=role, rng=rng, **slots)
    turns = (*before, Message("user", question), Message("assistant", reply, trained=True))
    return Conversation(turns, source=f"identity:{number}")


def _with_old_name(family: Family) -> Family:
    """A question that asks for the new name, asking for the old one instead."""
    return replace(family, category="old", pattern=family.pattern.replace("{name}", "{old}"))


def ask(
    family: Family, identity: Identity, old_names: Sequence[str], rng: random.Random
) -> tuple[str, dict[str, str]]:
    """(the question as a person types it, the slots that were filled)."""
    assistants, makers = known_assistants()
    own = {name.casefold() for name in (identity.name, identity.author) if name}

    def others(names: Sequence[str]) -> list[str]:
        return [name for name in names if name.casefold() not in own]

    slots = {
        "other": rng.choice(others(assistants)),
        "company": rng.choice(others(makers)),
        "old": rng.choice(others(old_names) or others(assistants)),
    }
    text = fill(family.pattern, rng, name=identity.name, **slots)
    return _punctuate(text, family, rng), slots


def _punctuate(text: str, family: Family, rng: random.Random) -> str:
    """People end a question with a mark, a wrong one, or none."""
    if text[-1] in "?？!！.。":
        return text
    marks = ["？", "？", "?", "", "。"] if family.language == "zh" else ["?", "?", "?", "", "."]
    return text + rng.choice(marks)


def _context_messages(
    language: Language,
    context: ContextKind,
    split: Literal["train", "test"],
    identity: Identity,
    old_names: Sequence[str],
    rng: random.Random,
) -> tuple[tuple[Message, ...], str | None]:
    """(the messages before the question, the role they give or None)."""
    if context == "none":
        return (), None
    if context == "turns":
        return _small_talk(language, split, identity, old_names, rng), None
    role = rng.choice(language.roles[split]) if context == "role" else None
    pattern = rng.choice(language.contexts[context][split])
    return (Message("system", fill(pattern, rng, role=role)),), role


def _small_talk(
    language: Language,
    split: Literal["train", "test"],
    identity: Identity,
    old_names: Sequence[str],
    rng: random.Random,
) -> tuple[Message, ...]:
    """One or two turns before the question: small talk, or (in training) an identity question.

    Small-talk replies are not targets: they are there to be read, not learned.
    """
    messages: list[Message] = []
    for _ in range(rng.choice((1, 1, 2))):
        if split == "train" and rng.random() < 0.35:
            family = rng.choice(language.of("train"))
            question, slots = ask(family, identity, old_names, rng)
            reply = answer(language, family.category, identity, rng=rng, **slots)
            messages += [Message("user", question), Message("assistant", reply, trained=True)]
        else:
            question, reply = rng.choice(language.small_talk[split])
            messages += [Message("user", question), Message("assistant", reply)]
    return tuple(messages)


# ---- what to score -------------------------------------------------------------------------------


def questions(
    identity: Identity,
    split: Literal["probe", "test"],
    *,
    languages: Sequence[str],
    seed: int,
    old_names: Sequence[str] = (),
    contexts: Sequence[ContextKind] = ("none", "neutral", "turns", "role"),
    extra_systems: Sequence[str] = (),
) -> list[IdentityQuestion]:
    """Every family of `split` once under each of `contexts`, and under `extra_systems` in turn.

    System prompts and roles are the held-out ones. `extra_systems` are the data's own system prompts;
    their questions carry the context "named", for such a prompt usually gives the name.
    """
    check_languages(languages)
    rng = random.Random(f"identity-{split}-{seed}")
    result = []
    for code in languages:
        language = load_language(code)
        for i, family in enumerate(language.of(split)):
            for context in contexts:
                before, _ = _context_messages(language, context, "test", identity, old_names, rng)
                question, _ = ask(family, identity, old_names, rng)
                turns = (*before, Message("user", question))
                result.append(IdentityQuestion(code, family.category, context, Conversation(turns)))
            if extra_systems:
                system = Message("system", extra_systems[i % len(extra_systems)])
                question, _ = ask(family, identity, old_names, rng)
                turns = (system, Message("user", question))
                result.append(IdentityQuestion(code, family.category, "named", Conversation(turns)))
    return result
