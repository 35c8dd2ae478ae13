from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.conftest import SHARED
from tests.data.test_template_families import rich_tokenizer
from tests.data.test_templates import TEXTS, crossing_tokenizer
from whoamai.data.template_families import XTUNER_PIECES
from whoamai.data.templates import ChatTemplate
from whoamai.data.xtuner_encoding import XTunerEncoding, XTunerTurn, xtuner_turns
from whoamai.errors import DataError, ModelError, SettingError
from whoamai.samples import Conversation, Message, Sample

S, Q, A = Message("system", "S"), Message("user", "q"), Message("assistant", "a", trained=True)
T, Q2, A2 = Message("system", "T"), Message("user", "r"), Message("assistant", "b", trained=True)
READ_ONLY = Message("assistant", "b")


def supervised(tokenizer: PreTrainedTokenizerFast, sample: Sample) -> str:
    """The text, targets in ⦃⦄."""
    text, inside = "", False
    for i, is_target in zip(sample.input_ids, sample.is_target, strict=True):
        text += {(False, True): "⦃", (True, False): "⦄"}.get((inside, is_target), "")
        text += tokenizer.convert_ids_to_tokens(i).replace("Ċ", "\n").replace("Ġ", " ")
        inside = is_target
    return text + ("⦄" if inside else "")


# ---- what XTuner itself wrote --------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream() -> Path:
    folder = SHARED / "fixtures" / "xtuner_encode"
    if not folder.is_dir():
        pytest.skip(f"what XTuner wrote is not at {folder}")
    return folder


def upstream_rows(folder: Path) -> list[tuple[Conversation, dict]]:
    lines = (folder / "fixed20.jsonl").read_text("utf-8").splitlines()
    expected = json.loads((folder / "fixed20_expected.json").read_text("utf-8"))
    rows = []
    for line, result in zip(lines, expected["internlm2_chat"], strict=True):
        messages = [
            message
            for turn in json.loads(line)["conversation"]
            for message in (
                Message("system", turn["system"]),
                Message("user", turn["input"]),
                Message("assistant", turn["output"], trained=True),
            )
        ]
        rows.append((Conversation(tuple(messages)), result))
    return rows


def test_text_ids_and_labels_are_those_of_xtuner(upstream: Path):
    encoding = XTunerEncoding(AutoTokenizer.from_pretrained(upstream / "tokenizer"))
    rows = upstream_rows(upstream)
    assert len(rows) == 20
    for conversation, expected in rows:
        (sample,) = encoding.samples(conversation)
        labels = [
            i if is_target else -100
            for i, is_target in zip(sample.input_ids, sample.is_target, strict=True)
        ]
        assert encoding.text(conversation) == expected["text"]
        assert list(sample.input_ids) == expected["input_ids"]
        assert labels == expected["labels"]


def test_our_own_encoding_differs_from_xtuners_by_the_last_line_end_only(upstream: Path):
    tokenizer = AutoTokenizer.from_pretrained(upstream / "tokenizer")
    own, named = ChatTemplate(tokenizer), ChatTemplate(tokenizer, name="internlm2_chat")
    for conversation, expected in upstream_rows(upstream):
        (sample,) = own.samples(conversation)
        assert [sample] == named.samples(conversation)
        assert list(sample.input_ids) == expected["input_ids"][:-1]
        assert list(sample.is_target) == [label != -100 for label in expected["labels"][:-1]]


# ---- several turns -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "messages", "expected"),
    [
        (
            "internlm2_chat",
            (S, Q, A, Q2, A2),
            "<s><|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
            "⦃a<|im_end|>⦄\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n⦃b<|im_end|>⦄\n",
        ),
        (
            "internlm2_chat",
            (S, Q, A, T, Q2, READ_ONLY),
            "<s><|im_start|>system\nS<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
            "⦃a<|im_end|>⦄\n<|im_start|>system\nT<|im_end|>\n<|im_start|>user\nr<|im_end|>\n"
            "<|im_start|>assistant\nb<|im_end|>\n",
        ),
        (
            "default",  # ends with the tokenizer's token, so the next turn starts anew
            (S, Q, A, Q2, A2),
            "<s><|System|>:S\n<|User|>:q\n<|Bot|>:⦃a</s>⦄\n<s><|User|>:r\n<|Bot|>:⦃b</s>⦄\n",
        ),
        (
            "default",
            (Q, READ_ONLY, Q2, A2),
            "<s><|User|>:q\n<|Bot|>:b</s>\n<s><|User|>:r\n<|Bot|>:⦃b</s>⦄\n",
        ),
        (
            "gemma",  # both ends
            (S, Q, A, Q2, A2),
            "<s><start_of_turn>system\nS<end_of_turn>\n<start_of_turn>user\nq<end_of_turn>\n"
            "<start_of_turn>model\n⦃a<end_of_turn></s>⦄\n"
            "<s><start_of_turn>user\nr<end_of_turn>\n<start_of_turn>model\n⦃b<end_of_turn></s>⦄\n",
        ),
        (
            "llama3_chat",  # no separator
            (Q, A, Q2, A2),
            "<s><|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⦃a<|eot_id|>⦄"
            "<|start_header_id|>user<|end_header_id|>\n\nr<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⦃b<|eot_id|>⦄",
        ),
        (
            "mistral",
            (S, Q, A),
            "<s>[INST] S [/INST]\n[INST] q [/INST]⦃a</s>⦄\n",
        ),
    ],
)
def test_turns_follow_each_other_as_in_xtuner(name: str, messages: tuple, expected: str):
    tokenizer = rich_tokenizer()
    encoding = XTunerEncoding(tokenizer, name)
    (sample,) = encoding.samples(Conversation(messages))
    assert supervised(tokenizer, sample) == expected
    assert encoding.text(Conversation(messages)) == expected.replace("⦃", "").replace("⦄", "")


