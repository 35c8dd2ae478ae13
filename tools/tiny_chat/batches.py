"""From writers in their own processes to batches of packed token ids, in an order that depends on
the seed alone: chunk c of the text is drawn with seed "<seed>/<c>" whoever writes it, and chunks
are taken in turn, not as they come.

Shapes: T tokens of one batch, D documents in it (a document is one conversation).
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from whoamai.data.identity import Identity

from .tokenizer import MAX_LENGTH
from .writer import Dialogue, Writer

DIALOGUES_PER_CHUNK = 2048
_CHUNKS_AHEAD = 3  # that each writer may be ahead


@dataclass(frozen=True, slots=True)
class Chunk:
    """Encoded conversations end to end."""

    ids_T: np.ndarray  # uint16
    is_reply_T: np.ndarray  # uint8: 1 where the token belongs to an assistant's reply
    length_D: np.ndarray  # int32


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """T tokens without padding; attention stays inside a document."""

    ids_T: torch.Tensor  # int64
    target_T: torch.Tensor  # int64: the token after each
    weight_T: torch.Tensor  # float32: what predicting it counts; 0 at the end of a document
    position_T: torch.Tensor  # int64: place within the document
    start_D1: torch.Tensor  # int32: where documents start, and T
    longest: int

    def to(self, device: torch.device) -> PackedBatch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> PackedBatch:
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> PackedBatch:
        return PackedBatch(
            change(self.ids_T),
            change(self.target_T),
            change(self.weight_T),
            change(self.position_T),
            change(self.start_D1),
            self.longest,
        )


def encode(tokenizer: Tokenizer, dialogues: list[Dialogue]) -> Chunk:
    """Token ids in the form of the chat template. Prompt and reply are encoded apart, so that a
    reply starts with the token it will have to start with in use."""
    parts = [part for dialogue in dialogues for part in _parts(dialogue)]
    encoded = iter(tokenizer.encode_batch_fast(parts, add_special_tokens=False))
    ids: list[int] = []
    is_reply: list[int] = []
    lengths: list[int] = []
    for dialogue in dialogues:
        start = len(ids)
        for at in range(2 * len(dialogue.turns)):
            part_ids = next(encoded).ids
            ids += part_ids
            is_reply += [at % 2] * len(part_ids)
        if len(ids) - start > MAX_LENGTH:
            del ids[start:], is_reply[start:]
        else:
            lengths.append(len(ids) - start)
    return Chunk(
        np.array(ids, np.uint16), np.array(is_reply, np.uint8), np.array(lengths, np.int32)
    )


def _parts(dialogue: Dialogue) -> Iterator[str]:
    """The text in turn: prompt, reply, prompt, reply, …"""
    prompt = ""
    for role, text in dialogue.messages:
        if role == "assistant":
            yield prompt + "<|im_start|>assistant\n"
            yield text + "<|im_end|>"
            prompt = "\n"
        else:
            prompt += f"<|im_start|>{role}\n{text}<|im_end|>\n"


def write_chunk(writer: Writer, seed: int | str, number: int, size: int) -> list[Dialogue]:
    writer.reseed(f"{seed}/{number}")
    return [writer.dialogue() for _ in range(size)]


def _keep_writing(
    queue: multiprocessing.Queue,
    tokenizer_file: Path,
    seed: int,
    own: Mapping[str, Identity],
    first: int,
    step: int,
) -> None:
    """A writing process: chunks first, first + step, … until it is stopped."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    tokenizer, writer = Tokenizer.from_file(str(tokenizer_file)), Writer(seed, own=own)
    for number in count(first, step):
        queue.put(encode(tokenizer, write_chunk(writer, seed, number, DIALOGUES_PER_CHUNK)))


@contextmanager
def written_chunks(
    tokenizer_file: Path, seed: int, workers: int, own: Mapping[str, Identity]
) -> Iterator[Iterator[Chunk]]:
    """An endless stream of chunks in order of their number, written by `workers` processes.

    They read the tokenizer from a file: what is passed to a new process by value keeps its parent
    waiting until the process is up, one after the other.
    """
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(_CHUNKS_AHEAD) for _ in range(workers)]
    processes = [
        context.Process(
            target=_keep_writing,
            args=(queue, tokenizer_file, seed, own, first, workers),
            daemon=True,
        )
        for first, queue in enumerate(queues)
    ]
    for process in processes:
        process.start()
    try:
        yield (queues[number % workers].get() for number in count())
    finally:
        for process in processes:
            process.kill()  # nothing they have written is wanted any more


def _texts_of_chunk(job: tuple[int, Mapping[str, Identity], int, int]) -> list[str]:
    seed, own, number, size = job
    dialogues = write_chunk(Writer(seed, own=own), f"tokenizer/{seed}", number, size)
    return [f"{role}\n{text}" for d in dialogues for role, text in d.messages]


def tokenizer_texts(
    seed: int, n_dialogues: int, workers: int, own: Mapping[str, Identity]
) -> Iterator[str]:
    """What the tokenizer is trained on: other conversations than the model's first ones."""
    size = 2000
    jobs = [(seed, own, number, size) for number in range(n_dialogues // size)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for texts in pool.imap(_texts_of_chunk, jobs):
            yield from texts


def packed(chunks: Iterator[Chunk], tokens: int, prompt_weight: float) -> Iterator[PackedBatch]:
    """Batches of exactly `tokens` tokens. The document at the end is cut; its rest is not used.

    `prompt_weight`: what a token outside of replies counts (a token of a reply counts 1).
    """
    ids = np.empty(0, np.uint16)
    is_reply = np.empty(0, np.uint8)
    lengths = np.empty(0, np.int32)
    while True:
        while len(ids) < tokens + MAX_LENGTH:
            chunk = next(chunks)
            ids = np.concatenate([ids, chunk.ids_T])
            is_reply = np.concatenate([is_reply, chunk.is_reply_T])
            lengths = np.concatenate([lengths, chunk.length_D])
        ends = np.cumsum(lengths)
        used = int(np.searchsorted(ends, tokens, "left")) + 1  # documents, the cut one included
        starts = np.concatenate([[0], ends[: used - 1], [tokens]])
        yield _packed_batch(ids[:tokens], is_reply[:tokens], starts, prompt_weight)
        rest = ends[used - 1]
        ids, is_reply, lengths = ids[rest:], is_reply[rest:], lengths[used:]


def _packed_batch(
    ids_T: np.ndarray, is_reply_T: np.ndarray, start_D1: np.ndarray, prompt_weight: float
) -> PackedBatch:
    """
    ids      a b c | d e        starts 0 3 5
    target   b c . | e .        weight 0 at "."
    """
    weight_T = np.where(is_reply_T > 0, 1.0, prompt_weight).astype(np.float32)
    weight_T = np.roll(weight_T, -1)
    weight_T[start_D1[1:] - 1] = 0
    length_D = np.diff(start_D1)
    position_T = np.arange(len(ids_T)) - np.repeat(start_D1[:-1], length_D)
    ids_T = ids_T.astype(np.int64)
    return PackedBatch(
        torch.from_numpy(ids_T),
        torch.from_numpy(np.roll(ids_T, -1)),
        torch.from_numpy(weight_T),
        torch.from_numpy(position_T),
        torch.from_numpy(start_D1.astype(np.int32)),
        int(length_D.max()),
    )
