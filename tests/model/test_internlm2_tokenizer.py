from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.conftest import SHARED
from tests.models import CHAT_TEMPLATE, save_internlm2
from tests.sentencepiece_models import NORMAL, SPACE, pieces, save_tokenizer, serialized
from whoamai.data.templates import ChatTemplate
from whoamai.errors import ModelError
from whoamai.model.internlm2_tokenizer import load_internlm2_tokenizer, needs_conversion

FIXTURE = SHARED / "fixtures" / "internlm2" / "sp_tokenizer"
TEXTS = [
    "hello",
    "你是谁？我是小初。",
    "😀👩‍👩‍👧 𠮷 é",
    "  two  spaces   and    four ",
    " one space first",
    "\t\ttabs\n\n\nlines\r\n \n",
    "\x00\x7f",
    "",
    "aaaaaaaaa     hellohello",
    "<0x41> and [UNUSED_TOKEN_140]",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("internlm2") / "chat")


@pytest.fixture(scope="module")
def tokenizer(folder: Path):
    return load_internlm2_tokenizer(folder)


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def plain_ids(text: str) -> list[int]:
    """sentencepiece's BPE by its definition: neighbours of the highest score join, leftmost first."""
    vocabulary = pieces()
    scores = {t: score for t, score, kind in vocabulary if kind == NORMAL}
    number = {t: place for place, (t, _, _) in enumerate(vocabulary)}
    symbols = list(text.replace(" ", SPACE))
    while True:
        pairs = [
            (-scores[left + right], place)
            for place, (left, right) in enumerate(itertools.pairwise(symbols))
            if left + right in scores
        ]
        if not pairs:
            break
        place = min(pairs)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    by_bytes = [
        [number[s]] if s in scores else [number[f"<0x{b:02X}>"] for b in s.encode()]
        for s in symbols
    ]
    return [number for part in by_bytes for number in part]


# ---- upstream's ids ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream() -> dict:
    if not FIXTURE.is_dir():
        pytest.skip(f"upstream's answers are not at {FIXTURE}")
    return json.loads((FIXTURE / "reference.json").read_text("utf-8"))


def test_ids_and_decoded_text_are_upstreams(upstream: dict):
    tokenizer = load_internlm2_tokenizer(FIXTURE)
    for case in upstream["cases"]:
        text = case["text"]
        assert ids_of(tokenizer, text) == case["slow_ids"] == case["fast_ids"], text
        with_start = tokenizer(text)["input_ids"]
        assert with_start == case["slow_ids_with_special"], text
        assert tokenizer.decode(ids_of(tokenizer, text)) == text
        decoded = tokenizer.decode(with_start, skip_special_tokens=True)
        assert decoded == case["slow_decode_skip_special"]


def test_the_chat_template_of_the_config_is_used(upstream: dict):
    tokenizer = load_internlm2_tokenizer(FIXTURE)
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "你好"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == upstream["chat_template_text"]
    assert ids_of(tokenizer, str(text)) == upstream["chat_template_ids"]


# ---- ids and texts -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_as_it_was(tokenizer, text: str):
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


@given(st.text(alphabet="ahelotu sgnin \t\n你是谁我小初😀é0x41", max_size=40))
def test_ids_are_those_of_sentencepieces_definition(tokenizer, text: str):
    assert ids_of(tokenizer, text) == plain_ids(text)
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_characters_without_a_piece_are_written_as_their_bytes(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(ids_of(tokenizer, "😀"))
    assert tokens == ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]


def test_special_tokens_have_the_ids_of_the_config_and_no_spaces_around_them(tokenizer):
    text = "<|im_start|>user\n你好 <|im_end|>\n<|im_start|>assistant\n"
    ids = ids_of(tokenizer, text)
    last = len(pieces()) - 1
    assert ids[0] == last
    assert ids.count(last - 1) == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user\n你好 \nassistant\n"


def test_the_text_around_a_special_token_has_the_ids_it_has_alone(tokenizer):
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    around = [*ids_of(tokenizer, "hello "), start, *ids_of(tokenizer, " you")]
    assert ids_of(tokenizer, "hello <|im_start|> you") == around


def test_a_piece_that_no_token_replaces_stays_whole(tokenizer):
    number = len(pieces()) - 7
    assert ids_of(tokenizer, "hello[UNUSED_TOKEN_140]")[-1] == number


def test_the_start_token_comes_first_and_no_end_token(tokenizer):
    ids = tokenizer("hello")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == 1
    assert ids[-1] != tokenizer.eos_token_id
    assert (tokenizer.pad_token, tokenizer.unk_token) == ("</s>", "<unk>")


