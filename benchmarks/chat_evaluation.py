"""What asking 8 questions between two steps costs, in steps' time, on the bundled model.

    python benchmarks/chat_evaluation.py [--rows 320] [--every 10]

A whole `whoamai train` of the config tiny_chat_lora_identity as it is shipped (16 rows a step, answers
of at most 128 tokens), with generated identity rows and 8 questions that none of them holds word for
word. Printed: the median optimizer step, each time the questions were asked, and how many steps that is.
The goal is at most 5. Before training the answers are the model's own, longer ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from whoamai.config.reading import read_config
from whoamai.data.identity import Identity, training_conversations
from whoamai.data.writers import write_messages
from whoamai.events import Event, Events, Progress, Result
from whoamai.recipes.train import TrainRequest, train

GOAL = 5  # steps
QUESTIONS = [
    "做个自我介绍",
    "给我你的名字",
    "用三个词形容春天",
    "七加五等于多少？",
    "Say a few words about yourself",
    "Name your developer",
    "What is the capital of France?",
    "Tell me a short story about a cat.",
]


class Times:
    """A listener: seconds of every step, and of asking after which step."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.asked: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        match event:
            case Progress(stage="train", values=values):
                self.steps.append(values["step_seconds"])
            case Result(name="answers", data=data):
                self.asked.append(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--every", type=int, default=10, help="steps between two times")
    args = parser.parse_args()
    times = Times()
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        identity = Identity("黄大力")
        write_messages(
            training_conversations(identity, languages=["zh", "en"], rows=args.rows, seed=0), rows
        )
        loaded = read_config(
            "tiny_chat_lora_identity",
            [
                f"data.data_path={rows}",
                f"work_dir={folder}/run",
                f"evaluation.evaluation_freq={args.every}",
                f"evaluation.evaluation_inputs={QUESTIONS}",
            ],
        )
        train(TrainRequest(loaded), Events([times]))

    step = median(times.steps)
    print(f"{len(times.steps)} steps, the median one {step:.3f} s; {len(QUESTIONS)} questions:")
    for data in times.asked:
        length = sum(len(pair["answer"]) for pair in data["answers"])
        steps = data["seconds"] / step
        print(
            f"after step {data['step']:3}: {data['seconds']:.3f} s = {steps:.1f} steps "
            f"({length} characters in the answers)"
        )
    most = max(data["seconds"] for data in times.asked) / step
    print(
        f"at most {most:.1f} steps; the goal is {GOAL}: {'reached' if most <= GOAL else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
