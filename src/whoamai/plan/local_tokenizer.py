"""The model's tokenizer, if it is on this machine already: nothing is asked of the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whoamai.errors import ModelError

_BUNDLED = "tiny-chat"
_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class LocalTokenizer:
    tokenizer: Any
    model_type: str | None


def local_tokenizer(source: str) -> LocalTokenizer | None:
    """The tokenizer of a model folder, of the bundled model, or of a hub name that was downloaded.

    None where there is none, or it cannot be loaded: what needs it is then estimated. Without one,
    neither torch nor transformers is imported.
    """
    place = source if source == _BUNDLED else _folder(source)
    if place is None:
        return None
    from whoamai.model.load import load_tokenizer

    try:
        return LocalTokenizer(*load_tokenizer(place))
    except ModelError:
        return None


def _folder(source: str) -> str | None:
    """Where the tokenizer's files are; None if nowhere here."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return str(folder) if any((folder / name).is_file() for name in _FILES) else None
    return _downloaded(source)


def _downloaded(name: str) -> str | None:
    """The folder of a hub name in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(name, file) for file in (*_FILES, "config.json")]
    except HFValidationError:  # looks like a path, and there is no such folder
        return None
    *tokenizers, config = found
    if not isinstance(config, str) or not any(isinstance(path, str) for path in tokenizers):
        return None
    return str(Path(config).parent)
