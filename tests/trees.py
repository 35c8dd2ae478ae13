"""Random forests for tests, given as the depth of each node in depth-first order."""

from __future__ import annotations

import random

import torch


def random_depths(n: int, seed: int, *, fork: float = 0.1) -> list[int]:
    """Any list that begins with 0 and grows by at most 1 a step is a forest; so is this one."""
    rng, depths = random.Random(seed), list[int]()
    for _ in range(n):
        on = depths[-1] + 1 if depths else 0
        depths.append(rng.randint(0, on) if rng.random() < fork else on)
    return depths


def as_tensors(depths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(subtree_end_T, position_T): a branch ends at the next node that is not deeper."""
    end, open_ = [len(depths)] * len(depths), list[int]()
    for q, depth in enumerate(depths):
        while open_ and depths[open_[-1]] >= depth:
            end[open_.pop()] = q
        open_.append(q)
    return torch.tensor(end), torch.tensor(depths)


def random_forest(n: int, seed: int, *, fork: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """(subtree_end_T, position_T)"""
    return as_tensors(random_depths(n, seed, fork=fork))


def random_qkv(
    n: int, *, heads: int, groups: int, size: int, seed: int, **like
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """query (1 H T D), key and value (1 G T D); float32 on the CPU unless `like` says otherwise."""
    drawn = torch.Generator().manual_seed(seed)
    shapes = [(1, heads, n, size), (1, groups, n, size), (1, groups, n, size)]
    query, key, value = (torch.randn(shape, generator=drawn).to(**like) for shape in shapes)
    return query, key, value
