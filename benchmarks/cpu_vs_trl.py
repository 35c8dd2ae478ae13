"""Our trainer beside TRL's SFTTrainer + peft on the CPU: the same rows, steps, targets and rates.

    pip install trl==1.16.0        # once; TRL is no dependency of whoamai
    python benchmarks/cpu_vs_trl.py [--data FILE] [--rows 16] [--steps 12]

The work: the bundled model (float32), LoRA r 64 on every linear layer but the head, no dropout, the
seed's corrected data, `--rows` rows an optimizer step. TRL's best stock setting on a CPU: rows already
tokenized, loss on the reply's tokens only, no packing (its packing and padding-free modes want
FlashAttention), batches padded to their longest row; the largest of --micro rows at a time that is
fastest. The learning rates are ours, handed to it as a scheduler.

Then ours with one idea taken away after the other, down to padded rows with logits everywhere: what
each idea is worth. The floor is the arithmetic of the forest's nodes (4 operations a frozen weight and
token forward and back, 6 a trained one, the head at targets) over this machine's measured matrix speed.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from whoamai.data.encode import encode
from whoamai.data.readers import read_conversations
from whoamai.data.steps import StepSize
from whoamai.data.templates import ChatTemplate
from whoamai.engine.precision import precision_for
from whoamai.engine.schedule import Schedule, make_schedule
from whoamai.engine.trainer import StepReport, Trainer, TrainSettings
from whoamai.events import Events
from whoamai.model.load import BUNDLED, ChatModel, load_chat_model
from whoamai.model.lora import add_lora
from whoamai.samples import Sample

RANK, LR = 64, 5e-4
SEED_DATA = Path(__file__).resolve().parents[2] / "shared/data/assistant_Tuner_fixed.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=SEED_DATA)
    parser.add_argument("--rows", type=int, default=16, help="rows of an optimizer step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--micro", type=int, nargs="*", default=[4, 16])
    args = parser.parse_args()
    if not args.data.exists():
        raise SystemExit(f"{args.data} is not there: give conversations with --data")

    chat = load_chat_model(BUNDLED)
    samples, schedule = work(chat, args.data, args.rows, args.steps)
    tokens = sum(len(samples[i].input_ids) for step in schedule.steps for i in step)
    print(
        f"{args.steps} steps of {args.rows} rows: {tokens:,} tokens; {torch.get_num_threads()} threads"
    )

    ours, reports = run_ours(chat, samples, schedule)
    computed = sum(r.computed_tokens for r in reports)
    print(
        f"ours: {ours:.1f} s, last loss {reports[-1].loss:.4f}; "
        f"computed {computed / tokens:.0%} of the tokens"
    )
    theirs = {}
    for micro in args.micro:
        seconds, loss = run_trl(chat, samples, schedule, micro)
        theirs[micro] = (seconds, loss)
        print(f"TRL, {micro} rows at a time: {seconds:.1f} s, last loss {loss:.4f}", flush=True)
    best, loss = min(theirs.values())
    print(
        f"ratio: ours is {best / ours:.2f} times as fast; "
        f"last losses differ by {abs(loss / reports[-1].loss - 1):.2%}"
    )

    apart, _ = run_ours(chat, samples, schedule, share=False)
    padded, _ = run_ours(chat, samples, schedule, padded=True)
    whole, _ = run_ours(chat, samples, schedule, padded=True, whole=True)
    ladder = (
        ("shared beginnings", apart - ours),
        ("no padding", padded - apart),
        ("head at targets only", whole - padded),
        ("the rest", best - whole),
    )
    for name, saved in ladder:
        print(f"  {name}: {saved:+.1f} s, {saved / (best - ours):.0%} of the difference")
    print(f"floor: {floor(chat, reports):.1f} s")


def work(chat: ChatModel, data: Path, rows: int, steps: int) -> tuple[list[Sample], Schedule]:
    """The first `steps` steps of the data's first epoch."""
    template = ChatTemplate(chat.tokenizer, model_type=chat.model.config.model_type)
    encoded = encode(read_conversations([data]), template, max_length=2048)
    order = make_schedule(
        encoded.lengths, StepSize(rows=rows), epochs=1, seed=0, lr=LR, warmup_ratio=0.1
    )
    samples = [encoded.samples[i] for step in order.steps[:steps] for i in step[:rows]]
    numbers = iter(range(len(samples)))
    cut = tuple(tuple(next(numbers) for _ in step[:rows]) for step in order.steps[:steps])
    return samples, Schedule(
        cut, (len(cut),), max(1, steps // 10), LR, None, None, planned=len(cut)
    )


def tuned_copy(chat: ChatModel) -> Any:
    return add_lora(copy.deepcopy(chat.model), r=RANK, alpha=RANK, dropout=0.0, seed=0)


def run_ours(
    chat: ChatModel,
    samples: Sequence[Sample],
    schedule: Schedule,
    *,
    share: bool = True,
    padded: bool = False,
    whole: bool = False,
) -> tuple[float, list[StepReport]]:
    """(seconds of all steps, their reports)."""
    settings = TrainSettings(tokens_per_pass=4096, share_prefixes=share)
    trainer = Trainer(
        tuned_copy(chat),
        samples,
        schedule,
        settings,
        precision=precision_for("float32", "cpu"),
        events=Events([]),
    )
    if padded:
        trainer.alone_because = "to compare"
    trainer.whole = whole
    start = time.perf_counter()
    reports = list(trainer.steps())
    return time.perf_counter() - start, reports


def run_trl(
    chat: ChatModel, samples: Sequence[Sample], schedule: Schedule, micro: int
) -> tuple[float, float]:
    """(seconds of trainer.train() less the start of the first step, loss of the last step)."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class InOrder(SFTTrainer):
        """The rows as they come: the steps are made already."""

        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = getattr(self, "start", time.perf_counter())

    rows = [
        {
            "input_ids": list(s.input_ids),
            "labels": [
                t if is_target else -100
                for t, is_target in zip(s.input_ids, s.is_target, strict=True)
            ],
        }
        for s in samples
    ]
    per_step = len(schedule.steps[0])
    model = tuned_copy(chat)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=LR, weight_decay=0.0
    )
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: schedule.lr(min(i, schedule.total - 1)) / LR
    )
    config = SFTConfig(
        output_dir="work_dirs/trl",
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=per_step // micro,
        max_steps=schedule.total,
        max_length=None,
        packing=False,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_grad_norm=1.0,
        seed=0,
    )
    clock = Clock()
    trainer = InOrder(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=chat.tokenizer,
        optimizers=(optimizer, rates),
        callbacks=[clock],
    )
    trainer.train()
    seconds = time.perf_counter() - clock.start
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return seconds, float(losses[-1])


def floor(chat: ChatModel, reports: Sequence[StepReport]) -> float:
    """Seconds of the arithmetic alone, at the speed of a matrix product of the model's own width."""
    model = tuned_copy(chat)
    linear = sum(
        m.weight.numel()
        for n, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and "lora" not in n and "lm_head" not in n
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = model.get_output_embeddings().weight.numel()
    nodes, targets = (
        sum(getattr(r, name) for r in reports) for name in ("computed_tokens", "targets")
    )
    operations = nodes * (4 * linear + 6 * trained) + 4 * targets * head
    width = chat.model.config.hidden_size
    a, b = torch.randn(2048, width), torch.randn(width, 4 * width)
    start, n = time.perf_counter(), 100
    for _ in range(n):
        a @ b
    speed = n * 2 * 2048 * width * 4 * width / (time.perf_counter() - start)
    return operations / speed


if __name__ == "__main__":
    main()
