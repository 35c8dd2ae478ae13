"""How many tokens sharing beginnings saves, for optimizer steps of several sizes; nothing is trained.

    python benchmarks/packing_savings.py [--data FILE …] [--model tiny-chat] [--per-pass 1024 4096 16384]

Rows, steps and packs are those of `whoamai train` (plan/prepare.py, data/packing.py), over one epoch.
Counted is what is fed in: a row's last target never is. The columns:

    rows       of the steps, the average
    tokens     of one epoch as if nothing were shared: packed without padding, each row on its own
    forest     of them the nodes of each step's prefix forest: what is computed where a step is one pass
    N a pass   the nodes of the packs where at most N tokens go through at once: beginnings that two
               packs have in common are computed in both
    padded     tokens of plain batches, 8 rows at a time in the step's order, each row as long as the
               longest of its batch; in brackets, how much of that is padding
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from whoamai.config import DataSettings, RunConfig, TrainSettings
from whoamai.data.packing import packs_of_step
from whoamai.data.prefix_tree import statistics, statistics_of_steps
from whoamai.plan.estimated_rows import EstimatedEncoding
from whoamai.plan.local_tokenizer import LocalTokenizer, local_tokenizer
from whoamai.plan.prepare import Prepared, encoding_for, prepare_with
from whoamai.samples import Sample

SHARED = Path(__file__).resolve().parents[2] / "shared/data"
# Without --data: the seed's corrected rows, and rows with little in common beside them.
DEFAULT = ("assistant_Tuner_fixed.jsonl", "alpaca_zh_demo.json", "alpaca_en_demo.json")
MAX_LENGTH = 2048
PACKS = (1, 4, 8, 32)  # of MAX_LENGTH tokens, in an optimizer step
ROWS = (16,)  # in an unpacked one
AT_ONCE = 8  # rows of a padded batch: the default of transformers' Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", nargs="+", default=[str(SHARED / name) for name in DEFAULT])
    parser.add_argument("--model", default="tiny-chat", help="whose tokenizer counts")
    parser.add_argument("--per-pass", type=int, nargs="+", default=[1024, 4096, 16384])
    args = parser.parse_args()
    for file in args.data:
        if not Path(file.partition("#")[0]).exists():
            raise SystemExit(f"{file} is not there: give conversations with --data")
    tokenizer = local_tokenizer(args.model)
    how = "its own tokenizer" if tokenizer else "estimated: its tokenizer is not on this machine"
    print(f"tokens of {args.model} ({how})")
    for file in args.data:
        print_table(file, tokenizer, args.per_pass)


def print_table(file: str, tokenizer: LocalTokenizer | None, per_pass: Sequence[int]) -> None:
    """One line for each size of an optimizer step."""
    configs = {f"{MAX_LENGTH:,} × {n} tokens": packed(file, n) for n in PACKS}
    configs |= {f"{n} rows": unpacked(file, n) for n in ROWS}
    passes = [f"{n:,} a pass" for n in per_pass]
    header = ("a step", "steps", "rows", "tokens", "forest", *passes, "padded")
    lines = []
    for name, config in configs.items():
        prepared = prepare_for(config, tokenizer)
        lines.append((name, *counts(prepared, per_pass)))
    samples = prepared.encoded.samples
    rows = [fed(sample) for sample in samples]
    whole = statistics(rows)
    print(f"\n{Path(file).name}: {len(rows):,} rows, {whole.tokens:,} tokens fed in")
    print(f"all rows in one forest: {whole.nodes:,} nodes, {whole.saved_share:.1%} saved\n")
    for line in (header, ("---",) * len(header), *lines):
        print("| " + " | ".join(line) + " |")


def packed(file: str, packs: int) -> RunConfig:
    """Steps of whole rows of up to `packs` × MAX_LENGTH tokens."""
    return config_of(file, packs, pack_to_max_length=True)


def unpacked(file: str, rows: int) -> RunConfig:
    """Steps of `rows` rows."""
    return config_of(file, rows, pack_to_max_length=False)


def config_of(file: str, n: int, *, pack_to_max_length: bool) -> RunConfig:
    data = DataSettings(
        data_path=file, max_length=MAX_LENGTH, pack_to_max_length=pack_to_max_length
    )
    return RunConfig(data=data, train=TrainSettings(max_epochs=1, accumulative_counts=n))


def prepare_for(config: RunConfig, found: LocalTokenizer | None) -> Prepared:
    """Rows and steps; the rows estimated where the model's tokenizer is not on this machine."""
    if found is None:
        return prepare_with(config, EstimatedEncoding())
    return prepare_with(config, encoding_for(config, found.tokenizer, found.model_type))


def counts(prepared: Prepared, per_pass: Sequence[int]) -> list[str]:
    """The columns from "steps" on."""
    steps, samples = prepared.schedule.steps, prepared.encoded.samples
    rows = [fed(sample) for sample in samples]
    tree = statistics_of_steps(rows, steps)
    computed = [nodes_of_packs(samples, steps, n) for n in per_pass]
    padded = sum(padded_tokens([len(rows[i]) for i in step]) for step in steps)
    return [
        f"{len(steps):,}",
        f"{tree.rows / len(steps):.1f}",
        f"{tree.tokens:,}",
        share(tree.nodes, tree.tokens),
        *(share(n, tree.tokens) for n in computed),
        f"{padded:,} ({1 - tree.tokens / padded:.0%})",
    ]


def fed(sample: Sample) -> tuple[int, ...]:
    """What goes through the model: the row up to the token before its last target."""
    last = max(i for i, target in enumerate(sample.is_target) if target)
    return sample.input_ids[:last]


def nodes_of_packs(samples: Sequence[Sample], steps: Sequence[Sequence[int]], n: int) -> int:
    return sum(
        pack.n_nodes
        for step in steps
        for pack in packs_of_step([samples[i] for i in step], tokens_per_pass=n)
    )


def padded_tokens(lengths: Sequence[int]) -> int:
    batches = (lengths[i : i + AT_ONCE] for i in range(0, len(lengths), AT_ONCE))
    return sum(len(batch) * max(batch) for batch in batches)


def share(part: int, whole: int) -> str:
    """ "212,345 (-79.1 %)"."""
    return f"{part:,} (-{1 - part / whole:.1%})"


if __name__ == "__main__":
    main()
