"""Metrics: values by hand and by definition, and a NaN with its reason wherever one is undefined."""

from __future__ import annotations

import math
import warnings
from itertools import product

import numpy as np
import pytest

from molcmim.moleculenet.metrics import (
    HIGHER_IS_BETTER,
    MAIN_METRIC,
    METRICS,
    MultiScore,
    masked_scores,
    reasons,
    scores,
)

NAN = float("nan")
ONE_CLASS = "one class in the test part"
UNFITTED = "no prediction: the head could not be fitted"


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_regression_by_hand() -> None:
    # errors 1, 0, -2; mean of y 2, so R2 = 1 - 5 / 2
    found = scores([1.0, 2.0, 3.0], [2.0, 2.0, 1.0], "regression")
    assert found == pytest.approx({"rmse": math.sqrt(5 / 3), "mae": 1.0, "r2": -1.5})
    assert list(found) == ["rmse", "mae", "r2"]
    assert scores([1.0, 2.0, 3.0], [2.0, 2.0, 1.0], "regression", ["mse"]) == pytest.approx({"mse": 5 / 3})
    assert scores([1.0, 2.0], [1.0, 2.0], "regression") == {"rmse": 0.0, "mae": 0.0, "r2": 1.0}
    assert all(type(value) is float for value in found.values())


def test_classification_by_hand() -> None:
    # pairs (0.4, 0.35), (0.8, 0.35) of four are in order, (0.4, 0.1), (0.8, 0.1) too but for 0.35 < 0.4
    found = scores([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], "classification")
    assert found == pytest.approx({"roc_auc": 0.75, "pr_auc": 0.5 * 1 + 0.5 * 2 / 3})
    assert scores([0, 1, 0, 1], [0.0] * 4, "classification") == pytest.approx({"roc_auc": 0.5, "pr_auc": 0.5})


def test_roc_auc_is_the_share_of_pairs_in_order() -> None:
    random = np.random.default_rng(0)
    y, p = random.integers(0, 2, 60), random.integers(0, 12, 60) / 4  # many ties
    pairs = [np.sign(a - b) / 2 + 0.5 for a, b in product(p[y == 1], p[y == 0])]
    assert scores(y, p, "classification", ["roc_auc"])["roc_auc"] == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize(
    ("task", "y", "p", "expected"),
    [
        ("classification", [1, 1, 1], [0.1, 0.2, 0.3], {"roc_auc": ONE_CLASS, "pr_auc": ONE_CLASS}),
        ("classification", [0], [0.1], {"roc_auc": ONE_CLASS, "pr_auc": ONE_CLASS}),
        ("classification", [], [], dict.fromkeys(("roc_auc", "pr_auc"), "no measured value in the test part")),
        ("classification", [0, 1], [NAN, NAN], {"roc_auc": UNFITTED, "pr_auc": UNFITTED}),
        ("regression", [], [], dict.fromkeys(("rmse", "mae", "r2"), "no measured value in the test part")),
        ("regression", [1.5], [1.0], {"r2": "fewer than two rows in the test part"}),
        ("regression", [0.1] * 3, [1.0, 2.0, 3.0], {"r2": "all measured values in the test part are equal"}),
        ("regression", [1.0, 2.0], [NAN, NAN], dict.fromkeys(("rmse", "mae", "r2"), UNFITTED)),
        ("regression", [1.0, 2.0], [NAN, 2.0],
         dict.fromkeys(("rmse", "mae", "r2"), "1 of 2 predictions are not finite numbers")),
        ("regression", [1.0, 2.0], [np.inf, -np.inf],
         dict.fromkeys(("rmse", "mae", "r2"), "2 of 2 predictions are not finite numbers")),
        ("regression", [1.0, 2.0], [1.0, 1.0], {}),
    ],
)  # fmt: skip
def test_undefined_is_nan_with_a_reason(task: str, y: list[float], p: list[float], expected: dict[str, str]) -> None:
    found = scores(y, p, task)
    assert reasons(y, p, task) == expected
    assert {name for name, value in found.items() if math.isnan(value)} == set(expected)
    assert set(found) == set(METRICS[task])


def test_a_diverged_head_has_an_infinite_error_and_no_warning() -> None:
    assert scores([1.0, 2.0], [1e300, 1.0], "regression", ["rmse", "mse"]) == {"rmse": math.inf, "mse": math.inf}


