from __future__ import annotations

from functools import cache
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.models import CHAT_TEMPLATE, make_tokenizer
from whoamai.data.preview import (
    DataPreview,
    decoded_groups,
    make_preview,
    marks_for,
    offset_groups,
    plain_text,
    visible,
)
from whoamai.data.readers import read_conversations
from whoamai.data.templates import ChatTemplate
from whoamai.errors import SettingError
from whoamai.samples import Conversation, Message

TEXTS = [
    "你好",
    "龘😀👩‍👩‍👧 é",
    " a  b\n\n c ",
    "",
    "<|im_end|> [red]x[/red] {name} <b>&amp;</b>",
    "\t\x1b[31m\u202e\x00\x7f\u2028",
    "⟦a⟧ ⏎ ⟪b⟫",
]


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """▁ for spaces and before every text, byte fallback: decoding it loses the first space."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<unk>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=[*special, *(f"<0x{b:02X}>" for b in range(256))],
        show_progress=False,
    )
    core.train_from_iterator(["user assistant system hello who are you 你是谁 ▁"], trainer)
    core.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")


def whole_words() -> PreTrainedTokenizerFast:
    """A few words; everything else is unknown, and spaces are passed over."""
    words = ["[UNK]", "<|im_start|>", "<|im_end|>", "user", "assistant", "你好", "hi"]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.add_special_tokens(words[:3])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", unk_token="[UNK]")


def merging() -> PreTrainedTokenizerFast:
    """Byte-level without splitting words first: it would merge a prompt's line end with the reply."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["\n你好", "\n hi"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")


MAKERS = {
    "test model": make_tokenizer,
    "bundled": lambda: AutoTokenizer.from_pretrained(tiny_chat_folder()),
    "sentencepiece-like": sentencepiece_like,
    "whole words": whole_words,
    "merging": merging,
}


def tiny_chat_folder() -> str:
    return str(resources.files("whoamai.assets").joinpath("tiny_chat"))


@cache
def a_tokenizer(name: str):
    tokenizer = MAKERS[name]()
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def talk(*turns: str, source: str = "data.jsonl:1") -> Conversation:
    roles = ("user", "assistant")
    messages = (Message(roles[i % 2], t, trained=i % 2 == 1) for i, t in enumerate(turns))  # type: ignore[arg-type]
    return Conversation(tuple(messages), source)


def preview_of(
    *conversations: Conversation, tokenizer: str = "test model", **settings
) -> DataPreview:
    t = a_tokenizer(tokenizer)
    return make_preview(conversations, ChatTemplate(t), t, **settings)


def written(conversation: Conversation, tokenizer: str) -> str:
    """The text of a conversation's last row, as the template writes it."""
    template = ChatTemplate(a_tokenizer(tokenizer))
    *before, last = conversation.messages
    return template.prompt_text(before) + template.reply_text(last.text)


# ---- pieces --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", MAKERS)
@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_are_the_text_and_the_tokens_exactly(tokenizer, text):
    row = talk(text or "?", f"{text}!")
    (shown,) = preview_of(row, tokenizer=tokenizer).rows
    (sample,) = ChatTemplate(a_tokenizer(tokenizer)).samples(row)
    assert shown.text == written(row, tokenizer)
    assert shown.is_exact
    assert tuple(i for piece in shown.pieces for i in piece.ids) == sample.input_ids
    marked = [piece.trained for piece in shown.pieces for _ in piece.ids]
    assert marked == list(sample.is_target)


@given(st.text(max_size=12), st.text(min_size=1, max_size=12))
@pytest.mark.parametrize("tokenizer", ["test model", "sentencepiece-like"])
def test_any_text_is_shown_as_the_template_wrote_it(tokenizer, question, reply):
    row = talk(question, reply)
    (shown,) = preview_of(row, tokenizer=tokenizer).rows
    assert shown.text == written(row, tokenizer)
    assert all(piece.text for piece in shown.pieces)


def test_tokens_that_are_no_character_alone_share_a_piece():
    (shown,) = preview_of(talk("?", "😀龘a")).rows
    sizes = {piece.text: len(piece.ids) for piece in shown.pieces}
    assert sizes["😀"] == 4
    assert sizes["龘"] == 3
    assert sizes["a"] == 1


