"""Optimisation on a model of two latent numbers whose best molecule is known; a short run of the shipped model."""

from __future__ import annotations

import csv
import json
import math
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch
from tiny import tiny_checkpoint, tiny_tokenizer

from molcmim import MolCMIM
from molcmim.chem import Status
from molcmim.model import Posterior
from molcmim.objectives import PROPERTIES, Objective, similarity_to
from molcmim.optimize import OptimizeResult, optimize
from molcmim.optimize.archive import Archive, Candidate, trace_of, write_results
from molcmim.optimize.search import CMASearch, RandomSearch

LATENT, MOST = 6, 40


class ToyModel:
    """Writes chains: the first latent number says how many carbons, the second whether the text is a molecule.

    mu of a molecule is (number of carbons / 10, 0, ...), sigma 0.1 in each direction.
    """

    objective, model_id, device = "cmim", "0123456789ab", torch.device("cpu")

    def __init__(self) -> None:
        self.tokenizer = tiny_tokenizer()
        self.network = types.SimpleNamespace(config=types.SimpleNamespace(max_tokens=MOST), encode=self.encode)
        self.n_decoded = 0

    def encode(self, tokens: torch.Tensor) -> Posterior:
        mu = torch.zeros(len(tokens), LATENT)
        carbon = self.tokenizer.encode("C")[0]
        mu[:, 0] = (tokens == carbon).sum(1) / 10
        return Posterior(mu, torch.full_like(mu, math.log(0.1)))

    def decode(self, z: npt.NDArray[Any]) -> list[str | None]:
        self.n_decoded += len(z)
        return [self.write(row) for row in np.asarray(z)]

    @staticmethod
    def write(row: npt.NDArray[Any]) -> str | None:
        if row[1] > 0.3:
            return None if row[2] > 0 else "C1CC"
        n = int(np.clip(np.rint(row[0] * 10), 1, MOST - 1))
        branch = "O" if row[3] > 0 else "N" if row[4] > 0 else ""
        return "C" * n + branch


def run(start: Any, oracle: Any, **options: Any) -> list[OptimizeResult]:
    return optimize(ToyModel(), start, oracle, **{"budget": 60, **options})  # type: ignore[arg-type]


def carbons(smiles: list[str]) -> list[float]:
    """Best at 14 carbons, where it is 0."""
    return [-abs(each.count("C") - 14.0) for each in smiles]


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def smiles_of(result: OptimizeResult) -> list[str]:
    return [row.smiles for row in result.archive]


# ---------------------------------------------------------------------------------------------- the search


def test_it_finds_the_best_molecule() -> None:
    (result,) = run(["CCO"], carbons)
    assert result.best_score == 0 and result.best_smiles is not None and result.best_smiles.count("C") == 14
    assert result.start_smiles == "CCO" and result.start_score == -12 and result.improvement == 12
    assert result.status is Status.ok and result.failed == 0 and 0 < result.valid < result.decoded
    assert result.archive[0] == Candidate("CCO", -12.0, 1.0, 0.0, True, 1)
    assert result.trace == trace_of(result.archive)
    assert result.trace[-1][0] == result.calls and [score for _, score in result.trace][:-1] == sorted(
        {score for _, score in result.trace}
    )
    call = next(row.call for row in result.archive if row.score >= -3)
    assert result.calls_to(-3) == call and result.calls_to(1) is None


@pytest.mark.parametrize("method", ["cma", "random"])
def test_the_budget_is_exact_and_no_molecule_costs_twice(method: str) -> None:
    asked: list[str] = []

    def oracle(smiles: list[str]) -> list[float]:
        asked.extend(smiles)
        return carbons(smiles)

    (result,) = run(["CCCCC"], oracle, budget=23, method=method)
    assert result.calls == len(result.archive) == len(asked) == len(set(asked)) == 23
    assert smiles_of(result) == asked and asked[0] == "CCCCC"
    assert [row.call for row in result.archive] == list(range(1, 24)) and result.stopped == "budget"
    (alone,) = run(["CCCCC"], oracle, budget=1)
    assert smiles_of(alone) == ["CCCCC"] and alone.stopped == "budget" and alone.decoded == 0


