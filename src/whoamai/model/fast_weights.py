"""Frozen linear layers that share an input, and their adapters, as one matrix for one product.

For layers W1, W2 (n_i × K) with adapters A_i (r_i × K), B_i (n_i × r_i), scaled by s_i:

                K     r1     r2
          ┌───────┬───────┬───────┐
       n1 │  W1   │ s1·B1 │   0   │         y  = [x | x·A1ᵀ | x·A2ᵀ] · upperᵀ
       n2 │  W2   │   0   │ s2·B2 │         dx = [dy | dy1·s1·B1 | dy2·s2·B2] · left
          ├───────┼───────┴───────┘
       r1 │  A1   │   unused                upper: the first n1 + n2 rows, left: the first K columns
       r2 │  A2   │
          └───────┘

What an adapter adds rides along in the inner dimension of the product with the frozen weights: no
product of its own with a result as large as y, and no pass over the memory to add that up. The layers'
own weights become views of W1 and W2, so nothing is held twice and everything else (answering between
steps, saving) goes on with them. A and B are copied in from their float32 parameters in every pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from whoamai.messages import tr


@dataclass(frozen=True, slots=True)
class Adapter:
    """One layer's adapter: A (r × in) and B (out × r), trained in float32, and what B is scaled by."""

    a: torch.nn.Parameter
    b: torch.nn.Parameter
    scale: float


@dataclass(frozen=True, slots=True)
class Layer:
    """A frozen linear layer and its adapter, if it has one. `module` holds the weight."""

    module: torch.nn.Linear
    adapter: Adapter | None

    @property
    def rank(self) -> int:
        return 0 if self.adapter is None else self.adapter.a.shape[0]


def layer_of(module: Any) -> Layer | str:
    """The parts of a linear layer, bare or with peft's LoRA on it; else why it has none, in words."""
    if type(module) is torch.nn.Linear:
        if any(p.requires_grad for p in module.parameters()):
            return tr("its own weights are trained")
        return Layer(module, None)
    base = getattr(module, "base_layer", None)
    if type(base) is not torch.nn.Linear:
        return tr("its weights are held in another form ({form})").format(
            form=type(base or module).__name__
        )
    active = list(getattr(module, "active_adapters", ()))
    if len(active) != 1 or active[0] not in module.lora_A:
        return tr("it has several adapters, or none")
    name = active[0]
    if getattr(module, "lora_variant", None) or (getattr(module, "use_dora", None) or {}).get(name):
        return tr("its adapter is no plain LoRA")
    if getattr(module.lora_dropout[name], "p", 0.0):
        return tr("lora.lora_dropout is not 0")
    a, b = module.lora_A[name], module.lora_B[name]
    if a.bias is not None or b.bias is not None:
        return tr("its adapter is no plain LoRA")
    return Layer(base, Adapter(a.weight, b.weight, float(module.scaling[name])))


def adapters_are_on(module: Any) -> bool:
    """Does this layer, as it is called now, add what its adapter makes?"""
    return not getattr(module, "disable_adapters", False) and not getattr(module, "merged", False)