def test_rounds_are_counted():
    text = XTunerEncoding(rich_tokenizer(), "chatglm2").text(Conversation((Q, A, Q2, A2)))
    assert text.count("[Round 1]") == text.count("[Round 2]") == 1
    assert text.index("[Round 1]") < text.index("[Round 2]")


@pytest.mark.parametrize("name", XTUNER_PIECES)
def test_with_every_template_the_prompt_trained_on_is_the_one_to_generate_from(name: str):
    encoding = XTunerEncoding(rich_tokenizer(), name)
    before = (*(() if name == "minicpm" else (S,)), Q, READ_ONLY, Q2)
    (sample,) = encoding.samples(Conversation((*before, A2)))
    prompt = encoding.prompt_ids(Conversation(before))
    assert list(sample.input_ids[: sample.is_target.index(True)]) == prompt


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
def test_every_piece_is_tokenized_apart(turns: list[tuple[str, str]]):
    """A tokenizer that merges across borders shows it: no token reaches from one piece to the next."""
    tokenizer = crossing_tokenizer()

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    expected = ids("<s>")
    for question, reply in turns:
        expected += ids(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
        expected += ids(f"{reply}<|im_end|>") + ids("\n")
    messages = [
        message
        for question, reply in turns
        for message in (Message("user", question), Message("assistant", reply, trained=True))
    ]
    (sample,) = XTunerEncoding(tokenizer).samples(Conversation(tuple(messages)))
    assert list(sample.input_ids) == expected


def test_what_a_text_holds_is_not_filled_in_again():
    encoding = XTunerEncoding(rich_tokenizer(), "chatglm2")
    texts = ("{input} {system} {round}", "{system}{input}{0}", "{output}")
    row = tuple(
        Message(role, text, trained=role == "assistant")
        for role, text in zip(("system", "user", "assistant"), texts, strict=True)
    )
    text = encoding.text(Conversation(row))
    assert all(t in text for t in texts)


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ((S, Q, A), [XTunerTurn("S", "q", "a", True)]),
        ((Q, Q2, A), [XTunerTurn("", "qr", "a", True)]),
        ((S, T, Q, A), [XTunerTurn("T", "q", "a", True)]),
        ((A,), [XTunerTurn("", "", "a", True)]),
        ((Q, A, Q2), [XTunerTurn("", "q", "a", True), XTunerTurn("", "r", None, False)]),
        ((S,), []),
    ],
)
def test_messages_become_turns(messages: tuple, turns: list[XTunerTurn]):
    assert xtuner_turns(messages) == turns


def test_a_conversation_without_trained_reply_gives_no_row():
    assert XTunerEncoding(rich_tokenizer()).samples(Conversation((Q, READ_ONLY))) == []


# ---- start and end tokens ------------------------------------------------------------------------


class Qwen2Tokenizer(PreTrainedTokenizerFast):
    """XTuner goes by the name of the class."""


@pytest.mark.parametrize("kind", [PreTrainedTokenizerFast, Qwen2Tokenizer])
def test_qwens_tokenizer_gets_no_start_token(kind: type[PreTrainedTokenizerFast]):
    tokenizer = kind(
        tokenizer_object=rich_tokenizer().backend_tokenizer, bos_token="<s>", eos_token="</s>"
    )
    text = XTunerEncoding(tokenizer, "qwen_chat").text(Conversation((Q, A)))
    assert text.startswith("<s>") == (kind is PreTrainedTokenizerFast)


def test_a_tokenizer_without_start_token_gets_none():
    (sample,) = XTunerEncoding(rich_tokenizer(bos=None)).samples(Conversation((Q, A)))
    assert rich_tokenizer().decode(sample.input_ids[:1]) == "<|im_start|>"


@pytest.mark.parametrize(("number", "start"), [(64792, [64790, 64792]), (7, [0])])
def test_chatglm_starts_with_its_two_tokens(number: int, start: list[int]):
    words = {"<s>": 0, "</s>": 1, "?": 2, "[gMASK]": 64790, "sop": number}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="?")),
        bos_token="<s>",
        eos_token="</s>",
    )
    prompt = XTunerEncoding(tokenizer, "chatglm3").prompt_ids(Conversation((Q,)))
    assert prompt == [*start, 2]


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("internlm2_chat", "<|im_end|>"),
        ("default", "</s>"),
        ("gemma", "<end_of_turn></s>"),
        ("internlm_chat", "<eoa>"),
    ],
)
def test_an_encoding_says_how_its_replies_end(name: str, ending: str):
    assert XTunerEncoding(rich_tokenizer(), name).ending == ending


def test_without_end_token_a_template_that_needs_one_is_refused():
    tokenizer = rich_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r'"default".*eos_token'):
        XTunerEncoding(tokenizer, "default")
    assert XTunerEncoding(tokenizer, "internlm2_chat").ending == "<|im_end|>"


def test_a_system_message_that_has_no_place_is_refused_with_its_row():
    encoding = XTunerEncoding(rich_tokenizer(), "minicpm")
    with pytest.raises(DataError, match=r'data\.jsonl:7.*"minicpm"'):
        encoding.samples(Conversation((S, Q, A), source="data.jsonl:7"))


def test_an_unknown_template_is_refused():
    with pytest.raises(SettingError, match="internlm2_chat"):
        XTunerEncoding(rich_tokenizer(), "internlm2")
