"""Properties against RDKit and by hand, objectives, and oracles that fail."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rdkit import Chem, RDConfig
from rdkit.Chem import QED, Crippen, Descriptors

from molcmim import sa_score
from molcmim.objectives import PROPERTIES, Objective, evaluate, oracle_name, property_function, similarity_to

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
MACROCYCLE = "C1CCCCCCCC1"  # nine atoms: three over six


def test_properties_are_those_of_rdkit() -> None:
    molecule = Chem.MolFromSmiles(ASPIRIN)
    expected = {
        "qed": QED.qed(molecule),
        "logp": Crippen.MolLogP(molecule),
        "mw": 180.159,
        "tpsa": 63.6,
        "hbd": 1,
        "hba": 3,
        "rings": 1,
        "heavy": 13,
    }
    for name, value in expected.items():
        assert PROPERTIES[name]([ASPIRIN])[0] == pytest.approx(value, abs=1e-3), name
    assert PROPERTIES["mw"](["O"])[0] == pytest.approx(Descriptors.MolWt(Chem.MolFromSmiles("O")))


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_bad_row_is_nan_and_shifts_no_other(name: str) -> None:
    values = PROPERTIES[name]([ASPIRIN, "C1CC", "", "CCO"])
    assert values.dtype == np.float64
    assert np.isnan(values).tolist() == [False, True, True, False]
    assert values[3] == PROPERTIES[name](["CCO"])[0]
    assert PROPERTIES[name]([]).shape == (0,)


def test_sa_is_rdkits_own_program() -> None:
    """The values of RDKit's unit test for it, in its file of examples."""
    lines = (Path(RDConfig.RDContribDir) / "SA_Score/data/zim.100.txt").read_text().splitlines()[1:40]
    rows = [line.split("\t") for line in lines]
    assert PROPERTIES["sa"]([smiles for smiles, *_ in rows]) == pytest.approx([float(row[2]) for row in rows], abs=1e-2)


def test_an_unknown_sa_table_is_used_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sa_score, "TABLE_SHA256", "0" * 64)
    with caplog.at_level(logging.WARNING):
        program = sa_score._program.__wrapped__()
    assert "isn't the one known" in caplog.text
    assert program.calculateScore(Chem.MolFromSmiles("CCO")) == PROPERTIES["sa"](["CCO"])[0]


def test_without_contrib_the_error_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(RDConfig, "RDContribDir", str(tmp_path))
    with pytest.raises(ImportError, match="Contrib/SA_Score"):
        sa_score._program.__wrapped__()


def test_penalised_logp_by_hand() -> None:
    logp, sa = (PROPERTIES[name]([MACROCYCLE, "CCO"]) for name in ("logp", "sa"))
    assert PROPERTIES["plogp-raw"]([MACROCYCLE, "CCO"]) == pytest.approx([logp[0] - sa[0] - 3, logp[1] - sa[1]])
    expected = (logp - 2.4570953) / 1.4343244 + (-sa + 3.0525811) / 0.8335207
    expected += (np.array([-3, 0]) + 0.0485697) / 0.2860212
    assert PROPERTIES["plogp"]([MACROCYCLE, "CCO"]) == pytest.approx(expected, abs=1e-4)


def test_similarity() -> None:
    similarity = similarity_to("CCO")
    # ethanol: CH3, CH2, OH and their neighbourhoods; propane: CH3, CH2 and theirs; common: CH3, CH2, around CH3
    assert similarity(["OCC", "CCC", "x", "[Na+]"]) == pytest.approx([1, 3 / 7, np.nan, 0], nan_ok=True)
    with pytest.raises(ValueError, match="smiles: expected a molecule"):
        similarity_to("C1CC")


# ---------------------------------------------------------------------------------------------- objectives


def carbons(smiles: list[str]) -> list[float]:
    return [float(each.count("C")) for each in smiles]


