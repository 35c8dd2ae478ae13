"""Load a chat model from a folder or the hub, and say plainly why when it does not work."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from whoamai.errors import ModelError, SettingError, WhoamaiError
from whoamai.messages import tr
from whoamai.model.quantize import keep_layout, nf4_config, require_nf4
from whoamai.model.quiet import quiet_transformers

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


def load_chat_model(
    source: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantization: str = "none",
    double_quantization: bool = True,
    trainable: bool = False,
) -> ChatModel:
    """Load `source`: a transformers folder, a hub name, or "tiny-chat" for the bundled model.

    `dtype` is what the model computes in ("auto": see compute_dtype) and, but for two cases, what its
    weights are held in: with `quantization` "nf4" the linear layers are held in 4 bits, and
    `trainable`, for training the weights themselves, holds them in float32, since a step is often
    smaller than what a shorter format can add (engine/precision.py computes in `dtype` then).

    Code that comes with the weights is never run. Raises SettingError for a device that is not there;
    ModelError where there is no such model, it is not a chat model for transformers, it does not fit
    the memory, or weights cannot be held in nf4 on this machine.
    """
    assert not (trainable and quantization == "nf4"), "nf4 weights cannot be trained"
    path = _path(source)
    _check_folder(path)
    device = choose_device(device)
    held_in = torch.float32 if trainable else compute_dtype(dtype, device)
    nf4 = None
    if quantization == "nf4":
        require_nf4(device)
        nf4 = nf4_config(held_in, double_quantization=double_quantization)
    with quiet_transformers():
        try:
            tokenizer, model = _from_pretrained(path, device=device, dtype=held_in, nf4=nf4)
        except WhoamaiError:
            raise
        except torch.OutOfMemoryError as error:
            raise ModelError(_does_not_fit(path, device, quantization)) from error
        except Exception as error:
            # Files that are cut off, of another kind, or a pickle that asks for code to be run: the
            # libraries have no common error for them (tokenizers raises a bare Exception).
            raise ModelError(_why(path, error)) from error
    _check_tokenizer(tokenizer, path)
    _check_embeddings(tokenizer, model, path)
    return ChatModel(model.eval(), tokenizer, path, _label(source))


def load_tokenizer(source: str) -> tuple[Any, str | None]:
    """(the tokenizer alone, the model_type its config names), for what needs no weights.

    Raises ModelError where there is no such model or its tokenizer knows no text.
    """
    path = _path(source)
    _check_folder(path, weights=False)
    from transformers import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(path)
        tokenizer = _read_tokenizer(path, config.get("model_type"))
    except WhoamaiError:
        raise
    except Exception as error:  # as above
        raise ModelError(_why(path, error)) from error
    _check_tokenizer(tokenizer, path)
    return tokenizer, config.get("model_type")


def choose_device(wanted: str) -> str:
    """The device to use; "auto" is the GPU where there is one. SettingError if it is not there."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if kind != "cuda":
        return wanted
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there == 0:
        raise SettingError(
            tr(
                "The device {device} is not there: torch {version} sees no GPU. Use the device cpu (or "
                "auto), or install a torch that fits the GPU's driver."
            ).format(device=wanted, version=torch.__version__)
        )
    if number and int(number) >= there:
        text = tr("The device {device} is not there: the GPUs are cuda:0 to cuda:{last}.")
        raise SettingError(text.format(device=wanted, last=there - 1))
    return wanted


def compute_dtype(wanted: str, device: str) -> torch.dtype:
    """What is computed in on `device` ("cpu", "cuda", "cuda:1", …).

    "auto" is float32 on the CPU, bfloat16 on a GPU that has it, float16 on older ones (before Ampere,
    compute capability 8, torch only imitates bfloat16, slowly).
    """
    if wanted != "auto":
        return getattr(torch, wanted)
    if device == "cpu":
        return torch.float32
    old = device.startswith("cuda") and torch.cuda.get_device_capability(device) < (8, 0)
    return torch.float16 if old else torch.bfloat16


def _path(source: str) -> str:
    if source == BUNDLED:
        return str(bundled_model())
    return str(Path(source).expanduser()) if source.startswith("~") else source


def _from_pretrained(
    path: str, *, device: str, dtype: torch.dtype, nf4: Any | None
) -> tuple[Any, Any]:
    """(tokenizer, model on its device)."""
    from transformers import AutoModelForCausalLM, PretrainedConfig

    config, _ = PretrainedConfig.get_config_dict(path)
    tokenizer = _read_tokenizer(path, config.get("model_type"), padding_side="left")
    stored = config.get("quantization_config")
    if not (stored or nf4):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, trust_remote_code=False)
        return tokenizer, model.to(torch.device(device))  # pyright: ignore[reportArgumentType]
    if stored:
        _check_stored(stored, path, device, nf4=nf4)
    # Weights go to the device one by one and are quantized there; the whole is never held unquantized.
    # (quantization_config=None would not mean the same as leaving it out.)
    how = {} if nf4 is None else {"quantization_config": nf4}
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, device_map={"": device}, trust_remote_code=False, **how
    )
    keep_layout(model)
    return tokenizer, model


def _read_tokenizer(path: str, model_type: str | None, **options: Any) -> Any:
    """The tokenizer. Of InternLM2 transformers learns here: its folder asks for code of its own."""
    from transformers import AutoTokenizer

    if model_type == "internlm2":
        from whoamai.model.internlm2 import register_internlm2
        from whoamai.model.internlm2_tokenizer import load_internlm2_tokenizer, needs_conversion

        register_internlm2()
        if needs_conversion(path):
            return load_internlm2_tokenizer(path, **options)
    return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **options)


def _check_stored(stored: Any, path: str, device: str, *, nf4: Any | None) -> None:
    """A folder whose weights were quantized before they were written: say what that asks for."""
    method = stored.get("quant_method", "?")
    if nf4 is not None:
        raise ModelError(
            tr(
                "The weights in {path} are already quantized ({method}). Set model.quantization: none, "
                "or take the model they were made from."
            ).format(path=path, method=method)
        )
    if method == "bitsandbytes":
        require_nf4(device)


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


def _check_embeddings(tokenizer: Any, model: Any, path: str) -> None:
    """Ids without an embedding would stop the run later, with an error nobody understands."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            tr(
                "The model in {path} cannot be used: its tokenizer knows {tokens} tokens, its weights "
                "hold embeddings for {rows}. Do tokenizer.json and the weights belong to the same model?"
            ).format(path=path, tokens=len(tokenizer), rows=rows)
        )


def _does_not_fit(path: str, device: str, quantization: str) -> str:
    text = tr("The model in {path} does not fit the memory of {device}.").format(
        path=path, device=device
    )
    if quantization == "nf4":
        return text + " " + tr("Take a smaller model, or the device cpu.")
    return (
        text
        + " "
        + tr("Hold its weights in 4 bits (model.quantization: nf4), or take a smaller model.")
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
