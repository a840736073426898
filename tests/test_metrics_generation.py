"""Measures of generated molecules: values worked out by hand, slow equivalents, the published code's FCD."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import math
import os
import pathlib
import pickle
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.DataStructs import BulkTanimotoSimilarity
from typer.testing import CliRunner

from molcmim.cli_generation_metrics import generation
from molcmim.metrics import chemistry, moses, published, reference
from molcmim.metrics.fcd import WIDTH, ChemNet, Gaussian, frechet_distance
from molcmim.metrics.generation import by_seed, read_samples, table_text
from molcmim.metrics.known import KnownSet
from molcmim.metrics.molmim import molmim_metrics, reconstruction_metrics, without_stereo
from molcmim.metrics.reference import Moses, MosesFiles, load_moses

DRUGS = [
    "CC(=O)Oc1ccccc1C(=O)O", "CC(C)Cc1ccc(C(C)C(=O)O)cc1", "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "CC(=O)Nc1ccc(O)cc1",
    "CN1CCC(c2ccccc2)CC1", "O=C(NCc1ccccc1)c1ccccc1", "c1ccc(CN2CCCC2)cc1", "CCOc1ccccc1", "Cc1ccc(S(N)(=O)=O)cc1",
    "O=C(c1ccccc1)N1CCOCC1", "CCN(CC)CCNC(=O)c1ccc(N)cc1", "COc1ccc2[nH]cc(CCN)c2c1",
]  # fmt: skip
MCF = 'names,smarts\nMCF4,"[H]C([H])([#6])[F,Cl,Br,I]"\nMCF5,[#6]1-[#8]-[#6]-1\n'
PAINS = '"c:1:c:c:c(:c:c:1-[#8]-[#1])-[#8]-[#1]"   ,"<regId=diol(1)>"\n'


class FakeChemNet:
    """In place of ChemNet: a fixed vector for each letter, summed. Fast, and moves when molecules do."""

    def __init__(self, device: str = "cpu", batch_size: int = 512) -> None:
        self.table = np.random.default_rng(0).normal(size=(128, WIDTH))

    def gaussian(self, smiles: list[str], progress: object = None) -> Gaussian:
        x = np.stack([self.table[list(text.encode())].mean(axis=0) for text in smiles])
        return Gaussian(x.mean(axis=0), np.cov(x.T), len(x))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A flat folder like MOSES' files, with few molecules; test_scaffolds is the second half of the list."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name, rows in (("train", DRUGS[:4]), ("test", DRUGS[:8]), ("test_scaffolds", DRUGS[6:])):
        with gzip.open(folder / f"{name}.csv.gz", "wt") as file:
            file.write("SMILES\n" + "\n".join(rows) + "\n")
    (folder / "mcf.csv").write_text(MCF)
    (folder / "wehi_pains.csv").write_text(PAINS)
    return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "ChemNet", FakeChemNet)
    monkeypatch.setattr(moses, "ChemNet", FakeChemNet)


# ---- MolMIM ----


def test_molmim_by_hand() -> None:
    samples = [["CCO", "OCC", "CCN", "bad("], ["NCC", "CCC", None, "C1=CC=CC=C1"]]
    found = molmim_metrics(["OCC", "c1ccccc1"], samples, KnownSet.build(["CCN"]), workers=0)
    # seed 1: CCO twice and CCN are valid; seed 2: CCN, CCC and benzene
    assert found["validity"] == pytest.approx(6 / 8)
    assert found["uniqueness"] == pytest.approx((2 / 3 + 3 / 3) / 2)
    assert found["novelty"] == pytest.approx(3 / 4)  # of CCO, CCN, CCC, benzene only CCN is known
    assert found["non_identicality"] == pytest.approx(1 - (2 / 3 + 1 / 3) / 2)
    assert found["effective_novelty"] == pytest.approx((0 / 4 + 1 / 4) / 2)  # CCC is the only one that counts
    assert {key: found[key] for key in ("seeds", "generated", "valid", "distinct")} == {
        "seeds": 2, "generated": 8, "valid": 6, "distinct": 4,
    }  # fmt: skip


def test_molmim_a_seed_without_valid_samples() -> None:
    found = molmim_metrics(["CCO", "CCC"], [["CCN", "CCN"], ["(", ""]], KnownSet.build([]), workers=0)
    assert found["validity"] == 0.5
    assert found["uniqueness"] == 0.5 and found["non_identicality"] == 1.0  # the second seed says nothing
    assert found["effective_novelty"] == pytest.approx((1 / 2 + 0) / 2)  # but counts here


def test_molmim_without_training_set_or_anything_valid() -> None:
    found = molmim_metrics(["CCO"], [["CCN"]], workers=0)
    assert math.isnan(found["novelty"]) and math.isnan(found["effective_novelty"]) and found["uniqueness"] == 1.0
    found = molmim_metrics(["CCO"], [["("]], KnownSet.build([]), workers=0)
    assert found["validity"] == 0.0 and found["effective_novelty"] == 0.0
    assert all(math.isnan(found[key]) for key in ("uniqueness", "novelty", "non_identicality"))


def test_molmim_errors() -> None:
    with pytest.raises(ValueError, match="one list for each of at least 1 seed, got 1 for 2"):
        molmim_metrics(["C", "CC"], [["C"]])
    with pytest.raises(ValueError, match=r"seeds, row 1: expected a molecule, got 'C1CC' \(parse_error\)"):
        molmim_metrics(["C", "C1CC"], [["C"], ["C"]])


def test_reconstruction_by_hand() -> None:
    originals = ["C[C@H](N)C(=O)O", "F/C=C/F", "CCO", "CCN", "CCC"]
    decoded = ["C[C@@H](N)C(=O)O", "F/C=C/F", "OCC", "CCO", None]
    found = reconstruction_metrics(originals, decoded, workers=0)
    assert found == {"exact": 2 / 5, "ignoring_stereo": 3 / 5, "valid": 4 / 5, "n": 5}
    with pytest.raises(ValueError, match="as many rows as originals"):
        reconstruction_metrics(["C"], [])
    with pytest.raises(ValueError, match="originals, row 0"):
        reconstruction_metrics(["("], ["C"])


def test_without_stereo_is_canonical() -> None:
    for text in ("F/C=C\\Cl", "C[C@]1(O)CC[C@@H](N)CC1", "[2H][C@](C)(N)O", "CCO"):
        flat = without_stereo(text)
        assert not set("@/\\") & set(flat)
        assert Chem.CanonSmiles(flat) == flat
        assert Chem.MolToInchi(Chem.MolFromSmiles(flat)) == Chem.MolToInchi(Chem.MolFromSmiles(text), "-SNon")
    assert without_stereo("[2H][C@](C)(N)O") == Chem.CanonSmiles("[2H]C(C)(N)O")


# ---- parts of MOSES ----


def test_unique_and_novelty() -> None:
    valid = ["C", "CC", "C", "CCC"]
    assert moses.unique_at(valid, 2) == 1.0 and moses.unique_at(valid, 4) == 0.75
    assert math.isnan(moses.unique_at(valid, 5))
    assert moses.novelty(valid, KnownSet.build(["C", "CC"])) == pytest.approx(1 / 3)  # repeats count once
    assert math.isnan(moses.novelty([], KnownSet.build(["C"])))


def test_cosine_and_wasserstein() -> None:
    assert moses.cosine({"a": 1, "b": 2}, {"b": 3, "c": 4}) == pytest.approx(6 / (math.sqrt(5) * 5))
    assert moses.cosine({"a": 2}, {"a": 9}) == 1.0 and moses.cosine({"a": 2}, {"b": 1}) == 0.0
    assert math.isnan(moses.cosine({}, {"b": 1}))
    assert moses.wasserstein(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 2.0
    assert moses.wasserstein(np.array([0.0, np.nan]), np.array([0.0, 1.0])) == 0.5
    assert math.isnan(moses.wasserstein(np.array([np.nan]), np.array([1.0])))
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=137), rng.normal(1.0, 2.0, size=61).round(1)
    assert moses.wasserstein(a, b) == pytest.approx(scipy_stats.wasserstein_distance(a, b), abs=1e-12)


def packed(*bits: tuple[int, ...]) -> np.ndarray:
    rows = np.zeros((len(bits), chemistry.FINGERPRINT_BITS), dtype=np.uint8)
    for row, on in enumerate(bits):
        rows[row, list(on)] = 1
    return np.packbits(rows, axis=1)


def test_diversity_and_nearest_by_hand() -> None:
    pair = packed((0, 1), (1, 2))  # similarity 1/3
    plain, squared = moses.internal_diversity(pair)
    assert plain == pytest.approx(1 - (1 + 1 / 3) / 2) and squared == pytest.approx(1 - math.sqrt((1 + 1 / 9) / 2))
    assert moses.nearest_similarity(packed((0, 1), (5,)), packed((1, 2), (0, 1, 2, 3))).tolist() == [0.5, 0.0]
    assert moses.nearest_similarity(packed(()), packed(())).tolist() == [1.0]  # two empty ones are alike
    with pytest.raises(ValueError, match="at least 1 fingerprint"):
        moses.nearest_similarity(pair, packed())
    assert all(map(math.isnan, moses.internal_diversity(packed())))


def test_similarities_in_blocks_equal_rdkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moses, "BLOCK_ROWS", 5)
    bits = chemistry.describe(DRUGS).fingerprints
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in DRUGS]
    table = np.array([BulkTanimotoSimilarity(one, prints) for one in prints])
    assert moses.nearest_similarity(bits[:7], bits[7:]) == pytest.approx(table[:7, 7:].max(axis=1), abs=1e-6)
    plain, squared = moses.internal_diversity(bits)
    assert plain == pytest.approx(1 - table.mean(), abs=1e-6)
    assert squared == pytest.approx(1 - np.sqrt((table**2).mean(axis=1)).mean(), abs=1e-6)


def test_fragments_and_scaffolds() -> None:
    found = chemistry.describe(["CCOc1ccccc1", "CCOc1ccccc1", "CCC", "Cc1ccccc1CN1CCCC1"])
    assert found.fragments["[4*]CC"] == 2 and found.fragments["CCC"] == 1 and found.fragments["[3*]O[3*]"] == 2
    assert dict(found.scaffolds) == {"c1ccc(CN2CCCC2)cc1": 1}  # one ring is no scaffold
    assert chemistry.fragments(Chem.MolFromSmiles("CCO.CC")) == ["CC", "CCO"]


@pytest.mark.parametrize(
    ("smiles", "passes"),
    [
        ("CC(=O)Nc1ccccc1", True),
        ("CC[N+](C)(C)C", False),  # charge
        ("CCI", False),  # atom
        ("C1CCCCCCC1", False),  # ring of 8
        ("C1CCCCCC1", True),  # of 7
        ("CC1CO1", False),  # MCF5
        ("CCF", False),  # MCF4, which names its hydrogens
        ("FC(F)(F)c1ccccc1", True),
        ("Oc1cccc(O)c1", False),  # the made-up PAINS
        ("COc1cccc(OC)c1", True),
    ],
)
def test_filters(files: Path, smiles: str, passes: bool) -> None:
    filters = MosesFiles(files).filters()
    assert chemistry.describe([smiles], filters).passes.tolist() == [passes]
    assert not chemistry.describe([smiles]).passes.any()  # not looked at


def test_properties_of_aspirin() -> None:
    values = chemistry.describe(DRUGS[:1]).properties[0]
    assert values == pytest.approx([1.3101, 1.580, 0.5501, 180.159], abs=1e-3)


def test_describe_in_processes_equals_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("joblib")
    monkeypatch.setattr(chemistry, "CHUNK_ROWS", 5)
    steps: list[int] = []
    alone, parallel = chemistry.describe(DRUGS, ["[#8]"]), chemistry.describe(DRUGS, ["[#8]"], 2, steps.append)
    assert steps == [5, 5, 2]
    assert parallel.fragments == alone.fragments and parallel.scaffolds == alone.scaffolds
    for a, b in zip(alone[2:], parallel[2:], strict=True):
        assert np.array_equal(a, b)


def test_describe_errors() -> None:
    with pytest.raises(ValueError, match="expected canonical SMILES, got 'C1CC'"):
        chemistry.describe(["C1CC"])
    with pytest.raises(ValueError, match=r"expected SMARTS, got '\[#6'"):
        chemistry.describe(["C"], ["[#6"])
    with pytest.raises(ValueError, match="workers"):
        chemistry.describe(["C"], workers=-1)


# ---- FCD ----


def test_frechet_distance_by_hand() -> None:
    a = Gaussian(np.array([0.0, 1.0]), np.diag([4.0, 9.0]), 10)
    b = Gaussian(np.array([1.0, 3.0]), np.diag([1.0, 16.0]), 10)
    assert frechet_distance(a, b) == pytest.approx((1 + 4) + (2 - 1) ** 2 + (3 - 4) ** 2)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(1,\)"):
        frechet_distance(a, Gaussian(np.zeros(1), np.ones((1, 1)), 3))


def test_frechet_distance_equals_the_matrix_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(2)
    sets = [rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)) for _ in range(2)]
    a, b = (Gaussian(x.mean(axis=0), np.cov(x.T), len(x)) for x in sets)
    root = linalg.sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_chemnet_gives_what_fcd_torch_gives() -> None:
    fcd_torch = pytest.importorskip("fcd_torch")
    theirs, ours = fcd_torch.FCD(canonize=False), ChemNet(batch_size=5)
    steps: list[int] = []
    one, two = ours.gaussian(DRUGS, steps.append), ours.gaussian(DRUGS[:6])
    expected, other = theirs.precalc(DRUGS), theirs.precalc(DRUGS[:6])
    assert steps == [5, 5, 2] and one.n == 12
    assert one.mean == pytest.approx(expected["mu"], abs=1e-6)
    assert one.covariance == pytest.approx(expected["sigma"], abs=1e-6)
    assert frechet_distance(one, two) == pytest.approx(theirs.metric(expected, other), abs=1e-3)
    assert ours.activations([]).shape == (0, WIDTH)
    with pytest.raises(ValueError, match="at least 2 molecules"):
        ours.gaussian(["C"])


# ---- the data, and all of it together ----


def as_wheel(files: Path, wheel: Path) -> Path:
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in files.iterdir():
            archive.write(path, f"moses/{'dataset/data' if path.suffix == '.gz' else 'metrics'}/{path.name}")
    return wheel


def test_moses_files_in_a_wheel_or_a_folder(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "moses").mkdir(parents=True)
    wheel = as_wheel(files, tmp_path / "data" / "moses" / "molsets-0.3.1-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    monkeypatch.setenv("MOLCMIM_DATA", str(tmp_path / "data"))
    for place in (files, wheel, wheel.parent, tmp_path / "unpacked", tmp_path / "unpacked" / "moses", None):
        found = MosesFiles(place)
        assert found.smiles("test") == DRUGS[:8] and found.smiles("train") == DRUGS[:4]
        assert len(found.filters()) == 3 and found.filters()[1] == "[#6]1-[#8]-[#6]-1"
    with pytest.raises(ValueError, match="split: expected one of train, test, test_scaffolds"):
        MosesFiles(files).smiles("valid")


def test_missing_moses_says_how_to_get_it(files: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pip download molsets==0\.3\.1 --no-deps"):
        MosesFiles(tmp_path / "nowhere")
    (files / "mcf.csv").unlink()
    with pytest.raises(FileNotFoundError, match="no MOSES data in"):
        MosesFiles(files)
    (files / "mcf.csv").write_text("names,smarts\nx,[#6\n")
    with pytest.raises(ValueError, match="expected SMARTS"):
        MosesFiles(files).filters()
    with gzip.open(files / "test.csv.gz", "wt") as file:
        file.write("smi\nC\n")
    with pytest.raises(ValueError, match="column SMILES"):
        MosesFiles(files).smiles("test")


def test_references_are_made_once(files: Path, tmp_path: Path, fake: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_moses(files, tmp_path / "cache", workers=0)
    monkeypatch.setattr(reference, "make_reference", None)  # calling it would be an error
    kept = load_moses(files, tmp_path / "cache", workers=0)
    for a, b in zip(made[:2], kept[:2], strict=True):
        assert np.array_equal(a.gaussian.covariance, b.gaussian.covariance) and a.gaussian.n == b.gaussian.n
        assert a.fragments == b.fragments and a.scaffolds == b.scaffolds
        assert np.array_equal(a.fingerprints, b.fingerprints) and np.array_equal(a.properties, b.properties)
    assert kept.train.contains(DRUGS).tolist() == [True] * 4 + [False] * 8 and kept.filters == made.filters
    with zipfile.ZipFile(next(tmp_path.glob("cache/*/test/reference.npz"))) as archive:
        assert sorted(archive.namelist()) == ["covariance.npy", "fingerprints.npy", "mean.npy", "properties.npy"]
        assert not any(b"|O" in archive.read(name)[:128] for name in archive.namelist())  # no objects, so no pickle


def test_references_of_other_data_are_made_anew_and_damage_is_an_error(files: Path, tmp_path: Path, fake: None) -> None:
    load_moses(files, tmp_path / "cache", workers=0)
    with gzip.open(files / "test.csv.gz", "wt") as file:
        file.write("SMILES\n" + "\n".join(DRUGS[:5]) + "\n")
    assert load_moses(files, tmp_path / "cache", workers=0).test.gaussian.n == 5
    place = next(tmp_path.glob("cache/*/test"))
    (place / "reference.npz").write_bytes((place / "reference.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match="delete it to make it anew"):
        load_moses(files, tmp_path / "cache", workers=0)


def test_a_bad_row_of_a_reference_is_an_error(fake: None) -> None:
    with pytest.raises(ValueError, match=r"smiles, row 1: expected a molecule, got 'C1CC' \(parse_error\)"):
        reference.make_reference(["C", "C1CC"], workers=0)


@pytest.fixture
def data(files: Path, tmp_path: Path, fake: None) -> Moses:
    return load_moses(files, tmp_path / "cache", workers=0)


def test_the_test_set_itself_is_perfect(data: Moses) -> None:
    found = moses.moses_metrics([*DRUGS[:8], "bad(", None], data, workers=0)
    assert list(found)[:4] == ["n", "valid", "unique@1000", "unique@10000"]
    assert found["n"] == 10 and found["valid"] == 0.8 and math.isnan(found["unique@1000"])
    for name in ("SNN/Test", "Frag/Test", "Scaf/Test"):
        assert found[name] == pytest.approx(1.0)
    for name in ("logP", "SA", "QED", "weight"):
        assert found[name] == pytest.approx(0.0, abs=1e-9)
    assert found["FCD/Test"] == pytest.approx(0.0, abs=1e-4)  # roots of 504 eigenvalues that are 0 but for rounding
    assert found["Novelty"] == 0.5  # four of eight are in train
    assert 0.3 < found["SNN/TestSF"] < 1.0 and found["FCD/TestSF"] > 0.001
    assert 0.0 < found["Scaf/TestSF"] < 1.0
    assert found["Filters"] == pytest.approx(chemistry.describe(DRUGS[:8], data.filters).passes.mean())


def test_repeats_count_and_stereo_can_be_ignored(data: Moses) -> None:
    stereo = "C[C@H](C(=O)O)c1ccc(CC(C)C)cc1"  # of DRUGS[1], which is in train
    kept = moses.moses_metrics([stereo, stereo], data, workers=0, known=KnownSet.build([Chem.CanonSmiles(stereo)]))
    flat = moses.moses_metrics([stereo, DRUGS[1]], data, workers=0, ignore_stereo=True)
    assert (kept["Novelty"], flat["Novelty"]) == (1.0, 0.0) and kept["Novelty/known"] == 0.0
    assert kept["IntDiv"] == pytest.approx(0.0) and flat["SNN/Test"] == 1.0


def test_without_references_and_with_nothing_valid(data: Moses) -> None:
    found = moses.moses_metrics(DRUGS, None, workers=0)
    assert set(found) == {"n", "valid", "unique@1000", "unique@10000", "IntDiv", "IntDiv2"}
    assert "Filters" in moses.moses_metrics(DRUGS, None, workers=0, filters=data.filters)
    nothing = moses.moses_metrics(["(", None], data, workers=0)
    assert nothing["valid"] == 0.0 and all(
        math.isnan(value) for key, value in nothing.items() if key not in ("n", "valid")
    )
    with pytest.raises(ValueError, match="at least 1 row"):
        moses.moses_metrics([], data)


# ---- the published statistics ----


def program(value: object) -> bytes:
    """As molsets' files were written: protocol 2, by an older NumPy."""
    return pickle.dumps(value, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def published_statistics() -> dict[str, dict[str, Any]]:
    found = chemistry.describe(DRUGS[:8])
    gaussian = FakeChemNet().gaussian(DRUGS[:8])
    return {
        "FCD": {"mu": gaussian.mean.astype(np.float32), "sigma": gaussian.covariance},
        "SNN": {"fps": np.unpackbits(found.fingerprints, axis=1)},
        "Frag": {"frag": found.fragments},
        "Scaf": {"scaf": Counter({"C1=CC2=C(C=C1)C=CC=C2": 3, "c1ccc2ccccc2c1": 2})},  # the same one twice
        **{name: {"values": found.properties[:, i].tolist()} for i, name in enumerate(chemistry.PROPERTIES)},
    }


def test_objects_are_read_as_pickle_reads_them() -> None:
    fortran = np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3))
    whole = {"a": [1, 2.5, "x", None], "b": (1, -7, 300, 70000), "c": Counter("aab"), "d": fortran, "e": [], "f": {}}
    found = published.read_objects(program(whole))
    assert found.pop("d").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found == {key: value for key, value in whole.items() if key != "d"}
    assert published.read_objects(program([0.5, 1.5])).tolist() == [0.5, 1.5]


