"""Molecule files in: .smi, .txt, .csv, .tsv (.gz, .xz, .zst) or standard input, in chunks of rows.

No row is lost or shifted, whatever it holds: bytes that aren't UTF-8 become replacement characters (which
makes the row `not_ascii`), a blank line is a row, and a quote that is never closed spoils one row and not
the rest of the file.

Parquet and SDF, several files, and ranges of rows: see `molcmim.scoring.source`.
"""

# A "row" is a molecule of the output; its number counts from 0.

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from molcmim.chem import MolBlock, Prepared, PreparedBlock
from molcmim.readers_columns import (
    HEADERS,
    LOOK_AHEAD,
    OUTPUT_COLUMNS,
    Column,
    find_columns,
    has_header,
    without_header,
)
from molcmim.readers_lines import COMPRESSED, Lines, Table, is_regular, open_binary, text_of

__all__ = ["OUTPUT_COLUMNS", "Chunk", "MoleculeReader", "guess_format", "split_line", "with_smiles"]

FORMATS = {".smi": "smi", ".txt": "smi", ".csv": "csv", ".tsv": "tsv"}
BLANKS = " \t\n\r\v\f"  # not every white space of Unicode: a no-break space makes a row `not_ascii`
CHUNK_ROWS = 8192
CHUNK_CHARS = 1 << 26  #: a chunk ends early when its texts have grown to this


class Chunk(NamedTuple):
    """Some consecutive rows; every list has one entry a row."""

    smiles: list[str]  #: as given; from SDF `molcmim.chem.MolBlock` texts, see `with_smiles`
    id: list[str | None]  #: the name in a .smi file, or the id column; None where there is none
    extra: list[Any]  #: for each pass-through column a list of texts and None, or, from Parquet, an Arrow array


class MoleculeReader:
    """Rows of one file, in chunks. Use as a context manager.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    smiles_column, id_column
        Of a table (.csv, .tsv): the name of a column, or its position (1 or ``"1"`` is the first column) if none
        is called so. Defaults: the first of `molcmim.corpus_input.COLUMNS` that it has, and ``id`` if it has
        that (case doesn't matter).
    format
        ``"smi"``, ``"csv"`` or ``"tsv"``; default: by the file's name, and ``"smi"`` for standard input.
    chunk_rows
        Rows in a chunk.
    header
        Of a table: ``"yes"``, ``"no"`` (columns are called c1, c2, ...), or ``"auto"``: none if the first line
        has no known column name but a SMILES, and so have the next ones in the same column. A .smi file has a
        header (a line to leave out) only with ``"yes"``.
    digest
        An object of `hashlib` that is to be fed all bytes read from the file.

    Attributes
    ----------
    columns
        Names of all columns of a table, in order.
    extra
        Names of the pass-through columns, in order. One that is called like a column of the output is renamed
        ``input_...``; of several with one name the later ones get a number.
    n_surplus
        Rows so far that had more fields than the header; what was over is not in the output.
    size
        Bytes of the file (compressed ones as they are on disk); None for standard input and pipes.

    Raises
    ------
    FileNotFoundError, OSError
        If the file can't be read.
    ValueError
        If its type isn't known, a column isn't there, or compressed data are damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        smiles_column: Column = None,
        id_column: Column = None,
        format: str | None = None,
        chunk_rows: int = CHUNK_ROWS,
        *,
        header: str = "auto",
        digest: Any = None,
    ) -> None:
        self.name = os.fspath(path)
        self.chunk_rows = chunk_rows
        self.columns: list[str] = []
        self.extra: list[str] = []
        self.n_surplus = 0
        self.size: int | None = None
        self._format = format or guess_format(self.name)
        if self._format not in FORMATS.values():
            raise ValueError(f"format: expected one of {sorted(set(FORMATS.values()))}, got {self._format!r}")
        if header not in HEADERS:
            raise ValueError(f"header: expected one of {', '.join(HEADERS)}, got {header!r}")
        if self._format == "smi" and (smiles_column or id_column):
            raise ValueError("smiles_column, id_column: expected only for tables (.csv, .tsv); a .smi file has none")
        self._raw, self._file = open_binary(self.name, digest)
        try:
            regular = is_regular(self.name)
            self.size = os.fstat(self._raw.fileno()).st_size if regular else None
            self._plain = regular and self._raw is self._file
            self._lines = Lines(self._file, self.name)
            if self._format == "smi":
                self._lines.skip(int(header == "yes"))
            else:
                self._table = Table(self._lines, "," if self._format == "csv" else "\t")
                self._read_header(header, smiles_column, id_column)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> MoleculeReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self.name != "-":
            self._file.close()
            self._raw.close()

    @property
    def position(self) -> int:
        """Bytes of the file read so far; 0 where its size isn't known."""
        return 0 if self.size is None or self._raw.closed else self._raw.tell()

    @property
    def offset(self) -> int | None:
        """Byte at which the next row begins, for `seek`; None if the file is compressed, a pipe or the like."""
        return self._lines.offset if self._plain else None

    def seek(self, offset: int) -> None:
        """Go on with the row that begins at byte `offset`; ValueError if the file isn't a plain one."""
        if not self._plain:
            raise ValueError(
                f"{self.name}: expected a plain file to go to byte {offset}, got a compressed one or a pipe"
            )
        self._lines.seek(offset)

    def skip(self, n: int) -> int:
        """Leave out up to `n` rows; how many there were. Several times as fast as reading them."""
        return self._lines.skip(n) if self._format == "smi" else self._table.skip(n)

    def take(self, n: int) -> Chunk:
        """The next rows, at most `n`, fewer if their texts are long; none at the end of the file."""
        chunk, n_chars = Chunk([], [], [[] for _ in self.extra]), 0
        if n < 1:
            return chunk
        rows = self._smi_rows() if self._format == "smi" else self._table_rows()
        for smiles, name, extra in rows:
            chunk.smiles.append(smiles)
            chunk.id.append(name)
            n_chars += len(smiles)
            if extra:
                for column, value in zip(chunk.extra, extra, strict=True):
                    column.append(value)
                    n_chars += len(value or "")
            if len(chunk.smiles) >= n or n_chars > CHUNK_CHARS:
                break
        return chunk

    def chunks(self) -> Iterator[Chunk]:
        """All rows, chunk by chunk."""
        while (chunk := self.take(self.chunk_rows)).smiles:
            yield chunk

    def _read_header(self, header: str, smiles_column: Column, id_column: Column) -> None:
        names = first = next(self._table, [])
        used = self._table.used
        self._n_fields = self._table.n_fields = len(first)
        if first and (header == "no" or (header == "auto" and not has_header(first, [], smiles_column, id_column))):
            following = self._look_ahead()
            if header == "no" or not has_header(first, following, smiles_column, id_column):
                names, smiles_column = without_header(first, following, smiles_column)
                self._lines.push_back(used)
        self.columns = [name.strip() for name in names]
        columns = find_columns(self.name, names, smiles_column, id_column)
        self._smiles_at, self._id_at, self._extra_at, self.extra = columns

    def _look_ahead(self) -> list[list[str]]:
        """The next records, which will come again."""
        records, used = [], []
        for record in islice(self._table, LOOK_AHEAD):
            records.append(record)
            used.extend(self._table.used)
        self._lines.push_back(used)
        return records

    def _smi_rows(self) -> Iterator[tuple[str, str | None, list[str | None]]]:
        for line in self._lines:
            smiles, name = split_line(text_of(line))
            yield smiles, name, []

    def _table_rows(self) -> Iterator[tuple[str, str | None, list[str | None]]]:
        for fields in self._table:
            self.n_surplus += len(fields) > self._n_fields
            values: list[str | None] = [*fields, *[None] * (self._n_fields - len(fields))]
            name = values[self._id_at] if self._id_at is not None else None
            yield values[self._smiles_at] or "", name, [values[i] for i in self._extra_at]


