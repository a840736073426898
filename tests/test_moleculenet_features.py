"""Feature sets: names, classical values against RDKit's own, other models' vectors, the cache."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Descriptors, MACCSkeys, rdFingerprintGenerator

from molcmim.checkpoint_files import find_checkpoint, model_id, read_config
from molcmim.chem import prepare_many
from molcmim.moleculenet import features, features_classical
from molcmim.moleculenet.datasets import load_dataset
from molcmim.moleculenet.features import CLASSICAL, FeatureSpec, available, compute, parse_features
from molcmim.moleculenet.features_classical import classical, descriptor_names
from molcmim.moleculenet.features_npz import read_vectors
from molcmim.moleculenet.types import Dataset

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
MOLECULES = [
    ASPIRIN,
    "CCO ",  # blanks at the end are counted by the floor
    "C[N+](C)(C)CC#N.[Cl-]",
    "C[Si](C)(C)c1ccc(B(O)O)cc1",
    "FC(Br)(I)P(=O)(O)SCl",
    "c1ccc2c(c1)[nH]c1ccccc12",
]


def dataset(smiles: list[str], name: str = "esol") -> Dataset:
    canonical = [row.canonical_smiles or "" for row in prepare_many(smiles, workers=0)]
    n = len(smiles)
    return Dataset(
        name, name, "regression", ("y",), list(smiles), canonical, np.zeros((n, 1)), np.arange(n), sha256="0"
    )


def numbers(n: int, d: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float16)


def save(path: Path, smiles: list[str], emb: np.ndarray, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, smiles=np.array(smiles), emb=emb, **more)
    return path


def one(text: str, data_dir: Path | None = None) -> FeatureSpec:
    (spec,) = parse_features(text, data_dir)
    return spec


# ---------------------------------------------------------------------------------------------- classical


def test_floor_by_hand() -> None:
    atoms = {"C": 0, "N": 1, "O": 2, "F": 3, "P": 4, "S": 5, "Cl": 6, "Br": 7, "I": 8, "B": 9, "Si": 10}
    aspirin, ethanol, salt, boronic = CLASSICAL["floor"](MOLECULES[:4])
    #                              C  N  O  F  P  S Cl Br  I  B Si  arom. charge H double triple ring-bonds rings length
    assert aspirin.tolist() == [9, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 8, 2, 0, 6, 1, 21]
    assert ethanol.tolist() == [2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 4]
    assert salt.tolist() == [5, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11, 0, 1, 0, 0, 21]
    assert boronic[[atoms["C"], atoms["B"], atoms["Si"], atoms["O"]]].tolist() == [9, 1, 1, 2]


def test_fingerprints_equal_those_of_rdkit() -> None:
    mols = [Chem.MolFromSmiles(text) for text in MOLECULES]
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    maccs = CLASSICAL["maccs"](MOLECULES)
    assert maccs.shape == (6, 167) and not maccs[:, 0].any()
    for row, mol in zip(maccs, mols, strict=True):
        assert np.flatnonzero(row).tolist() == list(MACCSkeys.GenMACCSKeys(mol).GetOnBits())
    bits, counts = CLASSICAL["ecfp4"](MOLECULES), CLASSICAL["ecfp4-count"](MOLECULES)
    assert bits.shape == counts.shape == (6, 2048) and bits.dtype == counts.dtype == np.float32
    for row, count, mol in zip(bits, counts, mols, strict=True):
        assert np.flatnonzero(row).tolist() == list(generator.GetFingerprint(mol).GetOnBits())
        assert {i: count[i] for i in np.flatnonzero(count)} == generator.GetCountFingerprint(mol).GetNonzeroElements()
    assert counts.max() > 1


def test_rdkit2d_has_the_columns_of_rdkit() -> None:
    x = CLASSICAL["rdkit2d"](MOLECULES)
    assert x.shape == (6, 217) and x.dtype == np.float64
    for row, text in zip(x, MOLECULES, strict=True):
        expected = Descriptors.CalcMolDescriptors(Chem.MolFromSmiles(text), missingVal=np.nan)
        assert list(expected) == descriptor_names()
        values = np.array(list(expected.values()), dtype=np.float64)
        values[~np.isfinite(values)] = np.nan
        np.testing.assert_array_equal(row, values)
    assert x[0, descriptor_names().index("MolWt")] == pytest.approx(180.159, abs=1e-3)
    both = CLASSICAL["rdkit2d+ecfp4"](MOLECULES)
    np.testing.assert_array_equal(both, np.hstack([x, CLASSICAL["ecfp4"](MOLECULES)]))


def test_rdkit2d_in_processes_equals_that_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("joblib", reason="needs the `benchmark` extra")
    monkeypatch.setattr(features_classical, "CHUNK_ROWS", 2)
    texts = [*MOLECULES, "C1CC", "CO"]
    np.testing.assert_array_equal(classical("rdkit2d", texts, 2), classical("rdkit2d", texts, 1))
    with pytest.raises(ValueError, match="workers: expected None, 0 or more, got -1"):
        classical("rdkit2d", texts, -1)


def test_a_descriptor_that_fails_costs_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(mol: Chem.Mol) -> float:
        if mol.GetNumAtoms() == 3:
            raise TypeError("no value")
        return 1.0

    table = [("fails", fails), ("inf", lambda mol: np.inf), ("big", lambda mol: -1e300), ("MolWt", Descriptors.MolWt)]
    monkeypatch.setattr(Descriptors, "descList", table)
    x = CLASSICAL["rdkit2d"](["CCO", "CO"])
    np.testing.assert_allclose(x, [[np.nan, np.nan, -3e38, 46.069], [1, np.nan, -3e38, 32.042]], atol=1e-3)
    assert np.isfinite(x[:, 2].astype(np.float32)).all()


@pytest.mark.parametrize("name", CLASSICAL)
def test_texts_that_are_no_molecules_are_rows_of_nan(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    texts = ["C1CC", "CO", "", "C\u00e9", "CCO ethanol", "C" * 20000]
    x = CLASSICAL[name](texts)
    assert np.isnan(x).all(axis=1).tolist() == [True, False, True, True, True, True]
    assert np.isfinite(x[1]).all()
    assert CLASSICAL[name]([]).shape == (0, x.shape[1])
    assert capfd.readouterr().err == ""  # RDKit's complaints


def test_unknown_classical_set() -> None:
    with pytest.raises(ValueError, match=r"name: expected one of floor, maccs, .*, got 'ecfp6'"):
        classical("ecfp6", MOLECULES)


# ---------------------------------------------------------------------------------------------- names


def test_parse_names(tmp_path: Path) -> None:
    save(tmp_path / "peers" / "b_model" / "esol.npz", ["CO"], numbers(1))
    save(tmp_path / "peers" / "a_model" / "bbbp.npz", ["CO"], numbers(1))
    (tmp_path / "peers" / "nothing").mkdir()
    shipped = find_checkpoint("molcmim-tiny")
    specs = parse_features("molcmim-tiny:latent, rdkit2d,peers ,peer:b_model,rdkit2d,molcmim-tiny", tmp_path)
    assert specs == [
        FeatureSpec("molcmim-tiny:latent", "model", "molcmim-tiny", "latent", shipped),
        FeatureSpec("rdkit2d", "classical", "rdkit2d"),
        FeatureSpec("a_model", "npz", "a_model", "", tmp_path / "peers" / "a_model"),
        FeatureSpec("b_model", "npz", "b_model", "", tmp_path / "peers" / "b_model"),
        FeatureSpec("molcmim-tiny:both", "model", "molcmim-tiny", "both", shipped),
    ]
    assert [spec.label for spec in parse_features("floor,classical")] == list(CLASSICAL)
    labels = [spec.label for spec in parse_features("molcmim-tiny:all,mine=molcmim-tiny:all")]
    assert labels == [f"{name}:{kind}" for name in ("molcmim-tiny", "mine") for kind in features.EMBEDDINGS]
    assert [available(spec, "esol") for spec in specs] == [True, True, False, True, True]


def test_parse_vectors(tmp_path: Path) -> None:
    file = save(tmp_path / "a=b" / "esol.npz", ["CO"], numbers(1))
    for text in (f"npz:{file}", str(file)):
        assert one(text) == FeatureSpec("esol", "npz", "esol", "", file)
    assert one(f"npz:{file.parent}").label == one(str(file.parent)).label == "a=b"
    for text in (f"my model={file}", f"my model=npz:{file}"):
        assert one(text) == FeatureSpec("my model", "npz", "esol", "", file)
    assert one(f"x={file.parent}") == FeatureSpec("x", "npz", "a=b", "", file.parent)
    assert available(one(str(file)), "lipo") and not available(one(str(file.parent)), "lipo")


def test_peers_come_from_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "peers" / "theirs" / "esol.npz", ["CO"], numbers(1))
    monkeypatch.setenv("MOLCMIM_DATA", str(tmp_path))
    assert one("peers").path == one("peer:theirs").path == tmp_path / "peers" / "theirs"
    with pytest.raises(ValueError, match=r"peer: expected one of theirs, got '\.\./peers'"):
        parse_features("peer:../peers")
    monkeypatch.delenv("MOLCMIM_DATA")
    with pytest.raises(ValueError, match="expected MOLCMIM_DATA to name it"):
        parse_features("peers")
    with pytest.raises(ValueError, match="expected folders with"):
        parse_features("peers", tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one feature set, got ''"),
        (" , ", "at least one feature set"),
        ("ecfp6", r"expected one of floor, .* or a model as .*, got 'ecfp6' \(no checkpoint 'ecfp6'"),
        ("molcmim-tiny:hidden", "got 'molcmim-tiny:hidden'"),
        (":both", r"got ':both' \(no name\)"),
        ("npz:nowhere", r"expected a \.npz file or a folder that holds them, got 'nowhere'"),
        ("npz:", r"expected a \.npz file or a folder"),
        ("x=nowhere", "got 'nowhere'"),
        ("=molcmim-tiny", "printable label"),
        ("floor=molcmim-tiny", "'floor' is the name of RDKit features"),
        ("~no-such-user/x", "no such directory"),
    ],
)
def test_parse_errors(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        parse_features(text)


def test_equal_labels_are_refused(tmp_path: Path) -> None:
    for folder in "ab":
        save(tmp_path / folder / "esol.npz", ["CO"], numbers(1))
    a, b = tmp_path / "a" / "esol.npz", tmp_path / "b" / "esol.npz"
    with pytest.raises(ValueError, match=f"label of its own for each, got 'esol' for {a} and {b}; write LABEL={b}"):
        parse_features(f"{a},{b}")
    assert [spec.label for spec in parse_features(f"{a},b={b}")] == ["esol", "b"]


def test_names_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from molcmim.moleculenet.features import parse_features; parse_features('molcmim-tiny,floor');"
        "sys.exit(', '.join({'torch', 'sklearn', 'rdkit', 'joblib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights: knows few tokens, and 40 of them at most."""
    from tiny import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "mine", max_tokens=24)


