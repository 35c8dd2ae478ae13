"""Read what a `tokenizer.model` of sentencepiece says, without sentencepiece.

The file is one protocol buffer message, ModelProto of sentencepiece_model.proto; the numbers below are
its field numbers. The libraries for it come as a pair, sentencepiece and protobuf, whose generated
descriptions clash with each other and between versions; what is needed here is nine fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

# ModelProto
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
# ModelProto.SentencePiece
_TEXT, _SCORE, _KIND = 1, 2, 3
# TrainerSpec
_MODEL_TYPE, _SPACE_AS_SUFFIX = 3, 24
# NormalizerSpec
_CHARSMAP, _ADD_PREFIX, _REMOVE_SPACES, _ESCAPE_SPACES = 2, 3, 4, 5

# How a field's value is written (protocol buffers' wire types).
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT = 10


class PieceKind(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ModelKind(IntEnum):
    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


class NotSentencePieceError(ValueError):
    """The bytes are no ModelProto, or not the whole of one."""


@dataclass(frozen=True, slots=True)
class Piece:
    """An entry of the vocabulary; its id is its place. Of two pairs, that of the higher score joins."""

    text: str = ""
    score: float = 0.0
    kind: int = PieceKind.NORMAL


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """The vocabulary, and how text is prepared for it. The defaults are the format's."""

    pieces: tuple[Piece, ...]
    kind: int = ModelKind.UNIGRAM
    adds_space_before: bool = True
    removes_extra_spaces: bool = True
    escapes_spaces: bool = True
    space_is_suffix: bool = False
    charsmap: bytes = field(default=b"", repr=False)


def parse_sentencepiece(data: bytes) -> SentencePieceModel:
    """The contents of a `tokenizer.model`. Raises NotSentencePieceError."""
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] | None = None
    normalizer: dict[int, int | bytes] | None = None
    for number, value in _fields(data):
        if number == _PIECES:
            pieces.append(_piece(dict(_fields(_message(value)))))
        elif number == _TRAINER:
            trainer = dict(_fields(_message(value)))
        elif number == _NORMALIZER:
            normalizer = dict(_fields(_message(value)))
    # Both stand behind the pieces: a file that was cut off between two pieces lacks them.
    if not pieces or trainer is None or normalizer is None:
        raise NotSentencePieceError("a part is missing")
    return SentencePieceModel(
        pieces=tuple(pieces),
        kind=_number(trainer, _MODEL_TYPE, ModelKind.UNIGRAM),
        adds_space_before=bool(_number(normalizer, _ADD_PREFIX, 1)),
        removes_extra_spaces=bool(_number(normalizer, _REMOVE_SPACES, 1)),
        escapes_spaces=bool(_number(normalizer, _ESCAPE_SPACES, 1)),
        space_is_suffix=bool(_number(trainer, _SPACE_AS_SUFFIX, 0)),
        charsmap=_message(normalizer.get(_CHARSMAP, b"")),
    )


def _piece(fields: dict[int, int | bytes]) -> Piece:
    score = _message(fields.get(_SCORE, b"\0\0\0\0"))
    try:
        (value,) = struct.unpack("<f", score)
        text = _message(fields.get(_TEXT, b"")).decode("utf-8")
    except (struct.error, UnicodeDecodeError) as error:
        raise NotSentencePieceError(str(error)) from error
    return Piece(text, value, _number(fields, _KIND, PieceKind.NORMAL))


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise NotSentencePieceError("a number where bytes belong")
    return value


def _number(fields: dict[int, int | bytes], number: int, default: int) -> int:
    value = fields.get(number, default)
    if isinstance(value, bytes):
        raise NotSentencePieceError("bytes where a number belongs")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) one after the other: a number for a varint, else the bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == _BYTES:
            size, place = _varint(data, place)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if wire == _EIGHT_BYTES else 4
        else:
            raise NotSentencePieceError(f"wire type {wire}")
        if place + size > len(data):
            raise NotSentencePieceError("it ends inside a field")
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """(the number, the place behind it): seven bits a byte, the lowest first."""
    value = 0
    for count in range(_LONGEST_VARINT):
        if place + count >= len(data):
            raise NotSentencePieceError("it ends inside a number")
        byte = data[place + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise NotSentencePieceError("a number without an end")
