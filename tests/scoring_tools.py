"""Small sharded jobs for tests: input files, a run in this process, what a folder holds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from molcmim import MolCMIM
from molcmim.scoring.manifest import JobOptions, Manifest, open_job
from molcmim.scoring.run import RunSummary, run_shards
from molcmim.scoring.source import open_source

BAD = ("", "C1CC", "Cé", "CO(C)(C)C", "C" * 41, "C" * 3000, "[U]", "[Fe")  #: with the tiny model


def molecules(n: int, different: int = 300) -> list[str]:
    """`n` SMILES that the tiny model can read, of which so many are different, no two neighbours alike."""
    texts = [
        f"{'C' * (1 + i % 25)}{'NOSF'[i // 25 % 4]}{'C' * (i // 100 % 12)}".replace("FC", "SC")
        for i in range(different)
    ]
    return [texts[i * 7 % different] for i in range(n)]


def write_smi(path: Path, smiles: list[str]) -> Path:
    """A .smi file in which row i is called m<i>."""
    path.write_text("".join(f"{text}\tm{i}\n" for i, text in enumerate(smiles)), encoding="utf-8")
    return path


def run_job(
    model: MolCMIM,
    inputs: Any,
    folder: Path,
    options: JobOptions = JobOptions(),
    shard_rows: int | None = 100,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    say: Any = lambda text: None,
    **columns: str | None,
) -> tuple[Manifest, RunSummary]:
    """What `molcmim embed INPUTS -o FOLDER` does."""
    with open_source(inputs, **columns) as source:
        manifest = open_job(folder, model, source, options, shard_rows, columns)
        return manifest, run_shards(model, source, manifest, folder, rank, world, workers, False, say)


def contents(folder: Path) -> dict[str, str]:
    """Sha256 of every file, hidden ones too."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def times_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file: they change if it is written again, even with the same bytes."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


def table_of(folder: Path) -> pa.Table:
    """All shards' rows."""
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))])


def facts_of(path: Path) -> dict[str, str]:
    """Footer of a Parquet file, our own entries."""
    metadata = pq.read_metadata(path).metadata
    own = {key.decode(): value.decode() for key, value in metadata.items() if key.startswith(b"molcmim.")}
    return {key.removeprefix("molcmim."): value for key, value in own.items()}
