"""Embedding files out: Parquet, or .npy with a .csv beside; written beside and renamed at the end.

Parquet holds `id`, the pass-through columns, `smiles` (as given), `canonical_smiles`, `status` and
`embedding` (FixedSizeList, null where the status isn't ok); the facts about the run are in the file's
footer. With .npy, bad rows are NaN, the other columns are in a .csv and the facts in a .json of the same
name. With dtype int8 there is one more column, `scale`: a vector is scale * int8; in a .npy file bad rows are
zeros then.
"""

# n rows of a chunk, d embedding

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from molcmim.beside import part_path
from molcmim.readers import Chunk
from molcmim.rows import TokenRows
from molcmim.scoring.durable import publish
from molcmim.scoring.int8 import quantise

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".npy")
DTYPES = ("float32", "float16", "int8")
COMPRESSION, LEVEL = "zstd", 1  #: fixed, so that equal rows make equal files
NPY_HEADER = 128  #: bytes; the number of rows is written into it at the end

FloatArray = npt.NDArray[np.float32]


def output_paths(path: Path) -> list[Path]:
    """All files that an output of this name consists of; ValueError if it is neither .parquet nor .npy."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"output: expected a file name ending in {' or '.join(SUFFIXES)}, got {path.name!r}")
    if path.suffix.lower() == ".parquet":
        return [path]
    return [path, path.with_suffix(".csv"), path.with_suffix(".json")]


class EmbeddingWriter:
    """Takes chunks, makes files. Use as a context manager: only a block that ends without error leaves files.

    Parameters
    ----------
    path
        ``*.parquet`` or ``*.npy``; an existing file is replaced.
    extra
        Names of the pass-through columns; of typed ones pairs of a name and an Arrow type (as text, or as it
        is).
    width
        Features d of an embedding.
    dtype
        ``"float32"``, ``"float16"`` or ``"int8"`` (with a scale for each row).
    facts
        What the output should say about itself: model id, versions, policy, kind. Those set in it later, up
        to the end of the block, are written as well.

    Raises
    ------
    ValueError
        If the name has another ending, or `dtype` is none of the three.
    OSError
        If the directory doesn't exist or can't be written to.
    """

    def __new__(cls, path: Path, *args: Any, **kwargs: Any) -> EmbeddingWriter:
        output_paths(Path(path))
        return super().__new__(ParquetWriter if Path(path).suffix.lower() == ".parquet" else NpyWriter)

    def __init__(
        self, path: Path, extra: Sequence[str | tuple[str, Any]], width: int, dtype: str, facts: Mapping[str, str]
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {DTYPES}, got {dtype!r}")
        self.paths = output_paths(Path(path))
        self.parts = [part_path(target) for target in self.paths]
        typed = [(column, "string") if isinstance(column, str) else column for column in extra]
        self.extra, self.types = _free_names([name for name, _ in typed], dtype), [kind for _, kind in typed]
        self.width, self.facts = width, dict(facts)
        self.dtype = np.dtype(dtype)
        self.n_rows = 0
        self.first_row = 0  #: number of the first row, should an error have to name one

    def write(self, chunk: Chunk, rows: TokenRows, embedding: FloatArray) -> None:
        """Append rows: the input's columns, what became of them, and (n, d) vectors, NaN where not ok.

        Raises
        ------
        ValueError
            If a vector doesn't fit into the dtype.
        """
        ok = rows.ok
        status = [value.value for value in rows.status]
        columns = [chunk.id, *chunk.extra, chunk.smiles, rows.canonical_smiles, status]
        scale: FloatArray | None = None
        if self.dtype == np.int8:
            values, scale = np.zeros(embedding.shape, dtype=np.int8), np.zeros(len(status), dtype=np.float32)
            values[ok], scale[ok] = quantise(embedding[ok])
        else:
            with np.errstate(over="ignore"):
                values = embedding.astype(self.dtype)
            if not np.isfinite(values[ok]).all():
                bad = ok[int(np.flatnonzero(~np.isfinite(values[ok]).all(axis=1))[0])]
                bad += self.first_row + self.n_rows
                raise ValueError(f"row {bad}: its vector doesn't fit into {self.dtype}; use float32")
        null = np.ones(len(status), dtype=bool)
        null[ok] = False
        self.append(columns, null, values, scale)

    def __enter__(self) -> EmbeddingWriter:
        try:
            self._open()
        except BaseException:  # Ctrl-C as well
            self._remove_parts()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._close()
                for part, target in zip(self.parts[::-1], self.paths[::-1], strict=True):  # the vectors last
                    publish(part, target)
            else:
                with suppress(Exception):  # a full disk says so again, and would hide the first error
                    self._close()
        finally:
            self._remove_parts()

    def _remove_parts(self) -> None:
        for part in self.parts:
            part.unlink(missing_ok=True)

    def _open(self) -> None:
        raise NotImplementedError

    def append(
        self, columns: list[Any], null: npt.NDArray[np.bool_], values: npt.NDArray[Any], scale: FloatArray | None
    ) -> None:
        """Append rows as they will stand in the file.

        `columns` are id, the pass-through ones, smiles, canonical_smiles and status, lists or Arrow arrays; `null`
        (n,) says which rows have no vector; `values` (n, d) and, with int8, `scale` (n,) are the vectors.
        """
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


class ParquetWriter(EmbeddingWriter):
    """See `EmbeddingWriter`."""

    def _open(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        extra = [(name, arrow_type(kind)) for name, kind in zip(self.extra, self.types, strict=True)]
        texts = [(name, pa.string()) for name in ("smiles", "canonical_smiles", "status")]
        vector = pa.list_(pa.from_numpy_dtype(self.dtype), self.width)
        fields = [("id", pa.string()), *extra, *texts, ("embedding", vector)]
        if self.dtype == np.int8:
            fields.append(("scale", pa.float32()))
        self._first_facts = {f"molcmim.{name}": value for name, value in self.facts.items()}
        self._schema = pa.schema(fields, metadata=self._first_facts)
        self._writer = pq.ParquetWriter(
            self.parts[0], self._schema, compression=COMPRESSION, compression_level=LEVEL, use_dictionary=["status"]
        )

    def append(
        self, columns: list[Any], null: npt.NDArray[np.bool_], values: npt.NDArray[Any], scale: FloatArray | None
    ) -> None:
        import pyarrow as pa

        arrays = [
            pa.array(column, kind) if isinstance(column, list) else column
            for column, kind in zip(columns, self._schema.types, strict=False)
        ]
        values = np.where(null[:, None], 0, values).astype(self.dtype)  # what a null hides is zeros, not NaN
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), self.width, mask=pa.array(null)))
        if scale is not None:
            arrays.append(pa.array(scale, pa.float32(), mask=null))
        self.write_table(pa.table(arrays, schema=self._schema))

    def write_table(self, table: pa.Table) -> None:
        """Append rows that have the file's columns, as one row group."""
        self._writer.write_table(table)
        self.n_rows += table.num_rows

    def _close(self) -> None:
        late = {f"molcmim.{name}": value for name, value in self.facts.items()}
        late = {name: value for name, value in late.items() if self._first_facts.get(name) != value}
        if late:
            self._writer.add_key_value_metadata(late)
        self._writer.close()


