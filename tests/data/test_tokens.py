"""A text's ids are the same whether it is tokenized whole or between its special tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests.models import make_tokenizer
from whoamai.data.tokens import Tokens
from whoamai.model.load import load_tokenizer

_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_"]
PIECES = [
    *_SPECIAL,
    "你是谁",
    "Who are you",
    " ",
    "\n",
    "e\u0301",
    "é",
    "12",
    "🦊",
    "<",
    "|>",
    "\u200b",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join)


def byte_level(*, strip: bool = False, normalizer=None, prefix: bool = False):
    """A byte-level tokenizer; `<|im_` is a token that another one begins with."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizer
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[
            AddedToken(t, special=True, normalized=False, lstrip=strip) for t in _SPECIAL
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["你是谁？我是小初。", "Who are you? I am Chu.", "é 12"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core)


CLEAN = {
    "plain": byte_level(),
    "NFC": byte_level(normalizer=normalizers.NFC()),
    "test model": make_tokenizer(),
    "bundled": load_tokenizer("tiny-chat")[0],
}
UNCLEAN = {
    "strips": byte_level(strip=True),
    "lower case": byte_level(normalizer=normalizers.Lowercase()),
    "prefix space": byte_level(prefix=True),
}


def whole(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", [*CLEAN, *UNCLEAN])
@given(text=TEXTS)
def test_the_ids_are_those_of_the_whole_text(name: str, text: str):
    tokenizer = {**CLEAN, **UNCLEAN}[name]
    assert Tokens(tokenizer)(text) == whole(tokenizer, text)


@pytest.mark.parametrize("name", CLEAN)
def test_a_piece_that_comes_again_is_not_tokenized_again(name: str):
    tokens = Tokens(CLEAN[name])
    text = "<|im_start|>system\nYou are Chu.<|im_end|>\n<|im_start|>user\n你好<|im_end|>\n"
    first = tokens(text)
    tokens._tokenizer = None  # whatever is tokenized from now on fails
    assert tokens(text) == first


@pytest.mark.parametrize("name", UNCLEAN)
def test_a_tokenizer_that_looks_over_borders_gets_the_whole_text(name: str):
    assert Tokens(UNCLEAN[name])._cut is None


def test_what_is_remembered_has_an_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("whoamai.data.tokens._REMEMBERED", 10)
    tokens = Tokens(CLEAN["plain"])
    for i in range(200):
        assert tokens(f"<|im_start|>{i}") == whole(CLEAN["plain"], f"<|im_start|>{i}")
    assert len(tokens._known) <= 10
