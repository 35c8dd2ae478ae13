"""Writes the conversations the tiny chat model learns from, and those it is tested on.

A Writer that trains never asks a held-out question: the wording is compared after everything was
put round it and before its slots are filled, and drawn again if need be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from whoamai.data.identity import LANGUAGES, Identity, answer, known_assistants, load_language

from . import general, names
from .contexts import OWN_IDENTITY, Context, ContextKind, Persona, draw_context
from .patterns import expand
from .patterns import fill as fill_slots
from .phrasing import adorned, with_noise
from .wordings import held_out_runs, load_wordings

# Shares of the training text.
CONTEXT_SHARES: dict[ContextKind, float] = {
    "none": 0.40,
    "neutral": 0.11,
    "role": 0.18,
    "named": 0.19,
    "named_role": 0.12,
}
IDENTITY_SHARE: dict[ContextKind, float] = {
    "none": 0.38,
    "neutral": 0.38,
    "role": 0.60,
    "named": 0.60,
    "named_role": 0.60,
}
CATEGORY_WEIGHTS = {
    "who": 3,
    "name": 3,
    "intro": 2,
    "indirect": 2,
    "human": 2,
    "maker": 2,
    "other": 3,
    "othermaker": 1,
    "override": 2,
    "old": 1,
    "confirm": 1,
}
P_LONG = 0.03  # long system prompts, of LONG_TOKENS
LONG_TOKENS = (100, 200, 400, 600, 900)
P_SHORT_FILLER = 0.15
SHORT_TOKENS = (20, 40, 80)
P_FRAMED = 0.5
P_NOISE = 0.35
P_OTHER_LANGUAGE = 0.07
P_NAME_FIRST = 0.12  # the user begins with their name, in conversations of several turns
P_RECALL = {True: 0.25, False: 0.008}  # by whether a name was told

_SUBS_OF_KIND = {
    kind: [s for s in general.SUB_KINDS if general.KIND_OF[s] == kind and s != "recall"]
    for kind in general.KINDS
}


@dataclass(frozen=True, slots=True)
class Question:
    """`topic`: the sub-kind, or "identity.<category>". `slots`: the values drawn."""

    language: str
    topic: str
    text: str
    answer: str
    slots: dict[str, str]
    wording: str  # the text before its slots were filled


@dataclass(slots=True)
class Dialogue:
    language: str
    context: Context
    turns: list[Question]

    @property
    def messages(self) -> list[tuple[str, str]]:
        """(role, text), the system prompt first where there is one."""
        system = [] if self.context.system is None else [("system", self.context.system)]
        asked = [(("user", q.text), ("assistant", q.answer)) for q in self.turns]
        return system + [message for pair in asked for message in pair]


class Writer:
    """Draws questions, answers and whole conversations from one seeded generator.

    training=True: training wordings, with noise, none of them with a held-out run.
    training=False: wordings are given by the caller; contexts and roles are the held-out ones.
    """

    def __init__(
        self,
        seed: int | str,
        *,
        training: bool = True,
        noise: float = P_NOISE,
        own: Mapping[str, Identity] = OWN_IDENTITY,
    ) -> None:
        """`noise`: the share of training questions with noise in their wording. `own`: who answers
        where no system prompt says otherwise, by language."""
        self.own = own
        self.rng = Random(seed)
        self.training = training
        self.noise = noise
        self._wordings = {lang: load_wordings(lang) for lang in LANGUAGES}
        self._runs = held_out_runs()
        self._assistants, self._makers = known_assistants()
        self._categories = list(CATEGORY_WEIGHTS)
        self._category_weights = list(CATEGORY_WEIGHTS.values())

    def reseed(self, seed: int | str) -> None:
        self.rng.seed(seed)

    # ------------------------------------------------------------------ questions

    def question(
        self, language: str, sub: str | None = None, pattern: str | None = None
    ) -> Question:
        """A general question; of any sub-kind but "recall" where none is given."""
        rng = self.rng
        sub = sub or rng.choice(_SUBS_OF_KIND[rng.choice(general.KINDS)])
        slots, reply = general.draw(sub, rng, language)
        wording = self._wording(language, sub, sub, pattern)
        return Question(language, sub, fill_slots(wording, slots), reply, slots, wording)

    def recall(self, language: str, user_name: str | None, pattern: str | None = None) -> Question:
        """ "What is my name?", after it was told or without."""
        wording = self._wording(language, "recall", "recall", pattern)
        reply = general.answer_to_recall(language, user_name)
        return Question(language, "recall", wording, reply, {"n": user_name or ""}, wording)

    def identity_question(
        self,
        language: str,
        persona: Persona,
        category: str | None = None,
        pattern: str | None = None,
    ) -> Question:
        """A question about who is answering, and what `persona` says."""
        rng = self.rng
        who = persona.identity or self.own[language]
        category = category or rng.choices(self._categories, self._category_weights)[0]
        slots = {
            "name": self._name_to_confirm(who.name, persona.identity is None),
            "other": rng.choice(self._assistants) if rng.random() < 0.75 else names.name(rng),
            "company": rng.choice(self._makers) if rng.random() < 0.8 else names.maker(rng),
            "old": self._other_name(who.name, persona.identity is None),
        }
        topic = f"identity.{category}"
        wording = self._wording(language, topic, "identity", pattern)
        reply = answer(
            load_language(language),
            category,
            who,
            role=persona.role,
            other=slots["other"],
            company=slots["company"],
            old=slots["old"],
        )
        return Question(language, topic, fill_slots(wording, slots), reply, slots, wording)

    def _name_to_confirm(self, name: str, is_own: bool) -> str:
        """Both of the model's own names are right, in either language."""
        if is_own and self.rng.random() < 0.3:
            return self.rng.choice([i.name for i in self.own.values()])
        return name

    def _other_name(self, name: str, is_own: bool) -> str:
        """Some name that is not `name`; the model's own one under a system prompt with another."""
        rng = self.rng
        own = [i.name for i in self.own.values()]
        drawn = names.name(rng) if is_own or rng.random() < 0.5 else rng.choice(own)
        return drawn if drawn not in (name, *(own if is_own else ())) else drawn + "2"

    def _wording(self, language: str, topic: str, sub: str, pattern: str | None) -> str:
        """A wording with end marks and all, its slots still empty."""
        rng, wordings = self.rng, self._wordings[language]
        if pattern is not None:
            return adorned(rng, rng.choice(expand(pattern)), sub, wordings)
        for _ in range(50):
            framed = wordings.framed.get(topic)
            if framed and rng.random() < P_FRAMED:
                plain = rng.choice(framed)
            else:
                plain = rng.choice(rng.choice(wordings.train[topic]))
            noisy = with_noise(rng, plain, wordings) if rng.random() < self.noise else plain
            whole = adorned(rng, noisy, sub, wordings)
            if not self._runs.found_in(whole):
                return whole
        return plain  # alone it was compared when it was loaded

    # ------------------------------------------------------------------ conversations

    def dialogue(self, *, kind: ContextKind | None = None, long: bool | None = None) -> Dialogue:
        rng = self.rng
        language = rng.choice(LANGUAGES)
        long = rng.random() < P_LONG if long is None else long
        context = self._context(language, kind, long)
        n_turns = rng.choice((3, 4, 5) if long else (1, 1, 1, 1, 2, 2, 3))
        turns: list[Question] = []
        user_name = None
        if n_turns > 1 and rng.random() < P_NAME_FIRST:
            turns.append(self.question(language, "username"))
            user_name = turns[0].slots["n"]
        while len(turns) < n_turns:
            spoken = self._language_of_turn(language, context)
            turns.append(self.turn(spoken, context, user_name))
            if turns[-1].topic == "username":
                user_name = turns[-1].slots["n"]
        return Dialogue(language, context, turns)

    def _context(self, language: str, kind: ContextKind | None, long: bool) -> Context:
        rng = self.rng
        shares = dict(CONTEXT_SHARES)
        if long:
            del shares["none"]
        kind = kind or rng.choices(list(shares), list(shares.values()))[0]
        filler_tokens = 0
        if long:
            filler_tokens = rng.choice(LONG_TOKENS)
        elif rng.random() < P_SHORT_FILLER:
            filler_tokens = rng.choice(SHORT_TOKENS)
        return draw_context(
            rng, language, kind, training=self.training, filler_tokens=filler_tokens
        )

    def _language_of_turn(self, language: str, context: Context) -> str:
        # A role is named in one language only, so the answers have to stay in it.
        if context.persona.role or self.rng.random() >= P_OTHER_LANGUAGE:
            return language
        return "en" if language == "zh" else "zh"

    def turn(self, language: str, context: Context, user_name: str | None) -> Question:
        if self.rng.random() < IDENTITY_SHARE[context.kind]:
            return self.identity_question(language, context.persona)
        if self.rng.random() < P_RECALL[user_name is not None]:
            return self.recall(language, user_name)
        return self.question(language)
