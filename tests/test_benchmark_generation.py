"""The scripts of benchmarks/generation that make tables of results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from benchmark_scripts import importing

FOLDER = Path(__file__).parents[1] / "benchmarks" / "generation"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch):
    """Import a script by name."""
    with importing(monkeypatch, FOLDER) as load:
        yield load


def test_commands_are_shown_without_places(scripts):
    words = ["qed", "--corpus", "/somewhere/shards", "--out", "x", "--known", "y.npy", "--seed", "0"]
    assert scripts("study").plain(words) == ["qed", "--corpus", "CORPUS", "--known", "KNOWN.npy", "--seed", "0"]


def test_wilson_interval(scripts):
    pytest.importorskip("matplotlib")
    p, low, high = scripts("shares").wilson(8, 10)  # the worked example of Agresti and Coull (1998): 0.49 to 0.94
    assert (p, round(low, 3), round(high, 3)) == (0.8, 0.49, 0.943)


def test_gains_and_calls_are_read_from_traces(scripts):
    pytest.importorskip("matplotlib")
    shares = scripts("shares")
    starts = [
        {"start_score": 0.5, "trace": [[1, 0.5], [4, 0.7], [9, 0.95]]},
        {"start_score": 0.2, "trace": [[1, 0.2]]},
    ]
    assert shares.gains({"starts": starts}, 5) == pytest.approx([0.2, 0.0])
    assert shares.gains({"starts": starts}, 9) == pytest.approx([0.45, 0.0])
    assert shares.goal_calls({"starts": starts}).tolist() == [9, math.inf]


def test_measures_of_a_path(scripts):
    pytest.importorskip("scipy")
    found = scripts("interpolation").path_measures(["CCO", "CCO", None, "CCCO", "CCCCO"], ("CCO", "CCCCO"))
    assert found["distinct"] == 3
    assert found["order"] == pytest.approx(1.0, abs=0.06)  # one tie
    assert found["detour_weight"] == pytest.approx(1.0)
    assert 0 < found["ends"] < found["step"] < 1


def test_committed_tables_are_those_of_the_committed_results(scripts, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    report = scripts("report")
    monkeypatch.setattr(report, "HERE", tmp_path)
    report.main()
    assert (tmp_path / "results.md").read_text() == (FOLDER / "results.md").read_text()


def test_results_say_how_they_were_made():
    files = sorted((FOLDER / "results").glob("*.json"))
    assert files
    for path in files:
        about = json.loads(path.read_text())["about"]
        assert not about["modified"], path.name
        assert len(about["commit"]) == 40
        assert about["cpu_minutes"] >= 0
