"""Intervals and comparisons: by hand, against published tables, against slow loops, and by simulation."""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest

from molcmim.moleculenet import statistics
from molcmim.moleculenet.metrics import scores
from molcmim.moleculenet.statistics import (
    Comparison,
    Interval,
    average_ranks,
    bootstrap_interval,
    corrected_interval,
    critical_difference,
    friedman,
    paired,
    paired_bootstrap,
    standardised_scores,
)

NAN = float("nan")
CLASSES = ("roc_auc", "pr_auc")


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --------------------------------------------------------------------------------- over splits


def test_corrected_interval_by_hand() -> None:
    # mean 3, s^2 = 2.5, (1/5 + 20/80) * 2.5 = 1.125, t(0.975, 4) = 2.776445
    found = corrected_interval([1.0, 2.0, 3.0, 4.0, 5.0], n_train=80, n_test=20)
    half = 2.776445105 * math.sqrt(1.125)
    assert found == pytest.approx((3.0, 3 - half, 3 + half))
    # t(0.95, 4) = 2.131847
    narrow = corrected_interval([1.0, 2.0, 3.0, 4.0, 5.0], 80, 20, level=0.9)
    assert narrow.high - 3 == pytest.approx(2.131846786 * math.sqrt(1.125))


def test_corrected_interval_with_few_scores() -> None:
    assert corrected_interval([1.0, NAN, 2.0, 4.0, NAN], 8, 2) == corrected_interval([1.0, 2.0, 4.0], 8, 2)
    assert corrected_interval([0.1] * 3, 8, 2) == pytest.approx((0.1, NAN, NAN), nan_ok=True)
    assert corrected_interval([0.0] * 3, 8, 2) == Interval(0.0, 0.0, 0.0)
    assert paired([0.9, 0.9], [0.8, 0.8], 80, 20, True).verdict == "tie"  # no certainty from two equal differences
    assert corrected_interval([NAN, 0.7], 8, 2) == pytest.approx((0.7, NAN, NAN), nan_ok=True)
    assert corrected_interval([NAN, NAN], 8, 2) == pytest.approx((NAN, NAN, NAN), nan_ok=True)
    assert corrected_interval([], 8, 2) == pytest.approx((NAN, NAN, NAN), nan_ok=True)
    assert corrected_interval([1.0, math.inf], 8, 2) == pytest.approx((math.inf, NAN, NAN), nan_ok=True)


def test_corrected_interval_refuses() -> None:
    with pytest.raises(ValueError, match="n_train and n_test: expected positive numbers, got 0 and 2"):
        corrected_interval([1.0], 0, 2)
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1, got 95"):
        corrected_interval([1.0], 8, 2, level=95)
    with pytest.raises(ValueError, match=r"values: expected an array with 1 axes, got shape \(1, 1\)"):
        corrected_interval([[1.0]], 8, 2)


def test_paired_verdicts_follow_the_metric() -> None:
    ours, theirs = np.array([0.50, 0.52, 0.51, 0.53, 0.49]), np.array([0.60, 0.61, 0.62, 0.62, 0.60])
    found = paired(ours, theirs, 80, 20, higher_is_better=False)
    assert found[:3] == pytest.approx(corrected_interval(ours - theirs, 80, 20))
    assert found.high < 0
    assert found.verdict == "ahead"
    assert paired(ours, theirs, 80, 20, higher_is_better=True).verdict == "behind"
    assert paired(theirs, ours, 80, 20, higher_is_better=True).verdict == "ahead"
    assert paired(theirs, ours, 80, 20, higher_is_better=False).verdict == "behind"
    # one split against the others: the interval holds 0
    assert paired([0.5, 0.5, 0.9], [0.6, 0.6, 0.6], 80, 20, higher_is_better=True).verdict == "tie"


def test_paired_without_evidence_is_a_tie() -> None:
    assert paired([0.1, 0.7, 0.3], [0.1, 0.7, 0.3], 8, 2, True) == Comparison(0.0, 0.0, 0.0, "tie")
    one = paired([0.9, NAN], [0.1, 0.5], 8, 2, True)
    assert one[:3] == pytest.approx((0.8, NAN, NAN), nan_ok=True)
    assert one.verdict == "tie"
    assert paired([NAN], [0.5], 8, 2, True).verdict == "tie"
    assert paired([math.inf], [math.inf], 8, 2, True).verdict == "tie"
    # a split that one of them lacks does not count
    found = paired([1.0, 2.0, NAN, 4.0], [0.5, NAN, 1.0, 1.0], 8, 2, True)
    assert found[:3] == pytest.approx(corrected_interval([0.5, 3.0], 8, 2))
    with pytest.raises(ValueError, match="ours and theirs: expected scores of the same splits, got 2 and 1"):
        paired([1.0, 2.0], [1.0], 8, 2, True)


