"""The wordings of questions/*.yaml, together with the product's identity questions, split for good.

Training wordings are looked through here once: one that has a run of units of a held-out question
is not used, be it a wording of its own, a family of identity questions or a frame with a phrase.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from whoamai.data.identity import LANGUAGES, load_language

from .patterns import HeldOutRuns, expand

_FOLDER = Path(__file__).parent / "questions"


@dataclass(frozen=True, slots=True)
class Wordings:
    """All wordings in one language. A topic is a sub-kind ("capital") or "identity.<category>".

    A pattern with choices is a list of its expansions, so that choosing among patterns first gives
    each the same share, however many choices it has.
    """

    language: str
    train: dict[str, list[list[str]]]  # topic -> patterns -> expansions
    framed: dict[str, list[str]]  # topic -> phrases set in frames; training only
    held: dict[str, list[str]]  # topic -> patterns
    held_new_words: dict[str, list[tuple[str, str]]]  # sub-kind -> (new word, pattern)
    before: list[str]
    after: list[str]
    fillers: list[str]  # noise that may come in anywhere
    kept: frozenset[str]  # words that noise leaves alone


@cache
def read_questions(language: str) -> dict[str, Any]:
    """questions/<language>.yaml as it stands."""
    return yaml.safe_load((_FOLDER / f"{language}.yaml").read_text("utf-8"))


def held_out_patterns(language: str) -> list[str]:
    """Every held-out pattern: held, held_new_words, and the product's probe and test families."""
    general = read_questions(language)["questions"].values()
    return [
        *(pattern for lists in general for pattern in lists["held"].splitlines()),
        *(entry["wording"] for lists in general for entry in lists["held_new_words"]),
        *(f.pattern for f in load_language(language).families if f.split != "train"),
    ]


@cache
def held_out_runs() -> HeldOutRuns:
    """Of all languages together, so that neither may leak through a mixed conversation."""
    return HeldOutRuns((lang, p) for lang in LANGUAGES for p in held_out_patterns(lang))


def training_patterns(language: str) -> list[tuple[str, str]]:
    """(topic, pattern) of every training wording as written, before any is left out."""
    raw = read_questions(language)
    general = [
        (sub, pattern)
        for sub, lists in raw["questions"].items()
        for pattern in lists["train"].splitlines()
    ]
    identity = [(f"identity.{f.category}", f.pattern) for f in load_language(language).of("train")]
    return general + identity


def framed_phrases(language: str) -> list[tuple[str, str]]:
    """(topic, wording) of every phrase in every frame of its sort, before any is left out."""
    raw = read_questions(language)
    phrases = {**raw["phrases"]}
    phrases |= {f"identity.{c}": by_sort for c, by_sort in raw["identity_phrases"].items()}
    return [
        (topic, frame.replace("{x}", phrase))
        for topic, by_sort in phrases.items()
        for sort, lines in by_sort.items()
        for phrase in lines.splitlines()
        for frame in raw["frames"][sort].splitlines()
    ]


@cache
def load_wordings(language: str) -> Wordings:
    raw, runs = read_questions(language), held_out_runs()
    train: dict[str, list[list[str]]] = defaultdict(list)
    for topic, pattern in training_patterns(language):
        allowed = [wording for wording in expand(pattern) if not runs.found_in(wording)]
        if allowed:
            train[topic].append(allowed)
    framed: dict[str, list[str]] = defaultdict(list)
    for topic, wording in framed_phrases(language):
        if not runs.found_in(wording):
            framed[topic].append(wording)
    held = {sub: lists["held"].splitlines() for sub, lists in raw["questions"].items()}
    for family in load_language(language).families:
        if family.split != "train":
            held.setdefault(f"identity.{family.category}", []).append(family.pattern)
    keep = raw["noise"]["keep"]
    return Wordings(
        language=language,
        train=dict(train),
        framed=dict(framed),
        held=held,
        held_new_words={
            sub: [(entry["word"], entry["wording"]) for entry in lists["held_new_words"]]
            for sub, lists in raw["questions"].items()
        },
        before=raw["before"],
        after=raw["after"],
        fillers=raw["noise"]["fillers"].split(),
        kept=frozenset(keep if language == "zh" else keep.split()),
    )
