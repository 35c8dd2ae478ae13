"""InternLM2 written down plainly in float64, one row at a time, from its description alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def frequencies(config: Mapping, length: int) -> np.ndarray:
    """(F / 2,): how fast each pair of numbers turns with the position, for a row of that length."""
    size = config["hidden_size"] // config["num_attention_heads"]
    base, scaling = float(config["rope_theta"]), config.get("rope_scaling") or {}
    limit = config["max_position_embeddings"]
    if scaling.get("type") == "dynamic" and length > limit:
        factor = scaling["factor"]
        base *= (factor * length / limit - (factor - 1)) ** (size / (size - 2))
    return base ** -(np.arange(0, size, 2) / size)


def logits(
    weights: Mapping[str, np.ndarray],
    config: Mapping,
    ids: Sequence[int],
    *,
    positions: Sequence[int] | None = None,
    length: int | None = None,
) -> np.ndarray:
    """(T, vocabulary). `length` is that of the whole batch, which decides on dynamic scaling."""
    w = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    place = np.arange(len(ids)) if positions is None else np.asarray(positions)
    turns = frequencies(config, int(place.max()) + 1 if length is None else length)
    scaling = config.get("rope_scaling") or {}
    where = place / scaling["factor"] if scaling.get("type") == "linear" else place
    angle = where[:, None] * turns  # T F/2
    x = w["model.tok_embeddings.weight"][list(ids)]
    for number in range(config["num_hidden_layers"]):
        name = f"model.layers.{number}."
        x = x + _attention(
            w, name, config, _norm(x, w[name + "attention_norm.weight"], config), angle
        )
        h = _norm(x, w[name + "ffn_norm.weight"], config)
        gate = h @ w[name + "feed_forward.w1.weight"].T
        up = h @ w[name + "feed_forward.w3.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[name + "feed_forward.w2.weight"].T
    head = w.get("output.weight", w["model.tok_embeddings.weight"])
    return _norm(x, w["model.norm.weight"], config) @ head.T


def _norm(x: np.ndarray, weight: np.ndarray, config: Mapping) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"]) * weight


def _turned(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """The first half of a head and the second are the two coordinates of what is turned."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)


def _attention(
    w: Mapping, name: str, config: Mapping, x: np.ndarray, angle: np.ndarray
) -> np.ndarray:
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    size, group = config["hidden_size"] // heads, heads // kv_heads
    qkv = x @ w[name + "attention.wqkv.weight"].T
    qkv = qkv + w.get(name + "attention.wqkv.bias", 0.0)
    later = np.triu(np.full((len(x), len(x)), -np.inf), 1)
    mixed = []
    for kv_head in range(kv_heads):
        start = kv_head * (group + 2) * size
        parts = [qkv[:, start + n * size : start + (n + 1) * size] for n in range(group + 2)]
        key, value = _turned(parts[-2], angle), parts[-1]
        for query in parts[:-2]:
            score = _turned(query, angle) @ key.T / np.sqrt(size) + later
            weight = np.exp(score - score.max(-1, keepdims=True))
            mixed.append(weight / weight.sum(-1, keepdims=True) @ value)
    out = np.concatenate(mixed, axis=-1) @ w[name + "attention.wo.weight"].T
    return out + w.get(name + "attention.wo.bias", 0.0)
