"""A model's shape without its weights: how many layers of which size, from its config alone.

For the usual families (Llama and those built like it) the numbers follow from config.json by
arithmetic, in milliseconds and without torch. Other classes are built by transformers on the meta
device, where tensors have shapes and no memory; code that comes with a model is never run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from whoamai.config import LoraSettings
from whoamai.errors import ModelError
from whoamai.messages import tr
from whoamai.plan.known_models import KNOWN

_BUNDLED = "tiny-chat"
# As in model/targets.py, which cannot be imported without torch: the layers that choose a token's
# experts get no adapter unless they are named.
_ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
# And the layers that these classes read past, and peft refuses.
_READ_PAST = frozenset({"out_proj", "conv1d"})
_READ_PAST_IN = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})


@dataclass(frozen=True, slots=True)
class Linear:
    """`count` linear layers of one name and size, over the whole model (layers times experts)."""

    name: str
    n_in: int
    n_out: int
    count: int

    @property
    def parameters(self) -> int:
        """Weights of all of them, without biases."""
        return self.n_in * self.n_out * self.count


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a model. `linears` are its linear layers but the head, by their class's names for them.

    `other_parameters`: embeddings, norms, biases and whatever else is neither head nor linear. `dtype`
    is what the weights are stored in, None where the config does not say. `basis` says, for a person,
    where all this is known from.
    """

    label: str
    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    linears: tuple[Linear, ...]
    other_parameters: int
    max_positions: int | None
    dtype: str | None
    basis: str
    head_name: str = "lm_head"

    @property
    def head(self) -> Linear:
        """The layer that makes logits; where `tied` its weights are the embeddings'."""
        return Linear(self.head_name, self.hidden, self.vocab, 1)

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear layers, without the head."""
        return sum(linear.parameters for linear in self.linears)

    @property
    def n_parameters(self) -> int:
        """All parameters; tied ones count once."""
        head = 0 if self.tied else self.head.parameters
        return self.linear_parameters + self.other_parameters + head


def architecture_of(source: str) -> Architecture:
    """The architecture of a model folder, of "tiny-chat", or of a name on the hub.

    A hub name is looked up in the hub's cache on this machine, then in a table of common models; so is
    the last part of a path that does not exist (yet). Raises ModelError where nothing is known.
    """
    if source == _BUNDLED:
        folder = resources.files("whoamai.assets").joinpath("tiny_chat")
        return _from_folder(Path(str(folder)), source)
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _from_folder(folder, folder.name or source)
    if cached := _cached_config(source):
        return _from_folder(cached.parent, source)
    name = source.replace("\\", "/").rstrip("/").rpartition("/")[2]
    by_name = {known.lower(): known for known in KNOWN}
    if known := by_name.get(name.lower()):
        return _from_table(known, source)
    raise ModelError(
        tr(
            "Nothing is known about the model {name}: it is no folder on this machine, was not "
            "downloaded, and is not in the table of common models. Download it and give its folder; "
            "whether the name is right can be seen on the hub."
        ).format(name=source)
    )


def lora_parameters(arch: Architecture, lora: LoraSettings) -> tuple[tuple[Linear, int], ...]:
    """(kind of layer, numbers an adapter trains in all layers of that kind), the head last.

    r · (in + out) a layer. dora trains a length for each output besides; pissa holds a second pair of
    the same size still, which counts here, since it takes the same memory.
    """
    rank = lora.r * (2 if lora.variant == "pissa" else 1)
    found = []
    for linear in adapted_linears(arch, lora):
        lengths = linear.n_out if lora.variant == "dora" else 0
        found.append((linear, (rank * (linear.n_in + linear.n_out) + lengths) * linear.count))
    return tuple(found)


def adapted_linears(arch: Architecture, lora: LoraSettings) -> tuple[Linear, ...]:
    """The kinds of layers that get an adapter; the head last, where it is adapted."""
    if lora.target_modules == "all-linear":
        past = _READ_PAST if arch.model_type in _READ_PAST_IN else frozenset()
        chosen = [linear for linear in arch.linears if linear.name not in _ROUTERS | past]
    else:
        # A name may be more than the last part of a layer's name: self_attn.q_proj.
        wanted = {name.rpartition(".")[2] for name in lora.target_modules}
        chosen = [linear for linear in arch.linears if linear.name in wanted]
    return (*chosen, arch.head) if lora.adapt_head else tuple(chosen)


# ---- where a config is found ---------------------------------------------------------------------


def _from_folder(folder: Path, label: str) -> Architecture:
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(
            tr("The folder {path} has no config.json, so it is not a model folder.").format(
                path=folder
            )
        )
    try:
        config = json.loads(file.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError(tr("not a mapping"))
    except (OSError, ValueError) as error:
        text = tr("{path} cannot be read: {reason}. Download the model again.")
        raise ModelError(text.format(path=file, reason=error)) from error
    known = _by_arithmetic(config, label=label, basis=tr("config.json"))
    return known or _counted(folder, label)


def _from_table(known: str, source: str) -> Architecture:
    basis = tr("shipped table")
    if source.replace("\\", "/").count("/") > 1 or source.startswith((".", "/", "~")):
        text = tr("shipped table, by the name {name}: there is no folder {path}")
        basis = text.format(name=known, path=source)
    made = _by_arithmetic(KNOWN[known], label=known, basis=basis)
    assert made, known
    return made


def _cached_config(name: str) -> Path | None:
    """config.json of a hub name, if it was downloaded to this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # no hub name at all
        return None
    return Path(found) if isinstance(found, str) else None


