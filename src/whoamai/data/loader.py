"""The rows of a step as padded Batches: for models that cannot fork (data/packing.py is for the others).

Rows of like length go together, at most `tokens_per_batch` padded tokens at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from whoamai.samples import Batch, Kept, Sample


def batches_of_step(
    samples: Sequence[Sample], *, tokens_per_batch: int, keep: bool = False
) -> list[Batch]:
    """The step's rows as padded batches of at most `tokens_per_batch` tokens (or one row).

    With `keep` a batch tells apart what of it is to be kept (Sample.keep).
    """
    by_length = sorted(samples, key=lambda s: len(s.input_ids))
    batches, rows = [], []
    for sample in by_length:
        if rows and len(sample.input_ids) * (len(rows) + 1) > tokens_per_batch:
            batches.append(pad(rows, keep=keep))
            rows = []
        rows.append(sample)
    return [*batches, pad(rows, keep=keep)] if rows else batches


def pad(samples: Sequence[Sample], *, keep: bool = False) -> Batch:
    """Right-padded rows. Padding is id 0, seen by nothing; no target lies on it.

    Row "a b C D" with targets C and D gives positions 1 and 2 with tokens C and D: the hidden state
    before a target predicts it.
    """
    longest = max(len(s.input_ids) for s in samples)
    input_ids_RT = torch.zeros(len(samples), longest, dtype=torch.long)
    attention_mask_RT = torch.zeros(len(samples), longest, dtype=torch.long)
    row, position, token = [], [], []
    for r, sample in enumerate(samples):
        length = len(sample.input_ids)
        input_ids_RT[r, :length] = torch.tensor(sample.input_ids)
        attention_mask_RT[r, :length] = 1
        targets = [i for i in range(1, length) if sample.is_target[i]]
        row += [r] * len(targets)
        position += [i - 1 for i in targets]
        token += [sample.input_ids[i] for i in targets]
    return Batch(
        input_ids_RT,
        attention_mask_RT,
        # An empty list says no type of its own, and would become float.
        torch.tensor(row, dtype=torch.long),
        torch.tensor(position, dtype=torch.long),
        torch.tensor(token, dtype=torch.long),
        kept=_kept(samples, row) if keep else None,
    )


def _kept(samples: Sequence[Sample], row: Sequence[int]) -> Kept[Batch] | None:
    """The rows to keep; row[n] is the row of target n."""
    target = [n for n, r in enumerate(row) if samples[r].keep]
    if not target:
        return None
    return Kept(pad([sample for sample in samples if sample.keep]), torch.tensor(target))
