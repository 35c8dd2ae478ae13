from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.data.test_templates import TEXTS, TOKENIZERS, prompt, targets
from whoamai.data.template_families import (
    TEMPLATE_NAMES,
    XTUNER_LEFT_OUT,
    XTUNER_PIECES,
    family_for,
    template_text,
    xtuner_pieces,
)
from whoamai.data.templates import ChatTemplate
from whoamai.errors import SettingError
from whoamai.samples import Conversation, Message

S = Message("system", "You are Chu.")
Q, A = Message("user", "你是谁？"), Message("assistant", "我是小初。", trained=True)
Q2, A2 = Message("user", "Who are you?"), Message("assistant", "I'm Chu.", trained=True)
WANT_A_START = ("internlm2_chat", "llama3_chat", "mistral", "gemma", "default")
SPECIAL = [
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "[gMASK]", "<sop>", "sop"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|System|>", "<|User|>", "<|Bot|>"),
]


@cache
def _core() -> str:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["你是谁？我是小初。 Who are you? I'm Chu. user assistant"], trainer)
    return core.to_str()


def rich_tokenizer(*, bos: str | None = "<s>") -> PreTrainedTokenizerFast:
    """A byte-level BPE with the special tokens of all families, and no template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_core()), bos_token=bos, eos_token="</s>"
    )


@cache
def _chat(kind: str, name: str) -> ChatTemplate:
    tokenizer = rich_tokenizer() if kind == "rich" else TOKENIZERS[kind](None)
    return ChatTemplate(tokenizer, name=name)


# What a model of the family is given, start token and all, for: S, Q, A, Q2; then how replies end.
EXPECTED = {
    "chatml": (
        "<|im_start|>system\nYou are Chu.<|im_end|>\n<|im_start|>user\n你是谁？<|im_end|>\n"
        "<|im_start|>assistant\n我是小初。<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "llama3_chat": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nYou are Chu.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n你是谁？<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n我是小初。<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    "mistral": (
        "<s>[INST] You are Chu.\n\n你是谁？ [/INST] 我是小初。</s>[INST] Who are you? [/INST]",
        "</s>",
    ),
    "gemma": (
        "<s><start_of_turn>user\nYou are Chu.\n\n你是谁？<end_of_turn>\n<start_of_turn>model\n"
        "我是小初。<end_of_turn>\n<start_of_turn>user\nWho are you?<end_of_turn>\n"
        "<start_of_turn>model\n",
        "<end_of_turn>",
    ),
    "chatglm": (
        "[gMASK]<sop><|system|>\nYou are Chu.<|user|>\n你是谁？<|assistant|>\n我是小初。"
        "<|user|>\nWho are you?<|assistant|>",
        "</s>",
    ),
    "default": (
        "<s><|System|>:You are Chu.\n<|User|>:你是谁？\n<|Bot|>:我是小初。</s>\n"
        "<|User|>:Who are you?\n<|Bot|>:",
        "</s>",
    ),
    "chatglm2": (
        "<s>You are Chu.\n[Round 1]\n\n问：你是谁？\n\n答：我是小初。</s>\n\n"
        "[Round 2]\n\n问：Who are you?\n\n答：",
        "</s>",
    ),
    "minicpm": (
        "<s><用户> You are Chu.\n\n你是谁？ <AI>我是小初。</s>\n<用户> Who are you? <AI>",
        "</s>",
    ),
    "internlm_chat": (
        "<s><|System|>:You are Chu.\n<|User|>:你是谁？<eoh>\n<|Bot|>:我是小初。<eoa>\n"
        "<|User|>:Who are you?<eoh>\n<|Bot|>:",
        "<eoa>",
    ),
}
EXPECTED["internlm2_chat"] = ("<s>" + EXPECTED["chatml"][0], EXPECTED["chatml"][1])
EXPECTED["chatglm3"] = (EXPECTED["chatglm"][0].replace("<sop>", "sop"), "</s>")
for alias, name in {"qwen_chat": "chatml", "mixtral": "mistral"}.items():
    EXPECTED[alias] = EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_family_writes_what_its_models_read(name: str):
    chat = _chat("rich", name)
    assert (chat.prompt_text((S, Q, A, Q2)), chat.ending) == EXPECTED[name]


def test_every_name_of_xtuner_is_known_but_those_that_are_left_out():
    assert set(TEMPLATE_NAMES) >= set(XTUNER_PIECES)
    assert not XTUNER_LEFT_OUT & set(TEMPLATE_NAMES)


@pytest.mark.parametrize("name", TEMPLATE_NAMES)
@pytest.mark.parametrize("kind", ["rich", *TOKENIZERS])
def test_with_every_family_the_targets_begin_where_generation_does(kind: str, name: str):
    chat = _chat(kind, name)
    for before in ((Q,), (S, Q), (S, Q, Message("assistant", "你好！"), Q2), (Q, A2, S, Q2)):
        row = tuple(Message(m.role, m.text) for m in before)
        (sample,) = chat.samples(Conversation((*row, A)))
        assert prompt(sample) == chat.prompt_ids(Conversation(row))
        assert list(sample.is_target) == sorted(sample.is_target)


@pytest.mark.parametrize("name", TEMPLATE_NAMES)
def test_with_every_family_the_reply_and_its_end_are_learned_and_nothing_else(name: str):
    tokenizer, chat = rich_tokenizer(), _chat("rich", name)
    rows = chat.samples(Conversation((S, Q, A, Q2, A2)))
    learned = [tokenizer.decode(targets(row)) for row in rows]
    replies = [m.text + chat.ending for m in (A, A2)]
    assert "".join(learned).replace(" ", "").replace("\n", "") == "".join(replies).replace(
        " ", ""
    ).replace("\n", "")
    text = tokenizer.decode(prompt(rows[-1]))
    assert S.text in text
    assert Q2.text in tokenizer.decode(rows[-1].input_ids)


@given(name=st.sampled_from(TEMPLATE_NAMES), question=TEXTS, reply=TEXTS)
def test_with_every_family_whatever_is_said_comes_back(name: str, question: str, reply: str):
    tokenizer, chat = rich_tokenizer(), _chat("rich", name)
    asked = Conversation((Message("user", question),))
    answer = Message("assistant", reply, trained=True)
    (sample,) = chat.samples(Conversation((*asked.messages, answer)))
    assert prompt(sample) == chat.prompt_ids(asked)
    learned = tokenizer.decode(targets(sample))
    assert learned.endswith(reply + chat.ending)
    assert learned.removesuffix(reply + chat.ending).strip() == ""


@pytest.mark.parametrize("name", WANT_A_START)
def test_the_start_token_is_there_once_in_training_and_in_generation(name: str):
    tokenizer = rich_tokenizer()
    # As many tokenizers do, it puts one in front itself, unless told not to.
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    chat = ChatTemplate(tokenizer, name=name)
    for row in chat.samples(Conversation((S, Q, A, Q2, A2))):
        assert row.input_ids[0] == tokenizer.bos_token_id
        assert row.input_ids.count(tokenizer.bos_token_id) == 1
    asked = chat.prompt_ids(Conversation((S, Q, A, Q2)))
    assert [i for i in asked if i == tokenizer.bos_token_id] == asked[:1]


@pytest.mark.parametrize("name", TEMPLATE_NAMES)
def test_a_tokenizer_without_start_token_gets_none(name: str):
    chat = ChatTemplate(rich_tokenizer(bos=None), name=name)
    text = chat.prompt_text((Q,))
    assert "None" not in text
    assert "<s>" not in text


@pytest.mark.parametrize("name", ["chatml", "qwen_chat", "chatglm"])
def test_families_without_start_token_get_none_though_the_tokenizer_has_one(name: str):
    assert "<s>" not in _chat("rich", name).prompt_text((Q,))


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [("internlm2-chat", "internlm2_chat"), ("qwen", "qwen_chat"), ("llama3", "llama3_chat")],
)
def test_an_unknown_name_is_told_with_its_nearest_and_all_names(name: str, near: str):
    with pytest.raises(
        SettingError, match=rf'"{name}".*Did you mean .*{near}.*All names: baichuan'
    ):
        template_text(name)
    with pytest.raises(SettingError, match="All names"):
        xtuner_pieces(name)


@pytest.mark.parametrize("name", ["", "xyzzy", "{all}"])
def test_a_name_like_no_other_is_told_with_all_names(name: str):
    with pytest.raises(SettingError) as caught:
        ChatTemplate(rich_tokenizer(), name=name)
    assert f'"{name}"' in str(caught.value)
    assert all(known in str(caught.value) for known in TEMPLATE_NAMES)
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(XTUNER_LEFT_OUT))
def test_a_template_that_only_xtuner_has_is_told_as_such(name: str):
    with pytest.raises(SettingError, match=f'XTuner\'s chat template "{name}"'):
        template_text(name)


# ---- which family --------------------------------------------------------------------------------

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


@pytest.mark.parametrize(
    ("model_type", "tokens", "family"),
    [
        ("internlm2", CHATML_TOKENS, "internlm2_chat"),
        ("internlm", ("<eoh>", "<eoa>"), "internlm_chat"),
        ("qwen2", CHATML_TOKENS, "chatml"),
        ("qwen3_moe", CHATML_TOKENS, "chatml"),
        ("llama", ("<|start_header_id|>", "<|eot_id|>"), "llama3_chat"),
        ("llama", CHATML_TOKENS, "chatml"),
        ("llama", (), "default"),
        ("mistral", (), "mistral"),
        ("mixtral", ("[INST]", "[/INST]"), "mistral"),
        ("mistral", CHATML_TOKENS, "chatml"),
        ("gemma3_text", ("<start_of_turn>", "<end_of_turn>"), "gemma"),
        ("gemma2", (), "default"),
        ("chatglm", ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"), "chatglm"),
        ("chatglm", ("[gMASK]", "sop", "<|user|>", "<|assistant|>"), "chatglm3"),
        ("glm4", ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"), "chatglm"),
        ("phi3", ("<|user|>", "<|assistant|>", "<|end|>"), "phi3_chat"),
        ("gpt2", (), "default"),
        ("gpt2", CHATML_TOKENS, "chatml"),
        (None, CHATML_TOKENS, "chatml"),
        (None, (*CHATML_TOKENS, "<|action_start|>"), "internlm2_chat"),
        (None, ("<|start_header_id|>", "<|eot_id|>"), "llama3_chat"),
        (None, (), "default"),
    ],
)
def test_a_model_without_template_gets_that_of_its_family(
    model_type: str | None, tokens: tuple[str, ...], family: str
):
    assert family_for(model_type, {"hello", *tokens}) == family
    assert family in TEMPLATE_NAMES


def test_a_model_that_has_no_template_is_asked_as_its_family_is():
    chat = ChatTemplate(rich_tokenizer(), model_type="gemma2")
    assert (chat.name, chat.is_fallback) == ("gemma", True)
    assert ChatTemplate(rich_tokenizer(), name="gemma", model_type="qwen2").is_fallback is False
