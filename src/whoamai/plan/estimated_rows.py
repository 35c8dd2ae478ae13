"""Rows of about the right length where the model's tokenizer is not on this machine.

A stand-in for a large bilingual vocabulary: three tokens for five Chinese characters, one for an
English word, chosen to come near Qwen's counts on Chinese and English conversations. Equal texts
give equal tokens, and a text that begins like another gives tokens that begin like its, so that what
rows share is estimated too.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from whoamai.samples import Conversation, Message, Sample

# A run of Chinese characters; a word or a run of signs with the space before it; a digit; the rest.
_PIECES = re.compile(r"[\u3400-\u9fff]+| ?[A-Za-z]+| ?[^\w\s]+\n*|\d|\s+|.")
_REMEMBERED = 5_000  # texts
_LONGEST = 12  # letters or signs of one token
_CHINESE = (2, 2, 1)  # characters of one token, in turn

# What a template puts around a turn: <|im_start|> role \n … <|im_end|> \n.
_OPEN, _CLOSE, _GAP = ("<", "role", "\n"), ">", "\n"


class EstimatedEncoding:
    """Conversations as rows of stand-in tokens, in the way of ChatML; an Encoding like ChatTemplate."""

    def __init__(self) -> None:
        self._known: dict[str, list[int]] = {}  # system prompts and questions repeat

    def samples(self, conversation: Conversation) -> list[Sample]:
        """One row up to the last trained reply; none without one."""
        ids: list[int] = []
        targets: list[bool] = []
        length = 0  # up to the end of the last trained reply
        for message in conversation.messages:
            reply = self._ids(message.text)
            trained = message.role == "assistant" and message.trained
            ids += [*_opening(message), *reply]
            targets += [False] * len(_OPEN) + [trained] * len(reply)
            if trained:
                length = len(ids)
            ids.append(_number(_GAP))
            targets.append(False)
        return [Sample(tuple(ids[:length]), tuple(targets[:length]))] if length else []

    def _ids(self, text: str) -> list[int]:
        """The text and the end of its turn."""
        if (known := self._known.get(text)) is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[text] = [_number(piece) for piece in (*_pieces(text), _CLOSE)]
        return known


def _opening(message: Message) -> tuple[int, ...]:
    return tuple(_number(message.role if part == "role" else part) for part in _OPEN)


def _pieces(text: str) -> Iterator[str]:
    for found in _PIECES.findall(text):
        if "\u3400" <= found[0] <= "\u9fff":
            yield from _chinese(found)
        else:
            yield from (found[i : i + _LONGEST] for i in range(0, len(found), _LONGEST))


def _chinese(run: str) -> Iterator[str]:
    at, turn = 0, 0
    while at < len(run):
        size = _CHINESE[turn % len(_CHINESE)]
        yield run[at : at + size]
        at, turn = at + size, turn + 1


def _number(piece: str) -> int:
    return zlib.crc32(piece.encode("utf-8", "surrogatepass"))
