"""InternLM2's tokenizer from `tokenizer.model` alone, without the code that comes with the model.

The folder on the hub has a sentencepiece BPE model and a tokenizer_config.json that names a class in a
.py file beside it; there is no tokenizer.json. Here the model becomes a fast tokenizer of the
`tokenizers` library, with upstream's ids:

- spaces are written ▁; characters without a piece are written as their bytes
- the tokens of `added_tokens_decoder` (<|im_start|> …) take the place of the unused pieces whose ids
  they have; pieces that sentencepiece keeps whole ("user defined") and that no token replaces stay whole
- <s> comes first, as `add_bos_token` says

Decoding gives the text back. Upstream's slow tokenizer writes spaces around special tokens that were
not there, its fast one drops a leading space; neither is imitated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedConfig, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.model.sentencepiece_file import (
    ModelKind,
    NotSentencePieceError,
    PieceKind,
    SentencePieceModel,
    parse_sentencepiece,
)

_MODEL, _CONFIG, _FAST = "tokenizer.model", "tokenizer_config.json", "tokenizer.json"
_TEMPLATE = "chat_template.jinja"
_SPACE = "▁"
# Upstream's defaults where tokenizer_config.json says nothing.
_NAMED = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
_ADDED_FIELDS = ("lstrip", "rstrip", "single_word", "normalized", "special")


def needs_conversion(source: str | Path) -> bool:
    """Whether `source` (a folder or a hub name) is InternLM2 by its config and has no tokenizer.json."""
    config, _ = PreTrainedConfig.get_config_dict(str(source))
    return config.get("model_type") == "internlm2" and _file(source, _FAST) is None


def load_internlm2_tokenizer(
    source: str | Path, *, padding_side: str | None = None
) -> PreTrainedTokenizerFast:
    """The tokenizer of `source`, a folder or a hub name; `padding_side` None is the config's, or right.

    Raises ModelError where tokenizer.model is absent, cut off or of another kind, and where the tokens
    of tokenizer_config.json cannot have the ids it gives them.
    """
    path = _file(source, _MODEL)
    if path is None:
        raise ModelError(
            tr(
                "The model {path} has neither tokenizer.json nor tokenizer.model. "
                "Was the download finished?"
            ).format(path=source)
        )
    model = _read_model(path)
    settings = _read_settings(source)
    added = _added_tokens(settings, source)
    core = _core(model, added)
    _check_ids(core, added, path)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        name_or_path=str(source),
        add_bos_token=settings.get("add_bos_token", True),
        add_eos_token=settings.get("add_eos_token", False),
        additional_special_tokens=_extra(settings, added),
        clean_up_tokenization_spaces=False,
        padding_side=padding_side or settings.get("padding_side", "right"),
        chat_template=_chat_template(source, settings),
        **{key: settings[key] for key in ("model_max_length",) if settings.get(key)},
        **{key: _content(settings.get(key, default)) for key, default in _NAMED.items()},
    )


# ---- the files -----------------------------------------------------------------------------------


def _file(source: str | Path, name: str) -> Path | None:
    """The file `name` of a folder or, downloaded, of a hub name; None where there is none."""
    found = cached_file(str(source), name, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def _read_model(path: Path) -> SentencePieceModel:
    try:
        model = parse_sentencepiece(path.read_bytes())
    except NotSentencePieceError as error:
        raise ModelError(
            tr(
                "{path} is no sentencepiece model, or was cut off. Copy it again from where the "
                "model came from."
            ).format(path=path)
        ) from error
    texts = {piece.text for piece in model.pieces}
    if (
        model.kind != ModelKind.BPE
        or len(texts) != len(model.pieces)
        or model.removes_extra_spaces
        or not model.escapes_spaces
        or model.space_is_suffix
    ):
        raise ModelError(
            tr(
                "{path} is a sentencepiece model, but not of InternLM2's kind: BPE that keeps every "
                "space. It belongs to another model."
            ).format(path=path)
        )
    return model


def _read_settings(source: str | Path) -> dict[str, Any]:
    """tokenizer_config.json; without one, upstream's defaults hold."""
    path = _file(source, _CONFIG)
    if path is None:
        return {}
    try:
        settings = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(
            tr("{path} is no JSON: {reason}").format(path=path, reason=error)
        ) from error
    if not isinstance(settings, dict):
        raise ModelError(tr("{path} is no JSON object.").format(path=path))
    return settings


