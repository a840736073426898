"""Where a predictor applies: how far a molecule is from the training set, and how strange to the model.

Two things can go wrong with a prediction, and each has its own number:

- The head has seen nothing like the molecule. The cosine distance in the embedding to the nearest training
  molecule says so: within the training set a molecule has its nearest other one at some distance (leave one out),
  and the 99th percentile of those distances is what the head was judged on.
- The model can't place the molecule, so that its vector means little, near to others or not. The decoder's
  log p(x | z = mu) says so: what the vector holds doesn't suffice to write the molecule down. It is taken per token
  (<eos> counted), because the sum falls with length by nature; the limit is the 1st percentile of the training set.

So by design about 1 % of molecules like the training ones fail each test. `in_domain` is no promise of a small
error, and a molecule outside may be predicted well: it says whether the cross-validated scores apply at all.
"""

# Axes: n molecules asked about, m different training molecules, d features.

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.moleculenet.types import Array, Rows

MAX_MOLECULES = 50_000  #: training molecules kept for distances (100 MB at 512 features); more are drawn from at random
DISTANCE_PERCENTILE, LOG_PROB_PERCENTILE = 99.0, 1.0
BLOCK_ENTRIES = 1 << 24  #: of the distance matrix held at once (64 MB)

FloatArray = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


class Domain(NamedTuple):
    """What is kept of the training molecules."""

    unit: FloatArray  #: (m, d) embeddings of different molecules, of norm 1
    smiles: list[str]  #: m texts: what was embedded
    max_distance: float  #: cosine distance to the nearest training molecule beyond which a molecule is outside
    min_log_prob: float | None  #: nats per token below which it is outside; None: the model has no decoder

    def judge(self, embedding: FloatArray, log_prob_per_token: Array | None) -> tuple[Array, Rows, Flags]:
        """Distance (n,) of embeddings (n, d) to the nearest training molecule, its number (n,), and in_domain (n,)."""
        distance, at = nearest(unit_rows(embedding), self.unit)
        inside = distance <= self.max_distance
        if self.min_log_prob is not None and log_prob_per_token is not None:
            inside &= log_prob_per_token >= self.min_log_prob
        return distance, at, inside


def make_domain(
    embedding: FloatArray,
    smiles: Sequence[str],
    groups: Sequence[Hashable],
    log_prob_per_token: Array | None,
    seed: int = 0,
    max_molecules: int = MAX_MOLECULES,
) -> Domain:
    """The domain of a training set.

    Parameters
    ----------
    embedding
        (n, d) of the training rows.
    smiles
        n texts that were embedded.
    groups
        n keys; of rows with equal ones, which are the same molecule, the first is kept.
    log_prob_per_token
        (n,), or None for a model without decoder.
    seed, max_molecules
        With more different molecules than that, so many of them are drawn at random.
    """
    kept = np.sort(np.unique(np.array([str(group) for group in groups]), return_index=True)[1])
    if len(kept) > max_molecules:
        kept = np.sort(np.random.RandomState(seed).choice(kept, max_molecules, replace=False))
    unit = unit_rows(embedding[kept])
    own = nearest(unit, unit, leave_one_out=True)[0]
    limit = None
    if log_prob_per_token is not None:
        limit = float(np.percentile(log_prob_per_token[kept], LOG_PROB_PERCENTILE))
    return Domain(unit, [smiles[i] for i in kept], float(np.percentile(own, DISTANCE_PERCENTILE)), limit)


def unit_rows(x: FloatArray) -> FloatArray:
    """(n, d) rows divided by their norms."""
    norm = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return (x / np.maximum(norm, 1e-30)).astype(np.float32)


def nearest(unit: FloatArray, others: FloatArray, leave_one_out: bool = False) -> tuple[Array, Rows]:
    """Cosine distance (n,) of rows of norm 1 (n, d) to the nearest of `others` (m, d), and which that is (n,).

    `leave_one_out`: the two are the same rows, and none counts as its own neighbour.
    """
    distance, at = np.empty(len(unit)), np.empty(len(unit), dtype=np.int64)
    for rows in _blocks(len(unit), max(1, BLOCK_ENTRIES // max(1, len(others)))):
        similarity = unit[rows] @ others.T  # (rows, m)
        if leave_one_out:
            similarity[np.arange(len(similarity)), np.arange(rows.start, rows.start + len(similarity))] = -np.inf
        at[rows] = similarity.argmax(axis=1)
        # float32 products are off by about 1e-7, so that a molecule's distance to itself isn't quite 0, or below it
        distance[rows] = np.round(np.maximum(0.0, 1.0 - similarity.max(axis=1).astype(np.float64)), 6)
    return distance, at


def _blocks(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
