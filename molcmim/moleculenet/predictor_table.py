"""Files of predictions: .csv, .tsv or .parquet, chunk by chunk, written beside and renamed.

Columns: `id`, the pass-through columns, `smiles` (as given), `canonical_smiles`, `status`; for each target its
prediction, called like the target, with `..._low` and `..._high` (regression) or `..._probability` (classification);
then `log_prob`, `nearest_distance`, `nearest_smiles` and `in_domain`. Cells of rows that aren't `ok` are empty.
Names that occur twice: a target whose columns are called like others becomes `predicted_...`, a pass-through column
`input_...`; with a number where even that is taken.

Text files have numbers to six significant digits (the embedding's last digits depend on the batch anyway), Parquet
has all of them, and facts about the predictor in its footer.
"""

# Axes: n rows of a chunk, t targets.

from __future__ import annotations

import csv
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from molcmim.chem import Status
from molcmim.moleculenet.types import REGRESSION
from molcmim.readers import Chunk, MoleculeReader

if TYPE_CHECKING:
    from molcmim.cli_run import Summary
    from molcmim.moleculenet.predictor import Predictions, Predictor

SUFFIXES = (".csv", ".tsv", ".parquet")
FIRST = ("id", "smiles", "canonical_smiles", "status")
LAST = ("log_prob", "nearest_distance", "nearest_smiles", "in_domain")
PANDAS: Mapping[str, str] = {"text": "object", "number": "float64", "class": "Int64", "flag": "boolean"}


class Column(NamedTuple):
    """One column of the output."""

    name: str
    type: str  #: ``text``, ``number``, ``class`` or ``flag``
    cells: list[Any]  #: n; None where there is nothing


def target_names(targets: Sequence[str], task: str) -> list[tuple[str, ...]]:
    """Names of each target's columns: (value, low, high), or (class, probability); all different.

    >>> target_names(["y", "smiles"], "classification")
    [('y', 'y_probability'), ('predicted_smiles', 'predicted_smiles_probability')]
    """
    endings = ("", "_low", "_high") if task == REGRESSION else ("", "_probability")
    taken = {*FIRST, *LAST, "embedding"}  # the last one: readers rename a column that is called so
    result = []
    for target in targets:
        base, number = target, 1
        while taken & {base + ending for ending in endings}:
            base = f"predicted_{target}" if number == 1 else f"predicted_{target}_{number}"
            number += 1
        names = tuple(base + ending for ending in endings)
        taken.update(names)
        result.append(names)
    return result


