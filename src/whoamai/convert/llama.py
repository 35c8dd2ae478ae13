"""InternLM2 as stock Llama: the same numbers under other names, loaded by whatever loads Llama.

    InternLM2                          Llama
    model.tok_embeddings               model.embed_tokens
    layers.N.attention_norm            layers.N.input_layernorm
    layers.N.attention.wqkv            layers.N.self_attn.q_proj, k_proj, v_proj   (rows sorted)
    layers.N.attention.wo              layers.N.self_attn.o_proj
    layers.N.ffn_norm                  layers.N.post_attention_layernorm
    layers.N.feed_forward.w1, w3, w2   layers.N.mlp.gate_proj, up_proj, down_proj
    output                             lm_head

No value changes; a LoRA of wqkv becomes three that share A and have the rows of B that belong to them.
Both compute alike up to max_position_embeddings. Beyond it, under dynamic rope scaling, transformers'
Llama keeps the base of the longest input so far where InternLM2 takes each input's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.model.sentencepiece_file import PieceKind, parse_sentencepiece

_NAMES = (
    (r"model\.tok_embeddings\.", "model.embed_tokens."),
    (r"output\.", "lm_head."),
    (r"model\.norm\.", "model.norm."),
    (r"(model\.layers\.\d+)\.attention_norm\.", r"\1.input_layernorm."),
    (r"(model\.layers\.\d+)\.ffn_norm\.", r"\1.post_attention_layernorm."),
    (r"(model\.layers\.\d+)\.attention\.wo\.", r"\1.self_attn.o_proj."),
    (r"(model\.layers\.\d+)\.feed_forward\.w1\.", r"\1.mlp.gate_proj."),
    (r"(model\.layers\.\d+)\.feed_forward\.w3\.", r"\1.mlp.up_proj."),
    (r"(model\.layers\.\d+)\.feed_forward\.w2\.", r"\1.mlp.down_proj."),
)
_WQKV = re.compile(r"(model\.layers\.\d+)\.attention\.wqkv\.(weight|bias)")
# Early files hold the rotary frequencies, which follow from the config.
_LEFT_OUT = re.compile(r".*rotary_emb\.inv_freq")
_KEPT_SETTINGS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps", "use_cache"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings"),
)
# What belongs to InternLM2's own classes or is written anew, and must not lie beside the Llama form.
_REPLACED_FILES = frozenset(
    (
        *("config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"),
        *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    )
)


def is_internlm2(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "internlm2"


def is_kept(file: Path) -> bool:
    """Is a file of an InternLM2 folder to be copied beside its Llama form?"""
    return file.suffix != ".py" and file.as_posix() not in _REPLACED_FILES


def as_llama(name: str, config: Any) -> Iterator[tuple[str, torch.Tensor | None]]:
    """(name in Llama, rows of the tensor `name` it is made of; None for all) for an InternLM2Config.

    Nothing for what Llama has no need of. Raises ModelError for a tensor InternLM2 does not have.
    """
    from whoamai.model.internlm2 import split_wqkv

    if _LEFT_OUT.fullmatch(name):
        return
    if match := _WQKV.fullmatch(name):
        kv_heads = config.num_attention_heads // config.num_key_value_groups
        rows = (config.num_attention_heads + 2 * kv_heads) * config.head_dim
        parts = split_wqkv(torch.arange(rows), config)
        for part, of_rows in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
            yield f"{match[1]}.self_attn.{part}.{match[2]}", of_rows
        return
    for pattern, replacement in _NAMES:
        found, n = re.subn(f"^{pattern}", replacement, name)
        if n:
            yield found, None
            return
    raise ModelError(tr("{name} is no tensor of InternLM2.").format(name=name))


def internlm2_config(config: Mapping[str, Any]) -> Any:
    """An InternLM2Config of what config.json says. Raises ModelError."""
    from whoamai.model.internlm2 import InternLM2Config

    return InternLM2Config.from_dict(dict(config))


def llama_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of the Llama form, for new and old readers: rope under its older names."""
    read = internlm2_config(config)
    scaling = read.rope_scaling
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{name: getattr(read, name) for name in _KEPT_SETTINGS},
        "num_key_value_heads": read.num_key_value_heads,
        "head_dim": read.head_dim,
        "attention_bias": read.bias,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "rope_theta": read.rope_theta,
        "rope_scaling": scaling and {**scaling, "rope_type": scaling["type"]},
        "torch_dtype": config.get("torch_dtype") or config.get("dtype"),
    }


