"""Splits: exact rows, molecules kept together, DeepChem's rows, and files that refuse other data."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rdkit import Chem, rdBase

from molcmim.moleculenet.splits import (
    SplitError,
    balanced_scaffold_split,
    check_split,
    inner_folds,
    load_splits,
    random_split,
    rows_split,
    save_splits,
    scaffold_split,
    scaffolds,
)
from molcmim.moleculenet.types import Dataset, Split

RINGS = ("c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "c1ccc2ccccc2c1", "C1CC1", "c1ccsc1", "C1CCCC1")


def make_dataset(smiles: Sequence[str], name: str = "own") -> Dataset:
    with rdBase.BlockLogs():
        canonical = [Chem.MolToSmiles(Chem.MolFromSmiles(text)) for text in smiles]
    n = len(canonical)
    y = np.arange(n, dtype=np.float64).reshape(n, 1)
    return Dataset(name, name, "regression", ("y",), list(smiles), canonical, y, np.arange(n), sha256="ab" * 32)


def labelled(labels: Sequence[str]) -> Dataset:
    """A set whose canonical SMILES are just labels, for what doesn't look at the molecules."""
    n = len(labels)
    y = np.zeros((n, 1))
    return Dataset("own", "own", "regression", ("y",), list(labels), list(labels), y, np.arange(n), sha256="ab" * 32)


@pytest.fixture(scope="module")
def mixed() -> Dataset:
    """120 molecules: chains without rings, substituted rings of eight kinds, some of them written twice."""
    random = np.random.default_rng(5)
    smiles = ["C" * k + "O" for k in range(1, 25)]
    for _ in range(84):
        ring = RINGS[min(int(random.geometric(0.35)), len(RINGS)) - 1]
        smiles.append("C" * int(random.integers(1, 9)) + random.choice(["", "O", "N", "C(=O)O"]) + "C" + ring)
    smiles += ["OC", "OCC", " CCCO ", "c1ccccc1C", "C[C@H](O)c1ccccc1", "C[C@@H](O)c1ccccc1"] * 2
    return make_dataset([smiles[k] for k in random.permutation(len(smiles))])


# ------------------------------------------------------------------------------------- random


def test_rows_split_is_the_first_four_fifths_of_numpys_permutation() -> None:
    split = rows_split(10, 3)
    assert split.train.tolist() == [5, 4, 1, 2, 9, 6, 7, 0]
    assert split.test.tolist() == [3, 8]
    assert split.valid.tolist() == []
    assert (len(rows_split(1513, 0).train), len(rows_split(1513, 0).test)) == (1210, 303)


@pytest.mark.parametrize("seed", range(3))
def test_random_split_of_distinct_molecules_is_rows_split(seed: int) -> None:
    split, plain = random_split(labelled([f"m{k}" for k in range(57)]), seed), rows_split(57, seed)
    assert split.train.tolist() == plain.train.tolist()
    assert split.test.tolist() == plain.test.tolist()


def test_random_split_permutes_molecules_and_adds_all_their_rows() -> None:
    labels = ["a", "b", "a", "c", "d", "b", "e", "f", "a", "g"]  # 7 distinct, int(0.8 * 10) = 8 rows wanted
    members: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        members.setdefault(label, []).append(row)
    for seed in range(20):
        expected: list[int] = []
        for k in np.random.RandomState(seed).permutation(7)[:-1]:  # the last one is tested on whatever its size
            if len(expected) >= 8:
                break
            expected += members["abcdefg"[k]]
        split = random_split(labelled(labels), seed)
        assert split.train.tolist() == expected
        assert sorted(split.train.tolist() + split.test.tolist()) == list(range(10))
        assert check_split(split, labelled(labels)) == 0


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "a", "a"]])
def test_random_split_says_when_there_is_nothing_to_split(labels: list[str]) -> None:
    with pytest.raises(SplitError, match=rf"own: {len(labels)} rows, {len(set(labels))} distinct molecules: too few"):
        random_split(labelled(labels), 0)