def test_a_seed_gives_the_same_again_and_leaves_numpys_generator_alone() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    (first,) = run(["CCO"], carbons)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index,union-attr]
    np.random.seed(4)
    assert run(["CCO"], carbons) == [first]
    assert smiles_of(run(["CCO"], carbons, seed=1)[0]) != smiles_of(first)


def test_a_start_does_not_depend_on_the_others() -> None:
    results = run(["CCO", "CCCCCC", "CCO"], carbons)
    assert results[0] == run(["CCO"], carbons)[0]
    assert results[1] == run(["CCCCCC"], carbons)[0]
    assert smiles_of(results[0]) != smiles_of(results[2]), "the same molecule twice is searched from twice"


def test_starts_share_oracle_calls_and_scores() -> None:
    batches: list[list[str]] = []

    def oracle(smiles: list[str]) -> list[float]:
        batches.append(smiles)
        return carbons(smiles)

    results = run(["CCO", "CCCCCC"], oracle)
    assert batches[0] == ["CCO", "CCCCCC"]
    asked = [each for batch in batches for each in batch]
    assert len(asked) == len(set(asked)) == len({each for result in results for each in smiles_of(result)})
    assert sum(result.calls for result in results) > len(asked), "they overlap, and each counts its own"


def test_random_search_learns_nothing() -> None:
    (first,) = run(["CCO"], carbons, method="random", sigma=0.4)
    (second,) = run(["CCO"], lambda smiles: [-each.count("C") for each in smiles], method="random", sigma=0.4)
    assert smiles_of(first) == smiles_of(second) and first.restarts == 0
    search = RandomSearch(np.ones(2000), (0.1, 0.4), 50, 0)
    radii = (search.ask() - 1).std(axis=1)
    assert radii.min() > 0.09 and radii.max() < 0.42 and np.median(radii) == pytest.approx(0.2, abs=0.05)


def test_cma_begins_anew_around_the_best() -> None:
    search = CMASearch(np.zeros(4), 0.1, 8, seed=0, patience=3)
    z = search.ask()
    search.tell(z, np.arange(8.0))
    assert search.restarts == 0
    for _ in range(3):
        search.tell(search.ask(), np.full(8, -np.inf))
    assert search.restarts == 1 and search.strategy.mean.tolist() == z[7].tolist()
    assert 0.06 < search.strategy.sigma < 0.15
    search.centre = lambda: np.full(4, 7.0)
    for _ in range(4):
        search.tell(search.ask(), np.zeros(8))
    assert search.restarts == 2 and search.strategy.mean.tolist() == [7.0] * 4


def test_the_best_molecule_is_where_it_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    centres: list[npt.NDArray[Any] | None] = []
    begin = CMASearch._begin

    def noted(self: CMASearch, centre: npt.NDArray[Any], sigma: float) -> None:
        centres.append(centre)
        begin(self, centre, sigma)

    monkeypatch.setattr(CMASearch, "_begin", noted)
    (result,) = run(["CCO"], carbons)
    assert result.restarts == len(centres) - 1 > 1
    best = result.best_smiles
    assert best is not None and centres[-1] is not None
    assert centres[-1].tolist() == pytest.approx([best.count("C") / 10, 0, 0, 0, 0, 0])


# ---------------------------------------------------------------------------------------------- constraints


def test_min_similarity_decides_what_counts_as_found() -> None:
    start = "CCCCCO"
    (result,) = run(
        [start], lambda smiles: [10 * each.count("N") + each.count("C") for each in smiles], min_similarity=0.7
    )
    similarity = similarity_to(start)(smiles_of(result))
    assert [row.similarity for row in result.archive] == similarity.tolist()
    assert [row.feasible for row in result.archive] == (similarity >= 0.7).tolist()
    feasible = [row for row in result.archive if row.feasible]
    assert 1 < len(feasible) < len(result.archive)
    best = max(feasible, key=lambda row: row.score)
    assert (result.best_smiles, result.best_score, result.similarity) == (best.smiles, best.score, best.similarity)
    assert best.score < max(row.score for row in result.archive), "better ones are too far away"
    (strict,) = run([start], carbons, min_similarity=1.0)
    assert strict.best_smiles == start and strict.trace[0] == (1, -9.0)


