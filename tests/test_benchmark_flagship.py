"""benchmarks/flagship: who is ahead on five sets together."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the `benchmark` extra")
from molcmim.moleculenet.report_data import Score, read_scores

ROOT = Path(__file__).parents[1]


@pytest.fixture
def standings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("standings", ROOT / "benchmarks" / "flagship" / "standings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(standings: ModuleType) -> list[Score]:
    """Three feature sets: a best by one (two in AUC's hundredths) everywhere, c without the last split of one set."""
    made = []
    for dataset, metric in standings.SETS.items():
        for features, offset in (("a", 0), ("b", 1), ("c", 3)):
            for split in range(5):
                if (features, dataset, split) == ("c", "bbbp", 4):
                    continue
                value = offset + 0.1 * split if metric == "rmse" else 0.9 - 0.02 * offset - 0.001 * split
                made.append(Score(dataset, "random5", features, "svm", split, "", metric, value, 80, 20, 0, 1, "", ""))
    return made


def test_standings(standings):
    table = standings.collect(rows(standings), "random5", "svm")
    assert table.features == ["a", "b"], "c is not complete"
    assert table.scores.shape == (5, 2, 5) and (table.n_train, table.n_test) == (80, 20)
    found = standings.standings(table, "b")
    assert [(row["features"], row["mean_rank"]) for row in found] == [("a", 1.0), ("b", 2.0)]
    assert [row["standardised"] for row in found] == pytest.approx([1, -1])
    assert found[0]["ahead_by"] == pytest.approx(-2) and found[0]["wins"] == 0
    assert "| a | 1.0 | +1.00 | -2.00 |" in standings.markdown(found, "b")
    with pytest.raises(ValueError, match="ours: expected one of a, b"):
        standings.standings(table, "c")
    with pytest.raises(ValueError, match="no results of protocol 'x'"):
        standings.collect(rows(standings), "x", "svm")


def test_means_are_those_of_the_runner(standings):
    """On the committed results: as molcmim.moleculenet.statistics has it from means over splits."""
    from molcmim.moleculenet.statistics import standardised_scores

    path = ROOT / "benchmarks" / "moleculenet" / "results" / "results.csv"
    table = standings.collect(read_scores(path), "random5", "svm")
    found = {row["features"]: row["standardised"] for row in standings.standings(table, "molcmim-tiny:both")}
    expected = dict(zip(table.features, standardised_scores(table.scores.mean(axis=2), True), strict=True))
    assert len(found) >= 15 and found == pytest.approx(expected)
    assert np.isfinite(table.scores).all()
