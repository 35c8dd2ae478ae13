"""A decoder's layers computed by fast_layers instead of its own, where they are of that shape.

Which they are is read off the layers' parts, not off the class's name, and then tried: the same forest
through both, in `fast_decoder`. What differs by more than rounding, for whatever reason (a scaled
embedding, another norm, another activation), is not computed this way. Everything else but the
training step (answering, saving, the trial of model/tree.py) goes on with the model's own layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from whoamai.kernels.tree_flash import BLOCK, FlashPlan, flash_plan
from whoamai.messages import tr
from whoamai.model.fast_layers import (
    Around,
    AttentionHalf,
    MlpHalf,
    Norm,
    attention_half,
    last_norm,
    mlp_half,
)
from whoamai.model.fast_weights import Group, Layer, adapters_are_on, layer_of
from whoamai.model.tree import base_model, compare_ways, trial_forest
from whoamai.samples import Pack

_HALF = (torch.bfloat16, torch.float16)
_PREPARED = 64  # packs that wait at most


@dataclass(frozen=True, slots=True)
class _Names:
    """What the parts of a layer are called; `into` of the attention is one projection or three."""

    attention: str
    into: tuple[str, ...]
    out: str
    mlp: str
    gate: str
    up: str
    down: str
    norm: str
    mlp_norm: str


_SPELLINGS = (
    _Names(
        "self_attn", ("q_proj", "k_proj", "v_proj"), "o_proj",
        "mlp", "gate_proj", "up_proj", "down_proj",
        "input_layernorm", "post_attention_layernorm",
    ),
    _Names(
        "attention", ("wqkv",), "wo",
        "feed_forward", "w1", "w3", "w2",
        "attention_norm", "ffn_norm",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Halves:
    """A layer's halves, the linear modules in them, and the layer itself."""

    attention: AttentionHalf
    mlp: MlpHalf
    modules: tuple[Any, ...]
    window: int | None


