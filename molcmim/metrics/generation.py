"""One file of samples: read it, measure it, write the numbers as JSON and Markdown.

molcmim benchmark generation samples.csv --moses molsets-0.3.1-py3-none-any.whl     MOSES
molcmim benchmark generation neighbours.csv --seeds seed --known train.npy         MolMIM
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from molcmim.beside import written_beside

#: What is shown of a measure: heading, and which way is better. In the order of the tables.
MEASURES: Mapping[str, tuple[str, str]] = {
    "n": ("generated", ""),
    "valid": ("valid", "up"),
    "unique@1000": ("unique@1k", "up"),
    "unique@10000": ("unique@10k", "up"),
    "FCD/Test": ("FCD/Test", "down"),
    "FCD/TestSF": ("FCD/TestSF", "down"),
    "SNN/Test": ("SNN/Test", "up"),
    "SNN/TestSF": ("SNN/TestSF", "up"),
    "Frag/Test": ("Frag/Test", "up"),
    "Frag/TestSF": ("Frag/TestSF", "up"),
    "Scaf/Test": ("Scaf/Test", "up"),
    "Scaf/TestSF": ("Scaf/TestSF", "up"),
    "IntDiv": ("IntDiv", "up"),
    "IntDiv2": ("IntDiv2", "up"),
    "Filters": ("Filters", "up"),
    "Novelty": ("novelty", "up"),
    "Novelty/known": ("novelty against --known", "up"),
    "logP": ("logP, distance", "down"),
    "SA": ("SA, distance", "down"),
    "QED": ("QED, distance", "down"),
    "weight": ("weight, distance (Da)", "down"),
    "seeds": ("seeds", ""),
    "generated": ("generated", ""),
    "validity": ("validity", "up"),
    "uniqueness": ("uniqueness", "up"),
    "novelty": ("novelty", "up"),
    "non_identicality": ("non-identicality", "up"),
    "effective_novelty": ("effective novelty", "up"),
    "distinct": ("distinct valid", ""),
    "exact": ("reconstructed exactly", "up"),
    "ignoring_stereo": ("reconstructed, ignoring stereo", "up"),
}
ARROWS = {"up": "↑", "down": "↓", "": ""}


class Samples(NamedTuple):
    """Rows of a file of samples."""

    smiles: list[str | None]  #: N, as written; None or "" where nothing was generated
    seeds: list[str] | None  #: N, the molecule that each was sampled around; None without such a column


def read_samples(path: str | Path, smiles_column: str | None = None, seeds_column: str | None = None) -> Samples:
    """Read .csv, .tsv, .smi, .txt (also .gz, .xz) or .parquet.

    Parameters
    ----------
    path
        The file.
    smiles_column
        Default: as for `molcmim.readers.MoleculeReader`, the first of smiles, canonical_smiles and others that the
        table has.
    seeds_column
        Column with the seed of each row; None: none is read.

    Raises
    ------
    OSError
        If the file can't be read.
    ValueError
        If it is of another type, has no rows, or lacks a column.
    """
    place = Path(path)
    if place.suffix.lower() == ".parquet":
        smiles, seeds = _read_parquet(place, smiles_column or "smiles", seeds_column)
    else:
        smiles, seeds = _read_text(place, smiles_column, seeds_column)
    if not smiles:
        raise ValueError(f"{place.name}: expected at least 1 row, got none")
    if seeds is None:
        return Samples(smiles, None)
    missing = next((row for row, seed in enumerate(seeds) if not seed), None)
    if missing is not None:
        raise ValueError(f"{place.name}, row {missing}: expected a seed in column {seeds_column!r}, got none")
    return Samples(smiles, [str(seed) for seed in seeds])


def by_seed(samples: Samples) -> tuple[list[str], list[list[str | None]]]:
    """Seeds in the order in which they first occur, and the rows of each: what `molmim_metrics` takes.

    Raises
    ------
    ValueError
        If the samples have no seeds.
    """
    if samples.seeds is None:
        raise ValueError("samples: expected rows with seeds, got none")
    grouped: dict[str, list[str | None]] = {}
    for seed, smiles in zip(samples.seeds, samples.smiles, strict=True):
        grouped.setdefault(seed, []).append(smiles)
    return list(grouped), list(grouped.values())


def table_text(tables: Mapping[str, Mapping[str, float]], markdown: bool = False) -> str:
    """Tables of measures, one line each: for the terminal, or as Markdown.

    Parameters
    ----------
    tables
        Title of a table to measures by the names of MEASURES; others are left out.
    markdown
        Pipes and headings.
    """
    blocks = []
    for title, measures in tables.items():
        rows = [(*MEASURES[name], measures[name]) for name in MEASURES if name in measures]
        cells = [(f"{label} {ARROWS[better]}".rstrip(), _number(value)) for label, better, value in rows]
        if markdown:
            blocks.append("\n".join([f"## {title}\n", "| measure | value |", "|---|---:|", *map(_pipes, cells)]))
        else:
            left, right = (max(len(cell[column]) for cell in cells) for column in (0, 1))
            blocks.append("\n".join([title, *(f"  {name:{left}}  {value:>{right}}" for name, value in cells)]))
    return "\n\n".join(blocks) + "\n"


def write_results(
    folder: str | Path, tables: Mapping[str, Mapping[str, float]], about: Mapping[str, Any]
) -> list[Path]:
    """Write ``generation.json`` (all numbers, NaN as null, and `about`) and ``generation.md`` into a folder.

    Returns
    -------
    list of Path
        The two files.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    plain = {
        title: {name: None if math.isnan(value) else value for name, value in measures.items()}
        for title, measures in tables.items()
    }
    facts = "\n".join(f"- {key}: {value}" for key, value in about.items() if not isinstance(value, Mapping))
    texts = {
        place / "generation.json": json.dumps({"about": dict(about), "tables": plain}, indent=1) + "\n",
        place / "generation.md": f"# Generated molecules, measured\n\n{facts}\n\n{table_text(tables, markdown=True)}",
    }
    for path, text in texts.items():
        with written_beside(path) as part:
            part.write_text(text, encoding="utf-8")
    return list(texts)


def _number(value: float) -> str:
    """Counts as they are, shares and distances with as many digits as say something; a dash for NaN."""
    if math.isnan(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _read_text(
    path: Path, smiles_column: str | None, seeds_column: str | None
) -> tuple[list[str | None], list[str | None] | None]:
    from molcmim.readers import MoleculeReader, guess_format

    if seeds_column is not None and guess_format(path.name) == "smi":
        raise ValueError(f"{path.name}: expected a table (.csv, .tsv, .parquet) for seeds, a .smi file has no columns")
    smiles: list[str | None] = []
    seeds: list[str | None] = []
    # the seed is read as if it were the rows' name, so that every spelling of the column's name works
    with MoleculeReader(path, smiles_column, seeds_column) as reader:
        for chunk in reader.chunks():
            smiles += chunk.smiles
            seeds += chunk.id
    return smiles, seeds if seeds_column is not None else None


def _read_parquet(
    path: Path, smiles_column: str, seeds_column: str | None
) -> tuple[list[str | None], list[str | None] | None]:
    import pyarrow.parquet as pq

    wanted = [column for column in (smiles_column, seeds_column) if column is not None]
    names = pq.read_schema(path).names
    for column in wanted:
        if column not in names:
            raise ValueError(f"{path.name}: expected a column {column!r}, got the columns {', '.join(names)}")
    table = pq.read_table(path, columns=wanted)
    seeds = None if seeds_column is None else table[seeds_column].to_pylist()
    return table[smiles_column].to_pylist(), seeds
