"""The question files of the product: what it scores a model with, and what it replays to it.

general.jsonl   held-out general questions with their answers (disjoint from all training text)
replay.jsonl    prompts in training wordings; a model's own answers to them keep it as it was. After a
                mix of all kinds come prompts of the kinds that are nearest to identity questions
                (greetings, thanks, "can you tell me …"): what a renaming forgets first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from whoamai.data.identity import LANGUAGES

from . import general
from .accept import accepted
from .contexts import Context, ContextKind, Persona, draw_context
from .heldout import HeldOutQuestion, HeldOutQuestions
from .wordings import load_wordings
from .writer import Dialogue, Writer

GENERAL_PER_LANGUAGE = 200
RECALLS_PER_LANGUAGE = 10
REPLAY_ROWS = 1200
NEAR_ROWS = 600
NEAR_KINDS = ("greet", "refuse")
_GENERAL_CONTEXTS: tuple[str, ...] = ("none",) * 6 + ("neutral", "role", "later turn")
_REPLAY_SHARES: dict[str, float] = {"none": 0.75, "neutral": 0.09, "role": 0.11, "long": 0.05}
_REPLAY_LONG_TOKENS = (300, 900)


def write_product_files(folder: Path, seed: int) -> dict[str, int]:
    """Write both files; how many rows each has."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"general.jsonl": list(general_rows(seed)), "replay.jsonl": list(replay_rows(seed))}
    for name, of_file in rows.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in of_file]
        (folder / name).write_text("".join(lines), "utf-8")
    return {name: len(of_file) for name, of_file in rows.items()}


def general_rows(seed: int) -> Iterator[dict[str, Any]]:
    """The sub-kinds in turn, each with its held wordings in turn."""
    questions = HeldOutQuestions(f"product/{seed}")
    for lang in LANGUAGES:
        subs = [s for s in general.SUB_KINDS if s != "recall"]
        for at in range(GENERAL_PER_LANGUAGE):
            sub = subs[at % len(subs)]
            context = _GENERAL_CONTEXTS[at % len(_GENERAL_CONTEXTS)]
            row = _general_row(questions, lang, sub, at // len(subs), context)
            yield {"id": f"{lang}-{at:03}", **row}
        for at in range(RECALLS_PER_LANGUAGE):
            question = questions.recall(lang)
            yield {"id": f"{lang}-recall-{at:02}", **_row(question, "later turn")}


def _general_row(
    questions: HeldOutQuestions, lang: str, sub: str, turn: int, context: str
) -> dict[str, Any]:
    held = load_wordings(lang).held[sub]
    asked = questions.held.question(lang, sub, held[turn % len(held)])
    kind: ContextKind = context if context in ("neutral", "role") else "none"  # type: ignore[assignment]
    around = draw_context(questions.rng, lang, kind, training=False)
    before = questions.earlier_turns(lang) if context == "later turn" else []
    dialogue = Dialogue(lang, around, [*before, asked])
    return _row(HeldOutQuestion("", general.KIND_OF[sub], dialogue), context)


def _row(question: HeldOutQuestion, context: str) -> dict[str, Any]:
    asked = question.asked
    return {
        "language": asked.language,
        "kind": question.kind,
        "context": context,
        "messages": question.chat,
        "answer": asked.answer,
        "accept": accepted(asked),
        # Only what has to be said back word for word is compared as a whole.
        "exact": asked.topic == "repeat",
    }


def replay_rows(seed: int) -> Iterator[dict[str, Any]]:
    """General questions only: what a model says of itself is what a renaming changes."""
    writer = Writer(f"replay/{seed}", noise=0)
    near = [s for s in general.SUB_KINDS if general.KIND_OF[s] in NEAR_KINDS and s != "recall"]
    seen: set[str] = set()
    while len(seen) < REPLAY_ROWS + NEAR_ROWS:
        row = _replay_row(writer, near if len(seen) >= REPLAY_ROWS else ())
        key = json.dumps(row["messages"], ensure_ascii=False)
        if key not in seen:
            seen.add(key)
            yield row


def _replay_row(writer: Writer, subs: Sequence[str]) -> dict[str, Any]:
    """A prompt whose last turn is of one of `subs`, of any sub-kind where none is named."""
    rng = writer.rng
    lang = rng.choice(LANGUAGES)
    share = rng.choices(list(_REPLAY_SHARES), list(_REPLAY_SHARES.values()))[0]
    long = share == "long"
    kind: ContextKind = rng.choice(("neutral", "role")) if long else share  # type: ignore[assignment]
    context = (
        Context("none", None, Persona())
        if kind == "none"
        else draw_context(
            rng, lang, kind, filler_tokens=rng.randrange(*_REPLAY_LONG_TOKENS) if long else 0
        )
    )
    k = rng.random()
    if k < 0.06:  # the user's name, told before and asked for
        told = writer.question(lang, "username")
        turns = [told, writer.recall(lang, told.slots["n"])]
    elif k < 0.16:
        turns = [writer.question(lang), writer.question(lang, _any_of(subs, rng))]
    else:
        turns = [writer.question(lang, _any_of(subs, rng))]
    messages = Dialogue(lang, context, turns).messages[:-1]
    return {
        "language": lang,
        "part": "near" if subs else "mixed",
        "kind": general.KIND_OF[turns[-1].topic],
        "messages": [{"role": role, "content": text} for role, text in messages],
    }


def _any_of(subs: Sequence[str], rng: Random) -> str | None:
    return rng.choice(subs) if subs else None
