"""What a report shows, and how the files of an output folder are read."""

# Axes: k data sets, f feature sets, s splits, m test molecules.

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

METRIC_TITLES = {"rmse": "RMSE", "mae": "MAE", "r2": "R²", "mse": "MSE", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}
AHEAD, TIE, BEHIND, UNTESTED = "ahead", "tie", "behind", "untested"
NAN = float("nan")


class Score(NamedTuple):
    """One row of results.csv."""

    dataset: str
    protocol: str
    features: str
    head: str
    split: int
    task: str
    metric: str
    value: float
    n_train: int
    n_test: int
    n_failed: int
    n_tasks: int
    params: str
    note: str


class Cell(NamedTuple):
    """A score with its 95 % interval; NaN where there is none."""

    mean: float
    low: float
    high: float
    n_splits: int  #: splits that have a value
    n_missing: int  #: splits that have none
    n_failed: int  #: molecules without features
    note: str  #: why values are missing


class Pair(NamedTuple):
    """One feature set against another on the same splits, signed so that positive means: the first is better."""

    advantage: float
    low: float
    high: float
    verdict: str  #: "ahead", "tie", "behind"; "untested" where no interval can be had

    def reversed(self) -> Pair:
        verdict = {AHEAD: BEHIND, BEHIND: AHEAD}.get(self.verdict, self.verdict)
        return Pair(-self.advantage, -self.high, -self.low, verdict)


class Column(NamedTuple):
    """A data set as a column of a table."""

    dataset: str
    title: str
    metric: str
    unit: str  #: empty for metrics without one
    higher_is_better: bool
    digits: int  #: after the point

    @property
    def heading(self) -> str:
        return METRIC_TITLES.get(self.metric, self.metric)

    def number(self, value: float, sign: bool = False) -> str:
        """A value of this column; a minus is a real minus."""
        if not math.isfinite(value):
            return "n/a"
        text = f"{value:{'+' if sign else ''}.{self.digits}f}"
        return text.replace("-", "−")

    def interval(self, low: float, high: float, sign: bool = False) -> str:
        if not (math.isfinite(low) and math.isfinite(high)):
            return ""
        return f"[{self.number(low, sign)}, {self.number(high, sign)}]"


class Ranks(NamedTuple):
    """Average ranks over data sets (1: best), and by how much two must differ (Nemenyi)."""

    features: list[str]  #: best first
    ranks: list[float]
    critical_difference: float
    datasets: list[str]
    left_out: list[str]  #: feature sets without a value on each of the sets


@dataclass
class View:
    """One protocol and one head: a table, and what follows from it."""

    protocol: str
    head: str
    columns: list[Column]
    features: list[str]
    reference: str
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)  #: (features, dataset) -> score
    best: dict[str, str] = field(default_factory=dict)  #: dataset -> features
    versus_best: dict[tuple[str, str], Pair] = field(default_factory=dict)  #: the best one against the others
    versus_reference: dict[tuple[str, str], Pair] = field(default_factory=dict)  #: the reference against the others
    ranks: Ranks | None = None
    resampled: bool = False  #: intervals come from resampling test molecules, not from several splits
    secondary: dict[tuple[str, str, str], Cell] = field(default_factory=dict)  #: (features, dataset, metric)
    params: dict[tuple[str, str], list[str]] = field(default_factory=dict)  #: hyper-parameters chosen, split by split

    def order(self, dataset: str) -> list[str]:
        """Feature sets that have a value on the data set, best first."""
        column = next(c for c in self.columns if c.dataset == dataset)
        having = [f for f in self.features if self.has(f, dataset)]
        sign = -1 if column.higher_is_better else 1
        return sorted(having, key=lambda f: (sign * self.cells[f, dataset].mean, f))

    def has(self, features: str, dataset: str) -> bool:
        cell = self.cells.get((features, dataset))
        return cell is not None and math.isfinite(cell.mean)

    def level(self, features: str, dataset: str) -> bool:
        """Whether the difference to the best of the data set is within chance."""
        pair = self.versus_best.get((features, dataset))
        return pair is not None and pair.verdict == TIE


