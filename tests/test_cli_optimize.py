"""`molcmim optimize`: what comes in, what is printed and written, and how it ends."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from test_optimize import ToyModel
from typer.testing import CliRunner, Result

from molcmim import MolCMIM, cli_optimize
from molcmim.cli import OneLineErrors
from molcmim.cli_optimize import load_function, parse_oracle
from molcmim.cli_tables import read_molecules
from molcmim.objectives import Objective

app = typer.Typer(cls=OneLineErrors)
app.command()(cli_optimize.optimize)


@app.callback()
def main(traceback: bool = False) -> None:
    """As `molcmim` has it."""


ORACLES = """
def carbons(smiles):
    return [each.count("C") for each in smiles]

def broken(smiles):
    raise RuntimeError("no pose")

def stop(smiles):
    if len(smiles) > 1:
        raise KeyboardInterrupt
    return [0.5] * len(smiles)

number = 3
"""


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A model that needs no training, and a current directory with oracles in it."""
    monkeypatch.setattr(MolCMIM, "from_pretrained", lambda *args, **kwargs: ToyModel())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_oracles.py").write_text(ORACLES)
    yield tmp_path
    sys.modules.pop("my_oracles", None)


def rows_of(name: str, delimiter: str = ",") -> list[dict[str, str]]:
    with Path(name).open() as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["optimize", *words])


def test_one_molecule() -> None:
    result = run("CCO", "--objective", "heavy", "--budget", "30", "--min-similarity", "0.3")
    assert result.exit_code == 0, result.output
    start, best, end = result.stdout.splitlines()[1:4]
    assert start.split() == ["start", "3.0000", "CCO"]
    assert best.split()[0] == "best" and float(best.split()[1]) > 3
    assert float(best.rpartition("similarity ")[2].rstrip(")")) >= 0.3
    assert end.startswith("  30 calls, ") and end.endswith("ended by budget")


def test_a_file_gives_one_line_a_start_in_order(toy: Path) -> None:
    (toy / "in.csv").write_text("id,smiles\na,CCO\nb,C1CC\nc,CCCC\n")
    words = ["--objective", "my_oracles:carbons", "--budget", "20", "-o", "out.csv", "--archive", "all"]
    result = run("in.csv", *words, "--stop-at", "6", "--image", "trace.svg")
    assert result.exit_code == 0, result.output
    rows = rows_of("out.csv")
    assert [(row["id"], row["status"]) for row in rows] == [("a", "ok"), ("b", "parse_error"), ("c", "ok")]
    assert [float(row["start_score"] or 0) for row in rows] == [2, 0, 4]
    assert all(row["stopped"] == "stop_at" and float(row["best_score"]) >= 6 for row in rows[::2])
    assert "my_oracles:carbons: 2 of 3 starts improved" in result.stdout and "2 at 6 or better" in result.stdout
    assert "can't be used: parse_error" in result.stdout
    archive = rows_of("all/archive.csv")
    assert len(archive) == sum(int(row["calls"]) for row in rows)
    assert "<svg" in Path("trace.svg").read_text()

    again = run("in.csv", *words)
    assert again.exit_code == 1 and "resume it (--resume)" in again.stderr
    assert run("in.csv", *words, "--resume", "--stop-at", "6").exit_code == 0


def test_seeds_and_methods() -> None:
    outputs = []
    for words in (["--seed", "1"], ["--seed", "1"], ["--seed", "2"], ["--seed", "1", "--method", "random"]):
        assert run("CCO", "--objective", "heavy", "--budget", "15", "--archive", "x", *words).exit_code == 0
        outputs.append(Path("x/archive.csv").read_text())
        for path in Path("x").iterdir():
            path.unlink()
    assert outputs[0] == outputs[1] and len(set(outputs)) == 3


def test_ctrl_c_writes_what_there_is_and_says_130() -> None:
    result = run("CCO", "--objective", "my_oracles:stop", "-o", "out.tsv")
    assert result.exit_code == 130, result.output
    assert "ended by interrupted" in result.stdout
    (row,) = rows_of("out.tsv", "\t")
    assert (row["best_smiles"], row["stopped"], row["calls"]) == ("CCO", "interrupted", "1")


def test_a_failing_oracle_is_said() -> None:
    result = run("CCO", "--objective", "my_oracles:broken", "--budget", "5")
    assert result.exit_code == 1
    assert "nothing found that has a score" in result.stdout
    assert "error: objective: expected scores, but it gave none for any molecule" in result.stderr
    assert "no score for 5 molecules, the last error: RuntimeError: no pose" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["C1CC"], "expected a SMILES or a file of molecules, got 'C1CC': parse_error"),
        (["missing.smi"], "no such file: missing.smi"),
        (["CCO", "--objective", "qde"], "expected one of qed, "),
        (["CCO", "--objective", "my_oracles:missing"], "expected a function 'missing' in my_oracles, got NoneType"),
        (["CCO", "--objective", "my_oracles:number"], "got int"),
        (["CCO", "--objective", "no_such_module:f"], "No module named 'no_such_module'"),
        (["CCO", "--constraint", "sa<4"], "expected NAME>=NUMBER or NAME<=NUMBER, got 'sa<4'"),
        (["CCO", "-o", "out.txt"], "output: expected a file name ending in"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str) -> None:
    result = run(*words)
    assert result.exit_code == 1 and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_start_that_cannot_be_used_leaves_the_picture_alone() -> None:
    Path("trace.svg").write_text("old")
    assert run("C1CC", "--image", "trace.svg").exit_code == 1
    assert Path("trace.svg").read_text() == "old"


def test_resume_needs_an_archive() -> None:
    assert run("CCO", "--resume").exit_code == 2
    fresh = run("CCO", "--objective", "heavy", "--budget", "5", "--archive", "new", "--resume")
    assert fresh.exit_code == 0
    assert "new holds no archive.csv to go on from: starting afresh" in fresh.stderr


def test_cma_is_asked_for_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("CCO")
    assert result.exit_code == 1 and "pip install 'molcmim[generate]'" in result.stderr


def test_objectives_of_the_command_line() -> None:
    assert parse_oracle("qed") == Objective([("qed", 1.0)])
    mixed = parse_oracle("qed:1, sa:-0.1,my_oracles:carbons:2", ["sa<=4", " tanimoto >= 0.4 "])
    assert isinstance(mixed, Objective)
    assert str(mixed) == "qed - 0.1*sa + 2*my_oracles:carbons with sa <= 4, tanimoto >= 0.4"
    own = parse_oracle("my_oracles:carbons")
    assert own is load_function("my_oracles:carbons") and callable(own)
    with pytest.raises(ValueError, match="a name, or module:function"):
        load_function("a b:c")


def test_what_is_a_file_and_what_a_molecule(toy: Path) -> None:
    assert read_molecules("CCO", None, None, None) == (["CCO"], [None])
    (toy / "x.smi").write_text("CCO ethanol\nCC\n")
    assert read_molecules("x.smi", None, None, None) == (["CCO", "CC"], ["ethanol", None])
