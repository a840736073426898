"""Embedding files out: Parquet, or .npy with a .csv beside; written beside and renamed at the end.

Parquet holds `id`, the pass-through columns, `smiles` (as given), `canonical_smiles`, `status` and
`embedding` (FixedSizeList, null where the status isn't ok); the facts about the run are in the file's
footer. With .npy, bad rows are NaN, the other columns are in a .csv and the facts in a .json of the same
name.
"""

# n rows of a chunk, d embedding

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from molcmim.readers import Chunk
from molcmim.rows import TokenRows

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".npy")
DTYPES = ("float32", "float16")
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
        Names of the pass-through columns.
    width
        Features d of an embedding.
    dtype
        ``"float32"`` or ``"float16"``.
    facts
        What the output should say about itself: model id, versions, policy, kind.

    Raises
    ------
    ValueError
        If the name has another ending, or `dtype` is neither of the two.
    OSError
        If the directory doesn't exist or can't be written to.
    """

    def __new__(cls, path: Path, *args: Any, **kwargs: Any) -> EmbeddingWriter:
        output_paths(Path(path))
        return super().__new__(ParquetWriter if Path(path).suffix.lower() == ".parquet" else NpyWriter)

    def __init__(
        self, path: Path, extra: Sequence[str], width: int, dtype: str, facts: Mapping[str, str]
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {DTYPES}, got {dtype!r}")
        self.paths = output_paths(Path(path))
        self.parts = [target.with_name(f".{target.name}.{os.getpid()}.part") for target in self.paths]
        self.extra, self.width, self.facts = list(extra), width, dict(facts)
        self.dtype = np.dtype(dtype)
        self.n_rows = 0

    def write(self, chunk: Chunk, rows: TokenRows, embedding: FloatArray) -> None:
        """Append rows: the input's columns, what became of them, and (n, d) vectors, NaN where not ok.

        Raises
        ------
        ValueError
            If a vector doesn't fit into the dtype.
        """
        with np.errstate(over="ignore"):
            values = embedding.astype(self.dtype)
        ok = rows.ok
        if not np.isfinite(values[ok]).all():
            bad = ok[int(np.flatnonzero(~np.isfinite(values[ok]).all(axis=1))[0])]
            raise ValueError(
                f"row {self.n_rows + bad}: its vector doesn't fit into {self.dtype}; use float32"
            )
        self._append(chunk, rows, values)
        self.n_rows += len(chunk.smiles)

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
            self._close()
            if kind is None:
                for part, target in zip(self.parts[::-1], self.paths[::-1], strict=True):  # the vectors last
                    part.replace(target)
        finally:
            self._remove_parts()

    def _remove_parts(self) -> None:
        for part in self.parts:
            part.unlink(missing_ok=True)

    def _open(self) -> None:
        raise NotImplementedError

    def _append(self, chunk: Chunk, rows: TokenRows, values: npt.NDArray[Any]) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


class ParquetWriter(EmbeddingWriter):
    """See `EmbeddingWriter`."""

    def _open(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = ["id", *self.extra, "smiles", "canonical_smiles", "status"]
        vector = pa.list_(pa.from_numpy_dtype(self.dtype), self.width)
        metadata = {f"molcmim.{name}": value for name, value in self.facts.items()}
        fields = [*((name, pa.string()) for name in texts), ("embedding", vector)]
        self._schema = pa.schema(fields, metadata=metadata)
        self._writer = pq.ParquetWriter(
            self.parts[0], self._schema, compression="zstd", use_dictionary=["status"]
        )

    def _append(self, chunk: Chunk, rows: TokenRows, values: npt.NDArray[Any]) -> None:
        import pyarrow as pa

        status = [value.value for value in rows.status]
        texts = [chunk.id, *chunk.extra, chunk.smiles, rows.canonical_smiles, status]
        columns = [pa.array(text, pa.string()) for text in texts]
        columns.append(self._vectors(rows, values))
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def _vectors(self, rows: TokenRows, values: npt.NDArray[Any]) -> pa.Array:
        import pyarrow as pa

        null = np.ones(len(values), dtype=bool)
        null[rows.ok] = False
        values = np.where(null[:, None], 0, values).astype(self.dtype)  # what a null hides is zeros, not NaN
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), self.width, mask=pa.array(null))

    def _close(self) -> None:
        self._writer.close()


class NpyWriter(EmbeddingWriter):
    """See `EmbeddingWriter`."""

    def _open(self) -> None:
        self._npy = self.parts[0].open("wb")
        self._npy.write(b"\0" * NPY_HEADER)
        self._csv_file = self.parts[1].open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._csv_file, lineterminator="\n")
        self._csv.writerow(["id", *self.extra, "smiles", "canonical_smiles", "status"])

    def _append(self, chunk: Chunk, rows: TokenRows, values: npt.NDArray[Any]) -> None:
        self._npy.write(np.ascontiguousarray(values).tobytes())
        status = [value.value for value in rows.status]
        columns = [chunk.id, *chunk.extra, chunk.smiles, rows.canonical_smiles, status]
        self._csv.writerows(zip(*columns, strict=True))

    def _close(self) -> None:
        self._npy.seek(0)
        self._npy.write(npy_header(self.n_rows, self.width, self.dtype))
        self._npy.close()
        self._csv_file.close()
        self.parts[2].write_text(json.dumps(self.facts, indent=1) + "\n", encoding="utf-8")


def npy_header(n_rows: int, width: int, dtype: np.dtype[Any]) -> bytes:
    """Header of a .npy file (format 1.0) of fixed length, to be written when the rows are counted."""
    described = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (n_rows, width),
    }
    start = b"\x93NUMPY\x01\x00" + (NPY_HEADER - 10).to_bytes(2, "little")
    return start + repr(described).encode("ascii").ljust(NPY_HEADER - 11) + b"\n"