def with_smiles(chunk: Chunk, prepared: Sequence[Prepared]) -> Chunk:
    """The chunk with the SMILES that RDKit wrote in the place of mol blocks, "" for rows that aren't `ok`.

    Chunks that hold SMILES are given back as they are.
    """
    if not any(isinstance(text, MolBlock) for text in chunk.smiles):
        return chunk
    written = [row.smiles if isinstance(row, PreparedBlock) else "" for row in prepared]
    return chunk._replace(smiles=written)


def guess_format(name: str) -> str:
    """``"smi"``, ``"csv"`` or ``"tsv"`` by a file's name; ValueError for any other."""
    if name == "-":
        return "smi"
    path = Path(name)
    inner = Path(path.stem) if path.suffix.lower() in COMPRESSED else path
    if inner.suffix.lower() not in FORMATS:
        raise ValueError(
            f"{name}: expected a file name ending in {', '.join(FORMATS)}, each also with .gz, .xz or .zst; "
            "or give --format"
        )
    return FORMATS[inner.suffix.lower()]


def split_line(line: str) -> tuple[str, str | None]:
    """SMILES and name of a line of a .smi file: what stands before and after the first blank or tab.

    Blanks at the start are left out, but a tab there means that the SMILES is missing. Other white space (a
    stray carriage return) stays where it is: inside a SMILES it is an error in that row.

    >>> split_line("  CCO ethanol, absolute")
    ('CCO', 'ethanol, absolute')
    >>> split_line("\\tethanol")
    ('', 'ethanol')
    """
    text = line.lstrip(" ").rstrip(BLANKS)
    ends = [at for at in (text.find(" "), text.find("\t")) if at >= 0]
    if not ends:
        return text, None
    return text[: min(ends)], text[min(ends) + 1 :].strip(BLANKS) or None