class Group:
    """Layers that share an input, as one matrix."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        """Takes the layers' weights over: they become views."""
        self.layers = tuple(layers)
        self.n_in = layers[0].module.in_features
        self.n_out = sum(layer.module.out_features for layer in layers)
        self.rank = sum(layer.rank for layer in layers)
        weight = layers[0].module.weight
        self.whole = torch.zeros(
            self.n_out + self.rank, self.n_in + self.rank, dtype=weight.dtype, device=weight.device
        )
        self.upper, self.left = self.whole[: self.n_out], self.whole[:, : self.n_in]
        self.a_rows = self.whole[self.n_out :, : self.n_in]
        self._places: list[_Place] = []
        row, column = 0, 0
        for layer in layers:
            rows = slice(row, row + layer.module.out_features)
            columns = slice(column, column + layer.rank)
            view = self.upper[rows, : self.n_in]
            view.copy_(layer.module.weight.data)
            layer.module.weight.data = view
            self._places.append(_Place(layer, rows, columns))
            row, column = rows.stop, columns.stop
        biases = [layer.module.bias for layer in layers]
        self.bias = self._bias(biases) if any(bias is not None for bias in biases) else None

    def _bias(self, biases: Sequence[torch.Tensor | None]) -> torch.Tensor:
        parts = [
            torch.zeros(layer.module.out_features, dtype=self.whole.dtype, device=self.whole.device)
            if bias is None
            else bias.data
            for layer, bias in zip(self.layers, biases, strict=True)
        ]
        return torch.cat(parts)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """A and B of each layer that has an adapter, in order."""
        adapters = [layer.adapter for layer in self.layers if layer.adapter]
        return [p for adapter in adapters for p in (adapter.a, adapter.b)]

    def input(self, n: int) -> torch.Tensor:
        """An empty n × (K + r): the product's input goes into its first K columns."""
        return torch.empty(
            n, self.n_in + self.rank, dtype=self.whole.dtype, device=self.whole.device
        )

    def output_gradient(self, n: int) -> torch.Tensor:
        """The same for the way back, n × (n_out + r)."""
        return torch.empty(
            n, self.n_out + self.rank, dtype=self.whole.dtype, device=self.whole.device
        )

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the adapters' matrices as they are now."""
        for place in self._places:
            if adapter := place.layer.adapter:
                columns = place.columns
                self.a_rows[columns].copy_(adapter.a.data)
                scaled = self.whole[
                    place.rows, self.n_in + columns.start : self.n_in + columns.stop
                ]
                scaled.copy_(
                    adapter.b.data * adapter.scale if adapter.scale != 1 else adapter.b.data
                )

    def forward(self, input_TX: torch.Tensor) -> torch.Tensor:
        """y, of an `input` whose first columns are filled; its others are filled here."""
        if self.rank:
            torch.mm(input_TX[:, : self.n_in], self.a_rows.t(), out=input_TX[:, self.n_in :])
        made = torch.mm(input_TX, self.upper.t())
        return made if self.bias is None else made.add_(self.bias)

    def through_a(self, input_TX: torch.Tensor) -> torch.Tensor:
        """x · Aᵀ of all layers side by side, as forward left it: what `gradients` needs again."""
        return input_TX[:, self.n_in :].clone()

    def through_b(self, gradient_TY: torch.Tensor) -> None:
        """Fill the other columns of an `output_gradient` whose first are filled."""
        for place in self._places:
            if place.layer.rank:
                n_in, columns = self.n_in, place.columns
                scaled = self.upper[place.rows, n_in + columns.start : n_in + columns.stop]
                own = gradient_TY[:, self.n_out + columns.start : self.n_out + columns.stop]
                torch.mm(gradient_TY[:, place.rows], scaled, out=own)

    def backward(self, gradient_TY: torch.Tensor) -> torch.Tensor:
        """dx, of a whole `output_gradient`."""
        return torch.mm(gradient_TY, self.left)

    def gradients(
        self, input_TK: torch.Tensor, through_a_Tr: torch.Tensor, gradient_TY: torch.Tensor
    ) -> list[torch.Tensor]:
        """Of `parameters`, of a whole `output_gradient`."""
        found: list[torch.Tensor] = []
        if not self.rank:
            return found
        dtype = self.parameters[0].dtype
        da = _product(gradient_TY[:, self.n_out :].t(), input_TK, dtype)
        for place in self._places:
            if adapter := place.layer.adapter:
                dy, xa = gradient_TY[:, place.rows], through_a_Tr[:, place.columns]
                found += [da[place.columns], _product(dy.t(), xa, dtype).mul_(adapter.scale)]
        return found


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a layer stands: its rows of y, its columns of the adapters'."""

    layer: Layer
    rows: slice
    columns: slice


def _product(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """a · b in `dtype`, added up in float32 and, on a GPU, never rounded to 16 bits."""
    if a.is_cuda and a.dtype != dtype and dtype == torch.float32:
        return torch.mm(a, b, out_dtype=dtype)
    return torch.mm(a, b).to(dtype)
