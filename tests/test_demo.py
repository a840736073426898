"""data/example.smi has the statuses it is meant to have, and the demo's summary says what is in the file."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from molcmim.chem import Status, prepare_many
from molcmim.pretrained import DEFAULT, available

# Rows of data/example.smi that no policy and no vocabulary can save: name (or the whole line) -> status.
DIRTY = {
    "": Status.empty,
    "   ": Status.empty,
    "InChI_instead_of_SMILES": Status.parse_error,
    "aspirin_cyrillic_O": Status.not_ascii,
    "carbon_with_five_bonds": Status.parse_error,
    "five_ring_cannot_be_aromatic": Status.parse_error,
    "glucose_with_a_dash": Status.not_ascii,
    "name": Status.parse_error,  # the header of some other file, pasted in
    "name_instead_of_SMILES": Status.parse_error,
    "not_available": Status.parse_error,
    "polyox": Status.too_many_chars,
    "reaction": Status.parse_error,
    "ring_not_closed": Status.parse_error,
}
# Fine for RDKit, not for a model: longer than 200 tokens.
TOO_LONG = "macrogol_3350"


@pytest.fixture(scope="module")
def demo(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", root / "scripts" / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module
    spec.loader.exec_module(module)
    return module


def example_rows(root: Path) -> list[tuple[str, str]]:
    lines = (root / "data" / "example.smi").read_text(encoding="utf-8").split("\n")[:-1]
    return [(smiles, name or smiles) for smiles, _, name in (line.partition("\t") for line in lines)]


def test_example_file_has_the_statuses_it_is_meant_to_have(root: Path) -> None:
    rows = example_rows(root)
    assert len(rows) == len({name for _, name in rows}) == 102
    prepared = prepare_many([smiles for smiles, _ in rows], workers=0)
    statuses = {name: row.status for (_, name), row in zip(rows, prepared, strict=True)}
    assert {name: status for name, status in statuses.items() if status is not Status.ok} == DIRTY
    good = [row.canonical_smiles for row in prepared if row.status is Status.ok]
    assert len(good) == len(set(good)) == 89


def test_neighbours_leave_out_the_molecule_itself_and_repeats(demo: ModuleType) -> None:
    vectors = [[1.0, 0.0], None, [0.9, 0.1], [2.0, 0.0], [0.8, 0.2], [0.9, 0.1], [0.0, 1.0]]
    table = pa.table({
        "status": ["ok", "empty", "ok", "ok", "ok", "ok", "ok"],
        "canonical_smiles": [demo.ASPIRIN, None, "CCO", demo.ASPIRIN, "CCN", "CCO", "CCC"],
        "embedding": pa.array(vectors, pa.list_(pa.float32(), 2)),
    })
    found = demo.neighbours_of(demo.ASPIRIN, table, list("abcdefg"), n=3)
    assert [(near.name, near.smiles) for near in found] == [("c", "CCO"), ("e", "CCN"), ("g", "CCC")]
    assert [near.cosine for near in found] == pytest.approx([0.9 / 0.82**0.5, 0.8 / 0.68**0.5, 0.0], abs=1e-6)


@pytest.mark.skipif(DEFAULT not in available(), reason=f"the checkpoint {DEFAULT} does not ship yet")
def test_demo_prints_what_is_in_its_file(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "scripts/demo.py", "--limit", "100", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    table = pq.read_table(tmp_path / "embeddings.parquet")
    names = [name for _, name in example_rows(root)]
    statuses = table["status"].to_pylist()
    assert table.num_rows == len(names) + 100
    got = dict(zip(names, statuses, strict=False))
    assert {name: got[name] for name in DIRTY} == DIRTY
    assert got[TOO_LONG] == "too_many_tokens"
    assert got["aspirin"] == "ok"

    assert "202 rows in, 202 rows out" in done.stdout
    printed = {m[1]: int(m[2]) for m in re.finditer(r"^  (\w+) +(\d+)  ", done.stdout, flags=re.MULTILINE)}
    assert printed == Counter(statuses)
    near = re.findall(r"^  ([01]\.\d{3})  ([01]\.\d\d)  \S+ +\S+$", done.stdout, flags=re.MULTILINE)
    assert len(near) == 3
    assert [cosine for cosine, _ in near] == sorted((cosine for cosine, _ in near), reverse=True)
