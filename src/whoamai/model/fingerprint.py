"""Which model an adapter was trained on: a short hash of the model, kept beside the adapter.

The hash is of every tensor's name, shape and format and of a few KiB out of its middle, so it takes
moments for a model of any size; it is the same however the weights are cut into files. Training changes
nearly every number of a weight, so another model of the same shape has another hash.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.model.stored import StoredModel, model_folder, read_json_object

BASE_CARD = "whoamai_base.json"
_SAMPLE = 2048  # numbers out of a tensor's middle


@dataclass(frozen=True, slots=True)
class BaseCard:
    """The model an adapter belongs to.

    `model` is how it was named. `quantization`: in what it was held while the adapter was trained
    ("none", "nf4").
    """

    fingerprint: str
    model: str
    quantization: str


def base_fingerprint(source: str | Path) -> str:
    """The hash of a model folder, of "tiny-chat", or of a hub name that was downloaded before.

    Raises ModelError where its weights cannot be read.
    """
    return fingerprint_of(StoredModel(model_folder(source, download=False)))


def fingerprint_of(model: StoredModel) -> str:
    """The hash of an opened model folder, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(model.tensors):
        tensor = model.tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        with model.opened(name) as place:
            digest.update(_sample(place, tensor.shape))
    return digest.hexdigest()


def write_base_card(folder: Path, card: BaseCard) -> Path:
    """Write the card into an adapter's folder."""
    path = folder / BASE_CARD
    path.write_text(json.dumps(asdict(card), ensure_ascii=False, indent=2) + "\n", "utf-8")
    return path


def read_base_card(folder: Path) -> BaseCard | None:
    """The card in an adapter's folder; None where there is none. Raises ModelError for a bad one."""
    path = folder / BASE_CARD
    if not path.is_file():
        return None
    raw = read_json_object(path)
    values = [raw.get(field.name) for field in fields(BaseCard)]
    if not all(isinstance(value, str) for value in values):
        raise ModelError(
            tr(
                "{path} does not say which model the adapter was trained on. Delete the file to go on "
                "without this check, or train the adapter again."
            ).format(path=path)
        )
    return BaseCard(*map(str, values))


def _sample(place: Any, shape: tuple[int, ...]) -> bytes:
    """Up to _SAMPLE numbers of a tensor's middle row, as they lie in the file."""
    if not shape:
        values = place
    elif len(shape) == 1:
        start = max(0, shape[0] // 2 - _SAMPLE // 2)
        values = place[start : start + _SAMPLE]
    else:
        values = place[shape[0] // 2 : shape[0] // 2 + 1]
    # reshape before view: a single number has no last dimension to look at as bytes
    few = values.reshape(-1)[:_SAMPLE].contiguous()
    return few.view(torch.uint8).numpy().tobytes()