def test_anything_else_in_them_is_an_error_and_does_nothing(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "made"),)

    for bad in (Attack(), {"x": [Attack()]}, {1, 2}, pathlib.PurePosixPath("a")):
        with pytest.raises(ValueError, match="expected dictionaries, lists, numbers, texts and arrays"):
            published.read_objects(program({"deep": bad}))
    assert not (tmp_path / "made").exists()
    good = program({"a": [1.0, 2.0]})
    for cut in range(len(good)):
        with pytest.raises(ValueError, match="program"):
            published.read_objects(good[:cut])


def test_published_statistics_are_used_if_they_are_the_known_ones(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: None
) -> None:
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "|O", "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(files / "test_stats.npz", "w") as archive:
        archive.writestr("stats.npy", array.getvalue() + program(np.array(published_statistics(), dtype=object)))
    data = (files / "test_stats.npz").read_bytes()
    with pytest.raises(ValueError, match=r"expected molsets 0\.3\.1's statistics of test"):
        published.read_statistics(data, "test")
    computed = load_moses(files, tmp_path / "a", workers=0).test  # unknown bytes aren't opened
    monkeypatch.setattr(published, "KNOWN_SHA256", {"test": hashlib.sha256(data).hexdigest()})
    read = load_moses(files, tmp_path / "b", workers=0).test
    assert read.fragments == computed.fragments and dict(read.scaffolds) == {"c1ccc2ccccc2c1": 5}
    assert np.array_equal(read.fingerprints, computed.fingerprints)
    assert np.array_equal(read.properties, computed.properties)
    assert read.gaussian.covariance == pytest.approx(computed.gaussian.covariance) and read.gaussian.n == 8


