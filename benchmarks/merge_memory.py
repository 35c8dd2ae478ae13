"""Memory, time and disk of `whoamai convert merge` on a model of InternLM2.5-7B's shape, on the CPU.

    python benchmarks/merge_memory.py [--scale full|small] [--folder DIR] [--keep]

Writes a folder of random bfloat16 weights (15.5 GB at full scale) and a LoRA of rank 64 over every
linear layer, merges the two into a third folder (another 15.5 GB) in a process of its own, and prints
that process's peak resident memory. Mapped pages of files count in it. Fails at 4 GiB or more.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from whoamai.convert.shards import Entry, write_shards
from whoamai.model.internlm2 import InternLM2Config

LIMIT_GIB = 4.0
RANK = 64
# Hidden size, intermediate size, layers, heads, key-value heads, vocabulary.
SCALES = {"full": (4096, 14336, 32, 32, 8, 92544), "small": (512, 1536, 4, 8, 2, 8192)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scale", choices=tuple(SCALES), default="full")
    parser.add_argument("--folder", type=Path, default=Path("work_dirs/merge_memory"))
    parser.add_argument("--keep", action="store_true", help="leave the folders where they are")
    parser.add_argument("--merge-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.merge_only:
        merge_and_measure(args.folder)
        return
    config = config_of(args.scale)
    needed = 2 * sum(2 * n * m for n, m in shapes(config).values())
    args.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(args.folder).free
    if free < 1.1 * needed:
        sys.exit(f"{args.folder}: {needed >> 30} GiB are needed, {free >> 30} GiB are free")
    try:
        make_model(args.folder / "base", config)
        make_adapter(args.folder / "adapter", config)
        command = [sys.executable, __file__, "--merge-only", "--folder", str(args.folder)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    finally:
        if not args.keep:
            shutil.rmtree(args.folder)
    print(f"{args.scale}: weights {needed / 2 / 1e9:.2f} GB, adapter of rank {RANK}")
    print(f"merged in {found['seconds']:.1f} s, peak resident memory {found['gib']:.2f} GiB")
    if found["gib"] >= LIMIT_GIB:
        sys.exit(f"more than {LIMIT_GIB} GiB")


def merge_and_measure(folder: Path) -> None:
    from whoamai.events import Events
    from whoamai.recipes.merge import MergeRequest, merge

    start = time.monotonic()
    request = MergeRequest(
        llm=str(folder / "base"),
        adapter=folder / "adapter",
        out=folder / "merged",
        device="cpu",
        overwrite=True,
        check=False,
    )
    merge(request, Events())
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": time.monotonic() - start, "gib": kib / 2**20}))


def config_of(scale: str) -> InternLM2Config:
    hidden, intermediate, layers, heads, kv_heads, vocabulary = SCALES[scale]
    return InternLM2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        bias=False,
    )


def linear_shapes(config: InternLM2Config) -> dict[str, tuple[int, int]]:
    """Names of the linear layers of the body, and of the head: (out, in)."""
    width, inner = config.hidden_size, config.intermediate_size
    kv = config.head_dim * (config.num_key_value_heads or 0)
    shapes = {}
    for n in range(config.num_hidden_layers):
        layer = f"model.layers.{n}"
        shapes[f"{layer}.attention.wqkv"] = (width + 2 * kv, width)
        shapes[f"{layer}.attention.wo"] = (width, width)
        shapes |= {f"{layer}.feed_forward.{w}": (inner, width) for w in ("w1", "w3")}
        shapes[f"{layer}.feed_forward.w2"] = (width, inner)
    return shapes | {"output": (config.vocab_size, width)}


def shapes(config: InternLM2Config) -> dict[str, tuple[int, int]]:
    found = {f"{name}.weight": shape for name, shape in linear_shapes(config).items()}
    return found | {"model.tok_embeddings.weight": (config.vocab_size, config.hidden_size)}


def make_model(folder: Path, config: InternLM2Config) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    entries = [entry(name, shape, torch.bfloat16) for name, shape in shapes(config).items()]
    layers = [f"model.layers.{n}" for n in range(config.num_hidden_layers)]
    norms = [f"{layer}.{norm}" for layer in layers for norm in ("attention_norm", "ffn_norm")]
    entries += [
        entry(f"{name}.weight", (config.hidden_size,), torch.bfloat16)
        for name in (*norms, "model.norm")
    ]
    write_shards(folder, entries, max_bytes=2 * 10**9)
    written = config.to_dict() | {"torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(written, default=str), "utf-8")


def make_adapter(folder: Path, config: InternLM2Config) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    entries = []
    for name, (n_out, n_in) in linear_shapes(config).items():
        start = f"base_model.model.{name}"
        entries.append(entry(f"{start}.lora_A.weight", (RANK, n_in), torch.float32))
        entries.append(entry(f"{start}.lora_B.weight", (n_out, RANK), torch.float32))
    (file,) = write_shards(folder, entries, max_bytes=10**12)
    file.rename(folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16}
    (folder / "adapter_config.json").write_text(json.dumps(settings), "utf-8")


def entry(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Entry:
    return Entry(name, shape, dtype, partial(random_rows, shape, dtype))


def random_rows(shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Small random numbers, some rows at a time."""
    step = max(1, (1 << 22) // max(1, torch.Size(shape[1:]).numel()))
    for start in range(0, shape[0], step):
        rows = min(step, shape[0] - start)
        yield torch.empty((rows, *shape[1:]), dtype=dtype).uniform_(-0.02, 0.02)


if __name__ == "__main__":
    main()