def test_dissimilar_molecules_may_cost_no_call() -> None:
    start = "CCCCCO"
    (result,) = run([start], carbons, min_similarity=0.7, skip_dissimilar=True, budget=20)
    assert all(row.feasible and row.similarity >= 0.7 for row in result.archive)
    assert 10 < result.calls <= 20  # the tiny model has few molecules that near: a search that finds no more ends
    assert result.skipped > 5 and result.best_score >= -1
    (whole,) = run([start], carbons, min_similarity=0.7, budget=20)
    assert whole.skipped == 0 and sum(row.feasible for row in whole.archive) < 20
    with pytest.raises(ValueError, match="skip_dissimilar: expected a min_similarity"):
        run([start], carbons, skip_dissimilar=True)


def test_a_molecule_that_falls_apart_costs_no_call_and_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    write = ToyModel.write

    def apart(row: npt.NDArray[Any]) -> str | None:
        text = write(row)
        return f"{text}.C" if text is not None and row[5] > 0 else text

    monkeypatch.setattr(ToyModel, "write", staticmethod(apart))
    (result,) = run(["CCO"], lambda smiles: [len(each) for each in smiles], budget=30)
    assert not any("." in each for each in smiles_of(result)) and result.skipped > 3 and result.calls == 30
    (salt,) = run(["CCO.C"], carbons, budget=30)
    assert any("." in each for each in smiles_of(salt)[1:]) and salt.skipped == 0


def test_constraints_of_an_objective() -> None:
    objective = Objective([("heavy", 1.0)], [("mw", "<=", 120.0), ("tanimoto", ">=", 0.2)])
    (result,) = run(["CCCO"], objective)
    assert result.improvement > 0 and result.best_smiles is not None
    weight, similar = PROPERTIES["mw"]([result.best_smiles])[0], similarity_to("CCCO")([result.best_smiles])[0]
    assert 100 < weight <= 120 and similar >= 0.2
    assert {row.feasible for row in result.archive} == {True, False}
    assert all(row.feasible == (row.shortfall == 0) for row in result.archive)


def test_a_start_that_breaks_a_constraint_can_still_be_improved() -> None:
    (result,) = run(["CCO"], Objective(["heavy"], [("heavy", ">=", 8)]), budget=40)
    assert not result.archive[0].feasible and result.best_score >= 8
    assert result.trace[0][0] > 1, "there is no best before the first feasible one"
    (nothing,) = run(["CCO"], Objective(["heavy"], [("heavy", ">=", 1000)]), budget=20)
    assert nothing.best_smiles is None and math.isnan(nothing.best_score) and nothing.trace == []


# ---------------------------------------------------------------------------------------------- ends


def test_early_ends() -> None:
    (result,) = run(["CCO"], carbons, budget=200, stop_at=-2.0)
    assert result.stopped == "stop_at" and result.best_score >= -2 and result.calls < 60
    (already,) = run(["C" * 14], carbons, stop_at=-2.0)
    assert already.stopped == "stop_at" and already.calls == 1
    (tired,) = run(["C" * 14], carbons, budget=200, patience=10)
    assert tired.stopped == "patience" and 10 < tired.calls < 30
    (few,) = run(["CCO"], carbons, budget=50, sigma=1e-6)  # every vector gives the start again
    assert few.stopped == "decodes" and few.calls < 5 and few.decoded < 20 * 50 + 20


