"""The table of generated molecules: columns, files byte for byte, statuses, similarity."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from molcmim.chem import Status
from molcmim.generated import (
    COLUMNS,
    GeneratedTable,
    Seeds,
    check_written,
    property_functions,
    tabulate,
    tanimoto,
    with_properties,
)

WRITTEN = ["OCC", None, "C1CC", "c1ccccc1O", "", None]


def table(properties: tuple[str, ...] = ()) -> GeneratedTable:
    """Six rows around OCC; the seed of the last one is bad, the vector of the second one isn't finite."""
    seeds = Seeds(
        ["OCC"] * 5 + ["nonsense"], ["CCO"] * 5 + [None], [Status.ok] * 5 + [Status.parse_error], [0.5] * 5 + [np.nan]
    )
    has_vector = np.array([True, False, True, True, True, False])
    repaired = np.array([False, False, False, True, False, False])
    return tabulate(WRITTEN, check_written(WRITTEN), has_vector, repaired, seeds, properties)


def test_rows_say_what_became_of_them() -> None:
    result = table()
    assert len(result) == 6
    assert result.canonical_smiles == ["CCO", None, None, "Oc1ccccc1", None, None]
    assert result.valid.tolist() == [True, False, False, True, False, False]
    assert result.status == ["ok", "no_vector", "parse_error", "ok", "empty", "seed_parse_error"]
    assert result.repaired.tolist() == [False, False, False, True, False, False]
    assert result.tanimoto[0] == 1.0
    assert 0 < result.tanimoto[3] < 1
    assert np.isnan(result.tanimoto[[1, 2, 4, 5]]).all()


def test_unfinished_rows_have_a_vector_and_no_text() -> None:
    result = tabulate([None], check_written([None]), np.array([True]), np.array([False]))
    assert result.status == ["unfinished"]
    assert result.seed == [""]
    assert np.isnan(result.distance).all()


def test_similarity_is_morgan_radius_2_2048_bits() -> None:
    from rdkit import Chem
    from rdkit.Chem import rdFingerprintGenerator

    a, b = "CC(=O)Oc1ccccc1C(=O)O", "O=C(O)c1ccccc1O"
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    x, y = (set(generator.GetFingerprint(Chem.MolFromSmiles(text)).GetOnBits()) for text in (a, b))
    assert tanimoto([a], [b])[0] == len(x & y) / len(x | y)


def test_csv_byte_for_byte(tmp_path: Path) -> None:
    table(("mw", "rings")).write(tmp_path / "x.csv")
    mw = [f"{value:.6g}" for value in property_functions(["mw"])["mw"](["CCO", "Oc1ccccc1"])]
    similar = f"{table().tanimoto[3]:.6g}"
    assert (tmp_path / "x.csv").read_bytes().decode() == (
        "smiles,canonical_smiles,valid,status,seed,distance,tanimoto,repaired,mw,rings\n"
        f"OCC,CCO,true,ok,OCC,0.5,1,false,{mw[0]},0\n"
        ",,false,no_vector,OCC,0.5,,false,,\n"
        "C1CC,,false,parse_error,OCC,0.5,,false,,\n"
        f"c1ccccc1O,Oc1ccccc1,true,ok,OCC,0.5,{similar},true,{mw[1]},1\n"
        ",,false,empty,OCC,0.5,,false,,\n"
        ",,false,seed_parse_error,nonsense,,,false,,\n"
    )
    assert os.listdir(tmp_path) == ["x.csv"]


def test_tsv_and_parquet_hold_the_same(tmp_path: Path) -> None:
    result = table(("qed",))
    result.write(tmp_path / "x.tsv")
    result.write(tmp_path / "x.parquet", {"model_id": "abc"})
    text = pd.read_csv(tmp_path / "x.tsv", sep="\t")
    stored = pq.read_table(tmp_path / "x.parquet")
    assert stored.schema.metadata[b"molcmim.model_id"] == b"abc"
    assert stored.column_names == [*COLUMNS, "qed"] == list(text.columns)
    assert stored["canonical_smiles"].to_pylist() == result.canonical_smiles
    assert stored["valid"].to_pylist() == text["valid"].tolist() == result.valid.tolist()
    assert stored["tanimoto"].null_count == 4
    np.testing.assert_allclose(stored["qed"].to_pandas(), result.properties["qed"])
    np.testing.assert_allclose(text["qed"], result.properties["qed"], rtol=1e-5)


def test_data_frame() -> None:
    frame = table(("qed",)).to_frame()
    assert list(frame.columns) == [*COLUMNS, "qed"]
    assert frame["valid"].dtype == bool
    assert frame.loc[3, "canonical_smiles"] == "Oc1ccccc1"


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.csv").write_text("old")

    def fail(self: GeneratedTable, part: Path, delimiter: str) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(GeneratedTable, "_write_text", fail)
    with pytest.raises(KeyboardInterrupt):
        table().write(tmp_path / "x.csv")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.csv": "old"}
    with pytest.raises(ValueError, match=r"ending in \.csv, \.tsv, \.parquet, got 'x\.xlsx'"):
        table().write(tmp_path / "x.xlsx")


def test_select_and_concatenate() -> None:
    result = table(("rings",))
    some = result.select(result.valid)
    assert some.canonical_smiles == ["CCO", "Oc1ccccc1"]
    assert some.properties["rings"].tolist() == [0, 1]
    both = GeneratedTable.concatenated([some, result.select([5, 0])])
    assert both.status == ["ok", "ok", "seed_parse_error", "ok"]
    assert both.smiles == ["OCC", "c1ccccc1O", None, "OCC"]
    assert len(result.select([])) == 0


def test_each_molecule_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from molcmim import objectives

    seen: list[list[str]] = []

    def count(smiles: list[str]) -> np.ndarray:
        seen.append(list(smiles))
        return np.arange(len(smiles), dtype=float)

    monkeypatch.setattr(objectives, "PROPERTIES", {"count": count})
    smiles = ["CC", "C", "CC", "C1"]
    bare = tabulate(smiles, check_written(smiles), np.ones(4, bool), np.zeros(4, bool))
    values = with_properties(bare, ["count"]).properties["count"]
    assert seen == [["CC", "C"]]
    np.testing.assert_array_equal(values, [0, 1, 0, np.nan])


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"properties: expected some of qed, logp.*; got 'beauty'"):
        table(("beauty",))
    with pytest.raises(ValueError, match="properties: expected a list of names, got the text 'qed'"):
        property_functions("qed")
    nothing = np.zeros(1)
    with pytest.raises(ValueError, match="columns: expected one length"):
        GeneratedTable(["C"], ["C", "C"], nothing, [""], nothing, nothing, nothing)
    with pytest.raises(ValueError, match="'seed' is the name of another column"):
        GeneratedTable(["C"], ["C"], nothing, [""], nothing, nothing, nothing, {"seed": nothing})
    assert GeneratedTable(["C", "C1"], ["C", None], [1, 0], ["", ""], [0, 0], [0, 0], [0, 0]).status == [
        "ok",
        "invalid",
    ]
