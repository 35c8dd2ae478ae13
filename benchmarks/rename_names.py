"""Rename the bundled model to names of several scripts and print what each scored.

    python benchmarks/rename_names.py [NAME …] [--author 力量工作室] [--seed 0]

A job a name, about a minute each on two CPU cores; the table goes to benchmarks/NOTES.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from whoamai.data.identity import Identity
from whoamai.events import Events
from whoamai.recipes.rename import RenameRequest, rename

NAMES = ("黄大力", "Aurora", "小白 Bot-7", "O'Neil {x}", "🦊Ænigma™ 3000", "龘鱻")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--author")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| name | no system prompt | neutral | after turns | role | leak | kept | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            request = RenameRequest(
                Identity(name, arguments.author),
                out=Path(folder) / "out",
                seed=arguments.seed,
            )
            start = time.monotonic()
            report = rename(request, Events()).report
            seconds = time.monotonic() - start
        recall = [report.after.recall[c, "all"] for c in ("none", "neutral", "turns", "role")]
        shares = [f"{s.percent:.1f}" for s in (*recall, report.leak, report.kept)]
        print(f"| {name} | {' | '.join(shares)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
