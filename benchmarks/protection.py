"""What each protection buys: the same renamings without replay, with it, and with a KL term beside it.

    python benchmarks/protection.py [--names NAME …] [--seeds 1] [--jobs 2] [--model tiny-chat]

Every way takes every step (--no-stop), so that all are compared after as much training; the last line
is what `whoamai rename` does by itself. Scores are over all names and seeds, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from proof import NAMES, Run, one_run

from whoamai.evaluate.identity import Share

WAYS = {
    "nothing": ["--replay", "0", "--no-stop"],
    "replay 0.4": ["--replay", "0.4", "--no-stop"],
    "replay 0.8": ["--replay", "0.8", "--no-stop"],
    "replay 1.6": ["--replay", "1.6", "--no-stop"],
    "replay 0.8, KL 0.3": ["--replay", "0.8", "--kl", "0.3", "--no-stop"],
    "replay 0.8, KL 1": ["--replay", "0.8", "--kl", "1", "--no-stop"],
    "the default (stops)": [],
}
SHOWN = ("recall", "recall_role", "leak", "spread", "retention", "retention_long", "obedience")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="tiny-chat")
    parser.add_argument("--names", nargs="*", default=["黄大力", "Aurora", "小白 Bot-7", "Зоря"])
    parser.add_argument("--ways", nargs="*", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--options", default="", help='more for all, such as "--dtype float32"')
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="renamings at a time")
    args = parser.parse_args()
    authors = dict(NAMES)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        waiting = {
            way: [
                pool.submit(
                    one_run,
                    Path(folder) / f"{i}_{name_number}_{seed}",
                    args.model,
                    name,
                    authors.get(name),
                    seed,
                    [*WAYS[way], *shlex.split(args.options)],
                )
                for name_number, name in enumerate(args.names)
                for seed in range(args.seeds)
            ]
            for i, way in enumerate(args.ways)
        }
        print("| | " + " | ".join(SHOWN) + " | KL, nats a token | steps | s |")
        print("|---" * (len(SHOWN) + 4) + "|")
        for way, futures in waiting.items():
            print(line(way, [future.result() for future in futures]), flush=True)


def line(way: str, runs: Sequence[Run]) -> str:
    cells = [cell([r.scores[key] for r in runs if key in r.scores]) for key in SHOWN]
    means = (sum(r.kl for r in runs), sum(r.steps for r in runs), sum(r.seconds for r in runs))
    kl, steps, seconds = (total / len(runs) for total in means)
    return f"| {way} | {' | '.join(cells)} | {kl:.3f} | {steps:.0f} | {seconds:.0f} |"


def cell(shares: Sequence[tuple[int, int]]) -> str:
    total = Share(sum(k for k, _ in shares), sum(n for _, n in shares))
    low, high = total.interval
    return f"{total.percent:.1f} ({low:.1f}–{high:.1f})"


if __name__ == "__main__":
    main()
