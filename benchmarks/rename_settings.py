"""How each setting of `rename` moves the scores on the bundled model, one run a line.

    python benchmarks/rename_settings.py [--name 黄大力]

About a minute a line on two CPU cores. Change one setting at a time, keep the rest at its default.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from whoamai.data.identity import Identity
from whoamai.events import Events
from whoamai.recipes.rename import RenameRequest, rename

SETTINGS = (
    {},
    {"lr": 3e-4},
    {"lr": 1e-3},
    {"lr": 5e-3},
    {"rows": 300},
    {"rows": 600},
    {"replay_ratio": 0.0},
    {"replay_ratio": 0.5},
    {"lora_r": 8, "lora_alpha": 16},
    {"lora_r": 64, "lora_alpha": 128},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", default="黄大力")
    name = parser.parse_args().name
    print("| changed | steps | recall | under roles | leak | kept | s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for changed in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            request = RenameRequest(Identity(name), out=Path(folder) / "out")
            start = time.monotonic()
            report = rename(replace(request, **changed), Events()).report
            seconds = time.monotonic() - start
        label = ", ".join(f"{k}={v:g}" for k, v in changed.items()) or "nothing"
        shares = (report.recall, report.recall_role, report.leak, report.kept)
        numbers = " | ".join(f"{s.percent:.1f}" for s in shares)
        steps = report.details["training"]["steps"]
        print(f"| {label} | {steps} | {numbers} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