@dataclass
class Report:
    """Everything that a page shows."""

    out: Path
    run: dict[str, Any]
    reference: str
    views: list[View]
    maps: list[dict[str, Any]]

    @property
    def protocols(self) -> list[str]:
        return list(dict.fromkeys(view.protocol for view in self.views))

    @property
    def heads(self) -> list[str]:
        return list(dict.fromkeys(view.head for view in self.views))

    def protocol_info(self, name: str) -> dict[str, Any]:
        return by_name(self.run.get("protocols"), name)

    def dataset_info(self, name: str) -> dict[str, Any]:
        return by_name(self.run.get("datasets"), name)


def by_name(entries: Any, name: str) -> dict[str, Any]:
    """The entry of that name, of a mapping or of a list of entries with a `name`; empty without one."""
    if isinstance(entries, Mapping):
        found = entries.get(name) or {}
        return dict(found) if isinstance(found, Mapping) else {"description": str(found)}
    for entry in entries or ():
        if isinstance(entry, Mapping) and entry.get("name") == name:
            return dict(entry)
    return {}


# ---------------------------------------------------------------------------------------- reading


def read_scores(path: Path) -> list[Score]:
    """Rows of results.csv, the last one of those that mean the same number.

    Raises
    ------
    ValueError
        The file lacks a column or has no rows.
    """
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in Score._fields if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path.name}: expected the columns {', '.join(Score._fields)}; missing {missing}")
        rows = [_score(row) for row in reader]
    if not rows:
        raise ValueError(f"{path.name}: expected results, got no rows")
    return list({row[:7]: row for row in rows}.values())


def _score(row: Mapping[str, str]) -> Score:
    def whole(name: str) -> int:
        return int(float(row[name])) if row[name] else 0

    value = float(row["value"]) if row["value"] else NAN
    return Score(
        row["dataset"],
        row["protocol"],
        row["features"],
        row["head"],
        whole("split"),
        row["task"],
        row["metric"],
        value,
        whole("n_train"),
        whole("n_test"),
        whole("n_failed"),
        whole("n_tasks"),
        row["params"] or "",
        row["note"] or "",
    )


def file_name(*parts: str) -> str:
    """Parts joined by `-`, with whatever a file system might not like replaced by `_`."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", "-".join(parts))


class Predictions(NamedTuple):
    """What a head said about test molecules, sorted by task, split and row."""

    key: np.ndarray  #: (m, 3) int: task, split, row of the data set
    measured: np.ndarray  #: (m,)
    predicted: np.ndarray  #: (m,)


def read_predictions(out: Path, dataset: str, protocol: str, features: str, head: str) -> Predictions | None:
    """Test predictions; None if the folder has none. Rows without a measured or predicted value are left out."""
    for name in (f"{dataset}-{protocol}-{features}-{head}", file_name(dataset, protocol, features, head)):
        path = out / "predictions" / f"{name}.npz"
        if path.parent == out / "predictions" and path.is_file():
            break
    else:
        return None
    with np.load(path, allow_pickle=False) as file:
        measured, predicted = (np.asarray(file[name], dtype=np.float64) for name in ("measured", "predicted"))
        row = file["row"]
        split = file["split"] if "split" in file else np.zeros_like(row)
        task = file["task"] if "task" in file else np.zeros_like(row)
    key = np.stack([task, split, row], axis=1).astype(np.int64)
    keep = np.isfinite(measured) & np.isfinite(predicted)
    key, measured, predicted = key[keep], measured[keep], predicted[keep]
    order = np.lexsort(key.T[::-1])
    return Predictions(key[order], measured[order], predicted[order])


def read_maps(out: Path, datasets: Sequence[str]) -> list[dict[str, Any]]:
    """maps/<dataset>.json of the data sets that have one, in the order given."""
    paths = [out / "maps" / f"{name}.json" for name in datasets]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