# ---- files and the command ----


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".csv.gz"])
def test_read_samples(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"s{suffix}"
    columns = {"smiles": ["CCO", "", "CCN", "CC"], "seed": ["C", "C", "CC", "C"]}
    if suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        lines = zip(*([name, *values] for name, values in columns.items()), strict=True)
        text = "\n".join(("\t" if suffix == ".tsv" else ",").join(line) for line in lines) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    rows = read_samples(path, seeds_column="seed")
    assert rows.smiles == columns["smiles"] and rows.seeds == columns["seed"]
    assert by_seed(rows) == (["C", "CC"], [["CCO", "", "CC"], ["CCN"]])
    assert read_samples(path).seeds is None
    with pytest.raises(ValueError, match="expected a column 'start'"):
        read_samples(path, seeds_column="start")


def test_read_samples_errors(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("CCO\n\nCC\n")
    assert read_samples(tmp_path / "a.smi").smiles == ["CCO", "", "CC"]
    with pytest.raises(ValueError, match=r"a \.smi file has no columns"):
        read_samples(tmp_path / "a.smi", seeds_column="seed")
    (tmp_path / "e.csv").write_text("smiles,seed\n")
    with pytest.raises(ValueError, match="at least 1 row"):
        read_samples(tmp_path / "e.csv")
    (tmp_path / "m.csv").write_text("smiles,seed\nC,\n")
    with pytest.raises(ValueError, match="row 0: expected a seed"):
        read_samples(tmp_path / "m.csv", seeds_column="seed")
    with pytest.raises(ValueError, match="rows with seeds"):
        by_seed(read_samples(tmp_path / "a.smi"))


def run(*words: object) -> str:
    app = typer.Typer()
    app.command()(generation)
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_command_moses(files: Path, tmp_path: Path, fake: None) -> None:
    (tmp_path / "s.csv").write_text("smiles\n" + "\n".join([*DRUGS[:8], ""]) + "\n")
    (tmp_path / "mine.smi").write_text("\n".join(DRUGS[:2]) + "\n")
    arguments = ["--moses", files, "--cache", tmp_path / "c", "--out", tmp_path / "o", "--workers", 1]
    output = run(tmp_path / "s.csv", *arguments, "--known", tmp_path / "mine.smi")
    results = json.loads((tmp_path / "o" / "generation.json").read_text())
    numbers = results["tables"]["MOSES"]
    assert numbers["n"] == 9 and numbers["valid"] == pytest.approx(8 / 9) and numbers["unique@1000"] is None
    assert numbers["SNN/Test"] == pytest.approx(1.0) and numbers["Novelty/known"] == 0.75
    assert results["about"]["samples"] == "s.csv" and results["about"]["known"]["molecules"] == 2
    assert "valid ↑" in output and "0.8889" in output
    text = (tmp_path / "o" / "generation.md").read_text()
    assert "| unique@1k ↑ | - |" in text and "| generated | 9 |" in text and str(tmp_path) not in text
    assert KnownSet.open(tmp_path / "o" / "known.npy").contains(DRUGS[:3]).tolist() == [True, True, False]


def test_command_seeds(tmp_path: Path) -> None:
    with (tmp_path / "n.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("smiles", "seed"), ("CCN", "CCO"), ("CCO", "CCO"), ("bad(", "CCC"), ("CCCC", "CCC")])
    KnownSet.build(["CCN"]).save(tmp_path / "k.npy")
    output = run(tmp_path / "n.csv", "--seeds", "seed", "--known", tmp_path / "k.npy", "--out", tmp_path / "o")
    tables = json.loads((tmp_path / "o" / "generation.json").read_text())["tables"]
    assert list(tables) == ["MolMIM, around seeds"]
    numbers = tables["MolMIM, around seeds"]
    assert numbers["validity"] == 0.75 and numbers["novelty"] == pytest.approx(2 / 3)
    assert numbers["non_identicality"] == 0.75 and numbers["effective_novelty"] == 0.25
    assert "effective novelty ↑" in output and not (tmp_path / "o" / "known.npy").exists()


def test_table_text() -> None:
    text = table_text({"T": {"validity": 0.98765, "seeds": 1000, "other": 1.0}})
    assert text == "T\n  seeds        1,000\n  validity ↑  0.9877\n"


@pytest.mark.data
@pytest.mark.slow
def test_real_molecules_of_moses_score_as_published() -> None:
    """10,000 molecules of MOSES' test set, against its test sets: FCD 0.119 where others measured the same."""
    pytest.importorskip("fcd_torch")
    if not any(reference.default_cache().glob("*/test_scaffolds/about.json")):
        pytest.skip("needs the summaries of MOSES' test sets, which `molcmim benchmark generation` makes once")
    data = load_moses()
    rows = np.random.default_rng(0).choice(data.test.gaussian.n, size=10_000, replace=False)
    test = MosesFiles().smiles("test")
    sample = [test[row] for row in rows]
    assert frechet_distance(ChemNet().gaussian(sample), data.test.gaussian) == pytest.approx(0.119, abs=0.01)
