"""A small sentencepiece model, written as InternLM2's folder on the hub has it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path

SPACE = "▁"
SPECIAL = ("<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>")
SPECIAL += ("<|im_end|>", "<|im_start|>")
_WORDS = ("▁hello", "▁who", "▁are", "▁you", "▁name", "assistant", "system", "user", "▁▁▁▁")
_WORDS += ("你是谁", "我是", "小初", "初心实验室", "开发的", "助手", "▁the", "ing", "aaaa", "\t\t")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'_-|<>[]\n\t▁"
_LETTERS += "，。？！你好是谁我由心实验室开发的助手"

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
Pieces = list[tuple[str, float, int]]


def pieces() -> Pieces:
    """(text, score, kind) of 421 pieces: bytes, beginnings of words, letters, seven to spare."""
    found: Pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    found += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    parts = [word[:end] for word in _WORDS for end in range(2, len(word) + 1)]
    texts = dict.fromkeys([*sorted(parts, key=len), *_LETTERS, *"".join(_WORDS)])
    found += [(text, -float(rank), NORMAL) for rank, text in enumerate(texts)]
    spare = (f"[UNUSED_TOKEN_{number}]" for number in range(140, 141 + len(SPECIAL)))
    return found + [(text, 0.0, USER_DEFINED) for text in spare]


def serialized(
    vocabulary: Pieces, *, kind: int = 2, add_prefix: bool = False, remove_spaces: bool = False
) -> bytes:
    """A ModelProto; `kind` 2 is BPE."""
    body = b"".join(
        _bytes(1, _bytes(1, t.encode()) + b"\x15" + struct.pack("<f", s) + _number(3, k))
        for t, s, k in vocabulary
    )
    trainer = _number(3, kind) + _number(35, 1) + _bytes(45, b"<unk>")
    normalizer = _bytes(1, b"identity") + _number(3, add_prefix) + _number(4, remove_spaces)
    return body + _bytes(2, trainer) + _bytes(3, normalizer)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(int(value))


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def tokenizer_settings(vocabulary: Pieces, special: Iterable[str] = SPECIAL) -> dict:
    """A tokenizer_config.json that points to code beside it; special tokens over the last pieces."""
    names = list(special)
    first = len(vocabulary) - len(names)
    placed = {0: "<unk>", 1: "<s>", 2: "</s>", **dict(enumerate(names, start=first))}
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(number): {"content": text, **flags, "special": True}
            for number, text in placed.items()
        },
        "additional_special_tokens": names,
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "InternLM2Tokenizer",
    }


def save_tokenizer(folder: Path, *, chat_template: str | None = None, **form) -> Path:
    """Write tokenizer.model and tokenizer_config.json; `form` is for `serialized`."""
    vocabulary = pieces()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(serialized(vocabulary, **form))
    settings = tokenizer_settings(vocabulary)
    if chat_template is not None:
        settings["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder
