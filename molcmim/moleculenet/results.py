"""The results table: one number a row, in a CSV file that is replaced as a whole after every cell."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from molcmim.beside import written_beside

COLUMNS = (
    "dataset",
    "protocol",
    "features",
    "head",
    "split",
    "task",
    "metric",
    "value",
    "n_train",
    "n_test",
    "n_failed",
    "n_tasks",
    "params",
    "seconds",
    "identity",
    "note",
)
CELL = ("dataset", "protocol", "features", "head")


class ResultsTable:
    """Rows of a results file, by cell (data set, protocol, features, head).

    Parameters
    ----------
    path
        The .csv file; it need not exist yet.

    Raises
    ------
    ValueError
        If the file has other columns.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._cells: dict[tuple[str, ...], list[dict[str, str]]] = {}
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                if tuple(reader.fieldnames or ()) != COLUMNS:
                    raise ValueError(f"{self.path}: expected the columns {', '.join(COLUMNS)}, got {reader.fieldnames}")
                for row in reader:
                    self._cells.setdefault(tuple(row[name] for name in CELL), []).append(row)

    def __len__(self) -> int:
        return sum(map(len, self._cells.values()))

    def __contains__(self, cell: tuple[str, ...]) -> bool:
        return cell in self._cells

    def identity(self, cell: tuple[str, ...]) -> str | None:
        """Identity that the cell was made with; None if it isn't there."""
        rows = self._cells.get(cell)
        return rows[0]["identity"] if rows else None

    def put(self, cell: tuple[str, ...], records: Iterable[Mapping[str, Any]]) -> None:
        """Set the rows of a cell, in place of older ones, and write the file."""
        named = dict(zip(CELL, cell, strict=True))
        self._cells[cell] = [{name: _text({**record, **named}[name]) for name in COLUMNS} for record in records]
        self.save()

    def drop_dataset(self, dataset: str) -> int:
        """Forget all cells of a data set, and write the file; how many there were."""
        cells = [cell for cell in self._cells if cell[0] == dataset]
        for cell in cells:
            del self._cells[cell]
        if cells:
            self.save()
        return len(cells)

    def save(self) -> None:
        """Write the file beside itself and rename it."""
        with written_beside(self.path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            for cell in sorted(self._cells):
                writer.writerows(self._cells[cell])
            file.flush()
            os.fsync(file.fileno())


def _text(value: Any) -> str:
    """A number as the shortest text that gives it back; NaN as nothing."""
    if isinstance(value, float):
        return "" if value != value else repr(float(value))
    return str(value)
