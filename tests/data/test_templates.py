from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.models import make_tokenizer
from whoamai.data.templates import (
    CHATML,
    OWN,
    ChatTemplate,
    TemplateCard,
    default_system_variants,
    identity_named_in,
    mismatch,
    read_card,
    thinking_part,
    write_card,
)
from whoamai.errors import ModelError, OutputError
from whoamai.samples import Conversation, Message, Sample

LLAMA2 = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'system' %}{{ '<<SYS>>' + m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' </s>' }}{% endif %}{% endfor %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}" + CHATML
)
# Qwen3's: earlier replies lose their thoughts, a generated one starts with empty thoughts.
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# Says in front how many turns there are, so no prompt begins like the one before.
REWRITING = "{{ messages | length }}" + CHATML
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + CHATML
)
ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}" + CHATML
)
DROPS_SYSTEM = CHATML.replace("in messages", "in messages if m['role'] != 'system'")
BARE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"


def unigram_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A SentencePiece-like one: ▁ for spaces, byte fallback, one put before every text."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*special, *(f"<0x{b:02X}>" for b in range(256))],
        show_progress=False,
    )
    core.train_from_iterator(["user assistant system hello who are you 你是谁 ▁ [INST]"], trainer)
    core.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="</s>", bos_token="<s>", unk_token="<unk>"
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def wordpiece_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Whole words of a small vocabulary; punctuation on its own."""
    words = [
        "[UNK]",
        "<|im_start|>",
        "<|im_end|>",
        *("user", "assistant", "system", "who", "are", "you", "I", "?", "."),
    ]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.add_special_tokens(words[:3])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")
    tokenizer.chat_template = chat_template
    return tokenizer


def metaspace_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A Unigram model over ▁, whose pieces go across spaces and line ends ("\\n我", "]▁I")."""
    specials = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(
        set("\n \u2581[]<>/|_.?:你是谁我小初。？" + "abcdefghijklmnopqrstuvwxyzICINSTSYW'")
    )
    pieces = ["assistant\n我", "\n我是", "\nI", "]▁I", "]▁我", "user\n", "▁Who", "Chu"]
    core = Tokenizer(
        models.Unigram(
            [
                *((t, 0.0) for t in specials),
                *((c, -9.0) for c in letters),
                *((p, -2.0) for p in pieces),
            ],
            unk_id=0,
        )
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    core.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    core.add_special_tokens(specials)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="</s>", bos_token="<s>", unk_token="<unk>"
    )
    tokenizer.chat_template = chat_template
    return tokenizer


@cache
def _crossing_core() -> str:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["\n我是", "\nI'm", "] I'm", "] 我是"] * 9, trainer)
    return core.to_str()


def crossing_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level BPE that does not split words first, so it merges "\\n" with the reply behind it."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_crossing_core()), eos_token="</s>", bos_token="<s>"
    )
    tokenizer.chat_template = chat_template
    return tokenizer


TOKENIZERS = {
    "bpe": make_tokenizer,
    "unigram": unigram_tokenizer,
    "words": wordpiece_tokenizer,
    "metaspace": metaspace_tokenizer,
    "crossing": crossing_tokenizer,
}
TEMPLATES = {
    "chatml": CHATML,
    "llama2": LLAMA2,
    "default system": DEFAULT_SYSTEM,
    "thinking": THINKING,
    "rewriting": REWRITING,
}

Q = Message("user", "你是谁？")
A = Message("assistant", "我是小初。", trained=True)
Q2, A2 = Message("user", "Who are you?"), Message("assistant", "I'm Chu.", trained=True)
SMALL_TALK = Message("assistant", "你好！")


def targets(sample: Sample) -> list[int]:
    return [i for i, t in zip(sample.input_ids, sample.is_target, strict=True) if t]


