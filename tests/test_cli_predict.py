"""`molcmim fit` and `molcmim predict`: rows in = rows out, what is printed, errors in one line, nothing left behind."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skops")
pytest.importorskip("pandas")

import numpy as np
import pyarrow.parquet as pq
from hostile import hostile_lines
from tiny import tiny_checkpoint
from typer.testing import CliRunner, Result

from molcmim.cli import app
from molcmim.cli_predict import Head
from molcmim.moleculenet import predictor_table
from molcmim.moleculenet.heads import HEADS
from molcmim.moleculenet.predictor import Predictor
from molcmim.moleculenet.predictor_table import extra_names, target_names
from molcmim.readers import MoleculeReader

LAST = ["log_prob", "nearest_distance", "nearest_smiles", "in_domain"]


def run(*arguments: object, code: int = 0, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def failing(*arguments: object) -> str:
    """The one line that a command fails with."""
    result = run(*arguments, code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def molecules(n: int) -> list[str]:
    tails = ["O", "Cl", "Br", "C(=O)O", "S(C)(=O)=O"]
    return ["C" * (2 + k // len(tails)) + tails[k % len(tails)] for k in range(n)]


def write_table(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read_table(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 molecules with a value and a class, and six rows that can't be used."""
    rows: list[list[Any]] = [[text, len(text) + 0.5, int(len(text) > 8), k] for k, text in enumerate(molecules(40))]
    rows.insert(0, ["C1CC", 1.0, 1, "open ring"])
    rows.insert(5, ["", 1.0, 1, "empty"])
    rows.insert(9, ["[U]", 1.0, 1, "uranium"])
    rows.insert(20, ["CCCCCCCCCCCCCCO", "", "", "not measured"])
    rows += [["C" * 41, 1.0, 1, "long"], ["Cé", 1.0, 0, "accent"]]
    return write_table(tmp_path_factory.mktemp("table") / "my.csv", ["smiles", "y", "active", "note"], rows)


def fit(table: Path, output: Path, checkpoint: Path, *more: object, **options: Any) -> Result:
    return run("fit", table, "-o", output, "--model", checkpoint, "--device", "cpu", "--workers", 0, *more, **options)


def predict(directory: Path, source: object, output: Path, *more: object, **options: Any) -> Result:
    return run("predict", directory, source, "-o", output, "--device", "cpu", "--workers", 0, *more, **options)


