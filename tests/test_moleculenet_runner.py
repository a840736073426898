"""The runner: plan, evaluation, results that a second run goes on with, and what goes wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the `benchmark` extra")

from molcmim.moleculenet import runner
from molcmim.moleculenet.datasets import load_table
from molcmim.moleculenet.evaluate import CHOOSING_TASKS, evaluate
from molcmim.moleculenet.features import CLASSICAL, parse_features
from molcmim.moleculenet.plan import Cell, estimate_seconds, make_plan
from molcmim.moleculenet.protocols import PROTOCOLS, choosing_folds, get_protocol
from molcmim.moleculenet.results import COLUMNS, ResultsTable
from molcmim.moleculenet.runner import Options, run
from molcmim.moleculenet.splits import SplitError, check_split
from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION, Dataset, Split

RINGS = ("c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCOC1", "c1ccsc1", "C1CCNCC1", "c1cc[nH]c1", "C1CC1")
TAILS = ("C", "CC", "CO", "CN", "CCO", "CCN", "OC(=O)", "NC(=O)", "ClC", "FC", "N#C", "SC")
MOLECULES = [f"{tail}{ring}" for ring in RINGS for tail in TAILS]  # 96


def dataset(task: str = REGRESSION, name: str = "own", t: int = 1, n: int = 96) -> Dataset:
    """Molecules with targets that their atom counts explain."""
    smiles = MOLECULES[:n]
    counts = CLASSICAL["floor"](smiles)
    value = counts[:, 1] + 0.5 * counts[:, 2] + 0.1 * counts[:, 18]
    y = value if task == REGRESSION else (counts[:, 11] > 0).astype(float)
    targets = tuple(f"y{i}" for i in range(t))
    return Dataset(
        name, name, task, targets, smiles, smiles, np.tile(y[:, None], (1, t)), np.arange(n), sha256="0" * 64
    )


def write_table(path: Path, rows: int = 96) -> Path:
    """A .csv with two rows that can't be used."""
    data = dataset()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [("smiles", "y"), ("C1CC", 1.0), *zip(data.smiles[:rows], data.y[:rows, 0], strict=True), ("CCO", "")]
        )
    return path


def options(out: Path, *tables: Dataset, **changes: Any) -> Options:
    given: dict[str, Any] = {
        "datasets": (),
        "protocols": ("random5",),
        "heads": ("ridge",),
        "features": tuple(parse_features("floor,maccs")),
        "out": out,
        "tables": tables,
        "maps": False,
    }
    return Options(**{**given, **changes})


def quiet(text: str) -> None:
    """Where the runner's lines go."""


# ---------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("name", ["random5", "scaffold5", "scaffold", "spec5"])
@pytest.mark.parametrize("task", [REGRESSION, CLASSIFICATION])
def test_records_are_the_scores_of_the_predictions(name: str, task: str) -> None:
    data, protocol = dataset(task), get_protocol(name)
    splits = protocol.make_splits(data)
    x = CLASSICAL["floor"](data.smiles)
    found = evaluate(x, data, protocol, splits, "ridge")
    assert {record["split"] for record in found.records} == set(range(len(splits)))
    main = "rmse" if task == REGRESSION else "roc_auc"
    for record in (record for record in found.records if record["metric"] == main):
        split = splits[record["split"]]
        chosen = found.predictions["split"] == record["split"]
        rows, measured = found.predictions["row"][chosen], found.predictions["measured"][chosen]
        predicted = found.predictions["predicted"][chosen]
        assert sorted(rows) == sorted(split.test) and (record["n_train"], record["n_test"]) == tuple(
            map(len, split[:2])
        )
        np.testing.assert_allclose(measured, data.y[rows, 0], rtol=1e-6)
        if task == REGRESSION:
            assert record["value"] == pytest.approx(np.sqrt(np.mean((predicted - measured) ** 2)), rel=1e-3, abs=1e-5)
        else:
            wins = predicted[measured == 1][:, None] > predicted[measured == 0]
            assert record["value"] == pytest.approx(wins.mean() if wins.size else np.nan, nan_ok=True)
    if main == "rmse":
        assert np.mean([record["value"] for record in found.records if record["metric"] == main]) < 0.5


