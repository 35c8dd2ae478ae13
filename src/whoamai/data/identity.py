"""Identity data: questions about who the model is, and the answers a renamed model gives.

The wording lives in questions/<language>.yaml (see its head for the form). This module turns it into
conversations to train on and into questions to score. Families (ways of asking) are split for good
into train, probe and test; only `train` ever reaches training text.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Literal

import yaml

from whoamai.data.name_checks import check_name
from whoamai.errors import SettingError
from whoamai.messages import tr
from whoamai.samples import Conversation, Message

Split = Literal["train", "probe", "test"]
# What a question comes after: nothing; a system prompt that says nothing of who answers, that gives a
# role, a name (where questions are scored: one of the user's data), both; one or two turns of small
# talk; one exchange, ordinary or about who answers; the model's own default system prompt.
ContextKind = Literal[
    "none", "neutral", "role", "named", "named_role", "turns", "second", "default"
]
LANGUAGES = ("zh", "en")

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
    "crosslang": "adversarial",
    "roleplay": "adversarial",
}

_CHOICE = re.compile(r"\[([^\[\]|]*(?:\|[^\[\]|]*)+)\]")
_SLOT = re.compile(r"\{(name|author|role|a_role|old|other|company|part|a_part)\}")
_CHINESE = re.compile("[\u3400-\u9fff]")


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
    contexts: Mapping[str, Mapping[str, tuple[str, ...]]]  # kind -> split -> system prompts
    roles: Mapping[str, tuple[str, ...]]  # split -> nouns
    small_talk: Mapping[str, tuple[tuple[str, str], ...]]  # split -> (user, assistant) turns
    exchanges: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)  # the same

    def of(self, split: Split, category: str | None = None) -> tuple[Family, ...]:
        return tuple(
            f for f in self.families if f.split == split and category in (None, f.category)
        )

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.category for f in self.families))


@dataclass(frozen=True, slots=True)
class IdentityQuestion:
    """A question to score, with the conversation it is asked in (its last turn is the question).

    `category` is one of the built-in ones, or what a user calls questions of their own.
    """

    language: str
    category: str
    context: ContextKind
    conversation: Conversation

    @property
    def group(self) -> str:
        return GROUP_OF_CATEGORY.get(self.category, self.category)


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
    small_talk, exchanges = (
        {s: tuple((q, a) for q, a in turns) for s, turns in raw[key].items()}
        for key in ("small_talk", "exchanges")
    )
    return Language(code, families, answers, contexts, roles, small_talk, exchanges)


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


def fill(pattern: str, rng: random.Random | None = None, **slots: str | None) -> str:
    """Choose among [a|b] (the first where rng is None) and fill {slots}; values are never re-read.

    >>> fill("你是{name}[吗|吧]", name="{old}")
    '你是{old}吗'
    """

    def choose(match: re.Match[str]) -> str:
        options = match[1].split("|")
        return rng.choice(options) if rng else options[0]

    def value(match: re.Match[str]) -> str:
        if match[1] in ("a_role", "a_part"):
            return _with_article(slots.get(match[1][2:]) or "")
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


# ---- a question in its context -------------------------------------------------------------------

# How often what stands before a second turn is a question about who answers.
_FIRST_ABOUT_IDENTITY = 0.5


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
        "part": rng.choice(load_language(family.language).roles[family.split]),
    }
    text = fill(family.pattern, rng, name=identity.name, **slots)
    return _punctuate(text, family, rng), slots


def _punctuate(text: str, family: Family, rng: random.Random) -> str:
    """People end a question with a mark, a wrong one, or none."""
    if text[-1] in "?？!！.。":
        return text
    chinese = ["？", "？", "?", "", "。"]
    return text + rng.choice(chinese if _ends_in_chinese(family) else ["?", "?", "?", "", "."])


def _ends_in_chinese(family: Family) -> bool:
    """A few families of either file are in the other language, or end in it."""
    if family.language == "zh":
        return bool(_CHINESE.search(family.pattern))
    return bool(_CHINESE.match(family.pattern[-1]))


@dataclass(frozen=True, slots=True)
class _Setting:
    """Puts questions about `identity` into contexts of one split, all drawn by `rng`."""

    identity: Identity
    split: Split
    rng: random.Random
    old_names: Sequence[str] = ()
    default_system: str | None = None

    def asked(
        self, family: Family, context: ContextKind, system: str | None = None
    ) -> IdentityQuestion:
        """The question under `context`; under the system prompt `system` where one is given."""
        before, _ = self.before(family, context) if system is None else (_system(system), None)
        question, _ = ask(family, self.identity, self.old_names, self.rng)
        turns = (*before, Message("user", question))
        return IdentityQuestion(family.language, family.category, context, Conversation(turns))

    def before(
        self, family: Family, context: ContextKind
    ) -> tuple[tuple[Message, ...], str | None]:
        """(the messages before a question of `family`, the role they give or None)."""
        language, rng = load_language(family.language), self.rng
        if context == "none":
            return (), None
        if context == "default":
            return _system(self.default_system or ""), None
        if context == "turns":
            pairs = [
                rng.choice(language.small_talk[self.split]) for _ in range(rng.choice((1, 1, 2)))
            ]
            return tuple(m for pair in pairs for m in _read_only(*pair)), None
        if context == "second":
            if rng.random() < _FIRST_ABOUT_IDENTITY:
                return self._identity_exchange(language, family.category), None
            return _read_only(*rng.choice(language.exchanges[self.split])), None
        role = rng.choice(language.roles[self.split]) if context == "role" else None
        pattern = rng.choice(language.contexts[context][self.split])
        return _system(fill(pattern, rng, role=role)), role

    def _identity_exchange(self, language: Language, category: str) -> tuple[Message, ...]:
        """A question of another category, answered as the renamed model should."""
        families = [f for f in language.of(self.split) if f.category != category]
        first = self.rng.choice(families)
        question, slots = ask(first, self.identity, self.old_names, self.rng)
        rng = self.rng if self.split == "train" else None
        reply = answer(language, first.category, self.identity, rng=rng, **slots)
        trained = self.split == "train"
        return Message("user", question), Message("assistant", reply, trained=trained)


def _system(text: str) -> tuple[Message, ...]:
    return (Message("system", text),)


def _read_only(question: str, reply: str) -> tuple[Message, ...]:
    """An exchange that is no target: it is there to be read, not learned."""
    return Message("user", question), Message("assistant", reply)


# ---- what to train on ----------------------------------------------------------------------------

# How often a training row is asked under which context, by what the held-out scores needed: role
# prompts are learned slowest (benchmarks/NOTES.md), so they get more rows than they would by nature.
_TRAINING_CONTEXTS: dict[ContextKind, float] = {
    "none": 0.36,
    "neutral": 0.14,
    "role": 0.34,
    "turns": 0.07,
    "second": 0.09,
}


# Questions that put another name into the model's mouth: where leaks were left, so asked twice.
_TWICE = ("old", "other", "othermaker", "confirm", "crosslang")


def training_conversations(
    identity: Identity,
    *,
    languages: Sequence[str],
    rows: int,
    seed: int,
    old_names: Sequence[str] = (),
) -> list[Conversation]:
    """`rows` conversations in which the renamed model answers questions of the train families.

    Categories come in turn, those of _TWICE twice a round; of a category every family comes once before
    any comes again; contexts are drawn by _TRAINING_CONTEXTS. `old_names` are used where a question puts
    the old name to the model: half of these come in the very words that ask for the new name ("Your name
    is Chu, right?"), or the model would learn to say yes to the words. Same arguments, same rows.
    """
    check_languages(languages)
    rng = random.Random(f"identity-train-{seed}")
    setting = _Setting(identity, "train", rng, old_names)
    per_language = [load_language(code) for code in languages]
    kinds, weights = zip(*_TRAINING_CONTEXTS.items(), strict=True)
    turns = {
        (language.code, category): _in_turn(language.of("train", category), rng)
        for language in per_language
        for category in language.categories
    }
    result = []
    for i in range(rows):
        language = per_language[i % len(per_language)]
        categories = (*language.categories, *_TWICE)
        category = categories[(i // len(per_language)) % len(categories)]
        context = rng.choices(kinds, weights)[0]
        asks_by_old_name = category == "old" and rng.random() < 0.5
        family = next(turns[language.code, "confirm" if asks_by_old_name else category])
        if asks_by_old_name:
            family = _with_old_name(family)
        result.append(_training_conversation(setting, family, context, f"identity:{i}"))
    rng.shuffle(result)
    return result


def _in_turn(families: Sequence[Family], rng: random.Random) -> Iterator[Family]:
    """The families over and over, each time round in another order."""
    while True:
        yield from rng.sample(families, len(families))


def _training_conversation(
    setting: _Setting, family: Family, context: ContextKind, source: str
) -> Conversation:
    identity, rng = setting.identity, setting.rng
    before, role = setting.before(family, context)
    question, slots = ask(family, identity, setting.old_names, rng)
    language = load_language(family.language)
    reply = answer(language, family.category, identity, role=role, rng=rng, **slots)
    turns = (*before, Message("user", question), Message("assistant", reply, trained=True))
    return Conversation(turns, source=source)


def _with_old_name(family: Family) -> Family:
    """A question that asks for the new name, asking for the old one instead."""
    return replace(family, category="old", pattern=family.pattern.replace("{name}", "{old}"))


# ---- what to score -------------------------------------------------------------------------------

# Each family is asked with nothing before it, and under two neighbours of these.
_IN_ROTATION: tuple[ContextKind, ...] = ("neutral", "turns", "second", "role")


def questions(
    identity: Identity,
    split: Literal["probe", "test"],
    *,
    languages: Sequence[str],
    seed: int,
    old_names: Sequence[str] = (),
    contexts: Sequence[ContextKind] | None = None,
    extra_systems: Sequence[str] = (),
    default_system: str | None = None,
) -> list[IdentityQuestion]:
    """Every family of `split`, with nothing before it and under a part of the other contexts.

    Families go through the contexts in turn, two at a time, and `seed` says where they begin:

        family 0   none  neutral  turns              default
        family 1   none           turns  second               named
        family 2   none                  second role default
        family 3   none  neutral                role          named

    So 186 families make 186 questions under "none" and 92 to 94 under each of neutral, turns, second
    and role, 558 in all; three families of a category, one after the other, meet all of them. "default"
    (`default_system`, the model's own) and "named" (`extra_systems`, the data's own system prompts,
    in turn; such a prompt usually gives the name) are asked where they are given.

    `contexts` asks every family under each of them instead, and under `extra_systems`. System prompts,
    roles and earlier turns are those of `split`.
    """
    check_languages(languages)
    rng = random.Random(f"identity-{split}-{seed}")
    setting = _Setting(identity, split, rng, old_names, default_system)
    given = {"named": bool(extra_systems), "default": bool(default_system)}
    systems = itertools.cycle(extra_systems)
    result: list[IdentityQuestion] = []
    for code in languages:
        for i, family in enumerate(load_language(code).of(split), seed):
            kinds = _contexts_in_turn(i) if contexts is None else (*contexts, "named")
            for kind in dict.fromkeys(kinds):
                if given.get(kind, True):
                    system = next(systems) if kind == "named" else None
                    result.append(setting.asked(family, kind, system))
    return result


def _contexts_in_turn(i: int) -> tuple[ContextKind, ...]:
    """The contexts of the i-th family of a language."""
    n = len(_IN_ROTATION)
    first, second = _IN_ROTATION[i % n], _IN_ROTATION[(i + 1) % n]
    return "none", first, second, ("named" if i % 2 else "default")


def probe_questions(
    identity: Identity,
    *,
    languages: Sequence[str],
    seed: int,
    old_names: Sequence[str] = (),
    default_system: str | None = None,
    extra_systems: Sequence[str] = (),
    count: int = 52,
) -> list[IdentityQuestion]:
    """A small set of the probe families, to see during training whether the name is learned.

    Categories come in turn, in every language, before any comes again with its next family; contexts
    go on by one from category to category, and from round to round. 13 categories in 2 languages are
    26 questions a round: the default makes two rounds, 10 or 11 questions under each of 5 contexts.
    "default" and "named" are among the contexts where there are such prompts. Nothing of it is ever
    scored by questions(…, "test"), and it draws from a generator of its own.
    """
    check_languages(languages)
    rng = random.Random(f"identity-stop-{seed}")
    setting = _Setting(identity, "probe", rng, old_names, default_system)
    kinds: list[ContextKind] = ["none", *_IN_ROTATION]
    if default_system:
        kinds.append("default")
    if extra_systems:
        kinds.append("named")
    categories = list(load_language(languages[0]).categories)
    rng.shuffle(categories)
    result: list[IdentityQuestion] = []
    for i in range(count):
        turn, at_language = divmod(i, len(languages))
        turns, at_category = divmod(turn, len(categories))
        families = load_language(languages[at_language]).of("probe", categories[at_category])
        family = families[(turns + seed) % len(families)]
        kind = kinds[(at_category + turns + at_language * (len(kinds) // 2)) % len(kinds)]
        system = extra_systems[turn % len(extra_systems)] if kind == "named" else None
        result.append(setting.asked(family, kind, system))
    return result