def test_an_oracle_that_fails_costs_one_candidate() -> None:
    def oracle(smiles: list[str]) -> list[float]:
        if any(len(each) % 3 == 0 for each in smiles):
            raise RuntimeError("license server is down")
        return [math.nan if each.endswith("N") else score for each, score in zip(smiles, carbons(smiles), strict=True)]

    (result,) = run(["CCCC"], oracle, budget=30)
    failed = [row for row in result.archive if math.isnan(row.score)]
    assert result.failed == len(failed) > 5 and not any(row.feasible for row in failed)
    assert {len(row.smiles) % 3 == 0 or row.smiles.startswith("N") or row.smiles.endswith("N") for row in failed} == {
        True
    }
    assert result.calls == 30 and result.best_score >= -3 and result.error == "RuntimeError: license server is down"
    (hopeless,) = run(["CCCC"], lambda smiles: [None] * len(smiles), budget=10)
    assert (hopeless.failed, hopeless.calls, hopeless.best_smiles) == (10, 10, None)


def interrupting(after: int) -> Any:
    batches = iter(range(10**6))

    def oracle(smiles: list[str]) -> list[float]:
        if next(batches) == after:
            raise KeyboardInterrupt
        return carbons(smiles)

    return oracle


def test_ctrl_c_keeps_what_was_found(tmp_path: Path) -> None:
    results = run(["CCO", "C1CC", "CCCCCC"], interrupting(4), archive=tmp_path / "a")
    assert [result.stopped for result in results] == ["interrupted", "", "interrupted"]
    whole = run(["CCO", "CCCCCC"], carbons)
    for result, full in zip(results[::2], whole, strict=True):
        assert 5 < result.calls < 60 and result.archive == full.archive[: result.calls]
        assert result.best_score == max(row.score for row in result.archive)
    rows = lines_of(tmp_path / "a" / "archive.csv")
    assert len(rows) == sum(result.calls for result in results)


# ---------------------------------------------------------------------------------------------- archive


def test_a_resumed_run_asks_the_oracle_nothing_twice(tmp_path: Path) -> None:
    folder, starts = tmp_path / "a", ["CCO", "CCCCCC"]
    asked: list[str] = []

    def counting(smiles: list[str]) -> list[float]:
        asked.extend(smiles)
        return carbons(smiles)

    counting.__qualname__ = interrupting(0).__qualname__  # the archive knows an oracle by its name
    run(starts, interrupting(4), archive=folder)
    before = {row["smiles"] for row in lines_of(folder / "archive.csv")}
    with pytest.raises(FileExistsError, match="resume"):
        run(starts, counting, archive=folder)
    resumed = run(starts, counting, archive=folder, resume=True)
    assert resumed == run(starts, carbons), "as if it had not been interrupted"
    assert not before & set(asked) and len(asked) == len(set(asked)) > 10
    rows = lines_of(folder / "archive.csv")
    assert [(row["start"], row["smiles"]) for row in rows if row["start"] == "CCO"] == [
        ("CCO", each) for each in smiles_of(resumed[0])
    ]
    assert len(rows) == sum(result.calls for result in resumed)


def test_a_half_written_line_is_cut_and_failed_molecules_are_tried_again(tmp_path: Path) -> None:
    settings = {"objective": "x"}
    good = Candidate("CCO", 0.25, 1.0, 0.0, True, 1)
    Archive(tmp_path, settings).add("CCO", [good, Candidate("CCC", math.nan, 0.5, 0.0, False, 2)])
    path = tmp_path / "archive.csv"
    content = path.read_bytes()
    path.write_bytes(content + b"CCO,3,CCCC,0.")
    archive = Archive(tmp_path, settings, resume=True)
    assert archive.known == {("CCO", "CCO"): good} and path.read_bytes() == content
    archive.add("CCO", [good, Candidate("CCC", 2.0, 0.5, 0.0, True, 2)])
    assert path.read_bytes() == content + b"CCO,2,CCC,2.0,0.5,0.0,1\n"
    assert json.loads((tmp_path / "state.json").read_text())["settings"] == settings


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    Archive(tmp_path, {"objective": "qed"})
    with pytest.raises(ValueError, match=r"expected scores of 'sa' .* got those of 'qed'"):
        Archive(tmp_path, {"objective": "sa"}, resume=True)
    (tmp_path / "archive.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected the columns start, call"):
        Archive(tmp_path, {"objective": "qed"}, resume=True)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ValueError, match=r"expected a readable state\.json"):
        Archive(tmp_path, {"objective": "qed"}, resume=True)