class NpyWriter(EmbeddingWriter):
    """See `EmbeddingWriter`."""

    def _open(self) -> None:
        self._npy = self.parts[0].open("wb")
        self._npy.write(b"\0" * NPY_HEADER)
        self._csv_file = self.parts[1].open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._csv_file, lineterminator="\n")
        scale = ["scale"] if self.dtype == np.int8 else []
        self._csv.writerow(["id", *self.extra, "smiles", "canonical_smiles", "status", *scale])

    def append(
        self, columns: list[Any], null: npt.NDArray[np.bool_], values: npt.NDArray[Any], scale: FloatArray | None
    ) -> None:
        self._npy.write(np.ascontiguousarray(values).tobytes())
        if scale is not None:
            columns = [*columns, [None if bad else value for bad, value in zip(null, scale, strict=True)]]
        lists = [column if isinstance(column, list) else column.to_pylist() for column in columns]
        self._csv.writerows(zip(*lists, strict=True))
        self.n_rows += len(values)

    def _close(self) -> None:
        self._npy.seek(0)
        self._npy.write(npy_header(self.n_rows, self.width, self.dtype))
        self._npy.close()
        self._csv_file.close()
        self.parts[2].write_text(json.dumps(self.facts, indent=1) + "\n", encoding="utf-8")


def arrow_type(kind: Any) -> pa.DataType:
    """The Arrow type itself, or that of a name like ``"string"`` or ``"int64"``.

    Raises
    ------
    ValueError
        If there is no simple type of that name.
    """
    import pyarrow as pa

    return pa.type_for_alias(kind) if isinstance(kind, str) else kind


def _free_names(names: list[str], dtype: str) -> list[str]:
    """The pass-through columns' names, changed where an int8 file has a column of that name itself."""
    taken = set(names)
    result = []
    for name in names:
        new = name
        if dtype == "int8" and name == "scale":
            new = "input_scale"
            while new in taken:
                new += "_"
        result.append(new)
    return result


def npy_header(n_rows: int, width: int, dtype: np.dtype[Any]) -> bytes:
    """Header of a .npy file (format 1.0) of fixed length, to be written when the rows are counted."""
    described = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (n_rows, width),
    }
    start = b"\x93NUMPY\x01\x00" + (NPY_HEADER - 10).to_bytes(2, "little")
    return start + repr(described).encode("ascii").ljust(NPY_HEADER - 11) + b"\n"
