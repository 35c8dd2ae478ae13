"""How many tokens sharing beginnings saves, for optimizer steps of several sizes.

    python benchmarks/packing_savings.py [--data FILE …] [--model tiny-chat] [--per-pass 1024 16384]

Rows, steps and packs are those of `whoamai train` (plan/prepare.py, data/packing.py); nothing is trained.
One epoch is counted, and what is fed in: a row's last target never is. For each step size:

    tokens     fed in as if nothing were shared: packed without padding, each row on its own
    forest     nodes of the step's prefix forest, which one pass computes: the best there is
    N a pass   the packs as they are cut where at most N tokens go through at once, the beginnings
               between two packs twice; a GPU's N also with the padding to a few lengths
    padded     a batch of the step's rows, all padded to the longest: what most trainers compute
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from whoamai.config import DataSettings, ModelSettings, RunConfig, TrainSettings
from whoamai.data.packing import bucket, packs_of_step
from whoamai.data.prefix_tree import statistics, statistics_of_steps
from whoamai.plan.estimated_rows import EstimatedEncoding
from whoamai.plan.local_tokenizer import local_tokenizer
from whoamai.plan.prepare import Prepared, encoding_for, prepare_with
from whoamai.samples import Sample

SHARED = Path(__file__).resolve().parents[2] / "shared/data"
# What is measured without --data: the seed's corrected rows, and for contrast rows with nothing in
# common (#1000: the first step of reading takes so many).
DEFAULT = ("assistant_Tuner_fixed.jsonl", "alpaca_zh_demo.json#1000", "alpaca_en_demo.json#1000")
MAX_LENGTH = 2048


@dataclass(frozen=True, slots=True)
class Size:
    """How much an optimizer step takes: packs of MAX_LENGTH tokens, or rows."""

    name: str
    packs: int = 0
    rows: int = 0

    def config(self, file: str, model: str) -> RunConfig:
        return RunConfig(
            model=ModelSettings(pretrained_model_name_or_path=model),
            data=DataSettings(
                data_path=file, max_length=MAX_LENGTH, pack_to_max_length=bool(self.packs)
            ),
            train=TrainSettings(max_epochs=1, accumulative_counts=self.packs or self.rows),
            # Only counted, so whatever the data check finds is no reason to stop.
            allow=[],
        )


SIZES = (
    *(Size(f"{MAX_LENGTH:,} × {n}", packs=n) for n in (1, 4, 8, 32)),
    Size("16 rows", rows=16),
)
