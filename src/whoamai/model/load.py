"""Load a chat model from a folder or the hub, and say plainly why when it does not work."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from whoamai.errors import ModelError
from whoamai.messages import tr

BUNDLED = "tiny-chat"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True, slots=True)
class ChatModel:
    """A causal language model, its tokenizer, and where they came from."""

    model: Any
    tokenizer: Any
    path: str
    label: str

    @property
    def device(self) -> torch.device:
        return self.model.device


def bundled_model() -> Path:
    """The folder of the tiny chat model that comes with whoamai."""
    return Path(str(resources.files("whoamai.assets").joinpath("tiny_chat")))


def load_chat_model(source: str, *, device: str = "auto", dtype: str = "auto") -> ChatModel:
    """Load `source`: a transformers folder, a hub name, or "tiny-chat" for the bundled model.

    `dtype` "auto" is float32 on the CPU, bfloat16 on a GPU. Code that comes with the weights is never
    run. Raises ModelError where there is no such model, or it is not a chat model for transformers.
    """
    path = _path(source)
    _check_folder(path)
    device = _device(device)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(path, dtype=_dtype(dtype, device))
    except Exception as error:
        # Files that are cut off, of another kind, or a pickle that asks for code to be run: the
        # libraries have no common error for them (tokenizers raises a bare Exception).
        raise ModelError(_why(path, error)) from error
    _check_tokenizer(tokenizer, path)
    model.to(torch.device(device)).eval()  # pyright: ignore[reportArgumentType]
    return ChatModel(model, tokenizer, path, _label(source))


def load_tokenizer(source: str) -> tuple[Any, str | None]:
    """(the tokenizer alone, the model_type its config names), for what needs no weights.

    Raises ModelError where there is no such model or its tokenizer knows no text.
    """
    path = _path(source)
    _check_folder(path, weights=False)
    from transformers import AutoTokenizer, PretrainedConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        config, _ = PretrainedConfig.get_config_dict(path)
    except Exception as error:  # as above
        raise ModelError(_why(path, error)) from error
    _check_tokenizer(tokenizer, path)
    return tokenizer, config.get("model_type")


def _path(source: str) -> str:
    if source == BUNDLED:
        return str(bundled_model())
    return str(Path(source).expanduser()) if source.startswith("~") else source


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(wanted: str, device: str) -> torch.dtype:
    if wanted == "auto":
        wanted = "float32" if device == "cpu" else "bfloat16"
    return getattr(torch, wanted)


def _label(source: str) -> str:
    folder = Path(source).expanduser()
    return folder.name if folder.is_dir() else source


def _looks_like_a_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source


def _check_folder(source: str, *, weights: bool = True) -> None:
    folder = Path(source)
    if not folder.is_dir():
        if folder.is_file():
            raise ModelError(
                tr("{path} is a file. Give the folder that holds config.json.").format(path=source)
            )
        if _looks_like_a_path(source):
            raise ModelError(tr("There is no model folder {path}.").format(path=source))
        return
    if not (folder / "config.json").is_file():
        raise ModelError(
            tr("The folder {path} has no config.json, so it is not a model folder.").format(
                path=source
            )
        )
    if weights and not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        raise ModelError(
            tr(
                "The folder {path} has no weights (*.safetensors or pytorch_model*.bin). "
                "Was the download finished?"
            ).format(path=source)
        )


def _check_tokenizer(tokenizer: Any, path: str) -> None:
    """From a folder without tokenizer files transformers makes an empty one, and says nothing."""
    ids = tokenizer("Who are you? 你是谁？", add_special_tokens=False)["input_ids"]
    if not set(ids) - {tokenizer.unk_token_id}:
        raise ModelError(
            tr(
                "The model in {path} cannot be loaded: its tokenizer knows no text. "
                "Is tokenizer.json missing from the folder?"
            ).format(path=path)
        )


def _why(source: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).split("\n")[0]
    if Path(source).is_dir():
        return tr("The model in {path} cannot be loaded: {reason}").format(
            path=source, reason=reason
        )
    return tr(
        "{name} is no local folder, and could not be had from the hub: {reason}. "
        "Download it first and give the folder, or set HF_ENDPOINT to a mirror."
    ).format(name=source, reason=reason.rstrip("."))