def test_overlapping_splits_need_the_correction() -> None:
    """Two equally good methods on 1,500 data sets of 50 molecules, ten random 80/20 splits each.

    The molecules' differences have mean 0, so a 95 % interval should exclude 0 in 5 % of the sets.
    """
    random = np.random.default_rng(0)
    k, j, n, n_test = 1500, 10, 50, 10
    difference = random.normal(size=(k, 1, n))
    held_out = random.random((k, j, n)).argsort(axis=2)[:, :, :n_test]
    scored = np.take_along_axis(difference, held_out, axis=2).mean(axis=2)  # (k, j)
    wrong_plain = wrong_corrected = 0
    for values in scored:
        corrected = corrected_interval(values, n - n_test, n_test)
        half = (corrected.high - corrected.low) / 2 * math.sqrt((1 / j) / (1 / j + n_test / (n - n_test)))
        wrong_corrected += not corrected.low < 0 < corrected.high
        wrong_plain += abs(corrected.mean) > half
    assert wrong_plain / k > 0.2
    assert 0.03 < wrong_corrected / k < 0.07


# ----------------------------------------------------------------------------- over molecules


def make_test_part(metric: str, n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measured values and two predictions with ties; the first is the better one."""
    random = np.random.default_rng(seed)
    y = random.normal(size=n)
    near, far = np.round(y + random.normal(size=n) / 2, 1), np.round(y + 2 * random.normal(size=n), 1)
    return ((y > 0.8).astype(float) if metric in CLASSES else y), near, far


def slow_resamples(y: np.ndarray, p: np.ndarray, metric: str, b: int, seed: int) -> np.ndarray:
    task = "classification" if metric in CLASSES else "regression"
    drawn = np.random.default_rng(seed).integers(0, len(y), size=(b, len(y)))
    return np.array([scores(y[rows], p[rows], task, [metric])[metric] for rows in drawn])


@pytest.mark.parametrize("metric", ["rmse", "mae", "mse", "r2", *CLASSES])
@pytest.mark.parametrize("n", [3, 40])
def test_bootstrap_is_the_slow_loop(metric: str, n: int) -> None:
    y, p, other = make_test_part(metric, n, seed=3)
    if n == 3:  # many resamples of three molecules have one class, or one value
        y = np.array([0.0, 1.0, 1.0])
    slow = slow_resamples(y, p, metric, 60, seed=1)
    assert np.isnan(slow).any() == (n == 3 and metric in ("r2", *CLASSES))
    task = "classification" if metric in CLASSES else "regression"
    found = bootstrap_interval(y, p, metric, n_resamples=60, seed=1, level=0.9)
    assert found.mean == pytest.approx(scores(y, p, task, [metric])[metric])
    assert found[1:] == pytest.approx(tuple(np.nanpercentile(slow, [5, 95])), abs=1e-9)

    slow = slow - slow_resamples(y, other, metric, 60, seed=1)
    compared = paired_bootstrap(y, p, other, metric, n_resamples=60, seed=1, level=0.9)
    assert compared[1:3] == pytest.approx(tuple(np.nanpercentile(slow, [5, 95])), abs=1e-9)
    assert compared.difference == pytest.approx(found.mean - scores(y, other, task, [metric])[metric])


@pytest.mark.parametrize("metric", ["rmse", "mae", "mse", "r2", *CLASSES])
def test_paired_bootstrap_verdicts(metric: str) -> None:
    y, near, far = make_test_part(metric, 200)
    assert paired_bootstrap(y, near, far, metric).verdict == "ahead"
    assert paired_bootstrap(y, far, near, metric).verdict == "behind"
    assert paired_bootstrap(y, near, near, metric) == Comparison(0.0, 0.0, 0.0, "tie")


def test_bootstrap_interval_of_rmse_covers_as_theory_says() -> None:
    random = np.random.default_rng(1)
    error = random.normal(size=1500)
    found = bootstrap_interval(np.zeros(1500), error, "rmse")
    assert (found.high - found.low) / 2 == pytest.approx(1.96 / math.sqrt(2 * 1500), rel=0.1)  # normal errors


def test_bootstrap_in_blocks_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p, _ = make_test_part("roc_auc", 50)
    whole = bootstrap_interval(y, p, "roc_auc", n_resamples=500)
    assert bootstrap_interval(y, p, "roc_auc", n_resamples=500) == whole
    assert bootstrap_interval(y, p, "roc_auc", n_resamples=500, seed=1) != whole
    monkeypatch.setattr(statistics, "MAX_CELLS", 170)  # three resamples at once, two in the last block
    assert bootstrap_interval(y, p, "roc_auc", n_resamples=500) == pytest.approx(whole, abs=0.02)


def test_bootstrap_of_what_is_undefined() -> None:
    nothing = pytest.approx((NAN, NAN, NAN), nan_ok=True)
    assert bootstrap_interval([1.0, 1.0], [0.1, 0.2], "roc_auc") == nothing
    assert bootstrap_interval([], [], "rmse") == nothing
    assert bootstrap_interval([NAN], [0.1], "rmse") == nothing
    assert bootstrap_interval([1.0, 2.0], [NAN, 1.0], "rmse") == nothing
    compared = paired_bootstrap([1.0, 2.0], [1.0, 2.0], [NAN, NAN], "rmse")
    assert compared[:3] == nothing
    assert compared.verdict == "tie"
    # rows that were not measured are left out, whatever is predicted for them
    y, p, _ = make_test_part("rmse")
    assert bootstrap_interval([NAN, *y], [NAN, *p], "rmse") == bootstrap_interval(y, p, "rmse")
    assert bootstrap_interval([0.0, 1.0], [0.2, 0.3], "roc_auc", n_resamples=1, seed=1).mean == 1.0


def test_bootstrap_refuses() -> None:
    with pytest.raises(ValueError, match="metric: expected one of rmse, mae, mse, r2, roc_auc, pr_auc, got 'f1'"):
        bootstrap_interval([1.0], [1.0], "f1")
    with pytest.raises(ValueError, match="n_resamples: expected at least 1, got 0"):
        bootstrap_interval([1.0], [1.0], "rmse", n_resamples=0)
    with pytest.raises(ValueError, match="measured and predicted: expected one length, got 1 and 2"):
        paired_bootstrap([1.0], [1.0], [1.0, 2.0], "rmse")
    with pytest.raises(ValueError, match=r"y_true: expected classes 0 and 1, got 0\.5"):
        bootstrap_interval([0.5, 1.0], [1.0, 2.0], "roc_auc")


def test_a_thousand_resamples_take_less_than_a_second() -> None:
    y, p, _ = make_test_part("roc_auc", 1500)
    start = time.process_time()
    bootstrap_interval(y, p, "roc_auc")
    assert time.process_time() - start < 1.0


# ------------------------------------------------------------------------------ over data sets


def test_average_ranks_by_hand() -> None:
    table = [[0.5, 0.7, 0.6], [0.9, 0.8, 0.9], [0.7, 0.7, 0.7]]  # RMSE, AUC, AUC
    ranks = average_ranks(table, [False, True, True])
    assert ranks.tolist() == pytest.approx([(1 + 1.5 + 2) / 3, (3 + 3 + 2) / 3, (2 + 1.5 + 2) / 3])
    assert average_ranks([[1.0, 2.0]], True).tolist() == [2.0, 1.0]
    assert average_ranks([[1.0, 2.0]], [False]).tolist() == [1.0, 2.0]


def test_friedman_by_hand() -> None:
    # ranks 1, 2, 3 on all four sets: 12 k / (m (m + 1)) * (sum R^2 - m (m + 1)^2 / 4) = 4 * (14 - 12) = 8, p = e^-4
    table = np.array([[0.9, 0.8, 0.7]] * 3 + [[0.1, 0.2, 0.3]])
    found = friedman(table, [True, True, True, False])
    assert found == pytest.approx((8.0, math.exp(-4)))
    assert friedman(np.full((4, 3), 0.1), True) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("level", "quantiles"),
    [
        (0.95, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.90, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_critical_difference_has_the_quantiles_of_demsars_table_5a(level: float, quantiles: list[float]) -> None:
    for m, q in zip(range(2, 11), quantiles, strict=True):
        assert critical_difference(m, 14, level) == pytest.approx(q * math.sqrt(m * (m + 1) / (6 * 14)), abs=1e-3)


def test_critical_difference_of_demsars_example() -> None:
    # four classifiers on 14 sets, section 3.2.2: CD = 2.569 * sqrt(4 * 5 / (6 * 14)) = 1.25, at 0.10 it is 1.12
    assert round(critical_difference(4, 14), 2) == 1.25
    assert round(critical_difference(4, 14, 0.90), 2) == 1.12


def test_standardised_scores_by_hand() -> None:
    # z of 1, 2, 3: -1.2247, 0, 1.2247; the second set counts the other way round; the third has no spread
    z = math.sqrt(1.5)
    table = [[1.0, 2.0, 3.0], [30.0, 10.0, 20.0], [0.1, 0.1, 0.1]]
    found = standardised_scores(table, [True, False, True])
    assert found.tolist() == pytest.approx([(-z - z) / 3, z / 3, z / 3])
    assert standardised_scores([[0.1] * 7], True).tolist() == [0.0] * 7


def test_comparisons_over_sets_refuse_what_is_incomplete() -> None:
    for function in (average_ranks, friedman, standardised_scores):
        with pytest.raises(ValueError, match="table: expected finite scores, got nan in set 1, method 2"):
            function([[1.0, 2.0, 3.0], [1.0, 2.0, NAN]], True)
        with pytest.raises(ValueError, match=r"higher_is_better: expected one or 2 \(one a set\), got shape \(3,\)"):
            function([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], [True, True, False])
        with pytest.raises(ValueError, match=r"table: expected at least one set and method, got shape \(0, 3\)"):
            function(np.zeros((0, 3)), True)
    with pytest.raises(ValueError, match="expected at least 2 sets and 3 methods, got 1 and 3"):
        friedman([[1.0, 2.0, 3.0]], True)
    with pytest.raises(ValueError, match="m and k: expected at least 2 methods and 1 set, got 1 and 3"):
        critical_difference(1, 3)
