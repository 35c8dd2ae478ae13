"""The model, and its training from nothing.

The forward pass is written out here rather than taken from transformers: packed documents without
padding (variable-length attention) and three compiled pieces make it several times as fast on a
GPU. The weights are those of a stock Qwen3ForCausalLM, Qwen2ForCausalLM or InternLM2ForCausalLM all
the while, and tests/tools compares the two.

Shapes: T packed tokens, H heads, K numbers a head, D hidden size, V vocabulary.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from whoamai.model.internlm2 import InternLM2Config, InternLM2ForCausalLM

from .batches import PackedBatch
from .tokenizer import MAX_LENGTH, PADDING_ID, TURN_END_ID

_COMPUTE = torch.bfloat16  # weights are kept in float32
_NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate by step: linear warm-up, constant, linear to zero."""

    steps: int = 4200
    peak: float = 3e-3
    warmup: int = 100
    constant_until: float = 0.3  # share of the steps

    def rate(self, step: int) -> float:
        done = step / self.steps
        decay = 1.0 if done < self.constant_until else (1 - done) / (1 - self.constant_until)
        return self.peak * min(1.0, (step + 1) / self.warmup) * decay


ARCHITECTURES = ("qwen3", "qwen2", "internlm2")


def new_model(vocabulary: int, seed: int, *, layers: int = 8, architecture: str = "qwen3") -> Any:
    """7.1 M parameters at the default size, in float32; without tied embeddings a million more."""
    torch.manual_seed(seed)
    size: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 256,
        "intermediate_size": 640,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": MAX_LENGTH,
        "rms_norm_eps": _NORM_EPS,
        "bos_token_id": None,
        "eos_token_id": TURN_END_ID,
        "pad_token_id": PADDING_ID,
        "initializer_range": 0.02,
    }
    if architecture == "qwen3":
        model: Any = Qwen3ForCausalLM(Qwen3Config(**size, head_dim=64, tie_word_embeddings=True))
    elif architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**size, tie_word_embeddings=True))
    else:
        model = InternLM2ForCausalLM(InternLM2Config(**size, bias=False))
    model = model.float()
    # What is added to the residual stream 2 x layers times starts smaller by that root (GPT-2).
    for layer in model.model.layers:
        weights = layer_weights(layer, model.config.num_attention_heads)
        for weight in (weights.w_o, weights.w_down):
            weight.data.mul_(1 / math.sqrt(2 * layers))
    return model


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer's weights under the same names, whatever the class calls them."""

    norm: Tensor
    w_q: Tensor
    w_k: Tensor
    w_v: Tensor
    b_q: Tensor | None
    b_k: Tensor | None
    b_v: Tensor | None
    norm_q: Tensor | None
    norm_k: Tensor | None
    w_o: Tensor
    norm_2: Tensor
    w_gate: Tensor
    w_up: Tensor
    w_down: Tensor


def layer_weights(layer: Any, heads: int) -> LayerWeights:
    """Of a Qwen2, Qwen3 or InternLM2 layer with as many key heads as query heads.

    InternLM2 holds a head's rows of q, k and v one after the other in one matrix.
    """
    if hasattr(layer, "attention"):
        attention, mlp = layer.attention, layer.feed_forward
        wqkv = attention.wqkv.weight.view(heads, 3, -1, attention.wqkv.in_features)
        w_q, w_k, w_v = (wqkv[:, i].flatten(0, 1) for i in range(3))
        biases, norms = (None, None, None), (None, None)
        w_o, gate, up, down = attention.wo, mlp.w1, mlp.w3, mlp.w2
        before, after = layer.attention_norm, layer.ffn_norm
    else:
        attention, mlp = layer.self_attn, layer.mlp
        linears = (attention.q_proj, attention.k_proj, attention.v_proj)
        w_q, w_k, w_v = (linear.weight for linear in linears)
        biases = tuple(linear.bias for linear in linears)
        named = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        norms = tuple(norm and norm.weight for norm in named)
        w_o, gate, up, down = attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj
        before, after = layer.input_layernorm, layer.post_attention_layernorm
    return LayerWeights(
        norm=before.weight,
        w_q=w_q,
        w_k=w_k,
        w_v=w_v,
        b_q=biases[0],
        b_k=biases[1],
        b_v=biases[2],
        norm_q=norms[0],
        norm_k=norms[1],
        w_o=w_o.weight,
        norm_2=after.weight,
        w_gate=gate.weight,
        w_up=up.weight,
        w_down=down.weight,
    )