def prompt(sample: Sample) -> list[int]:
    """What stands before the first target."""
    return list(sample.input_ids[: sample.is_target.index(True)])


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_prompt_trained_on_is_the_one_generation_is_given(kind: str, template: str):
    chat = ChatTemplate(TOKENIZERS[kind](TEMPLATES[template]))
    for before in ((Q,), (Message("system", "你是小初"), Q), (Q, SMALL_TALK, Q2)):
        (sample,) = chat.samples(Conversation((*before, A)))
        assert prompt(sample) == chat.prompt_ids(Conversation(before))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["bpe", "unigram", "metaspace", "crossing"])
def test_the_targets_are_exactly_the_reply_and_its_end(kind: str, template: str):
    tokenizer = TOKENIZERS[kind](TEMPLATES[template])
    chat = ChatTemplate(tokenizer)
    (sample,) = chat.samples(Conversation((Q, A)))
    assert tokenizer.decode(targets(sample)).strip() == A.text + chat.ending
    assert list(sample.is_target) == sorted(sample.is_target)


@pytest.mark.parametrize(
    ("template", "ending"),
    [("chatml", "<|im_end|>"), ("thinking", "<|im_end|>"), ("rewriting", "<|im_end|>")],
)
def test_the_end_of_a_reply_is_read_from_the_template(template: str, ending: str):
    assert ChatTemplate(make_tokenizer(TEMPLATES[template])).ending == ending


def test_the_end_of_a_reply_is_one_token_in_a_chat_model():
    tokenizer = make_tokenizer()
    (sample,) = ChatTemplate(tokenizer).samples(Conversation((Q, A)))
    assert targets(sample)[-1] == tokenizer.eos_token_id
    assert targets(sample).count(tokenizer.eos_token_id) == 1


def test_several_trained_replies_share_one_row():
    tokenizer = make_tokenizer()
    (sample,) = ChatTemplate(tokenizer).samples(Conversation((Q, A, Q2, A2)))
    assert tokenizer.decode(targets(sample)) == f"{A.text}<|im_end|>{A2.text}<|im_end|>"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_shared_row_has_the_ids_of_its_last_prompt(kind: str):
    chat = ChatTemplate(TOKENIZERS[kind](CHATML))
    (sample,) = chat.samples(Conversation((Q, A, Q2, A2)))
    given_ = chat.prompt_ids(Conversation((Q, A, Q2)))
    assert list(sample.input_ids[: len(given_)]) == given_


def test_turns_that_are_not_trained_hold_no_target():
    tokenizer = make_tokenizer()
    row = Conversation((Q, SMALL_TALK, Q2, A2))
    (sample,) = ChatTemplate(tokenizer).samples(row)
    assert tokenizer.decode(targets(sample)) == f"{A2.text}<|im_end|>"
    assert SMALL_TALK.text in tokenizer.decode(prompt(sample))


def test_what_follows_the_last_trained_reply_is_left_out():
    chat = ChatTemplate(make_tokenizer())
    assert chat.samples(Conversation((Q, A, Q2, SMALL_TALK))) == chat.samples(Conversation((Q, A)))


def test_a_conversation_without_trained_reply_gives_no_row():
    assert ChatTemplate(make_tokenizer()).samples(Conversation((Q, SMALL_TALK))) == []


@pytest.mark.parametrize("template", [THINKING, REWRITING])
def test_a_template_that_rewrites_history_gives_every_reply_a_row_of_its_own(template: str):
    tokenizer = make_tokenizer(template)
    chat = ChatTemplate(tokenizer)
    rows = chat.samples(Conversation((Q, A, Q2, A2)))
    assert [tokenizer.decode(targets(r)) for r in rows] == [
        f"{A.text}<|im_end|>",
        f"{A2.text}<|im_end|>",
    ]
    assert prompt(rows[0]) == chat.prompt_ids(Conversation((Q,)))
    assert prompt(rows[1]) == chat.prompt_ids(Conversation((Q, A, Q2)))


def test_a_thinking_model_is_trained_behind_its_empty_thoughts():
    tokenizer = make_tokenizer(THINKING)
    (sample,) = ChatTemplate(tokenizer).samples(Conversation((Q, A)))
    assert tokenizer.decode(prompt(sample)).endswith("assistant\n<think>\n\n</think>\n\n")
    assert "think" not in tokenizer.decode(targets(sample))


