"""Which rows are trained on and which are tested on.

| function | held out | keeps together |
|---|---|---|
| `random_split` | 20 % of the molecules | equal molecules (by canonical SMILES) |
| `rows_split` | 20 % of the rows | nothing: equal molecules may stand on both sides |
| `scaffold_split` | the rarest scaffolds, 10 % valid and 10 % test | Bemis-Murcko scaffolds, row for row DeepChem's |
| `balanced_scaffold_split` | 20 %, smaller scaffolds in random order | Bemis-Murcko scaffolds and equal molecules |

Nothing here trusts a split, its own ones included: `check_split` does, `save_splits` and `load_splits` call it.

A Bemis-Murcko scaffold (J. Med. Chem. 1996, 39, 2887) is a molecule's rings and what links them. Molecules without a
ring all have the empty scaffold and so are one group, in DeepChem, in chemprop and here: in sets of small molecules
it can be the largest one by far.
"""

# Axes: n rows of a data set, m rows of a training part.

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molcmim.beside import written_beside
from molcmim.moleculenet.types import Dataset, Rows, Split

FORMAT_VERSION = 1
PARTS = ("train", "valid", "test")
SHOWN = 3  #: molecules that an error names


class SplitError(ValueError):
    """A split that can't be made, or that must not be used; the message says why."""


def random_split(dataset: Dataset, seed: int, train_share: float = 0.8) -> Split:
    """Random molecules: rows with equal canonical SMILES stay on one side.

    The distinct molecules, in the order of their first row, are permuted by ``RandomState(seed)`` and go to the
    training part until it has ``int(train_share * n)`` rows or more; the others, at least the last one, are the test
    part. Without equal molecules this is `rows_split`.

    Raises
    ------
    SplitError
        If that leaves a part empty, or `train_share` isn't between 0 and 1.
    """
    wanted = _wanted(len(dataset), train_share)
    groups = _groups(dataset.canonical)
    train: list[int] = []
    test: list[int] = []
    order = np.random.RandomState(seed).permutation(len(groups)).tolist()
    for k in order:
        # a molecule with many rows can overshoot, but the last one never does so at the cost of the test part
        (train if len(train) < wanted and k != order[-1] else test).extend(groups[k])
    return _two_parts(train, test, f"{dataset.name}: {len(dataset)} rows, {len(groups)} distinct molecules")


def rows_split(n: int, seed: int) -> Split:
    """Random rows: the first ``int(0.8 * n)`` of ``RandomState(seed).permutation(n)`` are the training part.

    Equal molecules may land on both sides; `check_split` counts them.

    Raises
    ------
    SplitError
        If n < 2.
    """
    order = np.random.RandomState(seed).permutation(n).tolist()
    wanted = int(0.8 * n)
    return _two_parts(order[:wanted], order[wanted:], f"{n} rows")


def scaffolds(dataset: Dataset) -> list[str]:
    """Bemis-Murcko scaffold of each row: n SMILES, without chirality, of the texts as given; "" without rings.

    Raises
    ------
    SplitError
        If RDKit finds none; names the row.
    """
    from rdkit import rdBase

    found = []
    with rdBase.BlockLogs():
        for k, text in enumerate(dataset.smiles):
            try:
                found.append(_scaffold(text))
            except (ValueError, RuntimeError) as error:  # RDKit's own exceptions are one or the other
                raise SplitError(f"{dataset.name}: no scaffold for row {k}, {text!r}: {error}") from error
    return found


def scaffold_split(dataset: Dataset) -> Split:
    """DeepChem's `ScaffoldSplitter` 80/10/10: the same rows, in the same order, in each part.

    Scaffolds go, the most frequent first and of equally frequent ones the one that starts last, to the training part
    if they fit in whole, else to the validation part if they fit, else to the test part. So the test part holds rare
    scaffolds, and there is one such split and no seed.

    Two rows with equal canonical SMILES have equal scaffolds as a rule, but not by construction, and neither is a part
    sure to have a row: `check_split` raises then.

    Raises
    ------
    SplitError
        If a row has no scaffold.
    """
    n = len(dataset)
    groups = sorted(_groups(scaffolds(dataset)), key=lambda rows: (len(rows), rows[0]), reverse=True)
    train: list[int] = []
    valid: list[int] = []
    test: list[int] = []
    for rows in groups:
        if len(train) + len(rows) <= 0.8 * n:
            train += rows
        elif len(train) + len(valid) + len(rows) <= 0.9 * n:
            valid += rows
        else:
            test += rows
    return Split(train=_rows(train), test=_rows(test), valid=_rows(valid))


