"""Which tensor of a model's files an adapter's names mean, and which two of them may be one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whoamai.convert.adapter import Change
from whoamai.errors import WhoamaiError
from whoamai.model.quiet import quiet_transformers


@dataclass(frozen=True, slots=True)
class Head:
    """Names of the weights of head and embeddings in the model's class; `tied`: they are one tensor."""

    head: str
    embeddings: str
    tied: bool


def head_of(folder: Path, config: Mapping[str, Any]) -> Head:
    """By the model's class, built without weights; by its usual names where transformers has no such."""
    try:
        return _of_class(folder, config)
    except WhoamaiError:
        raise
    except (
        Exception
    ):  # a class of remote code, one that is no language model, one that needs a GPU, …
        tied = bool(config.get("tie_word_embeddings", False))
        return Head("lm_head.weight", "model.embed_tokens.weight", tied)


def _of_class(folder: Path, config: Mapping[str, Any]) -> Head:
    from transformers import AutoConfig, AutoModelForCausalLM

    from whoamai.model.targets import head_name, is_tied

    if config.get("model_type") == "internlm2":
        from whoamai.model.internlm2 import register_internlm2

        register_internlm2()
    with quiet_transformers(), torch.device("meta"):
        own = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        model = AutoModelForCausalLM.from_config(own, trust_remote_code=False)
    embeddings = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embeddings)
    return Head(f"{head_name(model)}.weight", f"{name}.weight", is_tied(model))


def in_files(
    changes: Mapping[str, Change], tensors: Collection[str], head: Head | None
) -> dict[str, Change]:
    """The changes by the names of the files' tensors; a name that is nowhere stays as it is."""
    return {_in_files(name, tensors, head): change for name, change in changes.items()}


def _in_files(name: str, tensors: Collection[str], head: Head | None) -> str:
    """Files may lack the first part of a name (GPT-2 on the hub), or have one more (CLIP's tower).

    The head of a model that ties it is in no file, and is not to be mistaken for another tensor.
    """
    shorter = name.partition(".")[2]
    if name in tensors or (head is not None and name == head.head):
        return name
    if shorter in tensors:
        return shorter
    longer = [other for other in tensors if other.endswith(f".{name}")]
    return longer[0] if len(longer) == 1 else name
