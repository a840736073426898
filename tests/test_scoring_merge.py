"""Shards into one file: Parquet, .npy with .csv and .json; refused while a shard is missing."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scoring_tools import BAD, contents, facts_of, molecules, run_job, table_of, write_smi
from tiny import tiny_checkpoint

from molcmim import MolCMIM
from molcmim.scoring.int8 import dequantise
from molcmim.scoring.manifest import JobOptions, ManifestError
from molcmim.scoring.merge import merge_shards


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MolCMIM:
    return MolCMIM.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("merge") / "tiny"), device="cpu")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    texts = molecules(50)
    texts[7:41:5] = BAD[:7]
    return texts


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_parquet(model: MolCMIM, texts: list[str], tmp_path: Path, dtype: str) -> None:
    source, folder = write_smi(tmp_path / "in.smi", texts), tmp_path / "out"
    manifest, summary = run_job(model, source, folder, JobOptions(dtype=dtype), shard_rows=15)
    before = contents(folder)
    seen: list[int] = []
    assert merge_shards(folder, tmp_path / "all.parquet", seen.append) == (50, summary.statuses)
    merged, shards = pq.read_table(tmp_path / "all.parquet"), table_of(folder)
    assert merged.equals(shards.cast(merged.schema))
    assert merged.column_names == shards.column_names
    assert seen == [15, 15, 15, 5]
    facts = facts_of(tmp_path / "all.parquet")
    assert (facts["model_id"], facts["dtype"], facts["n_rows"]) == (model.model_id, dtype, "50")
    assert facts["fingerprint"] == manifest.fingerprint
    assert Counter(json.loads(facts["statuses"])) == summary.statuses
    assert contents(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "in.smi", "out"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_npy_with_csv_and_json(model: MolCMIM, texts: list[str], tmp_path: Path, dtype: str) -> None:
    source, folder = write_smi(tmp_path / "in.smi", texts), tmp_path / "out"
    run_job(model, source, folder, JobOptions(dtype=dtype), shard_rows=15)
    merge_shards(folder, tmp_path / "all.npy")
    table = table_of(folder)
    array = np.load(tmp_path / "all.npy")
    assert (array.dtype, array.shape) == (np.dtype(dtype), (50, 56))
    with open(tmp_path / "all.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = ["id", "smiles", "canonical_smiles", "status", *(["scale"] if dtype == "int8" else [])]
    assert list(rows[0]) == columns
    for name in columns[:4]:
        assert [row[name] for row in rows] == [value or "" for value in table[name].to_pylist()]
    for i, vector in enumerate(table["embedding"].to_pylist()):
        if vector is not None:
            assert array[i].tolist() == vector
        else:
            assert np.isnan(array[i]).all() if dtype != "int8" else not array[i].any()
    if dtype == "int8":
        assert [row["scale"] == "" for row in rows] == [row["status"] != "ok" for row in rows]
        ok = [i for i, row in enumerate(rows) if row["status"] == "ok"]
        scale = np.array([float(rows[i]["scale"]) for i in ok], dtype=np.float32)
        np.testing.assert_allclose(dequantise(array[ok], scale), model.embed([texts[i] for i in ok]), atol=2e-2)
    assert json.loads((tmp_path / "all.json").read_text())["model_id"] == model.model_id


def test_typed_columns_stay_typed(model: MolCMIM, tmp_path: Path) -> None:
    table = pa.table(
        {
            "smiles": pa.array(["CCO", "bad", "CCN"]),
            "assay": pa.array([1.5, None, 2.5], pa.float64()),
            "scale": pa.array([1, 2, 3], pa.int32()),
            "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    run_job(model, tmp_path / "in.parquet", tmp_path / "out", JobOptions(dtype="int8"), shard_rows=2)
    merge_shards(tmp_path / "out", tmp_path / "all.parquet")
    merged = pq.read_table(tmp_path / "all.parquet")
    names = ["id", "assay", "input_scale", "tags", "smiles", "canonical_smiles", "status", "embedding", "scale"]
    assert merged.column_names == names
    for name, own in [("assay", "assay"), ("scale", "input_scale"), ("tags", "tags")]:
        assert merged[own].to_pylist() == table[name].to_pylist()
        assert merged.schema.field(own).type == table.schema.field(name).type
    assert merged.schema.field("scale").type == pa.float32()


def test_no_rows(model: MolCMIM, tmp_path: Path) -> None:
    (tmp_path / "in.smi").write_bytes(b"")
    run_job(model, tmp_path / "in.smi", tmp_path / "out")
    assert list(contents(tmp_path / "out")) == ["manifest.json", "part-00000.parquet"]
    assert merge_shards(tmp_path / "out", tmp_path / "all.parquet") == (0, Counter())
    table = pq.read_table(tmp_path / "all.parquet")
    assert (table.num_rows, table.schema.field("embedding").type) == (0, pa.list_(pa.float32(), 56))
    merge_shards(tmp_path / "out", tmp_path / "all.npy")
    assert np.load(tmp_path / "all.npy").shape == (0, 56)


def test_refusals_leave_an_old_output_alone(model: MolCMIM, tmp_path: Path) -> None:
    source, folder, output = write_smi(tmp_path / "in.smi", molecules(50)), tmp_path / "out", tmp_path / "all.parquet"
    output.write_text("old")
    run_job(model, source, folder, shard_rows=15)
    with pytest.raises(ValueError, match="expected a file outside the folder of shards"):
        merge_shards(folder, folder / "all.parquet")
    with pytest.raises(ValueError, match=r"ending in \.parquet or \.npy"):
        merge_shards(folder, tmp_path / "all.csv")
    with pytest.raises(FileNotFoundError, match="no such directory"):
        merge_shards(folder, tmp_path / "no" / "all.parquet")
    part = folder / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    (folder / "part-00003.parquet").unlink()
    match = "expected 4 finished shards, got 2 that are not: part-00001.parquet, part-00003.parquet$"
    with pytest.raises(ManifestError, match=match):
        merge_shards(folder, output)
    (folder / "manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"it has no manifest\.json"):
        merge_shards(folder, output)
    assert output.read_text() == "old"
