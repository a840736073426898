"""Shards into one file, row group by row group: memory doesn't grow with the number of rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molcmim.scoring.manifest import Manifest, ManifestError, read_manifest
from molcmim.scoring.shard import finished, footer_facts
from molcmim.writers import EmbeddingWriter, ParquetWriter, output_paths

if TYPE_CHECKING:
    import pyarrow as pa


def merge_shards(
    folder: Path, output: Path, progress: Callable[[int], object] | None = None
) -> tuple[int, Counter[str]]:
    """Write the rows of all shards, in order, to one .parquet file, or to .npy, .csv and .json.

    Parameters
    ----------
    folder
        A finished run; it is left as it is.
    output
        ``*.parquet`` or ``*.npy``; an existing file is replaced.
    progress
        Called with the number of rows of each row group written.

    Returns
    -------
    int, Counter
        Rows, and rows per status.

    Raises
    ------
    ManifestError
        If the folder has no manifest, or a shard isn't finished; the message names the first one.
    ValueError, OSError
        If the output has another ending, lies among the shards, or can't be written.
    """
    output_paths(output)
    if output.resolve().parent == folder.resolve():
        raise ValueError(f"output: expected a file outside the folder of shards, got {output}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"output: no such directory: {output.parent}")
    manifest = read_manifest(folder)
    statuses = check_finished(manifest, folder)
    facts = {
        **footer_facts(manifest),
        "fingerprint": manifest.fingerprint,
        "n_rows": str(manifest.n_rows),
        "statuses": json.dumps(statuses, sort_keys=True),
    }
    settings = manifest.settings
    tables = row_groups(manifest, folder)
    first = next(tables)  # a shard without rows has an empty one
    extra = [(name, first.schema.field(at + 1).type) for at, (name, _) in enumerate(manifest.extra)]
    with EmbeddingWriter(output, extra, settings["width"], settings["dtype"], facts) as writer:
        for table in _with_first(first, tables):
            _append(writer, table, settings["width"])
            if progress is not None:
                progress(table.num_rows)
        if writer.n_rows != manifest.n_rows:
            raise ManifestError(f"{folder}: expected {manifest.n_rows} rows, got {writer.n_rows}")
    return manifest.n_rows, statuses


def check_finished(manifest: Manifest, folder: Path) -> Counter[str]:
    """Rows per status of all shards; ManifestError if one isn't finished."""
    statuses: Counter[str] = Counter()
    missing = []
    for number in range(len(manifest.shards)):
        summary = finished(manifest, number, folder)
        if summary is None:
            missing.append(manifest.shard_name(number))
        else:
            statuses.update(summary.statuses)
    if missing:
        raise ManifestError(
            f"{folder}: expected {len(manifest.shards):,} finished shards, got {len(missing):,} that are not: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        )
    return statuses


def row_groups(manifest: Manifest, folder: Path) -> Iterator[pa.Table]:
    """The tables of all shards, in order, one row group at a time."""
    import pyarrow.parquet as pq

    for number in range(len(manifest.shards)):
        with pq.ParquetFile(folder / manifest.shard_name(number)) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)
            if not file.num_row_groups:
                yield file.schema_arrow.empty_table()


def _with_first(first: pa.Table, others: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from others


def _append(writer: EmbeddingWriter, table: pa.Table, width: int) -> None:
    if isinstance(writer, ParquetWriter):
        writer.write_table(table)
        return
    columns: list[Any] = [table[at].to_pylist() for at in range(table.schema.get_field_index("embedding"))]
    null, values, scale = embedding_arrays(table, width)
    writer.append(columns, null, values, scale)


def embedding_arrays(table: pa.Table, width: int) -> tuple[Any, Any, Any]:
    """Which rows have no vector (n,), the vectors (n, d), NaN (int8: 0) there, and the scales (n,), or None."""
    column = table["embedding"].combine_chunks()
    null = np.asarray(column.is_null())
    numbers = column.values.slice(column.offset * width, len(column) * width)
    codes = column.type.value_type.bit_width == 8
    if codes:  # else null ones would make floats of all
        numbers = numbers.fill_null(0)
    values = numbers.to_numpy(zero_copy_only=False).reshape(-1, width).copy()
    values[null] = 0 if codes else np.nan
    scale = table["scale"].combine_chunks().fill_null(0).to_numpy(zero_copy_only=False) if codes else None
    return null, values, scale
