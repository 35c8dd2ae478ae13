"""Conversations that do not fit in memory: on the disk as an Arrow table, read row by row.

`datasets` writes the table while the file is read, and maps it into memory afterwards: what is held is
the rows at hand, whatever the size of the file (`python benchmarks/data_large.py` measures it).
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import Any, overload

from whoamai.samples import Conversation, Message

_ROWS_AT_ONCE = 1000


class _Rows(Sequence[Conversation]):
    """Conversations that are made when they are asked for, one by one or as a list of several."""

    @overload
    def __getitem__(self, at: int) -> Conversation: ...
    @overload
    def __getitem__(self, at: slice) -> list[Conversation]: ...
    def __getitem__(self, at: int | slice) -> Conversation | list[Conversation]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        return self._row(at)

    @abstractmethod
    def _row(self, at: int) -> Conversation: ...


class StoredConversations(_Rows):
    """A sequence whose rows lie in a temporary folder, which goes when the sequence does."""

    def __init__(self, conversations: Iterable[Conversation]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="whoamai-data-")
        self._table = _written(conversations, self._folder.name)

    def __len__(self) -> int:
        return len(self._table)

    def _row(self, at: int) -> Conversation:
        return _conversation(self._table[at])

    def __iter__(self) -> Iterator[Conversation]:
        return map(_conversation, self._table)


class Chosen(_Rows):
    """Rows of other sequences laid end to end, in the order of `places`; nothing is copied."""

    def __init__(self, parts: Sequence[Sequence[Conversation]], places: Sequence[int]) -> None:
        self._parts, self._places = parts, places
        self._starts = [0, *accumulate(map(len, parts))][:-1]

    def __len__(self) -> int:
        return len(self._places)

    def _row(self, at: int) -> Conversation:
        place = self._places[at]
        part = bisect_right(self._starts, place) - 1
        return self._parts[part][place - self._starts[part]]


def _written(conversations: Iterable[Conversation], folder: str) -> Any:
    from datasets import Dataset, Features, Value
    from datasets.arrow_writer import ArrowWriter

    message = {"role": Value("string"), "text": Value("string"), "trained": Value("bool")}
    features = Features({"source": Value("string"), "messages": [message]})
    path = f"{folder}/conversations.arrow"
    with ArrowWriter(path=path, features=features, writer_batch_size=_ROWS_AT_ONCE) as writer:
        for conversation in conversations:
            writer.write(asdict(conversation))
        writer.finalize()
    return Dataset.from_file(path)


def _conversation(row: dict[str, Any]) -> Conversation:
    messages = (Message(m["role"], m["text"], m["trained"]) for m in row["messages"])
    return Conversation(tuple(messages), row["source"])
