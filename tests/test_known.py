"""Sets of molecules as hashes on disk: what is in is found, what isn't is not, and damage is an error."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rdkit

from molcmim.corpus_build import Source, build_corpus
from molcmim.metrics.known import HASH, KnownSet, hash_all

MOLECULES = ["CCO", "c1ccccc1", "CC(=O)O", "C[C@H](N)C(=O)O"]


def test_hash_is_the_first_eight_bytes_of_blake2b() -> None:
    digest = hashlib.blake2b(b"c1ccccc1", digest_size=8).digest()
    assert hash_all(["c1ccccc1", "CCO"]).tolist() == [int.from_bytes(digest, "little"), 14074757553414938733]
    assert hash_all([]).shape == (0,)


def test_contains_agrees_with_a_python_set() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("CNOcn1()="), size=rng.integers(1, 12))) for _ in range(3000)]
    inside, known = set(texts[:1500]), KnownSet.build(texts[:1500])
    assert len(known) == len(inside)
    assert known.contains(texts).tolist() == [text in inside for text in texts]
    assert (np.diff(known.hashes.astype(object)) > 0).all()


def test_none_and_the_empty_set_hold_nothing() -> None:
    known = KnownSet.build(MOLECULES)
    assert known.contains([None, "CCO", None, "CCN"]).tolist() == [False, True, False, False]
    assert known.contains([]).tolist() == []
    assert known.contains([None]).tolist() == [False]
    assert KnownSet.build([]).contains(["CCO"]).tolist() == [False]


def test_the_ends_of_the_array_are_found() -> None:
    known = KnownSet.build(MOLECULES)
    order = sorted(MOLECULES, key=lambda text: int(hash_all([text])[0]))
    assert known.contains([order[0], order[-1]]).all()
    assert not known.contains([f"C{n}" for n in range(200)]).any()  # also beyond both ends


def test_build_writes_molecules_again_unless_they_are_canonical() -> None:
    texts = ["OCC", "C1=CC=CC=C1", "CCO", "not a molecule", ""]
    known = KnownSet.build(texts, canonical=False, workers=1)
    assert known.contains(["CCO", "c1ccccc1", "OCC"]).tolist() == [True, True, False]
    expected = {"rows_read": 5, "rows_left_out": 2, "written_again": True, "rdkit": rdkit.__version__}
    assert known.about == expected
    assert KnownSet.build(texts).contains(["OCC", "c1ccccc1"]).tolist() == [True, False]


def test_saved_set_is_mapped_and_says_what_it_is(tmp_path: Path) -> None:
    KnownSet.build([*MOLECULES, "CCO"], about={"source": "four.smi"}).save(tmp_path / "new" / "known.npy")
    assert (tmp_path / "new" / "known.npy").stat().st_size == 128 + 8 * 4
    header = json.loads((tmp_path / "new" / "known.json").read_text())
    assert (header["format_version"], header["hash"], header["count"]) == (1, HASH, 4)
    known = KnownSet.open(tmp_path / "new" / "known.npy")
    assert isinstance(known.hashes.base, np.memmap)
    assert known.contains([*MOLECULES, "CCN"]).tolist() == [True] * 4 + [False]
    assert known.about["source"] == "four.smi" and known.about["rows_read"] == 5
    assert [path.name for path in sorted(tmp_path.rglob("*.*"))] == ["known.json", "known.npy"]  # no parts left


def test_from_files_and_corpora(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.smi.gz", "wt") as file:
        file.write("OCC ethanol\nC1=CC=CC=C1 benzene\n\n")
    known = KnownSet.from_source(tmp_path / "a.smi.gz", workers=1)
    assert known.contains(["CCO", "c1ccccc1"]).all() and known.about["source"] == "a.smi.gz"

    rows = ["C" * n + tail for n in range(1, 16) for tail in ("O", "N", "c1ccccc1", "C(=O)O")]
    (tmp_path / "rows.smi").write_text("\n".join(rows) + "\n")
    build_corpus([Source(tmp_path / "rows.smi", 1.0, "rows")], tmp_path / "corpus", valid_fraction=0.2, workers=1,
                 progress=False, min_count=1)  # fmt: skip
    train, valid = (KnownSet.from_corpus(tmp_path / "corpus", split) for split in ("train", "valid"))
    assert train.about["written_again"] is False  # policy canonical, the same RDKit
    assert len(train) + len(valid) == len(rows) and len(valid) > 2
    canonical = [rdkit.Chem.CanonSmiles(text) for text in rows]
    assert (train.contains(canonical) ^ valid.contains(canonical)).all()
    again = KnownSet.from_corpus(tmp_path / "corpus", canonical=False, workers=1)
    assert np.array_equal(again.hashes, train.hashes) and again.about["written_again"] is True
    KnownSet.from_source(tmp_path / "corpus").save(tmp_path / "k.npy")
    assert np.array_equal(KnownSet.from_source(tmp_path / "k.npy").hashes, train.hashes)


def test_a_corpus_of_unknown_preparation_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "rows.smi").write_text("OCC\nOCCC\nNCC\n")
    build_corpus([Source(tmp_path / "rows.smi", 1.0, "rows")], tmp_path / "corpus", policy="none", workers=1,
                 valid_fraction=0.0, progress=False, min_count=1)  # fmt: skip
    assert KnownSet.from_corpus(tmp_path / "corpus", workers=1).contains(["CCO", "CCCO", "CCN"]).all()
    assert not KnownSet.from_corpus(tmp_path / "corpus", canonical=True).contains(["CCO"]).any()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    KnownSet.build(MOLECULES).save(tmp_path / "known.npy")
    return tmp_path / "known.npy"


def edit_header(path: Path, **values: object) -> None:
    header = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(header | values))


def test_damage_is_an_error(saved: Path) -> None:
    good = np.load(saved)
    np.save(saved, good[::-1])
    with pytest.raises(ValueError, match="expected rising hashes"):
        KnownSet.open(saved)
    np.save(saved, good[:3])
    with pytest.raises(ValueError, match=r"expected 4 unsigned 64-bit numbers, got uint64 of shape \(3,\)"):
        KnownSet.open(saved)
    np.save(saved, good.astype(np.float64))
    with pytest.raises(ValueError, match="got float64"):
        KnownSet.open(saved)
    np.save(saved, good.astype(object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        KnownSet.open(saved)
    saved.write_bytes(b"")
    with pytest.raises(ValueError, match="an empty file"):
        KnownSet.open(saved)


def test_headers_that_do_not_fit_are_errors(saved: Path) -> None:
    edit_header(saved, format_version=2)
    with pytest.raises(ValueError, match="expected format 1"):
        KnownSet.open(saved)
    edit_header(saved, format_version=1, hash="md5")
    with pytest.raises(ValueError, match="'md5'"):
        KnownSet.open(saved)
    saved.with_suffix(".json").write_text("[]")
    with pytest.raises(ValueError, match="expected the header of a known set"):
        KnownSet.open(saved)
    saved.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"known\.json"):
        KnownSet.open(saved)


def test_wrong_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ending in \.npy, got 'known\.bin'"):
        KnownSet.build(MOLECULES).save(tmp_path / "known.bin")
    with pytest.raises(FileNotFoundError, match=r"expected a \.npy, a corpus directory or a file of SMILES"):
        KnownSet.from_source(tmp_path / "missing.npy")
    (tmp_path / "x.pdf").write_text("CCO")
    with pytest.raises(ValueError, match=r"x\.pdf"):
        KnownSet.from_source(tmp_path / "x.pdf")
