"""Shapes of models that are often trained, so that a plan needs neither their files nor the network.

Each value is what the model's own config.json says; copies of these files in public repositories were
read for it. tests/plan/test_architecture.py compares the number of parameters that follows with the one
on the model's page.
"""

from __future__ import annotations

from typing import Any

_KEYS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "tie_word_embeddings",
    "max_position_embeddings",
)


def _family(
    model_type: str, models: dict[str, tuple[Any, ...]], **more: Any
) -> dict[str, dict[str, Any]]:
    more |= {"model_type": model_type, "torch_dtype": "bfloat16"}
    return {name: dict(zip(_KEYS, sizes, strict=True)) | more for name, sizes in models.items()}


_INTERNLM2_7B = (32, 4096, 14336, 32, 8, 128, 92544, False, 32768)
_INTERNLM2_1_8B = (24, 2048, 8192, 16, 8, 128, 92544, False, 32768)
_INTERNLM2_20B = (48, 6144, 16384, 48, 8, 128, 92544, False, 32768)

# The last part of a hub name, and what its config.json holds.
KNOWN: dict[str, dict[str, Any]] = {
    **_family(
        "internlm2",
        {
            "internlm2-chat-1_8b": _INTERNLM2_1_8B,
            "internlm2_5-1_8b-chat": _INTERNLM2_1_8B,
            "internlm2-chat-7b": _INTERNLM2_7B,
            "internlm2_5-7b-chat": _INTERNLM2_7B,
            "internlm2-chat-20b": _INTERNLM2_20B,
            "internlm2_5-20b-chat": _INTERNLM2_20B,
        },
        bias=False,
    ),
    **_family(
        "qwen2",
        {
            "Qwen2.5-0.5B-Instruct": (24, 896, 4864, 14, 2, 64, 151936, True, 32768),
            "Qwen2.5-1.5B-Instruct": (28, 1536, 8960, 12, 2, 128, 151936, True, 32768),
            "Qwen2.5-3B-Instruct": (36, 2048, 11008, 16, 2, 128, 151936, True, 32768),
            "Qwen2.5-7B-Instruct": (28, 3584, 18944, 28, 4, 128, 152064, False, 32768),
            "Qwen2.5-14B-Instruct": (48, 5120, 13824, 40, 8, 128, 152064, False, 32768),
            "Qwen2.5-32B-Instruct": (64, 5120, 27648, 40, 8, 128, 152064, False, 32768),
            "Qwen2.5-72B-Instruct": (80, 8192, 29568, 64, 8, 128, 152064, False, 32768),
        },
    ),
    **_family(
        "qwen3",
        {
            "Qwen3-0.6B": (28, 1024, 3072, 16, 8, 128, 151936, True, 40960),
            "Qwen3-1.7B": (28, 2048, 6144, 16, 8, 128, 151936, True, 40960),
            "Qwen3-4B": (36, 2560, 9728, 32, 8, 128, 151936, True, 40960),
            "Qwen3-8B": (36, 4096, 12288, 32, 8, 128, 151936, False, 40960),
            "Qwen3-14B": (40, 5120, 17408, 40, 8, 128, 151936, False, 40960),
            "Qwen3-32B": (64, 5120, 25600, 64, 8, 128, 151936, False, 40960),
        },
    ),
    **_family(
        "llama",
        {
            "Meta-Llama-3-8B-Instruct": (32, 4096, 14336, 32, 8, 128, 128256, False, 8192),
            "Llama-3.1-8B-Instruct": (32, 4096, 14336, 32, 8, 128, 128256, False, 131072),
            "Meta-Llama-3.1-8B-Instruct": (32, 4096, 14336, 32, 8, 128, 128256, False, 131072),
            "Llama-3.2-1B-Instruct": (16, 2048, 8192, 32, 8, 64, 128256, True, 131072),
            "Llama-3.2-3B-Instruct": (28, 3072, 8192, 24, 8, 128, 128256, True, 131072),
        },
    ),
    **_family(
        "mistral",
        {"Mistral-7B-Instruct-v0.3": (32, 4096, 14336, 32, 8, 128, 32768, False, 32768)},
    ),
}  # fmt: skip
