"""Molecules out of files, folders, globs or standard input, as one sequence of rows that can be cut into ranges.

>>> with open_source("library/*.csv.gz", smiles_column="structure") as source:      # doctest: +SKIP
...     plan = source.scan(shard_rows=1_000_000)
...     for chunk in source.read(plan.ranges[3]):
...         chunk.smiles, chunk.id, chunk.extra
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from molcmim.readers import CHUNK_ROWS, Chunk, MoleculeReader
from molcmim.readers_columns import HEADERS, Column, listed
from molcmim.readers_lines import is_regular
from molcmim.scoring.formats_names import SUFFIXES, expand, format_of
from molcmim.scoring.formats_parquet import ParquetReader
from molcmim.scoring.formats_sdf import SdfReader, data_fields

STEP_ROWS = 1 << 16  #: most rows between two reports of progress
HASH_BYTES = 1 << 20

Progress = Callable[[int, int], None]  #: called with bytes read so far (as on disk) and rows so far


class RowRange(NamedTuple):
    """Consecutive rows of one input; `RowRange(*json.loads(json.dumps(range)))` is the same range again."""

    first: int  #: number of its first row in the whole input, from 0
    n: int  #: rows
    file: int  #: number of the file in which it begins
    row: int  #: its first row within that file
    offset: int | None  #: byte at which that row begins in a plain text file; None: count rows from the beginning


class FileFacts(NamedTuple):
    """One file of an input."""

    name: str  #: as given or found
    size: int  #: bytes, as on disk
    sha256: str  #: of those bytes
    n_rows: int


class Scan(NamedTuple):
    """What one pass over an input found."""

    files: list[FileFacts]
    n_rows: int
    ranges: list[RowRange]  #: all rows, in order, each `shard_rows` long but the last
    sha256: str  #: of the files' sha256s, in order, a line each


class RowReader(Protocol):
    """What a reader of one file can do; see `molcmim.readers.MoleculeReader`."""

    columns: list[str]  #: what the files of one input must have in common
    extra: list[str]
    n_surplus: int

    @property
    def position(self) -> int: ...
    @property
    def offset(self) -> int | None: ...
    def seek(self, offset: int) -> None: ...
    def skip(self, n: int) -> int: ...
    def take(self, n: int) -> Chunk: ...
    def close(self) -> None: ...


class _Settings(NamedTuple):
    format: str
    smiles_column: Column
    id_column: Column
    header: str
    fields: list[str] | None = None  # of SDF: data fields of all files


class _Kept(NamedTuple):
    """An open reader, where a read left it."""

    file: int
    row: int
    reader: RowReader


class _Digest:
    """A sha256 that counts its bytes."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.n_bytes = 0

    def update(self, data: Any) -> None:
        self._sha256.update(data)
        self.n_bytes += len(data)

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