@pytest.mark.parametrize("name", ["random5", "scaffold5", "scaffold", "spec5"])
def test_hyper_parameters_are_chosen_without_the_test_part(name: str) -> None:
    """Whatever the test part's targets are, the predictions for it stay the same."""
    protocol = get_protocol(name)
    data = dataset()
    splits = protocol.make_splits(data)[:1]
    changed = data.y.copy()
    changed[splits[0].test] = -7.0
    other = Dataset(**{**vars(data), "y": changed})
    x = CLASSICAL["ecfp4"](data.smiles)
    for head in ("ridge", "knn", "svm"):
        a, b = (evaluate(x, each, protocol, splits, head).predictions["predicted"] for each in (data, other))
        np.testing.assert_array_equal(a, b)


def test_inner_folds_are_apart_by_molecule_and_scaffold() -> None:
    data = dataset()
    twice = Dataset(**{**vars(data), "canonical": [MOLECULES[i // 2] for i in range(96)]})
    for name in ("random5", "scaffold5"):
        protocol = get_protocol(name)
        groups = np.array(protocol.inner_groups(twice))
        split = protocol.make_splits(twice)[0]
        rows, folds = choosing_folds(protocol, list(groups), split, "svm", seed=0)
        assert rows.tolist() == split.train.tolist() and len(folds) == 3
        for fit, judge in folds:
            assert not set(groups[rows[fit]]) & set(groups[rows[judge]])
            assert sorted([*fit, *judge]) == list(range(len(rows)))
        assert len(choosing_folds(protocol, list(groups), split, "xgb", seed=0)[1]) == 1


def test_paper_is_the_minimum_over_its_grid() -> None:
    from molcmim.moleculenet.heads import grid, predictions

    data, protocol = dataset(), get_protocol("paper")
    splits = protocol.make_splits(data)
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(96))
    x = CLASSICAL["floor"](data.smiles)
    found = evaluate(x, data, protocol, splits, "svm")
    entries = grid("svm", REGRESSION, 76, 19, wide=True)
    errors = np.zeros((len(entries), len(splits)))
    for i, split in enumerate(splits):
        tried = predictions("svm", REGRESSION, x[split.train], data.y[split.train, 0], x[split.test], entries)
        errors[:, i] = [np.mean((p - data.y[split.test, 0]) ** 2) for p in tried]
    mse = [record["value"] for record in found.records if record["metric"] == "mse"]
    np.testing.assert_allclose(mse, errors[errors.mean(axis=1).argmin()], rtol=1e-9)
    assert json.loads(found.records[0]["params"]) == entries[int(errors.mean(axis=1).argmin())]
    with pytest.raises(ValueError, match="paper: it has no 'ridge'"):
        evaluate(x, data, protocol, splits, "ridge")


def test_missing_labels_are_masked_and_tasks_averaged() -> None:
    data = dataset(CLASSIFICATION, t=CHOOSING_TASKS + 3)
    y = data.y.copy()
    y[::2, 0] = np.nan  # half of a task's labels
    y[:, 1] = 1.0  # one class
    y[:, 2] = np.nan  # no label at all
    data = Dataset(**{**vars(data), "y": y})
    protocol = get_protocol("random5")
    splits = protocol.make_splits(data)[:1]
    found = evaluate(CLASSICAL["floor"](data.smiles), data, protocol, splits, "ridge")
    average = next(r for r in found.records if r["task"] == "" and r["metric"] == "roc_auc")
    each = {r["task"]: r for r in found.records if r["task"] and r["metric"] == "roc_auc"}
    assert len(each) == len(data.targets) and average["n_tasks"] == len(data.targets) - 2
    assert np.isnan(each["y1"]["value"]) and "one class in the training part" in each["y1"]["note"]
    assert np.isnan(each["y2"]["value"]) and "0 labelled" in each["y2"]["note"]
    assert average["value"] == pytest.approx(np.nanmean([r["value"] for r in each.values()]))
    assert "2 of 15 tasks left out" in average["note"]
    tasks = found.predictions["task"]
    assert (tasks == 0).sum() == np.isfinite(y[splits[0].test, 0]).sum() and not (tasks == 2).any()


def test_one_class_in_the_test_part_is_a_nan_with_a_reason(tmp_path: Path) -> None:
    data = dataset(CLASSIFICATION)
    y = np.zeros((96, 1))
    y[:2] = 1.0  # two of 96: most test parts have none
    out = tmp_path / "out"
    run(options(out, Dataset(**{**vars(data), "y": y}), features=tuple(parse_features("floor"))), quiet)
    rows = list(csv.DictReader((out / "results.csv").open()))
    empty = [row for row in rows if row["metric"] == "roc_auc" and row["value"] == ""]
    assert empty and all("one class in the t" in row["note"] for row in empty)
    assert "one class" in (out / "report.md").read_text()


def test_features_that_do_not_fit() -> None:
    data, protocol = dataset(), get_protocol("random5")
    splits = protocol.make_splits(data)
    with pytest.raises(ValueError, match=r"expected shape \(96, d\), got \(95, 19\)"):
        evaluate(CLASSICAL["floor"](data.smiles[1:]), data, protocol, splits, "ridge")
    with pytest.raises(ValueError, match="vectors for some molecule of own, got none"):
        evaluate(np.full((96, 3), np.nan), data, protocol, splits, "ridge")
    x = CLASSICAL["floor"](data.smiles)
    x[:40] = np.nan
    found = evaluate(x, data, protocol, splits, "svm")
    assert np.isfinite(found.predictions["predicted"]).all()  # molecules without features are predicted too


# ---------------------------------------------------------------------------------------------- protocols


def test_protocols_are_frozen_and_named() -> None:
    assert set(PROTOCOLS) == {"random5", "scaffold", "scaffold5", "spec5", "paper"}
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name and protocol.version >= 1 and protocol.description
        with pytest.raises(AttributeError):
            protocol.version = 2  # type: ignore[misc]
    assert "optimistic" in PROTOCOLS["paper"].warning
    with pytest.raises(ValueError, match=r"protocol: expected one of random5.*got 'random'"):
        get_protocol("random")


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_splits_are_complete_and_apart(name: str) -> None:
    protocol, data = PROTOCOLS[name], dataset()
    doubled = Dataset(**{**vars(data), "canonical": [MOLECULES[i // 2] for i in range(96)]})
    for split in protocol.make_splits(data):
        assert check_split(split, data) == 0
    straddling = [check_split(split, doubled, allow_duplicates=True) for split in protocol.make_splits(doubled)]
    assert any(straddling) == (name == "spec5")


# ---------------------------------------------------------------------------------------------- plan


def test_large_sets_get_less() -> None:
    protocols = [PROTOCOLS["scaffold5"], PROTOCOLS["paper"], PROTOCOLS["random5"]]
    sets = [dataset(CLASSIFICATION, "hiv"), dataset(CLASSIFICATION, "toxcast"), dataset(REGRESSION, "esol")]
    plan = make_plan(sets, protocols, ["floor"], ["ridge", "svm", "xgb"])
    assert [cell for cell in plan.cells if cell.dataset != "esol"] == [
        Cell("hiv", "scaffold5", "floor", "ridge"),
        Cell("hiv", "scaffold5", "floor", "xgb"),
        Cell("toxcast", "scaffold5", "floor", "ridge"),
    ]
    assert len([cell for cell in plan.cells if cell.dataset == "esol"]) == 3 + 1 + 3
    assert "hiv: paper is for regression only" in plan.left_out
    assert "esol: paper is not for ridge, xgb" in plan.left_out
    assert any(line.startswith("toxcast: without svm, xgb, random5") for line in plan.left_out)
    everything = make_plan(sets, protocols, ["floor"], ["ridge", "svm", "xgb"], everything=True)
    assert len([cell for cell in everything.cells if cell.dataset == "toxcast"]) == 6


def test_estimate_grows_with_the_work() -> None:
    def seconds(head: str, protocol: str, n: int, t: int = 1) -> float:
        data = dataset(REGRESSION, t=t)
        many = Dataset(**{**vars(data), "smiles": data.smiles * (n // 96)})
        return estimate_seconds(Cell("own", protocol, "floor", head), many, PROTOCOLS[protocol])

    for head in ("ridge", "svm", "knn", "mlp", "rf", "xgb"):
        assert 0 < seconds(head, "scaffold", 960) < seconds(head, "random5", 960) < seconds(head, "random5", 4800)
    assert seconds("ridge", "random5", 960, t=4) > seconds("ridge", "random5", 960)


# ---------------------------------------------------------------------------------------------- runs


def test_a_run_and_the_same_again(tmp_path: Path) -> None:
    lines: list[str] = []
    table = load_table(write_table(tmp_path / "own.csv"), None, ["y"])
    out = tmp_path / "out"
    outcome = run(options(out, table, command="molcmim benchmark --data own.csv"), lines.append)
    assert (outcome.computed, outcome.skipped, outcome.errors) == (2, 0, [])
    assert any("96 molecules" in line and "1 parse_error" in line and "1 no_label" in line for line in lines)
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 2 * 5 * 3
    record = json.loads((out / "run.json").read_text())
    assert record["datasets"]["own"]["failures"] == {"parse_error": 1, "no_label": 1}
    assert record["datasets"]["own"]["n_rows"] == 98 and record["features"]["floor"]["width"] == 19
    assert record["runs"][0]["command"] == "molcmim benchmark --data own.csv"
    text = (out / "report.md").read_text()
    mean = np.mean([float(r["value"]) for r in rows if r["features"] == "maccs" and r["metric"] == "rmse"])
    assert f"{mean:.4f}" in text and "1 parse\\_error" in text
    before = (out / "results.csv").read_bytes()

    again = run(options(out, table), quiet)
    assert (again.computed, again.skipped) == (0, 2) and (out / "results.csv").read_bytes() == before
    assert len(json.loads((out / "run.json").read_text())["runs"]) == 1
    more = run(options(out, table, heads=("ridge", "knn")), quiet)
    assert (more.computed, more.skipped) == (2, 2)


def test_changed_data_are_computed_again(tmp_path: Path) -> None:
    out, data = tmp_path / "out", dataset()
    run(options(out, data), quiet)
    changed = Dataset(**{**vars(data), "sha256": "1" * 64})
    lines: list[str] = []
    outcome = run(options(out, changed, heads=("knn",)), lines.append)
    assert (outcome.computed, outcome.skipped) == (2, 0)
    assert any("other data than in the earlier run; 2 cells of it are dropped" in line for line in lines)
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert {row["head"] for row in rows} == {"knn"}  # nothing of the other data stands beside it


def test_saved_splits_with_a_leak_are_refused(tmp_path: Path) -> None:
    out, data = tmp_path / "out", dataset()
    run(options(out, data), quiet)
    path = out / "splits" / "own-random5.json"
    content = json.loads(path.read_text())
    parts = content["splits"][0]
    parts["test"].append(parts["train"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(SplitError, match="is in train and in test"):
        run(options(out, data), quiet)
    parts["test"].pop()
    parts["train"][0], parts["test"][0] = parts["test"][0], parts["train"][0]
    path.write_text(json.dumps(content))
    with pytest.raises(SplitError, match="not the splits that random5 makes"):
        run(options(out, data), quiet)


def test_a_leaked_duplicate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol that puts one molecule on both sides doesn't run."""
    data = dataset()
    twice = Dataset(**{**vars(data), "canonical": [MOLECULES[i // 2] for i in range(96)]})
    by_row = [Split(np.arange(1, 96), np.arange(1))]
    monkeypatch.setattr(type(get_protocol("random5")), "make_splits", lambda self, dataset: by_row)
    with pytest.raises(SplitError, match=MOLECULES[0]):
        run(options(tmp_path / "out", twice), quiet)


def test_stopped_and_resumed(tmp_path: Path) -> None:
    out, data = tmp_path / "out", dataset()

    def stop(text: str) -> None:
        if "rmse" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(options(out, data, heads=("ridge", "knn")), stop)
    assert len(list((out / "predictions").iterdir())) == 1
    assert (out / "report.html").exists()
    outcome = run(options(out, data, heads=("ridge", "knn")), quiet)
    assert (outcome.computed, outcome.skipped) == (3, 1)
    whole = tmp_path / "whole"
    run(options(whole, data, heads=("ridge", "knn")), quiet)

    def numbers(folder: Path) -> list[tuple[str, ...]]:
        names = [name for name in COLUMNS if name != "seconds"]
        return [tuple(row[name] for name in names) for row in csv.DictReader((folder / "results.csv").open())]

    assert numbers(out) == numbers(whole)


def test_processes_change_nothing(tmp_path: Path) -> None:
    data = dataset()
    run(options(tmp_path / "one", data), quiet)
    run(options(tmp_path / "two", data, processes=2), quiet)
    one, two = (list(csv.DictReader((tmp_path / name / "results.csv").open())) for name in ("one", "two"))
    assert [float(row["value"]) for row in one] == pytest.approx([float(row["value"]) for row in two], rel=1e-9)


def test_a_failing_cell_costs_that_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(x: np.ndarray, dataset: Dataset, protocol: Any, splits: Any, head: str, groups: Any = None) -> Any:
        if head == "knn":
            raise ValueError("no neighbours today")
        return evaluate(x, dataset, protocol, splits, head, groups)

    monkeypatch.setattr(runner, "evaluate", failing)
    outcome = run(options(tmp_path / "out", dataset(), heads=("knn", "ridge")), quiet)
    assert outcome.computed == 2 and len(outcome.errors) == 2
    assert "own random5 floor knn: ValueError: no neighbours today" in outcome.errors


def test_vectors_of_other_molecules_cost_their_cells(tmp_path: Path) -> None:
    np.savez(tmp_path / "peer.npz", smiles=np.array(["CCCCCCCCC"]), emb=np.ones((1, 4), dtype=np.float16))
    features = tuple(parse_features(f"other={tmp_path / 'peer.npz'},floor"))
    outcome = run(options(tmp_path / "out", dataset(), features=features), quiet)
    assert outcome.computed == 1 and len(outcome.errors) == 1 and outcome.errors[0].startswith("own other: ")


def test_one_run_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with runner._lock(out), pytest.raises(OSError, match="another run"):
        run(options(out, dataset()), quiet)


def test_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing that was asked for"):
        run(options(tmp_path / "out", dataset(CLASSIFICATION), protocols=("paper",)), quiet)
    with pytest.raises(ValueError, match="head: expected one of"):
        run(options(tmp_path / "out", dataset(), heads=("tree",)), quiet)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------- results


def test_results_table(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    table = ResultsTable(path)
    cell = Cell("esol", "random5", 'a "b", c', "svm")
    record = {name: "" for name in COLUMNS} | {"value": 1 / 3, "identity": "x", "note": "line\nbreak"}
    table.put(cell, [record, record | {"value": float("nan")}])
    read = ResultsTable(path)
    assert cell in read and read.identity(cell) == "x" and len(read) == 2
    rows = list(csv.DictReader(path.open(newline="")))
    assert float(rows[0]["value"]) == 1 / 3 and rows[1]["value"] == "" and rows[0]["note"] == "line\nbreak"
    read.put(cell, [record])
    assert len(ResultsTable(path)) == 1
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected the columns dataset"):
        ResultsTable(path)
