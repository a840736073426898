"""SMILES out of text files: .smi, .txt, .csv, .tsv, each also as .gz or .xz, and out of the `molsets` wheel.

Nothing here judges a row: what can't be read comes out as text that `chem.prepare` gives a status to.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

COLUMNS = ("smiles", "canonical_smiles", "smile", "isomeric_smiles", "structure")
MOLSETS_MEMBER = "moses/dataset/data/train.csv.gz"
MOLSETS_HELP = "get it with `pip download molsets==0.3.1 --no-deps`, and give the path of the .whl file"
SUFFIXES = (".smi", ".txt", ".csv", ".tsv")


def read_smiles(path: str | Path, column: str | None = None) -> Iterator[str]:
    """The SMILES of a file, row by row, in order, as written.

    Parameters
    ----------
    path
        A ``.smi`` or ``.txt`` file (first blank-separated field of each line), a ``.csv`` or ``.tsv`` file
        (the column called `column`, else the first of `COLUMNS` that the header has, in any case; a file
        whose first line names no such column has no header, and its first column is taken), any of these with
        ``.gz`` or ``.xz`` added; a `molsets` wheel; or the word ``molsets``, which is the training set of
        MOSES in the installed `molsets` distribution.
    column
        Name of the SMILES column. The file must have a header then.

    Yields
    ------
    str
        Bytes that are not UTF-8 come as surrogates (so `chem.prepare` says ``not_ascii``). A blank line, or a
        CSV row without the column, is ``""``.

    Raises
    ------
    ValueError
        For an unknown file type or a `column` that the header lacks.
    FileNotFoundError
        If there is no such file, or no installed `molsets`.
    """
    path = Path(path)
    if str(path) == "molsets":
        with gzip.open(_installed_molsets()) as raw:
            yield from _csv_rows(_as_text(raw), ",", column)
        return
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            if MOLSETS_MEMBER not in wheel.namelist():
                raise ValueError(f"path: a molsets wheel expected (with {MOLSETS_MEMBER}), got {path}")
            with wheel.open(MOLSETS_MEMBER) as member, gzip.open(member) as raw:
                yield from _csv_rows(_as_text(raw), ",", column)
        return
    suffix = Path(path.stem).suffix.lower() if path.suffix in (".gz", ".xz") else path.suffix.lower()
    if suffix not in SUFFIXES:
        expected = f"{', '.join(SUFFIXES)} (.gz, .xz) or a molsets wheel"
        raise ValueError(f"path: a file of type {expected} expected, got {path.name}")
    with _open_text(path) as lines:
        if suffix in (".csv", ".tsv"):
            yield from _csv_rows(lines, "," if suffix == ".csv" else "\t", column)
        else:
            yield from _line_rows(lines, column)


def _open_text(path: Path) -> io.TextIOWrapper:
    if path.suffix == ".gz":
        return _as_text(gzip.GzipFile(path))
    if path.suffix == ".xz":
        return _as_text(lzma.LZMAFile(path))
    return _as_text(io.FileIO(path))


def _as_text(raw: Any) -> io.TextIOWrapper:
    # newline="\n": a lone carriage return inside a line is dirt in that row, not the end of it
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _line_rows(lines: Iterator[str] | io.TextIOWrapper, column: str | None) -> Iterator[str]:
    position = 0
    for number, line in enumerate(lines):
        fields = line.split(None, position + 1)
        if number == 0:
            names = [name.lower() for name in line.split()]
            if column is not None and column.lower() not in names:
                raise ValueError(f"column: one of {line.split()} expected, got {column!r}")
            wanted = (column.lower(),) if column else COLUMNS
            found = [names.index(name) for name in wanted if name in names]
            if found:
                position = found[0]
                continue
        yield fields[position] if len(fields) > position else ""


def _csv_rows(lines: io.TextIOWrapper, delimiter: str, column: str | None) -> Iterator[str]:
    csv.field_size_limit(1 << 28)  # the default of 128 KiB would end the file at one overlong row
    reader = csv.reader(lines, delimiter=delimiter)
    position, number = 0, -1
    while True:
        number += 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            row = ["unreadable row"]  # a blank inside: parse_error
        if number == 0:
            names = [name.strip().lower() for name in row]
            if column is not None and column.strip().lower() not in names:
                raise ValueError(f"column: one of {row} expected, got {column!r}")
            wanted = (column.strip().lower(),) if column else COLUMNS
            found = [names.index(name) for name in wanted if name in names]
            if found:
                position = found[0]
                continue
        yield row[position] if len(row) > position else ""


def _installed_molsets() -> Path:
    try:
        files = metadata.files("molsets") or []
    except metadata.PackageNotFoundError as error:
        raise FileNotFoundError(f"the molsets package is not installed; {MOLSETS_HELP}") from error
    for file in files:
        if file.as_posix() == MOLSETS_MEMBER:
            return Path(str(file.locate()))
    raise FileNotFoundError(f"the installed molsets package has no {MOLSETS_MEMBER}; {MOLSETS_HELP}")
