"""Conversations to Samples of at most max_length tokens; what was cut or left out is told by name.

A row that is too long is cut after its last whole turn that fits: half a reply would teach the model to
stop in the middle of a sentence. Where no trained reply is left, the row is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from whoamai.samples import Conversation, Message, Sample


class Encoding(Protocol):
    """What turns a conversation into rows of token ids: a ChatTemplate or XTuner's encoding."""

    def samples(self, conversation: Conversation) -> list[Sample]: ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """The rows to train on, with the place each came from; the places of rows cut and left out."""

    samples: tuple[Sample, ...]
    sources: tuple[str, ...]
    cut: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(sample.input_ids) for sample in self.samples]

    @property
    def n_targets(self) -> int:
        return sum(sum(sample.is_target) for sample in self.samples)


def encode(
    conversations: Iterable[Conversation],
    encoding: Encoding,
    *,
    max_length: int,
    system: str | None = None,
) -> Encoded:
    """All rows as token ids. `system` is put before conversations that have no system message."""
    samples: list[Sample] = []
    sources: list[str] = []
    cut: list[str] = []
    left_out: list[str] = []
    for conversation in conversations:
        fitting, was_cut = _fit(_with_system(conversation, system), encoding, max_length)
        if not fitting:
            left_out.append(conversation.source)
            continue
        if was_cut:
            cut.append(conversation.source)
        samples += fitting
        sources += [conversation.source] * len(fitting)
    return Encoded(tuple(samples), tuple(sources), tuple(cut), tuple(left_out))


def _with_system(conversation: Conversation, system: str | None) -> Conversation:
    if not system or any(m.role == "system" for m in conversation.messages):
        return conversation
    return replace(conversation, messages=(Message("system", system), *conversation.messages))


def _fit(
    conversation: Conversation, encoding: Encoding, max_length: int
) -> tuple[list[Sample], bool]:
    """(rows of the longest beginning that fits, was anything cut?); no rows where nothing is left."""
    messages = conversation.messages
    ends = [
        end for end in range(len(messages), 0, -1) if messages[end - 1].role == "assistant"
    ] or [len(messages)]
    for end in ends:
        part = (
            conversation if end == len(messages) else replace(conversation, messages=messages[:end])
        )
        if not any(m.role == "assistant" and m.trained for m in part.messages):
            return [], True
        rows = [sample for sample in encoding.samples(part) if any(sample.is_target)]
        if rows and all(len(sample.input_ids) <= max_length for sample in rows):
            return rows, end != len(messages)
    return [], True