def test_splits_refuse_impossible_sizes() -> None:
    with pytest.raises(SplitError, match="1 rows: too few to split, 0 rows would train and 1 test"):
        rows_split(1, 0)
    with pytest.raises(SplitError, match=r"train_share: expected a number between 0 and 1, got 1\.5"):
        random_split(labelled(["a", "b"]), 0, 1.5)


# ----------------------------------------------------------------------------------- scaffolds


def test_scaffolds_leave_chirality_and_substituents_out() -> None:
    dataset = make_dataset(["CCO", "Cc1ccccc1", " Cc1ccccc1 ", "C[C@H]1CC[C@@H](c2ccccc2)CC1", "O=C1CCCN1"])
    assert scaffolds(dataset) == ["", "c1ccccc1", "c1ccccc1", "c1ccc(C2CCCCC2)cc1", "O=C1CCCN1"]


def test_a_text_without_scaffold_is_named() -> None:
    with pytest.raises(SplitError, match=r"own: no scaffold for row 1, 'C1CC': RDKit does not read it"):
        scaffolds(labelled(["CCO", "C1CC"]))


def test_scaffold_split_puts_frequent_scaffolds_in_training() -> None:
    # groups by (size, first row), descending: benzene 5; chains 3; then single ones from the last to the first
    smiles = ["C1CC1", "Cc1ccccc1", "CCO", "Oc1ccccc1", "CCN", "Nc1ccccc1", "C1CCC1", "Fc1ccccc1", "CCC", "Clc1ccccc1"]
    split = scaffold_split(make_dataset(smiles))
    assert split.train.tolist() == [1, 3, 5, 7, 9, 2, 4, 8]  # 8 of 10
    assert split.valid.tolist() == [6]
    assert split.test.tolist() == [0]


def test_scaffold_split_with_one_scaffold_leaves_training_empty_as_deepchem_does_and_the_check_says_so() -> None:
    dataset = make_dataset(["CCO", "CCN", "CCC", "C1CC1"])
    split = scaffold_split(make_dataset(["CCO", "CCN", "CCC"]))
    assert [len(part) for part in (split.train, split.valid, split.test)] == [0, 0, 3]
    with pytest.raises(SplitError, match="train: expected at least one row, got none"):
        check_split(split, make_dataset(["CCO", "CCN", "CCC"]))
    assert check_split(scaffold_split(dataset), dataset) == 0


def deepchem_rows(dataset: Dataset) -> list[list[int]]:
    """Train, valid and test rows by DeepChem itself."""
    deepchem = pytest.importorskip("deepchem")
    with rdBase.BlockLogs():
        stored = deepchem.data.NumpyDataset(X=np.zeros(len(dataset)), ids=np.array(dataset.smiles, dtype=object))
        return [[int(row) for row in part] for part in deepchem.splits.ScaffoldSplitter().split(stored)]


def read_smiles(path: Path, column: str) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file, rdBase.BlockLogs():
        texts = [record[column] for record in csv.DictReader(file)]
        return [text for text in texts if Chem.MolFromSmiles(text) is not None]


def test_scaffold_split_is_deepchems(mixed: Dataset) -> None:
    split = scaffold_split(mixed)
    assert [part.tolist() for part in (split.train, split.valid, split.test)] == deepchem_rows(mixed)


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "sizes"), [("delaney-processed.csv.gz", [902, 113, 113]), ("BBBP.csv.gz", [1631, 204, 204])]
)
def test_scaffold_split_is_deepchems_on_real_sets(data_dir: Path, file: str, sizes: list[int]) -> None:
    dataset = make_dataset(read_smiles(data_dir / "moleculenet" / file, "smiles"))
    split = scaffold_split(dataset)
    parts = [part.tolist() for part in (split.train, split.valid, split.test)]
    assert [len(part) for part in parts] == sizes
    assert check_split(split, dataset) == 0
    assert parts == deepchem_rows(dataset)


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "column", "duplicates"),
    [
        ("delaney-processed.csv.gz", "smiles", [6, 3, 5, 4, 4]),
        ("SAMPL.csv.gz", "smiles", [0] * 5),  # half of it has no ring
        ("BBBP.csv.gz", "smiles", [23, 19, 18, 25, 23]),
    ],
)
def test_splits_of_real_sets(data_dir: Path, file: str, column: str, duplicates: list[int]) -> None:
    dataset = make_dataset(read_smiles(data_dir / "moleculenet" / file, column))
    n = len(dataset)
    assert [check_split(rows_split(n, seed), dataset, allow_duplicates=True) for seed in range(5)] == duplicates
    for seed in range(5):
        for split in (random_split(dataset, seed), balanced_scaffold_split(dataset, seed)):
            assert check_split(split, dataset) == 0
            assert abs(len(split.train) / n - 0.8) < 0.05


