"""Held-out questions, greedy answers to them, and which are right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from whoamai.data.identity import LANGUAGES, Identity

from . import general
from .contexts import OWN_IDENTITY, Context, ContextKind, Persona, draw_context
from .tokenizer import PADDING_ID, TURN_END_ID
from .wordings import load_wordings
from .writer import CATEGORY_WEIGHTS, Dialogue, Question, Writer

MAX_NEW_TOKENS = 96
# Share of right answers wanted, by group, in each language.
TARGETS = {
    "held": 0.95,
    "held, new word": 0.80,
    "identity": 0.98,
    "identity, role prompt": 0.90,
}
_NO_CONTEXT = Context("none", None, Persona())


@dataclass(frozen=True, slots=True)
class HeldOutQuestion:
    group: str
    kind: str  # general: its kind ("arith"); identity: "identity.<category>"
    dialogue: Dialogue  # its last turn is the question
    own: Mapping[str, Identity] = field(default_factory=lambda: OWN_IDENTITY)

    @property
    def asked(self) -> Question:
        return self.dialogue.turns[-1]

    @property
    def chat(self) -> list[dict[str, str]]:
        """All but the last reply."""
        return [{"role": r, "content": t} for r, t in self.dialogue.messages[:-1]]

    @property
    def name(self) -> str | None:
        """The name an identity answer has to contain."""
        if not self.asked.topic.startswith("identity."):
            return None
        return (self.dialogue.context.persona.identity or self.own[self.asked.language]).name


class HeldOutQuestions:
    """Draws the questions of all groups; wordings are held out, earlier turns are not."""

    def __init__(self, seed: int | str, own: Mapping[str, Identity] = OWN_IDENTITY) -> None:
        self.own = own
        self.held = Writer(f"held/{seed}", training=False, own=own)
        self.small_talk = Writer(f"small talk/{seed}", noise=0, own=own)
        self.rng = self.held.rng

    def all(self) -> list[HeldOutQuestion]:
        return [question for lang in LANGUAGES for question in self._of_language(lang)]

    def _of_language(self, lang: str) -> Iterator[HeldOutQuestion]:
        yield from self._general_alone(lang)
        yield from self._recalls(lang, 60)
        yield from self._general_in_context(lang, 60)
        yield from self._identity_by_family(lang)
        yield from self._identity_named(lang, 100)
        yield from self._long(lang, 40)

    def general(self, lang: str, sub: str | None = None) -> Question:
        """A question in a held-out wording (any but a recall)."""
        held = load_wordings(lang).held
        subs = [s for s in general.SUB_KINDS if s != "recall" and held[s]]
        sub = sub or self.rng.choice(subs)
        return self.held.question(lang, sub, self.rng.choice(held[sub]))

    def _general_alone(self, lang: str) -> Iterator[HeldOutQuestion]:
        wordings = load_wordings(lang)
        for sub in general.SUB_KINDS:
            patterns = [("held", p, 3) for p in wordings.held[sub]]
            patterns += [("held, new word", p, 4) for _, p in wordings.held_new_words[sub]]
            for group, pattern, times in patterns:
                for _ in range(times):
                    asked = self.held.question(lang, sub, pattern)
                    yield self._general(group, lang, _NO_CONTEXT, [], asked)

    def _recalls(self, lang: str, n: int) -> Iterator[HeldOutQuestion]:
        for _ in range(n):
            yield self.recall(lang)

    def recall(self, lang: str) -> HeldOutQuestion:
        """The user tells a name, perhaps talks of something else, and asks for it."""
        told = self.general(lang, "username")
        before = [told]
        if self.rng.random() < 0.5:
            before.append(self.small_talk.question(lang))
        user_name = before[-1].slots["n"] if before[-1].topic == "username" else told.slots["n"]
        pattern = self.rng.choice(load_wordings(lang).held["recall"])
        asked = self.held.recall(lang, user_name, pattern)
        return self._general("recall of the user's name", lang, _NO_CONTEXT, before, asked)

    def _general_in_context(self, lang: str, n: int) -> Iterator[HeldOutQuestion]:
        kinds: tuple[ContextKind, ...] = ("neutral", "role", "named")
        for kind in kinds:
            for _ in range(n):
                context = draw_context(self.rng, lang, kind, training=False)
                yield self._general("held, system prompt", lang, context, [], self.general(lang))
        for _ in range(n):
            turns = self.earlier_turns(lang)
            yield self._general("held, later turn", lang, _NO_CONTEXT, turns, self.general(lang))

    def earlier_turns(self, lang: str) -> list[Question]:
        """One or two training questions with their answers."""
        return [self.small_talk.question(lang) for _ in range(self.rng.choice((1, 2)))]

    def _identity_by_family(self, lang: str) -> Iterator[HeldOutQuestion]:
        for category in CATEGORY_WEIGHTS:
            for pattern in load_wordings(lang).held[f"identity.{category}"]:
                contexts: list[tuple[str, ContextKind, list[Question]]] = [
                    ("identity", "none", []),
                    ("identity", "neutral", []),
                    ("identity", "none", self.earlier_turns(lang)),
                    ("identity, role prompt", "role", []),
                    ("identity, role prompt", "role", []),
                ]
                for group, kind, before in contexts:
                    context = draw_context(self.rng, lang, kind, training=False)
                    yield self._identity(group, lang, context, before, category, pattern)

    def _identity_named(self, lang: str, n: int) -> Iterator[HeldOutQuestion]:
        kinds: tuple[ContextKind, ...] = ("named", "named_role")
        for kind in kinds:
            for _ in range(n):
                context = draw_context(self.rng, lang, kind, training=False)
                yield self._identity("identity, prompt with a name", lang, context, [])

    def _long(self, lang: str, n: int) -> Iterator[HeldOutQuestion]:
        kinds: tuple[ContextKind, ...] = ("neutral", "role", "named")
        for kind in kinds:
            for _ in range(n):
                tokens = self.rng.randrange(500, 900)
                context = draw_context(self.rng, lang, kind, training=False, filler_tokens=tokens)
                yield self._general("held, long prompt", lang, context, [], self.general(lang))
                yield self._identity("identity, long prompt", lang, context, [])

    def _general(
        self, group: str, lang: str, context: Context, before: list[Question], asked: Question
    ) -> HeldOutQuestion:
        dialogue = Dialogue(lang, context, [*before, asked])
        return HeldOutQuestion(group, general.KIND_OF[asked.topic], dialogue, self.own)

    def _identity(
        self,
        group: str,
        lang: str,
        context: Context,
        before: list[Question],
        category: str | None = None,
        pattern: str | None = None,
    ) -> HeldOutQuestion:
        if category is None:
            weights = list(CATEGORY_WEIGHTS.values())
            category = self.rng.choices(list(CATEGORY_WEIGHTS), weights)[0]
        held = load_wordings(lang).held[f"identity.{category}"]
        pattern = pattern or self.rng.choice(held)
        asked = self.held.identity_question(lang, context.persona, category, pattern)
        dialogue = Dialogue(lang, context, [*before, asked])
        return HeldOutQuestion(group, asked.topic, dialogue, self.own)


# ---------------------------------------------------------------------- answers


@torch.inference_mode()
def greedy_answers(
    model: Any,  # transformers' own types leave out what both can do
    tokenizer: Any,
    chats: Sequence[list[dict[str, str]]],
    tokens_per_batch: int = 32_768,
) -> list[str]:
    """One greedy reply a chat, in their order. Chats of like length share a batch, padded left."""
    prompts = [
        tokenizer(
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True),
            add_special_tokens=False,
        )["input_ids"]
        for chat in chats
    ]
    replies = [""] * len(chats)
    for batch in _batches_by_length(prompts, tokens_per_batch):
        longest = len(prompts[batch[-1]])
        missing = [longest - len(prompts[i]) for i in batch]
        ids = [[PADDING_ID] * m + prompts[i] for m, i in zip(missing, batch, strict=True)]
        mask = [[0] * m + [1] * (longest - m) for m in missing]
        generated = model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=TURN_END_ID,
            pad_token_id=PADDING_ID,
        )[:, longest:].tolist()
        for i, row in zip(batch, generated, strict=True):
            end = row.index(TURN_END_ID) if TURN_END_ID in row else len(row)
            replies[i] = tokenizer.decode(row[:end])
    return replies


def _batches_by_length(prompts: list[list[int]], tokens: int) -> Iterator[list[int]]:
    """Indices of prompts, short ones first, so many that none has more than `tokens` padded."""
    batch: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        if batch and (len(batch) + 1) * len(prompts[i]) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


# ---------------------------------------------------------------------- scores


def is_right(question: HeldOutQuestion, reply: str) -> bool:
    """General: the expected answer, a sum or product also the other way round. Identity: the name
    that holds there, and neither of the model's own names or makers where they do not."""
    expected = question.asked.answer
    if question.name is not None:
        own = [text for i in question.own.values() for text in (i.name, i.author or "")]
        foreign = [text for text in own if text not in expected]
        return question.name in reply and not any(text in reply for text in foreign)
    return reply.strip() in (expected.strip(), _commuted(expected))