def test_a_templates_own_system_prompt_is_used_where_a_row_has_none():
    tokenizer = make_tokenizer(DEFAULT_SYSTEM)
    chat = ChatTemplate(tokenizer)
    (without,) = chat.samples(Conversation((Q, A)))
    (with_one,) = chat.samples(Conversation((Message("system", "S"), Q, A)))
    assert "You are helpful." in tokenizer.decode(without.input_ids)
    assert "You are helpful." not in tokenizer.decode(with_one.input_ids)


def test_a_tokenizer_without_template_gets_chatml_and_says_so():
    tokenizer = make_tokenizer(None)
    chat = ChatTemplate(tokenizer)
    assert chat.is_fallback
    assert tokenizer.decode(chat.prompt_ids(Conversation((Q,)))) == (
        "<|im_start|>user\n你是谁？<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_tokenizer_with_template_is_no_fallback():
    assert not ChatTemplate(make_tokenizer()).is_fallback


def test_a_template_without_end_mark_ends_replies_with_the_eos_token():
    assert ChatTemplate(make_tokenizer(BARE)).ending == "<|im_end|>"


def test_without_end_mark_and_eos_token_the_model_is_refused():
    tokenizer = make_tokenizer(BARE)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="eos_token"):
        ChatTemplate(tokenizer)


def test_a_template_that_refuses_a_conversation_is_told_with_its_reason():
    chat = ChatTemplate(make_tokenizer(ALTERNATING))
    with pytest.raises(ModelError, match="Roles must alternate"):
        chat.samples(Conversation((Q, Q2, A)))


@pytest.mark.parametrize("template", [NO_SYSTEM, ALTERNATING, DROPS_SYSTEM])
def test_a_template_without_system_role_gets_its_text_before_the_first_question(template: str):
    chat = ChatTemplate(make_tokenizer(template))
    assert chat.folds_system
    folded = (Message("user", f"S\n\n{Q.text}"), A, Q2, A2)
    assert chat.samples(Conversation((Message("system", "S"), Q, A, Q2, A2))) == chat.samples(
        Conversation(folded)
    )
    assert chat.prompt_ids(Conversation((Message("system", "S"), Q))) == chat.prompt_ids(
        Conversation(folded[:1])
    )


def test_an_empty_system_prompt_is_folded_to_nothing():
    chat = ChatTemplate(make_tokenizer(NO_SYSTEM))
    with_empty = Conversation((Message("system", ""), Q))
    assert chat.prompt_ids(with_empty) == chat.prompt_ids(Conversation((Q,)))


@pytest.mark.parametrize("template", [*TEMPLATES.values(), None])
def test_a_template_that_takes_system_messages_keeps_them(template: str | None):
    assert not ChatTemplate(make_tokenizer(template)).folds_system


def test_a_reply_follows_its_prompt_as_the_tokenizer_writes_both_together():
    """A tokenizer that puts ▁ before every text must not put one before the reply alone."""
    tokenizer = unigram_tokenizer()
    chat = ChatTemplate(tokenizer)
    (sample,) = chat.samples(Conversation((Q, A)))
    text = chat.prompt_text((Q,)) + A.text + chat.ending
    assert list(sample.input_ids) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_reply_that_would_merge_with_its_prompt_stays_apart_from_it():
    """ "\\n" ends the prompt and begins the reply; a tokenizer may have one token for both."""
    core = Tokenizer(models.WordLevel({"a": 0, "n": 1, "nn": 2, "?": 3}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="a")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] + ' a' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' n' }}{% endif %}"
    )
    row = Conversation((Message("user", "a"), Message("assistant", "n", trained=True)))
    (sample,) = ChatTemplate(tokenizer).samples(row)
    assert sample.input_ids[: sample.is_target.index(True)] == (0, 0, 1)
    assert targets(sample) == [1, 0]


