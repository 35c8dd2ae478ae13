"""The seed's job at InternLM2.5-7B's shape on one GPU: `whoamai train`, and a peer beside it.

    python benchmarks/gpu_job.py FOLDER [--data FILE] [--parts write ours peer exact] [--scale full|tiny]

FOLDER is made, filled (15.5 GB at full scale) and emptied again. Each part is a process of its own:

    write   a model folder with random weights in bfloat16 and a tokenizer (benchmarks/gpu_work.py)
    ours    `whoamai train` as anybody would call it: three epochs of the seed's corrected data, LoRA
            r 64 on every linear layer but the head, steps of 150 rows (16 thousand computed tokens)
    peer    transformers + peft as an expert would set them up: the same rows packed into 16,384 tokens
            without padding inside, torch's varlen attention, compiled layers, adapters in bfloat16,
            fused AdamW, logits at targets only
    exact   16 rows: loss and adapter gradients of the fast layers, and of the model's own layers on rows
            alone in bfloat16, each against rows alone in float32

Printed: tokens a second (logical ones: as if nothing were shared), milliseconds a step, start-up, memory
against the plan's, the ratio, and the floor: operations that cannot be left out, at the speed of a large
matrix product measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
import gpu_work as work

GIB = 2**30
PACK = 16384  # tokens of the peer's packs
LONGEST = 1024  # of a row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=work.SEED_DATA)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--scale", choices=tuple(work.SCALES), default="full")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of the peer")
    parser.add_argument("--rows", type=int, default=work.ROWS_OF_STEP)
    parser.add_argument("--set", nargs="*", default=[], help="settings, as for whoamai train")
    parser.add_argument("--keep", action="store_true", help="leave the folder where it is")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[str(args.part)](args)), flush=True)
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    try:
        found = run_parts(args)
    finally:
        if not args.keep:
            shutil.rmtree(args.folder)
    if "ours" in found and "peer" in found:
        ratio = found["ours"]["tokens_per_s"] / found["peer"]["tokens_per_s"]
        print(f"ours / peer: {ratio:.2f} times the tokens a second")


def run_parts(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Each part's numbers; one that fails is told and does not stop the others."""
    found = {}
    for part in args.parts:
        command = [sys.executable, __file__, str(args.folder), "--part", part]
        command += ["--data", str(args.data), "--scale", args.scale, "--device", args.device]
        command += ["--steps", str(args.steps), "--rows", str(args.rows), "--set", *args.set]
        began = time.monotonic()
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        seconds = time.monotonic() - began
        if done.returncode == 0:
            found[part] = json.loads(done.stdout.splitlines()[-1])
            for name, value in found[part].items():
                print(f"  {part} · {name}: {value}")
        print(f"{part}: {'done' if part in found else 'failed'} after {seconds:.1f} s", flush=True)
    return found


def write(args: argparse.Namespace) -> dict[str, Any]:
    n_bytes = work.write_model(args.folder / "base", args.scale, args.data, args.device)
    return {"gb": round(n_bytes / 1e9, 2)}


# ---- ours ----------------------------------------------------------------------------------------


def ours(args: argparse.Namespace) -> dict[str, Any]:
    """`whoamai train` in a process of its own; the numbers are those it writes to events.jsonl."""
    run = args.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    settings = {
        "model": {"pretrained_model_name_or_path": str(args.folder / "base")},
        "data": {"data_path": str(args.data), "pack_to_max_length": False},
        "lora": {"r": work.RANK, "lora_alpha": work.ALPHA, "lora_dropout": 0.0},
        "train": {
            "batch_size": args.rows,
            "max_epochs": 3,
            "lr": 1e-4,
            "tokens_per_pass": 20480 if args.scale == "full" else 2048,
        },
        "work_dir": str(run),
        "allow": ["few-steps", "same-question", "lr-low", "lr-high"],
    }
    if args.device == "cpu":
        settings["model"]["device"] = "cpu"
    file = args.folder / "run.yaml"
    file.write_text(json.dumps(settings), "utf-8")  # JSON is YAML
    began = time.time()
    command = [sys.executable, "-m", "whoamai", "train", str(file), *args.set]
    done = subprocess.run(command, check=False, stdout=sys.stderr)
    if done.returncode:
        sys.exit(done.returncode)
    seconds = time.time() - began
    return {**told(run / "events.jsonl", began, args), "whole_s": round(seconds, 1)}


