"""From rows of scores to tables: means, intervals, who is ahead of whom, ranks."""

# Axes: k data sets, f feature sets, s splits, m test molecules.

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from molcmim.moleculenet import statistics
from molcmim.moleculenet.metrics import HIGHER_IS_BETTER, MAIN_METRIC
from molcmim.moleculenet.report_data import (
    NAN,
    UNTESTED,
    Cell,
    Column,
    Pair,
    Predictions,
    Ranks,
    Report,
    Score,
    View,
    read_maps,
    read_predictions,
    read_scores,
)
from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION

UNITLESS = ("r2", "roc_auc", "pr_auc")
DEFAULT_HEAD = "svm"  #: shown first whatever the scores: the best head of a test set would flatter


def load_report(out: Path, reference: str | None = None) -> Report:
    """Read an output folder and work out everything that is shown.

    Raises
    ------
    FileNotFoundError
        `out` has no results.csv.
    ValueError
        results.csv is empty or incomplete, or `reference` is not among its features.
    """
    path = out / "results.csv"
    if not path.is_file():
        raise FileNotFoundError(f"out: expected a folder with results.csv, got {out}")
    rows = _allowing_for_overlap(read_scores(path), out)
    run_path = out / "run.json"
    run = json.loads(run_path.read_text(encoding="utf-8")) if run_path.is_file() else {}
    features = _in_order((row.features for row in rows), _names(run.get("features")))
    if reference is not None and reference not in features:
        raise ValueError(f"reference: expected one of {', '.join(features)}, got {reference!r}")
    datasets = _in_order((row.dataset for row in rows), _names(run.get("datasets")))
    report = Report(out, run, reference or default_reference(features), [], read_maps(out, datasets))
    for protocol, head in _view_keys(rows):
        mine = [row for row in rows if (row.protocol, row.head) == (protocol, head)]
        report.views.append(build_view(report, protocol, head, mine, datasets))
    return report


def _allowing_for_overlap(rows: list[Score], out: Path) -> list[Score]:
    """Rows with the size of training part that the correction of intervals must assume.

    Nadeau and Bengio's n_test / n_train is rho / (1 - rho) for a correlation rho between splits that is the overlap of
    random test parts, n_test / n. Where test parts overlap more (large scaffolds are never tested, so the few others
    are tested again and again), that overlap takes its place: n_train becomes n_test (1 - overlap) / overlap.
    """
    overlaps: dict[tuple[str, str], float] = {}
    adjusted = []
    for row in rows:
        key = row.dataset, row.protocol
        if key not in overlaps:
            overlaps[key] = overlap_of_tests(out / "splits" / f"{row.dataset}-{row.protocol}.json")
        overlap = overlaps[key]
        most = row.n_test / overlap * (1 - overlap) if overlap else row.n_train
        adjusted.append(row._replace(n_train=max(1, round(most))) if most < 0.95 * row.n_train else row)
    return adjusted


def overlap_of_tests(path: Path) -> float:
    """Mean share of a test part that another split's test part holds too; 0 without such a file or a second split."""
    if not path.is_file():
        return 0.0
    parts = [set(split["test"]) for split in json.loads(path.read_text(encoding="utf-8"))["splits"]]
    shares = [len(a & b) / len(a) for i, a in enumerate(parts) for j, b in enumerate(parts) if i != j and a]
    return float(np.mean(shares)) if shares else 0.0


def default_reference(features: Sequence[str]) -> str:
    """The first `both` embedding of a molcmim model, or else of any model, or else the first feature set."""
    both = [label for label in features if label.endswith(":both")]
    return next((label for label in both if label.startswith("molcmim")), (both or list(features))[0])


def _names(entries: Any) -> list[str]:
    """Names of a JSON mapping, or of a list of names or of objects with a `name`."""
    return [str(e["name"] if isinstance(e, Mapping) and "name" in e else e) for e in entries or ()]


def _in_order(found: Iterable[str], order: Sequence[str]) -> list[str]:
    """Each once; those of `order` in that order, then the others as they come."""
    seen, order = list(dict.fromkeys(found)), list(dict.fromkeys(order))
    return [name for name in order if name in seen] + [name for name in seen if name not in order]