@pytest.fixture(scope="module")
def fitted(table: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    directory = tmp_path_factory.mktemp("fitted") / "model"
    return directory, fit(table, directory, checkpoint, "--target", "y", "--head", "ridge")


def test_fit_prints_what_it_used_and_how_good_it_is(fitted: tuple[Path, Result], table: Path) -> None:
    directory, result = fitted
    lines = result.stdout.splitlines()
    assert lines[0] == "my.csv: 46 rows, 40 of them used"
    assert sorted(line.split() for line in lines[1:7]) == [
        ["empty", "1"],
        ["no_label", "1"],
        ["not_ascii", "1"],
        ["parse_error", "1"],
        ["too_many_tokens", "1"],
        ["unknown_token", "1"],
    ]
    assert lines[7] == "not used (rows count from 0):"
    assert [line.split()[:2] for line in lines[8:14]] == [
        ["0", "parse_error"],
        ["5", "empty"],
        ["9", "unknown_token"],
        ["20", "no_label"],
        ["44", "too_many_tokens"],
        ["45", "not_ascii"],
    ]
    config = json.loads((directory / "config.json").read_text())
    target = config["targets"][0]
    assert lines[14] == f"embedding: tiny ({config['model']['model_id']}), both"
    alpha = target["params"]["alpha"]
    assert lines[15] == f"y: regression, 40 values of 40 molecules, ridge (alpha {alpha})"
    labels = {"RMSE": "rmse", "MAE": "mae", "R2": "r2"}
    for line, scores in ((lines[16], target["scores"]), (lines[17], target["baseline"])):
        words = line.split()[-6:]
        assert {labels[a]: b for a, b in zip(words[::2], words[1::2], strict=True)} == {
            name: f"{value:.3f}" for name, value in scores.items()
        }
    assert lines[16].startswith("  5-fold cross-validation") and lines[17].startswith("  always the mean")
    values = np.array([len(text) for text in molecules(40)])
    assert target["baseline"]["rmse"] == pytest.approx(values.std())
    assert target["scores"]["rmse"] < 0.5 * target["baseline"]["rmse"]
    assert lines[18] == f"  90 % interval: prediction ± {target['half_width']:.3g}"
    assert lines[19].startswith("in domain: at most ") and lines[20] == f"saved: {directory}"
    assert config["training"]["counts"]["ok"] == 40 and config["training"]["n_rows"] == 46


def test_predict_a_table_with_every_hostile_row(
    fitted: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N rows in, N rows out, in order; the same numbers as in Python, whatever the chunks."""
    attacks = [line for line, _ in hostile_lines()]
    lines = [*(text.encode() for text in molecules(30)), *attacks, b"CCO"]
    quoted = [b'"' + line.replace(b'"', b'""') + b'"' for line in lines]
    source = tmp_path / "new.csv"
    source.write_bytes(b"number,smiles,y\n" + b"".join(b"%d,%s,%d.5\n" % (k, q, k) for k, q in enumerate(quoted)))
    rows = [[k, line.decode("utf-8", "replace"), k + 0.5] for k, line in enumerate(lines)]
    monkeypatch.setattr(MoleculeReader.__init__, "__defaults__", (None, None, None, 16))  # rows of a chunk
    result = predict(fitted[0], source, tmp_path / "out.csv")
    table = read_table(tmp_path / "out.csv")
    assert len(table) == len(rows)
    assert list(table[0]) == [
        *("id", "number", "input_y", "smiles", "canonical_smiles", "status", "y", "y_low", "y_high"),
        *LAST,
    ]
    assert [row["number"] for row in table] == [str(k) for k in range(len(rows))]
    assert [row["smiles"] for row in table] == [row[1] for row in rows]
    assert [row["input_y"] for row in table] == [str(row[2]) for row in rows]
    found = Predictor.load(fitted[0], device="cpu").predict([row[1] for row in rows], workers=0)
    assert [row["status"] for row in table] == [status.value for status in found.status]
    assert 31 <= sum(row["status"] == "ok" for row in table) < len(rows)
    for k, row in enumerate(table):
        if row["status"] != "ok":
            assert [row[name] for name in ("y", "y_low", "y_high", *LAST)] == [""] * 7
            continue
        for name, expected in (
            ("y", found.value[k, 0]),
            ("y_low", found.low[k, 0]),
            ("y_high", found.high[k, 0]),
            ("log_prob", found.log_prob[k]),
        ):
            assert float(row[name]) == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert row["nearest_smiles"] == found.nearest_smiles[k]
        assert row["in_domain"] == str(bool(found.in_domain[k])).lower()
    printed = result.stdout.splitlines()
    assert printed[0].startswith(f"{len(rows)} rows -> {tmp_path / 'out.csv'} in ")
    assert printed[-1].startswith(f"in domain: {int(found.in_domain.sum())} of ")
    assert sorted(os.listdir(tmp_path)) == ["new.csv", "out.csv"]


def test_classes_in_every_format(table: Path, checkpoint: Path, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    result = fit(table, directory, checkpoint, "--target", "active", "--kind", "latent")
    assert "active: classification, 40 values of 40 molecules, svm (C " in result.stdout
    words = next(line for line in result.stdout.splitlines() if "always the more frequent class" in line).split()
    share = np.mean([len(text) > 8 for text in molecules(40)])
    assert words[-6:] == ["ROC-AUC", "0.500", "PR-AUC", f"{share:.3f}", "accuracy", f"{max(share, 1 - share):.3f}"]

    (tmp_path / "new.smi.gz").write_bytes(gzip.compress(b"CCCO propanol\nC1CC ring\n\nCCCCCCCCCCO\tdecanol\n"))
    for name in ("out.csv", "out.tsv", "out.parquet"):
        predict(directory, tmp_path / "new.smi.gz", tmp_path / name)
    first, tabs = read_table(tmp_path / "out.csv"), read_table(tmp_path / "out.tsv", "\t")
    assert first == tabs
    assert [row["id"] for row in first] == ["propanol", "ring", "", "decanol"]
    assert [row["status"] for row in first] == ["ok", "parse_error", "empty", "ok"]
    assert [row["active"] for row in first] == ["0", "", "", "1"]
    whole = pq.read_table(tmp_path / "out.parquet")
    assert whole.column_names == list(first[0])
    assert whole["active"].to_pylist() == [0, None, None, 1]
    for row, probability in zip(first, whole["active_probability"].to_pylist(), strict=True):
        assert row["active_probability"] == ("" if probability is None else f"{probability:.6g}")
    assert whole["in_domain"].to_pylist()[1:3] == [None, None]
    metadata = {key.decode(): value.decode() for key, value in whole.schema.metadata.items()}
    assert metadata["molcmim.head"] == "svm" and metadata["molcmim.kind"] == "latent"
    assert metadata["molcmim.model_id"] == json.loads((directory / "config.json").read_text())["model"]["model_id"]

    stdin = b"CCCO propanol\nC1CC ring\n\nCCCCCCCCCCO\tdecanol\n"
    predict(directory, "-", tmp_path / "piped.csv", stdin=stdin)
    assert read_table(tmp_path / "piped.csv") == first


def test_several_targets_with_missing_labels(checkpoint: Path, tmp_path: Path) -> None:
    rows = [[text, len(text), len(text) % 7 if k % 2 else ""] for k, text in enumerate(molecules(40))]
    table = write_table(tmp_path / "two.csv", ["smiles", "a", "b"], rows)
    result = fit(table, tmp_path / "model", checkpoint, "-t", "a", "-t", "b", "--head", "ridge", "--coverage", 0.8)
    assert "a: regression, 40 values" in result.stdout and "b: regression, 20 values" in result.stdout
    assert result.stdout.count("80 % interval") == 2
    predict(tmp_path / "model", table, tmp_path / "out.csv")
    out = read_table(tmp_path / "out.csv")
    assert [name for name in out[0] if name[0] in "ab" and name != "id"] == [
        "a",
        "a_low",
        "a_high",
        "b",
        "b_low",
        "b_high",
    ]
    assert [row["input_b"] for row in out] == [str(row[2]) for row in rows]
    assert all(float(row["b_low"]) < float(row["b"]) < float(row["b_high"]) for row in out)


def test_a_target_called_smiles(checkpoint: Path, tmp_path: Path) -> None:
    rows = [[text, len(text), 1] for text in molecules(30)]
    table = write_table(tmp_path / "odd.csv", ["molecule", "smiles", "status"], rows)
    fit(table, tmp_path / "model", checkpoint, "--target", "smiles", "--smiles", "molecule", "--head", "ridge")
    predict(tmp_path / "model", table, tmp_path / "out.csv", "--smiles", "molecule")
    out = read_table(tmp_path / "out.csv")
    assert list(out[0]) == [
        *("id", "input_smiles", "input_status", "smiles", "canonical_smiles", "status"),
        *("predicted_smiles", "predicted_smiles_low", "predicted_smiles_high", *LAST),
    ]
    assert [row["smiles"] for row in out] == molecules(30)
    assert [row["input_smiles"] for row in out] == [str(row[1]) for row in rows]
    assert abs(float(out[20]["predicted_smiles"]) - rows[20][1]) < 3


def test_names_of_columns() -> None:
    assert target_names(["y", "y_low"], "regression") == [
        ("y", "y_low", "y_high"),
        ("predicted_y_low", "predicted_y_low_low", "predicted_y_low_high"),
    ]
    assert target_names(["in_domain", "predicted_in_domain"], "classification") == [
        ("predicted_in_domain", "predicted_in_domain_probability"),
        ("predicted_predicted_in_domain", "predicted_predicted_in_domain_probability"),
    ]
    assert extra_names(["y", "input_y", "z"], ["y", "id"]) == ["input_y_2", "input_y", "z"]


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_all_rows_bad_and_no_rows(fitted: tuple[Path, Result], tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.smi").write_bytes(b"C1CC\n\n[U]\n")
    result = predict(fitted[0], tmp_path / "bad.smi", tmp_path / name)
    assert result.stdout.startswith("3 rows -> ") and "in domain" not in result.stdout
    (tmp_path / "none.smi").write_bytes(b"")
    predict(fitted[0], tmp_path / "none.smi", tmp_path / f"none_{name}")
    if name.endswith(".csv"):
        rows = read_table(tmp_path / name)
        assert [(row["status"], row["y"]) for row in rows] == [
            ("parse_error", ""),
            ("empty", ""),
            ("unknown_token", ""),
        ]
        assert (tmp_path / "none_out.csv").read_text().startswith("id,smiles,canonical_smiles,status,y,y_low,")
    else:
        assert pq.read_table(tmp_path / name)["y"].to_pylist() == [None] * 3
        assert pq.read_table(tmp_path / f"none_{name}").num_rows == 0


def test_errors_of_fit_are_one_line_and_leave_nothing(table: Path, checkpoint: Path, tmp_path: Path) -> None:
    def fail(source: Path, *more: object) -> str:
        text = failing("fit", source, "-o", tmp_path / "model", "--model", checkpoint, "--workers", 0, *more)
        assert not (tmp_path / "model").exists()
        return text

    text = fail(table, "--target", "logS")
    assert "'logS'" in text and "'smiles', 'y', 'active', 'note'" in text
    assert "No such file" in fail(tmp_path / "missing.csv", "--target", "y")
    same = write_table(tmp_path / "same.csv", ["smiles", "y"], [[text, 2.5] for text in molecules(20)])
    assert "expected values that differ, got 2.5 in all 20 rows" in fail(same, "-t", "y", "--task", "regression")
    one = write_table(tmp_path / "one.csv", ["smiles", "y"], [[text, 1] for text in molecules(20)])
    assert "in all 20 rows" in fail(one, "-t", "y")
    few = write_table(tmp_path / "few.csv", ["smiles", "y"], [[text, k] for k, text in enumerate(molecules(9))])
    assert "at least 10" in fail(few, "-t", "y")
    bad = [[text, k] for k, text in enumerate([*molecules(9), *["[U]"] * 9])]
    text = fail(write_table(tmp_path / "bad.csv", ["smiles", "y"], bad), "-t", "y")
    assert "target 'y'" in text and "unknown_token 9" in text
    assert "coverage: expected at most 0.9756 with 40 rows" in fail(table, "-t", "y", "--coverage", 0.99)
    assert sorted(os.listdir(tmp_path)) == ["bad.csv", "few.csv", "one.csv", "same.csv"]


def test_fit_does_not_replace_unless_told(
    fitted: tuple[Path, Result], table: Path, checkpoint: Path, tmp_path: Path
) -> None:
    before = (fitted[0] / "config.json").read_bytes()
    text = failing("fit", table, "-t", "y", "-o", fitted[0], "--model", checkpoint)
    assert "exists; --overwrite" in text
    assert (fitted[0] / "config.json").read_bytes() == before
    fit(table, tmp_path / "model", checkpoint, "-t", "y", "--head", "ridge")
    fit(table, tmp_path / "model", checkpoint, "-t", "y", "--head", "ridge", "--overwrite", "--policy", "parent")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["policy"] == "parent"
    predict(tmp_path / "model", table, tmp_path / "out.csv")
    assert read_table(tmp_path / "out.csv")[1]["status"] == "ok"


def test_errors_of_predict_are_one_line_and_leave_nothing(
    fitted: tuple[Path, Result], table: Path, tmp_path: Path
) -> None:
    (tmp_path / "new.smi").write_text("CCO\n")

    def fail(directory: Path, source: object, output: Path, *more: object) -> str:
        return failing("predict", directory, source, "-o", output, "--device", "cpu", "--workers", 0, *more)

    assert "expected a file name ending in .csv, .tsv, .parquet" in fail(
        fitted[0], tmp_path / "new.smi", tmp_path / "out.npy"
    )
    assert "no such directory" in fail(fitted[0], tmp_path / "new.smi", tmp_path / "no" / "out.csv")
    assert "not a saved predictor" in fail(tmp_path, tmp_path / "new.smi", tmp_path / "out.csv")
    assert "would replace the input" in fail(fitted[0], table, table)
    assert "expected a column 'structure'" in fail(fitted[0], table, tmp_path / "out.csv", "--smiles", "structure")
    other = tiny_checkpoint(tmp_path / "other", latent=16)
    assert "was fitted on embeddings of the model 'tiny'" in fail(
        fitted[0], tmp_path / "new.smi", tmp_path / "out.csv", "--model", other
    )
    assert sorted(os.listdir(tmp_path)) == ["new.smi", "other"]


def test_a_failure_midway_keeps_the_old_output(
    fitted: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.smi").write_text("CCO\n" * 40)
    predictor = Predictor.load(fitted[0], device="cpu")
    written = []

    def interrupted(self: object, chunk: object, predictions: object) -> None:
        written.append(chunk)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(predictor_table.PredictionWriter, "write", interrupted)
    for name in ("out.csv", "out.parquet"):
        (tmp_path / name).write_text("old")
        written.clear()
        with (
            pytest.raises(KeyboardInterrupt),
            MoleculeReader(tmp_path / "new.smi", chunk_rows=10) as reader,
        ):
            predictor_table.predict_file(predictor, reader, tmp_path / name, workers=0)
        assert (tmp_path / name).read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["new.smi", "out.csv", "out.parquet"]


def test_ctrl_c_leaves_no_files(fitted: tuple[Path, Result], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "molcmim", "predict", fitted[0], "-", "-o", out / "x.csv", "--workers", "0"]
    with subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"CCO\n" * 10)
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not list(out.iterdir()) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [path.name for path in out.iterdir()] == [f".x.csv.{process.pid}.part"]
        process.send_signal(signal.SIGINT)
        process.stdin.close()
        process.stdin = None
        process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert list(out.iterdir()) == []


def test_heads_of_the_command_are_those_there_are() -> None:
    assert tuple(head.value for head in Head) == HEADS


def test_help_names_the_options() -> None:
    text = run("fit", "--help").stdout
    for word in ("--target", "--smiles", "--task", "--head", "--model", "--kind", "--coverage", "--overwrite"):
        assert word in text
    assert "in_domain" in run("predict", "--help").stdout