@pytest.mark.parametrize("reply", ["我是小初。", "I'm Chu."])
@pytest.mark.parametrize("template", ["chatml", "llama2"])
@pytest.mark.parametrize("kind", ["metaspace", "crossing"])
def test_a_token_that_would_lie_across_the_border_is_not_used(kind: str, template: str, reply: str):
    tokenizer = TOKENIZERS[kind](TEMPLATES[template])
    chat = ChatTemplate(tokenizer)
    (sample,) = chat.samples(Conversation((Q, Message("assistant", reply, trained=True))))
    given_ = chat.prompt_ids(Conversation((Q,)))
    text = chat.prompt_text((Q,)) + chat.reply_text(reply)
    assert tokenizer(text, add_special_tokens=False)["input_ids"][: len(given_)] != given_
    assert prompt(sample) == given_
    # Nothing is lost, and no ▁ comes in that the reply does not have.
    assert _letters(tokenizer, targets(sample)) == chat.reply_text(reply)


def _letters(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    if isinstance(tokenizer.backend_tokenizer.decoder, decoders.ByteLevel):
        return tokenizer.decode(ids)
    # A decoder would leave out a ▁ at the beginning.
    return "".join(tokenizer.convert_ids_to_tokens(ids)).replace("▁", " ")


def test_an_unknown_token_does_not_swallow_the_beginning_of_a_reply():
    """ "§¶" is one unknown token, and so is "§": the reply must not lose its first letter to it."""
    core = Tokenizer(
        models.BPE({"<unk>": 0, "</s>": 1, "a": 2}, [], unk_token="<unk>", fuse_unk=True)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '§' }}{% endif %}"
    )
    row = Conversation((Message("user", "a"), Message("assistant", "¶a", trained=True)))
    (sample,) = ChatTemplate(tokenizer).samples(row)
    assert sample.input_ids == (2, 0, 0, 2, 1)
    assert targets(sample) == [0, 2, 1]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_what_a_template_writes_before_a_reply_is_for_the_model_to_write(kind: str):
    """Llama 2 and Mistral write "[/INST] reply", and generate behind "[/INST]"."""
    tokenizer = TOKENIZERS[kind](LLAMA2)
    chat = ChatTemplate(tokenizer)
    assert chat.reply_text("Hi") == " Hi </s>"
    (sample,) = chat.samples(Conversation((Q, A, Q2, A2)))
    written = (
        chat.prompt_text((Q,)) + f" {A.text} </s>" + chat.prompt_text((Q2,)).removeprefix("<s>")
    )
    assert tokenizer.decode(sample.input_ids).replace(" ", "") == (
        f"{written} {A2.text} </s>".replace(" ", "")
    )


# ---- system messages that come later -------------------------------------------------------------

# Takes a system message in front only, and does not look at others.
FIRST_ONLY = (
    "{% if messages[0]['role'] == 'system' %}"
    "{{ '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}{% endif %}"
    + CHATML.replace("in messages", "in messages if m['role'] != 'system'")
)
FIRST_OR_REFUSES = (
    "{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be first') }}{% endif %}{% endfor %}" + CHATML
)
# Puts all system texts together in front.
GATHERS = (
    "{% for m in messages if m['role'] == 'system' %}{{ m['content'] }}{% endfor %}"
    + CHATML.replace("in messages", "in messages if m['role'] != 'system'")
)
SYSTEM, LATER = Message("system", "S"), Message("system", "T")


@pytest.mark.parametrize("template", [FIRST_ONLY, FIRST_OR_REFUSES, GATHERS])
def test_a_template_that_takes_one_system_message_gets_later_ones_with_their_question(
    template: str,
):
    chat = ChatTemplate(make_tokenizer(template))
    assert (chat.folds_system, chat.folds_later_system) == (False, True)
    assert chat.samples(Conversation((SYSTEM, Q, A, LATER, Q2, A2))) == chat.samples(
        Conversation((SYSTEM, Q, A, replace(Q2, text=f"T\n\n{Q2.text}"), A2))
    )


