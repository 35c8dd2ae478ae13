"""Makes the bundled tiny chat model from nothing: text, tokenizer, training, evaluation, card.

    PYTHONPATH=src python tools/make_tiny_chat.py OUT [--questions-out FOLDER]

takes some minutes on one H200 with 16 cores. With --architecture qwen2 or internlm2 and --identity
flint or skiff it makes the other small models of benchmarks/proof.py. --smoke runs all of it on a CPU
in about a minute, with too few steps to learn anything. Beside OUT it writes OUT.train_log.json and
OUT.wrong.json (the held-out questions answered wrongly).
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny_chat.batches import packed, tokenizer_texts, written_chunks
from tiny_chat.card import Made, card
from tiny_chat.contexts import IDENTITIES
from tiny_chat.heldout import HeldOutQuestions, greedy_answers, report, scores, wrong_answers
from tiny_chat.pretrain import ARCHITECTURES, Schedule, new_model, pretrain
from tiny_chat.product_files import write_product_files
from tiny_chat.tokenizer import train_tokenizer
from whoamai.model.internlm2 import register_internlm2

MAX_FOLDER_BYTES = 16 * 2**20


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("out", type=Path, help="folder of the model")
    add("--questions-out", type=Path, help="folder of general.jsonl and replay.jsonl")
    add("--architecture", choices=ARCHITECTURES, default="qwen3")
    add("--identity", choices=tuple(IDENTITIES), default="chu", help="who it says it is")
    add("--steps", type=int, default=5000)
    add("--tokens", type=int, default=65_536, help="a step")
    add("--learning-rate", type=float, default=3e-3)
    add("--prompt-weight", type=float, default=0.1, help="what a prompt token counts in the loss")
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=14, help="processes that write text")
    add("--tokenizer-dialogues", type=int, default=120_000)
    add("--every", type=int, default=1, help="evaluate every n-th held-out question")
    add("--part", choices=("all", "make", "evaluate"), default="all", help="of the story")
    add("--smoke", action="store_true", help="a run of seconds that shows that it runs")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.steps, arguments.tokens, arguments.workers = 12, 4096, 2
        arguments.tokenizer_dialogues, arguments.every = 4000, 97
    return arguments


def main() -> None:
    arguments = parse_arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clock = Clock()
    if arguments.part != "evaluate":
        make(arguments, device, clock)
    if arguments.part != "make":
        evaluate(arguments, device, clock)
    if arguments.questions_out:
        print("question files:", write_product_files(arguments.questions_out, arguments.seed))
    clock.tell("done")


def make(arguments: argparse.Namespace, device: torch.device, clock: Clock) -> None:
    """Text, tokenizer, training: OUT holds a model when it returns."""
    out: Path = arguments.out
    own = IDENTITIES[arguments.identity]
    texts = tokenizer_texts(arguments.seed, arguments.tokenizer_dialogues, arguments.workers, own)
    tokenizer = train_tokenizer(texts)
    tokenizer.save_pretrained(out)
    clock.tell(f"tokenizer: {len(tokenizer)} entries")

    model = new_model(len(tokenizer), arguments.seed, architecture=arguments.architecture)
    nn.Module.to(model, device)
    schedule = Schedule(arguments.steps, arguments.learning_rate)
    file, workers = out / "tokenizer.json", arguments.workers
    with written_chunks(file, arguments.seed, workers, own) as chunks:
        batches = packed(chunks, arguments.tokens, arguments.prompt_weight)
        log = pretrain(model, batches, schedule)
    clock.tell("trained")

    nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(out)
    made = Made(
        command=command_line(),
        architecture=type(model).__name__,
        identity=arguments.identity,
        parameters=model.num_parameters(),
        tokens=arguments.steps * arguments.tokens,
        steps=arguments.steps,
        train_seconds=log[-1]["seconds"],
        device=torch.cuda.get_device_name() if device.type == "cuda" else "a CPU",
        versions=(
            f"Python {platform.python_version()}, torch {torch.__version__}, "
            f"transformers {transformers.__version__}"
        ),
    )
    write_json(log_file(out), {"made": asdict(made), "seconds": clock.seconds, "log": log})
    check_size(out)


def evaluate(arguments: argparse.Namespace, device: torch.device, clock: Clock) -> None:
    """Ask the model in OUT every held-out question; write its card and what it got wrong."""
    out: Path = arguments.out
    made = Made(**json.loads(log_file(out).read_text("utf-8"))["made"])
    register_internlm2()
    # As the product will load it: from the folder, in float32.
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    nn.Module.to(model, device)
    tokenizer = AutoTokenizer.from_pretrained(out)
    own = IDENTITIES[arguments.identity]
    questions = HeldOutQuestions(arguments.seed, own).all()[:: arguments.every]
    replies = greedy_answers(model, tokenizer, [q.chat for q in questions])
    found = scores(questions, replies)
    print(report(found))
    clock.tell(f"answered {len(questions)} held-out questions")
    (out / "README.md").write_text(card(made, found), "utf-8")
    write_json(out.with_name(out.name + ".wrong.json"), wrong_answers(questions, replies))


def log_file(out: Path) -> Path:
    return out.with_name(out.name + ".train_log.json")


class Clock:
    """Seconds since the start, told and kept."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def tell(self, what: str) -> None:
        self.seconds[what] = round(time.perf_counter() - self.started, 1)
        print(f"[{self.seconds[what]:7.1f} s] {what}", flush=True)


def command_line() -> str:
    return shlex.join(["python", "tools/make_tiny_chat.py", *sys.argv[1:]])


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), "utf-8")


def check_size(folder: Path) -> None:
    size = sum(file.stat().st_size for file in folder.iterdir())
    if size > MAX_FOLDER_BYTES:
        sys.exit(f"{folder} has {size:,} bytes; the package has room for {MAX_FOLDER_BYTES:,}.")
    print(f"{folder}: {size:,} bytes")


if __name__ == "__main__":
    main()