def test_what_a_tokenizer_passes_over_is_shown_with_the_token_behind_it():
    tokenizer = a_tokenizer("whole words")
    groups = offset_groups("  hi  hi ", tokenizer)
    assert groups == [("  hi", (6,)), ("  hi ", (6,))]


class Spans:
    """A tokenizer that gives the spans it is told."""

    is_fast = True

    def __init__(self, *spans: tuple[int, int]) -> None:
        self._spans = spans

    def __call__(self, text, **_):
        return {"input_ids": list(range(len(self._spans))), "offset_mapping": self._spans}


@pytest.mark.parametrize(
    ("spans", "groups"),
    [
        ([(0, 1), (1, 4)], [("a", (0,)), ("bcd", (1,))]),
        ([(0, 0), (0, 1), (1, 4)], [("a", (0, 1)), ("bcd", (2,))]),  # empty before the first
        ([(0, 1), (1, 1), (1, 4)], [("a", (0, 1)), ("bcd", (2,))]),  # empty in between
        ([(0, 2), (2, 4), (4, 4)], [("ab", (0,)), ("cd", (1, 2))]),  # empty behind the last
        ([(0, 2), (1, 3), (3, 4)], [("abc", (0, 1)), ("d", (2,))]),  # overlapping
        ([(0, 2), (0, 2), (0, 2), (2, 4)], [("ab", (0, 1, 2)), ("cd", (3,))]),  # bytes of one
        ([(1, 2), (3, 4)], [("ab", (0,)), ("cd", (1,))]),  # gaps in front
        ([(0, 1), (1, 2)], [("a", (0,)), ("bcd", (1,))]),  # a gap behind
        ([(0, 0), (0, 0)], [("abcd", (0, 1))]),  # no offsets at all
        ([], []),
    ],
)
def test_a_text_is_cut_where_tokens_end(spans, groups):
    assert offset_groups("abcd", Spans(*spans)) == groups


def test_what_the_model_does_not_know_is_marked():
    preview = preview_of(talk("你好", "hi xyz hi"), tokenizer="whole words")
    (shown,) = preview.rows
    assert [piece.text for piece in shown.pieces if piece.is_unknown] == [" xyz"]
    assert "sees as unknown:  xyz" in plain_text(preview)


@pytest.mark.parametrize("tokenizer", ["test model", "bundled", "merging"])
@pytest.mark.parametrize("text", TEXTS)
def test_ids_of_bytes_decode_to_the_same_pieces(tokenizer, text):
    t = a_tokenizer(tokenizer)
    groups = offset_groups(text, t)
    ids = [i for _, some in groups for i in some]
    decoded = decoded_groups(ids, t)
    assert "".join(piece for piece, _ in decoded) == text
    assert [i for _, some in decoded for i in some] == ids


def test_a_row_of_another_encoding_is_decoded_and_that_is_said():
    class Apart(ChatTemplate):
        """Tokenizes every character of a row apart, so that no text gives its ids again."""

        def samples(self, conversation):
            (sample,) = super().samples(conversation)
            t = a_tokenizer("test model")
            text = t.decode(sample.input_ids)
            ids = [i for c in text for i in t(c)["input_ids"]]
            return [type(sample)(tuple(ids), (False,) * (len(ids) - 1) + (True,))]

    t = a_tokenizer("test model")
    preview = make_preview([talk("你好", "hi 😀")], Apart(t), t)
    (shown,) = preview.rows
    assert shown.text == written(talk("你好", "hi 😀"), "test model")
    assert not shown.is_exact
    assert not shown.starts_like_generation
    assert "decode to" in plain_text(preview)
    assert "Careful" in plain_text(preview)


def test_xtuners_encoding_is_shown_too():
    encoding = pytest.importorskip("whoamai.data.xtuner_encoding")
    t = a_tokenizer("bundled")
    template = encoding.XTunerEncoding(t)
    row = talk("你好", "我是小初 😀")
    (shown,) = make_preview([row], template, t).rows
    assert shown.text == template.text(row)
    assert shown.starts_like_generation


# ---- rows ----------------------------------------------------------------------------------------