def test_models_embed_and_leave_rows_of_nan(checkpoint: Path) -> None:
    from molcmim import MolCMIM

    texts = ["CCO", "[U]", "C" * 30, " c1ccccc1"]  # the second has an unknown token, the third is too long
    data = dataset(texts)
    specs = parse_features(f"{checkpoint}:all")
    assert [spec.label for spec in specs] == ["mine:latent", "mine:informative", "mine:both"]
    model = MolCMIM.from_pretrained(checkpoint)
    for spec, width in zip(specs, (24, 32, 56), strict=True):
        result = compute(spec, data, workers=0)
        assert result.x.shape == (4, width) and result.x.dtype == np.float32
        assert np.isnan(result.x).all(axis=1).tolist() == [False, True, True, False]
        assert (result.n_failed, result.label) == (2, spec.label)
        np.testing.assert_array_equal(result.x, model.embed(texts, kind=spec.embedding))
        for part in (model.model_id, f" {spec.embedding},", "policy canonical"):
            assert part in result.identity
    assert len({compute(spec, data).identity for spec in specs}) == 3


def test_models_of_one_name_and_models_without_decoder(checkpoint: Path, tmp_path: Path) -> None:
    from tiny import tiny_checkpoint

    other = tiny_checkpoint(tmp_path / "mine", objective="infonce", seed=1)
    with pytest.raises(ValueError, match=f"got 'mine:latent' for .*; write LABEL={other}"):
        parse_features(f"{checkpoint}:latent,{other}")
    labels = [spec.label for spec in parse_features(f"{checkpoint},new={other},newer={other}:all")]
    assert labels == ["mine:both", "new:latent", "newer:latent"]  # its only embedding
    with pytest.raises(ValueError, match="expected the embedding 'latent', got 'both': the model was trained with"):
        parse_features(f"{other}:both")
    same_weights = tiny_checkpoint(tmp_path / "again", seed=1, objective="infonce")
    assert model_id(read_config(same_weights)) == model_id(read_config(other))
    data = dataset(["CO"])
    same, different = compute(one(f"x={same_weights}"), data), compute(one(str(checkpoint)), data)
    assert same.identity == compute(one(str(other)), data).identity != different.identity