# --------------------------------------------------------------------------- balanced scaffolds


def test_balanced_split_keeps_scaffolds_and_molecules_together_and_depends_on_the_seed(mixed: Dataset) -> None:
    own = np.array(scaffolds(mixed))
    tests = set()
    for seed in range(5):
        split = balanced_scaffold_split(mixed, seed)
        assert check_split(split, mixed) == 0
        assert not set(own[split.train]) & set(own[split.test])
        assert abs(len(split.train) / len(mixed) - 0.8) < 0.05
        again = balanced_scaffold_split(mixed, seed)
        assert again.train.tolist() == split.train.tolist()
        tests.add(tuple(sorted(split.test.tolist())))
    assert len(tests) > 1


def test_balanced_split_by_hand() -> None:
    # 10 rows, 8 wanted, 2 left: the 4 benzenes and the 2 chains are more than half of 2 and come first, then singles
    smiles = [
        "C1CC1",
        "CCO",
        "Cc1ccccc1",
        "C1CCC1",
        "Oc1ccccc1",
        "CCN",
        "C1CCCC1",
        "Nc1ccccc1",
        "C1CCCCC1",
        "Fc1ccccc1",
    ]
    groups = [[0], [1, 5], [2, 4, 7, 9], [3], [6], [8]]  # by first row
    order = np.random.RandomState(7).permutation(6).tolist()
    singles = [k for k in order if len(groups[k]) == 1]
    split = balanced_scaffold_split(make_dataset(smiles), 7)
    assert split.train.tolist() == [2, 4, 7, 9, 1, 5] + [groups[k][0] for k in singles[:2]]
    assert split.test.tolist() == [groups[k][0] for k in singles[2:]]


@pytest.mark.parametrize("seed", range(3))
def test_a_scaffold_larger_than_the_training_part_is_the_training_part(seed: int) -> None:
    smiles = ["C1CC1", *["C" * k + "O" for k in range(1, 10)]]
    split = balanced_scaffold_split(make_dataset(smiles), seed)
    assert split.train.tolist() == list(range(1, 10))
    assert split.test.tolist() == [0]


def test_balanced_split_needs_two_scaffolds() -> None:
    with pytest.raises(SplitError, match="own: 3 rows, 1 scaffolds: too few to split, 3 rows would train and 0 test"):
        balanced_scaffold_split(make_dataset(["CCO", "CCN", "CCC"]), 0)


# ----------------------------------------------------------------------------------- inner folds


@pytest.mark.parametrize("n_folds", [1, 2, 3, 5])
def test_inner_folds_are_positions_in_the_training_part_and_keep_groups_together(n_folds: int) -> None:
    groups = [f"g{(k * 7) % 31}" for k in range(200)]
    train = np.random.RandomState(1).permutation(200)[:150]
    folds = inner_folds(groups, train, n_folds, seed=0)
    assert len(folds) == n_folds
    for fit, choose in folds:
        assert sorted([*fit.tolist(), *choose.tolist()]) == list(range(150))
        assert not {groups[train[k]] for k in fit} & {groups[train[k]] for k in choose}
    sizes = [len(choose) for _, choose in folds]
    if n_folds == 1:
        assert 26 <= sizes[0] <= 38
    else:
        assert sum(sizes) == 150
        assert max(sizes) - min(sizes) <= 8  # groups have up to 7 rows
    again = inner_folds(groups, train, n_folds, seed=0)
    assert all(
        a.tolist() == b.tolist() for one, two in zip(folds, again, strict=True) for a, b in zip(one, two, strict=True)
    )
    other = inner_folds(groups, train, n_folds, seed=1)
    assert folds[0][1].tolist() != other[0][1].tolist()


