"""Scores of predictions, with an explicit NaN and a reason where a score is undefined.

| metric | of | undefined |
|---|---|---|
| `rmse`, `mae`, `mse` | values | no rows |
| `r2` | values | fewer than two rows, or all measured values equal |
| `roc_auc` | scores, higher: class 1 more likely | no rows, or one class among the measured |
| `pr_auc` (average precision) | the same | the same |

A prediction that isn't a finite number makes every metric of its task NaN: leaving its row out would flatter the model.
"""

# Axes: n molecules (rows), t targets (tasks).

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION, Array

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "rmse": False,
    "mae": False,
    "mse": False,
    "r2": True,
    "roc_auc": True,
    "pr_auc": True,
}
MAIN_METRIC: Mapping[str, str] = {REGRESSION: "rmse", CLASSIFICATION: "roc_auc"}
#: what `scores` gives unless told otherwise; `mse` is computed on request
METRICS: Mapping[str, tuple[str, ...]] = {REGRESSION: ("rmse", "mae", "r2"), CLASSIFICATION: ("roc_auc", "pr_auc")}
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    REGRESSION: ("rmse", "mae", "r2", "mse"),
    CLASSIFICATION: METRICS[CLASSIFICATION],
}

NO_ROWS = "no measured value in the test part"
ONE_CLASS = "one class in the test part"
NO_PREDICTION = "no prediction: the head could not be fitted"


class MultiScore(NamedTuple):
    """Scores of t tasks."""

    average: dict[str, float]  #: metric: mean over the tasks that have a value, NaN if none has
    per_task: list[dict[str, float]]  #: t dicts, metric: value or NaN
    n_tasks: dict[str, int]  #: metric: how many tasks went into its average
    note: str  #: how many tasks were left out, and why; empty if none


def scores(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, task: str, metrics: Sequence[str] | None = None
) -> dict[str, float]:
    """Metrics of one task.

    Parameters
    ----------
    y_true
        (n,) measured values without NaN; classes are 0 and 1.
    y_pred
        (n,) predicted values, or scores that are higher where class 1 is more likely.
    task
        ``"regression"`` or ``"classification"``.
    metrics
        Which ones; default: `METRICS` of the task.

    Returns
    -------
    dict
        metric: value, NaN where undefined; `reasons` says why.

    Raises
    ------
    ValueError
        If shapes differ, `y_true` has NaN or a class that isn't 0 or 1, or the task has no such metric.
    """
    y, p, names = _checked(y_true, y_pred, task, metrics)
    return {name: float("nan") if _reason(name, y, p) else _value(name, y, p) for name in names}


def reasons(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, task: str, metrics: Sequence[str] | None = None
) -> dict[str, str]:
    """Why `scores` has a NaN: metric: reason, for the undefined metrics only. Parameters and errors as there."""
    y, p, names = _checked(y_true, y_pred, task, metrics)
    found = {name: _reason(name, y, p) for name in names}
    return {name: reason for name, reason in found.items() if reason}


def masked_scores(
    y: npt.ArrayLike, predicted: npt.ArrayLike, task: str, metrics: Sequence[str] | None = None
) -> MultiScore:
    """Metrics of several tasks, each on the rows where it was measured, and their mean over tasks.

    Parameters
    ----------
    y
        (n, t) measured values; NaN: not measured.
    predicted
        (n, t) predictions; a column of NaN: the head could not be fitted.
    task, metrics
        As for `scores`.

    Raises
    ------
    ValueError
        As for `scores`, or if the arrays don't have two axes.
    """
    measured, guessed = np.asarray(y, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if measured.ndim != 2 or measured.shape != guessed.shape:
        raise ValueError(
            f"y and predicted: expected two (n, t) arrays of one shape, got {measured.shape} and {guessed.shape}"
        )
    names = _names(task, metrics)
    per_task: list[dict[str, float]] = []
    why: dict[str, Counter[str]] = {name: Counter() for name in names}
    for values, guesses in zip(measured.T, guessed.T, strict=True):
        known = ~np.isnan(values)
        per_task.append(scores(values[known], guesses[known], task, names))
        for name, reason in reasons(values[known], guesses[known], task, names).items():
            why[name][reason] += 1

    average: dict[str, float] = {}
    n_tasks: dict[str, int] = {}
    for name in names:
        values = np.array([found[name] for found in per_task])
        defined = values[~np.isnan(values)]
        n_tasks[name] = len(defined)
        average[name] = float(defined.mean()) if len(defined) else float("nan")
    return MultiScore(average, per_task, n_tasks, _note(why, measured.shape[1]))


def _note(why: Mapping[str, Counter[str]], t: int) -> str:
    """``"r2: 2 of 12 tasks left out (1: reason; 1: reason)"``, metrics with the same reasons together."""
    together: dict[str, list[str]] = {}
    for name, counts in why.items():
        if not counts:
            continue
        text = next(iter(counts))
        if t > 1:
            listed = "; ".join(f"{count}: {reason}" for reason, count in counts.most_common())
            text = f"{counts.total()} of {t} tasks left out ({listed})"
        together.setdefault(text, []).append(name)
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in together.items())


def _names(task: str, metrics: Sequence[str] | None) -> tuple[str, ...]:
    if task not in METRICS:
        raise ValueError(f"task: expected {REGRESSION!r} or {CLASSIFICATION!r}, got {task!r}")
    names = METRICS[task] if metrics is None else tuple(metrics)
    for name in names:
        if name not in _ALLOWED[task]:
            raise ValueError(f"metrics: expected some of {', '.join(_ALLOWED[task])} for {task}, got {name!r}")
    return names


def _checked(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, task: str, metrics: Sequence[str] | None
) -> tuple[Array, Array, tuple[str, ...]]:
    names = _names(task, metrics)
    y, p = np.asarray(y_true, dtype=np.float64), np.asarray(y_pred, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape:
        raise ValueError(f"y_true and y_pred: expected two (n,) arrays of one length, got {y.shape} and {p.shape}")
    if not np.isfinite(y).all():
        raise ValueError(f"y_true: expected finite numbers, got {y[~np.isfinite(y)][0]}")
    wrong = y[(y != 0) & (y != 1)] if task == CLASSIFICATION else y[:0]
    if len(wrong):
        raise ValueError(f"y_true: expected classes 0 and 1, got {wrong[0]}")
    return y, p, names


def _reason(name: str, y: Array, p: Array) -> str:
    """Why a metric is undefined; empty if it isn't."""
    if not len(y):
        return NO_ROWS
    bad = int((~np.isfinite(p)).sum())
    if bad == len(p) and np.isnan(p).all():
        return NO_PREDICTION
    if bad:
        return f"{bad} of {len(p)} predictions are not finite numbers"
    if name == "r2" and len(y) < 2:
        return "fewer than two rows in the test part"
    if name == "r2" and y.min() == y.max():
        return "all measured values in the test part are equal"
    if name in METRICS[CLASSIFICATION] and y.min() == y.max():
        return ONE_CLASS
    return ""


def _value(name: str, y: Array, p: Array) -> float:
    from sklearn import metrics

    functions: dict[str, Callable[[Array, Array], float]] = {
        "rmse": lambda y, p: np.sqrt(metrics.mean_squared_error(y, p)),
        "mae": metrics.mean_absolute_error,
        "mse": metrics.mean_squared_error,
        "r2": metrics.r2_score,
        "roc_auc": metrics.roc_auc_score,
        "pr_auc": metrics.average_precision_score,
    }
    with np.errstate(over="ignore", invalid="ignore"):  # a head that diverged: its error is inf, without a warning
        return float(functions[name](y, p))