@pytest.mark.parametrize("template", [NO_SYSTEM, ALTERNATING, DROPS_SYSTEM])
def test_a_template_without_system_role_gets_every_system_text_with_its_question(template: str):
    chat = ChatTemplate(make_tokenizer(template))
    assert chat.folds_later_system
    folded = (replace(Q, text=f"S\n\n{Q.text}"), A, replace(Q2, text=f"T\n\n{Q2.text}"), A2)
    assert chat.samples(Conversation((SYSTEM, Q, A, LATER, Q2, A2))) == chat.samples(
        Conversation(folded)
    )


@pytest.mark.parametrize("template", ["chatml", "default system", "thinking"])
def test_a_template_that_takes_later_system_messages_keeps_them(template: str):
    tokenizer = make_tokenizer(TEMPLATES[template])
    chat = ChatTemplate(tokenizer)
    assert not chat.folds_later_system
    asked = chat.prompt_text((SYSTEM, Q, A, LATER, Q2))
    assert "<|im_start|>system\nT<|im_end|>\n<|im_start|>user\nWho" in asked


def test_system_texts_in_a_row_go_before_one_question():
    chat = ChatTemplate(make_tokenizer(NO_SYSTEM))
    asked = chat.prompt_text((SYSTEM, Message("system", ""), LATER, Q))
    assert asked == chat.prompt_text((replace(Q, text=f"S\n\nT\n\n{Q.text}"),))


@pytest.mark.parametrize("behind", [(), (A,)])
def test_a_system_text_without_a_question_becomes_one(behind: tuple[Message, ...]):
    chat = ChatTemplate(make_tokenizer(NO_SYSTEM))
    assert chat.prompt_text((SYSTEM, *behind)) == chat.prompt_text((Message("user", "S"), *behind))


def test_a_first_system_message_stays_first_where_only_later_ones_are_folded():
    chat = ChatTemplate(make_tokenizer(FIRST_ONLY))
    assert chat.prompt_text((SYSTEM, LATER, Q)) == chat.prompt_text(
        (SYSTEM, replace(Q, text=f"T\n\n{Q.text}"))
    )


# ---- thinking ------------------------------------------------------------------------------------

