"""What makes a fitted head honest: cross-validated scores, prediction intervals, calibrated probabilities.

All three rest on out-of-fold predictions: each molecule is predicted by a head that has seen neither it nor
another row of the same molecule, with hyper-parameters chosen without it too (nested cross-validation).
"""

# Axes: n rows of the table with a value for the target, d features.

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.moleculenet.types import CLASSIFICATION, Array, Rows

OUTER_FOLDS = 5  #: of the cross-validation whose scores are shown
INNER_FOLDS = 3  #: on which hyper-parameters are chosen
MIN_MOLECULES = 10  #: different molecules that a target needs
MIN_CLASS = OUTER_FOLDS  #: different molecules that each class needs, so that every fold can be fitted and judged

FloatArray = npt.NDArray[np.float32]


class FittedHead(NamedTuple):
    """A head fitted on all rows of one target, and what its out-of-fold predictions say about it."""

    estimator: Any  #: scikit-learn's, fitted on everything
    params: dict[str, Any]  #: the chosen hyper-parameters
    scores: dict[str, float]  #: of the out-of-fold predictions
    baseline: dict[str, float]  #: the same for the mean, or the more frequent class
    half_width: float | None  #: of the prediction interval (regression)
    slope: float | None  #: of the calibration (classification): probability = 1 / (1 + exp(-slope s - intercept))
    intercept: float | None


def fit_head(
    head: str, task: str, x: FloatArray, y: Array, groups: Sequence[Hashable], coverage: float, seed: int
) -> FittedHead:
    """Choose hyper-parameters, judge by cross-validation, calibrate, and fit on everything.

    Parameters
    ----------
    head, task
        See `molcmim.moleculenet.heads`.
    x
        (n, d) finite features.
    y
        (n,) measured values, or classes 0.0 and 1.0; no NaN.
    groups
        n keys; rows with equal ones are the same molecule and stay in one fold.
    coverage
        Share of new molecules whose value the interval should hold.
    seed
        Of the folds and of the head.

    Raises
    ------
    ValueError
        If there are too few molecules (of a class), the target is constant, or `coverage` asks for more rows.
    """
    from molcmim.moleculenet.heads import choose, fitted, make_estimator

    check_target(y, groups, task)
    if task != CLASSIFICATION:
        check_coverage(coverage, len(y))
    predicted = out_of_fold(head, task, x, y, groups, seed)
    params = choose(head, task, x, y, grouped_folds(groups, y, task, INNER_FOLDS, seed), seed)
    estimator = fitted(make_estimator(head, task, params, seed), x, y)
    if task == CLASSIFICATION:
        slope, intercept = platt(predicted, y)
        found, baseline = class_table(y, predicted, probabilities(predicted, slope, intercept))
        return FittedHead(estimator, params, found, baseline, None, slope, intercept)
    found, baseline = value_table(y, predicted)
    half_width = conformal_half_width(y - predicted, coverage)
    return FittedHead(estimator, params, found, baseline, half_width, None, None)


def check_target(y: Array, groups: Sequence[Hashable], task: str) -> None:
    """ValueError if a target (n,) is constant, of one class, or has too few different molecules."""
    n_molecules = len(set(groups))
    if n_molecules < MIN_MOLECULES:
        raise ValueError(
            f"expected at least {MIN_MOLECULES} different molecules with a value that can be used, "
            f"got {n_molecules} ({len(y)} rows)"
        )
    if not np.isfinite(y).all():
        raise ValueError(f"expected finite values, got {y[~np.isfinite(y)][0]}")
    if task != CLASSIFICATION:
        if y.min() == y.max():
            raise ValueError(f"expected values that differ, got {y[0]:g} in all {len(y)} rows")
        return
    for label in (0.0, 1.0):
        count = len({group for group, value in zip(groups, y, strict=True) if value == label})
        if count == 0:
            raise ValueError(f"expected two classes, got only class {1 - label:g} in all {len(y)} rows")
        if count < MIN_CLASS:
            raise ValueError(f"expected at least {MIN_CLASS} molecules of each class, got {count} of class {label:g}")


def check_share(coverage: float) -> None:
    """ValueError unless it is a share between 0 and 1."""
    if not 0 < coverage < 1:
        raise ValueError(f"coverage: expected a share between 0 and 1, got {coverage}")


def check_coverage(coverage: float, n: int) -> None:
    """ValueError unless n residuals can give an interval of this coverage: that takes (n + 1) coverage <= n."""
    check_share(coverage)
    if _rank(coverage, n) > n:
        raise ValueError(f"coverage: expected at most {n / (n + 1):.4g} with {n} rows, got {coverage}")


