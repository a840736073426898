"""Exact nearest neighbours by a scan over all vectors, in constant memory.

A block of rows is compared with all queries by one float32 matrix product. Rounding makes such a product depend on
where in the block a row lies, so it only says which rows can be among the best k: those within the bound of its error.
They are computed again in float64, row by row, and these numbers decide. So the answer is that of a float64
computation of everything, and rows with the same vector have the same number and come in the order of the file.
"""

# Axes: b rows of a block, d features, q queries, k neighbours, p pairs of a row and a query.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.scoring.search_files import Block, EmbeddingFiles, FloatArray, IntArray

METRICS = ("cosine", "euclidean")
QUERY_GROUP = 512  #: queries in one matrix product
PAIRS = 4096  #: pairs computed in float64 at once
SCALE_LIMIT = 1e30  #: squared norms beyond this, or below its inverse, are near the ends of float32
NO_ROW = np.iinfo(np.int64).max  #: number of a neighbour that isn't there

ScoreArray = npt.NDArray[np.float64]


class Nearest(NamedTuple):
    """The nearest rows of each query, best first; row -1 and value NaN where there are fewer than k."""

    rows: IntArray  #: (q, k)
    values: ScoreArray  #: (q, k) cosine similarities, or Euclidean distances


class Best:
    """The best k rows so far of each query.

    Attributes
    ----------
    scores
        (q, k) float64, the higher the better: cosine similarity, or minus the squared Euclidean distance. -inf where
        there is none yet.
    rows
        (q, k); equal scores are in the order of the rows.
    """

    def __init__(self, n_queries: int, k: int) -> None:
        self.scores: ScoreArray = np.full((n_queries, k), -np.inf)
        self.rows: IntArray = np.full((n_queries, k), NO_ROW, dtype=np.int64)

    def add(self, queries: IntArray, rows: IntArray, scores: ScoreArray) -> None:
        """Take in p pairs, each new: numbers of query and row, and their score, all (p,)."""
        if not len(queries):
            return
        k = self.rows.shape[1]
        order = np.argsort(queries, kind="stable")
        changed, starts = np.unique(queries[order], return_index=True)
        for query, picked in zip(changed.tolist(), np.split(order, starts[1:]), strict=True):
            all_scores = np.concatenate([self.scores[query], scores[picked]])
            all_rows = np.concatenate([self.rows[query], rows[picked]])
            first = np.lexsort((all_rows, -all_scores))[:k]
            self.scores[query], self.rows[query] = all_scores[first], all_rows[first]

    def nearest(self, metric: str) -> Nearest:
        """As the answer to a search."""
        none = self.rows == NO_ROW
        values = np.sqrt(np.maximum(-self.scores, 0)) if metric == "euclidean" else self.scores
        return Nearest(np.where(none, -1, self.rows), np.where(none, np.nan, values))


def check_search(k: int, metric: str) -> None:
    """ValueError unless these are options of a search."""
    if metric not in METRICS:
        raise ValueError(f"metric: expected one of {', '.join(METRICS)}, got {metric!r}")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k: expected an integer of at least 1, got {k!r}")


