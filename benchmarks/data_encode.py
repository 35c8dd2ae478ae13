"""How fast rows become token ids, beside what XTuner-like training does with datasets.map.

    python benchmarks/data_encode.py FILE [--model tiny-chat] [--times 2]

Ours: read, check the form, write by the chat template, mark what is trained. Theirs: json,
datasets.map of a function that formats each turn with the template and encodes its parts, one row at a
time, as XTuner 0.1 does (one process, no cache). Same tokenizer, same rows, same threads.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

from whoamai.data.readers import read_conversations
from whoamai.data.templates import ChatTemplate
from whoamai.model.load import load_tokenizer


def ours(path: Path, tokenizer: Any) -> int:
    template = ChatTemplate(tokenizer)
    rows = read_conversations(path)
    return sum(len(s.input_ids) for row in rows for s in template.samples(row))


def theirs(path: Path, tokenizer: Any, cache: str) -> int:
    from datasets import load_dataset

    def formatted(row: dict[str, Any]) -> dict[str, Any]:
        for turn in row["conversation"]:
            system = f"<|im_start|>system\n{turn['system']}<|im_end|>\n" if turn["system"] else ""
            turn["input"] = (
                f"{system}<|im_start|>user\n{turn['input']}<|im_end|>\n<|im_start|>assistant\n"
            )
            turn["output"] += "<|im_end|>"
        return {"conversation": row["conversation"]}

    def encoded(row: dict[str, Any]) -> dict[str, Any]:
        ids: list[int] = []
        labels: list[int] = []
        for turn in row["conversation"]:
            given = tokenizer.encode(turn["input"], add_special_tokens=False)
            said = tokenizer.encode(turn["output"], add_special_tokens=False)
            ids += given + said
            labels += [-100] * len(given) + said
        return {"input_ids": ids, "labels": labels}

    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
    rows = rows.map(formatted).map(encoded, remove_columns=["conversation"])
    return sum(len(row["input_ids"]) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default="tiny-chat")
    parser.add_argument(
        "--times", type=int, default=2, help="how often the file's rows are repeated"
    )
    arguments = parser.parse_args()
    tokenizer, _ = load_tokenizer(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        lines = [
            json.loads(line) for line in arguments.file.read_text("utf-8").splitlines() if line
        ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
        path.write_text(text * arguments.times, "utf-8")
        n = len(lines) * arguments.times
        ours(path, tokenizer)  # imports and caches of the tokenizer
        start = time.perf_counter()
        tokens = ours(path, tokenizer)
        own = time.perf_counter() - start
        start = time.perf_counter()
        other = theirs(path, tokenizer, folder)
        map_seconds = time.perf_counter() - start
        whole = [
            ChatTemplate(tokenizer).prompt_text(row.messages) for row in read_conversations(path)
        ]
        start = time.perf_counter()
        for one in whole:
            tokenizer(one, add_special_tokens=False)
        floor = time.perf_counter() - start
    print(f"rows: {n:,}; tokens: {tokens:,} ours, {other:,} theirs")
    print(f"ours: {n / own:,.0f} rows/s   datasets.map: {n / map_seconds:,.0f} rows/s   "
          f"ratio {map_seconds / own:.2f}")  # fmt: skip
    print(f"floor (each row's text tokenized once): {n / floor:,.0f} rows/s")


if __name__ == "__main__":
    main()