def grouped_folds(groups: Sequence[Hashable], y: Array, task: str, n_folds: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Pairs of row positions (to fit on, to judge on), equal groups kept together; classes are spread evenly."""
    if task != CLASSIFICATION:
        from molcmim.moleculenet.splits import inner_folds

        return inner_folds(groups, np.arange(len(y)), n_folds, seed)
    label: dict[Hashable, float] = {}
    for group, value in zip(groups, y, strict=True):
        label[group] = max(value, label.get(group, 0.0))
    names = list(label)
    order = np.random.RandomState(seed).permutation(len(names)).tolist()
    dealt = [names[i] for value in (1.0, 0.0) for i in order if label[names[i]] == value]
    fold_of = {name: position % n_folds for position, name in enumerate(dealt)}
    fold = np.array([fold_of[group] for group in groups])
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(n_folds)]


def out_of_fold(head: str, task: str, x: FloatArray, y: Array, groups: Sequence[Hashable], seed: int) -> Array:
    """(n,) predictions (scores of class 1), each by a head chosen and fitted without that molecule."""
    from molcmim.moleculenet.heads import choose, predictions

    result = np.full(len(y), np.nan)
    for fit, judge in grouped_folds(groups, y, task, OUTER_FOLDS, seed):
        inner = grouped_folds([groups[i] for i in fit], y[fit], task, INNER_FOLDS, seed)
        params = choose(head, task, x[fit], y[fit], inner, seed)
        result[judge] = predictions(head, task, x[fit], y[fit], x[judge], [params], seed)[0]
    return result


# ------------------------------------------------------------------------------------------ calibration


def conformal_half_width(residuals: Array, coverage: float) -> float:
    """Half the width of a prediction interval from n out-of-fold residuals (n,).

    The ceil((n + 1) coverage)-th smallest absolute residual, as in split conformal prediction (Vovk et al. 2005;
    Lei et al. 2018). With residuals of all folds around a head fitted on everything this is the constant-width form
    of cross-conformal prediction (Vovk 2015; Barber et al. 2021, CV+): its proven coverage is lower, what it covers
    in practice is close to nominal for molecules drawn like the training ones, and not for others.

    Raises
    ------
    ValueError
        If n is too small for that coverage.
    """
    check_coverage(coverage, len(residuals))
    return float(np.sort(np.abs(residuals))[_rank(coverage, len(residuals)) - 1])


def _rank(coverage: float, n: int) -> int:
    return max(1, math.ceil(round((n + 1) * coverage, 9)))  # rounded: 0.9 * 10 must not become 10


def platt(scores: Array, y: Array) -> tuple[float, float]:
    """Slope and intercept of the logistic curve from a classifier's scores (n,) to probabilities of class 1.

    Platt (1999), with his smoothed targets, so that perfectly separated classes don't give certainty. The slope
    isn't negative: a head that does worse than chance gives the share of class 1, not its opposite.
    """
    from scipy.optimize import minimize

    center, spread = float(scores.mean()), float(scores.std()) or 1.0
    s = (scores - center) / spread
    n_one = float(y.sum())
    n_zero = len(y) - n_one
    target = np.where(y == 1, (n_one + 1) / (n_one + 2), 1 / (n_zero + 2))

    def loss(point: Array) -> tuple[float, Array]:
        margin = point[0] * s + point[1]
        error = probabilities(margin, 1.0, 0.0) - target
        value = float((np.logaddexp(0.0, margin) - target * margin).mean())
        return value, np.array([(error * s).mean(), error.mean()])

    start = np.array([0.0, math.log((n_one + 1) / (n_zero + 1))])
    options = {"ftol": 1e-14, "gtol": 1e-10}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)], options=options).x
    slope = float(found[0]) / spread
    return slope, float(found[1]) - slope * center


def probabilities(scores: Array, slope: float, intercept: float) -> Array:
    """(n,) probabilities of class 1 by the logistic curve with this slope and intercept."""
    return 1.0 / (1.0 + np.exp(-np.clip(slope * scores + intercept, -500.0, 500.0)))


# ------------------------------------------------------------------------------------------ scores


def value_table(y: Array, predicted: Array) -> tuple[dict[str, float], dict[str, float]]:
    """RMSE, MAE and R2 of predictions (n,), and of always predicting the mean."""
    from molcmim.moleculenet.metrics import scores

    return scores(y, predicted, "regression"), scores(y, np.full(len(y), y.mean()), "regression")


def class_table(y: Array, predicted: Array, probability: Array) -> tuple[dict[str, float], dict[str, float]]:
    """ROC-AUC and PR-AUC of scores (n,), accuracy at probability 0.5, and the same of the more frequent class."""
    from molcmim.moleculenet.metrics import scores

    found, baseline = scores(y, predicted, "classification"), scores(y, np.zeros(len(y)), "classification")
    found["accuracy"] = float(np.mean((probability >= 0.5) == (y == 1)))
    baseline["accuracy"] = float(max(y.mean(), 1 - y.mean()))
    return found, baseline