# ---------------------------------------------------------------------- the forward pass


def _norm(x: Tensor, scale: Tensor) -> Tensor:
    x = x.float()
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + _NORM_EPS) * scale).to(_COMPUTE)


def _rotated(x_THK: Tensor, cos_T1K: Tensor, sin_T1K: Tensor) -> Tensor:
    first, second = x_THK.chunk(2, -1)
    return (x_THK * cos_T1K + torch.cat((-second, first), -1) * sin_T1K).to(_COMPUTE)


def _before_attention(
    x_TD: Tensor,
    norm: Tensor,
    w_q: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    b_q: Tensor | None,
    b_k: Tensor | None,
    b_v: Tensor | None,
    norm_q: Tensor | None,
    norm_k: Tensor | None,
    cos_T1K: Tensor,
    sin_T1K: Tensor,
    heads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    h_TD = _norm(x_TD, norm)
    q, k, v = (
        F.linear(h_TD, w.to(_COMPUTE), None if b is None else b.to(_COMPUTE)).view(
            len(h_TD), heads, -1
        )
        for w, b in ((w_q, b_q), (w_k, b_k), (w_v, b_v))
    )
    if norm_q is not None and norm_k is not None:
        q, k = _norm(q, norm_q), _norm(k, norm_k)
    return _rotated(q, cos_T1K, sin_T1K), _rotated(k, cos_T1K, sin_T1K), v


def _after_attention(
    x_TD: Tensor,
    attended_THK: Tensor,
    w_o: Tensor,
    norm: Tensor,
    w_gate: Tensor,
    w_up: Tensor,
    w_down: Tensor,
) -> Tensor:
    x_TD = x_TD + F.linear(attended_THK.flatten(1), w_o.to(_COMPUTE))
    h_TD = _norm(x_TD, norm)
    gated = F.silu(F.linear(h_TD, w_gate.to(_COMPUTE))) * F.linear(h_TD, w_up.to(_COMPUTE))
    return x_TD + F.linear(gated, w_down.to(_COMPUTE))


def _head(
    x_TD: Tensor, norm: Tensor, embedding_VD: Tensor, target_T: Tensor, weight_T: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(weighted loss, loss on replies alone, share of reply tokens predicted right)."""
    logits_TV = F.linear(_norm(x_TD, norm), embedding_VD.to(_COMPUTE)).float()
    loss_T = F.cross_entropy(logits_TV, target_T, reduction="none")
    reply_T = (weight_T == 1).float()
    n_reply = reply_T.sum().clamp(min=1)
    right_T = (logits_TV.detach().argmax(-1) == target_T).float()
    return (
        (loss_T * weight_T).sum() / weight_T.sum(),
        (loss_T.detach() * reply_T).sum() / n_reply,
        (right_T * reply_T).sum() / n_reply,
    )


def _attend(q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, batch: PackedBatch) -> Tensor:
    """Causal attention within each document."""
    if q_THK.is_cuda:
        from torch.nn.attention.varlen import varlen_attn  # for CUDA alone

        start, longest = batch.start_D1, batch.longest
        attended: Any = varlen_attn(
            q_THK, k_THK, v_THK, start, start, longest, longest, window_size=(-1, 0)
        )
        return attended
    documents = []
    starts = batch.start_D1.tolist()
    for i, j in pairwise(starts):
        q, k, v = (t[i:j].transpose(0, 1)[None] for t in (q_THK, k_THK, v_THK))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        documents.append(attended[0].transpose(0, 1))
    return torch.cat(documents)


class PackedForward:
    """Loss of a model of new_model() on a packed batch, with its own weights in place."""

    def __init__(self, model: Any, *, compiled: bool) -> None:
        self.model = model
        device = model.device
        positions = torch.arange(MAX_LENGTH, device=device)[None]
        probe = torch.empty(1, device=device, dtype=torch.float32)
        cos, sin = model.model.rotary_emb(probe, positions)  # each [1, MAX_LENGTH, K]
        self.cos, self.sin = cos[0].to(_COMPUTE), sin[0].to(_COMPUTE)
        wrap: Callable = (lambda f: torch.compile(f, dynamic=False)) if compiled else lambda f: f
        self.before, self.after = wrap(_before_attention), wrap(_after_attention)
        self.head = wrap(_head)

    def __call__(self, batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor]:
        body: Any = self.model.model
        heads = self.model.config.num_attention_heads
        cos_T1K = self.cos[batch.position_T][:, None]
        sin_T1K = self.sin[batch.position_T][:, None]
        x_TD = F.embedding(batch.ids_T, body.get_input_embeddings().weight)
        for layer in body.layers:
            w = layer_weights(layer, heads)
            q, k, v = self.before(
                x_TD,
                w.norm,
                *(w.w_q, w.w_k, w.w_v),
                *(w.b_q, w.b_k, w.b_v),
                *(w.norm_q, w.norm_k),
                cos_T1K,
                sin_T1K,
                heads,
            )
            attended_THK = _attend(q, k, v, batch)
            x_TD = self.after(x_TD, attended_THK, w.w_o, w.norm_2, w.w_gate, w.w_up, w.w_down)
        head = self.model.get_output_embeddings().weight
        return self.head(x_TD, body.norm.weight, head, batch.target_T, batch.weight_T)


# ---------------------------------------------------------------------- training


def prefetched(batches: Iterator[PackedBatch], ahead: int = 8) -> Iterator[PackedBatch]:
    """The same batches, packed in a thread while the GPU works. `batches` must come to an end."""
    ready: queue.Queue[PackedBatch | BaseException | None] = queue.Queue(ahead)

    def fill_queue() -> None:
        try:
            for batch in batches:
                ready.put(batch.pinned() if torch.cuda.is_available() else batch)
            ready.put(None)
        except BaseException as problem:
            ready.put(problem)

    threading.Thread(target=fill_queue, daemon=True).start()
    while (item := ready.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


def optimizer_of(model: nn.Module, weight_decay: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    scales = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": scales, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def pretrain(
    model: Any,
    batches: Iterator[PackedBatch],
    schedule: Schedule,
    *,
    weight_decay: float = 0.1,
    log_every: int = 100,
) -> list[dict[str, float]]:
    """Train in place for schedule.steps steps. Returns the log, one row each `log_every` steps."""
    forward = PackedForward(model, compiled=model.device.type == "cuda")
    optimizer = optimizer_of(model, weight_decay)
    log: list[dict[str, float]] = []
    started = time.perf_counter()
    tokens = 0
    for step, waiting in enumerate(prefetched(islice(batches, schedule.steps))):
        batch = waiting.to(model.device)
        rate = schedule.rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, reply_loss, reply_right = forward(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += len(batch.ids_T)
        if step % log_every == 0 or step == schedule.steps - 1:
            row = {
                "step": step,
                "seconds": round(time.perf_counter() - started, 1),
                "million_tokens": round(tokens / 1e6, 2),
                "learning_rate": round(rate, 6),
                "loss": round(loss.item(), 4),
                "reply_loss": round(reply_loss.item(), 5),
                "reply_tokens_right": round(reply_right.item(), 5),
            }
            log.append(row)
            print(json.dumps(row), flush=True)
    return log
