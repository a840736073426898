"""Molecule files in: .smi, .txt, .csv, .tsv (.gz, .xz) or standard input, in chunks of rows.

No row is lost or shifted, whatever it holds: bytes that aren't UTF-8 become replacement characters (which
makes the row `not_ascii`), a blank line is a row, and a quote that is never closed spoils one row and not
the rest of the file.
"""

# A "row" is a molecule of the output; its number counts from 0.

from __future__ import annotations

import csv
import gzip
import lzma
import os
import sys
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

from molcmim.corpus_input import COLUMNS

FORMATS = {".smi": "smi", ".txt": "smi", ".csv": "csv", ".tsv": "tsv"}
OUTPUT_COLUMNS = ("id", "smiles", "canonical_smiles", "status", "embedding")
BLANKS = " \t\n\r\v\f"  # not every white space of Unicode: a no-break space makes a row `not_ascii`
CHUNK_ROWS = 8192
CHUNK_CHARS = 1 << 26  #: a chunk ends early when its texts have grown to this
QUOTED_LINES = 1000  #: a quoted field of a table that goes on for more lines than this counts as never closed


class Chunk(NamedTuple):
    """Some consecutive rows; every list has one entry a row."""

    smiles: list[str]  #: as given
    id: list[str | None]  #: the name in a .smi file, or the id column; None where there is none
    extra: list[list[str | None]]  #: one list for each pass-through column