def balanced_scaffold_split(dataset: Dataset, seed: int, train_share: float = 0.8) -> Split:
    """Scaffolds in random order, large ones to the training part: chemprop's balanced split, without a valid part.

    Scaffolds with more rows than half the test part come first, the largest ones leading, then the others in the order
    of ``RandomState(seed)``. Each goes to the training part if it fits in whole below ``train_share * n`` rows, else
    to the test part. A row goes with the first row that has its canonical SMILES.

    All molecules without a ring are one group, as in chemprop. A scaffold that alone is larger than the training part
    is to be is the training part and the rest the test part, whose share is then smaller than asked for.

    Raises
    ------
    SplitError
        If there are fewer than two scaffolds, or `train_share` isn't between 0 and 1.
    """
    first: dict[str, str] = {}
    labels = [first.setdefault(same, own) for same, own in zip(dataset.canonical, scaffolds(dataset), strict=True)]
    groups = _groups(labels)
    train, test = _fill(groups, _wanted(len(dataset), train_share), seed)
    return _two_parts(train, test, f"{dataset.name}: {len(dataset)} rows, {len(groups)} scaffolds")


def inner_folds(groups: Sequence[Hashable], train: npt.ArrayLike, n_folds: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Folds of a training part for choosing hyper-parameters; rows with equal labels stay together.

    Groups are shuffled and dealt, the largest first, to the fold that has the fewest rows so far. One fold
    means one 80/20 pair, filled as in `balanced_scaffold_split`.

    Parameters
    ----------
    groups
        n labels, one for each row of the *data set*: canonical SMILES or scaffolds.
    train
        (m,) rows of the data set.
    n_folds
        At least 1.

    Returns
    -------
    list of (fit, choose)
        Sorted positions *into* `train`. With several folds each position is in one `choose`.

    Raises
    ------
    SplitError
        If `train` isn't rows of the data set, or has fewer groups than folds (or than 2).
    """
    chosen = _checked_part(train, "train", len(groups))
    if n_folds < 1:
        raise SplitError(f"n_folds: expected at least 1, got {n_folds}")
    m, members = len(chosen), _groups([groups[row] for row in chosen])
    if len(members) < max(n_folds, 2):
        raise SplitError(
            f"n_folds={n_folds}: expected at least {max(n_folds, 2)} groups in the training part, got {len(members)}"
        )
    if n_folds == 1:
        fit, choose = _fill(members, max(1, int(0.8 * m)), seed)
        return [(np.sort(_rows(fit)), np.sort(_rows(choose)))]
    order = np.random.RandomState(seed).permutation(len(members))
    fold_of = np.empty(m, dtype=np.int64)
    sizes = [0] * n_folds
    for k in sorted(order, key=lambda k: -len(members[k])):  # stable: equally large ones stay shuffled
        fold = sizes.index(min(sizes))
        sizes[fold] += len(members[k])
        fold_of[members[k]] = fold
    return [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(n_folds)]


def check_split(split: Split, dataset: Dataset, allow_duplicates: bool = False) -> int:
    """Make sure that each row is in exactly one part and no molecule is in two.

    Parameters
    ----------
    allow_duplicates
        Count molecules that are in two parts (train, valid, test) instead of raising.

    Returns
    -------
    int
        How many distinct canonical SMILES are in more than one part; 0 unless `allow_duplicates`.

    Raises
    ------
    SplitError
        If a row is out of range, twice in a part, in two parts or in none; if `train` or `test` is empty; if a
        canonical SMILES is in two parts.
    """
    n = len(dataset)
    part_of = np.full(n, -1)
    for number, name in enumerate(PARTS):
        rows = _checked_part(getattr(split, name), name, n)
        if name != "valid" and not len(rows):
            raise SplitError(f"{name}: expected at least one row, got none")
        distinct, times = np.unique(rows, return_counts=True)
        if len(distinct) < len(rows):
            raise SplitError(f"{name}: expected each row once, got row {distinct[times > 1][0]} {times.max()} times")
        taken = distinct[part_of[distinct] >= 0]
        if len(taken):
            raise SplitError(f"row {taken[0]} is in {PARTS[part_of[taken[0]]]} and in {name}; {len(taken)} such rows")
        part_of[distinct] = number
    missing = np.flatnonzero(part_of < 0)
    if len(missing):
        raise SplitError(f"expected each of the {n} rows in a part, got row {missing[0]} in none; {len(missing)} such")

    first: dict[str, int] = {}
    straddling: dict[str, None] = {}  # a set that keeps the order
    for canonical, part in zip(dataset.canonical, part_of.tolist(), strict=True):
        if first.setdefault(canonical, part) != part:
            straddling[canonical] = None
    if straddling and not allow_duplicates:
        shown = ", ".join(list(straddling)[:SHOWN]) + (", ..." if len(straddling) > SHOWN else "")
        raise SplitError(f"expected no molecule in two parts, got {len(straddling)} (canonical SMILES): {shown}")
    return len(straddling)


def save_splits(path: str | os.PathLike[str], splits: Sequence[Split], dataset: Dataset, protocol_name: str) -> None:
    """Write splits as JSON, beside `path` first and then renamed.

    Rows are numbered as in the `Dataset`: from 0, among the molecules that RDKit reads. With them go the format's
    version, the protocol, the set's name, size and sha256, and the sha256 of its canonical SMILES.

    Raises
    ------
    SplitError
        If there are no splits, or `check_split` finds one wrong (molecules in two parts are let through).
    """
    if not len(splits):
        raise SplitError("splits: expected at least one, got none")
    for split in splits:
        check_split(split, dataset, allow_duplicates=True)
    record = _header(dataset, protocol_name)
    record["splits"] = [{name: np.asarray(getattr(split, name)).tolist() for name in PARTS} for split in splits]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as part:
        part.write_text(json.dumps(record) + "\n", encoding="ascii")


def load_splits(path: str | os.PathLike[str], dataset: Dataset, protocol_name: str) -> list[Split]:
    """The splits that `save_splits` wrote for this data set and protocol.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SplitError
        If it isn't such a file, was made for something else (the message says what differs), or `check_split` finds a
        split wrong (molecules in two parts are let through).
    """
    path = Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SplitError(f"{path}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise SplitError(f"{path}: expected a JSON object, got {type(record).__name__}")
    for key, expected in _header(dataset, protocol_name).items():
        got = record.get(key)
        if type(got) is not type(expected) or got != expected:
            hint = " (another file, or another RDKit version)" if key == "canonical_sha256" else ""
            raise SplitError(f"{path}: {key}: expected {expected!r}, got {got!r}{hint}")
    stored = record.get("splits")
    if not isinstance(stored, list) or not stored:
        raise SplitError(f"{path}: splits: expected a list of one or more, got {type(stored).__name__}")
    loaded = []
    for k, parts in enumerate(stored):
        try:
            split = _split_from_json(parts)
            check_split(split, dataset, allow_duplicates=True)
        except SplitError as error:
            raise SplitError(f"{path}: split {k}: {error}") from error
        loaded.append(split)
    return loaded


def _header(dataset: Dataset, protocol_name: str) -> dict[str, Any]:
    """What a file of splits has to say about the data that it is for."""
    return {
        "format_version": FORMAT_VERSION,
        "protocol": protocol_name,
        "dataset": dataset.name,
        "sha256": dataset.sha256,
        "n_rows": len(dataset),
        "canonical_sha256": hashlib.sha256("\n".join(dataset.canonical).encode()).hexdigest(),
    }


def _split_from_json(parts: object) -> Split:
    if not isinstance(parts, dict) or set(parts) != set(PARTS):
        got = sorted(parts) if isinstance(parts, dict) else type(parts).__name__
        raise SplitError(f"expected train, valid and test, got {got}")
    for name, rows in parts.items():
        if not isinstance(rows, list) or not all(type(row) is int and 0 <= row < 1 << 62 for row in rows):
            raise SplitError(f"{name}: expected a list of row numbers")
    return Split(**{name: _rows(rows) for name, rows in parts.items()})


@lru_cache(maxsize=1 << 18)  # five seeds of a protocol ask for the same scaffolds
def _scaffold(text: str) -> str:
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    molecule = Chem.MolFromSmiles(text)
    if molecule is None:
        raise ValueError("RDKit does not read it")
    return MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=False)


def _groups(labels: Iterable[Hashable]) -> list[list[int]]:
    """Positions of equal labels, groups in the order of their first position."""
    found: dict[Hashable, list[int]] = {}
    for position, label in enumerate(labels):
        found.setdefault(label, []).append(position)
    return list(found.values())


def _fill(groups: list[list[int]], wanted: int, seed: int) -> tuple[list[int], list[int]]:
    """Deal whole groups to a part of at most `wanted` rows and to the rest, see `balanced_scaffold_split`."""
    left = sum(map(len, groups)) - wanted
    order = np.random.RandomState(seed).permutation(len(groups)).tolist()
    # large groups by size, for if they don't all fit, then it is the smaller ones that should be left out; the
    # others keep their random order
    order.sort(key=lambda k: -len(groups[k]) if len(groups[k]) > left / 2 else 0)
    kept: list[int] = []
    rest: list[int] = []
    for k in order:
        (kept if not kept or len(kept) + len(groups[k]) <= wanted else rest).extend(groups[k])
    return kept, rest


def _wanted(n: int, train_share: float) -> int:
    if not 0 < train_share < 1:
        raise SplitError(f"train_share: expected a number between 0 and 1, got {train_share}")
    return int(train_share * n)


def _two_parts(train: list[int], test: list[int], what: str) -> Split:
    if not train or not test:
        raise SplitError(f"{what}: too few to split, {len(train)} rows would train and {len(test)} test")
    return Split(train=_rows(train), test=_rows(test))


def _checked_part(rows: npt.ArrayLike, name: str, n: int) -> Rows:
    """The rows as an array; SplitError unless they are whole numbers from 0 to n - 1 in one list."""
    array = np.asarray(rows)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise SplitError(f"{name}: expected a list of row numbers, got shape {array.shape} of {array.dtype}")
    array = array.astype(np.int64)
    wrong = array[(array < 0) | (array >= n)]
    if len(wrong):
        raise SplitError(f"{name}: expected rows from 0 to {n - 1}, got {wrong[0]}")
    return array


def _rows(rows: Sequence[int]) -> Rows:
    return np.array(rows, dtype=np.int64)