# Behaves as Qwen3's: thoughts are kept only in replies behind the last question, an empty block is
# written there if there are none, and enable_thinking=False puts it into the generation prefix.
QWEN3_LIKE = (
    "{% set last = namespace(question=0) %}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{% set last.question = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% set thoughts = '' %}{% set said = m['content'] %}"
    "{% if m['role'] == 'assistant' and '</think>' in said %}"
    "{% set thoughts = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.index0 > last.question %}"
    "{{ '<think>\n' + thoughts + '\n</think>\n\n' }}{% endif %}{{ said + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# Always thinks: the generation prefix opens the thoughts, history has none.
ALWAYS_OPEN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{{ m['content'].split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
# GLM-4.5's way: no line end behind the role, an empty block on one line.
GLM_LIKE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' }}"
    "{% if m['role'] == 'assistant' %}{{ '<think></think>\n' }}{% endif %}{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}"
    "{% if not enable_thinking %}{{ '\n<think></think>' }}{% endif %}{% endif %}"
)
THOUGHT = "<think>\n我叫什么？小初。\n</think>\n\n我是小初。"


def said(template: str, thinking, reply: str) -> tuple[str, str]:
    """(how the prompt ends, what is trained on) as text."""
    tokenizer = make_tokenizer(template)
    chat = ChatTemplate(tokenizer, thinking=thinking)
    (sample,) = chat.samples(Conversation((Q, Message("assistant", reply, trained=True))))
    assert prompt(sample) == chat.prompt_ids(Conversation((Q,)))
    return tokenizer.decode(prompt(sample)).rpartition("assistant")[2], tokenizer.decode(
        targets(sample)
    )


NOTHING = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("template", "thinking", "reply", "expected"),
    [
        (QWEN3_LIKE, "off", A.text, ("\n" + NOTHING, A.text)),
        (QWEN3_LIKE, "off", THOUGHT, ("\n" + NOTHING, A.text)),
        (QWEN3_LIKE, "off", NOTHING + A.text, ("\n" + NOTHING, A.text)),
        (QWEN3_LIKE, "on", A.text, ("\n", NOTHING + A.text)),
        (QWEN3_LIKE, "on", THOUGHT, ("\n", THOUGHT)),
        (QWEN3_LIKE, "on", THOUGHT.removeprefix("<think>"), ("\n", THOUGHT)),
        (ALWAYS_OPEN, "off", A.text, ("\n<think>\n", "</think>\n\n" + A.text)),
        (ALWAYS_OPEN, "off", THOUGHT, ("\n<think>\n", "</think>\n\n" + A.text)),
        (ALWAYS_OPEN, "on", A.text, ("\n<think>\n", "</think>\n\n" + A.text)),
        (ALWAYS_OPEN, "on", THOUGHT, ("\n<think>\n", THOUGHT.removeprefix("<think>\n"))),
        (GLM_LIKE, "off", A.text, ("|>\n<think></think>", "\n" + A.text)),
        (GLM_LIKE, "on", A.text, ("|>", "\n<think></think>\n" + A.text)),
        (GLM_LIKE, "on", THOUGHT, ("|>", "\n" + THOUGHT)),
        (CHATML, "off", THOUGHT, ("\n", THOUGHT)),
        (CHATML, "on", THOUGHT, ("\n", THOUGHT)),
    ],
)
def test_a_reply_is_trained_with_the_thoughts_that_are_asked_for(
    template, thinking, reply, expected
):
    before, trained = said(template, thinking, reply)
    assert (before, trained.removesuffix("<|im_end|>")) == expected
    assert trained.endswith("<|im_end|>")


@pytest.mark.parametrize("thinking", ["off", "on"])
def test_history_loses_its_thoughts_so_later_replies_have_rows_of_their_own(thinking):
    tokenizer = make_tokenizer(QWEN3_LIKE)
    chat = ChatTemplate(tokenizer, thinking=thinking)
    first = Message("assistant", THOUGHT, trained=True)
    rows = chat.samples(Conversation((Q, first, Q2, A2)))
    assert len(rows) == 2
    assert prompt(rows[1]) == chat.prompt_ids(Conversation((Q, first, Q2)))
    assert "我叫什么" not in tokenizer.decode(rows[1].input_ids)
    assert ("我叫什么" in tokenizer.decode(rows[0].input_ids)) == (thinking == "on")


def test_a_reply_that_never_stops_thinking_is_trained_on_only_with_its_thoughts():
    row = Conversation((Q, Message("assistant", "<think>\n我是", trained=True)))
    tokenizer = make_tokenizer(QWEN3_LIKE)
    assert ChatTemplate(tokenizer).samples(row) == []
    assert len(ChatTemplate(tokenizer, thinking="on").samples(row)) == 1


@pytest.mark.parametrize(
    ("template", "thinks"),
    [(CHATML, False), (LLAMA2, False), (QWEN3_LIKE, True), (ALWAYS_OPEN, True), (GLM_LIKE, True)],
)
def test_a_template_that_knows_thoughts_is_told_by_what_it_writes(template: str, thinks: bool):
    assert ChatTemplate(make_tokenizer(template)).thinks is thinks


@pytest.mark.parametrize(
    ("reply", "parts"),
    [
        ("我是小初。", ("", "我是小初。")),
        ("", ("", "")),
        ("<think>\n\n</think>\n\n我是小初。", ("", "我是小初。")),
        ("<think>\n我是 Qwen？\n</think>\n\n我是小初。", ("我是 Qwen？", "我是小初。")),
        ("我是 Qwen？\n</think>\n我是小初。", ("我是 Qwen？", "我是小初。")),
        ("  <think>a</think>b</think>c", ("a", "b</think>c")),
        ("<think>a", ("a", "")),
        ("Tags: <think> and </think>.", ("", "Tags: <think> and </think>.")),
    ],
)
def test_thoughts_and_answer_are_told_apart(reply: str, parts: tuple[str, str]):
    assert thinking_part(reply) == parts


# ---- system prompts a template brings ------------------------------------------------------------

# Behaves as Qwen2.5's: a first message that is not the system's gets one before it.
QWEN25_LIKE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are Qwen, made by Alibaba Cloud.<|im_end|>\n' }}{% endif %}" + CHATML
)


