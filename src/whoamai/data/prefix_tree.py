"""Rows of token ids as a prefix tree: how much they share, and the tree laid out for one sequence.

Rows that begin alike (one system prompt, one question) need their common beginning computed once. The
nodes of the forest of all rows are the tokens that are computed then. They are counted without
building it: in sorted order a row shares nothing with the rows before it that it does not share with
its neighbour, so it adds its length less the longest common prefix (lcp) with the row before.

    row A  S S S Q1 a a    lcp -    adds 6
    row B  S S S Q1 b b    lcp 4    adds 2
    row C  S S S Q2 c      lcp 3    adds 2     nodes = (6 + 6 + 5) - (0 + 4 + 3) = 10

Rows are compared as bytes, four a token, most significant first: their order is that of the ids, and
the comparing is done in C.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_BYTES = 4  # a token


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of tokens that the same two or more rows share.

    It is ids[start:stop] of row number `row` (one of the rows that share it, as they were given);
    `rows` counts them; `level` counts the shared segments before it on the same rows.
    """

    row: int
    start: int
    stop: int
    rows: int
    level: int

    @property
    def n_tokens(self) -> int:
        return self.stop - self.start

    @property
    def saved(self) -> int:
        """Tokens that need not be computed again."""
        return self.n_tokens * (self.rows - 1)


@dataclass(frozen=True, slots=True)
class TreeStatistics:
    """`tokens` of all `rows`, and `nodes` of their prefix forest: what is computed when shared."""

    rows: int
    tokens: int
    nodes: int

    @property
    def saved(self) -> int:
        return self.tokens - self.nodes

    @property
    def saved_share(self) -> float:
        """Between 0 (nothing is shared) and 1."""
        return self.saved / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """The forest in one sequence, depth first. One entry a node in each of the first three.

    position: the node's depth, which is its place in each row that goes through it.
    subtree_end: one past the last node of the branch below it. Query q sees key k exactly when
        k <= q and q < subtree_end[k].
    last: for each row as given, the node of its last token (-1 for an empty row). The nodes that
        `last[r]` sees are row r.
    """

    ids: tuple[int, ...]
    position: tuple[int, ...]
    subtree_end: tuple[int, ...]
    last: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """The same as arrays, for rows as they stand; paths[r] holds the nodes of row r, first to last."""

    ids: np.ndarray
    position: np.ndarray
    subtree_end: np.ndarray
    paths: tuple[np.ndarray, ...]


def statistics(rows: Iterable[Sequence[int]]) -> TreeStatistics:
    """How many tokens the rows have, and how many nodes their forest.

    >>> statistics([(1, 1, 1, 2, 8, 8), (1, 1, 1, 2, 9, 9), (1, 1, 1, 3, 7)])
    TreeStatistics(rows=3, tokens=17, nodes=10)
    """
    keys = sorted(map(_key, rows))
    return _counted(keys, _common(keys))


def statistics_of_steps(
    rows: Sequence[Sequence[int]], steps: Iterable[Sequence[int]]
) -> TreeStatistics:
    """The same summed over optimizer steps, each a list of row numbers with a forest of its own.

    Rows of different steps share nothing, so this is what training saves; statistics() is the bound.
    """
    counts = [statistics(rows[i] for i in step) for step in steps]
    return TreeStatistics(
        sum(c.rows for c in counts), sum(c.tokens for c in counts), sum(c.nodes for c in counts)
    )