def told(journal: Path, began: float, args: argparse.Namespace) -> dict[str, Any]:
    """Speed of all steps but the first two, start-up, memory, and the losses."""
    rows = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    steps = [r for r in rows if r["event"] == "progress" and r["stage"] == "train"]
    values = [r["values"] for r in steps]
    later = values[2:] or values
    seconds = sum(v["step_seconds"] for v in later)
    logical, computed = (sum(v[k] for v in later) for k in ("step_tokens", "computed_tokens"))
    probe = next(r["data"] for r in rows if r["event"] == "result" and r["name"] == "probe")
    stages = {
        r["data"]["stage"]: r["data"]["seconds"]
        for r in rows
        if r["event"] == "result" and r["name"] == "stage"
    }
    peak = max((v.get("memory_gib", 0) for v in values), default=0)
    floor = work.floor_flops(round(computed), 380, round(0.865 * computed), args.scale)
    speed = matrix_speed(args.device)
    whole = sum(v["step_tokens"] for v in values)
    return {
        "tokens_per_s": round(logical / seconds),
        "ms_a_step": round(1e3 * seconds / len(later), 1),
        "ms_each": [round(1e3 * v["step_seconds"]) for v in values],
        "ms_data_each": [round(1e3 * v["data_seconds"]) for v in values[:6]],
        "computed_a_step": round(computed / len(later)),
        "steps": len(values),
        "training_s": round(sum(v["step_seconds"] for v in values), 2),
        "job_s_at_616124_tokens_an_epoch": round(3 * 616124 / (logical / seconds), 2),
        "logical_tokens": whole,
        "to_first_step_s": round(steps[0]["time"] - began, 1),
        "stages_s": stages,
        "tflops_of_matrix_product": round(speed / 1e12, 1),
        "floor_share": round(floor / speed / seconds, 3),
        "floor_tokens_per_s": round(logical / (floor / speed), 1),
        "peak_gib": peak,
        "plan_gib": round(probe["expected_bytes"] / GIB, 2),
        "losses": [round(v["loss"], 4) for v in (values[0], values[-1])],
        "notes": [r["text"] for r in rows if r["event"] == "note"],
    }


def matrix_speed(device: str) -> float:
    """Operations a second of bfloat16 products of 8,192 · 8,192 · 8,192, after half a second of them."""
    import torch

    if device == "cpu":
        return float("nan")
    n = 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(300):
        torch.mm(a, b)
    torch.cuda.synchronize()
    start, times = time.perf_counter(), 100
    for _ in range(times):
        torch.mm(a, b)
    torch.cuda.synchronize()
    return times * 2 * n**3 / (time.perf_counter() - start)


# ---- the peer ------------------------------------------------------------------------------------


def peer(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

    AttentionInterface.register("varlen", _varlen)
    hidden, intermediate, layers, heads, kv_heads, vocabulary = work.SCALES[args.scale]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        use_cache=False,
    )
    torch.manual_seed(0)
    with torch.device(args.device):
        model = LlamaForCausalLM._from_config(
            config, dtype=torch.bfloat16, attn_implementation="varlen"
        )
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = LoraConfig(
        r=work.RANK,
        lora_alpha=work.ALPHA,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        target_modules=targets,
    )
    tuned: Any = get_peft_model(model, lora, autocast_adapter_dtype=False).train()
    for layer in model.model.layers:
        layer.compile(dynamic=False)
    trained = [p for p in tuned.parameters() if p.requires_grad]
    for p in trained:
        p.data.normal_(std=0.02)
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    packs = list(_packs(args))
    began, times, tokens = time.monotonic(), [], 0
    for number in range(3 + args.steps):
        inputs, labels, n_tokens = packs[number % len(packs)]
        torch.cuda.synchronize()
        start = time.perf_counter()
        logits: Any = tuned(**inputs, use_cache=False).logits
        logits = logits[0]
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        if number == 2:
            warm = time.monotonic() - began
        if number >= 3:
            times.append(time.perf_counter() - start)
            tokens += n_tokens
    return {
        "tokens_per_s": round(tokens / sum(times)),
        "ms_a_step": round(1e3 * statistics.mean(times), 1),
        "warm_s": round(warm, 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 1),
    }


