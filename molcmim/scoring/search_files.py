"""Files of embeddings as one table of vectors, for searches: a Parquet file, or a folder of shards.

Vectors come in blocks of rows, texts only for the rows that are asked for, so that memory stays the same whatever the
number of rows. float16 and int8 vectors (with a column `scale`) become float32 on the way.
"""

# Axes: n rows, m of them with a vector, d features.

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.scoring.int8 import dequantise

if TYPE_CHECKING:
    import pyarrow as pa

SHARDS = "part-*.parquet"  #: the files of a folder that count
TEXTS = ("id", "smiles", "canonical_smiles")
MUST_AGREE = ("fingerprint", "model_id", "kind", "policy", "dtype", "exact", "compute_dtype")  #: between shards
BLOCK_NUMBERS = 1 << 22  #: features in a block of rows, 16 MB as float32
READ_BYTES = 1 << 20  #: read at once of a column, so that a large row group isn't held as a whole

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class Part(NamedTuple):
    """One Parquet file."""

    path: Path
    first: int  #: number of its first row, in the whole folder
    groups: list[int]  #: number of the first row of each row group, and of the row after the last one


class Block(NamedTuple):
    """Some rows, in order; those without a vector are left out."""

    n_read: int  #: rows, those left out counted
    rows: IntArray  #: (m,) their numbers
    vectors: FloatArray  #: (m, d)
    canonical_smiles: pa.Array | None  #: m texts, if they were asked for


class Found(NamedTuple):
    """Rows that were looked up; one entry for each, in the order asked for."""

    texts: dict[str, list[str | None]]  #: `id`, `smiles`, `canonical_smiles`; None where the file has none
    files: list[str]  #: names of the files
    vectors: FloatArray | None  #: (n, d), if they were asked for