def _view_keys(rows: Sequence[Score]) -> list[tuple[str, str]]:
    """Protocols and heads in the order of the runner's lists, the default head first."""
    from molcmim.moleculenet.heads import HEADS  # lazy: scikit-learn
    from molcmim.moleculenet.protocols import PROTOCOLS

    protocols = _in_order((row.protocol for row in rows), list(PROTOCOLS))
    heads = _in_order((row.head for row in rows), [DEFAULT_HEAD, *HEADS])
    keys = {(row.protocol, row.head) for row in rows}
    return [(protocol, head) for protocol in protocols for head in heads if (protocol, head) in keys]


# ---------------------------------------------------------------------------------------- one protocol and head


def build_view(report: Report, protocol: str, head: str, rows: Sequence[Score], datasets: Sequence[str]) -> View:
    """The tables of one protocol and head, from its rows of results.csv."""
    averages: dict[tuple[str, str, str], list[Score]] = {}  # by features, data set, metric
    for row in rows:
        if row.task == "":
            averages.setdefault((row.features, row.dataset, row.metric), []).append(row)
    columns = [
        _column(report, name, {key[2] for key in averages if key[1] == name}, averages)
        for name in datasets
        if any(key[1] == name for key in averages)
    ]
    features = list(dict.fromkeys(key[0] for key in averages))
    view = View(protocol, head, columns, features, report.reference)
    splits = {row.split for group in averages.values() for row in group}
    view.resampled = len(splits) == 1
    for column in columns:
        _fill_column(view, column, averages, report.out)
    view.ranks = _ranks(view)
    view.features = sorted(features, key=lambda f: (_mean_rank(view, f), f))
    return view


def _column(report: Report, dataset: str, metrics: set[str], averages: Mapping[Any, Sequence[Score]]) -> Column:
    info = report.dataset_info(dataset)
    task = info.get("task") or (CLASSIFICATION if "roc_auc" in metrics else REGRESSION)
    metric = "mse" if "mse" in metrics else MAIN_METRIC[task]  # only the protocol `paper` has mse, as its main metric
    unit = str(info.get("unit") or info.get("units") or "")
    unit = "" if metric in UNITLESS or not unit else (f"({unit})²" if metric == "mse" else unit)
    values = [r.value for key, rows in averages.items() if key[1:] == (dataset, metric) for r in rows]
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    digits = 4 if 0 < largest < 0.1 else 3 if largest < 10 else 2 if largest < 100 else 1
    higher = HIGHER_IS_BETTER.get(metric, metric in UNITLESS)
    return Column(dataset, str(info.get("title") or dataset), metric, unit, higher, digits)


def _fill_column(view: View, column: Column, averages: Mapping[Any, list[Score]], out: Path) -> None:
    """Cells of a data set, its best feature set, and the best and the reference against all others."""
    groups = {key[0]: rows for key, rows in averages.items() if key[1:] == (column.dataset, column.metric)}
    read: dict[str, Predictions | None] = {}

    def predictions(features: str) -> Predictions | None:
        if features not in read:
            read[features] = read_predictions(out, column.dataset, view.protocol, features, view.head)
        return read[features]

    for features, rows in groups.items():
        view.cells[features, column.dataset] = _cell(rows, column, predictions)
        view.params[features, column.dataset] = [row.params for row in rows if row.params not in ("", "{}")]
    for key, rows in averages.items():
        if key[1] == column.dataset and key[2] != column.metric:
            view.secondary[key] = _cell(rows, column._replace(metric=key[2]), predictions, resample=False)
    order = view.order(column.dataset)
    if not order:
        return
    best = view.best[column.dataset] = order[0]
    for ours, target in ((best, view.versus_best), (view.reference, view.versus_reference)):
        for other in order:
            if other != ours and view.has(ours, column.dataset):
                target[other, column.dataset] = compare(ours, other, groups, column, predictions)


