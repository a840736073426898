"""The table that every generating verb returns: one row a latent vector, whatever became of it.

Columns, in this order, of a data frame and of a file:

    id                name of the row's seed, or of the row that was decoded; only if one has a name
    smiles            what the decoder wrote; empty where it hadn't finished at the token limit, or had no vector
    canonical_smiles  RDKit's canonical SMILES of it; empty unless valid
    valid             true or false: RDKit accepts the text as a molecule
    status            ok; a status of `molcmim.chem.Status` for a text that is no molecule; unfinished (the decoder
                      hadn't written <eos> at the token limit); no_vector (the row of z isn't finite); seed_... with
                      the status of a seed that can't be embedded
    seed              the seed's SMILES as given, or that of the row that was decoded; empty without one
    distance          Euclidean, in latent space, from the seed's mu; empty without a seed
    tanimoto          to the seed: Morgan fingerprints, radius 2, 2048 bits; empty unless valid, or without a seed
    repaired          true: the first text wasn't valid, this is a later attempt
    ...               the properties asked for, in the order asked for; empty unless valid

Text files have numbers to six significant digits, Parquet has all of them.
"""

# Axes: n rows.

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molcmim.beside import written_beside
from molcmim.chem import Prepared, Status, prepare_many

BoolArray = npt.NDArray[np.bool_]
NumberArray = npt.NDArray[np.float64]

SUFFIXES = (".csv", ".tsv", ".parquet")
COLUMNS = ("smiles", "canonical_smiles", "valid", "status", "seed", "distance", "tanimoto", "repaired")
UNFINISHED, NO_VECTOR, INVALID = "unfinished", "no_vector", "invalid"
FINGERPRINT_RADIUS, FINGERPRINT_BITS = 2, 2048


