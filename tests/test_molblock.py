"""Mol blocks as rows: what RDKit reads of them, in this process and in workers, under every policy."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from molcmim.chem import (
    MAX_BLOCK_CHARS,
    POLICIES,
    MolBlock,
    Prepared,
    PreparedBlock,
    Status,
    WorkerPool,
    prepare,
    prepare_many,
)
from molcmim.readers import Chunk, with_smiles
from molcmim.scoring.source import open_source

SALT = "C[C@H](N)C(=O)[O-].[Na+]"


def block(smiles: str, version: int = 2000, dimensions: int = 2) -> MolBlock:
    molecule = Chem.MolFromSmiles(smiles)
    if dimensions == 3:
        molecule = Chem.AddHs(molecule)
        AllChem.EmbedMolecule(molecule, randomSeed=1)
    else:
        AllChem.Compute2DCoords(molecule)
    return MolBlock(Chem.MolToMolBlock(molecule) if version == 2000 else Chem.MolToV3KMolBlock(molecule))


def chain(n_atoms: int) -> str:
    """A V3000 block of a chain of carbons, as short as can be."""
    atoms = "".join(f"M  V30 {i + 1} C 0 0 0 0\n" for i in range(n_atoms))
    bonds = "".join(f"M  V30 {i} 1 {i} {i + 1}\n" for i in range(1, n_atoms))
    return (
        "\n\n\n  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\n"
        f"M  V30 COUNTS {n_atoms} {n_atoms - 1} 0 0 0\nM  V30 BEGIN ATOM\n{atoms}M  V30 END ATOM\n"
        f"M  V30 BEGIN BOND\n{bonds}M  V30 END BOND\nM  V30 END CTAB\nM  END\n"
    )


BAD = {
    "": "empty",
    " \n\n\r\n": "empty",
    "\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n": "zero_atoms",
    "no mol block": "parse_error",
    block("CCO")[:120]: "parse_error",  # cut off in the middle
    block("CCO").replace(" O ", " Q1"): "parse_error",
    block("CCO").replace("  1  2  1  0", "  1 99  1  0"): "parse_error",  # a bond to an atom that isn't there
    block("CCO").replace("  2  1  0", "  2  3  0").replace("  3  1  0", "  3  3  0"): "parse_error",  # valence
    block("CCO").replace(" O ", " \u00f6 "): "not_ascii",
    "\n" * 4 + "x" * (MAX_BLOCK_CHARS + 1): "too_many_chars",
    chain(2001): "too_many_chars",  # a SMILES of more than 2,000 characters
    chain(6000): "too_many_chars",
}


@pytest.mark.parametrize("policy", POLICIES)
def test_statuses_and_smiles(policy: str) -> None:
    rows = [MolBlock(text) for text in BAD] + [block(SALT), "OCC", "C C", None]
    expected = [Prepared(None, Status(status)) for status in BAD.values()]
    ok = {"none": (SALT, "OCC"), "canonical": (SALT, "CCO"), "parent": ("C[C@H](N)C(=O)O", "CCO")}[policy]
    expected += [Prepared(text, Status.ok) for text in ok]
    expected += [Prepared(None, Status.parse_error), Prepared(None, Status.empty)]
    here = prepare_many(rows, policy, workers=0)
    with WorkerPool(2, policy) as pool:
        there = pool.map(rows)
    assert here == there == [prepare(row, policy) for row in rows] == expected
    for answers in (here, there):
        given = with_smiles(Chunk([str(row) for row in rows], [None] * len(rows), []), answers)
        assert given.smiles == [str(row) for row in rows]  # texts that aren't mol blocks stay
        given = with_smiles(Chunk(rows, [None] * len(rows), []), answers)  # type: ignore[arg-type]
        assert given.smiles[: len(BAD) + 1] == [""] * len(BAD) + [SALT]


def test_the_longest_chain_that_is_ok() -> None:
    assert prepare(MolBlock(chain(2000))) == Prepared("C" * 2000, Status.ok)


@pytest.mark.parametrize("version", [2000, 3000])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("smiles", ["C[C@H](O)F", "C[C@@H](O)F", "F/C=C/F", "F/C=C\\F", "[13CH3]C", "C[NH+](C)C", "*C"])
def test_stereo_isotopes_and_charges(version: int, dimensions: int, smiles: str) -> None:
    if dimensions == 3 and smiles == "*C":
        pytest.skip("RDKit makes no 3D coordinates for it")
    answer = prepare(block(smiles, version, dimensions))
    assert answer == Prepared(Chem.CanonSmiles(smiles), Status.ok)
    assert isinstance(answer, PreparedBlock)
    assert answer.smiles == answer.canonical_smiles


@pytest.mark.parametrize("fault", ["exit", "segv", "memory", "hang"])
@pytest.mark.parametrize("policy", ["none", "canonical"])
def test_a_block_that_kills_its_worker_costs_one_row(monkeypatch: pytest.MonkeyPatch, fault: str, policy: str) -> None:
    bad = block("CCCN")
    monkeypatch.setenv("MOLCMIM_FAULTS", json.dumps({bad: fault}))
    rows = [block("CCO")] * 20 + [bad] + [block("CCN")] * 20
    with WorkerPool(1, policy, timeout=1.0) as pool:
        answers = pool.map(rows)
    status = Status.timeout if fault == "hang" else Status.crash
    assert answers == [Prepared("CCO", Status.ok)] * 20 + [Prepared(None, status)] + [Prepared("CCN", Status.ok)] * 20
    given = with_smiles(Chunk(rows, [None] * 41, []), answers)  # type: ignore[arg-type]
    assert given.smiles == ["CCO"] * 20 + [""] + ["CCN"] * 20


def test_policy_none_starts_processes_for_blocks_only() -> None:
    with WorkerPool(1, "none") as pool:
        assert pool.map(["CCO"]) == [Prepared("CCO", Status.ok)]
        assert pool._drivers == []
        assert pool.map([block("OCC"), "OCC"]) == [Prepared("CCO", Status.ok), Prepared("OCC", Status.ok)]
        assert pool.map(["CCO", MolBlock("")]) == [Prepared("CCO", Status.ok), Prepared(None, Status.empty)]
        assert len(pool._drivers) == 1


def test_pickling_keeps_both_types() -> None:
    answer = prepare(block("OCC"))
    again = pickle.loads(pickle.dumps((block("OCC"), answer)))
    assert [type(value) for value in again] == [MolBlock, PreparedBlock]
    assert (again[1], again[1].smiles) == (answer, "CCO")


def test_from_a_file_with_titles_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "in.sdf"
    molecules = ["C[C@H](O)F", "CCO", SALT]
    records = [text.encode().split(b"\n", 3) for text in map(block, molecules)]
    for number, lines in enumerate(records):
        lines[0], lines[2] = b"name \xe9 %d" % number, b"made by \xc3\xa9"
    damaged = b"bad\n\n\n  1  0\nM  END"
    texts = [b"\n".join(lines) for lines in records]
    texts.insert(1, damaged)
    path.write_bytes(b"".join(text.rstrip(b"\n") + b"\n> <n>\n%d\n\n$$$$\n" % i for i, text in enumerate(texts)))
    with open_source(path) as source, WorkerPool(1) as pool:
        (chunk,) = source.read()
        answers = pool.map(chunk.smiles)
        chunk = with_smiles(chunk, answers)
    assert [answer.status.value for answer in answers] == ["ok", "parse_error", "ok", "ok"]
    assert chunk.smiles == [molecules[0], "", *molecules[1:]]
    assert chunk.id == ["name \ufffd 0", "bad", "name \ufffd 1", "name \ufffd 2"]
    assert chunk.extra == [["0", "1", "2", "3"]]