# ---- the tokenizer -------------------------------------------------------------------------------


def write_llama_tokenizer(base: Path, folder: Path) -> None:
    """Write the tokenizer of an InternLM2 folder such that no code has to come with it.

    tokenizer.json and its settings for transformers and vLLM. Where the base has a tokenizer.model, that
    too, for llama.cpp and Ollama, with the special tokens in the places they have.
    """
    from whoamai.model.load import load_tokenizer

    tokenizer, _ = load_tokenizer(str(base))
    tokenizer.save_pretrained(str(folder))
    _write_settings(tokenizer, folder / "tokenizer_config.json")
    if (base / "tokenizer.model").is_file():
        added = {
            number: (t.content, t.special) for number, t in tokenizer.added_tokens_decoder.items()
        }
        data = (base / "tokenizer.model").read_bytes()
        (folder / "tokenizer.model").write_bytes(with_added_tokens(data, added))
        beyond = len(parse_sentencepiece(data).pieces)
        more = {text: number for number, (text, _) in added.items() if number >= beyond}
        if more:
            text = json.dumps(more, ensure_ascii=False, indent=2) + "\n"
            (folder / "added_tokens.json").write_text(text, "utf-8")


def _write_settings(tokenizer: Any, path: Path) -> None:
    """The settings as every reader knows them, from those transformers has just written."""
    settings = json.loads(path.read_text("utf-8"))
    settings.pop("auto_map", None)
    # transformers 5 calls the class otherwise; it knows this name, and so do older versions.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["add_prefix_space"] = False  # what llama.cpp would otherwise do
    settings.setdefault("added_tokens_decoder", _decoder(tokenizer))
    beside = path.with_name("chat_template.jinja")
    if beside.is_file():  # older readers look for it in the settings only
        settings["chat_template"] = beside.read_text("utf-8")
    path.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _decoder(tokenizer: Any) -> dict[str, dict[str, Any]]:
    flags = ("lstrip", "normalized", "rstrip", "single_word", "special")
    return {
        str(number): {"content": token.content, **{flag: getattr(token, flag) for flag in flags}}
        for number, token in sorted(tokenizer.added_tokens_decoder.items())
    }


def with_added_tokens(data: bytes, added: Mapping[int, tuple[str, bool]]) -> bytes:
    """A sentencepiece model whose pieces at the ids of `added` are these tokens: (text, is special).

    InternLM2 has <|im_start|> and the like over unused pieces, which only its own class knows;
    llama.cpp and Ollama take the pieces as they find them. Special ones become control pieces.
    """
    pieces = parse_sentencepiece(data).pieces
    kept = (PieceKind.UNKNOWN, PieceKind.CONTROL, PieceKind.BYTE)
    result = bytearray()
    number = 0
    for field, raw in _raw_fields(data):
        token = added.get(number) if field == 1 else None
        if token is not None and pieces[number].kind not in kept:
            kind = PieceKind.CONTROL if token[1] else PieceKind.USER_DEFINED
            result += _piece(token[0], kind)
        else:
            result += raw
        number += field == 1
    return bytes(result)


def _piece(text: str, kind: int) -> bytes:
    """A SentencePiece message as a field of ModelProto: text, the score 0, kind."""
    written = text.encode()
    body = b"\x0a" + _varint(len(written)) + written + b"\x15\0\0\0\0" + b"\x18" + _varint(kind)
    return b"\x0a" + _varint(len(body)) + body


def _raw_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, all its bytes) of the fields of a ModelProto, which are messages, every one."""
    place = 0
    while place < len(data):
        start = place
        key, place = _read_varint(data, place)
        size, place = _read_varint(data, place)
        place += size
        yield key >> 3, data[start:place]


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _varint(value: int) -> bytes:
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])