class EmbeddingFiles:
    """The vectors of a Parquet file as `molcmim embed` writes it, or of a folder of such shards.

    Parameters
    ----------
    path
        ``*.parquet``, or a folder with ``part-00000.parquet``, ``part-00001.parquet``, ...
    partial
        Whether shards of the folder may be missing: a run that isn't finished.

    Attributes
    ----------
    facts
        What the footer says: `model_id`, `kind`, `policy`, ...; empty for a file that molcmim hasn't written.
    n_rows, width
        Rows in all files together, and features d of a vector.
    dtype
        ``"float32"``, ``"float16"`` or ``"int8"``.

    Raises
    ------
    ValueError
        If it isn't such a file or folder, a shard is missing, or shards contradict each other.
    OSError
        If it can't be read.
    """

    def __init__(self, path: str | Path, partial: bool = False) -> None:
        self.path = Path(path)
        self.parts: list[Part] = []
        self.facts: dict[str, str] = {}
        self.n_rows, self.width, self.dtype = 0, 0, ""
        for place in find_files(self.path, partial):
            self._add(place, partial)

    def _add(self, path: Path, partial: bool) -> None:
        with readable(path, "its footer"), open_parquet(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        width, dtype = vector_type(path, schema)
        found = {
            key.decode().removeprefix("molcmim."): value.decode()
            for key, value in (schema.metadata or {}).items()
            if key.startswith(b"molcmim.")
        }
        if not self.parts:
            self.facts, self.width, self.dtype = found, width, dtype
        mine, other = {**self.facts, "width": self.width}, {**found, "width": width}
        for name in (*MUST_AGREE, "width"):
            if mine.get(name) != other.get(name):
                before = self.parts[0].path.name
                raise ValueError(f"{path}: expected {name} {mine.get(name)} as in {before}, got {other.get(name)}")
        end = self.parts[-1].groups[-1] if self.parts else 0
        first = end
        if path != self.path and found.get("first_row", "").isdecimal():
            first = int(found["first_row"])
        if first < end or (first > end and not partial):
            raise ValueError(f"{path}: expected its first row to be number {end}, got {first}")
        self.parts.append(Part(path, first, np.cumsum([first, *counts]).tolist()))
        self.n_rows += sum(counts)

    def blocks(self, canonical_smiles: bool = False) -> Iterator[Block]:
        """All rows that have a vector, in order. Raises ValueError if a file turns out damaged."""
        columns = ["embedding", *(["scale"] if self.dtype == "int8" else [])]
        columns += ["canonical_smiles"] if canonical_smiles else []
        size = min(8192, max(64, BLOCK_NUMBERS // self.width))
        for part in self.parts:
            first = part.first
            for batch in read_batches(part.path, columns, size, what="its vectors"):
                there, vectors = self._vectors(batch)
                texts = batch.column("canonical_smiles").take(there) if canonical_smiles else None
                yield Block(len(batch), first + there, vectors, texts)
                first += len(batch)

    def look_up(self, rows: Sequence[int] | IntArray, vectors: bool = False) -> Found:
        """Texts, and vectors on request, of the rows with these numbers, in any order, each maybe several times.

        Only the row groups that hold one of them are read. A row without a vector has NaN.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        distinct, place = np.unique(wanted, return_inverse=True)
        texts: dict[str, list[str | None]] = {name: [None] * len(distinct) for name in TEXTS}
        files = [""] * len(distinct)
        found = np.full((len(distinct) if vectors else 0, self.width), np.nan, dtype=np.float32)
        for i, part, batch, inside in self._batches_with(distinct, vectors):
            there = batch.take(inside)
            for name in TEXTS:
                if name in there.schema.names:
                    texts[name][i : i + len(inside)] = [as_text(value) for value in there.column(name).to_pylist()]
            files[i : i + len(inside)] = [part.path.name] * len(inside)
            if vectors:
                has_vector, values = self._vectors(there)
                found[i + has_vector] = values
        order = place.tolist()
        return Found(
            {name: [column[i] for i in order] for name, column in texts.items()},
            [files[i] for i in order],
            found[place] if vectors else None,
        )

    def _batches_with(self, rows: IntArray, vectors: bool) -> Iterator[tuple[int, Part, pa.RecordBatch, IntArray]]:
        """Batches that hold some of these increasing rows: position of the first, file, batch, places in the batch."""
        names = [*TEXTS, *(["embedding", "scale"] if vectors else [])]
        size = min(8192, max(64, BLOCK_NUMBERS // self.width)) if vectors else 8192
        i, starts = 0, [part.first for part in self.parts]
        while i < len(rows):
            part = self.parts[bisect_right(starts, rows[i]) - 1]
            group = bisect_right(part.groups, rows[i]) - 1
            first, end = part.groups[group], part.groups[group + 1]
            for batch in read_batches(part.path, names, size, [group], f"rows {first} to {end - 1}"):
                n = int(np.searchsorted(rows[i:], first + len(batch)))
                if n:
                    yield i, part, batch, rows[i : i + n] - first
                i, first = i + n, first + len(batch)
                if i == len(rows) or rows[i] >= end:
                    break

    def _vectors(self, batch: pa.RecordBatch) -> tuple[IntArray, FloatArray]:
        """Places of the rows of a batch that have a finite vector, and the vectors."""
        column = batch.column("embedding")
        there = np.flatnonzero(np.asarray(column.is_valid()))
        # `flatten` leaves null rows out
        vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, self.width)
        if self.dtype == "int8":
            scale = batch.column("scale").to_numpy(zero_copy_only=False)[there]
            vectors = dequantise(vectors, np.asarray(scale, dtype=np.float32))
        vectors = np.asarray(vectors, dtype=np.float32)
        finite = np.isfinite(vectors).all(axis=1)
        return (there, vectors) if finite.all() else (there[finite], vectors[finite])


def as_text(value: Any) -> str | None:
    """A cell as text: a foreign file may have ids that are numbers."""
    return None if value is None else str(value)


def find_files(path: Path, partial: bool = False) -> list[Path]:
    """The file itself, or the shards of a folder by their number.

    ValueError or OSError if there are none, or one is missing and `partial` is false.
    """
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"embeddings: no such file or folder: {path}")
        if path.suffix.lower() != ".parquet":
            raise ValueError(f"embeddings: expected a *.parquet file or a folder of {SHARDS}, got {path}")
        if not path.is_file():
            raise FileNotFoundError(f"embeddings: no such file: {path}")
        return [path]
    numbers: dict[int, Path] = {}
    for place in sorted(path.glob(SHARDS)):
        if match := re.fullmatch(r"part-(\d+)\.parquet", place.name):
            numbers[int(match[1])] = place
    if not numbers:
        raise ValueError(f"embeddings: expected a folder with files {SHARDS}, got {path}, which has none")
    n_shards = max(planned_shards(path), max(numbers) + 1)
    missing = [number for number in range(n_shards) if number not in numbers]
    if missing and not partial:
        raise ValueError(
            f"{path}: expected {n_shards} shards, but {len(missing)} are missing, the first of them number "
            f"{missing[0]}; finish the run, or search what is there (partial)"
        )
    return [numbers[number] for number in sorted(numbers)]


def planned_shards(folder: Path) -> int:
    """Number of shards that the folder's manifest says, 0 without one. Raises ValueError if it is damaged."""
    from molcmim.scoring.manifest import MANIFEST, read_manifest

    return len(read_manifest(folder).shards) if (folder / MANIFEST).exists() else 0


def vector_type(path: Path, schema: pa.Schema) -> tuple[int, str]:
    """Features of a vector and their number format; ValueError if the file's schema isn't one of embeddings."""
    import pyarrow as pa

    if "embedding" not in schema.names:
        names = ", ".join(schema.names[:10])
        raise ValueError(f"{path}: not a file of embeddings: expected a column 'embedding', got {names}")
    kind = schema.field("embedding").type
    formats = {pa.float32(): "float32", pa.float16(): "float16", pa.int8(): "int8"}
    if not pa.types.is_fixed_size_list(kind) or kind.value_type not in formats or not kind.list_size:
        raise ValueError(f"{path}: embedding: expected lists of float32, float16 or int8 of one length, got {kind}")
    dtype = formats[kind.value_type]
    if dtype == "int8" and "scale" not in schema.names:
        raise ValueError(f"{path}: expected a column 'scale' beside int8 vectors, got none")
    return kind.list_size, dtype


def open_parquet(path: Path) -> Any:
    """A pyarrow ParquetFile that reads columns piece by piece."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES)


def read_batches(
    path: Path, columns: Sequence[str], size: int, groups: Sequence[int] | None = None, what: str = "rows"
) -> Iterator[pa.RecordBatch]:
    """Batches of at most `size` rows of all row groups or some, with those of the columns that the file has.

    An error of reading is a ValueError that names the file and `what`; one of the consumer stays as it is.
    """
    with readable(path, what):
        file = open_parquet(path)
    with file:
        names = [name for name in columns if name in file.schema_arrow.names]
        batches = file.iter_batches(size, row_groups=groups, columns=names)
        while True:
            with readable(path, what):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Errors of pyarrow in the block become a ValueError that names the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: {what} can't be read: not Parquet, or damaged: {error}") from error
