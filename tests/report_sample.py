"""A made-up output folder of the MoleculeNet runner: 5 sets, 8 feature sets, 3 heads, 3 protocols."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from molcmim.moleculenet.results import COLUMNS

HOSTILE = "<script>alert(1)</script>|`x`"
OURS = "molcmim-tiny:both"

#: name, title, task, unit, molecules, spread of the measured values
SETS = (
    ("esol", "ESOL", "regression", "log mol/L", 1128, 2.1),
    ("freesolv", "FreeSolv", "regression", "kcal/mol", 642, 3.8),
    ("lipo", "Lipophilicity", "regression", "log D", 4200, 1.2),
    ("bace", "BACE", "classification", "", 1513, 0.5),
    ("bbbp", "BBBP", "classification", "", 2039, 0.5),
)
#: features: error in spreads of the measured values, on each set
FEATURES = {
    "minimol": (0.26, 0.32, 0.36, 0.55, 0.5),
    "rdkit2d": (0.28, 0.31, 0.51, 0.62, 0.49),
    "chemnet": (0.32, 0.35, 0.56, 0.63, 0.46),
    OURS: (0.33, 0.36, 0.64, 0.62, 0.58),
    "molcmim-tiny:latent": (0.36, 0.39, 0.66, 0.63, 0.61),
    "ecfp4-count": (0.41, 0.47, 0.58, 0.58, 0.55),
    "vicgae": (0.4, 0.43, 0.78, 0.7, 0.64),
    "floor": (0.37, 0.49, 0.79, 0.74, 0.63),
}
HEADS = {"svm": 1.0, "ridge": 1.15, "rf": 1.08}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "random5": {"description": "Five random 80/20 splits (seeds 0-4).", "warning": ""},
    "scaffold": {"description": "One 80/10/10 split by Bemis-Murcko scaffold.", "warning": ""},
    "paper": {
        "description": "Squared error over a 5-fold cross-validation.",
        "warning": "The number is the minimum over a grid of the very errors that are reported, so it is optimistic.",
    },
}


def quick_scores(y: np.ndarray, p: np.ndarray, task: str) -> dict[str, float]:
    """Some metrics, without scikit-learn's checks: the sample has more than a thousand of them."""
    if task == "regression":
        mse = float(np.mean((y - p) ** 2))
        return {"rmse": mse**0.5, "mae": float(np.mean(np.abs(y - p))), "r2": 1 - mse / float(y.var())}
    return {"roc_auc": float(np.mean(p[y == 1][:, None] > p[y == 0][None, :]))}


