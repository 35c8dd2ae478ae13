"""What rounding merged weights does to logits: where the bounds of recipes/merge_check.py come from.

    python benchmarks/merge_rounding.py

Two models, the bundled one and a random InternLM2 of four layers; an adapter of rank 16 with random
numbers of three sizes. e: the difference between the logits of the adapted model in float32 and those
of the merged one; d: what the adapter changes; s: the spread of the logits (roots of mean squares).
"stored": the merged weights were rounded to the format and computed in float32; "computed": computed
in it, too.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from whoamai.model.internlm2 import InternLM2Config, InternLM2ForCausalLM
from whoamai.model.load import bundled_model
from whoamai.model.lora import add_lora

SIZES = (0.0005, 0.002, 0.006)
FORMATS = (torch.float32, torch.float16, torch.bfloat16)


def main() -> None:
    torch.manual_seed(0)
    for name, make in (("tiny-chat", bundled), ("random InternLM2", random_internlm2)):
        for size in SIZES:
            model = make()
            ids = torch.randint(3, model.config.vocab_size, (4, 24))
            plain = logits(model, ids)
            tuned = add_lora(model, r=16, alpha=32, dropout=0.0, seed=0)
            for parameter_name, parameter in tuned.named_parameters():
                if "lora_B" in parameter_name:
                    parameter.data.normal_(0, size)
            adapted = logits(tuned, ids)
            spread = size_of(adapted - adapted.mean(-1, keepdim=True))
            merged = tuned.merge_and_unload()
            print(f"{name}, B of {size:g}: d/s = {size_of(adapted - plain) / spread:.1e}")
            for dtype in FORMATS:
                rounded = copy.deepcopy(merged).to(dtype)
                computed = size_of(logits(rounded, ids) - adapted) / spread
                stored = size_of(logits(rounded.float(), ids) - adapted) / spread
                print(f"  {dtype}: e/s = {stored:.1e} stored, {computed:.1e} computed")


def bundled() -> Any:
    return AutoModelForCausalLM.from_pretrained(bundled_model(), dtype=torch.float32).eval()


def random_internlm2() -> Any:
    config = InternLM2Config(
        vocab_size=2048,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        bias=False,
        initializer_range=0.15,  # wide enough for attention to choose
    )
    model: Any = InternLM2ForCausalLM(config)
    return model.bfloat16().float().eval()


@torch.inference_mode()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids).logits.float()


def size_of(values: torch.Tensor) -> float:
    return values.double().square().mean().sqrt().item()


if __name__ == "__main__":
    main()