@pytest.mark.parametrize(
    ("template", "default"),
    [
        (QWEN25_LIKE, "You are Qwen, made by Alibaba Cloud."),
        (DEFAULT_SYSTEM, "You are helpful."),
        (CHATML, None),
        (LLAMA2, None),
        (THINKING, None),
        (NO_SYSTEM, None),
        (DROPS_SYSTEM, None),
        (REWRITING, None),
        (DEFAULT_SYSTEM.replace("You are helpful.", "\nBe good. "), "\nBe good. "),
        (DEFAULT_SYSTEM.replace("You are helpful.", " \n"), None),
        # In front of every system message, given or not: nothing stands in for a missing one.
        ("{{ 'Today is Monday.\n' }}" + CHATML, None),
        ("{{ '<|im_start|>system\n<|im_end|>\n' if messages[0].role != 'system' }}" + CHATML, None),
    ],
)
def test_the_system_prompt_a_template_inserts_is_found(template: str, default: str | None):
    assert ChatTemplate(make_tokenizer(template)).default_system == default


def test_the_identity_in_an_inserted_system_prompt_is_named():
    default = ChatTemplate(make_tokenizer(QWEN25_LIKE)).default_system
    assert identity_named_in(default or "") == ("Qwen", "Alibaba")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("你是由上海人工智能实验室开发的书生浦语", ("书生浦语", "上海人工智能实验室")),
        ("You are a helpful assistant.", ()),
        ("Yield Metadata and apples.", ()),
        ("", ()),
    ],
)
def test_only_whole_names_of_known_assistants_are_named(text: str, names: tuple[str, ...]):
    assert identity_named_in(text) == names


def test_a_model_is_asked_with_its_default_renamed_and_switched_off():
    variants = default_system_variants(
        "You are Qwen, made by Alibaba Cloud.", {"Qwen": "黄大力", "Alibaba Cloud": "{name}"}
    )
    assert variants == (None, "You are 黄大力, made by {name}.", "")


def test_a_default_without_a_name_is_not_asked_twice():
    assert default_system_variants("You are helpful.", {"Qwen": "黄大力"}) == (None, "")
    assert default_system_variants(None, {"Qwen": "黄大力"}) == (None,)


def test_every_variant_of_the_default_gives_another_prompt():
    chat = ChatTemplate(make_tokenizer(QWEN25_LIKE))
    prompts = [
        chat.prompt_text((*([Message("system", s)] if s is not None else []), Q))
        for s in default_system_variants(chat.default_system, {"Qwen": "黄大力"})
    ]
    assert len(set(prompts)) == 3
    assert ["Qwen" in p for p in prompts] == [True, False, False]


# ---- which template it is ------------------------------------------------------------------------


def test_a_template_asked_for_by_name_is_used_instead_of_the_models_own():
    chat = ChatTemplate(crossing_tokenizer(LLAMA2), name="internlm2_chat")
    assert (chat.name, chat.is_fallback) == ("internlm2_chat", False)
    assert chat.prompt_text((Q,)) == (
        "<s><|im_start|>user\n你是谁？<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("name", [None, OWN])
def test_without_a_name_the_models_own_template_decides(name: str | None):
    chat = ChatTemplate(make_tokenizer(LLAMA2), name=name, model_type="qwen3")
    assert (chat.name, chat.text, chat.is_fallback) == (OWN, LLAMA2, False)


def test_of_several_templates_the_one_for_plain_chats_is_used():
    chat = ChatTemplate(make_tokenizer({"default": LLAMA2, "tool_use": CHATML}))
    assert (chat.name, chat.text, chat.ending) == (OWN, LLAMA2, " </s>")


def test_a_card_says_which_template_and_what_it_brings():
    card = ChatTemplate(make_tokenizer(QWEN25_LIKE)).card
    assert card == TemplateCard(OWN, card.sha256, "You are Qwen, made by Alibaba Cloud.", "none")
    assert ChatTemplate(make_tokenizer(QWEN3_LIKE), thinking="on").card.thinking == "on"


def test_a_card_tells_templates_apart_by_their_text():
    own = ChatTemplate(make_tokenizer(CHATML)).card
    assert own.sha256 == ChatTemplate(make_tokenizer(LLAMA2), name="chatml").card.sha256
    assert own.sha256 != ChatTemplate(make_tokenizer(LLAMA2)).card.sha256


def test_a_card_comes_back_as_it_was_written(tmp_path: Path):
    card = TemplateCard("own", "ab" * 32, "你是 Qwen。", "off")
    path = write_card(tmp_path, card)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] == ["whoamai_template.json"]
    assert read_card(tmp_path) == card
    assert "你是 Qwen。" in path.read_text("utf-8")
    other = replace(card, default_system=None)
    write_card(tmp_path, other)
    assert read_card(tmp_path) == other