class MoleculeReader:
    """Rows of one file, in chunks. Use as a context manager.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    smiles_column, id_column
        Of a table (.csv, .tsv), which has a header line. Defaults: the first of
        `molcmim.corpus_input.COLUMNS` that it has, and ``id`` if it has that (case doesn't matter).
    format
        ``"smi"``, ``"csv"`` or ``"tsv"``; default: by the file's name, and ``"smi"`` for standard input.
    chunk_rows
        Rows in a chunk.

    Attributes
    ----------
    extra
        Names of the pass-through columns, in order. One that is called like a column of the output is renamed
        ``input_...``; of several with one name the later ones get a number.
    n_surplus
        Rows so far that had more fields than the header; what was over is not in the output.
    size
        Bytes of the file (compressed ones as they are on disk); None for standard input.

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
        smiles_column: str | None = None,
        id_column: str | None = None,
        format: str | None = None,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        self.name = os.fspath(path)
        self.chunk_rows = chunk_rows
        self.extra: list[str] = []
        self.n_surplus = 0
        self.size: int | None = None
        self._format = format or guess_format(self.name)
        if self._format not in FORMATS.values():
            raise ValueError(f"format: expected one of {sorted(set(FORMATS.values()))}, got {self._format!r}")
        if self._format == "smi" and (smiles_column or id_column):
            raise ValueError(
                "smiles_column, id_column: expected only for tables (.csv, .tsv); a .smi file has none"
            )
        self._raw, self._file = self._open()
        self._lines = _Lines(self._file, self.name)
        if self._format != "smi":
            self._table = _Table(self._lines, "," if self._format == "csv" else "\t")
            try:
                self._find_columns(smiles_column, id_column)
            except BaseException:
                self.close()
                raise

    def _open(self) -> tuple[IO[bytes], IO[bytes]]:
        if self.name == "-":
            return sys.stdin.buffer, sys.stdin.buffer
        raw = open(self.name, "rb")  # noqa: SIM115  closed by close()
        self.size = os.fstat(raw.fileno()).st_size
        suffix = Path(self.name).suffix.lower()
        if suffix == ".gz":
            return raw, gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
        return raw, lzma.LZMAFile(raw) if suffix == ".xz" else raw

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
        """Bytes of the file read so far."""
        return 0 if self.name == "-" or self._raw.closed else self._raw.tell()

    def _find_columns(self, smiles_column: str | None, id_column: str | None) -> None:
        header = [name.strip() for name in next(self._table, [])]
        lower = [name.lower() for name in header]

        def find(name: str) -> int:
            if name in header:
                return header.index(name)
            if name.lower() in lower:
                return lower.index(name.lower())
            raise ValueError(f"{self.name}: expected a column {name!r}, got the columns {_listed(header)}")

        if smiles_column is not None:
            self._smiles_at = find(smiles_column)
        else:
            found = [lower.index(name) for name in COLUMNS if name in lower]
            if not found:
                raise ValueError(
                    f"{self.name}: expected a column called smiles, got the columns {_listed(header)}; "
                    "name the one with the SMILES (--smiles-column)"
                )
            self._smiles_at = found[0]
        self._id_at = (
            find(id_column) if id_column is not None else lower.index("id") if "id" in lower else None
        )
        if self._id_at == self._smiles_at and id_column is None:
            self._id_at = None
        self._extra_at = [i for i in range(len(header)) if i not in (self._smiles_at, self._id_at)]
        self._n_fields = self._table.n_fields = len(header)
        self.extra = _unique_names([header[i] for i in self._extra_at])

    def chunks(self) -> Iterator[Chunk]:
        """All rows, chunk by chunk."""
        rows = self._smi_rows() if self._format == "smi" else self._table_rows()
        chunk, n_chars = self._empty_chunk(), 0
        for smiles, name, extra in rows:
            chunk.smiles.append(smiles)
            chunk.id.append(name)
            for column, value in zip(chunk.extra, extra, strict=True):
                column.append(value)
                n_chars += len(value or "")
            n_chars += len(smiles)
            if len(chunk.smiles) >= self.chunk_rows or n_chars > CHUNK_CHARS:
                yield chunk
                chunk, n_chars = self._empty_chunk(), 0
        if chunk.smiles:
            yield chunk

    def _empty_chunk(self) -> Chunk:
        return Chunk([], [], [[] for _ in self.extra])

    def _smi_rows(self) -> Iterator[tuple[str, str | None, list[str | None]]]:
        for line in self._lines:
            smiles, name = split_line(line)
            yield smiles, name, []

    def _table_rows(self) -> Iterator[tuple[str, str | None, list[str | None]]]:
        for fields in self._table:
            self.n_surplus += len(fields) > self._n_fields
            values: list[str | None] = [*fields, *[None] * (self._n_fields - len(fields))]
            name = values[self._id_at] if self._id_at is not None else None
            yield values[self._smiles_at] or "", name, [values[i] for i in self._extra_at]


def guess_format(name: str) -> str:
    """``"smi"``, ``"csv"`` or ``"tsv"`` by a file's name; ValueError for any other."""
    if name == "-":
        return "smi"
    path = Path(name)
    inner = Path(path.stem) if path.suffix.lower() in (".gz", ".xz") else path
    if inner.suffix.lower() not in FORMATS:
        raise ValueError(
            f"{name}: expected a file name ending in {', '.join(FORMATS)}, each also with .gz or .xz; "
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


class _Lines:
    """Lines of a binary file as text, without line ends; lines can be pushed back."""

    def __init__(self, file: Iterable[bytes], name: str) -> None:
        self._file, self._name = iter(file), name
        self._waiting: deque[str] = deque()
        self._first = True

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._waiting:
            return self._waiting.popleft()
        try:
            line = next(self._file)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise ValueError(f"{self._name}: damaged or incomplete compressed data: {error}") from error
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")

    def push_back(self, lines: list[str]) -> None:
        self._waiting.extendleft(reversed(lines))


class _Table:
    """Records of a .csv or .tsv file.

    Quoted fields may span lines. A quote that is never closed, or whose record hasn't the header's number
    of fields when it comes to an end some lines later, is plain text: it spoils the row that it is in, and
    hides no others.
    """

    def __init__(self, lines: _Lines, delimiter: str) -> None:
        self._lines, self._delimiter = lines, delimiter
        self.n_fields: int | None = None  #: set when the header is known
        csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, would end the job at one long field

    def __iter__(self) -> _Table:
        return self

    def __next__(self) -> list[str]:
        first = next(self._lines)
        if '"' not in first and "\r" not in first:
            return first.split(self._delimiter)
        used: list[str] = []
        closed = True

        def feed() -> Iterator[str]:
            nonlocal closed
            used.append(first)
            yield first + "\n"
            while len(used) < QUOTED_LINES:  # only asked for while a quote is open
                line = next(self._lines, None)
                if line is None:
                    break
                used.append(line)
                yield line + "\n"
            closed = False

        try:
            record = next(csv.reader(feed(), delimiter=self._delimiter, strict=True), [""])
        except csv.Error:
            closed = False
            record = []
        if closed and (len(used) == 1 or len(record) == (self.n_fields or len(record))):
            return record
        self._lines.push_back(used[1:])
        return first.split(self._delimiter)


def _unique_names(names: list[str]) -> list[str]:
    taken: set[str] = set()
    result = []
    for name in names:
        base = f"input_{name}" if name in OUTPUT_COLUMNS else name or "unnamed"
        new, number = base, 2
        while new in taken or new in OUTPUT_COLUMNS:
            new, number = f"{base}_{number}", number + 1
        taken.add(new)
        result.append(new)
    return result


def _listed(names: list[str], limit: int = 10) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown or "(none)"
