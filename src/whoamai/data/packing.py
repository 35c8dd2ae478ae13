"""From the Samples of one optimizer step to Packs: rows that begin alike go through the model together.

Rows are pruned (what comes behind a row's last target is never fed), sorted by their ids so that rows
that share a beginning are neighbours, and cut into packs of at most so many nodes. What a step learns
does not depend on where it is cut: the weights of all its packs add up to the targets of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from whoamai.data.prefix_tree import Forest, forest, in_order
from whoamai.samples import Kept, Pack, Sample

SMALLEST_STEP = 128  # tokens; also the block of FlexAttention


def packs_of_step(
    samples: Sequence[Sample],
    *,
    tokens_per_pass: int,
    share: bool = True,
    sizes: Callable[[int], int] | None = None,
    keep: bool = False,
) -> list[Pack]:
    """The rows of a step as packs of at most `tokens_per_pass` nodes, about equally full.

    A row longer than that is a pack alone; a row without a target is left out. Where `share` is False
    no beginning is shared: every row is a tree of its own. `sizes` maps a number of nodes to the length
    that its pack is padded to (see `bucket`); without it nothing is padded. With `keep` a pack tells
    apart what of it is to be kept (Sample.keep).
    """
    rows = _pruned(samples)
    order, shared = in_order([row.fed for row in rows])
    if not share:
        shared = [0] * len(shared)
    rows = [rows[r] for r in order]
    packs = []
    for start, stop in pairwise(_cuts([len(row.fed) for row in rows], shared, tokens_per_pass)):
        some, common = rows[start:stop], [0, *shared[start + 1 : stop]]
        tree = forest([row.fed for row in some], common)
        pack = _pack(tree, some, sizes)
        if keep and any(row.keep for row in some):
            pack = replace(pack, kept=_kept(pack, tree, some, common, sizes))
        packs.append(pack)
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


def whole_blocks(n: int) -> int:
    """The next multiple of SMALLEST_STEP, for layers that no new length makes compile anew."""
    return max(1, -(-n // SMALLEST_STEP)) * SMALLEST_STEP


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """The tokens fed; its targets and the places before them; is it to be kept?"""

    fed: tuple[int, ...]
    place: np.ndarray
    token: np.ndarray
    keep: bool


def _pruned(samples: Sequence[Sample]) -> list[_Row]:
    """The rows that have a target.

    Nothing predicts the first token of a row, so it is no target whatever is said of it.
    """
    rows = []
    for sample in samples:
        if fed := _fed(sample):
            place = np.flatnonzero(sample.is_target[1:])
            token = np.array(sample.input_ids[1 : len(fed) + 1], np.int64)[place]
            rows.append(_Row(fed, place, token, sample.keep))
    return rows


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


def _pack(tree: Forest, rows: Sequence[_Row], sizes: Callable[[int], int] | None) -> Pack:
    """The forest padded to its size, each padding token a tree of its own."""
    import torch  # here, so that the plan of a run needs none of it

    n_nodes = len(tree.ids)
    size = n_nodes if sizes is None else sizes(n_nodes)
    assert size >= n_nodes, f"sizes({n_nodes}) is {size}"
    padding = size - n_nodes
    place, token, weight = _counted(tree.paths, rows)
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
        n_logical=sum(len(row.fed) for row in rows),
    )


def _counted(
    paths: Sequence[np.ndarray], rows: Sequence[_Row]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(node, token, how many rows want it there), each pair of node and token once, in order."""
    node = np.concatenate([path[row.place] for path, row in zip(paths, rows, strict=True)])
    token = np.concatenate([row.token for row in rows])
    pairs, weight = np.unique(node << 32 | token, return_counts=True)
    return pairs >> 32, pairs & 0xFFFFFFFF, weight.astype(np.int64)


def _kept(
    pack: Pack,
    tree: Forest,
    rows: Sequence[_Row],
    shared: Sequence[int],
    sizes: Callable[[int], int] | None,
) -> Kept[Pack]:
    """The rows to keep of a pack with this forest, as a pack of their own.

    Rows stay in order, so two share what all between them share.
    """
    import torch

    kept, common, least = [], [], 0
    for r, row in enumerate(rows):
        least = min(least, shared[r])
        if row.keep:
            kept.append(r)
            common.append(least)
            least = len(row.fed)
    rows = [rows[r] for r in kept]
    alone = forest([row.fed for row in rows], common)
    node = np.empty(len(alone.ids), np.int64)  # of the pack, by node of `alone`
    for path, r in zip(alone.paths, kept, strict=True):
        node[path] = tree.paths[r]
    part = _pack(alone, rows, sizes)
    pairs = pack.place_N.numpy() << 32 | pack.token_N.numpy()
    wanted = node[part.place_N.numpy()] << 32 | part.token_N.numpy()
    return Kept(part, torch.from_numpy(np.searchsorted(pairs, wanted)))