def test_the_counts_are_those_of_the_sample():
    row = talk("你好", "我是小初")
    (shown,) = preview_of(row).rows
    (sample,) = ChatTemplate(a_tokenizer("test model")).samples(row)
    assert shown.n_tokens == len(sample.input_ids)
    assert shown.n_trained == sum(sample.is_target)


@pytest.mark.parametrize("tokenizer", MAKERS)
def test_generation_starts_from_what_stands_before_the_last_reply(tokenizer):
    row = talk("你好", "hi", "你好 hi", "hi")
    (shown,) = preview_of(row, tokenizer=tokenizer).rows
    assert shown.prompt == ChatTemplate(a_tokenizer(tokenizer)).prompt_text(row.messages[:3])
    assert shown.text.startswith(shown.prompt)
    assert shown.starts_like_generation
    assert shown.text[len(shown.prompt) :] == "hi<|im_end|>"


def test_a_conversation_of_several_rows_shows_each_with_its_own_prompt():
    t = make_tokenizer("{{ messages | length }}" + CHAT_TEMPLATE)  # no prompt begins like another
    preview = make_preview([talk("a", "b", "c", "d")], ChatTemplate(t), t)
    first, second = preview.rows
    assert (first.part, first.parts, second.part) == (1, 2, 2)
    assert first.prompt.startswith("1")
    assert second.prompt.startswith("3")
    assert first.starts_like_generation
    assert second.starts_like_generation
    assert "(part 2 of 2)" in plain_text(preview)


def test_a_prompt_that_a_row_does_not_begin_with_is_not_taken_for_its_own():
    forgetful = "{% set messages = messages[-1:] %}" + CHAT_TEMPLATE
    t = make_tokenizer(forgetful)
    preview = make_preview([talk("a", "long " * 20, "c", "d")], ChatTemplate(t), t)
    assert ["user\na<" in row.prompt for row in preview.rows] == [True, False]
    assert all(row.starts_like_generation for row in preview.rows)


def test_rows_are_chosen_by_their_number_in_the_file():
    rows = [talk(f"q{n}", f"a{n}", source=f"data.jsonl:{n}") for n in (2, 3, 7)]
    assert [r.source for r in preview_of(*rows).rows] == ["data.jsonl:2"]
    chosen = preview_of(*rows, numbers=[7, 3])
    assert [r.source for r in chosen.rows] == ["data.jsonl:3", "data.jsonl:7"]
    with pytest.raises(SettingError, match="no row 4, 9 to show; the rows go from 2 to 7"):
        preview_of(*rows, numbers=[9, 3, 4])


def test_rows_without_a_number_are_counted():
    rows = [talk("q", "a", source=""), talk("r", "b", source="")]
    assert "user\nr<" in preview_of(*rows, numbers=[2]).rows[0].text


def test_a_conversation_without_a_reply_to_train_on_is_said():
    preview = preview_of(Conversation((Message("user", "q"), Message("assistant", "a")), "f:1"))
    assert preview.rows == ()
    assert preview.untrained == ("f:1",)
    assert "f:1 has no reply to train on." in plain_text(preview)


# ---- all rows ------------------------------------------------------------------------------------


def test_the_tree_is_that_of_all_rows():
    rows = [talk("你好", reply) for reply in ("a", "b", "ab")]
    preview = preview_of(*rows)
    template = ChatTemplate(a_tokenizer("test model"))
    ids = [template.samples(row)[0].input_ids for row in rows]
    nodes = {row[:n] for row in ids for n in range(1, len(row) + 1)}
    assert preview.tree.tokens == sum(map(len, ids))
    assert preview.tree.nodes == len(nodes)
    assert preview.steps == preview.tree
    assert preview.n_trained == sum(sum(template.samples(row)[0].is_target) for row in rows)
    (beginning, *_) = preview.shared
    assert beginning.rows == 3
    assert beginning.text.startswith("<|im_start|>user\n你好")


def test_rows_of_different_steps_share_nothing():
    preview = preview_of(*[talk("你好", "a")] * 4, rows_per_step=2)
    assert preview.tree.nodes * 2 == preview.steps.nodes
    assert "for each step of 2 rows" in plain_text(preview)


