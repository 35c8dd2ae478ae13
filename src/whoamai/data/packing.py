"""From the Samples of one optimizer step to Packs: rows that begin alike go through the model together.

Rows are pruned (what comes behind a row's last target is never fed), sorted by their ids so that rows
that share a beginning are neighbours, and cut into packs of at most so many nodes. What a step learns
does not depend on where it is cut: the weights of all its packs add up to the targets of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from whoamai.data.prefix_tree import Forest, forest, in_order
from whoamai.samples import Pack, Sample

SMALLEST_STEP = 128  # tokens; also the block of FlexAttention


def packs_of_step(
    samples: Sequence[Sample],
    *,
    tokens_per_pass: int,
    share: bool = True,
    sizes: Callable[[int], int] | None = None,
) -> list[Pack]:
    """The rows of a step as packs of at most `tokens_per_pass` nodes, about equally full.

    A row longer than that is a pack alone; a row without a target is left out. Where `share` is False
    no beginning is shared: every row is a tree of its own. `sizes` maps a number of nodes to the length
    that its pack is padded to (see `bucket`); without it nothing is padded.
    """
    rows, targets = _pruned(samples)
    order, shared = in_order(rows)
    if not share:
        shared = [0] * len(shared)
    rows, targets = [rows[r] for r in order], [targets[r] for r in order]
    lengths = [len(row) for row in rows]
    packs = []
    for start, stop in pairwise(_cuts(lengths, shared, tokens_per_pass)):
        tree = forest(rows[start:stop], [0, *shared[start + 1 : stop]])
        n_nodes = len(tree.ids)
        size = n_nodes if sizes is None else sizes(n_nodes)
        assert size >= n_nodes, f"sizes({n_nodes}) is {size}"
        packs.append(_pack(tree, targets[start:stop], size, n_logical=sum(lengths[start:stop])))
    return packs


@dataclass(frozen=True, slots=True)
class StepShape:
    """What of a step decides how many tokens are computed, in the order in which rows are packed.

    lengths: tokens fed of each row; shared: of them, those it has in common with the row before.
    """

    lengths: tuple[int, ...]
    shared: tuple[int, ...]

    def computed(self, tokens_per_pass: int) -> int:
        """The nodes of all packs that packs_of_step makes with so many tokens at once."""
        whole = sum(self.lengths) - sum(self.shared)
        if whole <= tokens_per_pass:
            return whole
        cuts = _cuts(self.lengths, self.shared, tokens_per_pass)
        return whole + sum(self.shared[start] for start in cuts[:-1])


def shape_of_step(samples: Sequence[Sample], *, share: bool = True) -> StepShape:
    """The shape of a step of these rows."""
    rows = [fed for sample in samples if (fed := _fed(sample))]
    order, shared = in_order(rows)
    return StepShape(
        tuple(len(rows[r]) for r in order), tuple(shared if share else [0] * len(shared))
    )


def bucket(n: int) -> int:
    """The length that n tokens are padded to on a GPU: eight lengths from one power of two to the next.

    So few lengths occur that nothing is compiled again and again. Less than an eighth is padding, or
    less than 128 tokens.

    >>> [bucket(n) for n in (1, 129, 1024, 1025, 2049, 8200)]
    [128, 256, 1024, 1152, 2304, 9216]
    """
    power = 1 << (max(n, 1) - 1).bit_length() >> 1  # the greatest below n
    step = max(SMALLEST_STEP, power // 8)
    return max(1, -(-n // step)) * step


_Targets = tuple[np.ndarray, np.ndarray]  # of a row: places before its targets, the targets


def _pruned(samples: Sequence[Sample]) -> tuple[list[tuple[int, ...]], list[_Targets]]:
    """What is fed of each row that has a target, and its targets.

    Nothing predicts the first token of a row, so it is no target whatever is said of it.
    """
    rows, targets = [], []
    for sample in samples:
        if fed := _fed(sample):
            place = np.flatnonzero(sample.is_target[1:])
            token = np.array(sample.input_ids[1 : len(fed) + 1], np.int64)[place]
            rows.append(fed)
            targets.append((place, token))
    return rows, targets


def _fed(sample: Sample) -> tuple[int, ...]:
    """The tokens of a row before its last target; none of a row without one."""
    last = len(sample.is_target) - 1
    while last > 0 and not sample.is_target[last]:
        last -= 1
    return sample.input_ids[: max(0, last)]


def _cuts(lengths: Sequence[int], shared: Sequence[int], most: int) -> list[int]:
    """Where packs begin and the last one ends: as few as `most` nodes allow, as equal as can be.

    Filling up pack after pack gives the fewest; the smallest filling that needs no more of them is
    found by halving, and leaves no small rest.
    """
    cuts = _filled(lengths, shared, most)
    least, enough = 0, most
    while least + 1 < enough:
        middle = (least + enough) // 2
        fewer = _filled(lengths, shared, middle)
        if len(fewer) == len(cuts):
            enough, cuts = middle, fewer
        else:
            least = middle
    return cuts


def _filled(lengths: Sequence[int], shared: Sequence[int], most: int) -> list[int]:
    """Cuts with each pack filled in turn. A row that adds no node always fits."""
    cuts, nodes = [0], 0
    for r, (length, common) in enumerate(zip(lengths, shared, strict=True)):
        added = length - common
        if r > cuts[-1] and added and nodes + added > most:
            cuts.append(r)
            nodes = 0
        nodes += length if r == cuts[-1] else added
    return [*cuts, len(lengths)] if lengths else []


def _pack(tree: Forest, targets: Sequence[_Targets], size: int, *, n_logical: int) -> Pack:
    """The forest padded to `size`, each padding token a tree of its own."""
    import torch  # here, so that the plan of a run needs none of it

    n_nodes = len(tree.ids)
    padding = size - n_nodes
    place, token, weight = _counted(tree.paths, targets)
    return Pack(
        input_ids_T=torch.from_numpy(np.pad(tree.ids, (0, padding))),
        position_T=torch.from_numpy(np.pad(tree.position, (0, padding))),
        subtree_end_T=torch.from_numpy(
            np.concatenate([tree.subtree_end, np.arange(n_nodes, size) + 1])
        ),
        place_N=torch.from_numpy(place),
        token_N=torch.from_numpy(token),
        weight_N=torch.from_numpy(weight),
        n_nodes=n_nodes,
        n_rows=len(tree.paths),
        n_logical=n_logical,
    )


def _counted(
    paths: Sequence[np.ndarray], targets: Sequence[_Targets]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(node, token, how many rows want it there), each pair of node and token once, in order."""
    node = np.concatenate([path[place] for path, (place, _) in zip(paths, targets, strict=True)])
    token = np.concatenate([token for _, token in targets])
    pairs, weight = np.unique(node << 32 | token, return_counts=True)
    return pairs >> 32, pairs & 0xFFFFFFFF, weight.astype(np.int64)