def extra_names(extra: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Names of the pass-through columns, those that are `taken` renamed as `MoleculeReader` does.

    >>> extra_names(["y", "source"], ["y"])
    ['input_y', 'source']
    """
    used = {*taken}
    free = {name for name in extra if name not in used}  # these keep their names, whatever comes before them
    result = []
    for name in extra:
        new, number = name, 2
        if name in used:
            new = f"input_{name}"
            while new in used or new in free:
                new, number = f"input_{name}_{number}", number + 1
        used.add(new)
        result.append(new)
    return result


def prediction_columns(predictions: Predictions) -> list[Column]:
    """The columns from `canonical_smiles` on."""
    ok = [status is Status.ok for status in predictions.status]
    columns = [
        Column("canonical_smiles", "text", predictions.canonical_smiles),
        Column("status", "text", [status.value for status in predictions.status]),
    ]
    for k, names in enumerate(target_names(predictions.targets, predictions.task)):
        second = ("low", "high") if predictions.task == REGRESSION else ("probability",)
        arrays = [getattr(predictions, part)[:, k] for part in ("value", *second)]
        for name, array in zip(names, arrays, strict=True):
            is_class = predictions.task != REGRESSION and name == names[0]
            cells = _cells(array)
            if is_class:
                cells = [None if cell is None else int(cell) for cell in cells]
            columns.append(Column(name, "class" if is_class else "number", cells))
    inside = [flag if known else None for flag, known in zip(predictions.in_domain.tolist(), ok, strict=True)]
    return [
        *columns,
        Column("log_prob", "number", _cells(predictions.log_prob)),
        Column("nearest_distance", "number", _cells(predictions.nearest_distance)),
        Column("nearest_smiles", "text", predictions.nearest_smiles),
        Column("in_domain", "flag", inside),
    ]


def _cells(numbers: Any) -> list[float | None]:
    return [None if np.isnan(number) else number for number in numbers.tolist()]


class PredictionWriter:
    """Takes chunks, makes one file. Use as a context manager: only a block that ends without error leaves a file.

    Parameters
    ----------
    path
        ``*.csv``, ``*.tsv`` or ``*.parquet``; an existing file is replaced.
    extra
        Names of the pass-through columns.
    targets, task
        Of the predictor.
    facts
        For the footer of a Parquet file.

    Raises
    ------
    ValueError
        If the name has another ending.
    OSError
        If the directory doesn't exist or can't be written to.
    """

    def __init__(
        self, path: Path, extra: Sequence[str], targets: Sequence[str], task: str, facts: Mapping[str, str]
    ) -> None:
        check_suffix(path)
        self.path = path
        self.part = path.with_name(f".{path.name}.{os.getpid()}.part")
        predicted = [name for names in target_names(targets, task) for name in names]
        self.extra = extra_names(extra, [*FIRST, *predicted, *LAST])
        self.header = ["id", *self.extra, "smiles", "canonical_smiles", "status", *predicted, *LAST]
        number = ["number"] * len(predicted)
        if task != REGRESSION:
            number[::2] = ["class"] * len(targets)
        self.types = [*["text"] * (4 + len(self.extra)), *number, "number", "number", "text", "flag"]
        self.facts = dict(facts)
        self._parquet: Any = None
        self._file: Any = None

    def __enter__(self) -> PredictionWriter:
        try:
            if self.path.suffix.lower() == ".parquet":
                self._open_parquet()
            else:
                self._file = self.part.open("w", encoding="utf-8", newline="")
                delimiter = "," if self.path.suffix.lower() == ".csv" else "\t"
                self._csv = csv.writer(self._file, delimiter=delimiter, lineterminator="\n")
                self._csv.writerow(self.header)
        except BaseException:  # Ctrl-C as well
            self.part.unlink(missing_ok=True)
            raise
        return self

    def _open_parquet(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {"text": pa.string(), "number": pa.float64(), "class": pa.int8(), "flag": pa.bool_()}
        fields = [(name, types[kind]) for name, kind in zip(self.header, self.types, strict=True)]
        metadata = {f"molcmim.{name}": value for name, value in self.facts.items()}
        self._schema = pa.schema(fields, metadata=metadata)
        self._parquet = pq.ParquetWriter(self.part, self._schema, compression="zstd", use_dictionary=["status"])

    def write(self, chunk: Chunk, predictions: Predictions) -> None:
        """Append rows: the input's columns, and what was predicted for them."""
        columns = [column.cells for column in prediction_columns(predictions)]
        table: list[list[Any]] = [chunk.id, *chunk.extra, chunk.smiles, *columns]
        if self._parquet is not None:
            import pyarrow as pa

            arrays = [pa.array(cells, kind.type) for cells, kind in zip(table, self._schema, strict=True)]
            self._parquet.write_table(pa.table(arrays, schema=self._schema))
            return
        texts = [_as_text(cells, kind) for cells, kind in zip(table, self.types, strict=True)]
        self._csv.writerows(zip(*texts, strict=True))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            (self._file if self._parquet is None else self._parquet).close()
            if kind is None:
                self.part.replace(self.path)
        finally:
            self.part.unlink(missing_ok=True)


def _as_text(cells: list[Any], kind: str) -> list[str | None]:
    if kind == "number":
        return [None if cell is None else f"{cell:.6g}" for cell in cells]
    if kind == "flag":
        return [None if cell is None else str(cell).lower() for cell in cells]
    return cells


def check_suffix(path: Path) -> None:
    """ValueError unless predictions can be written to a file of this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"output: expected a file name ending in {', '.join(SUFFIXES)}, got {path.name!r}")


def check_output(reader: MoleculeReader, output: Path) -> None:
    """ValueError or OSError, before any work is done, if `output` can't be the place for the predictions."""
    check_suffix(output)
    if reader.name != "-" and output.exists() and output.samefile(reader.name):
        raise ValueError(f"output: {output} would replace the input")
    if output.is_dir():
        raise IsADirectoryError(f"output: expected a file name, got the directory {output}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"output: no such directory: {output.parent}")


class Outcome(NamedTuple):
    """What `predict_file` did."""

    summary: Summary
    n_inside: int  #: rows inside the domain


def predict_file(
    predictor: Predictor, reader: MoleculeReader, output: Path, batch_size: int = 256, workers: int | None = None
) -> Outcome:
    """Predict all rows of `reader` into `output`; N rows in, N rows out, in order, one chunk in memory.

    An error or Ctrl-C leaves neither `output` nor a temporary file.

    Raises
    ------
    ValueError, OSError
        If the input turns out unreadable or the output unwritable.
    """
    from molcmim.cli_run import Summary, advance, prepared_chunks, progress_bar, terminate_as_interrupt
    from molcmim.rows import tokenize_prepared

    check_output(reader, output)
    limit = predictor.model.network.config.max_tokens
    targets = [target.name for target in predictor.targets]
    statuses: Counter[str] = Counter()
    start, n_rows, n_inside = time.perf_counter(), 0, 0
    with (
        terminate_as_interrupt(),
        PredictionWriter(output, reader.extra, targets, predictor.task, facts_of(predictor)) as writer,
        progress_bar(reader) as bar,
    ):
        for chunk, prepared in prepared_chunks(reader, predictor.policy, workers):
            rows = tokenize_prepared(prepared, predictor.model.tokenizer, limit)
            predictions = predictor.predict_rows(rows, batch_size, n_rows)
            writer.write(chunk, predictions)
            statuses.update(status.value for status in rows.status)
            n_rows += len(chunk.smiles)
            n_inside += int(predictions.in_domain.sum())
            advance(bar, reader, n_rows)
    return Outcome(Summary(n_rows, statuses, time.perf_counter() - start, reader.n_surplus), n_inside)


def facts_of(predictor: Predictor) -> dict[str, str]:
    """What a file of predictions says about how it was made."""
    from molcmim.cli_run import facts_of as facts_of_model

    facts = facts_of_model(predictor.model, predictor.kind, predictor.policy, False, "float32")
    for name in ("exact", "dtype"):
        del facts[name]
    return {
        **facts,
        "head": predictor.head,
        "task": predictor.task,
        "coverage": str(predictor.coverage),
        "training_table": predictor.training.name,
        "training_sha256": predictor.training.sha256,
    }
