"""How sure a difference is: intervals over splits, intervals over test molecules, comparisons over data sets.

Over splits: random splits of one set share most of their rows, so scores of J splits are not J independent ones and a
plain t interval is too narrow. `corrected_interval` and `paired` use the correction of Nadeau & Bengio (Machine
Learning 2003, 52, 239), in which the variance of the mean of J scores is

    (1 / J + n_test / n_train) * s^2,    s^2 the scores' variance, t with J - 1 degrees of freedom.

Over test molecules, for a protocol with one split: `bootstrap_interval` and `paired_bootstrap` resample the test rows.
They tell how much the choice of test molecules matters, not what another training part would change.

Over data sets: ranks, Friedman's test and the critical difference of Nemenyi, as Demšar recommends (Journal of Machine
Learning Research 2006, 7, 1).
"""

# Axes: J splits, n test molecules, b resamples, k data sets, m methods.

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.moleculenet.metrics import HIGHER_IS_BETTER, METRICS, scores
from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION, Array

AHEAD, BEHIND, TIE = "ahead", "behind", "tie"
MAX_CELLS = 1 << 22  #: resamples x molecules held at once: 32 MB a table of float64


class Interval(NamedTuple):
    """A score and where it lies with the level asked for; NaN ends: that can't be told."""

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """Ours minus theirs."""

    difference: float
    low: float
    high: float
    verdict: str  #: "ahead" or "behind" (ours, whatever the metric's sign) if 0 is outside the interval, else "tie"


class Friedman(NamedTuple):
    """Friedman's test that all methods are equally good."""

    statistic: float  #: chi squared, m - 1 degrees of freedom
    p: float


def corrected_interval(values: npt.ArrayLike, n_train: float, n_test: float, level: float = 0.95) -> Interval:
    """Mean over overlapping splits, with the interval of Nadeau & Bengio (equation above).

    Parameters
    ----------
    values
        (J,) one score a split. NaN: undefined in that split, which then doesn't count.
    n_train, n_test
        Rows in each part (their mean, where splits differ).
    level
        Share of such intervals that should hold the true value.

    Returns
    -------
    Interval
        One split has no spread: with J = 1 the ends are NaN, and so they are where all values are equal (but for
        zeros, whose interval is [0, 0]). With J = 0 so is the mean.

    Raises
    ------
    ValueError
        If `values` isn't a list of numbers, a size isn't positive, or `level` isn't between 0 and 1.
    """
    given = _numbers(values, "values", 1)
    if not (n_train > 0 and n_test > 0):
        raise ValueError(f"n_train and n_test: expected positive numbers, got {n_train} and {n_test}")
    _check_level(level)
    known = given[~np.isnan(given)]
    j = len(known)
    if j == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(known.mean())
    if j == 1 or not np.isfinite(known).all():
        return Interval(mean, float("nan"), float("nan"))
    if np.ptp(known) <= 1e-12 * max(1.0, abs(mean)):  # rounding tells differences of equal numbers apart
        end = 0.0 if abs(mean) <= 1e-12 else float("nan")  # equal scores of a few splits are no certainty
        return Interval(float(known[0]), end, end)
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, j - 1) * np.sqrt((1 / j + n_test / n_train) * known.var(ddof=1)))
    return Interval(mean, mean - half, mean + half)


def paired(
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    n_train: float,
    n_test: float,
    higher_is_better: bool,
    level: float = 0.95,
) -> Comparison:
    """Compare two methods on the same splits, by the `corrected_interval` of their differences.

    Parameters
    ----------
    ours, theirs
        (J,) scores, in the same order of splits. A split counts if both are known.

    Returns
    -------
    Comparison
        "tie" also where there is no interval, so with fewer than two splits.

    Raises
    ------
    ValueError
        If the lists aren't of one length, and as for `corrected_interval`.
    """
    a, b = _numbers(ours, "ours", 1), _numbers(theirs, "theirs", 1)
    if a.shape != b.shape:
        raise ValueError(f"ours and theirs: expected scores of the same splits, got {len(a)} and {len(b)}")
    with np.errstate(invalid="ignore"):  # inf - inf: not known
        interval = corrected_interval(a - b, n_train, n_test, level)
    return _compare(interval, higher_is_better)