# ---------------------------------------------------------------------------------------------- vectors


def test_vectors_in_the_order_of_the_set(tmp_path: Path) -> None:
    texts, emb = ["CO", "OC", "CO", "CCO "], numbers(4)  # "CO" twice with different vectors: position tells
    emb[1] = np.nan
    emb[3, 0] = np.inf
    result = compute(one(str(save(tmp_path / "v.npz", texts, emb))), dataset(texts))
    assert result.x.dtype == np.float32 and result.n_failed == 1
    np.testing.assert_array_equal(result.x[[0, 2]], emb[[0, 2]].astype(np.float32))
    assert np.isnan(result.x[1]).all() and np.isnan(result.x[3]).tolist() == [True, False, False, False]


def test_vectors_in_another_order_with_molecules_missing(tmp_path: Path) -> None:
    texts, emb = ["CO", "CCO ", "CCCO", "CCCCO", "CCN", "CO"], numbers(5)
    in_file = ["CCN", "CCCO", "N", "CO", "OCC"]  # "OCC" is another text of "CCO "; "CCCCO" isn't there
    folder = save(tmp_path / "theirs" / "esol.npz", in_file, emb).parent
    result = compute(one(f"npz:{folder}"), dataset(texts))
    expected = emb.astype(np.float32)[[3, 4, 1, 0, 0, 3]]
    expected[3] = np.nan
    np.testing.assert_array_equal(result.x, expected)
    assert (result.n_failed, result.label) == (1, "theirs")
    assert result.identity == f"sha256 {read_vectors(folder / 'esol.npz').sha256}"
    with pytest.raises(FileNotFoundError, match=r"lipo\.npz: no vectors of theirs for lipo"):
        compute(one(f"npz:{folder}"), dataset(texts, "lipo"))