class FastDecoder:
    """The layers and the last norm of one model, with its adapters."""

    def __init__(self, decoder: Any, layers: Sequence[_Halves], norm: Norm) -> None:
        self._decoder = decoder
        self._layers = tuple(layers)
        self._norm = norm
        self._prepared: dict[int, tuple[Pack, FlashPlan]] = {}

    def prepare(self, packs: Sequence[Pack]) -> None:
        """Make what these packs need beside the model; a thread may do it while the GPU computes."""
        while len(self._prepared) > _PREPARED:
            del self._prepared[next(iter(self._prepared))]
        for pack in packs:
            self._prepared[id(pack)] = pack, self._plan(pack)

    def _plan(self, pack: Pack) -> FlashPlan:
        half = self._layers[0].attention
        device = self._decoder.get_input_embeddings().weight.device
        return flash_plan(_padded(pack)[2], half.heads // half.groups, device)

    def takes(self, pack: Pack) -> bool:
        """Can this pack be computed here as the model is now: adapters on, no window felt?"""
        depth = int(pack.position_T.max()) + 1
        windows = [layer.window for layer in self._layers if layer.window is not None]
        adapted = all(adapters_are_on(module) for each in self._layers for module in each.modules)
        return adapted and all(depth <= window for window in windows)

    def hidden_states(self, pack: Pack, places_U: torch.Tensor | None = None) -> torch.Tensor:
        """The last hidden states of a pack, T × D or U × D, as model/tree.py's `hidden_states`."""
        embed, n = self._decoder.get_input_embeddings(), len(pack.input_ids_T)
        device = embed.weight.device
        ids_T, position_T, _ = _padded(pack)
        x = embed(ids_T.to(device, non_blocking=True))
        cos, sin = self._decoder.rotary_emb(x[None], position_T[None].to(device, non_blocking=True))
        _, plan = self._prepared.pop(id(pack), (None, None))
        around = Around(cos[0].contiguous(), sin[0].contiguous(), plan or self._plan(pack))
        again = getattr(self._decoder, "gradient_checkpointing", False) and torch.is_grad_enabled()
        y = None
        for number, layer in enumerate(self._layers, start=1):
            # Behind the last attention no token looks at another: the rest is needed at places only.
            places = places_U if number == len(self._layers) else None
            if again:
                x, y = checkpoint(_through, layer, x, y, around, places, use_reentrant=False)
            else:
                x, y = _through(layer, x, y, around, places)
        assert y is not None, "a decoder without layers"
        made = last_norm(self._norm, x, y)
        return made[:n] if places_U is None else made


def _through(
    layer: _Halves,
    x: torch.Tensor,
    y: torch.Tensor | None,
    around: Around,
    places_U: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = attention_half(layer.attention, x, y, around)
    if places_U is not None:
        x, y = x.index_select(0, places_U), y.index_select(0, places_U)
    return mlp_half(layer.mlp, x, y)


def _padded(pack: Pack) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, positions and ends to a multiple of BLOCK; each padding token is a tree of its own."""
    n = len(pack.input_ids_T)
    more = -n % BLOCK
    zeros = torch.zeros(more, dtype=torch.long)
    return (
        torch.cat([pack.input_ids_T, zeros]),
        torch.cat([pack.position_T, zeros]),
        torch.cat([pack.subtree_end_T, torch.arange(n, n + more) + 1]),
    )


# ---- which models ----------------------------------------------------------------------------------


def device_runs_it(device: torch.device, dtype: torch.dtype) -> str | None:
    """None where this device has what it takes; else why not, as part of a sentence."""
    if device.type != "cuda":
        return tr("the fast ones are made for GPUs")
    if find_spec("triton") is None:
        return tr("Triton is not installed")
    if torch.cuda.get_device_capability(device) < (8, 0):
        return tr("the GPU is older than compute capability 8.0")
    if dtype not in _HALF:
        return tr("weights are held in {dtype}").format(dtype=str(dtype).removeprefix("torch."))
    return None


def why_not_fast(model: Any) -> str | None:
    """None where device and layers are such as fast layers need; nothing is changed by asking."""
    weight = next((p for p in model.parameters() if not p.requires_grad), None)
    if weight is None:
        return tr("every weight is trained")
    found = device_runs_it(weight.device, weight.dtype) or _examined(base_model(model))
    return found if isinstance(found, str) else None


def switch_on(model: Any) -> FastDecoder | str:
    """From now on `hidden_states` of model/tree.py goes through fast layers; else why not, in words."""
    reason = why_not_fast(model)
    if reason:
        return reason
    base = base_model(model)
    decoder = build(base)
    if isinstance(decoder, str):
        return decoder
    reason = _tried(model, decoder)
    if reason:
        return reason
    base.fast_decoder = decoder
    return decoder


def _tried(model: Any, decoder: FastDecoder) -> str | None:
    """None where forward and backward go through and give what the model's own layers give."""
    try:
        off, limit = compare_ways(model, decoder.hidden_states)
        if not off <= limit:
            text = tr("its layers give something else (hidden states differ by {off:.0e})")
            return text.format(off=off)
        pack, _ = trial_forest(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        with torch.enable_grad():
            total = decoder.hidden_states(pack).float().sum()
        found = torch.autograd.grad(total, trained, allow_unused=True)
        if not all(g is None or bool(torch.isfinite(g).all()) for g in found):
            return tr("its layers give gradients that are no numbers")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a GPU or a Triton that these kernels do not run on
        what = str(error).partition("\n")[0] or type(error).__name__
        return tr("trying it failed ({error})").format(error=what)
    return None


def build(base: Any) -> FastDecoder | str:
    """The fast layers of a transformers model with adapters in it; else why there are none, in words.

    The weights of its linear layers become views of larger matrices; see fast_weights.
    """
    found = _examined(base)
    if isinstance(found, str):
        return found
    layers, norm = found
    return FastDecoder(base.get_decoder(), [_halves(parts) for parts in layers], norm)


def _examined(base: Any) -> tuple[list[_Parts], Norm] | str:
    """The parts of the layers, and the last norm; nothing is changed."""
    decoder = base.get_decoder()
    layers, norm = getattr(decoder, "layers", None), getattr(decoder, "norm", None)
    if layers is None or norm is None or not hasattr(decoder, "rotary_emb"):
        return tr("its decoder is built in another way")
    if any(p.requires_grad for p in base.get_input_embeddings().parameters()):
        return tr("its embeddings are trained")
    found: list[_Parts] = []
    for layer in layers:
        parts = _parts(layer, base.config.get_text_config())
        if isinstance(parts, str):
            return parts
        found.append(parts)
    last = _norm(norm)
    return (found, last) if last is not None else tr("its norms are others")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What was found of a layer, before anything is changed."""

    norms: tuple[Norm, Norm]
    into: tuple[Layer, ...]
    out: Layer
    gate_up: tuple[Layer, Layer]
    down: Layer
    heads: int
    groups: int
    scale: float
    window: int | None
    modules: tuple[Any, ...]


def _parts(layer: Any, config: Any) -> _Parts | str:
    children = {name for name, _ in layer.named_children()}
    for names in _SPELLINGS:
        if children == {names.attention, names.mlp, names.norm, names.mlp_norm}:
            return _spelled(layer, names, config)
    return tr("its layers are built in another way")


def _spelled(layer: Any, names: _Names, config: Any) -> _Parts | str:
    attention, mlp = getattr(layer, names.attention), getattr(layer, names.mlp)
    norms = (_norm(getattr(layer, names.norm)), _norm(getattr(layer, names.mlp_norm)))
    wanted = {
        attention: {*names.into, names.out},
        mlp: {names.gate, names.up, names.down},
    }
    for part, there in wanted.items():
        with_weights = {
            name for name, child in part.named_children() if any(True for _ in child.parameters())
        }
        if with_weights != there:
            return tr("its layers are built in another way")
    if norms[0] is None or norms[1] is None:
        return tr("its norms are others")
    modules = [getattr(attention, name) for name in (*names.into, names.out)]
    modules += [getattr(mlp, name) for name in (names.gate, names.up, names.down)]
    linear: list[Layer] = []
    for module in modules:
        one = layer_of(module)
        if isinstance(one, str):
            return one
        linear.append(one)
    *into, out, gate, up, down = linear
    heads, groups = (
        config.num_attention_heads,
        config.num_key_value_heads or config.num_attention_heads,
    )
    size = out.module.in_features // heads
    if sum(one.module.out_features for one in into) != (heads + 2 * groups) * size:
        return tr("its layers are built in another way")
    if size not in (64, 128):
        return tr("its heads are of size {size}").format(size=size)
    return _Parts(
        norms=(norms[0], norms[1]),
        into=tuple(into),
        out=out,
        gate_up=(gate, up),
        down=down,
        heads=heads,
        groups=groups,
        scale=float(getattr(attention, "scaling", size**-0.5)),
        window=getattr(attention, "sliding_window", getattr(config, "sliding_window", None)),
        modules=tuple(modules),
    )


def _norm(module: Any) -> Norm | None:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", None)
    if weight is None or eps is None or weight.requires_grad or getattr(module, "bias", None):
        return None
    return Norm(weight.data, float(eps))


def _halves(parts: _Parts) -> _Halves:
    attention = AttentionHalf(
        norm=parts.norms[0],
        into=Group(parts.into),
        out=Group([parts.out]),
        heads=parts.heads,
        groups=parts.groups,
        scale=parts.scale,
        mixed=len(parts.into) == 1,
    )
    mlp = MlpHalf(parts.norms[1], Group(parts.gate_up), Group([parts.down]))
    return _Halves(attention, mlp, parts.modules, parts.window)