def shared_segments(rows: Sequence[Sequence[int]]) -> list[Segment]:
    """The shared part of the forest, depth first: every segment before those that go on from it.

    What all segments save together is exactly what statistics() says.
    """
    keys, order = _sorted(rows)
    common = [*_common(keys), 0]  # the 0 closes what is open at the end
    found: list[
        tuple[int, int, int, int]
    ] = []  # first and last row of the sorted ones, start, stop
    open_: list[tuple[int, int]] = []  # stop, and the first row that shares it; stops grow
    for i in range(1, len(common)):
        first = i - 1
        while open_ and open_[-1][0] > common[i]:
            stop, first = open_.pop()
            start = max(common[i], open_[-1][0] if open_ else 0)
            found.append((first, i - 1, start, stop))
        if common[i] > (open_[-1][0] if open_ else 0):
            open_.append((common[i], first))
    found.sort(key=lambda f: (f[0], f[2]))
    segments, above = [], list[int]()  # above: last rows of the segments this one hangs below
    for first, last, start, stop in found:
        while above and above[-1] < first:
            above.pop()
        segments.append(Segment(order[first], start, stop, last - first + 1, len(above)))
        above.append(last)
    return segments


def layout(rows: Sequence[Sequence[int]]) -> TreeLayout:
    """The rows' forest depth first; branches in the order of their ids.

    For rows A, B, C above:

        ids          S  S  S  Q1 a  a  b  b  Q2 c
        position     0  1  2  3  4  5  4  5  3  4
        subtree_end 10 10 10  8  6  6  8  8 10 10
    """
    order, shared = in_order(rows)
    tree = forest([rows[r] for r in order], shared)
    last = [-1] * len(rows)
    for r, path in zip(order, tree.paths, strict=True):
        last[r] = int(path[-1]) if path.size else -1
    return TreeLayout(
        tuple(tree.ids.tolist()),
        tuple(tree.position.tolist()),
        tuple(tree.subtree_end.tolist()),
        tuple(last),
    )


def in_order(rows: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """The numbers of the rows in the order of their ids, and what each shares with the one before.

    >>> in_order([(1, 1, 7), (1, 1, 2, 8), (1, 1, 2)])
    ([2, 1, 0], [0, 3, 2])
    """
    keys, order = _sorted(rows)
    return order, _common(keys)


def forest(rows: Sequence[Sequence[int]], shared: Sequence[int]) -> Forest:
    """Rows laid out depth first, row r hanging below the first shared[r] tokens of the row before.

    With what in_order says this is the prefix forest; with zeros each row is a tree of its own.
    """
    n_nodes = sum(map(len, rows)) - sum(shared)
    ids, position, subtree_end = (np.empty(n_nodes, np.int64) for _ in range(3))
    path = np.empty(max(map(len, rows), default=0), np.int64)  # the nodes of the row at hand
    paths: list[np.ndarray] = []
    length = n = 0  # of that row; nodes so far
    for row, common in zip(rows, shared, strict=True):
        subtree_end[path[common:length]] = n  # nothing more hangs below these
        length = len(row)
        stop = n + length - common
        ids[n:stop] = row[common:]
        position[n:stop] = np.arange(common, length)
        path[common:length] = np.arange(n, stop)
        paths.append(path[:length].copy())
        n = stop
    subtree_end[path[:length]] = n
    return Forest(ids, position, subtree_end, tuple(paths))


def _key(row: Sequence[int]) -> bytes:
    return struct.pack(f">{len(row)}I", *row)


def _sorted(rows: Sequence[Sequence[int]]) -> tuple[list[bytes], list[int]]:
    """The rows' keys in order, and the number of the row that each is of."""
    keys = [_key(row) for row in rows]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return [keys[i] for i in order], order


def _common(keys: Sequence[bytes]) -> list[int]:
    """For each key, the tokens it shares with the key before it; 0 for the first."""
    return [_lcp(before, key) for before, key in zip([b"", *keys], keys, strict=False)]


def _lcp(a: bytes, b: bytes) -> int:
    """Tokens that a and b begin with alike, by halving: each comparison is one of C."""
    least, most = 0, min(len(a), len(b)) // _BYTES
    while least < most:
        middle = (least + most + 1) // 2
        if a.startswith(b[: middle * _BYTES]):
            least = middle
        else:
            most = middle - 1
    return least


def _counted(keys: Sequence[bytes], common: Sequence[int]) -> TreeStatistics:
    tokens = sum(map(len, keys)) // _BYTES
    return TreeStatistics(len(keys), tokens, tokens - sum(common))
