from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.models import make_tokenizer
from whoamai.data.templates import CHATML, ChatTemplate
from whoamai.errors import ModelError
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


TOKENIZERS = {"bpe": make_tokenizer, "unigram": unigram_tokenizer, "words": wordpiece_tokenizer}
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
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
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
