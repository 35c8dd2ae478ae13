"""InternLM2.5-7B's shape from end to end on one GPU: QLoRA and LoRA steps, merge, reload, generate.

    python benchmarks/internlm2_7b.py FOLDER [--scale full|tiny] [--device auto|cuda|cpu] [--budget 285]

Weights are random, so nothing is learned; what is looked at is that everything goes through, how long
it takes and what memory it needs. FOLDER is made, filled (about 35 GB at full scale) and emptied again.
Each part is a process of its own, so that its peak of memory is its own, and tells its numbers as soon
as it is done; one that fails does not stop the others. No part begins after --budget seconds.

    write        a folder as the hub has it: bfloat16, tokenizer.model, a chat template; 60 rows of data
    qlora, lora  three optimizer steps of `whoamai train`, beside nf4 and beside bfloat16 weights
    merge        `whoamai convert merge` of the QLoRA adapter on the GPU, with its comparison afterwards
    reload       the merged folder loaded, eight questions answered
    merge_cpu    the LoRA adapter merged on the CPU, without the comparison; must stay below 4 GiB

`--scale tiny` does the same in seconds on a CPU, to try the script itself.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gpu_work import SCALES, internlm2_config

ROWS, STEPS = 60, 3
LIMIT_GIB = 4.0
TRAIN = {
    "data": {"max_length": 512, "pack_to_max_length": False, "prompt_template": "internlm2_chat"},
    "lora": {"r": 64, "lora_alpha": 16, "lora_dropout": 0.1, "adapt_head": True},
    "train": {"batch_size": ROWS // STEPS, "max_epochs": 1, "lr": 2e-4},
    "allow": ["few-steps", "lr-low"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", choices=tuple(SCALES), default="full")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--budget", type=float, default=285, help="seconds for everything")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(PARTS), help="these parts, in this order"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder where it is")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        found = PARTS[args.part](args.folder, args.scale, args.device)
        print(json.dumps({**found, "rss_gib": round(resident_gib(), 2)}))
        return
    if args.folder.exists() and any(args.folder.iterdir()):
        sys.exit(f"{args.folder} is not empty")
    args.folder.mkdir(parents=True, exist_ok=True)
    try:
        failed = run_parts(args)
    finally:
        if not args.keep:
            shutil.rmtree(args.folder)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run_parts(args: argparse.Namespace) -> list[str]:
    """Every part in turn; returns the names of those that failed or were not begun."""
    start, failed = time.monotonic(), []
    for part in args.only or PARTS:
        left = args.budget - (time.monotonic() - start)
        if left <= 0:
            print(f"{part}: not begun, {args.budget:.0f} s are over", flush=True)
            failed.append(part)
            continue
        command = [sys.executable, __file__, str(args.folder), "--part", part]
        command += ["--scale", args.scale, "--device", args.device]
        began = time.monotonic()
        try:
            done = subprocess.run(
                command, check=False, stdout=subprocess.PIPE, text=True, timeout=left
            )
            found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
        except subprocess.TimeoutExpired:
            found = None
        seconds = time.monotonic() - began
        print(f"{part}: {seconds:.1f} s with start-up, {json.dumps(found)}", flush=True)
        if found is None or "refused" in found or not _is_small_enough(part, found):
            failed.append(part)
    print(f"together {time.monotonic() - start:.0f} s", flush=True)
    return failed


def _is_small_enough(part: str, found: dict[str, Any]) -> bool:
    return part != "merge_cpu" or found["rss_gib"] < LIMIT_GIB


# ---- the model and the rows ----------------------------------------------------------------------


def write(folder: Path, scale: str, device: str) -> dict[str, Any]:
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from merge_memory import shapes

    from tests.sentencepiece_models import save_tokenizer
    from whoamai.convert.shards import Entry, write_shards
    from whoamai.data.template_families import template_text

    config = internlm2_config(scale)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    numbers = partial(_random_rows, place, 0.02 * (4096 / hidden) ** 0.5)
    entries = [
        Entry(name, shape, torch.bfloat16, partial(numbers, shape))
        for name, shape in shapes(config).items()
    ]
    names = [f"model.layers.{n}.{w}" for n in range(layers) for w in ("attention_norm", "ffn_norm")]
    for name in (*names, "model.norm"):
        ones = partial(_ones, hidden)
        entries.append(Entry(f"{name}.weight", (hidden,), torch.bfloat16, ones))
    base = folder / "base"
    base.mkdir()
    write_shards(base, entries, max_bytes=2 * 10**9)
    named = {"architectures": ["InternLM2ForCausalLM"], "torch_dtype": "bfloat16"}
    text = json.dumps(config.to_dict() | named, default=str)
    (base / "config.json").write_text(text, "utf-8")
    save_tokenizer(base, chat_template=template_text("internlm2_chat"))
    _write_rows(folder / "rows.jsonl")
    return {"gb": round(sum(entry.nbytes for entry in entries) / 1e9, 2)}


def _random_rows(place: str, sigma: float, shape: tuple[int, ...]) -> Iterator[Any]:
    """Random numbers, some rows at a time: σ is 0.02 for the full width, as training begins with."""
    import torch

    step = max(1, (1 << 25) // torch.Size(shape[1:]).numel())
    for start in range(0, shape[0], step):
        rows = min(step, shape[0] - start)
        values = torch.empty((rows, *shape[1:]), dtype=torch.bfloat16, device=place)
        yield values.normal_(0, sigma)


def _ones(size: int) -> Iterator[Any]:
    import torch

    yield torch.ones(size, dtype=torch.bfloat16)


def _write_rows(file: Path) -> None:
    """60 conversations of about 350 tokens, no two alike."""
    rng = random.Random(0)
    words = ("hello", "who", "are", "you", "name", "the", "assistant", "user")

    def text(n: int) -> str:
        return " ".join(rng.choice(words) for _ in range(n))

    with file.open("w", encoding="utf-8") as out:
        for number in range(ROWS):
            turns = {"user": f"{number} {text(50)}?", "assistant": f"{text(100)} {number}."}
            messages = [{"role": role, "content": content} for role, content in turns.items()]
            out.write(json.dumps({"messages": messages}) + "\n")


# ---- training ------------------------------------------------------------------------------------


def train(quantization: str, folder: Path, scale: str, device: str) -> dict[str, Any]:
    import torch

    from whoamai.config.reading import read_config
    from whoamai.events import Event, Events, Note, Progress, Result, Stage
    from whoamai.recipes.train import TrainRequest
    from whoamai.recipes.train import train as run

    model = {"pretrained_model_name_or_path": str(folder / "base"), "device": device}
    if quantization == "nf4":
        model |= {"quantization": "nf4"}
    settings = {**TRAIN, "model": model, "work_dir": str(_run_folder(folder, quantization))}
    settings["data"] = {**TRAIN["data"], "data_path": str(folder / "rows.jsonl")}
    file = folder / f"{quantization}.yaml"
    file.write_text(json.dumps(settings), "utf-8")  # JSON is YAML
    found: dict[str, Any] = {"stages": {}, "losses": [], "step_seconds": [], "peak_gib": []}

    def note(event: Event) -> None:
        if isinstance(event, Stage):
            print(f"  {quantization}: {event.name}", file=sys.stderr, flush=True)
            if event.name == "probe" and torch.cuda.is_available():
                found["peak_gib_loading"] = _gib(torch.cuda.max_memory_allocated())
        elif isinstance(event, Result) and event.name == "stage":
            found["stages"][event.data["stage"]] = event.data["seconds"]
        elif isinstance(event, Progress) and event.stage == "train":
            found["losses"].append(round(event.values["loss"], 3))
            found["step_seconds"].append(round(event.values["step_seconds"], 2))
            found["peak_gib"].append(event.values.get("memory_gib"))
            found["tokens_of_step"] = event.values["step_tokens"]
        elif isinstance(event, Note):
            print(f"  {quantization}: {event.text}", file=sys.stderr, flush=True)

    trained = run(TrainRequest(read_config(file)), Events([note]))
    assert trained.done == STEPS, trained
    return found


def _run_folder(folder: Path, quantization: str) -> Path:
    return folder / f"run_{quantization}"


# ---- merged and loaded again ---------------------------------------------------------------------


def merge_gpu(folder: Path, scale: str, device: str) -> dict[str, Any]:
    """Where the comparison fails, that is told and the parts behind this one go on without it."""
    from whoamai.errors import ModelError

    try:
        return _merge(folder, "nf4", "merged", device, check=True)
    except ModelError as error:
        return {**_merge(folder, "nf4", "merged", device, check=False), "refused": str(error)}


def merge_cpu(folder: Path, scale: str, device: str) -> dict[str, Any]:
    shutil.rmtree(folder / "merged", ignore_errors=True)  # the disk need not hold both
    return _merge(folder, "none", "merged_cpu", "cpu", check=False)


def _merge(
    folder: Path, quantization: str, out: str, device: str, *, check: bool
) -> dict[str, Any]:
    from dataclasses import asdict

    from whoamai.events import Event, Events, Result
    from whoamai.recipes.merge import MergeRequest, merge

    stages: dict[str, float] = {}

    def note(event: Event) -> None:
        if isinstance(event, Result) and event.name == "stage":
            stages[event.data["stage"]] = event.data["seconds"]

    adapter = _run_folder(folder, quantization) / "adapter"
    request = MergeRequest(str(folder / "base"), adapter, folder / out, device=device, check=check)
    merged = merge(request, Events([note]))
    checked = asdict(merged.checked) if merged.checked else None
    return {"stages": stages, "files": merged.files, "checked": checked, **_peak()}


def reload(folder: Path, scale: str, device: str) -> dict[str, Any]:
    from whoamai.evaluate.talk import Talk
    from whoamai.events import Events
    from whoamai.model.load import load_chat_model
    from whoamai.samples import Conversation, Message

    start = time.monotonic()
    chat = load_chat_model(str(folder / "merged"), device=device)
    loaded = time.monotonic()
    asked = [Conversation((Message("user", f"who are you {n}?"),)) for n in range(8)]
    answers = Talk(chat, Events()).answers(asked, None, max_new_tokens=32)
    generated = time.monotonic()
    return {
        "load_seconds": round(loaded - start, 2),
        "generate_seconds": round(generated - loaded, 2),
        "answers": sum(bool(answer) for answer in answers),
        **_peak(),
    }


# ---- memory --------------------------------------------------------------------------------------


def _peak() -> dict[str, float]:
    import torch

    there = torch.cuda.is_available()
    return {"peak_gib": _gib(torch.cuda.max_memory_allocated())} if there else {}


def _gib(n_bytes: float) -> float:
    return round(n_bytes / 2**30, 2)


def resident_gib() -> float:
    """The most that was resident of this process, mapped pages of files with it; Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    return float("nan")


PARTS: dict[str, Callable[[Path, str, str], dict[str, Any]]] = {
    "write": write,
    "qlora": partial(train, "nf4"),
    "lora": partial(train, "none"),
    "merge": merge_gpu,
    "reload": reload,
    "merge_cpu": merge_cpu,
}


if __name__ == "__main__":
    main()
