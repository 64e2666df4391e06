"""Nearest neighbours among features, by Euclidean distance in float64."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

QUERIES_PER_BLOCK = 1000  # rows of the distance matrix in memory at a time


def nearest(queries: Tensor, candidates: Tensor, k: int = 1, same: bool = False) -> tuple[Tensor, Tensor]:
    """Distances [N, k] from queries [N, D] to their k nearest of candidates [M, D], nearest first, and their indices.

    `same` means that queries and candidates are one sample, in which no example is its own neighbour.
    """
    blocks = []
    for start, distances in distance_blocks(queries, candidates):
        if same:
            rows = torch.arange(len(distances))
            distances[rows, rows + start] = math.inf
        blocks.append(distances.topk(k, largest=False))
    return torch.cat([block.values for block in blocks]), torch.cat([block.indices for block in blocks])


def distance_blocks(queries: Tensor, candidates: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the distance matrix [N, M] in blocks of rows, each with the index of its first row."""
    candidates = candidates.double()
    for start in range(0, len(queries), QUERIES_PER_BLOCK):
        yield start, torch.cdist(queries[start : start + QUERIES_PER_BLOCK].double(), candidates)