@pytest.mark.parametrize(
    ("y", "p", "task", "metrics", "message"),
    [
        ([1.0, NAN], [1.0, 2.0], "regression", None, "y_true: expected finite numbers, got nan"),
        ([0, 2], [1.0, 2.0], "classification", None, r"y_true: expected classes 0 and 1, got 2\.0"),
        ([1.0], [1.0, 2.0], "regression", None, r"expected two \(n,\) arrays of one length, got \(1,\) and \(2,\)"),
        ([[1.0]], [[1.0]], "regression", None, r"got \(1, 1\) and \(1, 1\)"),
        ([1.0], [1.0], "ranking", None, "task: expected 'regression' or 'classification', got 'ranking'"),
        ([1.0], [1.0], "classification", ["rmse"], "expected some of roc_auc, pr_auc for classification, got 'rmse'"),
    ],
)
def test_scores_refuses(y: list, p: list, task: str, metrics: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scores(y, p, task, metrics)


def test_masked_scores_of_several_tasks() -> None:
    y = np.array([[0, 1, NAN, 1], [1, 1, NAN, 0], [0, NAN, NAN, 1], [1, 1, NAN, 0]])
    p = np.array([[0.1, 0.3, 0.2, NAN], [0.9, 0.1, 0.1, NAN], [0.95, 0.2, 0.3, NAN], [0.8, 0.4, 0.2, NAN]])
    found = masked_scores(y, p, "classification")
    assert isinstance(found, MultiScore)
    assert found.average == pytest.approx({"roc_auc": 0.5, "pr_auc": 0.5 * 1 / 2 + 0.5 * 2 / 3})
    assert found.n_tasks == {"roc_auc": 1, "pr_auc": 1}
    assert [math.isnan(task["roc_auc"]) for task in found.per_task] == [False, True, True, True]
    assert found.note == (
        "roc_auc, pr_auc: 3 of 4 tasks left out (1: one class in the test part; "
        "1: no measured value in the test part; 1: no prediction: the head could not be fitted)"
    )


def test_masked_scores_average_over_the_tasks_that_have_a_value() -> None:
    y = np.array([[1.0, 5.0, NAN], [2.0, 5.0, 1.0], [3.0, 5.0, NAN]])
    p = np.array([[1.0, 6.0, 0.0], [2.0, 6.0, 4.0], [6.0, 6.0, 0.0]])
    found = masked_scores(y, p, "regression")
    assert found.average == pytest.approx({"rmse": (math.sqrt(3) + 1 + 3) / 3, "mae": 5 / 3, "r2": -3.5})
    assert found.n_tasks == {"rmse": 3, "mae": 3, "r2": 1}
    assert found.note == (
        "r2: 2 of 3 tasks left out (1: all measured values in the test part are equal; "
        "1: fewer than two rows in the test part)"
    )
    for column in range(3):
        known = ~np.isnan(y[:, column])
        assert found.per_task[column] == pytest.approx(
            scores(y[known, column], p[known, column], "regression"), nan_ok=True
        )


def test_masked_scores_of_one_task() -> None:
    found = masked_scores([[0.0], [1.0]], [[0.2], [0.3]], "classification")
    assert (found.average, found.n_tasks, found.note) == (
        {"roc_auc": 1.0, "pr_auc": 1.0},
        {"roc_auc": 1, "pr_auc": 1},
        "",
    )
    found = masked_scores([[0.0], [0.0]], [[0.2], [0.3]], "classification", ["roc_auc"])
    assert math.isnan(found.average["roc_auc"])
    assert (found.n_tasks, found.note) == ({"roc_auc": 0}, "roc_auc: one class in the test part")
    with pytest.raises(ValueError, match=r"expected two \(n, t\) arrays of one shape, got \(2,\) and \(2,\)"):
        masked_scores([0.0, 1.0], [0.0, 1.0], "regression")
    with pytest.raises(ValueError, match="y_true: expected finite numbers, got inf"):
        masked_scores([[np.inf]], [[1.0]], "regression")


def test_every_metric_has_a_direction() -> None:
    assert {**HIGHER_IS_BETTER} == {
        "rmse": False, "mae": False, "mse": False, "r2": True, "roc_auc": True, "pr_auc": True
    }  # fmt: skip
    assert {**MAIN_METRIC} == {"regression": "rmse", "classification": "roc_auc"}
    assert {name for names in METRICS.values() for name in names} == set(HIGHER_IS_BETTER) - {"mse"}