def test_the_config_may_turn_the_start_token_off(tmp_path: Path):
    file = save_tokenizer(tmp_path) / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"add_bos_token": False}))
    tokenizer = load_internlm2_tokenizer(tmp_path)
    assert tokenizer("hello")["input_ids"] == ids_of(tokenizer, "hello")


def test_a_model_that_puts_a_space_before_the_text_takes_it_away_again(tmp_path: Path):
    tokenizer = load_internlm2_tokenizer(save_tokenizer(tmp_path, add_prefix=True))
    assert ids_of(tokenizer, "hello") == plain_ids(" hello")
    for text in ("hello", " hello", "你好"):
        assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_without_a_tokenizer_config_upstreams_defaults_hold(tmp_path: Path):
    (save_tokenizer(tmp_path) / "tokenizer_config.json").unlink()
    tokenizer = load_internlm2_tokenizer(tmp_path)
    assert tokenizer("hello")["input_ids"][0] == 1
    assert tokenizer.pad_token == "</s>"


def test_batches_are_padded_on_the_side_asked_for(folder: Path):
    tokenizer = load_internlm2_tokenizer(folder, padding_side="left")
    batch = tokenizer(["hello", "hello you are"], padding=True)
    assert batch["attention_mask"][0][0] == 0


# ---- folders -------------------------------------------------------------------------------------


def test_what_is_saved_loads_with_transformers_alone(tokenizer, tmp_path: Path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, "<|im_start|>user\nhello<|im_end|>"]:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert again.decode(ids_of(again, text)) == text


def test_code_beside_the_tokenizer_is_not_run(folder: Path, tmp_path: Path):
    save_tokenizer(tmp_path)
    (tmp_path / "tokenization_internlm2.py").write_text("raise SystemExit('it was run')")
    assert load_internlm2_tokenizer(tmp_path)("hello")["input_ids"]


def test_only_internlm2_without_a_tokenizer_json_needs_conversion(tmp_path: Path):
    folder = save_internlm2(tmp_path / "m")
    assert needs_conversion(folder)
    load_internlm2_tokenizer(folder).save_pretrained(folder)
    assert not needs_conversion(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert not needs_conversion(folder)


def test_without_a_chat_template_the_familys_is_chosen(tokenizer):
    assert tokenizer.chat_template is None
    assert ChatTemplate(tokenizer, model_type="internlm2").name == "internlm2_chat"


def test_a_chat_template_in_a_file_of_its_own_is_read(tmp_path: Path):
    save_tokenizer(tmp_path, chat_template="of the config")
    assert load_internlm2_tokenizer(tmp_path).chat_template == "of the config"
    (tmp_path / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")
    assert load_internlm2_tokenizer(tmp_path).chat_template == CHAT_TEMPLATE


# ---- files that cannot be used -------------------------------------------------------------------


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        load_internlm2_tokenizer(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path):
    file = save_tokenizer(tmp_path) / "tokenizer.model"
    whole = file.read_bytes()
    after_the_pieces = len(whole) - len(serialized([]))
    for size in (0, 1, 100, 1001, 1002, 1003, after_the_pieces, len(whole) - 3):
        file.write_bytes(whole[:size])
        assert "tokenizer.model is no sentencepiece model, or was cut off" in refused(tmp_path)


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>", b"\xff" * 40]
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes):
    (save_tokenizer(tmp_path) / "tokenizer.model").write_bytes(content)
    assert "no sentencepiece model" in refused(tmp_path)


@pytest.mark.parametrize("form", [{"kind": 1}, {"remove_spaces": True}])
def test_a_sentencepiece_model_of_another_kind_is_refused(tmp_path: Path, form: dict):
    assert "not of InternLM2's kind" in refused(save_tokenizer(tmp_path, **form))


def test_a_folder_without_tokenizer_files_is_refused(tmp_path: Path):
    assert "neither tokenizer.json nor tokenizer.model" in refused(tmp_path)


def test_tokens_whose_ids_do_not_fit_are_named_together(tmp_path: Path):
    (save_tokenizer(tmp_path) / "tokenizer.model").write_bytes(serialized(pieces()[:300]))
    said = refused(tmp_path)
    assert "<|im_start|>" in said
    assert "<|im_end|>" in said


@pytest.mark.parametrize("content", ["{", "[]", '{"added_tokens_decoder": {"x": {}}}'])
def test_a_tokenizer_config_that_is_broken_is_refused(tmp_path: Path, content: str):
    (save_tokenizer(tmp_path) / "tokenizer_config.json").write_text(content)
    assert "tokenizer_config.json" in refused(tmp_path)
