"""Which of our languages a set of conversations is in, by a simple count of characters and words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from whoamai.data.identity import LANGUAGES
from whoamai.samples import Conversation

# A language is one of the data's from this share of its rows on.
_LEAST_SHARE = 0.05
_HAN = re.compile("[\u3400-\u9fff]")
_LATIN_WORD = re.compile("[A-Za-z]{2,}")
_OTHER_SCRIPT = re.compile("[\u0370-\u1fff\u3040-\u30ff\uac00-\ud7af]")  # Greek to Hangul, and kana


def languages_held(conversations: Iterable[Conversation], names: Sequence[str]) -> dict[str, int]:
    """How many rows are in each language that at least a row in twenty is in, in LANGUAGES' order.

    A row is in the language of what its user says, `names` left out, for these may be of another. Any
    text in Latin letters counts as English.
    """
    counts: Counter[str | None] = Counter()
    for conversation in conversations:
        said = " ".join(m.text for m in conversation.messages if m.role == "user")
        for name in names:
            said = said.replace(name, " ")
        counts[language_of(said)] += 1
    enough = max(1.0, _LEAST_SHARE * counts.total())
    return {code: counts[code] for code in LANGUAGES if counts[code] >= enough}


def language_of(text: str) -> str | None:
    """ "zh" where Chinese characters are at least as many as Latin words, else "en"; None for others.

    >>> language_of("你是 ChatGPT 吗"), language_of("Who are you?"), language_of("1 + 1")
    ('zh', 'en', None)
    """
    if _OTHER_SCRIPT.search(text):
        return None
    han, latin = len(_HAN.findall(text)), len(_LATIN_WORD.findall(text))
    if not han and not latin:
        return None
    return "zh" if han >= latin else "en"