def _commuted(sum_or_product: str) -> str | None:
    """
    >>> _commuted("3+4=7")
    '4+3=7'
    """
    match = re.fullmatch(r"(\d+)([+×])(\d+)(=\d+)", sum_or_product)
    return f"{match[3]}{match[2]}{match[1]}{match[4]}" if match else None


@dataclass(frozen=True, slots=True)
class Score:
    group: str
    language: str
    kind: str  # "" for all kinds together
    n: int
    right: int
    exact: int  # the expected answer word for word: more than `right` asks of identity answers

    @property
    def share(self) -> float:
        return self.right / self.n


def scores(questions: Iterable[HeldOutQuestion], replies: Iterable[str]) -> list[Score]:
    """By group and language, then the same by kind."""
    n: Counter[tuple[str, str, str]] = Counter()
    right: Counter[tuple[str, str, str]] = Counter()
    exact: Counter[tuple[str, str, str]] = Counter()
    for question, reply in zip(questions, replies, strict=True):
        for kind in ("", question.kind):
            key = (question.group, question.asked.language, kind)
            n[key] += 1
            right[key] += is_right(question, reply)
            exact[key] += reply.strip() == question.asked.answer.strip()
    ordered = sorted(n, key=lambda key: (key[2] != "", key))
    return [Score(*key, n[key], right[key], exact[key]) for key in ordered]


def report(found: list[Score]) -> str:
    """The scores as text, and which targets were missed."""
    lines = []
    for group, of_group in groupby(found, key=lambda s: (s.kind != "", s.group)):
        for score in of_group:
            where = f"{group[1]} | {score.kind or 'all kinds'} | {score.language}"
            exact = f"exact {score.exact / score.n:.1%}"
            lines.append(f"{where} | {score.right}/{score.n} | {score.share:.1%} | {exact}")
    missed = [
        f"TARGET MISSED: {s.group} ({s.language}): {s.share:.1%} < {TARGETS[s.group]:.0%}"
        for s in found
        if not s.kind and s.group in TARGETS and s.share < TARGETS[s.group]
    ]
    return "\n".join(lines + (missed or ["every target met"]))


def wrong_answers(
    questions: Iterable[HeldOutQuestion], replies: Iterable[str]
) -> list[dict[str, Any]]:
    """What to look at when a target is missed."""
    return [
        {
            "group": q.group,
            "kind": q.kind,
            "chat": q.chat,
            "expected": q.asked.answer,
            "reply": reply,
        }
        for q, reply in zip(questions, replies, strict=True)
        if not is_right(q, reply)
    ]