class Source:
    """Rows of one or several files, in order. Made by `open_source`; use as a context manager, or `close` it.

    It may be sent to other processes (pickled), unless it is standard input or a pipe.

    Attributes
    ----------
    paths
        The files, in order; standard input is ``Path("-")``.
    format
        ``"smi"``, ``"csv"``, ``"tsv"``, ``"parquet"`` or ``"sdf"``.
    extra
        Pass-through columns, in order: name, and Arrow type: the text ``"string"``, or with Parquet the
        `pyarrow.DataType` of the column. See `arrow_fields`.
    n_surplus
        Rows read so far that had more fields than there are columns; what was over is not in the chunks.
    seekable
        False for standard input and pipes, which can be read once, from beginning to end, and not scanned.
    size
        Bytes of all files, as on disk; None where not seekable.
    """

    def __init__(self, paths: Sequence[Path], settings: _Settings) -> None:
        self.paths, self.format, self._settings = list(paths), settings.format, settings
        self.n_surplus = 0
        self.seekable = all(is_regular(str(path)) for path in self.paths)
        names = [str(path) for path in self.paths]
        if not self.seekable and len(names) > 1:
            raise ValueError(f"inputs: expected standard input or a pipe by itself, got {listed(names)}")
        if not self.seekable and self.format == "parquet":
            raise ValueError(f"{names[0]}: expected a file for Parquet, got standard input or a pipe")
        self._sizes = [path.stat().st_size for path in self.paths] if self.seekable else []
        self.size = sum(self._sizes) if self.seekable else None
        if self.format == "sdf" and self.seekable:
            self._settings = settings._replace(fields=data_fields(names))
        first = _open_reader(names[0], self._settings)
        self.extra = list(zip(first.extra, _types(first), strict=True))
        self._columns = first.columns
        self._kept: _Kept | None = _Kept(0, 0, first)  # where the last read ended
        self._position = 0
        self._was_read = False
        for i in range(1, len(names)):
            self._open(i).close()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        if not self.seekable:
            raise TypeError("a Source of standard input or a pipe can't be sent to another process")
        return self.__dict__ | {"_kept": None}

    @property
    def position(self) -> int:
        """Bytes of all files, as on disk, up to the end of the last chunk; roughly, since files are read in blocks."""
        return self._position

    def close(self) -> None:
        """Close the file that is open. Files may still be read."""
        self._keep(None)

    def arrow_fields(self) -> list[Any]:
        """`pyarrow.Field` of each pass-through column."""
        import pyarrow as pa

        return [pa.field(name, pa.string() if kind == "string" else kind) for name, kind in self.extra]

    def scan(self, shard_rows: int, progress: Progress | None = None) -> Scan:
        """Count and hash everything in one pass and cut it into ranges of `shard_rows` rows, in flat memory.

        Of Parquet rows are not read, but counted from the footers.

        Raises
        ------
        ValueError
            If `shard_rows` is below 1, the input isn't seekable, or a file is damaged.
        OSError
            If a file can't be read.
        """
        if shard_rows < 1:
            raise ValueError(f"shard_rows: expected at least 1, got {shard_rows}")
        if not self.seekable:
            raise ValueError(f"{self.paths[0]}: expected files, which can be read twice, got standard input or a pipe")
        files: list[FileFacts] = []
        ranges: list[RowRange] = []
        n_rows = n_bytes = 0
        for i, path in enumerate(self.paths):
            digest = _Digest()
            reader = self._open(i, digest)
            row = 0
            try:
                while True:
                    held = n_rows % shard_rows  # rows of the range that isn't full yet
                    begin = RowRange(n_rows, 0, i, row, reader.offset)
                    skipped = reader.skip(min(shard_rows - held, STEP_ROWS))
                    if not skipped:
                        break
                    if held == 0:
                        ranges.append(begin)
                    ranges[-1] = ranges[-1]._replace(n=held + skipped)
                    row, n_rows = row + skipped, n_rows + skipped
                    if progress is not None:
                        progress(n_bytes + reader.position, n_rows)
            finally:
                reader.close()
            _hash_rest(path, digest)
            files.append(FileFacts(str(path), digest.n_bytes, digest.hexdigest(), row))
            n_bytes += digest.n_bytes
            if progress is not None:
                progress(n_bytes, n_rows)
        together = "".join(file.sha256 + "\n" for file in files)
        return Scan(files, n_rows, ranges, hashlib.sha256(together.encode("ascii")).hexdigest())

    def read(self, range: RowRange | None = None, chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Exactly the rows of `range` (None: all), in order, in chunks of at most `chunk_rows`.

        A chunk never holds rows of two files. With SDF `Chunk.smiles` holds `molcmim.chem.MolBlock` texts: give
        them to `WorkerPool` or `prepare_many` as they are, and what comes back to `molcmim.readers.with_smiles`,
        which puts the SMILES in their place. With Parquet the columns of `Chunk.extra` are Arrow arrays.

        Ranges that are read one after another, in order, are read in one pass, also from compressed files.

        Raises
        ------
        ValueError
            If the files have not the rows of `range`, a file is damaged, or standard input is read again.
        OSError
            If a file can't be read.
        """
        if chunk_rows < 1:
            raise ValueError(f"chunk_rows: expected at least 1, got {chunk_rows}")
        if range is not None and not (0 <= range.file < len(self.paths) and range.n >= 0 and range.row >= 0):
            raise ValueError(f"range: expected rows of {len(self.paths)} files, got {range}")
        if not self.seekable:
            if range is not None or self._was_read:
                raise ValueError(f"{self.paths[0]}: standard input or a pipe can only be read once, and as a whole")
            self._was_read = True
        return self._read(range, chunk_rows)

    def _read(self, range: RowRange | None, chunk_rows: int) -> Iterator[Chunk]:
        file, row, offset = (range.file, range.row, range.offset) if range else (0, 0, None)
        left = range.n if range else sys.maxsize
        while left:
            reader = self._at(file, row, offset)
            usable = False  # to go on with later; not at the end of a file, nor after an error
            try:
                while left:
                    usable, surplus = False, reader.n_surplus
                    chunk = reader.take(min(chunk_rows, left))
                    if not chunk.smiles:
                        break
                    usable = True
                    self.n_surplus += reader.n_surplus - surplus
                    row, left = row + len(chunk.smiles), left - len(chunk.smiles)
                    self._position = sum(self._sizes[:file]) + reader.position
                    yield chunk
            finally:  # also if the caller stops early
                if usable:
                    self._keep(_Kept(file, row, reader))
                else:
                    reader.close()
            if not left:
                break
            file, row, offset = file + 1, 0, None
            if file == len(self.paths):
                if range is not None:
                    raise ValueError(f"range: expected {range.n} rows from row {range.first} on, got {range.n - left}")
                break

    def _at(self, file: int, row: int, offset: int | None) -> RowReader:
        """A reader of a file that goes on with a row: the one kept from the last read, if it isn't beyond."""
        kept, self._kept = self._kept, None
        if kept is not None and kept.file == file and (kept.row == row or (kept.row < row and offset is None)):
            reader, at = kept.reader, kept.row
        else:
            if kept is not None:
                kept.reader.close()
            reader, at = self._open(file), 0
        try:
            if offset is not None and at != row:
                reader.seek(offset)
            elif (skipped := reader.skip(row - at)) < row - at:
                raise ValueError(f"{self.paths[file]}: expected a row {row}, got only {at + skipped} rows")
        except BaseException:
            reader.close()
            raise
        return reader

    def _keep(self, kept: _Kept | None) -> None:
        if self._kept is not None:
            self._kept.reader.close()
        self._kept = kept

    def _open(self, i: int, digest: Any = None) -> RowReader:
        """A reader of file number `i`, whose columns are those of the first file."""
        reader = _open_reader(str(self.paths[i]), self._settings, digest)
        if reader.columns != self._columns:
            reader.close()
            raise ValueError(
                f"{self.paths[i]}: expected the columns of {self.paths[0]}, {listed(self._columns)}, "
                f"got {listed(reader.columns)}"
            )
        return reader


def open_source(
    inputs: str | Path | Sequence[str | Path],
    smiles_column: str | int | None = None,
    id_column: str | int | None = None,
    format: str | None = None,
    header: str = "auto",
) -> Source:
    """Open molecules from files, folders, globs or standard input (``-``), in the order given.

    Parameters
    ----------
    inputs
        One or several of: a file; a folder (its files with a known ending, by name; hidden ones and ``*.part``
        left out; with `format` only the files of that format); a glob (by name); ``-``.
    smiles_column, id_column
        Name of a column, or its position (1 or ``"1"`` is the first column) if none is called so. Defaults:
        the first of `molcmim.corpus_input.COLUMNS` that there is, and ``id`` if there is one, in any case. SDF:
        the id is the title line, or the data field `id_column`.
    format
        ``"smi"``, ``"csv"``, ``"tsv"``, ``"parquet"`` or ``"sdf"``; default: by the file names, and ``"smi"``
        for standard input.
    header
        Of tables: ``"yes"``, ``"no"`` (columns are called c1, c2, ...), or ``"auto"``: no header if the first
        line has no known column name, and a SMILES in a column that has one in the next lines too. A .smi file
        has a header (a line to leave out) only with ``"yes"``.

    Raises
    ------
    FileNotFoundError, OSError
        If there is no such file, or it can't be read.
    ValueError
        If a file's type isn't known, a column isn't there, files differ in format or columns, or one is given twice.
    """
    if format is not None and format not in SUFFIXES.values():
        raise ValueError(f"format: expected one of {', '.join(sorted(set(SUFFIXES.values())))}, got {format!r}")
    if header not in HEADERS:
        raise ValueError(f"header: expected one of {', '.join(HEADERS)}, got {header!r}")
    given = [inputs] if isinstance(inputs, str | Path) else inputs
    paths = [path for item in given for path in expand(os.fspath(item), format)]
    if not paths:
        raise ValueError("inputs: expected at least one file, got none")
    seen: dict[str, Path] = {}
    for path in paths:
        if (before := seen.setdefault(os.path.realpath(path), path)) is not path:
            raise ValueError(f"inputs: {path} is given twice" + (f", also as {before}" if before != path else ""))
    formats = [format or format_of(path) for path in paths]
    for path, found in zip(paths, formats, strict=True):
        if found != formats[0]:
            raise ValueError(f"inputs: expected one format, got {formats[0]} ({paths[0]}) and {found} ({path})")
    if formats[0] == "sdf" and smiles_column is not None:
        raise ValueError(f"smiles_column: expected none for SDF, which holds mol blocks, got {smiles_column!r}")
    return Source(paths, _Settings(formats[0], smiles_column, id_column, header))


def _open_reader(name: str, settings: _Settings, digest: Any = None) -> RowReader:
    columns = (settings.smiles_column, settings.id_column)
    if settings.format == "parquet":
        return ParquetReader(name, *columns)
    if settings.format == "sdf":
        return SdfReader(name, settings.id_column, settings.fields, digest)
    return MoleculeReader(name, *columns, settings.format, header=settings.header, digest=digest)


def _types(reader: RowReader) -> list[Any]:
    return reader.types if isinstance(reader, ParquetReader) else ["string"] * len(reader.extra)


def _hash_rest(path: Path, digest: _Digest) -> None:
    """Feed the bytes of a file that its reader didn't read into the digest."""
    with path.open("rb") as file:
        file.seek(digest.n_bytes)
        while block := file.read(HASH_BYTES):
            digest.update(block)