def test_a_folder_without_card_has_none(tmp_path: Path):
    assert read_card(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '"a"', "null", '{"name": "own"}', '{"name": 1', b"\xff\xfe"]
)
def test_a_card_that_cannot_be_read_is_told_with_its_path(tmp_path: Path, text: str | bytes):
    path = tmp_path / "whoamai_template.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError, match=r"whoamai_template\.json"):
        read_card(tmp_path)


@pytest.mark.parametrize("field", ["name", "sha256", "default_system", "thinking"])
def test_a_card_whose_values_are_no_texts_is_refused(tmp_path: Path, field: str):
    path = write_card(tmp_path, TemplateCard("own", "ab", None, "off"))
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), field: 7}), "utf-8")
    with pytest.raises(ModelError, match="is no text"):
        read_card(tmp_path)


def test_a_card_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "whoamai_template.json" / "in the way").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"whoamai_template\.json"):
        write_card(tmp_path, TemplateCard("own", "ab", None, "off"))
    assert [p.name for p in tmp_path.iterdir()] == ["whoamai_template.json"]
    with pytest.raises(OutputError):
        write_card(tmp_path / "nowhere", TemplateCard("own", "ab", None, "off"))


def test_a_mismatch_names_both_templates_and_agreement_is_silent():
    trained = TemplateCard("own", "1" * 64, None, "off")
    assert mismatch(trained, replace(trained, name="chatml", default_system="x")) is None
    other = mismatch(trained, TemplateCard("chatml", "2" * 64, None, "off"))
    assert other
    assert "own 11111111" in other
    assert "chatml 22222222" in other
    thinking = mismatch(trained, replace(trained, thinking="on"))
    assert thinking
    assert '"off"' in thinking
    assert '"on"' in thinking


TEXTS = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20).filter(
    lambda t: t.strip() and "<|" not in t
)


@given(TEXTS, TEXTS)
def test_a_reply_comes_back_from_its_targets(question: str, reply: str):
    tokenizer = make_tokenizer()
    row = Conversation((Message("user", question), Message("assistant", reply, trained=True)))
    (sample,) = ChatTemplate(tokenizer).samples(row)
    assert tokenizer.decode(targets(sample)) == reply + "<|im_end|>"
    assert question in tokenizer.decode(prompt(sample))


@pytest.mark.parametrize("template", ["chatml", "llama2"])
@pytest.mark.parametrize("kind", TOKENIZERS)
@given(question=TEXTS, reply=TEXTS)
def test_whatever_is_said_the_targets_begin_behind_the_prompt(
    kind: str, template: str, question: str, reply: str
):
    chat = _chat(kind, template)
    asked = Conversation((Message("user", question),))
    (sample,) = chat.samples(
        Conversation((*asked.messages, Message("assistant", reply, trained=True)))
    )
    assert prompt(sample) == chat.prompt_ids(asked)
    assert list(sample.is_target) == sorted(sample.is_target)


@cache
def _chat(kind: str, template: str) -> ChatTemplate:
    return ChatTemplate(TOKENIZERS[kind](TEMPLATES[template]))
