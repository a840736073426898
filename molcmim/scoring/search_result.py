"""The table that a search returns: one row a neighbour, the queries in their order, the nearest first.

Columns, in this order, of a data frame and of a file:

    query             the query's SMILES as given
    query_id          its name; only if one has a name
    status            ok, or the status of a query that can't be embedded: such a one has one row without neighbour
    rank              1 for the nearest; empty without neighbour, and so are all that follow
    id                of the neighbour, and so are all that follow
    smiles            as given
    canonical_smiles
    similarity        cosine; or `distance`, Euclidean
    row               counted from 0, over all files of a folder together
    file              name of the file that holds it

Text files have numbers to six significant digits, Parquet has all of them.
"""

# Axes: n rows.

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molcmim.generated import as_texts, write_beside

VALUE_NAMES = {"cosine": "similarity", "euclidean": "distance"}


@dataclass(frozen=True)
class SearchResult:
    """Neighbours of queries, n rows; the columns are described at the top of this file.

    Attributes
    ----------
    metric
        ``"cosine"`` or ``"euclidean"``.
    query_row
        (n,) number of the query, from 0.
    query, status
        n texts.
    query_id, id, smiles, canonical_smiles, file
        n texts, None where there is none.
    rank
        (n,) int, from 1; 0 for a query without neighbour.
    value
        (n,) float64, similarity or distance; NaN for a query without neighbour.
    row
        (n,) int; -1 for a query without neighbour.

    Raises
    ------
    ValueError
        If the columns differ in length.
    """

    metric: str
    query_row: npt.NDArray[np.int64]
    query: Sequence[str]
    query_id: Sequence[str | None]
    status: Sequence[str]
    rank: npt.NDArray[np.int64]
    id: Sequence[str | None]
    smiles: Sequence[str | None]
    canonical_smiles: Sequence[str | None]
    value: npt.NDArray[np.float64]
    row: npt.NDArray[np.int64]
    file: Sequence[str | None]

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.columns().items()}
        lengths["query_row"] = len(self.query_row)
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns: expected one length, got {lengths}")

    def __len__(self) -> int:
        return len(self.query)

    def columns(self) -> dict[str, Any]:
        """Name -> n values, in the order of a file."""
        names = {"query": self.query}
        ids = {"query_id": self.query_id} if any(name is not None for name in self.query_id) else {}
        found = {"status": self.status, "rank": self.rank, "id": self.id, "smiles": self.smiles}
        value = {"canonical_smiles": self.canonical_smiles, VALUE_NAMES[self.metric]: self.value}
        return {**names, **ids, **found, **value, "row": self.row, "file": self.file}

    def of(self, query: int) -> SearchResult:
        """The rows of one query, by its number from 0."""
        picked = np.flatnonzero(self.query_row == query)
        values: dict[str, Any] = {
            name: column[picked] if isinstance(column, np.ndarray) else [column[i] for i in picked.tolist()]
            for name, column in vars(self).items()
            if name != "metric"
        }
        return SearchResult(metric=self.metric, **values)

    def to_frame(self) -> Any:
        """As a pandas DataFrame; missing ranks and rows are NA. Raises ImportError without pandas."""
        import pandas as pd

        frame = pd.DataFrame(self.columns())
        for name in ("rank", "row"):
            frame[name] = frame[name].astype("Int64").mask(self.rank == 0)
        return frame

    def write(self, path: str | os.PathLike[str], facts: Mapping[str, str] | None = None) -> Path:
        """Write a file, beside and renamed; one that is there is replaced.

        Parameters
        ----------
        path
            ``*.csv``, ``*.tsv`` or ``*.parquet``.
        facts
            For the footer of a Parquet file, as ``molcmim.NAME``.

        Raises
        ------
        ValueError
            If the name has another ending.
        OSError
            If the directory doesn't exist or can't be written to.
        """
        return write_beside(path, lambda part: self._write_parquet(part, facts or {}), self._write_text)

    def _write_text(self, part: Path, delimiter: str) -> None:
        columns = self.columns()
        for name in ("rank", "row"):
            numbers = zip(self.rank.tolist(), columns[name].tolist(), strict=True)
            columns[name] = [str(number) if rank else None for rank, number in numbers]
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(as_texts(values) for values in columns.values()), strict=True))

    def _write_parquet(self, part: Path, facts: Mapping[str, str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        none = self.rank == 0
        arrays = {}
        for name, values in self.columns().items():
            if isinstance(values, np.ndarray):
                arrays[name] = pa.array(values, mask=none)
            else:
                arrays[name] = pa.array(values, pa.string())
        schema = pa.schema(
            [(name, array.type) for name, array in arrays.items()],
            metadata={f"molcmim.{name}": value for name, value in facts.items()},
        )
        pq.write_table(pa.table(arrays, schema=schema), part, compression="zstd")
