"""Heads: the fast paths against the estimators, the choice of hyper-parameters, and what can't be fitted."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.datasets import make_classification, make_regression

from molcmim.moleculenet import heads
from molcmim.moleculenet.estimators import CLIP, Standardise
from molcmim.moleculenet.heads import HEADS, CannotFit, choose, grid, make_estimator, predict_with, predictions
from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION

TASKS = (REGRESSION, CLASSIFICATION)


def problem(task: str, n: int = 120, d: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Features with a missing row, a missing entry and a constant column; and targets."""
    if task == REGRESSION:
        x, y = make_regression(n, d, n_informative=8, noise=5.0, random_state=0)
        y = y / 10 + 3.0
    else:
        x, y = make_classification(n, d, n_informative=8, random_state=0)
    x[3] = np.nan
    x[7, 2] = np.inf
    x[:, 5] = 4.2
    return x, y.astype(np.float64)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("head", HEADS)
def test_predictions_equal_the_estimators(head: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work shared over the grid changes nothing; estimators are what `molcmim fit` saves."""
    monkeypatch.setattr(heads, "TREES", 10)
    monkeypatch.setattr(heads, "ROUNDS", (3, 8))
    x, y = problem(task)
    entries = grid(head, task, 80, x.shape[1])
    found = predictions(head, task, x[:80], y[:80], x[80:], entries)
    assert len(found) == len(entries)
    for params, predicted in zip(entries, found, strict=True):
        estimator = make_estimator(head, task, params).fit(x[:80], y[:80])
        expected = predict_with(estimator, task, x[80:])
        assert predicted.shape == (40,)
        tolerance = 5e-3 if head == "ridge" and task == CLASSIFICATION else 1e-6  # solvers stop early
        np.testing.assert_allclose(predicted, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("head", HEADS)
def test_heads_learn_something(head: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "TREES", 50)
    x, y = problem(task, n=300)
    folds = [(np.arange(150), np.arange(150, 200)), (np.arange(50, 200), np.arange(50))]
    params = choose(head, task, x[:200], y[:200], folds)
    (predicted,) = predictions(head, task, x[:200], y[:200], x[200:], [params])
    assert np.corrcoef(predicted, y[200:])[0, 1] > 0.4


def test_wide_grid_has_values_of_its_own() -> None:
    entries = grid("svm", REGRESSION, 100, 50, wide=True)
    assert len(entries) == 16 and {entry["gamma"] * 50 for entry in entries} == {0.1, 0.3, 1.0, 3.0}
    x, y = problem(REGRESSION)
    for params, predicted in zip(entries, predictions("svm", REGRESSION, x, y, x, entries), strict=True):
        expected = make_estimator("svm", REGRESSION, params).fit(x, y).predict(x)
        np.testing.assert_allclose(predicted, expected, rtol=1e-6)


def test_neighbours_never_outnumber_the_rows() -> None:
    assert max(entry["k"] for entry in grid("knn", REGRESSION, 4, 2)) == 3
    assert grid("knn", REGRESSION, 1, 2)[0]["k"] == 1


def test_choose_takes_the_best_of_the_folds() -> None:
    """A target that is noise around a constant wants the strongest penalty, a linear one the weakest."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    folds = [(np.arange(100), np.arange(100, 200)), (np.arange(100, 200), np.arange(100))]
    linear = x @ np.arange(1.0, 6.0)
    noise = rng.normal(size=200)
    assert choose("ridge", REGRESSION, x, linear, folds) == {"alpha": min(heads.ALPHAS)}
    assert choose("ridge", REGRESSION, x, noise, folds)["alpha"] >= 1000
    both = np.stack([linear, np.full(200, np.nan)], axis=1)  # a task without labels has no say
    assert choose("ridge", REGRESSION, x, both, folds) == {"alpha": min(heads.ALPHAS)}


def test_choose_without_any_score_takes_the_middle() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    folds = [(np.arange(10), np.arange(10, 20))]
    y = np.repeat([0.0, 1.0], 10)  # one class to fit on, the other to judge on
    assert choose("svm", CLASSIFICATION, x, y, folds) == grid("svm", CLASSIFICATION, 10, 3)[2]
    assert choose("rf", CLASSIFICATION, x, y, folds) == {}


@pytest.mark.parametrize("head", HEADS)
def test_what_cannot_be_fitted(head: str) -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    entries = grid(head, CLASSIFICATION, 20, 3)
    with pytest.raises(CannotFit, match="one class in the training part"):
        predictions(head, CLASSIFICATION, x, np.ones(20), x, entries)
    with pytest.raises(CannotFit, match="constant target"):
        predictions(head, REGRESSION, x, np.full(20, 2.5), x, grid(head, REGRESSION, 20, 3))
    with pytest.raises(CannotFit, match="1 labelled"):
        predictions(head, REGRESSION, x[:1], np.ones(1), x, grid(head, REGRESSION, 20, 3))


@pytest.mark.parametrize("head", ["svm", "ridge", "xgb", "mlp", "rf", "knn"])
def test_features_that_say_nothing(head: str) -> None:
    y = np.arange(20.0)
    entries = grid(head, REGRESSION, 20, 3)
    with pytest.raises(CannotFit, match=r"vary|features"):
        predictions(head, REGRESSION, np.full((20, 3), np.nan), y, np.ones((2, 3)), entries)
    with pytest.raises(CannotFit, match="vary"):
        predictions(head, REGRESSION, np.ones((20, 3)), y, np.ones((2, 3)), entries)


def test_ctrl_c_interrupts_an_mlp() -> None:
    """Left alone, scikit-learn returns a half-trained network, and its score would be taken for that of a whole one."""
    x = np.random.default_rng(0).normal(size=(8000, 64))
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        for _ in range(3):  # one takes a second or more
            predictions("mlp", REGRESSION, x, x @ np.linspace(0, 1, 64), x[:2], [{}])


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"head: expected one of ridge, svm.*got 'tree'"):
        grid("tree", REGRESSION, 10, 2)
    with pytest.raises(ValueError, match="task: expected"):
        make_estimator("svm", "ranking", {"C": 1.0, "gamma": "auto"})


def test_standardise() -> None:
    x = np.array([[1.0, 7.0, 2.0], [3.0, 7.0, np.nan], [5.0, 7.0, 4.0], [np.nan, np.nan, np.nan]])
    standardise = Standardise().fit(x)
    scaled = standardise.transform(x)
    assert scaled.shape == (4, 2)  # the constant column is gone
    np.testing.assert_allclose(scaled[:, 0], [-np.sqrt(1.5), 0.0, np.sqrt(1.5), 0.0])
    np.testing.assert_allclose(scaled[:, 1], [-1.0, 0.0, 1.0, 0.0])
    assert standardise.transform(np.array([[1e6, 0.0, -np.inf]])).tolist() == [[CLIP, 0.0]]
    filled = Standardise(scale=False).fit_transform(x)
    np.testing.assert_allclose(filled[3], [3.0, 7.0, 3.0])
    np.testing.assert_allclose(filled[0], x[0])
    with pytest.raises(ValueError, match=r"expected shape \(n, 3\), got \(4, 2\)"):
        standardise.transform(x[:, :2])


def test_standardise_survives_overflow() -> None:
    """RDKit's Ipc reaches 1e200, whose square is infinite."""
    x = np.array([[1e200, 1.0], [2.0, 2.0], [1e199, 3.0]])
    assert np.isfinite(Standardise().fit_transform(x)).all()