class Cell:
    """What a head predicts from features on the splits of a set, as the runner records it."""

    def __init__(self, names: tuple[str, str, str, str], column: int, y: np.ndarray, p: np.ndarray, note: str) -> None:
        self.names, self.column, self.y, self.p, self.note = names, column, y, p, note

    def splits(self) -> Iterator[tuple[int, np.ndarray]]:
        """Number and test rows of each split."""
        n = len(self.y)
        for split in range(1 if self.names[1] == "scaffold" else 5):
            yield split, np.random.RandomState(split + 10 * self.column).permutation(n)[int(0.8 * n) :]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Its rows of results.csv. Some scores are missing, some molecules have no features."""
        dataset, protocol, features, head = self.names
        for split, test in self.splits():
            found, note = quick_scores(self.y[test], self.p[test], SETS[self.column][2]), ""
            if protocol == "paper":
                found["mse"] = found["rmse"] ** 2
            lost = (features, dataset, head)
            if lost == ("floor", "bace", "rf") or (*lost, split) == ("floor", "freesolv", "ridge", 2):
                found, note = dict.fromkeys(found, float("nan")), self.note
            shared = {
                **dict(zip(COLUMNS, self.names, strict=False)),
                "split": split,
                "task": "",
                "n_train": len(self.y) - len(test),
                "n_test": len(test),
                "n_failed": 37 if (features, dataset) == ("chemnet", "bbbp") else 0,
                "n_tasks": 1,
                "params": json.dumps({"C": [1, 3, 3, 10, 3][split]}) if head == "svm" else "",
                "seconds": 1.0,
                "identity": "0",
                "note": note,
            }
            for metric, value in found.items():
                yield {**shared, "metric": metric, "value": "" if np.isnan(value) else repr(float(value))}

    def save(self, folder: Path) -> None:
        """Write its predictions."""
        tests = list(self.splits())
        row = np.concatenate([test for _, test in tests])
        split = np.concatenate([np.full(len(test), number) for number, test in tests])
        name = "".join(c if c.isalnum() or c in "-_.+" else "_" for c in "-".join(self.names))
        zeros = np.zeros(len(row), int)
        np.savez(folder / f"{name}.npz", row=row, split=split, task=zeros, measured=self.y[row], predicted=self.p[row])


def make_cells(share: float, hostile: bool, heads: tuple[str, ...]) -> Iterator[Cell]:
    """Predictions whose errors are partly shared by all features, as they are in life."""
    random = np.random.default_rng(0)
    note = HOSTILE if hostile else "one class in the test part"
    for column, (name, _, task, _, size, spread) in enumerate(SETS):
        n = max(60, int(share * size))
        regression = task == "regression"
        true, shared_error = random.normal(size=(2, n))
        measured = spread * true - 1 if regression else (true > 0).astype(float)
        for features, errors in FEATURES.items():
            label = HOSTILE if hostile and features == "vicgae" else features
            own_error = random.normal(size=n)
            for head in heads:
                noise = errors[column] * HEADS[head] * (0.75 * shared_error + 0.66 * own_error)
                guess = true + noise + 0.05 * random.normal(size=n)
                for protocol in PROTOCOLS:
                    if protocol != "paper" or (regression and head == "svm"):
                        names = (name, protocol, label, head)
                        yield Cell(names, column, measured, spread * guess - 1 if regression else guess, note)


def write_sample(
    out: Path, share: float = 0.06, hostile: bool = False, heads: tuple[str, ...] = tuple(HEADS)
) -> dict[tuple[str, ...], list[float]]:
    """Write an output folder as the runner does; returns (dataset, protocol, features, head, metric) -> values.

    `share` of each set's molecules; with `hostile`, one of the feature sets, a note and a source have evil texts.
    """
    (out / "predictions").mkdir(parents=True, exist_ok=True)
    cells = list(make_cells(share, hostile, heads))
    rows = [row for cell in sorted(cells, key=lambda cell: cell.names) for row in cell.rows()]
    with open(out / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for cell in cells:
        cell.save(out / "predictions")
    (out / "run.json").write_text(json.dumps(run_record(share, hostile)), encoding="utf-8")
    values: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("dataset", "protocol", "features", "head", "metric"))
        values.setdefault(key, []).append(float(row["value"] or "nan"))
    return values


def run_record(share: float, hostile: bool) -> dict[str, Any]:
    """run.json."""
    datasets = {
        name: {
            "title": title,
            "task": task,
            "targets": ["y"],
            "unit": unit,
            "n": max(60, int(share * size)),
            "failures": {"parse_error": 2, "empty": 1} if name == "bbbp" else {},
            "sha256": f"{column}" * 64,
            "source": HOSTILE if hostile else "data directory",
        }
        for column, (name, title, task, unit, size, _) in enumerate(SETS)
    }
    run = {
        "command": "molcmim benchmark --tasks esol,freesolv,lipo,bace,bbbp --protocol random5,scaffold,paper",
        "date": "2026-11-24T12:00:00+00:00",
        "commit": "0123abcd" * 5,
        "modified": False,
        "machine": {"cpu": "Some CPU", "cores": 2, "python": "3.11.7", "rdkit": "2026.9.1", "processes": 2},
    }
    features = {label: {"n_failed": {}} for label in FEATURES}
    return {"runs": [run], "protocols": PROTOCOLS, "datasets": datasets, "features": features}
