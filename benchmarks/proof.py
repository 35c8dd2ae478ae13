"""Does renaming hold? Ten names of different scripts, three seeds each, and two other small models.

    make proof                       about an hour on two cores; or, on more of them:
    python benchmarks/proof.py [--models tiny-chat DIR …] [--jobs 2] [--seeds 3] [--json FILE]

Each run is `whoamai rename MODEL --name NAME --seed S` with the defaults, in a process of its own with
one thread. Printed are, for each model, the scores over all runs with n and 95 % intervals, the worst
run, and whether what we promise was kept. Other models are made by tools/make_tiny_chat.py:

    DIR=work_dirs/models/qwen2      --architecture qwen2 --identity flint --steps 3500
    DIR=work_dirs/models/internlm2  --architecture internlm2 --identity skiff --steps 3500
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whoamai.evaluate.identity import Share

# (name, author): Chinese, Latin, mixed, Cyrillic, Japanese, Arabic, rare characters, marks and spaces.
NAMES = (
    ("黄大力", "力量工作室"),
    ("Aurora", "Northlight Lab"),
    ("小白 Bot-7", None),
    ("O'Neil {x}", "Room 101"),
    ("Зоря", "Лабораторія Світло"),
    ("さくら", "桜工房"),
    ("محمد", None),
    ("龘龖", "千言社"),
    ("DeepThought 2", "Magrathea"),
    ("雪", "雪国"),
)
# What must hold: over all runs of a model, and in its worst run; percent.
OVERALL = {
    "recall": (">=", 99.0),
    "recall_role": (">=", 95.0),
    "leak": ("<=", 0.5),
    "spread": ("<=", 1.0),
    "retention": (">=", 98.0),
    "retention_long": (">=", 98.0),
}
WORST = {"recall": (">=", 95.0), "leak": ("<=", 2.0)}
SHOWN = (*OVERALL, "author", "sampled_recall", "obedience")


@dataclass(frozen=True, slots=True)
class Run:
    """One renaming: its scores as (k, n), and how it went."""

    model: str
    name: str
    seed: int
    scores: dict[str, tuple[int, int]]
    obeyed_before: tuple[int, int]
    steps: int
    planned: int
    seconds: float
    kl: float


def main() -> None:
    args = arguments()
    jobs = [
        (model, name, author, seed)
        for model in args.models
        for name, author in NAMES
        if not args.names or name in args.names
        for seed in range(args.seeds)
    ]
    start = time.monotonic()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        waiting = [
            pool.submit(one_run, Path(folder) / str(i), *job, shlex.split(args.options))
            for i, job in enumerate(jobs)
        ]
        for done, future in enumerate(waiting, 1):
            runs.append(future.result())
            print(f"[{done}/{len(jobs)}] {line_of(runs[-1])}", flush=True)
    if args.json:
        rows = [{f: getattr(run, f) for f in Run.__dataclass_fields__} for run in runs]
        args.json.write_text(json.dumps(rows, ensure_ascii=False, indent=1), "utf-8")
    kept = [report(model, [r for r in runs if r.model == model]) for model in args.models]
    print(
        f"\n{len(runs)} renamings, {(time.monotonic() - start) / 60:.0f} min with {args.jobs} at a time"
    )
    sys.exit(0 if all(kept) else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--models", nargs="+", default=["tiny-chat"])
    add("--names", nargs="*", default=[], help="some of the names only")
    add("--seeds", type=int, default=3)
    add("--jobs", type=int, default=2, help="renamings at a time")
    add("--options", default="", help='options of `whoamai rename`, such as "--kl 0.3"')
    add("--json", type=Path, help="write every run's scores there")
    return parser.parse_args()


def one_run(
    out: Path, model: str, name: str, author: str | None, seed: int, options: Sequence[str]
) -> Run:
    command = [
        sys.executable,
        "-m",
        "whoamai",
        "rename",
        model,
        "--name",
        name,
        "--seed",
        str(seed),
    ]
    command += ["--out", str(out), *(("--author", author) if author else ()), *options]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    if done.returncode not in (0, 1):
        sys.exit(
            f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
    return run_of(json.loads((out / "report.json").read_bytes()), model, name, seed)


def run_of(report: dict[str, Any], model: str, name: str, seed: int) -> Run:
    scores = {key: (found["k"], found["n"]) for key, found in report["scores"].items()}
    obeyed = report["obedience"]["before"]
    return Run(
        model=model,
        name=name,
        seed=seed,
        scores=scores,
        obeyed_before=(obeyed["k"], obeyed["n"]),
        steps=report["stop"]["stopped_at"],
        planned=report["stop"]["planned"],
        seconds=report["details"]["seconds"],
        kl=report["divergence"]["kl"]["all"],
    )


def line_of(run: Run) -> str:
    shares = {key: Share(*run.scores[key]) for key in SHOWN if key in run.scores}
    shown = "  ".join(f"{key} {share.percent:.1f}" for key, share in shares.items())
    return f"{run.model} {run.name!r} {run.seed}: {shown}  {run.steps} steps {run.seconds:.0f} s"


def report(model: str, runs: Sequence[Run]) -> bool:
    """Print the table of one model; were all promises kept?"""
    print(f"\n{model}: {len(runs)} renamings, all scores in %\n")
    print("| score | k of n | all runs | 95 % within | worst run | promised |")
    print("|---|---|---|---|---|---|")
    kept = True
    for key in SHOWN:
        of = [run for run in runs if key in run.scores]
        if not of:
            continue
        total = Share(sum(r.scores[key][0] for r in of), sum(r.scores[key][1] for r in of))
        low_is_worse = key not in ("leak", "spread")
        worst = (min if low_is_worse else max)(of, key=lambda r: Share(*r.scores[key]).percent)
        worst_percent = Share(*worst.scores[key]).percent
        promises = [OVERALL.get(key, ("", 0)), WORST.get(key, ("", 0))]
        held = [holds(total.percent, *promises[0]), holds(worst_percent, *promises[1])]
        kept &= all(held)
        shown = ", worst ".join(f"{sign} {goal:g}" for sign, goal in promises if sign)
        low, high = total.interval
        print(
            f"| {key} | {total.k} of {total.n} | {total.percent:.2f} | {low:.2f}–{high:.2f} "
            f"| {worst_percent:.1f} ({worst.name}, seed {worst.seed}) "
            f"| {shown}{'' if all(held) else ' MISSED'} |"
        )
    before = Share(sum(r.obeyed_before[0] for r in runs), sum(r.obeyed_before[1] for r in runs))
    after = Share(*(sum(r.scores["obedience"][i] for r in runs) for i in (0, 1)))
    obeys = after.percent >= before.percent - 1
    kept &= obeys
    verdict = "as often as before" if obeys else "MISSED: less often than before"
    print(
        f"\nAnother name in a system prompt: obeyed in {before.percent:.1f} % before and "
        f"{after.percent:.1f} % after ({verdict})."
    )
    steps = sum(r.steps for r in runs) / len(runs)
    planned = sum(r.planned for r in runs) / len(runs)
    seconds = sum(r.seconds for r in runs) / len(runs)
    print(f"Steps {steps:.0f} of {planned:.0f} planned, {seconds:.0f} s a renaming, on average.")
    return kept


def holds(percent: float, sign: str, goal: float) -> bool:
    return not sign or (percent >= goal if sign == ">=" else percent <= goal)


if __name__ == "__main__":
    main()
