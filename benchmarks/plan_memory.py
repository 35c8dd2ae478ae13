"""The plan's memory beside what torch measures, over shapes, methods, checkpointing and tokens at once.

    python benchmarks/plan_memory.py [--shapes NAME …] [--tokens 2048 8192] [--json FILE]

Needs a GPU (about 80 GB for all of it; what does not fit is said). Weights are random. Each line is the
peak of two steps of two passes, made of the product's own pieces: packs of rows of 512 tokens, a quarter
of them targets, LoRA of rank 64 with dropout 0.1 as in the shipped configs. Full fine-tuning of a 7B
model fits no single GPU, so the 1.8B shape stands for it.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from whoamai.config import LoraSettings, ModelSettings, RunConfig
from whoamai.data.packing import bucket, packs_of_step
from whoamai.engine.loss import pack_loss
from whoamai.engine.precision import Precision, clip_gradients, make_optimizer
from whoamai.model.internlm2 import register_internlm2
from whoamai.model.lora import add_lora
from whoamai.model.tree import tree_attention_on
from whoamai.plan.architecture import architecture_of
from whoamai.plan.known_models import KNOWN
from whoamai.plan.memory import MemoryPlan, memory
from whoamai.samples import Pack, Sample

SHAPES = ("Qwen3-0.6B", "Llama-3.2-1B-Instruct", "internlm2_5-7b-chat")
INSTEAD_IN_FULL = {"internlm2_5-7b-chat": "internlm2_5-1_8b-chat"}
ROW, TARGETS_OF_ROW = 512, 128
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--methods", nargs="*", default=["lora", "qlora", "full"])
    parser.add_argument("--tokens", type=int, nargs="*", default=[2048, 8192])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument(
        "--device", default="cuda", help="cpu: only tries the code, measures nothing"
    )
    parser.add_argument("--json", type=Path, help="also write the lines here")
    args = parser.parse_args()
    print("shape · method · checkpointing · tokens · predicted GiB · measured · reserved · ratio")
    lines = []
    for shape in args.shapes:
        for method in args.methods:
            name = (
                INSTEAD_IN_FULL[shape] if method == "full" and shape in INSTEAD_IN_FULL else shape
            )
            for line in lines_of(name, method, args.tokens, args.dtype, args.device):
                lines.append(line)
                print(in_words(line), flush=True)
            release(args.device)
    if args.json:
        args.json.write_text(json.dumps(lines, indent=1), "utf-8")
    ratios = [line["ratio"] for line in lines if line.get("ratio")]
    if ratios:
        print(
            f"{len(ratios)} measured; predicted / measured {min(ratios):.2f} to {max(ratios):.2f}"
        )


def lines_of(
    shape: str, method: str, tokens: list[int], dtype: str, device: str
) -> Iterator[dict[str, Any]]:
    """One line for every choice of checkpointing and tokens."""
    arch, config = architecture_of(shape), config_of(method)
    model = build(shape, method, getattr(torch, dtype), device)
    precision = Precision(getattr(torch, dtype), torch.device(device).type)
    optimizer = make_optimizer(model, lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0)
    for checkpointing in (False, True):
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        base.gradient_checkpointing_disable()
        if checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        for n in tokens:
            plan = memory(
                arch,
                config,
                dtype=dtype,
                tokens=bucket(n),
                targets=n // ROW * TARGETS_OF_ROW,
                gradient_checkpointing=checkpointing,
                device_type=precision.device_type,
            )
            pack = pack_of(n, arch.vocab)
            peak, reserved = measure(model, pack, precision, optimizer)
            yield line_of(shape, method, checkpointing, n, plan, peak, reserved)


def measure(
    model: Any, pack: Pack, precision: Precision, optimizer: torch.optim.Optimizer
) -> tuple[int | None, int | None]:
    """(most bytes allocated, reserved) in the second of two steps; None where it does not fit."""
    model.train()
    release(precision.device_type)
    try:
        for step in range(2):
            if step and precision.device_type == "cuda":
                release("cuda")
                torch.cuda.reset_peak_memory_stats()
            one_step(model, pack, precision, optimizer)
    except torch.OutOfMemoryError:
        optimizer.zero_grad(set_to_none=True)
        return None, None
    if precision.device_type != "cuda":
        return None, None
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def one_step(
    model: Any, pack: Pack, precision: Precision, optimizer: torch.optim.Optimizer
) -> None:
    """What Trainer does in a step of two passes."""
    with tree_attention_on(model), precision.lean(model):
        for _ in range(2):
            with precision.autocast():
                loss = pack_loss(model, pack, whole=False) / pack.n_targets
            loss.backward()
            del loss
    clip_gradients([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def config_of(method: str) -> RunConfig:
    quantization = "nf4" if method == "qlora" else "none"
    lora = None if method == "full" else LoraSettings()
    return RunConfig(model=ModelSettings(quantization=quantization), lora=lora)


def build(shape: str, method: str, dtype: torch.dtype, device: str) -> Any:
    """A model of this shape with random weights, ready to be trained by `method`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    register_internlm2()
    known = dict(KNOWN[shape])
    if known["model_type"] == "internlm2":
        del known["head_dim"]  # its config has no such key
    config = AutoConfig.for_model(known.pop("model_type"), **known)
    held_in = torch.float32 if method == "full" else dtype
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=held_in)
    if method == "full":
        return model
    if method == "qlora":
        quantize(model, dtype)
    lora = LoraSettings()
    return add_lora(model, r=lora.r, alpha=lora.lora_alpha, dropout=lora.lora_dropout, seed=0)