def check_vectors(vectors: npt.ArrayLike, width: int) -> FloatArray:
    """Query vectors as (q, d) float32; ValueError if the shape is another one or they aren't finite."""
    queries = np.asarray(vectors, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != width:
        raise ValueError(f"vectors: expected shape (n, {width}), got {queries.shape}")
    if not np.isfinite(queries).all():
        bad = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
        raise ValueError(f"vectors: expected finite numbers, got others in row {bad}")
    return queries


def nearest(
    files: EmbeddingFiles,
    vectors: npt.ArrayLike,
    k: int = 20,
    metric: str = "cosine",
    exclude: Sequence[str | None] | None = None,
    advance: Callable[[int], object] | None = None,
) -> Nearest:
    """The k rows nearest to each query, exactly.

    Parameters
    ----------
    files
        What to search.
    vectors
        (q, d) queries, finite.
    k
        Rows for each query.
    metric
        ``"cosine"`` (a vector of zeros has similarity 0 to everything) or ``"euclidean"``.
    exclude
        q canonical SMILES: rows with the same one are left out for that query; None leaves out nothing.
    advance
        Called with the number of rows just done.

    Returns
    -------
    Nearest
        Equal values are in the order of the rows.

    Raises
    ------
    ValueError
        If an option is wrong, the queries don't fit the files, or a file is damaged.
    """
    check_search(k, metric)
    queries = check_vectors(vectors, files.width)
    best = Best(len(queries), min(k, max(1, files.n_rows)))
    if not len(queries):
        return best.nearest(metric)
    scan = _Scan(queries, metric, best)
    for block in files.blocks(canonical_smiles=exclude is not None):
        left_out = None if exclude is None else same_molecule(block, exclude)
        if len(block.rows):
            scan.block(block, left_out)
        if advance is not None:
            advance(block.n_read)
    return best.nearest(metric)


def same_molecule(block: Block, exclude: Sequence[str | None]) -> tuple[IntArray, IntArray]:
    """Pairs (place in the block, query) whose canonical SMILES are the same: two arrays (p,)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    of_text: dict[str, list[int]] = {}
    for query, text in enumerate(exclude):
        if text is not None:
            of_text.setdefault(text, []).append(query)
    if not of_text:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    texts: Any = block.canonical_smiles
    number = pc.index_in(texts, value_set=pa.array(list(of_text), texts.type))
    places = np.flatnonzero(np.asarray(number.is_valid()))
    found = [of_text[text] for text in texts.take(places).to_pylist()]
    rows = np.repeat(places, [len(queries) for queries in found])
    return rows, np.array([query for queries in found for query in queries], dtype=np.int64)


class _Scan:
    """Compares blocks with the queries and keeps the best."""

    def __init__(self, queries: FloatArray, metric: str, best: Best) -> None:
        self.cosine, self.best = metric == "cosine", best
        width = queries.shape[1]
        self.error = 2 * (width + 8) * 2.0**-24  # of a float32 product of unit vectors, norms included, with reserve
        self.exact = unit_rows(queries.astype(np.float64)) if self.cosine else queries.astype(np.float64)
        self.queries = np.ascontiguousarray(self.exact, dtype=np.float32)  # (q, d)
        self.norms = np.sqrt((self.exact**2).sum(axis=1))  # (q,)

    def block(self, block: Block, left_out: tuple[IntArray, IntArray] | None) -> None:
        """Take in a block, without the pairs (place, query) that are to be left out."""
        x = block.vectors
        squares = np.einsum("ij,ij->i", x, x)  # (b,)
        if not squares.min() > 1 / SCALE_LIMIT or not squares.max() < SCALE_LIMIT:
            x, squares = self._rescaled(block, squares)
        longest = float(np.sqrt(squares.max()))
        for start in range(0, len(self.queries), QUERY_GROUP):
            part = slice(start, start + QUERY_GROUP)
            scores = x @ self.queries[part].T  # (b, g)
            if self.cosine:
                scores /= np.sqrt(np.maximum(squares, 1e-37))[:, None]
                margin = np.full(scores.shape[1], self.error)
            else:
                scores *= 2
                scores -= squares[:, None]
                scores -= (self.norms[part] ** 2).astype(np.float32)
                margin = self.error * (longest + self.norms[part]) ** 2
            if left_out is not None:
                mine = (left_out[1] >= start) & (left_out[1] < start + QUERY_GROUP)
                scores[left_out[0][mine], left_out[1][mine] - start] = -np.inf
            places, queries = possible(scores, self.best.scores[part, -1], margin, self.best.rows.shape[1])
            self._decide(block, places, queries + start)

    def _rescaled(self, block: Block, squares: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Vectors whose squares float32 can't hold, brought into its range: for the cosine, only directions count."""
        if not self.cosine:
            if not squares.max() < SCALE_LIMIT:
                raise ValueError(f"row {block.rows[squares.argmax()]}: its vector is too long for float32 distances")
            return block.vectors, squares
        x = unit_rows(block.vectors.astype(np.float64)).astype(np.float32)
        return x, np.einsum("ij,ij->i", x, x)

    def _decide(self, block: Block, places: IntArray, queries: IntArray) -> None:
        """Compute pairs (place in the block, query) in float64 and keep the best."""
        scores = np.empty(len(places))
        for start in range(0, len(places), PAIRS):
            some = slice(start, start + PAIRS)
            scores[some] = score_pairs(block.vectors[places[some]], self.exact[queries[some]], self.cosine)
        self.best.add(queries, block.rows[places], scores)


def score_pairs(x: FloatArray, queries: ScoreArray, cosine: bool) -> ScoreArray:
    """Scores in float64 of pairs of rows and queries, both (p, d); queries are of unit norm for the cosine: (p,)."""
    wide = x.astype(np.float64)
    if not cosine:
        return -np.square(wide - queries).sum(axis=1)
    norms = np.sqrt(np.square(wide).sum(axis=1))
    return np.clip((wide * queries).sum(axis=1) / np.where(norms > 0, norms, 1), -1, 1)


def possible(scores: FloatArray, worst: ScoreArray, margin: ScoreArray, k: int) -> tuple[IntArray, IntArray]:
    """Pairs that can be among the best k.

    Parameters
    ----------
    scores
        (b, g) of rows and queries, -inf for pairs that are left out, each wrong by at most the query's `margin`.
    worst
        (g,) the best k's worst score so far, -inf if there are fewer than k.
    margin
        (g,)

    Returns
    -------
    (p,) places of rows, (p,) places of queries
    """
    limit = worst - margin
    if len(scores) > k:
        many = np.flatnonzero(np.count_nonzero(scores >= limit.astype(np.float32), axis=0) > 4 * k)
        if len(many):  # the k best of this block alone say more
            kth = np.partition(scores[:, many], len(scores) - k, axis=0)[len(scores) - k]
            limit[many] = np.maximum(limit[many], kth - 2 * margin[many])
    # rounded down: a limit may not rise when it becomes float32
    floor = np.nextafter(limit.astype(np.float32), np.float32(-np.inf))
    places, queries = np.nonzero((scores >= floor) & (scores > -np.inf))
    return places, queries


def unit_rows(x: ScoreArray) -> ScoreArray:
    """Rows divided by their norms, zeros left as they are: (n, d) float64."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    x = x / np.where(largest > 0, largest, 1)  # so that no square overflows or vanishes
    norms = np.sqrt(np.square(x).sum(axis=1, keepdims=True))
    return x / np.where(norms > 0, norms, 1)