def bootstrap_interval(
    measured: npt.ArrayLike,
    predicted: npt.ArrayLike,
    metric: str,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """A metric on a test part, with the percentile interval over resampled test molecules.

    Parameters
    ----------
    measured, predicted
        (n,) as for `molcmim.moleculenet.metrics.scores`; rows with a NaN `measured` are left out.
    metric
        One of `HIGHER_IS_BETTER`.
    seed
        Equal seeds and n resample the same rows.

    Returns
    -------
    Interval
        `mean` is the metric of the test part itself. Resamples in which it is undefined don't count; all NaN where it
        is undefined in the test part.

    Raises
    ------
    ValueError
        As for `scores`, or if there is no such metric, no resample, or `level` isn't between 0 and 1.
    """
    y, (p,) = _test_part(measured, (predicted,), metric, n_resamples, level)
    whole = scores(y, p, _task(metric), (metric,))[metric]
    if np.isnan(whole):
        return Interval(whole, whole, whole)
    return _percentiles(whole, _resampled(y, [p], metric, n_resamples, seed)[0], level)


def paired_bootstrap(
    measured: npt.ArrayLike,
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    metric: str,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compare two methods on one test part: both on the same resampled molecules.

    Parameters and errors as for `bootstrap_interval`. "tie" also where the metric is undefined.
    """
    y, (a, b) = _test_part(measured, (ours, theirs), metric, n_resamples, level)
    one, two = (scores(y, p, _task(metric), (metric,))[metric] for p in (a, b))
    whole = one - two
    if np.isnan(whole):
        return Comparison(whole, whole, whole, TIE)
    resampled = _resampled(y, [a, b], metric, n_resamples, seed)
    return _compare(_percentiles(whole, resampled[0] - resampled[1], level), HIGHER_IS_BETTER[metric])


def average_ranks(table: npt.ArrayLike, higher_is_better: npt.ArrayLike) -> Array:
    """Mean rank of each method over data sets; 1 is best, ties share their mean rank.

    Parameters
    ----------
    table
        (k, m) scores of m methods on k sets, without NaN: leave out a set, or a method, that isn't complete.
    higher_is_better
        (k,) bool, or one for all.

    Returns
    -------
    Array
        (m,)

    Raises
    ------
    ValueError
        If the shapes don't fit or a score is NaN.
    """
    from scipy.stats import rankdata

    return np.asarray(rankdata(-_oriented(table, higher_is_better), axis=1).mean(axis=0), dtype=np.float64)


def friedman(table: npt.ArrayLike, higher_is_better: npt.ArrayLike) -> Friedman:
    """Friedman's test over k sets and m methods (chi squared; rough for few sets). Parameters as `average_ranks`.

    If all methods tie on every set the statistic is 0 and p is 1.

    Raises
    ------
    ValueError
        As for `average_ranks`, or with fewer than 3 methods or 2 sets.
    """
    oriented = _oriented(table, higher_is_better)
    k, m = oriented.shape
    if m < 3 or k < 2:
        raise ValueError(f"table: expected at least 2 sets and 3 methods, got {k} and {m}")
    if (oriented == oriented[:, :1]).all():
        return Friedman(0.0, 1.0)
    from scipy.stats import friedmanchisquare

    statistic, p = friedmanchisquare(*oriented.T)
    return Friedman(float(statistic), float(p))


def critical_difference(m: int, k: int, level: float = 0.95) -> float:
    """Nemenyi's critical difference: average ranks of m methods over k sets differ if they are further apart.

    q * sqrt(m (m + 1) / (6 k)), q the quantile of the studentised range of m groups over sqrt(2) (Demšar 2006, section
    3.2.2 and table 5a).

    Raises
    ------
    ValueError
        If m < 2, k < 1, or `level` isn't between 0 and 1.
    """
    if m < 2 or k < 1:
        raise ValueError(f"m and k: expected at least 2 methods and 1 set, got {m} and {k}")
    _check_level(level)
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, m, np.inf) / np.sqrt(2) * np.sqrt(m * (m + 1) / (6 * k)))


def standardised_scores(table: npt.ArrayLike, higher_is_better: npt.ArrayLike) -> Array:
    """Mean over sets of each method's z-score within a set; higher is better whatever the metric.

    A set's scores are divided by their standard deviation over the methods (m in the denominator); a set on which
    all methods are equal counts as 0. It depends on which methods are in the table. Parameters and errors as for
    `average_ranks`; returns (m,).
    """
    oriented = _oriented(table, higher_is_better)
    centred = oriented - oriented.mean(axis=1, keepdims=True)
    spread = oriented.std(axis=1, keepdims=True)
    # by comparison, as the standard deviation of equal numbers needn't come out as 0
    equal = (oriented == oriented[:, :1]).all(axis=1, keepdims=True)
    return np.asarray(np.where(equal, 0.0, centred / np.where(equal, 1.0, spread)).mean(axis=0), dtype=np.float64)


def _compare(interval: Interval, higher_is_better: bool) -> Comparison:
    verdict = TIE
    if interval.low > 0 or interval.high < 0:  # NaN is neither
        verdict = AHEAD if (interval.low > 0) == higher_is_better else BEHIND
    return Comparison(*interval, verdict)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")


def _numbers(values: npt.ArrayLike, name: str, axes: int) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != axes:
        raise ValueError(f"{name}: expected an array with {axes} axes, got shape {array.shape}")
    return array


def _oriented(table: npt.ArrayLike, higher_is_better: npt.ArrayLike) -> Array:
    """(k, m) scores, negated where lower is better."""
    array, higher = _numbers(table, "table", 2), np.asarray(higher_is_better, dtype=bool)
    if higher.shape not in ((), (len(array),)):
        raise ValueError(f"higher_is_better: expected one or {len(array)} (one a set), got shape {higher.shape}")
    if not array.size:
        raise ValueError(f"table: expected at least one set and method, got shape {array.shape}")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"table: expected finite scores, got {array[row, column]} in set {row}, method {column}")
    return np.where(higher.reshape(-1, 1), array, -array)


def _task(metric: str) -> str:
    return CLASSIFICATION if metric in METRICS[CLASSIFICATION] else REGRESSION


def _test_part(
    measured: npt.ArrayLike, predictions: tuple[npt.ArrayLike, ...], metric: str, n_resamples: int, level: float
) -> tuple[Array, list[Array]]:
    """The measured rows of a test part, arguments checked."""
    if metric not in HIGHER_IS_BETTER:
        raise ValueError(f"metric: expected one of {', '.join(HIGHER_IS_BETTER)}, got {metric!r}")
    if n_resamples < 1:
        raise ValueError(f"n_resamples: expected at least 1, got {n_resamples}")
    _check_level(level)
    y = _numbers(measured, "measured", 1)
    known = ~np.isnan(y)
    guesses = [_numbers(values, "predicted", 1) for values in predictions]
    for guess in guesses:
        if guess.shape != y.shape:
            raise ValueError(f"measured and predicted: expected one length, got {len(y)} and {len(guess)}")
    return y[known], [guess[known] for guess in guesses]


def _percentiles(whole: float, resampled: Array, level: float) -> Interval:
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return Interval(whole, float("nan"), float("nan"))
    low, high = np.percentile(defined, [50 * (1 - level), 50 * (1 + level)])
    return Interval(whole, float(low), float(high))


def _resampled(y: Array, predictions: list[Array], metric: str, n_resamples: int, seed: int) -> Array:
    """Metric of each prediction on resampled rows: (len(predictions), b); NaN where undefined.

    A resample is how often each molecule was drawn, so that a metric is one weighted formula for many of them.
    """
    n, random = len(y), np.random.default_rng(seed)
    metrics = [_weighted(metric, y, p) for p in predictions]
    blocks = []
    left = n_resamples
    while left:
        b = min(left, max(1, MAX_CELLS // n))
        drawn = random.integers(0, n, size=(b, n)) + n * np.arange(b)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=b * n).reshape(b, n).astype(np.float64)  # (b, n)
        blocks.append(np.array([function(counts) for function in metrics]))
        left -= b
    return np.concatenate(blocks, axis=1)


def _weighted(metric: str, y: Array, p: Array) -> Callable[[Array], Array]:
    """A metric as a function of (b, n) weights that add up to n in each row, giving (b,)."""
    if metric == "mae":
        return lambda w: w @ np.abs(y - p) / len(y)
    if metric == "mse":
        return lambda w: w @ (y - p) ** 2 / len(y)
    if metric == "rmse":
        return lambda w: np.sqrt(w @ (y - p) ** 2 / len(y))
    if metric == "r2":
        return lambda w: _weighted_r2(y, p, w)
    # molecules with equal predictions are one step of the curve: `last` is where each step ends
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
    curve = _weighted_roc_auc if metric == "roc_auc" else _weighted_pr_auc

    def of_curve(w: Array) -> Array:
        w = w[:, order]
        positives = np.cumsum(w * y[order], axis=1)[:, last]  # (b, steps): weight of class 1 down to each step
        negatives = np.cumsum(w * (1 - y[order]), axis=1)[:, last]
        one_class = (positives[:, -1] == 0) | (negatives[:, -1] == 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(one_class, np.nan, curve(positives, negatives))

    return of_curve


def _weighted_r2(y: Array, p: Array, w: Array) -> Array:
    order = np.argsort(y)
    drawn = w[:, order] > 0
    lowest, highest = drawn.argmax(axis=1), len(y) - 1 - drawn[:, ::-1].argmax(axis=1)
    constant = y[order][lowest] == y[order][highest]
    centred = y - y.mean()  # against cancellation
    total = w @ centred**2 - (w @ centred) ** 2 / len(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(constant, np.nan, 1 - w @ (y - p) ** 2 / total)


def _weighted_roc_auc(positives: Array, negatives: Array) -> Array:
    """Area under the steps by trapezia, so a pair with equal predictions counts one half."""
    before = np.pad(positives[:, :-1], ((0, 0), (1, 0)))
    width = np.diff(negatives, axis=1, prepend=0.0)
    return ((positives + before) / 2 * width).sum(axis=1) / (positives[:, -1] * negatives[:, -1])


def _weighted_pr_auc(positives: Array, negatives: Array) -> Array:
    """Average precision: precision at each step times the recall that it adds."""
    precision = np.divide(positives, positives + negatives, out=np.zeros_like(positives), where=positives > 0)
    return (precision * np.diff(positives, axis=1, prepend=0.0)).sum(axis=1) / positives[:, -1]
