"""Length-bucketed, shuffled, resumable batches. NumPy only."""
# B rows of a batch on one rank, n rows of the split

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class EpochPlan(NamedTuple):
    """One rank's batches of an epoch.

    Attributes
    ----------
    rows : ndarray (n_batches, batch_size) int64
        Row indices into the store.
    bucket : ndarray (n_batches,) int64
        Index into `BucketSampler.edges`: pad the batch to that many tokens (one special token included).
    """

    rows: IntArray
    bucket: IntArray


class BucketSampler:
    """Batches of similar length, as a pure function of (seed, epoch).

    Rows are shuffled, sorted by length bucket (stable, so random within a bucket), and cut into global
    batches of ``batch_size * world_size``; the batches are then shuffled across buckets. A batch that begins
    in one bucket and ends in the next is padded to the longer one, so a bucket too small for a batch joins
    the next one by itself. All batches are full: the ``n mod global batch`` rows too many sit out this epoch,
    drawn at random.

    Bucket edges are multiples of `bucket_width`, and their spacing grows to an eighth of the length for long
    rows, to keep the number of different shapes small.

    Resuming in mid-epoch is ``batches(epoch).rows[done:]``, or `stream(epoch, done)`.

    Parameters
    ----------
    lengths : (n,) int
        Tokens of each row without specials; one special token (BOS or EOS) is added before bucketing.
    source : (n,) int
        Index of each row's source.
    weights
        Expected passes per epoch of each source: weight 2.3 gives each row 2 passes and, with probability
        0.3, a third; 0 leaves the source out. None = 1 for all. Above 1, a row may meet itself in a batch
        (rarely).
    batch_size
        Rows of a batch on each rank.
    bucket_width
        Spacing of the padded lengths, in tokens.
    world_size, rank
        Rank r gets rows [r * batch_size, (r + 1) * batch_size) of each global batch: the ranks' batches,
        joined in order, are those of one process with batch_size * world_size.
    max_length
        Leave out rows with more tokens (without specials) than this.

    Raises
    ------
    ValueError
        For arguments out of range, or if the expected rows of an epoch don't fill one global batch.
    """

    def __init__(
        self,
        lengths: npt.ArrayLike,
        source: npt.ArrayLike,
        weights: Sequence[float] | None,
        batch_size: int,
        bucket_width: int = 8,
        seed: int = 0,
        world_size: int = 1,
        rank: int = 0,
        max_length: int | None = None,
    ) -> None:
        lengths, source = np.asarray(lengths, dtype=np.int64), np.asarray(source, dtype=np.int64)
        if lengths.shape != source.shape or lengths.ndim != 1:
            raise ValueError(f"source: shape {lengths.shape} as lengths expected, got {source.shape}")
        sizes = {"batch_size": batch_size, "bucket_width": bucket_width, "world_size": world_size}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name}: at least 1 expected, got {value}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: 0 to {world_size - 1} expected, got {rank}")
        self.batch_size, self.world_size, self.rank, self.seed = batch_size, world_size, rank, seed
        self._passes = _passes_per_row(source, weights)
        if max_length is not None:
            self._passes[lengths > max_length] = 0
        kept = self._passes > 0
        self.n_left_out = int((~kept).sum())
        longest = int(lengths[kept].max(initial=0)) + 1
        self.edges: IntArray = bucket_edges(longest, bucket_width)
        self._bucket = np.searchsorted(self.edges, lengths + 1).astype(np.uint16)
        expected, needed = float(self._passes.sum()), batch_size * world_size
        if expected < needed:
            limit = f"at most {expected:.0f} (expected rows of an epoch)"
            raise ValueError(f"batch_size * world_size: {limit} expected, got {needed}")

    @property
    def expected_batches(self) -> int:
        """About how many batches an epoch has (exactly, if all weights are whole numbers)."""
        return int(self._passes.sum()) // (self.batch_size * self.world_size)

    def batches(self, epoch: int) -> EpochPlan:
        """This rank's batches of an epoch. The same for the same (seed, epoch), whatever was asked before."""
        rng = np.random.default_rng([self.seed, epoch])
        whole = np.floor(self._passes)
        copies = whole.astype(np.int64) + (rng.random(len(self._passes)) < self._passes - whole)
        rows = np.repeat(np.arange(len(copies)), copies)
        rng.shuffle(rows)
        size = self.batch_size * self.world_size
        rows = rows[: len(rows) - len(rows) % size]
        rows = rows[np.argsort(self._bucket[rows], kind="stable")]
        batches = rows.reshape(-1, size)
        batches = batches[rng.permutation(len(batches))]  # (n_batches, global batch)
        bucket = self._bucket[batches].max(axis=1, initial=0).astype(np.int64)
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        return EpochPlan(np.ascontiguousarray(batches[:, mine]), bucket)

    def stream(self, epoch: int = 0, batch: int = 0) -> Iterator[tuple[int, int, IntArray, int]]:
        """Endless ``(epoch, batch, rows (B,), pad_to)``, starting at a given batch of a given epoch.

        `pad_to` is the bucket's length with one special token; `TokenStore.gather` wants ``pad_to - 1``.
        """
        while True:
            plan = self.batches(epoch)
            for number in range(batch, len(plan.rows)):
                yield epoch, number, plan.rows[number], int(self.edges[plan.bucket[number]])
            epoch, batch = epoch + 1, 0


def bucket_edges(longest: int, width: int) -> IntArray:
    """Padded lengths: multiples of `width` up to one that holds `longest`, spaced by an eighth when long.

    >>> bucket_edges(100, 8).tolist()
    [8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104]
    >>> bucket_edges(200, 8).tolist()[-6:]
    [112, 120, 128, 144, 160, 176, 200]
    """
    edges = [width]
    while edges[-1] < longest:
        edges.append(edges[-1] + max(1, edges[-1] // (8 * width)) * width)
    return np.asarray(edges, dtype=np.int64)


def _passes_per_row(source: IntArray, weights: Sequence[float] | None) -> npt.NDArray[np.float64]:
    if weights is None:
        return np.ones(len(source))
    table = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(table).all() and (table >= 0).all()):
        raise ValueError(f"weights: finite numbers from 0 expected, got {list(weights)}")
    if len(source) and int(source.max()) >= len(table):
        raise ValueError(f"weights: one for each of {source.max() + 1} sources expected, got {len(table)}")
    return table[source]