# ---- arithmetic ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Family:
    """How a class differs from Llama.

    qkv_bias, o_bias: True, or the config's key that says so. norms: of a layer, over the hidden size.
    qk_norm: are queries and keys normed, over a head? tied: unless the config says otherwise.
    """

    qkv_bias: bool | str = "attention_bias"
    o_bias: bool | str = "attention_bias"
    mlp_bias: bool | str = False
    norms: int = 2
    qk_norm: bool = False
    tied: bool = False


_FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(mlp_bias="mlp_bias"),
    "mistral": _Family(qkv_bias=False, o_bias=False),
    "qwen2": _Family(qkv_bias=True, o_bias=False),
    "qwen3": _Family(qk_norm=True),
    "internlm2": _Family(qkv_bias="bias", o_bias="bias"),
    "gemma": _Family(tied=True),
    "gemma2": _Family(norms=4, tied=True),
    "gemma3_text": _Family(norms=4, qk_norm=True, tied=True),
}
_NEEDED = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


def _by_arithmetic(config: Mapping[str, Any], *, label: str, basis: str) -> Architecture | None:
    """None for a class that is not known here, or a config that leaves sizes to its class."""
    family = _FAMILIES.get(str(config.get("model_type")))
    sizes = [config.get(key) for key in _NEEDED]
    if family is None or not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    layers, hidden, intermediate, heads, kv_heads, vocab = (int(size or 0) for size in sizes)
    if config["model_type"].startswith("gemma") and not config.get("head_dim"):
        return None  # its class has a default that does not follow from the other sizes
    head_dim = int(config.get("head_dim") or hidden // heads)
    tied = config.get("tie_word_embeddings")
    queries, keys = heads * head_dim, kv_heads * head_dim
    linears = _linears(config["model_type"], layers, hidden, intermediate, queries, keys)
    norms = family.norms * hidden + (2 * head_dim if family.qk_norm else 0)
    biases = sum(
        linear.n_out * (linear.count // layers)
        for linear in linears
        if _has_bias(config, family, linear.name)
    )
    positions = config.get("max_position_embeddings")
    dtype = config.get("dtype") or config.get("torch_dtype")
    return Architecture(
        label=label,
        model_type=config["model_type"],
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        tied=family.tied if tied is None else bool(tied),
        linears=linears,
        other_parameters=vocab * hidden + layers * (norms + biases) + hidden,
        max_positions=positions if isinstance(positions, int) else None,
        dtype=dtype if isinstance(dtype, str) else None,
        basis=basis,
        head_name="output" if config["model_type"] == "internlm2" else "lm_head",
    )


def _linears(
    model_type: str, layers: int, hidden: int, intermediate: int, queries: int, keys: int
) -> tuple[Linear, ...]:
    """A layer's linear layers; `queries` and `keys` are numbers of all heads together."""
    if model_type == "internlm2":
        return (
            Linear("wqkv", hidden, queries + 2 * keys, layers),
            Linear("wo", queries, hidden, layers),
            Linear("w1", hidden, intermediate, layers),
            Linear("w3", hidden, intermediate, layers),
            Linear("w2", intermediate, hidden, layers),
        )
    return (
        Linear("q_proj", hidden, queries, layers),
        Linear("k_proj", hidden, keys, layers),
        Linear("v_proj", hidden, keys, layers),
        Linear("o_proj", queries, hidden, layers),
        Linear("gate_proj", hidden, intermediate, layers),
        Linear("up_proj", hidden, intermediate, layers),
        Linear("down_proj", intermediate, hidden, layers),
    )


def _has_bias(config: Mapping[str, Any], family: _Family, name: str) -> bool:
    if name in ("q_proj", "k_proj", "v_proj", "wqkv"):
        rule = family.qkv_bias
    elif name in ("o_proj", "wo"):
        rule = family.o_bias
    else:
        rule = family.mlp_bias
    # Upstream's InternLM2 has biases unless its config says no; the others have none unless it says so.
    default = config["model_type"] == "internlm2"
    return bool(config.get(rule, default)) if isinstance(rule, str) else rule


# ---- other classes -------------------------------------------------------------------------------


def _counted(folder: Path, label: str) -> Architecture:
    """Built by transformers on the meta device and counted."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from whoamai.model.internlm2 import register_internlm2

    register_internlm2()  # a class of ours, which transformers lacks
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # any class may refuse a config in its own way
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise ModelError(
            tr(
                "The model in {path} is of a kind that transformers cannot build: {reason}. A newer "
                "transformers may know it; code that comes with a model is never run."
            ).format(path=folder, reason=reason.rstrip("."))
        ) from error
    return of_model(model, label=label, basis=tr("counted on the meta device"))


def of_model(model: Any, *, label: str, basis: str) -> Architecture:
    """The architecture of a transformers model, on whatever device, counted module by module."""
    from torch import nn

    config, head = model.config.get_text_config(), model.get_output_embeddings()
    found: Counter[tuple[str, int, int]] = Counter()
    head_name = "lm_head"
    for whole, module in model.named_modules():
        if module is head:
            head_name = whole.rpartition(".")[2]
        elif isinstance(module, nn.Linear):
            found[whole.rpartition(".")[2], module.in_features, module.out_features] += 1
        elif type(module).__name__ == "Conv1D":  # GPT-2's linear layer, in × out
            found[(whole.rpartition(".")[2], *module.weight.shape)] += 1  # type: ignore[index]
    linears = tuple(Linear(*kind, count) for kind, count in found.items())
    embedding = model.get_input_embeddings().weight
    total = sum(parameter.numel() for parameter in model.parameters())
    tied = head is not None and head.weight is embedding
    head_parameters = 0 if head is None or tied else head.weight.numel()
    hidden, heads = embedding.shape[1], _size(config, "num_attention_heads", 1)
    dtype = getattr(config, "dtype", None)
    return Architecture(
        label=label,
        model_type=str(model.config.model_type),
        layers=_size(config, "num_hidden_layers", 1),
        hidden=hidden,
        intermediate=_size(config, "intermediate_size", 4 * hidden),
        heads=heads,
        kv_heads=_size(config, "num_key_value_heads", heads),
        head_dim=_size(config, "head_dim", hidden // heads),
        vocab=embedding.shape[0],
        tied=tied,
        linears=linears,
        other_parameters=total - sum(linear.parameters for linear in linears) - head_parameters,
        max_positions=getattr(config, "max_position_embeddings", None),
        dtype=str(dtype).removeprefix("torch.") if dtype is not None else None,
        basis=basis,
        head_name=head_name,
    )


def _size(config: Any, name: str, default: int) -> int:
    value = getattr(config, name, None)
    if isinstance(value, list | tuple):  # a size a layer (OpenELM, Gemma 3n): the largest
        value = max((v for v in value if isinstance(v, int)), default=None)
    return value if isinstance(value, int) and value > 0 else default