def test_only_the_first_conversations_are_counted_and_that_is_said():
    rows = [talk("q", f"a{n}", source=f"f:{n}") for n in range(1, 6)]
    preview = preview_of(*rows, numbers=[5], most_counted=2)
    assert (preview.n_counted, preview.n_conversations, preview.tree.rows) == (2, 5, 2)
    assert "the first 2 of 5" in plain_text(preview)
    assert preview.rows[0].source == "f:5"


def test_what_saves_next_to_nothing_gets_no_line():
    rows = [talk("你好" * 90, reply) for reply in ("aa", "ab", "cd", "ef", "gh")]
    (beginning,) = preview_of(*rows).shared
    assert beginning.rows == 5


def test_a_special_token_that_is_also_the_unknown_one_is_known():
    t = make_tokenizer()
    t.unk_token = "<|im_end|>"
    (row,) = make_preview([talk("a", "b")], ChatTemplate(t), t).rows
    assert not any(piece.is_unknown for piece in row.pieces)


def test_what_goes_on_from_something_shared_stands_below_it():
    rows = [talk("你好" * 9 + q * 9, f"{n}") for q in ("a", "b") for n in range(8)]
    first, *rest = preview_of(*rows).shared
    assert (first.level, first.rows) == (0, 16)
    assert [(s.level, s.rows) for s in rest] == [(1, 8), (1, 8)]
    assert rest[0].text.startswith("…aaaa")


def test_what_saves_little_is_summed_up():
    many = [talk("你好" * 20, f"{a}{b}") for a in "abcdefgh" for b in "abcdefgh"]
    preview = preview_of(*many)
    told = sum(shared.saved for shared in preview.shared)
    assert 0 < len(preview.shared) <= 8
    assert told < preview.tree.saved
    assert f"save {preview.tree.saved - told:,} more" in plain_text(preview)


def test_the_seeds_data_are_shown(shared_data):
    rows = read_conversations(shared_data / "assistant_Tuner_fixed.jsonl")[:150]
    preview = preview_of(*rows, tokenizer="bundled", numbers=[2])
    assert preview.rows[0].is_exact
    assert "⟦我是尖米的智能助手" in plain_text(preview)
    assert preview.tree.saved_share > 0.7
    assert preview.shared[0].rows == 150


# ---- plain text ----------------------------------------------------------------------------------


def test_trained_text_stands_in_brackets():
    text = plain_text(preview_of(talk("你好", "我是小初")))
    assert "⟦…⟧ is trained on" in text
    assert "<|im_start|>assistant⏎\n⟦我是小初<|im_end|>⟧" in text
    assert text.count("⟦") == 2  # in the legend and around the reply


def test_earlier_replies_that_are_trained_on_stand_in_brackets_too():
    text = plain_text(preview_of(talk("a", "b", "c", "d")))
    assert "⟦b<|im_end|>⟧⏎\n" in text
    assert "⟦d<|im_end|>⟧" in text


@pytest.mark.parametrize(
    ("text", "left", "line_end"),
    [("x", "⟦", "⏎"), ("⟧", "⟪", "⏎"), ("⟦⟪⦃«⏎", "⟦1⟦", "↵"), ("⟦⟪⦃«⟧1⟧⏎↵¶", "⟦2⟦", "⏎1⏎")],
)
def test_marks_that_occur_in_the_text_are_changed_for_others(text, left, line_end):
    preview = preview_of(talk("q", text))
    marks = marks_for(preview)
    assert (marks.left, marks.line_end) == (left, line_end)
    assert f"{left}{text}<|im_end|>{marks.right}" in plain_text(preview)


def test_line_ends_are_seen_and_kept():
    assert "\na⏎\n⏎\nb<|im_end|>" in plain_text(preview_of(talk("a\n\nb", "c")))


def test_nothing_that_steers_a_terminal_is_left():
    text = plain_text(preview_of(talk(TEXTS[5], TEXTS[5], source="\x1b]0;evil\x07.jsonl:1")))
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "␛[31m⟨202E⟩␀␡⟨2028⟩" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\t\r", "␉␍"),
        ("a\u200db", "a⟨200D⟩b"),
        ("\x85", "⟨0085⟩"),
        ("\u2029", "⟨2029⟩"),
        ("\ud800", "⟨D800⟩"),
        ("é", "é"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_a_sign(text, shown):
    assert visible(text) == shown
