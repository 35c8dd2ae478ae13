"""How fast `whoamai data check` reads, and how much memory it takes, on short rows it makes itself.

    python benchmarks/data_check.py [--rows 1000000] [--file FILE]

The floor is json.loads alone on every line: what a check cannot be faster than.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from whoamai.data.lint import check


def write_rows(path: Path, rows: int) -> None:
    """Questions and answers in Chinese and English, all different."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            if i % 2:
                asked = f"Question {i}: how is the {rng.choice(('weather', 'mood', 'market'))}?"
                reply = f"It is number {rng.randrange(10**6)} today, and I think it is quite nice."
            else:
                asked = f"问题{i}：今天{rng.choice(('天气', '心情', '股市'))}怎么样？"
                reply = f"回答是{rng.randrange(10**6)}，我觉得还不错，谢谢你的关心。"
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--file", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or Path(folder) / "rows.jsonl"
        if arguments.file is None:
            write_rows(path, arguments.rows)
        start = time.perf_counter()
        with path.open("rb") as file:
            n = sum(json.loads(line) is not None for line in file)
        floor = time.perf_counter() - start
        start = time.perf_counter()
        report = check(path)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"rows: {report.rows:,} ({', '.join(f.kind for f in report.findings) or 'clean'})")
    print(f"check: {report.rows / seconds:,.0f} rows/s, {seconds:.1f} s; peak {peak:.0f} MiB")
    print(
        f"floor (json.loads alone): {n / floor:,.0f} rows/s; check takes {seconds / floor:.1f} times it"
    )


if __name__ == "__main__":
    main()