def quantize(model: Any, dtype: torch.dtype) -> None:
    """Hold the linear layers but the head in nf4, as transformers does when it loads weights."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    head = model.get_output_embeddings()
    linear = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    for name, module in linear:
        parent, _, last = name.rpartition(".")
        bias = module.bias is not None
        short = Linear4bit(
            module.in_features, module.out_features, bias, compute_dtype=dtype, quant_type="nf4"
        )
        held: dict[str, Any] = {"quant_type": "nf4", "compress_statistics": True}
        short.weight = Params4bit(module.weight.data, requires_grad=False, **held)
        if bias:
            short.bias = module.bias
        setattr(model.get_submodule(parent), last, short.to(module.weight.device))
    model.is_loaded_in_4bit = True


def pack_of(tokens: int, vocab: int) -> Pack:
    """One pack of `tokens` tokens in rows that share nothing."""
    drawn = random.Random(0)
    is_target = (False,) * (ROW - TARGETS_OF_ROW) + (True,) * TARGETS_OF_ROW
    # The last token of a row is predicted and not computed.
    rows = [
        Sample((*(drawn.randrange(3, vocab) for _ in range(ROW)), 2), (*is_target, True))
        for _ in range(tokens // ROW)
    ]
    (pack,) = packs_of_step(rows, tokens_per_pass=tokens, share=False, sizes=bucket)
    return pack


def line_of(
    shape: str,
    method: str,
    checkpointing: bool,
    tokens: int,
    plan: MemoryPlan,
    peak: int | None,
    reserved: int | None,
) -> dict[str, Any]:
    return {
        "shape": shape,
        "method": method,
        "checkpointing": checkpointing,
        "tokens": tokens,
        "predicted": plan.peak,
        "measured": peak,
        "reserved": reserved,
        "ratio": plan.peak / peak if peak else None,
        "parts": {part.name: part.bytes for part in plan.parts},
    }


def in_words(line: dict[str, Any]) -> str:
    measured, reserved = (
        f"{line[key] / GIB:.2f}" if line[key] else "-" for key in ("measured", "reserved")
    )
    ratio = f"{line['ratio']:.3f}" if line["ratio"] else "not measured"
    return (
        f"{line['shape']} · {line['method']} · {line['checkpointing']} · {line['tokens']:,} · "
        f"{line['predicted'] / GIB:.2f} · {measured} · {reserved} · {ratio}"
    )


def release(device: str) -> None:
    """Give back what is not in use, so that the next measurement starts alike."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
