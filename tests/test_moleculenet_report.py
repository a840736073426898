"""The report of the MoleculeNet runner: numbers, verdicts, escaping, and that the page loads nothing."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molcmim.moleculenet.metrics import scores
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
    "minimol": (0.26, 0.32, 0.47, 0.55, 0.5),
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


def write_sample(out: Path, share: float = 0.06, hostile: bool = False) -> dict[tuple[str, ...], list[float]]:
    """Write an output folder as the runner does; returns (dataset, protocol, features, head, metric) -> values.

    `share` of each set's molecules; with `hostile`, one of the feature sets, a note and a source have evil texts.
    """
    random = np.random.default_rng(0)
    (out / "predictions").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    values: dict[tuple[str, ...], list[float]] = {}
    datasets = {}
    for column, (name, title, task, unit, size, spread) in enumerate(SETS):
        n = max(60, int(share * size))
        regression = task == "regression"
        true = random.normal(size=n)
        measured = spread * true - 1 if regression else (true > 0).astype(float)
        shared_error = random.normal(size=n)
        datasets[name] = {
            "title": title,
            "task": task,
            "targets": ["y"],
            "unit": unit,
            "n": n,
            "n_rows": n + 3,
            "failures": {"parse_error": 2, "empty": 1} if name == "bbbp" else {},
            "sha256": f"{column}" * 64,
            "source": HOSTILE if hostile else "data directory",
        }
        for features, errors in FEATURES.items():
            label = HOSTILE if hostile and features == "vicgae" else features
            own_error = random.normal(size=n)
            for head, factor in HEADS.items():
                noise = errors[column] * factor * (0.75 * shared_error + 0.66 * own_error)
                guess = true + noise + 0.05 * random.normal(size=n)
                guess = spread * guess - 1 if regression else guess
                for protocol, n_splits in (("random5", 5), ("scaffold", 1), ("paper", 5)):
                    if protocol == "paper" and not (regression and head == "svm"):
                        continue
                    parts: list[dict[str, np.ndarray]] = []
                    for split in range(n_splits):
                        test = np.random.RandomState(split + 10 * column).permutation(n)[int(0.8 * n) :]
                        found = scores(measured[test], guess[test], task)
                        if protocol == "paper":
                            found["mse"] = found["rmse"] ** 2
                        failed = 37 if (features, name) == ("chemnet", "bbbp") else 0
                        note = ""
                        if (features, name, head) == ("floor", "bace", "rf") or (
                            (features, name, head, split) == ("floor", "freesolv", "ridge", 2)
                        ):
                            found, note = dict.fromkeys(found, float("nan")), "one class in the test part"
                            note = HOSTILE if hostile else note
                        shared = {"dataset": name, "protocol": protocol, "features": label, "head": head}
                        sizes = {"split": split, "n_train": n - len(test), "n_test": len(test), "n_failed": failed}
                        params = json.dumps({"C": [1, 3, 3, 10, 3][split]}) if head == "svm" else ""
                        for metric, value in found.items():
                            values.setdefault((name, protocol, label, head, metric), []).append(value)
                            empty = "" if np.isnan(value) else repr(float(value))
                            more = {"task": "", "metric": metric, "value": empty, "n_tasks": 1, "params": params}
                            rows.append({**shared, **sizes, **more, "seconds": 1.0, "identity": "0", "note": note})
                        parts.append(
                            {
                                "row": test,
                                "split": np.full(len(test), split),
                                "task": np.zeros(len(test), int),
                                "measured": measured[test],
                                "predicted": guess[test],
                            }
                        )
                    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
                    file = "-".join((name, protocol, label, head))
                    file = "".join(c if c.isalnum() or c in "-_.+" else "_" for c in file)
                    np.savez_compressed(out / "predictions" / f"{file}.npz", **joined)
    rows.sort(key=lambda row: tuple(row[name] for name in COLUMNS[:4]))
    with open(out / "results.csv", "w", encoding="utf-8", newline="") as file_:
        writer = csv.DictWriter(file_, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    machine = {"cpu": "Some CPU", "cores": 2, "python": "3.11.7", "molcmim": "0.2.0", "rdkit": "2026.9.1", "processes": 2}
    run = {
        "runs": [
            {
                "command": "molcmim benchmark --tasks esol,freesolv,lipo,bace,bbbp --protocol random5,scaffold,paper",
                "date": "2026-11-24T12:00:00+00:00",
                "commit": "0123abcd" * 5,
                "modified": False,
                "machine": machine,
                "seconds": 612.0,
                "cells": 270,
            }
        ],
        "protocols": PROTOCOLS,
        "datasets": datasets,
        "features": {label: {"n_failed": {}} for label in FEATURES},
    }
    (out / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return values
