"""How each setting of `rename` moves the scores on the bundled model, one run a line.

    python benchmarks/rename_settings.py [SETTING …] [--name 黄大力] [--data FILE]
                                         [--dtype float32] [--jobs 1]

A SETTING is fields of RenameRequest: "lora_r=16,lora_alpha=32,replay_near=0". About a minute and a
half a line on two CPU cores, more with --data. On a GPU several runs can share it (--jobs), and
--dtype float32 makes them comparable with runs on the CPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from whoamai.data.identity import Identity
from whoamai.events import Events
from whoamai.recipes.rename import RenameRequest, rename

# Tried where nothing is asked for: one setting changed at a time.
SETTINGS = (
    "",
    "lr=3e-4",
    "lr=1e-3",
    "lr=5e-3",
    "rows=300",
    "rows=600",
    "replay_ratio=0",
    "replay_near=0",
    "lora_r=16,lora_alpha=32",
    "lora_r=64,lora_alpha=128",
)


def parse(text: str) -> dict[str, Any]:
    """ "rows=300,lr=1e-3" as fields of a RenameRequest."""
    pairs = (part.split("=") for part in text.split(",") if part)
    return {key: int(value) if value.isdigit() else float(value) for key, value in pairs}


def run(request: RenameRequest, setting: str) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        request = replace(request, out=Path(folder) / "out", **parse(setting))
        start = time.monotonic()
        report = rename(request, Events()).report
        seconds = time.monotonic() - start
    recall = [report.after.recall.get((c, "all")) for c in ("none", "neutral", "turns", "named")]
    shares = (*recall, report.recall_role, report.leak, report.kept)
    numbers = " | ".join(f"{s.percent:.1f}" if s else "–" for s in shares)
    steps = report.details["training"]["steps"]
    return f"| {setting or 'nothing'} | {steps} | {numbers} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("settings", nargs="*", default=SETTINGS)
    parser.add_argument("--name", default="黄大力")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    request = RenameRequest(Identity(arguments.name), data=arguments.data, dtype=arguments.dtype)
    print("| changed | steps | none | neutral | turns | data's | role | leak | kept | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    spawn = multiprocessing.get_context("spawn")  # CUDA cannot be used in a forked process
    with ProcessPoolExecutor(arguments.jobs, mp_context=spawn) as pool:
        jobs = [pool.submit(run, request, setting) for setting in arguments.settings]
        for done in as_completed(jobs):
            print(done.result(), flush=True)


if __name__ == "__main__":
    main()
