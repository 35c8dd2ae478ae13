"""How much memory reading a large file takes: rows become conversations on the disk, not in memory.

    python benchmarks/data_large.py [--gib 2]

Makes a JSONL file of that size, reads it as training does, and looks at rows all over it. Beside it the
usual way, a list of json.loads over the lines, on a twentieth of the file, scaled up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from whoamai.data.readers import read_conversations


def write_rows(path: Path, size: int) -> None:
    rng = random.Random(0)
    words = "今天天气很好我们去公园散步然后一起吃饭聊天 the quick brown fox jumps over a lazy dog "
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            reply = "".join(rng.choices(words, k=600))
            turns = [{"role": "user", "content": f"第{file.tell()}行？"},
                     {"role": "assistant", "content": reply}]  # fmt: skip
            for _ in range(50):
                file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


_NAIVE = """
import json, resource, sys
lines = zip(open(sys.argv[1], encoding="utf-8"), range(int(sys.argv[2])))
rows = [json.loads(line) for line, _ in lines]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gib", type=float, default=2.0)
    size = int(parser.parse_args().gib * 2**30)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.jsonl"
        write_rows(path, size)
        start = time.perf_counter()
        rows = read_conversations(path)
        seconds = time.perf_counter() - start
        for i in random.Random(1).sample(range(len(rows)), 2000):
            assert rows[i].source.endswith(f":{i + 1}")
        part = len(rows) // 20
        naive = subprocess.run([sys.executable, "-c", _NAIVE, str(path), str(part)],
                               capture_output=True, text=True, check=True)  # fmt: skip
        print(f"file: {os.path.getsize(path) / 2**30:.2f} GiB, {len(rows):,} rows")
    print(f"read: {seconds:.0f} s, {len(rows) / seconds:,.0f} rows/s; peak {peak_mib():.0f} MiB")
    print(f"a list of json.loads: about {20 * float(naive.stdout):,.0f} MiB (from {part:,} rows)")


if __name__ == "__main__":
    main()