def test_vectors_repeated_in_the_file(tmp_path: Path) -> None:
    emb = np.array([[1, 2], [3, 4], [1.0001, 2], [np.nan, np.nan], [5, 6]], dtype=np.float32)
    data = dataset(["CCO", "CO"])
    rounded = save(tmp_path / "a.npz", ["CO", "CCO", "CO", "N", "N"], emb)  # those of N differ, but N isn't asked for
    np.testing.assert_array_equal(compute(one(str(rounded)), data).x, emb[[1, 0]])
    differ = save(tmp_path / "b.npz", ["CO", "CCO", "N", "N", "CO"], emb)
    with pytest.raises(ValueError, match=r"b\.npz: expected one vector for 'CO', got different ones in rows 0 and 4"):
        compute(one(str(differ)), data)
    by_canonical = save(tmp_path / "c.npz", ["CCO", "N", "OC", "N", "C(O)"], emb)
    with pytest.raises(ValueError, match="expected one vector for 'CO', got different ones in rows 2 and 4"):
        compute(one(str(by_canonical)), data)


def test_vectors_of_other_molecules(tmp_path: Path) -> None:
    file = save(tmp_path / "v.npz", ["CO", "OCC", "C1CC"], numbers(3))
    message = (
        "vectors of the 5 molecules of esol, but 1 match by SMILES text and 1 more by canonical SMILES: fewer than"
    )
    with pytest.raises(ValueError, match=message):
        compute(one(str(file)), dataset(["CO", "CCO", "CN", "CCN", "CCCN"]))
    compute(one(str(file)), dataset(["CO", "CCO", "CN", "CCN"]))  # half of them: allowed


def test_damaged_files_of_vectors(tmp_path: Path) -> None:
    def refused(message: str, name: str = "v.npz") -> None:
        with pytest.raises(ValueError, match=message) as caught:
            read_vectors(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)

    np.savez(tmp_path / "v.npz", names=np.array(["CO"]), emb=numbers(1))
    refused(r"expected the arrays 'smiles' and 'emb', got \['emb', 'names'\]")
    np.savez(tmp_path / "v.npz", smiles=np.array(["CO", None], dtype=object), emb=numbers(2))
    refused("Object arrays cannot be loaded when allow_pickle=False")
    (tmp_path / "v.npz").write_bytes(pickle.dumps({"smiles": ["CO"], "emb": [[1.0]]}))
    refused("plain arrays 'smiles' and 'emb': .*pickle")
    with (tmp_path / "v.npz").open("wb") as file:
        np.save(file, numbers(2))
    refused("it holds a single array")
    whole = save(tmp_path / "v.npz", ["CO"] * 50, numbers(50)).read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 30):
        (tmp_path / "v.npz").write_bytes(whole[:length])
        refused(r"expected a \.npz file of plain arrays")
    flipped = bytearray(whole)
    flipped[whole.index(numbers(50).tobytes()) + 7] ^= 1
    (tmp_path / "v.npz").write_bytes(flipped)
    refused("CRC")
    save(tmp_path / "v.npz", ["CO", "CCO"], numbers(3))
    refused(r"emb: expected numbers of shape \(2, d\), got float16 of shape \(3, 4\)")
    save(tmp_path / "v.npz", ["CO", "CCO"], np.array([["1"], ["2"]]))
    refused(r"emb: expected numbers of shape \(2, d\), got <U1 of shape \(2, 1\)")
    np.savez(tmp_path / "v.npz", smiles=np.arange(3), emb=numbers(3))
    refused(r"smiles: expected texts of shape \(m,\), got int64 of shape \(3,\)")
    np.savez(tmp_path / "v.npz", smiles=np.array([b"CO", b"CCO"]), emb=numbers(2).astype(np.float64) * 1e300)
    vectors = read_vectors(tmp_path / "v.npz")
    assert vectors.smiles == ["CO", "CCO"] and np.isnan(vectors.emb).all()
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file"):
        read_vectors(tmp_path / "none.npz")


