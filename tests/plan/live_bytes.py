"""What a training step really holds: every storage that torch makes, counted while it lives.

On a GPU torch.cuda.max_memory_allocated says the same; this works on the CPU, for any operation.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from whoamai.engine.loss import pack_loss
from whoamai.engine.precision import Precision, make_optimizer
from whoamai.model.tree import tree_attention_on
from whoamai.samples import Pack


class LiveBytes(TorchDispatchMode):
    """Inside the block: bytes of the storages that were made in it and live (`now`), and the most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_key(t) for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(made)[0]:
            if isinstance(tensor, torch.Tensor) and _key(tensor) not in given:
                self._see(tensor.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._seen:
            self._seen[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._seen.pop(key)


def peak_of_step(model: Any, dtype: torch.dtype, *, tokens: int, targets: int) -> int:
    """Bytes at the worst moment of a step of two passes, beside weights, adapter and AdamW's averages.

    The averages exist before, as in every step but the first.
    """
    pack, precision = _pack(model, tokens, targets), Precision(dtype, "cpu")
    optimizer = make_optimizer(model, lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0)
    model.train()
    _step(model, pack, precision, optimizer)
    gc.collect()
    with LiveBytes() as live:
        _step(model, pack, precision, optimizer)
    return live.most


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _step(model: Any, pack: Pack, precision: Precision, optimizer: torch.optim.Optimizer) -> None:
    with tree_attention_on(model), precision.lean(model):
        for _ in range(2):
            with precision.autocast():
                loss = pack_loss(model, pack, whole=False)
            loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _pack(model: Any, tokens: int, targets: int) -> Pack:
    """One row of random tokens, of which the last are targets."""
    ids_T = torch.randint(model.get_input_embeddings().num_embeddings, (tokens,))
    last_N = torch.arange(tokens - targets, tokens)
    return Pack(
        ids_T,
        torch.arange(tokens),
        torch.full((tokens,), tokens),
        last_N,
        ids_T[last_N],
        torch.ones_like(last_N),
        n_nodes=tokens,
        n_rows=1,
        n_logical=tokens,
    )
