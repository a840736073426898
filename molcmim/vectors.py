"""Files of embeddings in, for `molcmim decode`: what `molcmim embed` writes (see `molcmim.writers`)."""

# Axes: n rows, L latent, D width, d embedding.

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.writers import SUFFIXES

if TYPE_CHECKING:
    from molcmim.api import MolCMIM

FloatArray = npt.NDArray[np.float32]


def read_vectors(path: Path, model: MolCMIM) -> FloatArray:
    """Latent vectors of a file, NaN where it has none: (n, L).

    Parameters
    ----------
    path
        ``*.parquet`` with a column `embedding`, or ``*.npy`` (with the ``.json`` beside it, if it is there). What the
        file says about its kind and model must fit; a file without such facts is judged by its width.
    model
        That the vectors come from.

    Raises
    ------
    ValueError
        If it isn't such a file, is of kind ``informative``, or comes from another model.
    OSError
        If it can't be read.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"input: expected a file name ending in {' or '.join(SUFFIXES)}, got {path.name!r}")
    if not path.is_file():
        raise FileNotFoundError(f"input: no such file: {path}")
    vectors, facts = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_npy(path)
    kind, made_by = facts.get("kind"), facts.get("model_id", model.model_id)
    if kind not in (None, "latent", "both"):
        raise ValueError(f"{path}: expected embeddings of kind latent or both, got {kind}: it can't be decoded")
    if made_by != model.model_id:
        name = facts.get("model", "?")
        raise ValueError(f"{path}: expected embeddings of model {model.model_id}, got those of {made_by} ({name})")
    latent, width = model.network.config.latent, model.network.config.width
    expected = {"latent": [latent], "both": [latent + width]}.get(kind or "", [latent, latent + width])
    if vectors.ndim != 2 or vectors.shape[1] not in expected:
        widths = " or ".join(str(number) for number in expected)
        raise ValueError(f"{path}: expected vectors of {widths} numbers, got shape {vectors.shape}")
    return model.latent_part(vectors)


class RowNames(NamedTuple):
    """What a file of embeddings says about its n rows, besides the vectors."""

    id: list[str | None]
    smiles: list[str | None]  #: as given
    canonical_smiles: list[str | None]  #: None unless `ok`


def read_names(path: Path) -> RowNames | None:
    """Names and SMILES of the rows of a ``*.parquet``, or of the ``.csv`` beside a ``*.npy``; None if it has none.

    Raises
    ------
    ValueError
        If the table can't be read as one that `molcmim embed` writes.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    parquet = path.suffix.lower() == ".parquet"
    table_path = path if parquet else path.with_suffix(".csv")
    if not table_path.is_file():
        return None
    try:
        if parquet:
            names = pq.read_schema(path).names
            table = pq.read_table(path, columns=[name for name in RowNames._fields if name in names])
        else:
            as_text = pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(RowNames._fields, pa.string()), strings_can_be_null=True
            )
            lines = pyarrow.csv.ParseOptions(newlines_in_values=True)
            table = pyarrow.csv.read_csv(table_path, convert_options=as_text, parse_options=lines)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{table_path}: not a table of embedded rows: {error}") from error
    if "smiles" not in table.column_names:
        return None
    nothing = [None] * len(table)
    texts = (table[name].to_pylist() if name in table.column_names else nothing for name in RowNames._fields)
    return RowNames(*([None if value is None else str(value) for value in column] for column in texts))


def _read_npy(path: Path) -> tuple[npt.NDArray[Any], Mapping[str, str]]:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a .npy file of numbers: {error}") from error
    if vectors.dtype.kind != "f":
        raise ValueError(f"{path}: expected floating-point numbers, got {vectors.dtype}")
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return vectors, {}
    try:
        facts = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{beside}: not JSON: {error}") from error
    return vectors, facts if isinstance(facts, dict) else {}


def _read_parquet(path: Path) -> tuple[FloatArray, Mapping[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        if "embedding" not in schema.names:
            raise ValueError(f"expected a column 'embedding', got {', '.join(schema.names[:10])}")
        kind = schema.field("embedding").type
        if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
            raise ValueError(f"embedding: expected lists of floating-point numbers, got {kind}")
        vectors = np.full((file.metadata.num_rows, kind.list_size), np.nan, dtype=np.float32)
        start = 0
        for batch in file.iter_batches(columns=["embedding"]):
            column = batch.column(0)
            there = np.asarray(column.is_valid())
            if there.any():  # `flatten` leaves null rows out
                flat = column.flatten().to_numpy(zero_copy_only=False)
                vectors[start : start + len(column)][there] = flat.reshape(-1, kind.list_size)
            start += len(column)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{path}: not a Parquet file of embeddings: {error}") from error
    metadata = schema.metadata or {}
    facts = {key.decode(): value.decode() for key, value in metadata.items() if key.startswith(b"molcmim.")}
    return vectors, {key.removeprefix("molcmim."): value for key, value in facts.items()}
