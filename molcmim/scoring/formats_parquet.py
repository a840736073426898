"""Parquet: row group by row group, in batches, with the types of the pass-through columns kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from molcmim.readers import CHUNK_ROWS, Chunk
from molcmim.readers_columns import Column, find_columns

if TYPE_CHECKING:
    import pyarrow as pa

BUFFER_BYTES = 1 << 20  #: a column of a row group is read in pieces of this, so that its size doesn't matter


class ParquetReader:
    """Rows of one Parquet file. Close it when done.

    Parameters
    ----------
    path
        The file.
    smiles_column, id_column
        As for `molcmim.readers.MoleculeReader`. The SMILES are texts or bytes; an id of another type becomes text.

    Attributes
    ----------
    columns
        Names of all columns, with the types of those that pass through.
    extra, types
        Names of the pass-through columns, as for `molcmim.readers.MoleculeReader`, and their Arrow types.
    n_rows
        Rows of the file.

    Raises
    ------
    OSError
        If the file can't be read.
    ValueError
        If it isn't a Parquet file, is damaged, or a column isn't there or has no fitting type.
    """

    offset = None  # there is no such thing in a Parquet file
    n_surplus = 0

    def __init__(self, path: str | os.PathLike[str], smiles_column: Column = None, id_column: Column = None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.name = os.fspath(path)
        self._file: Any = None
        try:
            self._source = open(self.name, "rb")  # noqa: SIM115  closed by close()
            self._file = pq.ParquetFile(self._source, buffer_size=BUFFER_BYTES, pre_buffer=False)
            schema = self._file.schema_arrow
            columns = find_columns(self.name, schema.names, smiles_column, id_column)
            self._smiles_at, self._id_at, self._extra_at, self.extra = columns
            kinds = [f" {kind}" if i in self._extra_at else "" for i, kind in enumerate(schema.types)]
            self.columns = [name + kind for name, kind in zip(schema.names, kinds, strict=True)]
            self.types = [schema.types[i] for i in self._extra_at]
            self._check_type(schema, self._smiles_at, "SMILES", _is_text)
            if self._id_at is not None:
                self._check_type(schema, self._id_at, "id", lambda kind: not pa.types.is_nested(kind))
        except (pa.ArrowException, OSError) as error:
            self.close()
            if isinstance(error, OSError) and error.errno is not None:  # from the system
                raise
            raise ValueError(f"{self.name}: not a Parquet file, or a damaged one: {error}") from error
        except BaseException:
            self.close()
            raise
        groups = self._file.metadata
        self._group_rows = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        self.n_rows: int = sum(self._group_rows)
        self._row = 0  # the next to be given
        self._batch: pa.RecordBatch | None = None
        self._batch_row = self._stream_row = 0  # first row of the batch; of what the stream gives next
        self._stream: Iterator[pa.RecordBatch] | None = None

    def _check_type(self, schema: Any, at: int, what: str, fits: Any) -> None:
        kind = schema.types[at]
        if not fits(kind):
            raise ValueError(f"{self.name}: expected text in the {what} column {schema.names[at]!r}, got {kind}")

    def close(self) -> None:
        """Close the file."""
        self._stream = self._batch = None
        if self._file is not None:
            self._file.close()
        if hasattr(self, "_source"):
            self._source.close()

    @property
    def position(self) -> int:
        """Bytes of the file read so far, estimated from the rows."""
        size = os.fstat(self._source.fileno()).st_size if not self._source.closed else 0
        return size * self._row // max(1, self.n_rows)

    def seek(self, offset: int) -> None:
        """A Parquet file has no offsets: ValueError."""
        raise ValueError(f"{self.name}: expected no byte offset for a Parquet file, got {offset}")

    def skip(self, n: int) -> int:
        """Leave out up to `n` rows; how many there were. Nothing is read."""
        n = max(0, min(n, self.n_rows - self._row))
        self._row += n
        return n

    def take(self, n: int) -> Chunk:
        """The next rows, at most `n`; fewer at the end of a batch, none at the end of the file."""
        import pyarrow as pa

        if n < 1 or self._row >= self.n_rows:
            return Chunk([], [], [[] for _ in self.extra])
        try:
            batch = self._next_batch(n)
            smiles = [text or "" for text in _texts(batch.column(self._smiles_at))]
            names: list[str | None] = [None] * len(smiles)
            if self._id_at is not None:
                names = _texts(batch.column(self._id_at))
        except (pa.ArrowException, OSError) as error:
            group = self._group_of(self._row)[0]
            raise ValueError(f"{self.name}: row group {group} (row {self._row}) can't be read: {error}") from error
        self._row += len(smiles)
        return Chunk(smiles, names, [batch.column(i) for i in self._extra_at])

    def _next_batch(self, n: int) -> pa.RecordBatch:
        while self._batch is None or not self._batch_row <= self._row < self._batch_row + self._batch.num_rows:
            group, group_row = self._group_of(self._row)
            if self._stream is None or not group_row < self._stream_row <= self._row:  # else go on with the group
                self._stream = self._file.iter_batches(CHUNK_ROWS, row_groups=[group], use_threads=False)
                self._stream_row = group_row
            batch = next(self._stream, None)
            if batch is None:
                raise OSError(f"it ends before the {self._group_rows[group]} rows that the footer promises")
            self._batch_row, self._batch = self._stream_row, batch
            self._stream_row += batch.num_rows
        return self._batch.slice(self._row - self._batch_row, n)

    def _group_of(self, row: int) -> tuple[int, int]:
        """The row group that holds a row, and its first row."""
        first = 0
        for group, n_rows in enumerate(self._group_rows):
            if row < first + n_rows:
                return group, first
            first += n_rows
        return len(self._group_rows), first


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(test(kind) for test in tests) or types.is_null(kind)


def _texts(column: pa.Array) -> list[str | None]:
    """A column as texts; bytes that aren't UTF-8 become replacement characters."""
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not _is_text(column.type):
        column = column.cast(pa.string())
    if not types.is_binary(column.type) and not types.is_large_binary(column.type):
        try:
            return column.to_pylist()
        except UnicodeDecodeError:
            column = column.cast(pa.large_binary())
    return [None if value is None else value.decode("utf-8", "replace") for value in column.to_pylist()]