def test_inner_folds_of_single_rows_differ_by_at_most_one_and_one_fold_is_a_plain_fifth() -> None:
    sizes = [len(choose) for _, choose in inner_folds(list(range(50)), np.arange(50), 3, seed=4)]
    assert sorted(sizes) == [16, 17, 17]
    [(fit, choose)] = inner_folds(list(range(50)), np.arange(50), 1, seed=4)
    order = np.random.RandomState(4).permutation(50)
    assert (fit.tolist(), choose.tolist()) == (sorted(order[:40].tolist()), sorted(order[40:].tolist()))


def test_a_dominating_group_is_fitted_on() -> None:
    [(fit, choose)] = inner_folds(["big"] * 9 + ["small"], range(10), 1, seed=0)
    assert (fit.tolist(), choose.tolist()) == (list(range(9)), [9])


def test_inner_folds_refuse_what_they_cannot_do() -> None:
    with pytest.raises(SplitError, match="n_folds=3: expected at least 3 groups in the training part, got 2"):
        inner_folds(["a", "a", "b", "c"], np.array([0, 1, 2]), 3, 0)
    with pytest.raises(SplitError, match="n_folds=1: expected at least 2 groups in the training part, got 1"):
        inner_folds(["a", "a"], np.array([0, 1]), 1, 0)
    with pytest.raises(SplitError, match="n_folds: expected at least 1, got 0"):
        inner_folds(["a", "b"], np.array([0, 1]), 0, 0)
    with pytest.raises(SplitError, match="train: expected rows from 0 to 1, got 2"):
        inner_folds(["a", "b"], np.array([0, 2]), 2, 0)


# ------------------------------------------------------------------------------------- checking

