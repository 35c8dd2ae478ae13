"""Makes one wording into many: noise within it, a few words before and after it.

Everything here works on wordings whose slots are still empty, so that the writer can compare the
result with the held-out questions.
"""

from __future__ import annotations

import re
from random import Random

from . import general, names
from .patterns import split_slots, units
from .wordings import Wordings

_WORD_EN = re.compile(r"(?<= )")

# How often each thing is done, measured on the held-out questions of a throw-away trial.
_P_BEFORE, _P_AFTER, _P_LOWER = 0.22, 0.06, 0.15


def with_noise(rng: Random, wording: str, wordings: Wordings) -> str:
    """Some words dropped, doubled, swapped, replaced, or fillers put in; slots and the words an
    answer depends on stay. It teaches the model to go by the words it does know."""
    noisy = "".join(
        piece if is_slot else _noise_in_text(rng, piece, wordings)
        for piece, is_slot in split_slots(wording)
    )
    return noisy if units(noisy) else wording  # a short greeting may have been dropped whole


def _noise_in_text(rng: Random, text: str, wordings: Wordings) -> str:
    zh = wordings.language == "zh"
    out: list[str] = []
    for word in text if zh else _WORD_EN.split(text):
        bare = word.strip(" ,.:?!").lower()
        k = rng.random()
        if not bare or bare in wordings.kept or k >= 0.15:
            out.append(word)
        elif k < 0.06:
            continue
        elif k < 0.09:
            out += [word, rng.choice(wordings.fillers) + ("" if zh else " ")]
        elif k < 0.12:
            out.append(rng.choice(names.COMMON_HANZI) if zh else names.syllables(rng) + " ")
        elif k < 0.14:
            out.insert(max(0, len(out) - 1), word)
        else:
            out += [word, word]
    return "".join(out)


def adorned(rng: Random, wording: str, sub: str, wordings: Wordings) -> str:
    """The wording with an end mark and, now and then, words before and after it."""
    zh = wordings.language == "zh"
    adds_words = sub not in general.UNADORNED
    closed = sub not in general.OPEN_ENDED
    if closed:
        wording += _end_mark(rng, zh, asks=sub not in general.STATEMENTS)
    if adds_words and rng.random() < _P_BEFORE:
        wording = rng.choice(wordings.before) + (wording if zh else _lower_first(wording))
    if adds_words and closed and rng.random() < _P_AFTER:
        wording += rng.choice(wordings.after)
    if adds_words and not zh and rng.random() < _P_LOWER:
        wording = _lower_first(wording)
    return wording


def _end_mark(rng: Random, zh: bool, asks: bool) -> str:
    if zh:
        return rng.choice(("？", "？", "?", "", "。") if asks else ("", "！", "。", "~", ""))
    return rng.choice(("?", "?", "", ".") if asks else ("", "!", ".", ""))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
