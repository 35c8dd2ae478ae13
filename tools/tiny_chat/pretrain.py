"""The model, and its training from nothing.

The forward pass is written out here rather than taken from transformers: packed documents without
padding (variable-length attention) and three compiled pieces make it several times as fast on a
GPU. The weights are those of a stock Qwen3ForCausalLM all the while, and tests/tools compares the
two.

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
from transformers import Qwen3Config, Qwen3ForCausalLM

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


def new_model(vocabulary: int, seed: int, *, layers: int = 8) -> Qwen3ForCausalLM:
    """7.1 M parameters at the default size, in float32."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        rms_norm_eps=_NORM_EPS,
        bos_token_id=None,
        eos_token_id=TURN_END_ID,
        pad_token_id=PADDING_ID,
        initializer_range=0.02,
    )
    model = Qwen3ForCausalLM(config).float()
    # What is added to the residual stream 2 x layers times starts smaller by that root (GPT-2).
    body: Any = model.model
    for layer in body.layers:
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            linear.weight.data.mul_(1 / math.sqrt(2 * layers))
    return model


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
    norm_q: Tensor,
    norm_k: Tensor,
    cos_T1K: Tensor,
    sin_T1K: Tensor,
    heads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    h_TD = _norm(x_TD, norm)
    q, k, v = (F.linear(h_TD, w.to(_COMPUTE)).view(len(h_TD), heads, -1) for w in (w_q, w_k, w_v))
    q = _rotated(_norm(q, norm_q), cos_T1K, sin_T1K)
    return q, _rotated(_norm(k, norm_k), cos_T1K, sin_T1K), v


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
    """Loss of a Qwen3ForCausalLM on a packed batch, with its own weights in place."""

    def __init__(self, model: Qwen3ForCausalLM, *, compiled: bool) -> None:
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
        x_TD = F.embedding(batch.ids_T, body.embed_tokens.weight)
        for layer in body.layers:
            attn, mlp = layer.self_attn, layer.mlp
            q, k, v = self.before(
                x_TD,
                layer.input_layernorm.weight,
                attn.q_proj.weight,
                attn.k_proj.weight,
                attn.v_proj.weight,
                attn.q_norm.weight,
                attn.k_norm.weight,
                cos_T1K,
                sin_T1K,
                heads,
            )
            x_TD = self.after(
                x_TD,
                _attend(q, k, v, batch),
                attn.o_proj.weight,
                layer.post_attention_layernorm.weight,
                mlp.gate_proj.weight,
                mlp.up_proj.weight,
                mlp.down_proj.weight,
            )
        norm, embedding = body.norm.weight, body.embed_tokens.weight
        return self.head(x_TD, norm, embedding, batch.target_T, batch.weight_T)


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
    model: Qwen3ForCausalLM,
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