def test_results_as_a_file(tmp_path: Path) -> None:
    results = run(["CCO", "C1CC"], carbons, budget=10)
    write_results(results, tmp_path / "r.csv", ["a", None])
    first, second = lines_of(tmp_path / "r.csv")
    assert (first["id"], first["start"], first["best_smiles"]) == ("a", "CCO", results[0].best_smiles)
    assert float(first["improvement"]) == results[0].improvement and first["calls"] == "10"
    assert {key: value for key, value in second.items() if value not in ("", "0")} == {
        "start": "C1CC",
        "status": "parse_error",
    }
    write_results(results, tmp_path / "r.parquet", facts={"objective": "carbons"})
    table = pq.read_table(tmp_path / "r.parquet")
    assert table["best_score"].to_pylist() == [results[0].best_score, None]
    assert table.schema.metadata[b"molcmim.objective"] == b"carbons"
    with pytest.raises(ValueError, match="output: expected a file name"):
        write_results(results, tmp_path / "r.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "r.parquet"]


# ---------------------------------------------------------------------------------------------- input


def test_bad_starts_keep_their_place() -> None:
    results = run(["CCO", None, "C1CC", "CCO ethanol", "[U]", "C" * 50, "CCC"], carbons, budget=5)
    assert [result.status.value for result in results] == [
        "ok", "empty", "parse_error", "parse_error", "unknown_token", "too_many_tokens", "ok"
    ]  # fmt: skip
    assert [result.calls for result in results] == [5, 0, 0, 0, 0, 0, 5]
    assert results[4].start_smiles == "[U]" and results[2].best_smiles is None
    assert run([], carbons) == []
    assert [result.status for result in run(["x"], carbons)] == [Status.parse_error]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget: expected at least 1"),
        ({"population": 3}, "population: expected at least 4, got 3"),
        ({"sigma": 0.0}, "sigma: expected a positive number"),
        ({"min_similarity": 1.5}, "min_similarity: expected 0 to 1, got 1.5"),
        ({"stop_at": math.nan}, "stop_at"),
        ({"patience": 0}, "patience: expected at least 1"),
        ({"seed": -1}, "seed: expected 0 or more"),
        ({"method": "sgd"}, "method: expected one of cma, random, got 'sgd'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(["CCO"], carbons, **options)


def test_a_single_molecule_and_wrong_scores_are_errors() -> None:
    with pytest.raises(TypeError, match="pass \\[smiles\\]"):
        run("CCO", carbons)
    with pytest.raises(ValueError, match="oracle: expected 1 scores"):
        run(["CCO"], lambda smiles: [])


# ---------------------------------------------------------------------------------------------- real models


@pytest.fixture(scope="module")
def shipped() -> Iterator[MolCMIM]:
    yield MolCMIM.from_pretrained(device="cpu")


def test_qed_with_the_shipped_model(shipped: MolCMIM) -> None:
    start = "COc1ccc(CCNC(=O)CCl)cc1OC"
    results = optimize(shipped, [start, start], Objective(["qed"]), budget=40, min_similarity=0.3)
    for result in results:
        assert result.start_score == pytest.approx(PROPERTIES["qed"]([start])[0])
        assert result.improvement > 0.02 and result.best_smiles is not None and result.calls == 40
        assert result.best_score == pytest.approx(PROPERTIES["qed"]([result.best_smiles])[0])
        assert similarity_to(start)([result.best_smiles])[0] == pytest.approx(result.similarity)
        assert result.similarity >= 0.3


def test_a_model_without_decoder_is_refused(tmp_path: Path) -> None:
    model = MolCMIM.from_pretrained(tiny_checkpoint(tmp_path / "m", objective="infonce"), device="cpu")
    with pytest.raises(ValueError, match="decoder, got objective 'infonce'"):
        optimize(model, ["CCO"], carbons)