def test_weighted_sum_and_constraints() -> None:
    smiles = ["CCO", "CCCCO", "CCCCCCO"]
    objective = Objective([("heavy", 2.0), (carbons, -0.5)], [("heavy", ">=", 5), (carbons, "<=", 4)])
    assessed = objective.assess(smiles)
    assert assessed.scores.tolist() == [6 - 1, 10 - 2, 14 - 3]
    assert assessed.shortfall.tolist() == [2 / 5, 0, 2 / 4]
    assert objective(smiles).tolist() == assessed.scores.tolist()
    assert Objective(["heavy"])(smiles).tolist() == [3, 5, 7]
    assert Objective(["heavy"], [("logp", ">=", 0.0)]).assess(["O"]).shortfall[0] == pytest.approx(0.8247)


def test_each_part_is_evaluated_once() -> None:
    seen: list[list[str]] = []

    def oracle(smiles: list[str]) -> list[float]:
        seen.append(smiles)
        return carbons(smiles)

    Objective([(oracle, 1.0)], [(oracle, ">=", 2)]).assess(["C", "CC"])
    assert seen == [["C", "CC"]]


def test_similarity_to_the_start_is_bound_later() -> None:
    objective = Objective([("tanimoto", 1.0)])
    with pytest.raises(ValueError, match="for_start"):
        objective(["CCO"])
    assert objective.needs_start and not Objective(["qed"], [("sa", "<=", 3)]).needs_start
    assert objective.for_start("CCO")(["OCC", "CCC"]).tolist() == [1, 3 / 7]


def test_texts() -> None:
    objective = Objective([("qed", 1), ("sa", -0.1), ("logp", 2)], constraints=[("tanimoto", ">=", 0.4)])
    assert str(objective) == "qed - 0.1*sa + 2*logp with tanimoto >= 0.4"
    assert str(Objective([("sa", -1)])) == "-sa"
    assert oracle_name(carbons) == f"{__name__}:carbons"
    assert oracle_name(objective) == str(objective)


@pytest.mark.parametrize(
    ("terms", "constraints", "message"),
    [
        ([], [], "terms: expected"),
        ("qed", [], "terms: expected"),
        (["qde"], [], "property: expected one of qed, .*got 'qde'"),
        ([("qed", np.nan)], [], "finite"),
        (["qed"], [("sa", "<", 3)], "constraints: expected '>=' or '<=', got '<'"),
        (["qed"], [("sb", "<=", 3)], "got 'sb'"),
    ],
)
def test_wrong_objectives(terms: Any, constraints: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(terms, constraints)
    with pytest.raises(ValueError, match="property: expected"):
        property_function("nonsense")


# ---------------------------------------------------------------------------------------------- evaluation


def test_an_oracle_that_raises_costs_the_molecules_it_raises_on() -> None:
    calls: list[int] = []

    def oracle(smiles: list[str]) -> list[float]:
        calls.append(len(smiles))
        if "CO" in smiles:
            raise RuntimeError("no docking pose")
        return carbons(smiles)

    errors: list[str] = []
    scores = evaluate(oracle, ["C", "CO", "CCC"], errors)
    assert scores == pytest.approx([1, np.nan, 3], nan_ok=True)
    assert calls == [3, 1, 1, 1]
    assert errors == ["RuntimeError: no docking pose"]


def test_what_is_no_number_is_nan() -> None:
    returned = [1, None, np.nan, np.inf, np.float32(2.5)]
    assert evaluate(lambda smiles: returned, ["C"] * 5) == pytest.approx([1, np.nan, np.nan, np.nan, 2.5], nan_ok=True)
    assert evaluate(lambda smiles: np.arange(2), ["C", "CC"]).tolist() == [0, 1]
    assert evaluate(carbons, []).shape == (0,)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0], "expected 2 scores for 2 molecules, got 1"),
        (3.0, "sequence of 2 numbers, got float"),
        (["a", "b"], "numbers"),
    ],
)
def test_another_number_of_scores_is_an_error(returned: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(lambda smiles: returned, ["C", "CC"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass_through(error: type[BaseException]) -> None:
    def oracle(smiles: Sequence[str]) -> list[float]:
        raise error

    with pytest.raises(error):
        evaluate(oracle, ["C", "CC"])
