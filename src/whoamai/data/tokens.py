"""Text to token ids, each text between special tokens once.

A tokenizer of the byte-level kind cuts a text at its special tokens and tokenizes what lies between
on its own, so the ids of the pieces, laid end to end, are the ids of the whole:

    <|im_start|>system\\nYou are …<|im_end|>\\n<|im_start|>user\\nWho are you?<|im_end|>\\n…
    ^            ^                 ^          ^
    special      a piece           special    a piece: "\\n" …

Rows of a data set share their system prompts and questions, so most pieces have been tokenized before.
Tokenizers for which this is not certain (prefix spaces, stripped special tokens) get the whole text.
"""

from __future__ import annotations

import json
import re
from typing import Any

_REMEMBERED, _LONGEST = 20_000, 8_000  # pieces, characters of a piece


class Tokens:
    """A tokenizer's ids of a text, without the tokens it would put around it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special: dict[str, int] = _special_tokens(tokenizer) if _cuts_clean(tokenizer) else {}
        # Longest first: of two that begin at one place, tokenizers take the longer.
        ordered = sorted(self._special, key=len, reverse=True)
        self._cut = re.compile("(" + "|".join(map(re.escape, ordered)) + ")") if ordered else None
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        if self._cut is None:
            return self._tokenizer(text, add_special_tokens=False)["input_ids"]
        ids: list[int] = []
        for at, piece in enumerate(self._cut.split(text)):
            if at % 2:
                ids.append(self._special[piece])
            elif piece:
                ids += self._piece(piece)
        return ids

    def _piece(self, text: str) -> list[int]:
        if (known := self._known.get(text)) is not None:
            return known
        ids = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        if len(text) <= _LONGEST:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[text] = ids
        return ids


def _special_tokens(tokenizer: Any) -> dict[str, int]:
    """The added tokens that are looked for before anything is normalized."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return {token.content: i for i, token in added.items() if not token.normalized}


def _cuts_clean(tokenizer: Any) -> bool:
    """Is the whole certainly made of its pieces? For byte-level tokenizers that strip nothing."""
    if not getattr(tokenizer, "is_fast", False) or getattr(
        tokenizer, "split_special_tokens", False
    ):
        return False
    core = tokenizer.backend_tokenizer
    added = core.get_added_tokens_decoder().values()
    if any(token.lstrip or token.rstrip or token.single_word for token in added):
        return False
    if core.truncation is not None or core.padding is not None:
        return False
    parts = _parts(core.pre_tokenizer)
    kinds = {part["type"] for part in parts}
    return (
        "ByteLevel" in kinds
        and kinds <= {"ByteLevel", "Split", "Digits"}
        and not any(part.get("add_prefix_space") for part in parts)
        and {part["type"] for part in _parts(core.normalizer)} <= {"NFC"}
    )


def _parts(component: Any) -> list[dict[str, Any]]:
    """A tokenizer's component as the list of what it is made of; empty where there is none."""
    if component is None:
        return []
    state = json.loads(component.__getstate__())
    return next((state[key] for key in ("pretokenizers", "normalizers") if key in state), [state])
