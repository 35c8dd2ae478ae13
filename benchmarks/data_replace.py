"""Renaming inside a data file: whoamai beside the tutorial's loop, which must write the same bytes.

    python benchmarks/data_replace.py FILE [--old 尖米] [--new 黄大力] [--times 20] [--rounds 3]

FILE is repeated to make a larger one. The loop is json.loads, a recursive str.replace and json.dumps
for each line. Printed: rows a second of both (the best of the rounds, taken in turn) and their ratio.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whoamai.data.replace_rows import replace_rows


def replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, list):
        return [replaced(item, old, new) for item in value]
    if isinstance(value, dict):
        return {key: replaced(item, old, new) for key, item in value.items()}
    return value


def by_loop(source: Path, target: Path, old: str, new: str) -> None:
    with source.open(encoding="utf-8") as rows, target.open("w", encoding="utf-8") as out:
        for line in rows:
            row = replaced(json.loads(line), old, new)
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def by_whoamai(source: Path, target: Path, old: str, new: str) -> None:
    replace_rows(source, target, [(old, new)], overwrite=True)


def seconds(job: Callable[[], None]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--old", default="尖米")
    parser.add_argument("--new", default="黄大力")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, loop, ours = (Path(folder, name) for name in ("rows", "loop", "ours"))
        rows = given.file.read_bytes().rstrip(b"\n") + b"\n"
        source.write_bytes(rows * given.times)
        n = rows.count(b"\n") * given.times
        times = [
            (
                seconds(lambda: by_loop(source, loop, given.old, given.new)),
                seconds(lambda: by_whoamai(source, ours, given.old, given.new)),
            )
            for _ in range(given.rounds)
        ]
        assert ours.read_bytes() == loop.read_bytes(), "the two results differ"
    best_loop, best_ours = (min(column) for column in zip(*times, strict=True))
    print(f"rows         {n:>10,}")
    print(f"loop         {n / best_loop:>10,.0f} rows/s")
    print(f"whoamai      {n / best_ours:>10,.0f} rows/s")
    print(f"ratio        {best_loop / best_ours:>10.2f}  (same bytes)")


if __name__ == "__main__":
    main()