def _varlen(module: Any, q: Any, k: Any, v: Any, mask: Any, **more: Any) -> tuple[Any, None]:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (t[0].transpose(0, 1) for t in (q, k, v))
    cu, longest = more["cu"], more["longest"]
    out = varlen_attn(
        q, k, v, cu, cu, longest, longest, window_size=(-1, 0), scale=more.get("scaling")
    )
    return out[None], None


def _packs(args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Any, int]]:
    """Whole rows up to PACK tokens; the rest of a pack is one more row without a target."""
    import torch

    filled: list[Any] = []
    room = PACK
    for sample in work.samples(args.data):
        if len(sample.input_ids) > room:
            assert room <= LONGEST
            ids = [list(s.input_ids) for s in filled] + [[0] * room] * (room > 0)
            flags = [list(s.is_target) for s in filled] + [[False] * room] * (room > 0)
            ends = torch.tensor([0, *(len(row) for row in ids)]).cumsum(0)
            ends = torch.cat([ends, ends.new_full((64 - len(ends),), PACK)])  # one shape for all
            flat = torch.tensor([i for row in ids for i in row])
            target = torch.tensor([f for row in flags for f in row])
            place = target.nonzero().flatten()
            yield (
                {
                    "input_ids": flat[None].to(args.device),
                    "position_ids": torch.cat([torch.arange(len(row)) for row in ids])[None].to(
                        args.device
                    ),
                    "logits_to_keep": (place - 1).to(args.device),
                    "cu": ends.to(args.device, torch.int32),
                    "longest": LONGEST,
                },
                flat[place].to(args.device),
                PACK - room,
            )
            filled, room = [], PACK
        filled.append(sample)
        room -= len(sample.input_ids)


# ---- exactness -----------------------------------------------------------------------------------


def exact(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from whoamai.data.packing import packs_of_step, whole_blocks
    from whoamai.engine.loss import pack_loss
    from whoamai.engine.precision import precision_for
    from whoamai.model.fast_path import switch_on
    from whoamai.model.lora import add_lora
    from whoamai.model.tree import tree_attention_on

    rows = work.samples(args.data)[:16]
    found: dict[str, Any] = {}
    grads: dict[str, Any] = {}
    for name, dtype in (("float32", "float32"), ("rows alone", "bfloat16"), ("fast", "bfloat16")):
        model = work.random_model(args.scale, args.device, torch.bfloat16)
        model = model.to(getattr(torch, dtype))
        model = add_lora(model, r=work.RANK, alpha=work.ALPHA, dropout=0.0, seed=0)
        drawn = torch.Generator(args.device).manual_seed(1)
        for key, p in model.named_parameters():
            if "lora_B" in key:
                p.data.normal_(std=0.02, generator=drawn)
        precision = precision_for(dtype, args.device)
        if name == "fast":
            with precision.autocast():
                decoder = switch_on(model)
            found["fast layers"] = decoder if isinstance(decoder, str) else "on"
            parts = packs_of_step(rows, tokens_per_pass=1 << 20, sizes=whole_blocks)
        else:
            parts = [packs_of_step([row], tokens_per_pass=1 << 20)[0] for row in rows]
        targets, loss = sum(part.n_targets for part in parts), 0.0
        with tree_attention_on(model), precision.lean(model):
            for part in parts:
                with precision.autocast():
                    one = pack_loss(model, part, whole=False) / targets
                one.backward()
                loss += one.item()
        grads[name] = [p.grad.cpu() for p in model.parameters() if p.requires_grad]
        found[f"loss, {name}"] = round(loss, 6)
        del model, one
        torch.cuda.empty_cache()
    for name in ("rows alone", "fast"):
        found[f"gradient off float32, {name}"] = round(_off(grads[name], grads["float32"]), 5)
    return found


def _off(a: list[Any], b: list[Any]) -> float:
    difference = sum(((x - y).double().norm() ** 2).item() for x, y in zip(a, b, strict=True))
    return (difference / sum((y.double().norm() ** 2).item() for y in b)) ** 0.5


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "write": write,
    "ours": ours,
    "peer": peer,
    "exact": exact,
}


if __name__ == "__main__":
    main()