@dataclass(frozen=True)
class GeneratedTable:
    """Generated molecules, n rows; the columns are described at the top of this file.

    Attributes
    ----------
    smiles, canonical_smiles
        n texts, None where there is none.
    valid, repaired
        (n,) bool.
    seed
        n texts, ``""`` without a seed.
    distance, tanimoto
        (n,) float64, NaN where there is none.
    properties
        Name -> (n,) float64, NaN unless valid.
    status
        n texts; default: ``ok`` or ``invalid``, by `valid`.
    id
        n texts or None; or empty: no such column.

    Raises
    ------
    ValueError
        If the columns differ in length.
    """

    smiles: Sequence[str | None]
    canonical_smiles: Sequence[str | None]
    valid: BoolArray
    seed: Sequence[str]
    distance: NumberArray
    tanimoto: NumberArray
    repaired: BoolArray
    properties: Mapping[str, NumberArray] = field(default_factory=dict)
    status: Sequence[str] = ()
    id: Sequence[str | None] = ()

    def __post_init__(self) -> None:
        for name, dtype in (("valid", bool), ("distance", float), ("tanimoto", float), ("repaired", bool)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=dtype))
        properties = {name: np.asarray(values, dtype=float) for name, values in self.properties.items()}
        object.__setattr__(self, "properties", properties)
        if not len(self.status):
            object.__setattr__(self, "status", [str(Status.ok) if ok else INVALID for ok in self.valid.tolist()])
        lengths = {name: len(values) for name, values in self.columns().items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns: expected one length, got {lengths}")

    def __len__(self) -> int:
        return len(self.smiles)

    def columns(self) -> dict[str, Any]:
        """Name -> n values, in the order of a file.

        Raises
        ------
        ValueError
            If a property is called like another column.
        """
        clash = sorted(set(self.properties) & {"id", *COLUMNS})
        if clash:
            raise ValueError(f"properties: {clash[0]!r} is the name of another column")
        names = ("id", *COLUMNS) if len(self.id) else COLUMNS
        return {**{name: getattr(self, name) for name in names}, **self.properties}

    def named(self, ids: Sequence[str | None]) -> GeneratedTable:
        """The table with these n names of rows; as it is if none has one."""
        return replace(self, id=list(ids)) if any(ids) else self

    def select(self, rows: npt.ArrayLike) -> GeneratedTable:
        """The rows at these positions, or where a mask is true, as a table."""
        wanted = np.asarray(rows)
        chosen = np.flatnonzero(wanted) if wanted.dtype == bool else wanted.astype(np.int64)
        picked: dict[str, Any] = {
            name: values[chosen] if isinstance(values, np.ndarray) else [values[i] for i in chosen.tolist()]
            for name, values in self.columns().items()
        }
        properties = {name: picked.pop(name) for name in self.properties}
        return GeneratedTable(**picked, properties=properties)

    @staticmethod
    def concatenated(tables: Sequence[GeneratedTable]) -> GeneratedTable:
        """All rows of at least one table, one table after the other; they have the same properties."""
        parts = [table.columns() for table in tables]
        joined: dict[str, Any] = {
            name: np.concatenate([part[name] for part in parts])
            if isinstance(values, np.ndarray)
            else [value for part in parts for value in part[name]]
            for name, values in parts[0].items()
        }
        properties = {name: joined.pop(name) for name in tables[0].properties}
        return GeneratedTable(**joined, properties=properties)

    # ------------------------------------------------------------------------------------------ out

    def to_frame(self) -> Any:
        """As a pandas DataFrame. Raises ImportError without pandas."""
        import pandas as pd

        return pd.DataFrame(self.columns())

    def write(self, path: str | os.PathLike[str], facts: Mapping[str, str] | None = None) -> Path:
        """Write a file, beside and renamed; one that is there is replaced.

        Parameters
        ----------
        path
            ``*.csv``, ``*.tsv`` or ``*.parquet``.
        facts
            For the footer of a Parquet file, as ``molcmim.NAME``.

        Raises
        ------
        ValueError
            If the name has another ending.
        OSError
            If the directory doesn't exist or can't be written to.
        """
        return write_beside(path, lambda part: self._write_parquet(part, facts or {}), self._write_text)

    def _write_text(self, part: Path, delimiter: str) -> None:
        columns = self.columns()
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(as_texts(values) for values in columns.values()), strict=True))

    def _write_parquet(self, part: Path, facts: Mapping[str, str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays = {}
        for name, values in self.columns().items():
            if not isinstance(values, np.ndarray):
                arrays[name] = pa.array([value or None for value in values], pa.string())
            elif values.dtype == bool:
                arrays[name] = pa.array(values, pa.bool_())
            else:
                arrays[name] = pa.array(values, pa.float64(), mask=np.isnan(values))
        schema = pa.schema(
            [(name, array.type) for name, array in arrays.items()],
            metadata={f"molcmim.{name}": value for name, value in facts.items()},
        )
        pq.write_table(pa.table(arrays, schema=schema), part, compression="zstd")


def as_texts(values: Any) -> list[str]:
    """Cells of a text file.

    >>> as_texts(np.array([0.123456789, np.nan])), as_texts(np.array([True])), as_texts(["CCO", None])
    (['0.123457', ''], ['true'], ['CCO', ''])
    """
    if not isinstance(values, np.ndarray):
        return ["" if value is None else value for value in values]
    if values.dtype == bool:
        return [str(value).lower() for value in values.tolist()]
    return ["" if np.isnan(value) else f"{value:.6g}" for value in values.tolist()]


def check_suffix(path: Path) -> None:
    """ValueError unless a table can be written to a file of this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"output: expected a file name ending in {', '.join(SUFFIXES)}, got {path.name!r}")


def write_beside(
    path: str | os.PathLike[str], parquet: Callable[[Path], object], text: Callable[[Path, str], object]
) -> Path:
    """Write a table beside and rename it; an error or Ctrl-C leaves the file that was there, or none.

    Parameters
    ----------
    path
        ``*.csv``, ``*.tsv`` or ``*.parquet``.
    parquet, text
        Write the file at a place: Parquet, or text with a delimiter.

    Raises
    ------
    ValueError
        If the name has another ending.
    """
    target = Path(path)
    check_suffix(target)
    with written_beside(target) as part:
        if target.suffix.lower() == ".parquet":
            parquet(part)
        else:
            text(part, "," if target.suffix.lower() == ".csv" else "\t")
    return target


# ---------------------------------------------------------------------------------------------- chemistry


class Seeds:
    """What the rows of a table start from: n texts, their canonical SMILES, and distances.

    Parameters
    ----------
    given
        n texts as given, ``""`` for none.
    canonical_smiles
        n, from `molcmim.chem`; None for none, or a bad seed.
    status
        n; a row of a bad seed gets the status ``seed_...``.
    distance
        (n,) from the seed's mu.
    """

    def __init__(
        self,
        given: Sequence[str],
        canonical_smiles: Sequence[str | None],
        status: Sequence[Status],
        distance: npt.ArrayLike,
    ) -> None:
        self.given, self.canonical_smiles, self.status = list(given), list(canonical_smiles), list(status)
        self.distance = np.asarray(distance, dtype=float)


def check_written(smiles: Sequence[str | None], workers: int | None = None) -> list[Prepared]:
    """Canonical SMILES and status of texts that a decoder wrote; None counts as `empty`.

    Through `prepare_many`, which parses long lists in child processes: a generated text can crash RDKit.
    """
    return prepare_many(list(smiles), workers=workers)


def tabulate(
    smiles: Sequence[str | None],
    prepared: Sequence[Prepared],
    has_vector: BoolArray,
    repaired: BoolArray,
    seeds: Seeds | None = None,
    properties: Sequence[str] = (),
) -> GeneratedTable:
    """Put together a table.

    Parameters
    ----------
    smiles, prepared
        n rows as written, and what `check_written` says of them.
    has_vector, repaired
        (n,) bool.
    seeds
        One a row; default: none.
    properties
        Names in `molcmim.objectives.PROPERTIES`.

    Raises
    ------
    ValueError
        If there is no such property.
    """
    n = len(smiles)
    functions = property_functions(properties)
    canonical = [row.canonical_smiles if row.status is Status.ok else None for row in prepared]
    statuses = []
    for i, row in enumerate(prepared):
        if seeds is not None and seeds.status[i] is not Status.ok:
            statuses.append(f"seed_{seeds.status[i].value}")
        elif not has_vector[i]:
            statuses.append(NO_VECTOR)
        else:
            statuses.append(UNFINISHED if smiles[i] is None else row.status.value)
    return GeneratedTable(
        smiles=list(smiles),
        canonical_smiles=canonical,
        valid=np.array([text is not None for text in canonical], dtype=bool),
        seed=[""] * n if seeds is None else seeds.given,
        distance=np.full(n, np.nan) if seeds is None else seeds.distance,
        tanimoto=np.full(n, np.nan) if seeds is None else tanimoto(canonical, seeds.canonical_smiles),
        repaired=repaired,
        properties={name: _of_valid(function, canonical) for name, function in functions.items()},
        status=statuses,
    )


def with_properties(table: GeneratedTable, properties: Sequence[str]) -> GeneratedTable:
    """The table with these properties instead of those it has. Raises ValueError if there is no such property."""
    functions = property_functions(properties)
    canonical = list(table.canonical_smiles)
    return replace(table, properties={name: _of_valid(function, canonical) for name, function in functions.items()})


def property_functions(names: Sequence[str]) -> dict[str, Callable[[list[str]], Any]]:
    """The functions of these properties, in this order; ValueError for a name that isn't known."""
    if isinstance(names, str):
        raise ValueError(f"properties: expected a list of names, got the text {names!r}")
    if not len(names):
        return {}
    from molcmim.objectives import PROPERTIES

    for name in names:
        if name not in PROPERTIES:
            raise ValueError(f"properties: expected some of {', '.join(PROPERTIES)}; got {name!r}")
    return {name: PROPERTIES[name] for name in names}


def _of_valid(function: Callable[[list[str]], Any], canonical: Sequence[str | None]) -> NumberArray:
    """A property of each row, NaN where there is no molecule; each molecule is computed once."""
    distinct = list(dict.fromkeys(text for text in canonical if text is not None))
    values = np.asarray(function(distinct), dtype=float) if distinct else np.empty(0)
    known = dict(zip(distinct, values.tolist(), strict=True))
    return np.array([np.nan if text is None else known[text] for text in canonical], dtype=float)


def with_seeds(
    table: GeneratedTable, given: Sequence[str | None], canonical_smiles: Sequence[str | None]
) -> GeneratedTable:
    """The table with n seeds, as given and as `molcmim.chem` wrote them (None: a bad one), and similarities to them."""
    similarity = tanimoto(table.canonical_smiles, canonical_smiles)
    return replace(table, seed=[text or "" for text in given], tanimoto=similarity)


def tanimoto(a: Sequence[str | None], b: Sequence[str | None]) -> NumberArray:
    """Tanimoto similarity of each pair (a_i, b_i), Morgan fingerprints of radius 2 and 2048 bits: (n,) float64.

    Both hold SMILES that `molcmim.chem` has accepted, or None, which makes the pair NaN.

    >>> tanimoto(["CCO", "CCO", None], ["OCC", "c1ccccc1", "C"]).tolist()
    [1.0, 0.0, nan]
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdFingerprintGenerator
    from rdkit.DataStructs import TanimotoSimilarity

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=FINGERPRINT_RADIUS, fpSize=FINGERPRINT_BITS)
    with rdBase.BlockLogs():
        prints = {text: generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in {*a, *b} if text is not None}
    return np.array(
        [
            np.nan if x is None or y is None else TanimotoSimilarity(prints[x], prints[y])
            for x, y in zip(a, b, strict=True)
        ],
        dtype=float,
    )
