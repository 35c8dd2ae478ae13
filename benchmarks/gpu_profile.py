"""One optimizer step at InternLM2.5-7B's shape, by groups of kernels.

    python benchmarks/gpu_profile.py [--data FILE] [--steps 4] [--tokens 18432] [--scale full|tiny]

The model is made in the GPU's memory (random weights, LoRA r 64 on every linear layer but the head, no
dropout), the rows are the seed's, and the steps are those of `whoamai train`: engine/trainer.py itself
runs. The groups:

    base       products with frozen weights          lora       products with the adapter's matrices
    head       the head's products                   attention  everything of tree attention
    optimizer  AdamW, clipping                       other      norms, rotary, activations, copies, loss
    gaps       the step's time less all of these: the GPU waits
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from gpu_work import (
    ALPHA,
    RANK,
    ROWS_OF_STEP,
    SCALES,
    SEED_DATA,
    floor_flops,
    mean_context,
    random_model,
    samples,
)

from whoamai.data.packing import packs_of_step
from whoamai.data.steps import StepSize
from whoamai.engine.precision import precision_for
from whoamai.engine.schedule import make_schedule
from whoamai.engine.trainer import Trainer, TrainSettings
from whoamai.events import Event, Events, Note
from whoamai.model.lora import add_lora

_ATTENTION = (
    "attention", "flash", "sdpa", "forward_kernel", "query_gradient", "key_gradient", "add_parts",
)  # fmt: skip
_PRODUCTS = ("gemm", "nvjet", "cutlass", "xmma", "splitk", "gemv")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=SEED_DATA)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=18432, help="the most at once")
    parser.add_argument("--rows", type=int, default=ROWS_OF_STEP)
    parser.add_argument("--scale", choices=tuple(SCALES), default="full")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--top", type=int, default=30, help="kernels that are listed")
    parser.add_argument(
        "--set", nargs="*", default=[], help="settings of TrainSettings, as name=json"
    )
    args = parser.parse_args()
    trainer = make_trainer(args)
    reports = []
    for report in trainer.steps():
        reports.append(report)
        peak = (report.peak_bytes or 0) / 2**30
        print(
            f"step {report.done}: loss {report.loss:.4f}, {report.seconds * 1e3:.1f} ms, "
            f"{report.computed_tokens:,} computed, {report.logical_tokens:,} logical, "
            f"{report.logical_tokens / report.seconds:,.0f} tok/s, peak {peak:.1f} GiB",
            flush=True,
        )
        if report.done == args.steps:
            break
    if args.device == "cuda":
        profile(trainer, args)


def make_trainer(args: argparse.Namespace) -> Trainer:
    rows = samples(args.data)
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    model = random_model(args.scale, args.device, dtype)
    tuned = add_lora(model, r=RANK, alpha=ALPHA, dropout=0.0, seed=0)
    with torch.no_grad():  # as after some steps: a B of zeros would be easier on the arithmetic
        for name, p in tuned.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.02)
    schedule = make_schedule(
        [len(row.input_ids) for row in rows],
        StepSize(rows=args.rows),
        epochs=3,
        seed=0,
        lr=1e-4,
        warmup_ratio=0.03,
    )
    more: dict[str, Any] = {
        name: json.loads(value) for name, _, value in (s.partition("=") for s in args.set)
    }
    return Trainer(
        tuned,
        rows,
        schedule,
        TrainSettings(tokens_per_pass=args.tokens, **more),
        precision=precision_for("auto", args.device),
        events=Events([_print_note]),
    )


def _print_note(event: Event) -> None:
    if isinstance(event, Note):
        print(f"note: {event.text}", flush=True)


def profile(trainer: Trainer, args: argparse.Namespace) -> None:
    """Time the next step, then one more with the profiler; print groups, kernels and the floor."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    steps = trainer.steps()
    plain = next(steps)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profiler(activities=activities, record_shapes=True) as found:
        seen = next(steps)
        torch.cuda.synchronize()
    kernels = list(_kernels(found.events() or []))
    groups: dict[str, float] = defaultdict(float)
    names: dict[tuple[str, str], list[float]] = defaultdict(list)
    vocabulary = SCALES[args.scale][-1]
    for name, ms, shapes in kernels:
        group = _group(name, shapes, vocabulary)
        groups[group] += ms
        names[group, name].append(ms)
    total = sum(groups.values())
    scale = plain.seconds / plain.computed_tokens * seen.computed_tokens * 1e3
    print(f"profiled step: {seen.computed_tokens:,} tokens, kernels {total:.1f} ms; {scale:.1f} ms")
    print("at the speed of the step before without the profiler, which leaves", end=" ")
    print(f"{scale - total:.1f} ms of gaps")
    for group, ms in sorted(groups.items(), key=lambda item: -item[1]):
        print(f"  {group:10} {ms:8.1f} ms")
    ordered = sorted(names.items(), key=lambda item: -sum(item[1]))
    for (group, name), times in ordered[: args.top]:
        print(f"  {sum(times):7.2f} ms {len(times):5} {group:9} {name[:110]}")
    rows = trainer.schedule.steps[seen.done - 1]
    packs = packs_of_step([trainer._samples[i] for i in rows], tokens_per_pass=args.tokens)
    places = sum(len(set(pack.place_N.tolist())) for pack in packs)
    flops = floor_flops(seen.computed_tokens, mean_context(packs), places, args.scale)
    print(f"floor: {flops / 1e12:.1f} TFLOP; at 676 TFLOP/s {flops / 676e9:.1f} ms")


def _kernels(events: Iterable[Any]) -> Iterable[tuple[str, float, str]]:
    """(name, milliseconds, shapes of what its operator was given) of everything that ran on the GPU."""
    told: set[tuple[str, float]] = set()
    events = list(events)
    for event in events:
        for kernel in getattr(event, "kernels", ()):
            told.add((kernel.name, kernel.duration))
            yield kernel.name, kernel.duration / 1e3, str(event.input_shapes)
    for event in events:  # launched past torch's operators
        on_gpu = str(event.device_type).endswith("CUDA") and not event.is_user_annotation
        if on_gpu and (event.name, event.device_time) not in told:
            yield event.name, event.device_time / 1e3, ""


def _group(name: str, shapes: str, vocabulary: int) -> str:
    low = name.lower()
    if any(word in low for word in _ATTENTION):
        return "attention"
    if any(word in low for word in _PRODUCTS):
        numbers = [int(n) for n in shapes.replace("[", " ").replace("]", " ").replace(",", " ").split()
                   if n.isdigit()]  # fmt: skip
        if vocabulary in numbers:
            return "head"
        return "lora" if any(n in (RANK, 2 * RANK, 3 * RANK) for n in numbers) else "base"
    if "adam" in low or "lpnorm" in low:
        return "optimizer"
    return "other"


if __name__ == "__main__":
    main()