def _sizes(rows: Sequence[Score]) -> tuple[int, int]:
    """Mean numbers of training and test molecules over the splits."""
    return round(float(np.mean([r.n_train for r in rows]))), round(float(np.mean([r.n_test for r in rows])))


def _cell(rows: Sequence[Score], column: Column, predictions: Any, resample: bool = True) -> Cell:
    """Mean over the splits that have a value, with its interval."""
    good = [row for row in rows if math.isfinite(row.value)]
    note = "; ".join(dict.fromkeys(row.note for row in rows if row.note))
    failed = max(row.n_failed for row in rows)
    mean, low, high = float(np.mean([row.value for row in good])) if good else NAN, NAN, NAN
    if len(good) > 1:
        interval = statistics.corrected_interval(np.array([row.value for row in good]), *_sizes(good))
        low, high = float(interval.low), float(interval.high)
    elif good and resample and len(rows) == 1:
        found = predictions(rows[0].features)
        if found is not None and _one_task(found):
            interval = statistics.bootstrap_interval(found.measured, found.predicted, column.metric)
            low, high = float(interval.low), float(interval.high)
    return Cell(mean, low, high, len(good), len(rows) - len(good), failed, note)


def _one_task(found: Predictions) -> bool:
    return len(found.measured) > 0 and bool((found.key[:, 0] == found.key[0, 0]).all())


def compare(ours: str, other: str, groups: Mapping[str, Sequence[Score]], column: Column, predictions: Any) -> Pair:
    """Two feature sets on the splits that both have a value for.

    Several splits: corrected paired interval; one: the test molecules are resampled; `untested` if neither can be.
    """
    theirs = {(r.split, r.n_train, r.n_test): r for r in groups[other] if math.isfinite(r.value)}
    pairs = [
        (row, theirs[row.split, row.n_train, row.n_test])
        for row in groups[ours]
        if math.isfinite(row.value) and (row.split, row.n_train, row.n_test) in theirs
    ]
    if not pairs:
        return Pair(NAN, NAN, NAN, UNTESTED)
    a, b = (np.array([pair[i].value for pair in pairs]) for i in (0, 1))
    if len(pairs) > 1:
        sizes = _sizes([row for row, _ in pairs])
        found = statistics.paired(a, b, *sizes, column.higher_is_better)
    else:
        mine, yours = predictions(ours), predictions(other)
        same = mine is not None and yours is not None and np.array_equal(mine.key, yours.key) and _one_task(mine)
        if not same:
            sign = 1.0 if column.higher_is_better else -1.0
            return Pair(sign * float(a[0] - b[0]), NAN, NAN, UNTESTED)
        found = statistics.paired_bootstrap(mine.measured, mine.predicted, yours.predicted, column.metric)
    verdict = found.verdict if math.isfinite(found.low) else UNTESTED
    if column.higher_is_better:
        return Pair(found.difference, found.low, found.high, verdict)
    return Pair(-found.difference, -found.high, -found.low, verdict)


# ---------------------------------------------------------------------------------------- ranks


def _mean_rank(view: View, features: str) -> float:
    """Mean place over the data sets; no value counts as the last place."""
    places = []
    for column in view.columns:
        order = view.order(column.dataset)
        places.append(order.index(features) if features in order else len(view.features))
    return float(np.mean(places))


def _ranks(view: View) -> Ranks | None:
    """Average ranks of the feature sets that have a value on every data set; None for fewer than 2 sets or features."""
    full = [f for f in view.features if all(view.has(f, c.dataset) for c in view.columns)]
    if len(full) < 2 or len(view.columns) < 2:
        return None
    scores = np.array([[view.cells[f, c.dataset].mean for f in full] for c in view.columns])  # (k, f)
    ranks = statistics.average_ranks(scores, np.array([c.higher_is_better for c in view.columns]))
    critical = float(statistics.critical_difference(len(full), len(view.columns)))
    order = sorted(range(len(full)), key=lambda i: (float(ranks[i]), full[i]))
    return Ranks(
        [full[i] for i in order],
        [float(ranks[i]) for i in order],
        critical,
        [c.title for c in view.columns],
        [f for f in view.features if f not in full],
    )
