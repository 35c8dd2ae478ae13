"""The vision tower of a CLIP model, as transformers' CLIPVisionModel has it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.model.stored import StoredModel, StoredTensor

_TOWER = "vision_model."


def only_vision(base: StoredModel) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """(the tower's tensors, its config) of a CLIP model's folder, or of a folder with the tower alone.

    Raises ModelError where the model is no CLIP.
    """
    kind = base.config.get("model_type")
    if kind == "clip_vision_model":
        return dict(base.tensors), deepcopy(base.config)
    if kind != "clip":
        text = tr("--is-clip: the model in {path} is of the kind {kind}, not CLIP.")
        raise ModelError(text.format(path=base.folder, kind=kind))
    inner = base.config.get("vision_config") or {}
    config = {**inner, "architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model"}
    for key in ("dtype", "torch_dtype"):
        if base.config.get(key):
            config[key] = base.config[key]
    tensors = {name: t for name, t in base.tensors.items() if name.startswith(_TOWER)}
    return tensors, config