def _chat_template(source: str | Path, settings: Mapping[str, Any]) -> Any:
    """That of a file of its own, else of the settings; several by name are a list there."""
    path = _file(source, _TEMPLATE)
    if path is not None:
        return path.read_text("utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        return {entry["name"]: entry["template"] for entry in template}
    return template


# ---- tokens beside the vocabulary's --------------------------------------------------------------


def _content(token: Any) -> str | None:
    """The text of a token, which a config writes as a string or as an object."""
    return token.get("content") if isinstance(token, Mapping) else token


def _added_tokens(settings: Mapping[str, Any], source: str | Path) -> dict[int, AddedToken]:
    """The tokens of `added_tokens_decoder` by id, in the order of their ids."""
    try:
        entries = dict(settings.get("added_tokens_decoder") or {})
        return {
            int(number): AddedToken(
                entry["content"], **{key: entry[key] for key in _ADDED_FIELDS if key in entry}
            )
            for number, entry in sorted(entries.items(), key=lambda item: int(item[0]))
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            tr(
                "added_tokens_decoder in the tokenizer_config.json of {path} cannot be used: it must "
                "give each id an object with content. Found: {reason}"
            ).format(path=source, reason=error)
        ) from error


def _extra(settings: Mapping[str, Any], added: Mapping[int, AddedToken]) -> list[str]:
    """Special tokens that have no role of their own, such as <|im_start|>."""
    named = {_content(settings.get(key, default)) for key, default in _NAMED.items()}
    listed = [_content(token) for token in settings.get("additional_special_tokens") or []]
    special = [token.content for token in added.values() if token.special]
    return [token for token in dict.fromkeys([*listed, *special]) if token and token not in named]


# ---- the fast tokenizer --------------------------------------------------------------------------


def _core(model: SentencePieceModel, added: Mapping[int, AddedToken]) -> Tokenizer:
    names = [
        added[number].content if number in added else piece.text
        for number, piece in enumerate(model.pieces)
    ]
    kinds = {piece.kind: piece.text for piece in model.pieces}
    bpe = models.BPE(
        vocab={name: number for number, name in enumerate(names)},
        merges=_merges(model, added),
        unk_token=kinds.get(PieceKind.UNKNOWN),
        fuse_unk=True,
        byte_fallback=PieceKind.BYTE in kinds,
    )
    core = Tokenizer(bpe)
    core.normalizer = _normalizer(model)  # pyright: ignore[reportAttributeAccessIssue]
    core.decoder = _decoder(model)  # pyright: ignore[reportAttributeAccessIssue]
    core.add_tokens(
        [
            AddedToken(piece.text, normalized=_SPACE in piece.text, special=False)
            for number, piece in enumerate(model.pieces)
            if piece.kind == PieceKind.USER_DEFINED and number not in added
        ]
    )
    for token in added.values():  # one by one, in the order of their ids
        (core.add_special_tokens if token.special else core.add_tokens)([token])
    return core


def _merges(model: SentencePieceModel, added: Mapping[int, AddedToken]) -> list[tuple[str, str]]:
    """The pairs that make a piece, best first.

    sentencepiece joins the neighbours whose text together is the piece of the highest score; the
    `tokenizers` library joins by a list of pairs. So each piece gives every way to cut it into two.
    """
    normal = [
        piece
        for number, piece in enumerate(model.pieces)
        if piece.kind == PieceKind.NORMAL and number not in added
    ]
    texts = {piece.text for piece in normal}
    return [
        (text[:cut], text[cut:])
        for text in (piece.text for piece in sorted(normal, key=lambda p: -p.score))
        for cut in range(1, len(text))
        if text[:cut] in texts and text[cut:] in texts
    ]


def _normalizer(model: SentencePieceModel) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.adds_space_before:
        steps.append(normalizers.Prepend(_SPACE))
    steps.append(normalizers.Replace(" ", _SPACE))
    return normalizers.Sequence(steps)


def _decoder(model: SentencePieceModel) -> decoders.Decoder:
    steps: list[decoders.Decoder] = [
        decoders.Replace(_SPACE, " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
    ]
    if model.adds_space_before:
        steps.append(decoders.Strip(" ", left=1))
    return decoders.Sequence(steps)


def _check_ids(core: Tokenizer, added: Mapping[int, AddedToken], path: Path) -> None:
    """Raise ModelError that names every token whose id cannot be the one the config gives it."""
    wrong = [
        f"{token.content} ({number})"
        for number, token in added.items()
        if core.token_to_id(token.content) != number
    ]
    if wrong:
        raise ModelError(
            tr(
                "The tokens {tokens} of tokenizer_config.json cannot have these ids with {path}. "
                "The two files belong to different models."
            ).format(tokens=", ".join(wrong), path=path)
        )