FIVE = labelled(["a", "b", "c", "d", "e"])
PAIRS = labelled(["a", "b", "a", "b", "c", "c", "d", "d", "e"])


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split(rows(0, 1, 2, 5), rows(3, 4)), "train: expected rows from 0 to 4, got 5"),
        (Split(rows(0, 1, 2), rows(3, -1)), "test: expected rows from 0 to 4, got -1"),
        (Split(rows(0, 1, 1), rows(2, 3, 4)), "train: expected each row once, got row 1 2 times"),
        (Split(rows(0, 1, 2), rows(2, 3, 4)), "row 2 is in train and in test; 1 such rows"),
        (Split(rows(0, 1, 2), rows(4), rows(3, 0)), "row 0 is in train and in valid; 1 such rows"),
        (Split(rows(0, 1), rows(2)), "expected each of the 5 rows in a part, got row 3 in none; 2 such"),
        (Split(rows(), rows(0, 1, 2, 3, 4)), "train: expected at least one row, got none"),
        (Split(rows(0, 1, 2, 3, 4), rows()), "test: expected at least one row, got none"),
        (Split(np.array([0.0, 1.0]), rows(2, 3, 4)), r"train: expected a list of row numbers, got shape \(2,\) of f"),
        (Split(rows(0, 1), rows(2, 3, 4).reshape(1, 3)), r"test: expected a list of row numbers, got shape \(1, 3\)"),
    ],
)  # fmt: skip
def test_check_split_finds(split: Split, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        check_split(split, FIVE)


def test_check_split_counts_molecules_on_both_sides() -> None:
    assert check_split(Split(rows(0, 1, 2), rows(3, 4)), FIVE) == 0
    split = Split(rows(0, 1, 4, 6, 8), rows(2, 5), rows(3, 7))  # a, c: train and test; b, d: train and valid
    with pytest.raises(
        SplitError, match=r"expected no molecule in two parts, got 4 \(canonical SMILES\): a, b, c, \.\.\.$"
    ):
        check_split(split, PAIRS)
    assert check_split(split, PAIRS, allow_duplicates=True) == 4
    with pytest.raises(SplitError, match=r"got 1 \(canonical SMILES\): e$"):
        check_split(Split(rows(0), rows(2), rows(1)), labelled(["x", "e", "e"]))  # valid against test
    assert issubclass(SplitError, ValueError)


# ---------------------------------------------------------------------------------------- files


def test_saved_splits_come_back_equal(tmp_path: Path, mixed: Dataset) -> None:
    path = tmp_path / "splits" / "own-scaffold.json"
    splits = [scaffold_split(mixed), random_split(mixed, 0), rows_split(len(mixed), 1)]
    save_splits(path, splits, mixed, "scaffold")
    loaded = load_splits(path, mixed, "scaffold")
    assert [[part.tolist() for part in split] for split in loaded] == [[part.tolist() for part in s] for s in splits]
    assert all(part.dtype == np.int64 for split in loaded for part in split)
    assert [file.name for file in path.parent.iterdir()] == ["own-scaffold.json"]
    save_splits(path, splits[:1], mixed, "scaffold")  # replaces
    assert len(load_splits(path, mixed, "scaffold")) == 1


def test_nothing_wrong_is_saved_and_an_older_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    save_splits(path, [Split(rows(0, 1, 2), rows(3, 4))], FIVE, "random5")
    before = path.read_bytes()
    with pytest.raises(SplitError, match="got row 3 in none"):
        save_splits(path, [Split(rows(0, 1, 2), rows(4))], FIVE, "random5")
    with pytest.raises(SplitError, match="splits: expected at least one, got none"):
        save_splits(path, [], FIVE, "random5")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["s.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version: expected 1, got 2"),
        ({"format_version": True}, "format_version: expected 1, got True"),
        ({"protocol": "scaffold"}, "protocol: expected 'random5', got 'scaffold'"),
        ({"dataset": "esol"}, "dataset: expected 'own', got 'esol'"),
        ({"sha256": "cd"}, "sha256: expected 'abab"),
        ({"n_rows": 6}, "n_rows: expected 5, got 6"),
        ({"canonical_sha256": ""}, r"canonical_sha256: expected '\w{64}', got '' \(another file, or another RDKit"),
        ({"splits": []}, "splits: expected a list of one or more"),
        ({"splits": [[0]]}, "split 0: expected train, valid and test, got list"),
        ({"splits": [{"train": [0], "test": [1]}]}, r"expected train, valid and test, got \['test', 'train'\]"),
        ({"splits": [{"train": [0, 1.0], "valid": [], "test": [2, 3, 4]}]}, "train: expected a list of row numbers"),
        ({"splits": [{"train": [0, True], "valid": [], "test": [2, 3, 4]}]}, "train: expected a list of row numbers"),
        ({"splits": [{"train": [0, 1], "valid": [], "test": [2, 3, 1 << 70]}]}, "test: expected a list of row numbers"),
        ({"splits": [{"train": [0, 1], "valid": [], "test": [2, 3]}]}, "expected each of the 5 rows in a part"),
        ({"splits": [{"train": [0, 1, 9], "valid": [], "test": [2, 3]}]}, "split 0: train: expected rows from 0 to 4"),
    ],
)  # fmt: skip
def test_load_splits_says_what_differs(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "s.json"
    save_splits(path, [Split(rows(0, 1, 2), rows(3, 4))], FIVE, "random5")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SplitError, match=message) as caught:
        load_splits(path, FIVE, "random5")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not JSON"), (b"\xff\xfe", "not JSON"), (b"[" * 100_000, "not JSON"), (b"[1]", "JSON object, got list")],
)
def test_load_splits_of_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(content)
    with pytest.raises(SplitError, match=message):
        load_splits(path, FIVE, "random5")
    with pytest.raises(FileNotFoundError):
        load_splits(tmp_path / "none.json", FIVE, "random5")


def test_load_splits_notices_other_molecules(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    save_splits(path, [Split(rows(0, 1, 2), rows(3, 4))], FIVE, "random5")
    with pytest.raises(SplitError, match="canonical_sha256: expected"):
        load_splits(path, labelled(["a", "b", "c", "d", "x"]), "random5")