# ---------------------------------------------------------------------------------------------- cache


def test_cache_is_used_checked_and_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, spec, cache = dataset(MOLECULES), one("ecfp4-count"), tmp_path / "deep" / "cache"
    calls = []

    def counted(name: str, smiles: list[str], workers: int | None = None) -> np.ndarray:
        calls.append(name)
        return classical(name, smiles, workers)

    monkeypatch.setattr(features, "classical", counted)
    first = compute(spec, data, cache)
    (file,) = cache.iterdir()
    assert file.name.startswith("esol-ecfp4-count-") and file.suffix == ".npy" and len(file.stem) == 17 + 12
    again = compute(spec, data, cache)
    np.testing.assert_array_equal(again.x, first.x)
    assert len(calls) == 1 and again[1:] == first[1:]

    whole = file.read_bytes()
    np.save(tmp_path / "short.npy", first.x[:-1])
    np.save(tmp_path / "text.npy", np.array([["a"]] * len(data)))
    pickled = pickle.dumps(first.x)
    short, text = (tmp_path / "short.npy").read_bytes(), (tmp_path / "text.npy").read_bytes()
    for damaged in (b"", whole[:40], whole[:-1], pickled, short, text, b"PK\x03\x04 no archive"):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(compute(spec, data, cache).x, first.x)
        assert file.read_bytes() == whole
    assert len(calls) == 8 and [path.name for path in cache.iterdir()] == [file.name]

    changed = dataset([*MOLECULES[:-1], "CO"])  # other molecules, another file of the cache
    assert compute(spec, changed, cache).x[-1].sum() != first.x[-1].sum()
    monkeypatch.setattr(features, "classical_identity", lambda name: "rdkit 1999.01.1")  # as does another RDKit
    compute(spec, data, cache)
    assert len(calls) == 10 and len(list(cache.iterdir())) == 3


def test_cache_names_are_safe_and_missing_rows_are_counted_from_it(tmp_path: Path) -> None:
    texts = ["CO", "CCO"]
    emb = np.array([[1, 2], [np.nan, np.nan]], dtype=np.float16)
    spec = FeatureSpec("../my model\u00e9:x", "npz", "v", "", save(tmp_path / "v.npz", texts, emb))
    data = dataset(texts, "../own table")
    results = [compute(spec, data, tmp_path / "cache") for _ in range(2)]
    (file,) = (tmp_path / "cache").iterdir()
    assert set(file.stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-") and not file.name.startswith(".")
    for result in results:
        assert result.n_failed == 1
        np.testing.assert_array_equal(result.x, emb.astype(np.float32))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="no space"):
        compute(one("floor"), dataset(["CO"]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind: expected 'model', 'classical' or 'npz', got 'graph'"):
        compute(FeatureSpec("x", "graph", "x"), dataset(["CO"]))


# ---------------------------------------------------------------------------------------------- real files

MISSING = {  # rows without a vector; the other peers have one for every molecule
    "jtvae_zinc": {"esol": 55, "freesolv": 24, "lipo": 1275, "bace": 303, "bbbp": 509},
    "chemvae_zinc": {"esol": 0, "freesolv": 0, "lipo": 10, "bace": 11, "bbbp": 151},
    "vicgae": {"esol": 1, "freesolv": 4, "lipo": 2, "bace": 5, "bbbp": 108},
}


@pytest.mark.data
def test_all_peers_load(data_dir: Path) -> None:
    specs = parse_features("peers", data_dir)
    assert set(MISSING) | {"minimol", "chemnet"} <= {spec.label for spec in specs}
    for name in ("esol", "freesolv", "lipo", "bace", "bbbp"):
        data = load_dataset(name, data_dir, workers=0)
        n = len(data)
        for spec in specs:
            result = compute(spec, data)
            assert result.n_failed == MISSING.get(spec.label, {}).get(name, 0), (name, spec.label)
            assert len(result.x) == n and not np.isnan(result.x).any(axis=1).sum() - result.n_failed
